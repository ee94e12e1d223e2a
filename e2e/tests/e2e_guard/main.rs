//! Tests the removal guard. A director must keep its services if the API server
//! returns a valid but empty list. A director must also keep its services if
//! the agent connects to another cluster, or if a CustomResourceDefinition is
//! deleted.

mod scene;
mod small;

use e2e::{
    ApiServerAway,
    cluster::{
        Cluster, PATIENCE, chart, condition, start_agent, start_agent_of, upgrade_chart_in,
        wait_for,
    },
    control,
    course::Course,
    eventually, kubectl, kubectl_apply, layout,
    layout::Which,
};

use self::scene::{
    BUDGET, DIRECTOR, SERVICES, Traffic, allow_until, assert_no_more_gone_than_the_budget,
    expect_held, expect_services, in_kernel, release, servers, service, services,
    wait_until_all_are_ready,
};

#[test]
fn an_answer_that_is_empty_cuts_no_more_than_the_budget_until_it_is_released() {
    let _cluster = Cluster::start();
    let admin = admin(Which::First);
    let course = Course::nat();
    let agent = start_agent(&course.director, "director1");
    set_up(&course, "default");
    assert_eq!(condition(DIRECTOR, "RemovalsHeld", "status"), "False");

    // The VirtualServices are deleted and created again. Meanwhile, the kernel
    // keeps every entry whose removal is held.
    let traffic = Traffic::start(&course);
    kubectl(&["delete", "ivs", "--all"]);
    let message = expect_held(&admin, "TooManyRemovals");
    assert!(message.contains("-D -t 192.168.4.5:80"), "{message}");
    agent.wait_for_log("removals held", PATIENCE);
    assert_no_more_gone_than_the_budget(&course);
    let failed = traffic.end();
    assert!(failed.len() <= BUDGET, "beyond the budget: {failed:?}");
    kubectl_apply(&services("default"));
    wait_for(DIRECTOR, "RemovalsHeld", "False");
    expect_services(&course, SERVICES);

    // After the removals are released, the agent removes the held entries.
    kubectl(&["delete", "ivs", "--all"]);
    expect_held(&admin, "TooManyRemovals");
    release_everything(&course, &admin);
}

#[test]
fn deleted_definitions_cut_nothing_until_it_is_released() {
    let _cluster = Cluster::start();
    let admin = admin(Which::First);
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    set_up(&course, "default");
    let traffic = Traffic::start(&course);

    let definitions = [
        "crd/ipvsvirtualservices.ipvs.dev",
        "crd/realservers.ipvs.dev",
    ];
    kubectl(&["delete", definitions[0], definitions[1]]);
    let message = expect_held(&admin, "DefinitionDeleted");
    assert!(message.contains("CustomResourceDefinition"), "{message}");
    traffic.wait_for_a_round();
    assert_eq!(
        in_kernel(&course),
        SERVICES,
        "no service may be removed, not even within the budget"
    );

    // The CustomResourceDefinitions are installed again, but the deleted
    // objects do not come back. The removal guard still holds all removals.
    let crds = chart().join("crds");
    kubectl(&["apply", "--server-side", "-f", &crds.to_string_lossy()]);
    for crd in definitions {
        kubectl(&["wait", crd, "--for=condition=Established", "--timeout=30s"]);
    }
    expect_held(&admin, "TooManyRemovals");
    assert_eq!(traffic.end(), [].into(), "every service answers throughout");
    assert_eq!(in_kernel(&course), SERVICES);

    release_everything(&course, &admin);
}

#[test]
fn a_deleted_namespace_cuts_no_more_than_the_budget_until_it_is_released() {
    let _cluster = Cluster::start();
    let admin = admin(Which::First);
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    control::start_namespace_controller();
    kubectl(&["create", "namespace", "shop"]);
    set_up(&course, "shop");
    let traffic = Traffic::start(&course);

    // kubectl returns once the namespace and everything in it are deleted.
    kubectl(&["delete", "namespace", "shop"]);
    assert_eq!(kubectl(&["get", "ivs,irs", "-A", "-o", "name"]), "");
    expect_held(&admin, "TooManyRemovals");
    assert_no_more_gone_than_the_budget(&course);
    let failed = traffic.end();
    assert!(failed.len() <= BUDGET, "beyond the budget: {failed:?}");

    release_everything(&course, &admin);
}

