//! Lists the sockets of this host's programs, as `ss` does: the kernel returns
//! them over netlink (`sock_diag(7)`).

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    os::fd::AsRawFd,
    time::Duration,
};

use ipvs::Protocol;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::sys::{
    socket::{MsgFlags, recv, setsockopt, sockopt},
    time::TimeVal,
};

use super::{
    listeners::{Listener, listener, sctp_endpoints},
    peers::{self, Connection, Peer},
};

/// The size of the receive buffer in bytes. The kernel sends a dump in
/// datagrams of up to 32 KiB (`net/netlink/af_netlink.c`).
const RECEIVE: usize = 64 * 1024;
/// The maximum wait for the kernel's answer. The kernel answers at once or
/// never.
const PATIENCE: Duration = Duration::from_secs(5);

/// The boundary to the host's sockets, kept small so that tests can replace it
/// with a model.
pub trait Sockets {
    /// Returns every socket on which a program of this host waits for clients.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer; the listeners are then
    /// unknown.
    fn listeners(&mut self) -> io::Result<Vec<Listener>>;

    /// Returns the remote addresses to which programs of this host, except the
    /// agent itself, have connections.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer; the peers are then
    /// unknown.
    fn peers(&mut self) -> io::Result<BTreeSet<Peer>>;
}

/// Lists this host's sockets by asking the kernel over sock_diag.
#[derive(Debug)]
pub struct SockDiag;

impl Sockets for SockDiag {
    fn listeners(&mut self) -> io::Result<Vec<Listener>> {
        let mut found = sctp_endpoints()?;
        // A bound UDP socket without a peer is in the state CLOSE
        // (`net/ipv4/udp.c`).
        for (protocol, states) in [
            (Protocol::TCP, StateFlags::LISTEN),
            (Protocol::UDP, StateFlags::CLOSE),
        ] {
            let sockets = dump(protocol, &states)?;
            found.extend(sockets.iter().map(|socket| listener(protocol, socket)));
        }
        Ok(found)
    }

    fn peers(&mut self) -> io::Result<BTreeSet<Peer>> {
        let mut own = peers::own_sockets()?;
        let tcp = dump(
            Protocol::TCP,
            &(StateFlags::ESTABLISHED | StateFlags::LISTEN),
        )?;
        let udp = dump(Protocol::UDP, &StateFlags::ESTABLISHED)?;
        // The agent may have opened sockets during the dump.
        own.extend(peers::own_sockets()?);
        let mut found = peers::of_tcp(&tcp, &own);
        found.extend(peers::of_udp(&udp, &own));
        found.extend(peers::resolvers());
        Ok(found)
    }
}

/// Returns the TCP connections of the agent itself.
///
/// # Errors
/// Returns an error if the kernel does not answer, or if the agent's open files
/// cannot be listed.
pub fn own_connections() -> io::Result<Vec<Connection>> {
    let connected = dump(Protocol::TCP, &StateFlags::ESTABLISHED)?;
    Ok(peers::own_connections(&connected, &peers::own_sockets()?))
}

/// Returns a protocol's sockets in the given states, of both address families.
fn dump(protocol: Protocol, states: &StateFlags) -> io::Result<Vec<InetResponse>> {
    let socket = open(NETLINK_SOCK_DIAG)?;
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        socket.send(&request(family, protocol, states), 0)?;
        receive(&socket, &mut found)?;
    }
    Ok(found)
}

/// Opens a netlink socket that waits at most [`PATIENCE`] for an answer.
pub(super) fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    Ok(socket)
}

/// Receives one datagram into the buffer.
pub(super) fn receive_one<'a>(socket: &Socket, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(length) => return Ok(buffer.get(..length).ok_or(ErrorKind::InvalidData)?),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives the answers to one request.
fn receive(socket: &Socket, found: &mut Vec<InetResponse>) -> io::Result<()> {
    let mut buffer = vec![0; RECEIVE];
    loop {
        let mut datagram = receive_one(socket, &mut buffer)?;
        while !datagram.is_empty() {
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(datagram)
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            let aligned = (answer.header.length as usize).next_multiple_of(4);
            match answer.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    found.push(*response);
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            datagram = match aligned {
                0 => &[],
                _ => datagram.get(aligned..).unwrap_or_default(),
            };
        }
    }
}

fn request(family: u8, protocol: Protocol, states: &StateFlags) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family,
        protocol: match protocol {
            Protocol::UDP => IPPROTO_UDP,
            _ => IPPROTO_TCP,
        },
        extensions: ExtensionFlags::empty(),
        states: states.clone(),
        socket_id: match family {
            AF_INET => SocketId::new_v4(),
            _ => SocketId::new_v6(),
        },
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn what_listens_on_this_machine_is_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(udp.local_addr().unwrap()).unwrap();
        let client = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let found = SockDiag.listeners().expect("the kernel answers");
        for (protocol, address, expected) in [
            (Protocol::TCP, tcp.local_addr(), true),
            (Protocol::UDP, udp.local_addr(), true),
            (Protocol::UDP, connected.local_addr(), false),
            (Protocol::TCP, client.local_addr(), false),
        ] {
            let address = address.unwrap();
            let takes = |found: &Listener| found.takes(protocol, address.ip(), address.port());
            assert_eq!(
                found.iter().any(takes),
                expected,
                "{protocol:?} {address} listens"
            );
        }
    }
}
