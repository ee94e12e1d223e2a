//! Tests a host that learned its IPv6 default route from a router
//! advertisement. The host must keep the route when the agent turns on
//! forwarding.

use std::{net::Ipv6Addr, os::fd::AsRawFd};

use e2e::{
    Host,
    cluster::{Cluster, PATIENCE, start_agent, wait_until_ready},
    eventually, kubectl_apply,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt,
    socket, sockopt,
};

use crate::scene::{
    Both, DIRECTOR, NAT_VIP_V6, NAT_WEB_V6, expect_sysctl, expect_traffic, of_ipv6,
};

#[test]
fn a_default_route_from_a_router_advertisement_outlives_the_switch_to_forwarding() {
    let _cluster = Cluster::start();
    let farm = Both::nat();
    let director = farm.director();
    let router = Host::new("router");
    // A router with forwarding turned off would tell its neighbors that it is
    // not a router. The director would then delete the route through the
    // router.
    router.sysctl("net.ipv6.conf.all.forwarding", "1");
    farm.course
        .segment
        .attach(&router, "eth0", "192.168.4.1/24");
    advertise(&router, director);
    let interfaces = || director.sysctls("net.ipv6.conf");
    let before = interfaces();

    let _agent = start_agent(director, DIRECTOR);
    kubectl_apply(&of_ipv6("fd00:4::5", "NAT", NAT_WEB_V6));
    wait_until_ready(&["web-v6"]);
    expect_traffic(&farm.course, NAT_VIP_V6, NAT_WEB_V6);
    expect_sysctl(director, "net.ipv6.conf.eth0.accept_ra", "2");
    let routes = default_routes(director);
    assert!(
        routes.contains("dev eth0"),
        "the default route must stay: {routes:?}"
    );

    let set = crate::scene::changed(&before, &interfaces());
    assert_eq!(
        set,
        [
            "/proc/sys/net/ipv6/conf/all/forwarding",
            "/proc/sys/net/ipv6/conf/eth0/accept_ra"
        ],
        "the agent may change no other sysctl"
    );
    // The director must still accept router advertisements.
    director.run("ip -6 route del default");
    advertise(&router, director);
}

/// Sends router advertisements until the host has a default route through the
/// router.
#[track_caller]
fn advertise(router: &Host, host: &Host) {
    let (to, index) = (link_local(host, "eth0"), index(router, "eth0"));
    let what = "a default route from a router advertisement";
    eventually(what, PATIENCE, || {
        router.enter(|| send_advertisement(to, index));
        match default_routes(host) {
            routes if routes.contains("proto ra") => Ok(()),
            routes => Err(routes),
        }
    });
}

/// Sends a router advertisement as in RFC 4861, 4.2, with hop limit 64, no
/// flags and a router lifetime of 1800 s.
fn send_advertisement(to: Ipv6Addr, interface: u32) {
    let raw = socket(
        AddressFamily::Inet6,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::IcmpV6,
    )
    .expect("root may open a raw socket");
    setsockopt(&raw, sockopt::Ipv6Ttl, &255).expect("the socket takes a hop limit");
    let mut message = [0_u8; 16];
    (message[0], message[4]) = (134, 64);
    message[6..8].copy_from_slice(&1800_u16.to_be_bytes());
    let to = std::net::SocketAddrV6::new(to, 0, 0, interface);
    // sendto fails while the router's address is still tentative. The error is
    // ignored, because the caller tries again.
    let _ = sendto(
        raw.as_raw_fd(),
        &message,
        &SockaddrIn6::from(to),
        MsgFlags::empty(),
    );
}

fn default_routes(host: &Host) -> String {
    host.run("ip -6 -details route show default")
}

fn link_local(host: &Host, device: &str) -> Ipv6Addr {
    let shown = host.run(&format!(
        "ip -6 -brief address show dev {device} scope link"
    ));
    let address = shown
        .split_whitespace()
        .find(|word| word.starts_with("fe80"));
    let address =
        address.unwrap_or_else(|| panic!("{device} has no link-local address: {shown:?}"));
    let (address, _) = address
        .split_once('/')
        .expect("the address has a prefix length");
    address.parse().expect("an address")
}

fn index(host: &Host, device: &str) -> u32 {
    let shown = host.run(&format!("ip -oneline link show dev {device}"));
    let (index, _) = shown
        .split_once(':')
        .expect("the interface's index comes first");
    index.trim().parse().expect("a number")
}
