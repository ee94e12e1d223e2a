//! Tests that the API server gives the operator's requests the chart's shares
//! (API Priority and Fairness), and not those of all service accounts.

use e2e::{
    cluster::{Cluster, DIRECTORS_NAMESPACE, NAMESPACE, PATIENCE, kubeconfig_of_director},
    control::{kubeconfig_of_service_account, try_kubectl},
    eventually, kubectl,
};

#[test]
fn renewals_the_controller_and_the_agents_do_not_wait_for_each_other() {
    let _cluster = Cluster::start();
    let agent = kubeconfig_of_director("lb-1");
    let controller = kubeconfig_of_service_account(NAMESPACE, "ipvs-controller");
    let leases = "/apis/coordination.k8s.io/v1/namespaces";
    for (who, kubeconfig, path, schema) in [
        (
            "an agent's Lease",
            &agent,
            format!("{leases}/{DIRECTORS_NAMESPACE}/leases/lb-1"),
            "ipvs-leases",
        ),
        (
            "the leader's Lease",
            &controller,
            format!("{leases}/{NAMESPACE}/leases/ipvs-controller"),
            "ipvs-leases",
        ),
        (
            "an agent",
            &agent,
            "/apis/ipvs.dev/v1alpha1/realservers".to_owned(),
            "ipvs-agents",
        ),
        (
            "the controller",
            &controller,
            "/apis/ipvs.dev/v1alpha1/realservers".to_owned(),
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
                let asked =
                    try_kubectl(&["--kubeconfig", kubeconfig, "-v=8", "get", "--raw", &path]);
                match asked.stderr.contains(&uid) {
                    true => Ok(()),
                    false => Err(format!("no UID {uid} in {}", asked.stderr)),
                }
            },
        );
    }
}
