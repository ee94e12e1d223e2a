//! A single write to the kernel's table.

use std::{collections::btree_map::Entry, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    ActualService, ActualTable, DestinationConfig, DestinationKey, Destinations, Family,
    ForwardingMethod, ServiceConfig, ServiceFlags, ServiceKey, Tunnel, TunnelChecksum, TunnelKind,
};

/// A single write to the kernel's table, sent as one netlink message.
///
/// An operation that creates or edits an entry contains the entry's whole
/// configuration, because the kernel has no partial edits.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Op {
    /// Creates a service without destinations.
    NewService(ServiceKey, ServiceConfig),
    /// Edits a service; the service keeps its destinations and established
    /// connections.
    SetService(ServiceKey, ServiceConfig),
    /// Creates a destination in a service.
    NewDestination(ServiceKey, DestinationKey, DestinationConfig),
    /// Edits a destination; the destination's established connections keep
    /// their forwarding method.
    SetDestination(ServiceKey, DestinationKey, DestinationConfig),
    /// Deletes a destination. With `net.ipv4.vs.expire_nodest_conn=0`, the
    /// kernel silently drops the packets of a deleted destination's
    /// connections.
    DeleteDestination(ServiceKey, DestinationKey),
    /// Deletes a service with all its destinations, including destinations that
    /// other programs made.
    DeleteService(ServiceKey),
}

impl Op {
    /// Returns the service that the operation writes, or the service that
    /// contains the written destination.
    pub fn service(&self) -> ServiceKey {
        match self {
            Self::NewService(service, _)
            | Self::SetService(service, _)
            | Self::NewDestination(service, ..)
            | Self::SetDestination(service, ..)
            | Self::DeleteDestination(service, _)
            | Self::DeleteService(service) => *service,
        }
    }

    /// Returns the destination that the operation writes, or `None` if the
    /// operation writes a service.
    pub fn destination(&self) -> Option<DestinationKey> {
        match self {
            Self::NewDestination(_, destination, _)
            | Self::SetDestination(_, destination, _)
            | Self::DeleteDestination(_, destination) => Some(*destination),
            Self::NewService(..) | Self::SetService(..) | Self::DeleteService(_) => None,
        }
    }

    /// Returns whether the operation creates an entry. A caller records each
    /// creation before it applies the operation. After a crash, the caller then
    /// knows which entries are its own.
    pub fn creates(&self) -> bool {
        matches!(self, Self::NewService(..) | Self::NewDestination(..))
    }

    /// Returns whether the operation deletes an entry.
    pub fn removes(&self) -> bool {
        matches!(self, Self::DeleteService(_) | Self::DeleteDestination(..))
    }

    /// Applies the operation to a table in memory, with the same effect as in
    /// the kernel. If the operation's service or destination is missing, the
    /// table does not change, because the kernel would refuse the operation.
    pub fn apply_to(&self, table: &mut ActualTable) {
        match self {
            Self::NewService(key, config) => {
                if let Entry::Vacant(entry) = table.entry(*key) {
                    entry.insert(ActualService {
                        config: config.clone(),
                        destinations: Destinations::default(),
                    });
                }
            }
            Self::DeleteService(key) => {
                table.remove(key);
            }
            edit => {
                if let Some(service) = table.get_mut(&edit.service()) {
                    edit.apply_within(service);
                }
            }
        }
    }

    /// Works like [`apply_to`](Self::apply_to), but on a single service in
    /// memory. `apply_within` ignores operations that create or delete the
    /// service.
    pub fn apply_within(&self, service: &mut ActualService) {
        match self {
            Self::NewService(..) | Self::DeleteService(_) => {}
            Self::SetService(_, config) => service.config = config.clone(),
            Self::NewDestination(_, key, config) => {
                service.destinations.entry(*key).or_insert(*config);
            }
            Self::SetDestination(_, key, config) => {
                if let Some(destination) = service.destinations.get_mut(key) {
                    *destination = *config;
                }
            }
            Self::DeleteDestination(_, key) => {
                service.destinations.shift_remove(key);
            }
        }
    }
}

/// Writes the operation in the format of `ipvsadm -Sn`, such as `-a -t
/// 192.0.2.1:80 -r 198.51.100.1:80 -m -w 1`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewService(key, config) => {
                write!(f, "-A {key}")?;
                fmt_service(f, key.family(), config)
            }
            Self::SetService(key, config) => {
                write!(f, "-E {key}")?;
                fmt_service(f, key.family(), config)
            }
            Self::NewDestination(service, key, config) => {
                write!(f, "-a {service} -r {key}")?;
                fmt_destination(f, config)
            }
            Self::SetDestination(service, key, config) => {
                write!(f, "-e {service} -r {key}")?;
                fmt_destination(f, config)
            }
            Self::DeleteDestination(service, key) => write!(f, "-d {service} -r {key}"),
            Self::DeleteService(key) => write!(f, "-D {key}"),
        }
    }
}