#[test]
fn an_emptied_etcd_cuts_nothing_until_it_is_released() {
    let mut cluster = Cluster::start();
    let admin = admin(Which::First);
    let course = Course::nat();
    let mut agent = start_agent_of(Which::First, &course.director);
    set_up(&course, "default");
    let traffic = Traffic::start(&course);

    // The agent keeps running while the API server loses all objects. The API
    // server comes back without our CustomResourceDefinitions. Then the
    // CustomResourceDefinitions are installed again, without objects.
    let away = ApiServerAway::begin_and_lose_everything();
    agent.wait_for_log("Trying again", PATIENCE);
    drop(away);
    traffic.wait_for_a_round();
    cluster.install_again();
    let message = expect_held(&admin, "OtherCluster");
    assert!(message.contains("etcd was emptied"), "{message}");
    traffic.wait_for_a_round();

    // A new agent starts after the API server has lost its objects.
    agent.kill();
    let agent = start_agent_of(Which::First, &course.director);
    agent.wait_for_log("Every removal is held", PATIENCE);
    expect_held(&admin, "OtherCluster");
    assert_eq!(traffic.end(), [].into(), "every service answers throughout");
    assert_eq!(in_kernel(&course), SERVICES);

    release_everything(&course, &admin);
}

#[test]
fn the_kubeconfig_of_another_cluster_cuts_nothing_until_it_is_released() {
    let _cluster = Cluster::start();
    control::start_other_cluster();
    upgrade_chart_in(Which::Other);
    let course = Course::nat();
    let mut agent = start_agent_of(Which::First, &course.director);
    set_up(&course, "default");
    let traffic = Traffic::start(&course);

    agent.kill();
    let mut agent = start_agent_of(Which::Other, &course.director);
    let other = admin(Which::Other);
    let message = expect_held(&other, "OtherCluster");
    for cluster in [Which::First, Which::Other] {
        let uid = kubectl(&[
            "get",
            "namespace/kube-system",
            "-o",
            "jsonpath={.metadata.uid}",
            "--kubeconfig",
            &admin(cluster),
        ]);
        assert!(message.contains(&uid), "{cluster:?} {uid} in: {message}");
    }

    // The removal guard does not hold creations. The agent creates a service
    // that exists only in the other cluster.
    let manifest = layout::file("other.yaml");
    std::fs::write(&manifest, service("default", 9000, "wrr")).expect("a file of the lab");
    kubectl(&[
        "apply",
        "-f",
        &manifest.to_string_lossy(),
        "--kubeconfig",
        &other,
    ]);
    expect_services(&course, SERVICES + 1);

    // An administrator may have chosen the other cluster's kubeconfig by
    // mistake. When the agent connects to the first cluster again, no service
    // is missing.
    agent.kill();
    kubectl(&["delete", DIRECTOR]);
    let mut agent = start_agent_of(Which::First, &course.director);
    expect_services(&course, SERVICES);
    wait_for(DIRECTOR, "RemovalsHeld", "False");
    assert_eq!(traffic.end(), [].into(), "every service answers throughout");

    // The agent connects to the other cluster again. This time, an
    // administrator intends the change and releases the removals.
    agent.kill();
    kubectl(&["delete", DIRECTOR, "--kubeconfig", &other]);
    let _agent = start_agent_of(Which::Other, &course.director);
    expect_services(&course, SERVICES + 1);
    expect_held(&other, "OtherCluster");
    allow_until(&other, "2099-01-01T00:00:00Z");
    eventually("a permission for decades to be ignored", PATIENCE, || {
        let message = expect_held(&other, "OtherCluster");
        match message.contains("more than a day ahead") {
            true => Ok(()),
            false => Err(message),
        }
    });
    expect_services(&course, SERVICES + 1);
    release(&course, &other);
    expect_services(&course, 1);
    eventually("nothing to be held in the other cluster", PATIENCE, || {
        let args = ["get", DIRECTOR, "-o", "yaml", "--kubeconfig", &other];
        let director = kubectl(&args);
        match director.contains("reason: NothingHeld") {
            true => Ok(()),
            false => Err(director),
        }
    });
}

/// Creates 40 VirtualServices, and waits until each VirtualService is Ready.
#[track_caller]
fn set_up(course: &Course, namespace: &str) {
    kubectl_apply(&servers(namespace));
    kubectl_apply(&services(namespace));
    wait_until_all_are_ready(namespace);
    expect_services(course, SERVICES);
}

fn admin(cluster: Which) -> String {
    layout::admin_kubeconfig(cluster)
        .to_string_lossy()
        .into_owned()
}

/// Releases the held removals, and waits until the agent has removed all
/// services.
#[track_caller]
fn release_everything(course: &Course, kubeconfig: &str) {
    release(course, kubeconfig);
    expect_services(course, 0);
    wait_for(DIRECTOR, "RemovalsHeld", "False");
}
