//! Builds and parses, without I/O, the Ethernet frames that ask for or announce
//! an address: ARP for IPv4 (RFC 826, RFC 5227) and Neighbor Discovery for IPv6
//! (RFC 4861, RFC 4862).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
    icmpv6::{Icmpv6PayloadSlice, NdpOptionSlice, NeighborAdvertisementHeader},
};

use crate::host::interface::Mac;

/// The statement that a frame makes about an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Word {
    /// The sender of the frame wants the address, and asks whether another host
    /// has it.
    Asks,
    /// The sender of the frame has the address.
    Has,
}

/// A received frame's statement about an address, with its sender.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heard {
    /// The address that the frame is about.
    pub address: IpAddr,
    /// The frame's statement about the address.
    pub word: Word,
    /// The Ethernet address of the host that asks for or has the address.
    pub from: Mac,
}

const BROADCAST: Mac = Mac([0xff; 6]);
const NOBODY: Mac = Mac([0; 6]);
/// The IPv6 multicast group of all nodes on a segment (RFC 4291).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The hop limit of a packet that did not come through a router (RFC 4861,
/// 7.1).
const HOP_LIMIT: u8 = 255;
/// The first two bytes of the Neighbor Discovery option with the target's
/// Ethernet address: the type, and the length in units of 8 bytes (RFC 4861,
/// 4.6.1).
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

/// Returns a frame that asks whether another host has an address: an ARP probe
/// (RFC 5227, 2.1.1), or a neighbor solicitation for duplicate address
/// detection (RFC 4862, 5.4.2).
pub fn probe(address: IpAddr, me: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_request(Ipv4Addr::UNSPECIFIED, address, me),
        IpAddr::V6(address) => {
            let group = solicited_node(address);
            icmp(
                (me, multicast(group)),
                (Ipv6Addr::UNSPECIFIED, group),
                Icmpv6Type::NeighborSolicitation,
                &address.octets(),
            )
        }
    }
}

/// Returns a frame that announces that this host has an address: an ARP
/// announcement (RFC 5227, 2.3), or an unsolicited neighbor advertisement (RFC
/// 4861, 7.2.6). Hosts that receive the announcement replace their cached
/// Ethernet address for the announced address.
pub fn announcement(address: IpAddr, me: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_request(address, address, me),
        IpAddr::V6(address) => {
            let option = [&TARGET_LINK_LAYER_ADDRESS[..], &me.0].concat();
            let header = NeighborAdvertisementHeader {
                router: false,
                solicited: false,
                r#override: true,
            };
            icmp(
                (me, multicast(ALL_NODES)),
                (address, ALL_NODES),
                Icmpv6Type::NeighborAdvertisement(header),
                &[&address.octets()[..], &option].concat(),
            )
        }
    }
}

/// Returns a frame's statement about an address, or `None` if the frame is not
/// about an address.
pub fn parse(frame: &[u8]) -> Option<Heard> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match packet.net.as_ref()? {
        NetSlice::Arp(arp) => {
            let arp = arp.to_packet().try_eth_ipv4().ok()?;
            let from = Mac(arp.sender_mac);
            let (address, word) = match arp.sender_ipv4_addr() {
                Ipv4Addr::UNSPECIFIED if arp.operation == ArpOperation::REQUEST => {
                    (arp.target_ipv4_addr(), Word::Asks)
                }
                Ipv4Addr::UNSPECIFIED => return None,
                sender => (sender, Word::Has),
            };
            Some(Heard {
                address: address.into(),
                word,
                from,
            })
        }
        NetSlice::Ipv6(ip) if ip.header().hop_limit() == HOP_LIMIT => {
            let TransportSlice::Icmpv6(icmp) = packet.transport.as_ref()? else {
                return None;
            };
            let frame_from = Mac(packet.link.as_ref()?.to_header()?.ethernet2()?.source);
            let (target, word, from) = match icmp.payload_slice().ok()? {
                Icmpv6PayloadSlice::NeighborSolicitation(solicitation)
                    if ip.header().source_addr().is_unspecified() =>
                {
                    (solicitation.target_address(), Word::Asks, frame_from)
                }
                Icmpv6PayloadSlice::NeighborAdvertisement(advertisement) => {
                    let mut options = advertisement.options_iterator().flatten();
                    let named = options.find_map(|option| match option {
                        NdpOptionSlice::TargetLinkLayerAddress(named) => {
                            named.link_layer_address().try_into().ok().map(Mac)
                        }
                        _ => None,
                    });
                    let from = named.unwrap_or(frame_from);
                    (advertisement.target_address(), Word::Has, from)
                }
                _ => return None,
            };
            Some(Heard {
                address: target.into(),
                word,
                from,
            })
        }
        _ => None,
    }
}

/// Returns the multicast group in which the owner of an IPv6 address receives
/// solicitations (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(a),
        u16::from_be_bytes([b, c]),
    )
}

fn arp_request(sender: Ipv4Addr, target: Ipv4Addr, me: Mac) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: me.0,
        sender_ipv4: sender.octets(),
        target_mac: NOBODY.0,
        target_ipv4: target.octets(),
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(me.0, BROADCAST.0)
        .arp(packet.into())
        .write(&mut frame)
        .expect("writing to a vector cannot fail");
    frame
}

fn icmp(
    (from, to): (Mac, Mac),
    (source, destination): (Ipv6Addr, Ipv6Addr),
    kind: Icmpv6Type,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.0, to.0)
        .ipv6(source.octets(), destination.octets(), HOP_LIMIT)
        .icmpv6(kind)
        .write(&mut frame, payload)
        .expect("writing to a vector cannot fail");
    frame
}

/// Returns the Ethernet address of an IPv6 multicast group (RFC 2464, 7).
fn multicast(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests;
