//! Tests that no service gets an API server's own address. The agent must
//! protect this address even if the agent connects through a cluster IP.

use e2e::{
    cluster::{
        Cluster, NAMESPACE, PATIENCE, start_agent, start_agent_at, upgrade_chart, wait_until_ready,
    },
    control,
    course::Course,
    eventually, kubectl, kubectl_apply, layout,
};

use crate::{WEB_SERVERS, expect_refused, service};

#[test]
fn behind_a_cluster_ip_the_api_servers_own_addresses_are_refused_too() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    kubectl_apply(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: another, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}, addressType: IPv4, endpoints: [{addresses: [192.168.4.77]}], ports: [{name: https, port: 6443}]}",
    );
    let _agent = start_agent(&course.director, "director1");
    let vip = |port| format!("{{address: 192.168.4.77, port: {port}}}");
    kubectl_apply(&format!(
        "{}---\n{}{WEB_SERVERS}",
        service("api", &vip(6443), ""),
        service("web", &vip(80), "")
    ));
    let words = ["connections to the API server, 192.168.4.77:6443"];
    expect_refused("api", "director1", &words);
    wait_until_ready(&["web"]);
    kubectl(&["delete", "endpointslice/another"]);
}

/// In this test, the agent has no permission to read EndpointSlices. The agent
/// learns the API server's address only from its own connection.
#[test]
fn the_address_to_which_nat_sends_the_agents_own_connection_is_refused_too() {
    const CLUSTER_IP: &str = "10.96.0.1";
    let _cluster = Cluster::start();
    let course = Course::nat();
    let director = &course.director;
    kubectl(&["delete", "rolebinding/ipvs-agent-endpoints"]);
    // The API server learns of the deletion a moment later.
    eventually("the agent to lose its permission", PATIENCE, || {
        let agent = format!("system:serviceaccount:{NAMESPACE}:ipvs-agent");
        let asked = ["auth", "can-i", "list", "endpointslices", "--as", &agent];
        match control::try_kubectl(&asked).stdout.trim() {
            "no" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let real = format!("{}:6443", layout::HOST_SIDE);
    let gateway = layout::MANAGEMENT_GATEWAY;
    director.ip(&format!("route add {CLUSTER_IP} via {gateway}"));
    director.run(&format!(
        "iptables-legacy -t nat -A OUTPUT -d {CLUSTER_IP} -p tcp --dport 443 -j DNAT --to-destination {real}"
    ));
    let _agent = start_agent_at(&format!("{CLUSTER_IP}:443"), director, "director1");
    let vip = format!("{{address: {}, port: 6443}}", layout::HOST_SIDE);
    kubectl_apply(&format!("{}{WEB_SERVERS}", service("api", &vip, "")));
    let words = [&*format!("connections to the API server, {real}")];
    expect_refused("api", "director1", &words);
    // Restores the RoleBinding that this test deleted, because other tests need
    // it.
    upgrade_chart();
}
