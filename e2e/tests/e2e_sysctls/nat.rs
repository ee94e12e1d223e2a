use e2e::{
    cluster::{
        Cluster, drain_nothing, example, expect_table, start_agent, wait_for, wait_until_ready,
    },
    course::NAT_VIP,
    kubectl, kubectl_apply,
};

use crate::scene::{
    Both, DIRECTOR, NAT_VIP_V6, NAT_WEB_V6, changed, expect_condition, expect_no_traffic,
    expect_reason, expect_sysctl, expect_traffic, of_ipv6, said, web,
};

fn apply_both() {
    kubectl_apply(&example("nat-cluster.yaml"));
    kubectl_apply(&of_ipv6("fd00:4::5", "NAT", NAT_WEB_V6));
    wait_until_ready(&["web", "web-v6"]);
}

#[track_caller]
fn expect_both(farm: &Both) {
    expect_traffic(&farm.course, NAT_VIP, web("NAT"));
    expect_traffic(&farm.course, NAT_VIP_V6, NAT_WEB_V6);
}

/// Adds the same iptables rules on the director for IPv4 and for IPv6.
fn firewall(farm: &Both, rules: &[&str]) {
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        for rule in rules {
            farm.director().run(&format!("{program} {rule}"));
        }
    }
}

/// The firewall rule that kube-proxy adds on every node
/// (`pkg/proxy/iptables/proxier.go`).
const KUBE_PROXY: [&str; 1] = ["-A FORWARD -m conntrack --ctstate INVALID -j DROP"];

#[test]
fn nat_works_on_a_director_as_it_was_installed_and_the_rest_of_the_host_is_left_alone() {
    let _cluster = Cluster::start();
    let farm = Both::nat();
    let director = farm.director();
    let before = director.sysctls("net");
    let _agent = start_agent(director, DIRECTOR);
    apply_both();
    expect_both(&farm);

    expect_condition("True");
    for (name, value) in [
        ("net.ipv4.conf.eth1.forwarding", "1"),
        ("net.ipv4.conf.eth1.send_redirects", "0"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.ipv6.conf.all.forwarding", "1"),
    ] {
        assert_eq!(director.read_sysctl(name), value, "{name}");
        assert_eq!(
            said(name, "found"),
            value,
            "{name} in the Director's status"
        );
        assert_ne!(
            said(name, "before"),
            value,
            "{name} must have been set by the agent"
        );
        assert_ne!(said(name, "reason"), "", "{name} must have a reason");
    }
    let mut set = changed(&before, &director.sysctls("net"));
    // The test leaves out the sysctls of conntrack and of the neighbor tables.
    // Some of these sysctls are counters, which change by themselves.
    set.retain(|name| !name.contains("/netfilter/") && !name.contains("/neigh/"));
    assert_eq!(
        set,
        [
            "/proc/sys/net/ipv4/conf/all/send_redirects",
            "/proc/sys/net/ipv4/conf/eth1/forwarding",
            "/proc/sys/net/ipv4/conf/eth1/send_redirects",
            "/proc/sys/net/ipv6/conf/all/forwarding",
        ],
        "no other sysctl of the host may change"
    );

    kubectl(&["delete", "ivs,irs", "--all"]);
    expect_table(director, &[]);
    expect_reason("NothingNeeded");
    let ipvs = |all| {
        changed(&before, all)
            .into_iter()
            .filter(|name| name.contains("/vs/"))
    };
    let after = director.sysctls("net");
    assert_eq!(
        ipvs(&after).count(),
        0,
        "IPVS's own sysctls must be restored"
    );
    assert_eq!(
        director.read_sysctl("net.ipv4.conf.eth1.forwarding"),
        "1",
        "a sysctl on which other programs may depend must stay"
    );
}

#[test]
fn nat_works_beside_kube_proxys_rule_whenever_that_comes() {
    let _cluster = Cluster::start();
    let farm = Both::nat();
    let director = farm.director();
    let before = director.sysctls("net.ipv4.vs");
    firewall(&farm, &KUBE_PROXY);
    let agent = start_agent(director, DIRECTOR);
    apply_both();
    expect_both(&farm);
    expect_sysctl(director, "net.ipv4.vs.conntrack", "1");

    // Without services, the agent restores the sysctl `net.ipv4.vs.conntrack`,
    // even while connections are tracked.
    drain_nothing();
    kubectl(&["delete", "ivs,irs", "--all"]);
    expect_table(director, &[]);
    expect_sysctl(director, "net.ipv4.vs.conntrack", "0");
    let after = director.sysctls("net.ipv4.vs");
    assert_eq!(
        changed(&before, &after),
        [""; 0],
        "IPVS's own sysctls must be restored"
    );
    drop(agent);
    drop(farm);

    // Now the test begins again on new hosts. This time, the firewall rule is
    // added while services are in use.
    let farm = Both::nat();
    let _agent = start_agent(farm.director(), DIRECTOR);
    apply_both();
    expect_both(&farm);
    let conntrack = farm.director().read_sysctl("net.ipv4.vs.conntrack");
    assert_eq!(conntrack, "0", "no connection may be tracked so far");
    firewall(&farm, &KUBE_PROXY);
    expect_both(&farm);
    expect_sysctl(farm.director(), "net.ipv4.vs.conntrack", "1");
}

#[test]
fn nat_works_where_only_what_is_known_is_forwarded() {
    let _cluster = Cluster::start();
    let farm = Both::nat();
    // Docker and firewalld add firewall rules like these.
    firewall(
        &farm,
        &[
            "-P FORWARD DROP",
            "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "-A FORWARD -o eth1 -m conntrack --ctstate NEW -j ACCEPT",
        ],
    );
    let _agent = start_agent(farm.director(), DIRECTOR);
    apply_both();
    expect_both(&farm);
    wait_for("idir/director1", "SysctlsApplied", "True");
}

#[test]
fn without_a_profile_the_host_is_nobodys_but_its_administrators() {
    let _cluster = Cluster::start();
    let farm = Both::nat();
    let director = farm.director();
    let none = r#"{"spec":{"sysctls":{"profile":"None"}}}"#;
    kubectl(&["patch", "idg/default", "--type=merge", "-p", none]);
    let before = director.sysctls("net.ipv4");
    let _agent = start_agent(director, DIRECTOR);
    apply_both();
    expect_condition("True");
    let mut set = changed(&before, &director.sysctls("net.ipv4"));
    set.retain(|name| !name.contains("/neigh/"));
    assert_eq!(set, [""; 0], "profile None must set no sysctl");
    expect_no_traffic(&farm.course.browser(), NAT_VIP);

    let overrides = r#"{"spec":{"sysctls":{"overrides":{
        "net.ipv4.conf.eth1.forwarding":"1",
        "net.ipv4.vs.sync_threshold":"5 70"}}}}"#;
    kubectl(&["patch", "idg/default", "--type=merge", "-p", overrides]);
    expect_traffic(&farm.course, NAT_VIP, web("NAT"));
    expect_sysctl(director, "net.ipv4.vs.sync_threshold", "5\t70");
    let fewer = r#"{"spec":{"sysctls":{"overrides":null}}}"#;
    kubectl(&["patch", "idg/default", "--type=merge", "-p", fewer]);
    expect_sysctl(director, "net.ipv4.vs.sync_threshold", "3\t50");
    expect_sysctl(director, "net.ipv4.conf.eth1.forwarding", "1");
}
