//! Asks the kernel's connection tracking for the real remote address of a
//! connection, after the translation by kube-proxy or another NAT rule.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple},
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc;

use super::{
    peers::Connection,
    sockets::{open, receive_one},
};

/// The size of the receive buffer in bytes. One entry of the connection
/// tracking takes a few hundred bytes.
const RECEIVE: usize = 16 * 1024;

/// Returns the remote address and port that the connection's packets have after
/// all translation. Returns `None` if the kernel does not track the connection.
///
/// # Errors
/// Returns an error if the kernel does not answer, or has no connection
/// tracking.
pub fn real_remote(connection: &Connection) -> io::Result<Option<SocketAddr>> {
    let socket = open(NETLINK_NETFILTER)?;
    socket.send(&request(connection), 0)?;
    let mut buffer = vec![0; RECEIVE];
    loop {
        let datagram = receive_one(&socket, &mut buffer)?;
        let answer = NetlinkMessage::<NetfilterMessage>::deserialize(datagram)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => return Ok(reply_source(&message)),
            NetlinkPayload::Error(error) if error.raw_code() == -libc::ENOENT => return Ok(None),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            _ => {}
        }
    }
}

fn request(connection: &Connection) -> Vec<u8> {
    let Connection { local, remote } = connection;
    let original = vec![
        Tuple::Ip(vec![
            IPTuple::SourceAddress(local.ip()),
            IPTuple::DestinationAddress(remote.ip()),
        ]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(Protocol::Tcp),
            ProtoTuple::SourcePort(local.port()),
            ProtoTuple::DestinationPort(remote.port()),
        ]),
    ];
    let family = match remote.ip() {
        IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
        IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    let get = ConntrackMessage::Get(vec![ConntrackAttribute::CtaTupleOrig(original)]);
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), get);
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Returns the source of the connection's reply packets. The reply packets come
/// from the real remote end of the connection.
fn reply_source(message: &NetfilterMessage) -> Option<SocketAddr> {
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &message.inner else {
        return None;
    };
    let reply = attributes.iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaTupleReply(reply) => Some(reply),
        _ => None,
    })?;
    let (mut address, mut port) = (None, None);
    for part in reply {
        match part {
            Tuple::Ip(parts) => {
                address = parts.iter().find_map(|part| match part {
                    IPTuple::SourceAddress(address) => Some(address.to_canonical()),
                    _ => None,
                });
            }
            Tuple::Proto(parts) => {
                port = parts.iter().find_map(|part| match part {
                    ProtoTuple::SourcePort(port) => Some(*port),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(SocketAddr::new(address?, port?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(source: &str, destination: &str) -> Vec<Tuple> {
        let [source, destination] =
            [source, destination].map(|text| text.parse::<SocketAddr>().expect("an address"));
        vec![
            Tuple::Ip(vec![
                IPTuple::SourceAddress(source.ip()),
                IPTuple::DestinationAddress(destination.ip()),
            ]),
            Tuple::Proto(vec![
                ProtoTuple::SourcePort(source.port()),
                ProtoTuple::DestinationPort(destination.port()),
            ]),
        ]
    }

    #[test]
    fn a_connection_goes_to_the_source_of_its_replies() {
        let client = "192.168.4.5:40000";
        let answer = NetfilterMessage::new(
            NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0),
            ConntrackMessage::New(vec![
                ConntrackAttribute::CtaTupleOrig(tuple(client, "10.96.0.1:443")),
                ConntrackAttribute::CtaTupleReply(tuple("192.0.2.7:6443", client)),
            ]),
        );
        let real = "192.0.2.7:6443".parse().expect("an address");
        assert_eq!(reply_source(&answer), Some(real));
    }
}
