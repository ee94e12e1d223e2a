//! Generates random values for property tests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    ActualService, ActualTable, DestinationConfig, DestinationKey, Family, ForwardingMethod, Op,
    Owned, Protocol, ServiceConfig, ServiceFlags, ServiceKey, Tunnel, TunnelChecksum, TunnelKind,
    WantedService, WantedTable,
};

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<Ipv4Addr>().prop_map(IpAddr::from),
        any::<Ipv6Addr>().prop_map(IpAddr::from),
    ]
}

fn family() -> impl Strategy<Value = Family> {
    select(vec![Family::V4, Family::V6])
}

/// Generates any key that a service can have in the kernel.
pub(crate) fn service_key() -> impl Strategy<Value = ServiceKey> {
    prop_oneof![
        (any::<u16>(), address(), any::<u16>()).prop_map(|(protocol, address, port)| {
            ServiceKey::Address {
                protocol: Protocol(protocol),
                address,
                port,
            }
        }),
        (family(), any::<u32>())
            .prop_map(|(family, mark)| ServiceKey::FirewallMark { family, mark }),
    ]
}

/// Generates any configuration that a service of the given address family can
/// have in the kernel. IPv4 masks with holes are left out, because this crate
/// reads such masks but never writes them.
pub(crate) fn service_config(family: Family) -> impl Strategy<Value = ServiceConfig> {
    let prefix_length = match family {
        Family::V4 => 0..=32u8,
        Family::V6 => 1..=128u8,
    };
    (
        "[a-z]{0,15}",
        any::<u32>(),
        any::<u32>(),
        prefix_length,
        option::of("[a-z]{1,15}"),
    )
        .prop_map(
            |(scheduler, flags, timeout, prefix_length, persistence_engine)| ServiceConfig {
                scheduler,
                flags: ServiceFlags(flags & !ServiceFlags::HASHED.0),
                timeout,
                prefix_length,
                persistence_engine,
            },
        )
        .prop_filter("the kernel's word for no scheduler", |config| {
            config.scheduler != "none"
        })
}

pub(crate) fn service() -> impl Strategy<Value = (ServiceKey, ServiceConfig)> {
    service_key().prop_flat_map(|key| (Just(key), service_config(key.family())))
}

pub(crate) fn destination_key() -> impl Strategy<Value = DestinationKey> {
    (address(), any::<u16>()).prop_map(|(address, port)| DestinationKey { address, port })
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    let kind = prop_oneof![
        Just(TunnelKind::Ipip),
        Just(TunnelKind::Gue),
        Just(TunnelKind::Gre),
        (3..=u8::MAX).prop_map(TunnelKind::Other),
    ];
    let checksum = prop_oneof![
        Just(TunnelChecksum::None),
        Just(TunnelChecksum::Full),
        Just(TunnelChecksum::Remote),
        (3..=u16::MAX).prop_map(TunnelChecksum::Other),
    ];
    (kind, any::<u16>(), checksum).prop_map(|(kind, port, checksum)| Tunnel {
        kind,
        port,
        checksum,
    })
}

pub(crate) fn destination_config() -> impl Strategy<Value = DestinationConfig> {
    let method = prop_oneof![
        Just(ForwardingMethod::Masquerade),
        Just(ForwardingMethod::Local),
        tunnel().prop_map(ForwardingMethod::Tunnel),
        Just(ForwardingMethod::DirectRoute),
        Just(ForwardingMethod::Bypass),
        (5..8u32).prop_map(ForwardingMethod::Other),
    ];
    (method, any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
        |(method, weight, upper_threshold, lower_threshold)| DestinationConfig {
            method,
            weight,
            upper_threshold,
            lower_threshold,
        },
    )
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        service().prop_map(|(key, config)| Op::NewService(key, config)),
        service().prop_map(|(key, config)| Op::SetService(key, config)),
        (service_key(), destination_key(), destination_config())
            .prop_map(|(service, key, config)| Op::NewDestination(service, key, config)),
        (service_key(), destination_key(), destination_config())
            .prop_map(|(service, key, config)| Op::SetDestination(service, key, config)),
        (service_key(), destination_key())
            .prop_map(|(service, key)| Op::DeleteDestination(service, key)),
        service_key().prop_map(Op::DeleteService),
    ]
}

/// Generates one of a few service keys, so that two generated tables have some
/// keys in common.
pub(crate) fn few_services() -> impl Strategy<Value = ServiceKey> {
    let address = |protocol, address: &str| ServiceKey::Address {
        protocol,
        address: address.parse().expect("an address"),
        port: 80,
    };
    select(vec![
        address(Protocol::TCP, "192.0.2.1"),
        address(Protocol::UDP, "192.0.2.1"),
        address(Protocol::TCP, "2001:db8::1"),
        ServiceKey::FirewallMark {
            family: Family::V4,
            mark: 7,
        },
        ServiceKey::FirewallMark {
            family: Family::V6,
            mark: 7,
        },
    ])
}

/// Generates one of a few service configurations, which are valid for every
/// service of [`few_services`].
pub(crate) fn few_service_configs() -> impl Strategy<Value = ServiceConfig> {
    (select(vec!["rr", "wrr", "mh"]), any::<bool>()).prop_map(|(scheduler, persistent)| {
        ServiceConfig {
            scheduler: scheduler.to_owned(),
            flags: match persistent {
                true => ServiceFlags::PERSISTENT,
                false => ServiceFlags::default(),
            },
            timeout: 300,
            prefix_length: 32,
            persistence_engine: None,
        }
    })
}

/// Generates one of a few destinations, so that two generated tables have some
/// destinations in common. All generated destinations use a tunnel, so a
/// service of either address family accepts them.
pub(crate) fn few_destinations() -> impl Strategy<Value = (DestinationKey, DestinationConfig)> {
    let key = select(vec![
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
        "2001:db8::a",
        "2001:db8::b",
    ])
    .prop_map(|address| DestinationKey {
        address: address.parse().expect("an address"),
        port: 80,
    });
    let config = (0..3u32).prop_map(|weight| DestinationConfig {
        method: ForwardingMethod::Tunnel(Tunnel::default()),
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    });
    (key, config)
}

pub(crate) fn wanted_table() -> impl Strategy<Value = WantedTable> {
    let service = (few_service_configs(), vec(few_destinations(), 0..5)).prop_map(
        |(config, destinations)| WantedService {
            config,
            destinations: destinations.into_iter().collect(),
        },
    );
    proptest::collection::btree_map(few_services(), service, 0..5)
}

pub(crate) fn actual_table() -> impl Strategy<Value = ActualTable> {
    let service = (few_service_configs(), vec(few_destinations(), 0..5)).prop_map(
        |(config, destinations)| ActualService {
            config,
            destinations: destinations.into_iter().collect(),
        },
    );
    proptest::collection::btree_map(few_services(), service, 0..5)
}

pub(crate) fn owned() -> impl Strategy<Value = Owned> {
    let destinations =
        proptest::collection::btree_set(few_destinations().prop_map(|(key, _)| key), 0..5);
    let services = proptest::collection::btree_map(few_services(), destinations, 0..5);
    let adopted = proptest::collection::btree_set(few_services(), 0..5);
    (services, adopted).prop_map(|(services, mut adopted)| {
        adopted.retain(|service| services.contains_key(service));
        Owned { services, adopted }
    })
}
