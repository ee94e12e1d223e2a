//! `/proc/net/ip_vs` (`net/netfilter/ipvs/ip_vs_ctl.c`, `ip_vs_info_seq_show`):
//! the whole table in few calls, but without thresholds, tunnels, statistics,
//! and the address family of firewall marks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{ActualService, DestinationKey, ForwardingMethod, Protocol, ServiceKey};

/// The table as `/proc/net/ip_vs` shows it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listing {
    services: BTreeMap<ServiceKey, Listed>,
    /// A mark's services, of which there may be one of each family.
    marks: BTreeMap<u32, Vec<Listed>>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Listed {
    scheduler: String,
    destinations: BTreeMap<DestinationKey, (Method, u32)>,
}

/// `ip_vs_fwd_name`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Method {
    Masquerade,
    Local,
    Tunnel,
    DirectRoute,
    Bypass,
}

impl Listing {
    /// Reads the file's text. Lines that are of no known form are left out, so
    /// that what they are about looks as if it was not there.
    pub fn parse(text: &str) -> Self {
        let mut listing = Self::default();
        let mut service: Option<(Key, Listed)> = None;
        for line in text.lines().skip(2) {
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

    /// Whether a service is as it is given, as far as this can show it. Of a
    /// mark that has services of both families either will do. One that is not
    /// listed may be there all the same: where other network namespaces have
    /// tables, the kernel counts their services as well when it goes on after
    /// a page, and leaves out as many of ours (`ip_vs_info_seq_next`).
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
            "Bypass" => Self::Bypass,
            _ => return None,
        })
    }

    fn is(self, method: ForwardingMethod) -> bool {
        let shown = match method {
            // What has no name of its own is shown as Masq.
            ForwardingMethod::Masquerade | ForwardingMethod::Other(_) => Self::Masquerade,
            ForwardingMethod::Local => Self::Local,
            ForwardingMethod::Tunnel(_) => Self::Tunnel,
            ForwardingMethod::DirectRoute => Self::DirectRoute,
            ForwardingMethod::Bypass => Self::Bypass,
        };
        self == shown
    }
}

enum Key {
    Service(ServiceKey),
    Mark(u32),
}

/// `TCP  C0A80405:0050 wrr `, `UDP  [2001:0db8:…:0001]:0035 rr `,
/// `FWM  00000007 wlc persistent 30000 FFFFFFFF`.
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

/// `C0A80264:0050      Masq    1      0          0         `
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
