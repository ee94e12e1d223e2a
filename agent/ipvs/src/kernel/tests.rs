use super::*;
use crate::{
    DestinationConfig, DestinationKey, Protocol, ServiceConfig, ServiceFlags, ServiceKey, Tunnel,
    TunnelChecksum, model_kernel::ModelKernel,
};

const WEB: ServiceKey = ServiceKey::Address {
    protocol: Protocol::TCP,
    address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    port: 80,
};

fn scheduled(scheduler: &str, engine: Option<&str>) -> ServiceConfig {
    ServiceConfig {
        scheduler: scheduler.to_owned(),
        flags: ServiceFlags::default(),
        timeout: 0,
        prefix_length: 32,
        persistence_engine: engine.map(str::to_owned),
    }
}

fn server(address: &str) -> DestinationKey {
    DestinationKey {
        address: address.parse().unwrap(),
        port: 80,
    }
}

fn forward(method: ForwardingMethod) -> DestinationConfig {
    DestinationConfig {
        method,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

#[test]
fn each_refusal_says_what_it_means_and_what_helps() {
    let new_service = Op::NewService(WEB, scheduled("twos", None));
    let set_service = Op::SetService(WEB, scheduled("wrr", Some("sip")));
    let nat = forward(ForwardingMethod::Masquerade);
    let new_server = Op::NewDestination(WEB, server("198.51.100.1"), nat);
    let set_server = Op::SetDestination(WEB, server("198.51.100.1"), nat);
    let mixed = Op::NewDestination(WEB, server("2001:db8::1"), nat);
    let gue = Tunnel {
        kind: TunnelKind::Gue,
        port: 0,
        checksum: TunnelChecksum::None,
    };
    let gue = Op::NewDestination(
        WEB,
        server("198.51.100.1"),
        forward(ForwardingMethod::Tunnel(gue)),
    );
    let delete_server = Op::DeleteDestination(WEB, server("198.51.100.1"));
    let delete_service = Op::DeleteService(WEB);

    let table = [
        (
            Errno::ENOENT,
            &new_service,
            Meaning::NotInThisKernel,
            "modprobe ip_vs_twos",
        ),
        (
            Errno::ENOENT,
            &set_service,
            Meaning::NotInThisKernel,
            "modprobe -a ip_vs_wrr ip_vs_pe_sip",
        ),
        (
            Errno::EAFNOSUPPORT,
            &new_service,
            Meaning::NotInThisKernel,
            "IPv6",
        ),
        (
            Errno::EEXIST,
            &new_service,
            Meaning::Stale,
            "another program has created the entry",
        ),
        (
            Errno::EEXIST,
            &new_server,
            Meaning::Stale,
            "another program has created the entry",
        ),
        (
            Errno::ESRCH,
            &set_service,
            Meaning::Stale,
            "the service is not in the kernel's table",
        ),
        (
            Errno::ESRCH,
            &new_server,
            Meaning::Stale,
            "the service is not in the kernel's table",
        ),
        (
            Errno::ENOENT,
            &set_server,
            Meaning::Stale,
            "the destination is not in the kernel's table",
        ),
        (
            Errno::ENOENT,
            &delete_server,
            Meaning::AlreadyGone,
            "gone already",
        ),
        (
            Errno::ESRCH,
            &delete_server,
            Meaning::AlreadyGone,
            "gone already",
        ),
        (
            Errno::ESRCH,
            &delete_service,
            Meaning::AlreadyGone,
            "gone already",
        ),
        (Errno::EINVAL, &mixed, Meaning::Refused, "only TUN reaches"),
        (Errno::EINVAL, &gue, Meaning::Refused, "needs a port"),
        (Errno::EINVAL, &new_server, Meaning::Refused, "unicast"),
        (
            Errno::EINVAL,
            &new_service,
            Meaning::Refused,
            "refuses these values",
        ),
        (Errno::ERANGE, &set_server, Meaning::Refused, "2^31-1"),
        (
            Errno::EPERM,
            &new_service,
            Meaning::NotPermitted,
            "CAP_NET_ADMIN",
        ),
        (
            Errno::ENOMEM,
            &new_service,
            Meaning::Transient,
            "ENOMEM (Out of memory)",
        ),
        (
            Errno::ENOPROTOOPT,
            &new_service,
            Meaning::Transient,
            "ENOPROTOOPT",
        ),
        (Errno(5000), &new_service, Meaning::Transient, "error 5000"),
    ];
    for (errno, op, meaning, words) in table {
        assert_eq!(errno.meaning(op), meaning, "{errno} to {op}");
        let text = errno.explain(op);
        assert!(text.contains(words), "{text} does not say {words}");
        assert!(!text.contains('\n'), "{text}");
    }
}

#[test]
fn a_kernel_that_cannot_be_asked_says_what_to_do() {
    assert!(Error::NoIpvs.to_string().contains("modprobe ip_vs"));
    assert!(Error::NotPermitted.to_string().contains("CAP_NET_ADMIN"));
}

#[test]
fn a_modelled_kernel_can_break_and_lose_answers() {
    let ops = [Op::NewService(WEB, scheduled("rr", None))];
    let mut kernel = ModelKernel {
        broken: Some(|| Error::NoIpvs),
        ..ModelKernel::default()
    };
    assert!(matches!(kernel.apply(&ops), Err(Error::NoIpvs)));
    assert!(matches!(kernel.table(), Err(Error::NoIpvs)));
    assert_eq!(kernel.writes(), 0);

    kernel.broken = None;
    kernel.lose_replies = true;
    assert!(matches!(kernel.apply(&ops), Err(Error::RepliesLost)));
    assert_eq!(kernel.table().unwrap().len(), 1, "the service was created");
    assert_eq!(kernel.apply(&ops).unwrap()[0].errno, Errno::EEXIST);
}
