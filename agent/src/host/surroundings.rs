//! Reads facts about the host's network: where its routes lead, which routes
//! came from router advertisements, and whether connections are tracked.

use std::{collections::BTreeSet, fs, io, net::IpAddr};

use futures::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
};
use tokio::{runtime::Runtime, time};

use super::netlink::{PATIENCE, connect};

/// The first two numbers of a Linux kernel's version.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct KernelVersion(pub u32, pub u32);

impl KernelVersion {
    /// Parses a kernel's release as uname(2) returns it, such as
    /// `6.1.0-28-amd64`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(Self(next()?, next()?))
    }
}

/// The boundary to the host's network, kept small so that tests can replace it
/// with a model.
pub trait Surroundings {
    /// Returns the index of the interface that leads to an address, or `None`
    /// if there is no route to the address.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer.
    fn toward(&mut self, address: IpAddr) -> io::Result<Option<u32>>;

    /// Returns the indexes of the interfaces that have an IPv6 default route
    /// from router advertisements.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer.
    fn advertised(&mut self) -> io::Result<BTreeSet<u32>>;

    /// Whether connection tracking has counted a packet as invalid. An invalid
    /// packet shows that connection tracking is active in this network
    /// namespace, or was active since the last boot.
    fn calls_packets_invalid(&mut self) -> bool;

    /// Returns the running kernel's version, or `None` if it cannot be read.
    fn kernel(&mut self) -> Option<KernelVersion>;
}

/// The access to the network of the real host. The route socket is opened at
/// its first use, and again after a failure. The socket belongs to the calling
/// thread's network namespace.
#[derive(Default)]
pub struct ThisHost {
    routes: Option<(Runtime, Handle)>,
}

impl ThisHost {
    fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>,
    ) -> io::Result<T> {
        let (runtime, handle) = match self.routes.take() {
            Some(routes) => routes,
            // The rtnetlink connection is strict: without strict checks, the
            // kernel ignores the request's filter and returns every route of
            // the host.
            None => connect(true)?,
        };
        let answer = async { time::timeout(PATIENCE, question(handle.clone())).await };
        let answer = runtime.block_on(answer);
        match answer.map_err(|_| io::ErrorKind::TimedOut)? {
            Ok(answer) => {
                self.routes = Some((runtime, handle));
                Ok(answer)
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl Surroundings for ThisHost {
    fn toward(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        self.ask(async move |handle| {
            let mut routes = Box::pin(handle.route().get(lookup(address)).execute());
            match routes.try_next().await {
                Ok(route) => Ok(route.as_ref().and_then(interface)),
                Err(rtnetlink::Error::NetlinkError(_)) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn advertised(&mut self) -> io::Result<BTreeSet<u32>> {
        self.ask(async |handle| {
            let mut routes = Box::pin(handle.route().get(from_advertisements()).execute());
            let mut interfaces = BTreeSet::new();
            while let Some(route) = routes.try_next().await? {
                if route.header.destination_prefix_length == 0 {
                    interfaces.extend(interface(&route));
                }
            }
            Ok(interfaces)
        })
    }

    fn calls_packets_invalid(&mut self) -> bool {
        fs::read_to_string("/proc/net/stat/nf_conntrack").is_ok_and(|counts| has_invalid(&counts))
    }

    fn kernel(&mut self) -> Option<KernelVersion> {
        KernelVersion::parse(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
    }
}

/// Returns a request for the route to an address. The request's header has only
/// the address family and the prefix length. With strict checks, the kernel
/// refuses a request that sets other header fields (`net/ipv4/route.c`,
/// `inet_rtm_valid_getroute_req`).
fn lookup(address: IpAddr) -> RouteMessage {
    let (family, length, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
    };
    let mut message = empty(family);
    message.header.destination_prefix_length = length;
    message
        .attributes
        .push(RouteAttribute::Destination(destination));
    message
}

/// Returns a request for all routes from router advertisements. The kernel
/// leaves out all routes that are not from router advertisements
/// (`net/ipv4/fib_frontend.c`, `ip_valid_fib_dump_req`).
fn from_advertisements() -> RouteMessage {
    let mut message = empty(AddressFamily::Inet6);
    message.header.protocol = RouteProtocol::Ra;
    message
}

fn empty(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = 0;
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unspec;
    message
}

fn interface(route: &RouteMessage) -> Option<u32> {
    let attributes = &mut route.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// Whether any processor has counted an invalid packet. The file nf_conntrack
/// has a line of column names, then a line of hexadecimal numbers for each
/// processor (`net/netfilter/nf_conntrack_standalone.c`, `ct_cpu_seq_show`).
fn has_invalid(counts: &str) -> bool {
    let mut lines = counts.lines();
    let names = lines.next().unwrap_or_default();
    let Some(column) = names.split_whitespace().position(|name| name == "invalid") else {
        return false;
    };
    lines
        .filter_map(|line| line.split_whitespace().nth(column))
        .any(|count| u64::from_str_radix(count, 16).is_ok_and(|count| count > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_packets_are_seen_on_whichever_processor_counted_them() {
        // The column names are from Linux 6.1.
        let names =
            "entries  clashres found new invalid ignore delete chainlength insert insert_failed";
        let row = |invalid| {
            format!("00000000  00000000 00000007 00000000 {invalid} 00000000 00000000 00000000")
        };
        let counts = |second| format!("{names}\n{}\n{}\n", row("00000000"), row(second));
        assert!(!has_invalid(&counts("00000000")), "none so far");
        assert!(has_invalid(&counts("0000000a")), "ten on the second");
        assert!(!has_invalid(""), "a kernel without the file");
    }

    #[test]
    fn the_kernel_says_which_way_leads_to_this_host_itself() {
        let mut host = ThisHost::default();
        let lo = fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
        let lo: u32 = lo.trim().parse().unwrap();
        let toward = host.toward([127, 0, 0, 1].into()).unwrap();
        assert_eq!(toward, Some(lo), "127.0.0.1 is behind lo");
        host.advertised().expect("a list, even an empty one");
        assert!(host.kernel().is_some(), "a kernel has a version");
    }
}