/// Returns a service's configuration as options of ipvsadm, such as `-s wrr -p
/// 300`.
pub fn service_options(service: &ServiceKey, config: &ServiceConfig) -> String {
    let mut options = String::new();
    // Writing into a String does not fail.
    let _ = fmt_service(&mut options, service.family(), config);
    options.split_off(1)
}

/// Returns a destination's configuration as options of ipvsadm, such as `-m -w
/// 1`.
pub fn destination_options(config: &DestinationConfig) -> String {
    let mut options = String::new();
    // Writing into a String does not fail.
    let _ = fmt_destination(&mut options, config);
    options.split_off(1)
}

fn fmt_service(f: &mut impl fmt::Write, family: Family, config: &ServiceConfig) -> fmt::Result {
    let scheduler = match config.scheduler.as_str() {
        "" => "none",
        name => name,
    };
    write!(f, " -s {scheduler}")?;
    if config.flags.contains(ServiceFlags::PERSISTENT) {
        write!(f, " -p {}", config.timeout)?;
        match (family, config.prefix_length) {
            (_, ServiceConfig::IRREGULAR_MASK) => write!(f, " -M irregular")?,
            (Family::V4, 32) | (Family::V6, 128) => {}
            (Family::V4, length) => {
                let mask = u32::MAX
                    .checked_shl(32u32.saturating_sub(length.into()))
                    .unwrap_or(0);
                write!(f, " -M {}", std::net::Ipv4Addr::from(mask))?;
            }
            (Family::V6, length) => write!(f, " -M {length}")?,
        }
        if let Some(engine) = &config.persistence_engine {
            write!(f, " --pe {engine}")?;
        }
    }
    if config.flags.contains(ServiceFlags::ONE_PACKET) {
        f.write_str(" -o")?;
    }
    fmt_scheduler_flags(f, config)
}

fn fmt_scheduler_flags(f: &mut impl fmt::Write, config: &ServiceConfig) -> fmt::Result {
    let names = match config.scheduler.as_str() {
        "sh" => ["sh-fallback", "sh-port", "flag-3"],
        "mh" => ["mh-fallback", "mh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let flags = [
        ServiceFlags::SCHEDULER_1,
        ServiceFlags::SCHEDULER_2,
        ServiceFlags::SCHEDULER_3,
    ];
    let mut separator = " -b ";
    for (flag, name) in flags.into_iter().zip(names) {
        if config.flags.contains(flag) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
    }
    Ok(())
}

fn fmt_destination(f: &mut impl fmt::Write, config: &DestinationConfig) -> fmt::Result {
    match config.method {
        ForwardingMethod::Masquerade => f.write_str(" -m")?,
        ForwardingMethod::DirectRoute => f.write_str(" -g")?,
        ForwardingMethod::Tunnel(_) => f.write_str(" -i")?,
        ForwardingMethod::Local => f.write_str(" local")?,
        ForwardingMethod::Bypass => f.write_str(" bypass")?,
        ForwardingMethod::Other(method) => write!(f, " method {method}")?,
    }
    write!(f, " -w {}", config.weight)?;
    if config.upper_threshold != 0 {
        write!(f, " -x {}", config.upper_threshold)?;
    }
    if config.lower_threshold != 0 {
        write!(f, " -y {}", config.lower_threshold)?;
    }
    if let ForwardingMethod::Tunnel(tunnel) = config.method {
        fmt_tunnel(f, tunnel)?;
    }
    Ok(())
}

fn fmt_tunnel(f: &mut impl fmt::Write, tunnel: Tunnel) -> fmt::Result {
    match tunnel.kind {
        TunnelKind::Ipip => return f.write_str(" --tun-type ipip"),
        TunnelKind::Gue => write!(f, " --tun-type gue --tun-port {}", tunnel.port)?,
        TunnelKind::Gre => f.write_str(" --tun-type gre")?,
        TunnelKind::Other(kind) => write!(f, " --tun-type {kind} --tun-port {}", tunnel.port)?,
    }
    match tunnel.checksum {
        TunnelChecksum::None => f.write_str(" --tun-nocsum"),
        TunnelChecksum::Full => f.write_str(" --tun-csum"),
        TunnelChecksum::Remote => f.write_str(" --tun-remcsum"),
        TunnelChecksum::Other(flags) => write!(f, " --tun-flags {flags}"),
    }
}
