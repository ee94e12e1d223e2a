//! Tests that the API server gives the operator's requests the chart's shares
//! (API Priority and Fairness), and not those of all service accounts.

use e2e::{
    cluster::{Cluster, DIRECTORS_NAMESPACE, NAMESPACE, PATIENCE, kubeconfig_of_director},
    control::{kubeconfig_of_service_account, try_kubectl_with_input},
    eventually, kubectl, kubectl_apply,
};

#[test]
fn renewals_the_controller_and_the_agents_do_not_wait_for_each_other() {
    let _cluster = Cluster::start();
    let agent = kubeconfig_of_director("lb-1");
    let controller = kubeconfig_of_service_account(NAMESPACE, "ipvs-controller");
    let director =
        "{apiVersion: ipvs.dev/v1alpha1, kind: Director, metadata: {name: lb-1}, spec: {}}";
    kubectl_apply(director);
    let leases = "/apis/coordination.k8s.io/v1/namespaces";
    let servers = "/apis/ipvs.dev/v1alpha1/realservers";
    let of_agent = format!("{leases}/{DIRECTORS_NAMESPACE}/leases/lb-1");
    let of_leader = format!("{leases}/{NAMESPACE}/leases/ipvs-controller");
    let report = "apply --server-side --subresource=status --validate=false -f -";
    for (who, kubeconfig, request, schema) in [
        (
            "an agent's Lease",
            &agent,
            format!("get --raw {of_agent}"),
            "ipvs-leases",
        ),
        (
            "the leader's Lease",
            &controller,
            format!("get --raw {of_leader}"),
            "ipvs-leases",
        ),
        (
            "an agent's report",
            &agent,
            report.to_owned(),
            "ipvs-reports",
        ),
        (
            "an agent",
            &agent,
            format!("get --raw {servers}"),
            "ipvs-agents",
        ),
        (
            "the controller",
            &controller,
            format!("get --raw {servers}"),
            "ipvs-controller",
        ),
    ] {
        let uid = [
            "get",
            "flowschema",
            schema,
            "-o",
            "jsonpath={.metadata.uid}",
        ];
        let uid = kubectl(&uid);
        let kubeconfig = kubeconfig.to_str().expect("a path of the lab");
        // The API server takes a moment to learn a new schema.
        eventually(
            &format!("{who} to have the share {schema}"),
            PATIENCE,
            || {
                // At this level, kubectl logs the headers of each answer. One of
                // them has the UID of the FlowSchema.
                let mut args = vec!["--kubeconfig", kubeconfig, "-v=8"];
                args.extend(request.split(' '));
                let asked = try_kubectl_with_input(&args, director);
                match asked.stderr.contains(&uid) {
                    true => Ok(()),
                    false => Err(format!("no UID {uid} in {}", asked.stderr)),
                }
            },
        );
    }
}
