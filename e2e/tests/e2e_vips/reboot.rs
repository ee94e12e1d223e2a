//! Tests that after a reboot, the agent no longer owns the addresses and
//! sysctls in its journal.

use e2e::{
    cluster::{
        Cluster, PATIENCE, example, start_agent, start_agent_after_reboot, value, wait_until_ready,
    },
    course::Course,
    eventually, kubectl, kubectl_apply,
};

use crate::{VIP, scene::addresses};

const SYSCTLS: [&str; 2] = [
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
];

#[test]
fn what_others_put_there_after_a_reboot_is_not_taken_for_ours() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let mut agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("dr-cluster.yaml"));
    let check = r#"{"spec":{"healthCheck":{"tcpSocket":{}}}}"#;
    kubectl(&["patch", "ivs/web", "--type=merge", "-p", check]);
    wait_until_ready(&["web"]);
    eventually("the sysctls to be set", PATIENCE, || {
        let found = SYSCTLS.map(|name| course.director.read_sysctl(name));
        match found == ["1", "1"] {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    });
    assert_eq!(addresses(&course.director)[VIP], "eth0");
    agent.kill();
    course.director.ip("link set eth0 down");

    // A new host acts as the director after a reboot. The new host's own
    // configuration adds the VIP and sets the sysctls.
    let rebooted = course.another_director("rebooted", "192.168.4.6/24");
    rebooted.ip(&format!("address add {VIP}/32 dev eth0"));
    SYSCTLS.iter().for_each(|name| rebooted.sysctl(name, "1"));
    let _agent = start_agent_after_reboot(&rebooted, "director1", "second-boot");
    eventually("the new boot to serve", PATIENCE, || {
        let boot = value("idir/director1", ".status.bootId");
        let services = value("idir/director1", ".status.services");
        match (boot.as_str(), services.as_str()) {
            ("second-boot", "1") => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
    kubectl(&["delete", "ivs,irs", "--all"]);
    eventually("the service to go", PATIENCE, || {
        match value("idir/director1", ".status.services").as_str() {
            "0" => Ok(()),
            services => Err(services.to_owned()),
        }
    });
    assert_eq!(
        addresses(&rebooted)[VIP],
        "eth0",
        "the VIP is the host's own"
    );
    for name in SYSCTLS {
        assert_eq!(rebooted.read_sysctl(name), "1", "{name} is the host's own");
    }
}
