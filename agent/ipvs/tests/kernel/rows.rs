//! Short functions that build tables for the tests.

use ipvs::{
    ActualService, ActualTable, DestinationConfig, DestinationKey, Family, ForwardingMethod, Op,
    Protocol, ServiceConfig, ServiceFlags, ServiceKey, Tunnel, TunnelChecksum, TunnelKind,
    WantedService, WantedTable,
};

pub(crate) fn tcp(address: &str, port: u16) -> ServiceKey {
    service(Protocol::TCP, address, port)
}

pub(crate) fn service(protocol: Protocol, address: &str, port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol,
        address: address.parse().unwrap(),
        port,
    }
}

pub(crate) fn mark(family: Family, mark: u32) -> ServiceKey {
    ServiceKey::FirewallMark { family, mark }
}

/// Returns the configuration that ipvsadm gives a service if the command line
/// names only a scheduler.
pub(crate) fn scheduled(key: ServiceKey, scheduler: &str) -> ServiceConfig {
    ServiceConfig {
        scheduler: scheduler.to_owned(),
        flags: ServiceFlags::default(),
        timeout: 0,
        prefix_length: match key.family() {
            Family::V4 => 32,
            Family::V6 => 128,
        },
        persistence_engine: None,
    }
}

pub(crate) fn flagged(key: ServiceKey, scheduler: &str, flags: &[ServiceFlags]) -> ServiceConfig {
    let flags = flags
        .iter()
        .fold(ServiceFlags::default(), |all, flag| all.with(*flag));
    ServiceConfig {
        flags,
        ..scheduled(key, scheduler)
    }
}

pub(crate) fn persistent(key: ServiceKey, timeout: u32, prefix_length: u8) -> ServiceConfig {
    ServiceConfig {
        timeout,
        prefix_length,
        ..flagged(key, "wlc", &[ServiceFlags::PERSISTENT])
    }
}

pub(crate) fn server(address: &str, port: u16) -> DestinationKey {
    let address = address.parse().unwrap();
    DestinationKey { address, port }
}

pub(crate) fn nat(weight: u32) -> DestinationConfig {
    forward(ForwardingMethod::Masquerade, weight)
}

pub(crate) fn direct(weight: u32) -> DestinationConfig {
    forward(ForwardingMethod::DirectRoute, weight)
}

pub(crate) fn ipip(weight: u32) -> DestinationConfig {
    tunnel(TunnelKind::Ipip, 0, TunnelChecksum::None, weight)
}

pub(crate) fn tunnel(
    kind: TunnelKind,
    port: u16,
    checksum: TunnelChecksum,
    weight: u32,
) -> DestinationConfig {
    let tunnel = Tunnel {
        kind,
        port,
        checksum,
    };
    forward(ForwardingMethod::Tunnel(tunnel), weight)
}

pub(crate) fn forward(method: ForwardingMethod, weight: u32) -> DestinationConfig {
    DestinationConfig {
        method,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

pub(crate) fn thresholds(config: DestinationConfig, upper: u32, lower: u32) -> DestinationConfig {
    DestinationConfig {
        upper_threshold: upper,
        lower_threshold: lower,
        ..config
    }
}

pub(crate) type Row = (
    ServiceKey,
    ServiceConfig,
    Vec<(DestinationKey, DestinationConfig)>,
);

pub(crate) fn wanted(rows: impl IntoIterator<Item = Row>) -> WantedTable {
    rows.into_iter()
        .map(|(key, config, destinations)| {
            let service = WantedService {
                config,
                destinations: destinations.into_iter().collect(),
            };
            (key, service)
        })
        .collect()
}

/// Returns the table that the kernel should show for a wanted table.
pub(crate) fn shown(wanted: &WantedTable) -> ActualTable {
    wanted
        .iter()
        .map(|(key, service)| {
            let service = ActualService {
                config: service.config.clone(),
                destinations: service.destinations.clone(),
            };
            (*key, service)
        })
        .collect()
}

/// Returns the lines that `ipvsadm -Sn` prints for a table, sorted. The output
/// of `ipvsadm -Sn` has no thresholds.
pub(crate) fn spelled(table: &ActualTable) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, service) in table {
        lines.push(Op::NewService(*key, service.config.clone()).to_string());
        for (destination, config) in &service.destinations {
            let config = thresholds(*config, 0, 0);
            lines.push(Op::NewDestination(*key, *destination, config).to_string());
        }
    }
    lines.sort();
    lines
}
