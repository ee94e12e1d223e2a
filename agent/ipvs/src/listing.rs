//! Parses `/proc/net/ip_vs` (`net/netfilter/ipvs/ip_vs_ctl.c`,
//! `ip_vs_info_seq_show`). Reading the whole table from `/proc/net/ip_vs` takes
//! few system calls, but the file lacks thresholds, tunnel parameters,
//! statistics, and the address family of firewall marks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{ActualService, DestinationKey, ForwardingMethod, Protocol, ServiceKey};

/// The kernel's IPVS table, parsed from `/proc/net/ip_vs`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listing {
    services: BTreeMap<ServiceKey, Listed>,
    /// The services of each firewall mark, at most one service per address
    /// family.
    marks: BTreeMap<u32, Vec<Listed>>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Listed {
    scheduler: String,
    destinations: BTreeMap<DestinationKey, (Method, u32)>,
}

/// A forwarding method, as the kernel's `ip_vs_fwd_name` names it in
/// `/proc/net/ip_vs`. For every forwarding method other than Local, Tunnel and
/// Route, the kernel prints Masq.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Method {
    Masquerade,
    Local,
    Tunnel,
    DirectRoute,
}

impl Listing {
    /// Parses the text of `/proc/net/ip_vs`. `parse` ignores lines of an
    /// unknown form, as if their entries did not exist.
    pub fn parse(text: &str) -> Self {
        let mut listing = Self::default();
        let mut service: Option<(Key, Listed)> = None;
        for line in text.lines().skip(3) {
            match line.trim_start().strip_prefix("-> ") {
                Some(destination) => {
                    let destination = parse_destination(destination);
                    if let (Some((_, listed)), Some((key, shown))) = (&mut service, destination) {
                        listed.destinations.insert(key, shown);
                    }
                }
                None => {
                    listing.add(service.take());
                    service = parse_service(line);
                }
            }
        }
        listing.add(service);
        listing
    }

    fn add(&mut self, service: Option<(Key, Listed)>) {
        match service {
            None => {}
            Some((Key::Service(key), listed)) => {
                self.services.insert(key, listed);
            }
            Some((Key::Mark(mark), listed)) => self.marks.entry(mark).or_default().push(listed),
        }
    }

    /// Returns whether the listing agrees with `service`. Only values that
    /// `/proc/net/ip_vs` shows are compared. If a firewall mark has services of
    /// both address families, `service` must agree with at least one of the
    /// two. A service that is not listed counts as agreeing, because the kernel
    /// may leave out services that exist. The kernel writes the listing in
    /// pages. At the start of a page, the kernel skips as many services as it
    /// counted on earlier pages. The kernel also counts services of other
    /// network namespaces, so the listing may lack services of this namespace
    /// (`ip_vs_info_seq_next`).
    pub fn agrees_with(&self, key: &ServiceKey, service: &ActualService) -> bool {
        let listed = match key {
            ServiceKey::FirewallMark { mark, .. } => {
                self.marks.get(mark).map_or(&[][..], Vec::as_slice)
            }
            key => self.services.get(key).map_or(&[][..], std::slice::from_ref),
        };
        listed.is_empty() || listed.iter().any(|listed| listed.shows(service))
    }
}

impl Listed {
    fn shows(&self, service: &ActualService) -> bool {
        let is_shown = |(key, config): (&DestinationKey, &crate::DestinationConfig)| {
            let shown = self.destinations.get(key);
            shown.is_some_and(|(method, weight)| {
                *weight == config.weight && method.is(config.method)
            })
        };
        self.scheduler == service.config.scheduler
            && self.destinations.len() == service.destinations.len()
            && service.destinations.iter().all(is_shown)
    }
}

impl Method {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "Masq" => Self::Masquerade,
            "Local" => Self::Local,
            "Tunnel" => Self::Tunnel,
            "Route" => Self::DirectRoute,
            _ => return None,
        })
    }

    fn is(self, method: ForwardingMethod) -> bool {
        let shown = match method {
            ForwardingMethod::Masquerade
            | ForwardingMethod::Bypass
            | ForwardingMethod::Other(_) => Self::Masquerade,
            ForwardingMethod::Local => Self::Local,
            ForwardingMethod::Tunnel(_) => Self::Tunnel,
            ForwardingMethod::DirectRoute => Self::DirectRoute,
        };
        self == shown
    }
}

enum Key {
    Service(ServiceKey),
    Mark(u32),
}

