use e2e::{
    cluster::{Cluster, example, start_agent, wait_until_ready},
    course::DR_VIP,
    kubectl, kubectl_apply,
};

use crate::scene::{
    Both, DIRECTOR, DR_VIP_V6, DR_WEB_V6, changed, expect_condition, expect_sysctl, expect_traffic,
    of_ipv6, web,
};

#[test]
fn dr_works_on_a_director_as_it_was_installed_and_changes_nothing_of_it() {
    let _cluster = Cluster::start();
    let farm = Both::dr();
    let before = farm.director().sysctls("net.ipv4");
    let _agent = start_agent(farm.director(), DIRECTOR);
    kubectl_apply(&example("dr-cluster.yaml"));
    kubectl_apply(&of_ipv6("fd00:4::15", "DR", DR_WEB_V6));
    wait_until_ready(&["web", "web-v6"]);
    expect_traffic(&farm.course, DR_VIP, web("DR"));
    expect_traffic(&farm.course, DR_VIP_V6, DR_WEB_V6);
    expect_condition("True");
    let mut set = changed(&before, &farm.director().sysctls("net.ipv4"));
    set.retain(|name| !name.contains("/neigh/"));
    assert_eq!(set, [""; 0], "DR needs no sysctl on a director");
}

#[test]
fn vips_on_a_device_of_its_own_are_in_no_interfaces_arp() {
    let _cluster = Cluster::start();
    let farm = Both::dr();
    let dummy = r#"{"spec":{"addresses":{"mode":"Dummy"}}}"#;
    kubectl(&["patch", "idg/default", "--type=merge", "-p", dummy]);
    let _agent = start_agent(farm.director(), DIRECTOR);
    kubectl_apply(&example("dr-cluster.yaml"));
    expect_sysctl(farm.director(), "net.ipv4.conf.all.arp_ignore", "1");
    expect_sysctl(farm.director(), "net.ipv4.conf.all.arp_announce", "2");
}
