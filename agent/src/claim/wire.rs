//! Packet sockets that send and receive frames on Ethernet segments.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    future, io,
    net::{self, IpAddr, Ipv6Addr},
    os::fd::AsRawFd,
    task::Poll,
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, MsgFlags, bind, recv},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

use super::{
    machine::Say,
    packet::{self, Heard, Word},
};
use crate::host::interface::Card;

/// The Ethernet protocol numbers of ARP and IPv6
/// (`include/uapi/linux/if_ether.h`).
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
/// The size in bytes of the longest frame that is read. ARP and Neighbor
/// Discovery frames are shorter.
const LONGEST_FRAME: usize = 2048;
/// The maximum number of frames that are read from one socket in a row.
const MOST_AT_ONCE: usize = 1000;

/// The Ethernet segments on which the agent listens.
#[derive(Default)]
pub(super) struct Wires {
    /// The packet sockets, by interface and address family. They are not UDP
    /// sockets. The type `UdpSocket` fits because packet sockets send and
    /// receive datagrams too.
    wires: BTreeMap<(u32, Family), UdpSocket>,
    /// Sockets in the multicast groups of the IPv6 addresses that this host
    /// probes for. As a member of the groups, this host receives other hosts'
    /// probes. For an IPv6 address that the host has, the kernel itself joins
    /// the multicast group.
    groups: BTreeMap<(u32, Ipv6Addr), net::UdpSocket>,
    troubles: BTreeMap<u32, String>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Family {
    V4,
    V6,
}

impl Wires {
    /// Listens on exactly the cards in `addresses`. The boolean is true if this
    /// host still probes for the address.
    pub(super) fn listen_for(&mut self, addresses: impl Iterator<Item = (IpAddr, Card, bool)>) {
        let mut wires = BTreeSet::new();
        let mut groups = BTreeSet::new();
        for (address, card, is_asked) in addresses {
            wires.insert((card.index, family(address)));
            if let (IpAddr::V6(address), true) = (address, is_asked) {
                groups.insert((card.index, address));
            }
        }
        self.wires.retain(|wire, _| wires.contains(wire));
        self.groups.retain(|group, _| groups.contains(group));
        self.troubles.clear();
        let missing: Vec<_> = wires
            .into_iter()
            .filter(|wire| !self.wires.contains_key(wire))
            .collect();
        // Call `link_addresses` only if a socket is missing, because it lists all addresses of
        // the host.
        let names = match missing.is_empty() {
            true => Ok(BTreeMap::new()),
            false => link_addresses(),
        };
        for wire in missing {
            let (index, family) = wire;
            let opened = names.as_ref().map_err(|errno| (*errno).into());
            match opened.and_then(|names| open(names.get(&index), family)) {
                Ok(socket) => {
                    self.wires.insert(wire, socket);
                }
                Err(error) => self.trouble(index, &error),
            }
        }
        for group in groups {
            let (index, address) = group;
            if let btree_map::Entry::Vacant(entry) = self.groups.entry(group) {
                match join(index, address) {
                    Ok(socket) => {
                        entry.insert(socket);
                    }
                    Err(error) => self.trouble(index, &error),
                }
            }
        }
    }

    /// Returns the interfaces on which the agent cannot listen, by interface
    /// index, each with the reason.
    pub(super) fn troubles(&self) -> &BTreeMap<u32, String> {
        &self.troubles
    }

    fn trouble(&mut self, index: u32, error: &io::Error) {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "; run the agent as root or with CAP_NET_RAW",
            _ => "",
        };
        self.troubles.insert(index, format!("{error}{remedy}"));
    }

    /// Waits until [`Wires::hear`] has a frame to read.
    pub(super) async fn readable(&self) {
        future::poll_fn(|context| {
            let mut wires = self.wires.values();
            match wires.any(|wire| wire.poll_recv_ready(context).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Calls `take` for every frame that was received since the last call of
    /// this function. The kernel is asked even if the runtime does not yet know
    /// of a frame: on a busy host, a deadline may be known earlier.
    pub(super) fn hear(&self, mut take: impl FnMut(u32, Heard)) {
        let mut frame = [0; LONGEST_FRAME];
        for ((index, _), wire) in &self.wires {
            for _ in 0..MOST_AT_ONCE {
                let received = recv(wire.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT);
                // The second call makes the runtime wait for the next frame.
                match received.or_else(|_| wire.try_recv(&mut frame)) {
                    Ok(length) => {
                        if let Some(heard) = packet::parse(&frame[..length]) {
                            take(*index, heard);
                        }
                    }
                    // An error means that no frame is left or that the
                    // interface is down. Frames that arrive later cause another
                    // event of the socket.
                    Err(_) => break,
                }
            }
        }
    }

    /// Sends a frame. A frame that cannot be sent counts as lost on the
    /// segment.
    pub(super) fn say(&self, say: &Say) {
        let frame = match say.word {
            Word::Asks => packet::probe(say.address, say.card.mac),
            Word::Has => packet::announcement(say.address, say.card.mac),
        };
        if let Some(wire) = self.wires.get(&(say.card.index, family(say.address)))
            && let Err(error) = wire.try_send(&frame)
        {
            tracing::debug!("cannot send a frame about {}: {error}", say.address);
        }
    }
}

fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// Returns the link-layer address of each interface. A packet socket for an
/// interface is bound to this address.
fn link_addresses() -> Result<BTreeMap<u32, LinkAddr>, Errno> {
    let found = getifaddrs()?.filter_map(|interface| {
        let address = *interface.address?.as_link_addr()?;
        Some((u32::try_from(address.ifindex()).ok()?, address))
    });
    Ok(found.collect())
}

fn open(interface: Option<&LinkAddr>, family: Family) -> io::Result<UdpSocket> {
    let interface = interface.ok_or(Errno::ENODEV)?;
    let protocol = match family {
        Family::V4 => ETH_P_ARP,
        Family::V6 => ETH_P_IPV6,
    };
    let protocol = Protocol::from(i32::from(protocol.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    if let Family::V6 = family {
        socket.attach_filter(&neighbor_discovery())?;
    }
    socket.set_nonblocking(true)?;
    bind(socket.as_raw_fd(), interface)?;
    UdpSocket::from_std(socket.into())
}

/// Returns a socket filter that passes only neighbor solicitations and
/// advertisements. These messages have no extension headers (RFC 6980). Without
/// the filter, the socket would receive all IPv6 packets of the interface.
fn neighbor_discovery() -> [SockFilter; 7] {
    // The values of BPF_LD | BPF_B | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K and
    // BPF_RET | BPF_K in `include/uapi/linux/bpf_common.h`.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NEXT_HEADER: u32 = 14 + 6;
    const ICMP_TYPE: u32 = 14 + 40;
    const ICMPV6: u32 = 58;
    const SOLICITATION: u32 = 135;
    const ADVERTISEMENT: u32 = 136;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, NEXT_HEADER),
        SockFilter::new(JUMP_IF_EQUAL, 0, 4, ICMPV6),
        SockFilter::new(LOAD_BYTE, 0, 0, ICMP_TYPE),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, SOLICITATION),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, ADVERTISEMENT),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn join(index: u32, address: Ipv6Addr) -> io::Result<net::UdpSocket> {
    let socket = net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    socket.join_multicast_v6(&packet::solicited_node(address), index)?;
    Ok(socket)
}