/// Parses lines about services, such as `TCP C0A80405:0050 wrr `, `UDP
/// [2001:0db8:…:0001]:0035 rr ` and `FWM 00000007 wlc persistent 30000
/// FFFFFFFF`.
fn parse_service(line: &str) -> Option<(Key, Listed)> {
    let mut words = line.split_whitespace();
    let kind = words.next()?;
    let key = words.next()?;
    let key = match kind {
        "FWM" => Key::Mark(u32::from_str_radix(key, 16).ok()?),
        protocol => {
            let protocol = match protocol {
                "TCP" => Protocol::TCP,
                "UDP" => Protocol::UDP,
                "SCTP" => Protocol::SCTP,
                _ => return None,
            };
            let (address, port) = parse_endpoint(key)?;
            Key::Service(ServiceKey::Address {
                protocol,
                address,
                port,
            })
        }
    };
    let listed = Listed {
        scheduler: match words.next()? {
            "none" => String::new(),
            name => name.to_owned(),
        },
        ..Listed::default()
    };
    Some((key, listed))
}

/// Parses lines about destinations, such as `C0A80264:0050 Masq 1 0 0`.
fn parse_destination(line: &str) -> Option<(DestinationKey, (Method, u32))> {
    let mut words = line.split_whitespace();
    let (address, port) = parse_endpoint(words.next()?)?;
    let method = Method::parse(words.next()?)?;
    let weight = words.next()?.parse().ok()?;
    Some((DestinationKey { address, port }, (method, weight)))
}

fn parse_endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.strip_prefix('[') {
        Some(address) => IpAddr::V6(address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?)),
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DestinationConfig, Destinations, Family, ServiceConfig, ServiceFlags, Tunnel};

    /// The output of `cat /proc/net/ip_vs` on Linux 6.1, with an added service
    /// of an unknown protocol.
    const TEXT: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
IP_47  0A000009:0000 rr \n\
TCP  C0A80405:0050 wrr persistent 30000 FFFFFFFF
  -> C0A80264:0050      Masq    1      2          17
  -> C0A802C8:0050      Route   0      0          0
UDP  C0A80405:0035 none ops \n\
UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 rr \n\
  -> [2001:0db8:0000:0000:0000:0000:0000:000a]:0035      Tunnel  65535  0          0
FWM  00000007 wlc persistent 30000 FFFFFFFF
  -> C0A80264:0000      Masq    3      0          0
FWM  00000007 rr \n\
";

    fn service(scheduler: &str, servers: &[(&str, ForwardingMethod, u32)]) -> ActualService {
        let destinations: Destinations = servers
            .iter()
            .map(|(at, method, weight)| {
                let at: std::net::SocketAddr = at.parse().unwrap();
                let key = DestinationKey {
                    address: at.ip(),
                    port: at.port(),
                };
                let config = DestinationConfig {
                    method: *method,
                    weight: *weight,
                    upper_threshold: 0,
                    lower_threshold: 0,
                };
                (key, config)
            })
            .collect();
        ActualService {
            config: ServiceConfig {
                scheduler: scheduler.to_owned(),
                flags: ServiceFlags::default(),
                timeout: 0,
                prefix_length: 32,
                persistence_engine: None,
            },
            destinations,
        }
    }

    fn key(protocol: Protocol, at: &str) -> ServiceKey {
        let at: std::net::SocketAddr = at.parse().unwrap();
        ServiceKey::Address {
            protocol,
            address: at.ip(),
            port: at.port(),
        }
    }

    #[test]
    fn every_form_of_line_is_read() {
        use ForwardingMethod::{DirectRoute, Masquerade};
        let listing = Listing::parse(TEXT);
        let tunnel = ForwardingMethod::Tunnel(Tunnel::default());
        let web = key(Protocol::TCP, "192.168.4.5:80");
        let both = [
            ("192.168.2.100:80", Masquerade, 1),
            ("192.168.2.200:80", DirectRoute, 0),
        ];
        let mark = |family| ServiceKey::FirewallMark { family, mark: 7 };
        for (key, service) in [
            (web, service("wrr", &both)),
            (key(Protocol::UDP, "192.168.4.5:53"), service("", &[])),
            (
                key(Protocol::UDP, "[2001:db8::1]:53"),
                service("rr", &[("[2001:db8::a]:53", tunnel, 65535)]),
            ),
            (
                mark(Family::V4),
                service("wlc", &[("192.168.2.100:0", Masquerade, 3)]),
            ),
            (mark(Family::V6), service("rr", &[])),
        ] {
            assert!(listing.agrees_with(&key, &service), "{key}");
            let other = ActualService {
                config: ServiceConfig {
                    scheduler: "sed".to_owned(),
                    ..service.config
                },
                ..service
            };
            assert!(!listing.agrees_with(&key, &other), "{key}");
        }
        for servers in [&both[..1], &[both[0], ("192.168.2.200:80", DirectRoute, 1)]] {
            assert!(!listing.agrees_with(&web, &service("wrr", servers)));
        }
    }
}
