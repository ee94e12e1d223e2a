//! Command lines of ipvsadm, and the operation ([`Op`]) equivalent to each
//! command line.

use crate::{
    DestinationConfig, DestinationKey, Family, ForwardingMethod, Op, Protocol, ServiceConfig,
    ServiceFlags, ServiceKey, Tunnel, TunnelChecksum, TunnelKind,
};

pub(super) fn address(protocol: Protocol, address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol,
        address: address.parse().unwrap(),
        port,
    }
}

pub(super) fn web() -> ServiceKey {
    address(Protocol::TCP, "10.1.0.1", 80)
}

pub(super) fn mark(family: Family, mark: u32) -> ServiceKey {
    ServiceKey::FirewallMark { family, mark }
}

pub(super) fn config(scheduler: &str, prefix_length: u8) -> ServiceConfig {
    ServiceConfig {
        scheduler: scheduler.to_owned(),
        flags: ServiceFlags::default(),
        timeout: 0,
        prefix_length,
        persistence_engine: None,
    }
}

pub(super) fn persistent(scheduler: &str, timeout: u32, prefix_length: u8) -> ServiceConfig {
    ServiceConfig {
        flags: ServiceFlags::PERSISTENT,
        timeout,
        ..config(scheduler, prefix_length)
    }
}

pub(super) fn flags(config: ServiceConfig, flags: ServiceFlags) -> ServiceConfig {
    ServiceConfig { flags, ..config }
}

pub(super) fn server(address: &str, port: u16) -> DestinationKey {
    let address = address.parse().unwrap();
    DestinationKey { address, port }
}

pub(super) fn forward(method: ForwardingMethod, weight: u32) -> DestinationConfig {
    DestinationConfig {
        method,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

pub(super) fn thresholds(config: DestinationConfig, upper: u32, lower: u32) -> DestinationConfig {
    DestinationConfig {
        upper_threshold: upper,
        lower_threshold: lower,
        ..config
    }
}

pub(super) fn tunnel(kind: TunnelKind, port: u16, checksum: TunnelChecksum) -> DestinationConfig {
    let tunnel = Tunnel {
        kind,
        port,
        checksum,
    };
    forward(ForwardingMethod::Tunnel(tunnel), 0)
}

/// Returns command lines of ipvsadm, each with the equivalent [`Op`].
pub(super) fn requests() -> Vec<(&'static str, Op)> {
    let ipip = tunnel(TunnelKind::Ipip, 0, TunnelChecksum::None);
    let direct = forward(ForwardingMethod::DirectRoute, 0);
    let mh_flags = ServiceFlags::SCHEDULER_1.with(ServiceFlags::SCHEDULER_2);
    vec![
        (
            "ipvsadm -A -t 10.1.0.1:80 -s wrr -p 360 -M 255.255.255.0",
            Op::NewService(web(), persistent("wrr", 360, 24)),
        ),
        (
            "ipvsadm -A -u 10.1.0.1:5060 -s rr -p 61 --pe sip",
            Op::NewService(
                address(Protocol::UDP, "10.1.0.1", 5060),
                ServiceConfig {
                    persistence_engine: Some("sip".to_owned()),
                    ..persistent("rr", 61, 32)
                },
            ),
        ),
        (
            "ipvsadm -A -u 10.1.0.1:53 -s wlc -o",
            Op::NewService(
                address(Protocol::UDP, "10.1.0.1", 53),
                flags(config("wlc", 32), ServiceFlags::ONE_PACKET),
            ),
        ),
        (
            "ipvsadm -A --sctp-service [2001:db8::1]:9 -s mh -b mh-port,mh-fallback",
            Op::NewService(
                address(Protocol::SCTP, "2001:db8::1", 9),
                flags(config("mh", 128), mh_flags),
            ),
        ),
        (
            "ipvsadm -A -t [2001:db8::2]:443 -s rr -p 60 -M 64",
            Op::NewService(
                address(Protocol::TCP, "2001:db8::2", 443),
                persistent("rr", 60, 64),
            ),
        ),
        (
            "ipvsadm -A -f 7 -6 -s sh -b sh-fallback",
            Op::NewService(
                mark(Family::V6, 7),
                flags(config("sh", 128), ServiceFlags::SCHEDULER_1),
            ),
        ),
        (
            "ipvsadm -A -f 8 -s nq",
            Op::NewService(mark(Family::V4, 8), config("nq", 32)),
        ),
        (
            "ipvsadm -E -f 8 -s none",
            Op::SetService(mark(Family::V4, 8), config("", 32)),
        ),
        (
            "ipvsadm -E -f 8 -s sed",
            Op::SetService(mark(Family::V4, 8), config("sed", 32)),
        ),
        (
            "ipvsadm -a -t 10.1.0.1:80 -r 10.2.0.2:80 -m -w 3 -x 100 -y 50",
            Op::NewDestination(
                web(),
                server("10.2.0.2", 80),
                thresholds(forward(ForwardingMethod::Masquerade, 3), 100, 50),
            ),
        ),
        (
            "ipvsadm -a -t 10.1.0.1:80 -r 10.2.0.4 -g -w 0",
            Op::NewDestination(web(), server("10.2.0.4", 80), direct),
        ),
        (
            "ipvsadm -a -t 10.1.0.1:80 -r 10.2.0.5 -i -w 0",
            Op::NewDestination(web(), server("10.2.0.5", 80), ipip),
        ),
        (
            "ipvsadm -a -t 10.1.0.1:80 -r 10.2.0.6 -i --tun-type gue --tun-port 6080 --tun-remcsum -w 0",
            Op::NewDestination(
                web(),
                server("10.2.0.6", 80),
                tunnel(TunnelKind::Gue, 6080, TunnelChecksum::Remote),
            ),
        ),
        (
            "ipvsadm -a -t 10.1.0.1:80 -r 10.2.0.7 -i --tun-type gre --tun-csum -w 0",
            Op::NewDestination(
                web(),
                server("10.2.0.7", 80),
                tunnel(TunnelKind::Gre, 0, TunnelChecksum::Full),
            ),
        ),
        (
            "ipvsadm -a -t 10.1.0.1:80 -r [2001:db8::9]:80 -i -w 0",
            Op::NewDestination(web(), server("2001:db8::9", 80), ipip),
        ),
        (
            "ipvsadm -a -f 7 -6 -r [2001:db8::8]:0 -g",
            Op::NewDestination(
                mark(Family::V6, 7),
                server("2001:db8::8", 0),
                forward(ForwardingMethod::DirectRoute, 1),
            ),
        ),
        (
            "ipvsadm -e -t 10.1.0.1:80 -r 10.2.0.4 -g -w 0 -x 7",
            Op::SetDestination(web(), server("10.2.0.4", 80), thresholds(direct, 7, 0)),
        ),
        (
            "ipvsadm -d -t 10.1.0.1:80 -r [2001:db8::9]:80",
            Op::DeleteDestination(web(), server("2001:db8::9", 80)),
        ),
        ("ipvsadm -D -f 7 -6", Op::DeleteService(mark(Family::V6, 7))),
    ]
}
