//! Lists the ports on which programs of this host listen. Like `ss`, the agent
//! asks the kernel over netlink (`sock_diag(7)`). The agent requests only
//! listening sockets, so the cost does not grow with the number of the host's
//! connections.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
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
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::sys::{
    socket::{MsgFlags, recv, setsockopt, sockopt},
    time::TimeVal,
};

/// The file that lists the SCTP endpoints of this thread's network namespace.
/// This file exists only after the kernel has loaded SCTP. The agent does not
/// use sock_diag for SCTP, because such a request would make the kernel load
/// SCTP.
const SCTP_ENDPOINTS: &str = "/proc/thread-self/net/sctp/eps";
/// The state of a listening SCTP endpoint: `SCTP_SS_LISTENING` equals TCP's
/// LISTEN (`include/net/sctp/constants.h`).
const SCTP_LISTENING: &str = "10";
/// The size in bytes of the buffer for the kernel's answer. The kernel sends a
/// dump in datagrams of up to 32 KiB (`net/netlink/af_netlink.c`).
const RECEIVE: usize = 64 * 1024;
/// The maximum wait for an answer of the kernel, which normally answers at
/// once.
const PATIENCE: Duration = Duration::from_secs(5);

/// The boundary to the host's sockets, kept small so that tests can replace it
/// with a model.
pub trait Listening {
    /// Returns every socket on which a program of this host waits for clients.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer, so that the listeners
    /// are unknown.
    fn listeners(&mut self) -> io::Result<Vec<Listener>>;
}

/// A socket that waits for clients: a listening TCP or SCTP socket, or a UDP
/// socket that is bound and not connected.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Listener {
    /// The protocol of the socket.
    pub protocol: Protocol,
    /// The address that the socket is bound to; 0.0.0.0 or :: means every
    /// address.
    pub address: IpAddr,
    /// The port that the socket is bound to.
    pub port: u16,
    /// Whether a socket that is bound to :: accepts no IPv4 clients
    /// (`IPV6_V6ONLY`).
    pub is_v6_only: bool,
}

impl Listener {
    /// Whether the listening socket accepts clients that connect to the given
    /// address and port.
    pub fn takes(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        let is_for_it = match self.address.to_canonical() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.is_ipv4(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.is_ipv6() || !self.is_v6_only,
            bound => bound == address,
        };
        is_for_it && self.protocol == protocol && self.port == port
    }
}

/// Lists this host's listeners by asking the kernel over sock_diag.
#[derive(Debug)]
pub struct SockDiag;

impl Listening for SockDiag {
    fn listeners(&mut self) -> io::Result<Vec<Listener>> {
        let mut found = sctp_endpoints()?;
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        for protocol in [Protocol::TCP, Protocol::UDP] {
            for family in [AF_INET, AF_INET6] {
                found.extend(dump(&socket, family, protocol)?);
            }
        }
        Ok(found)
    }
}

fn dump(socket: &Socket, family: u8, protocol: Protocol) -> io::Result<Vec<Listener>> {
    socket.send(&request(family, protocol), 0)?;
    let mut buffer = vec![0; RECEIVE];
    let mut found = Vec::new();
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
            Err(nix::errno::Errno::EINTR) => continue,
            received => received?,
        };
        let mut datagram = buffer.get(..length).ok_or(ErrorKind::InvalidData)?;
        while !datagram.is_empty() {
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(datagram)
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            match answer.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    found.push(listener(protocol, &response));
                }
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            let aligned = (answer.header.length as usize).next_multiple_of(4);
            datagram = match aligned {
                0 => &[],
                _ => datagram.get(aligned..).unwrap_or_default(),
            };
        }
    }
}

fn request(family: u8, protocol: Protocol) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let (protocol, states) = match protocol {
        // A bound UDP socket without a peer is in the state CLOSE
        // (`net/ipv4/udp.c`).
        Protocol::UDP => (IPPROTO_UDP, StateFlags::CLOSE),
        _ => (IPPROTO_TCP, StateFlags::LISTEN),
    };
    let request = InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states,
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

/// Converts one entry of the kernel's answer to a listener. The kernel reports
/// IPV6_V6ONLY for every IPv6 socket that listens or is not connected
/// (`net/ipv4/inet_diag.c`, `inet_diag_msg_attrs_fill`).
fn listener(protocol: Protocol, response: &InetResponse) -> Listener {
    let id = &response.header.socket_id;
    Listener {
        protocol,
        address: id.source_address,
        port: id.source_port,
        is_v6_only: response.nlas.contains(&Nla::SkV6Only(true)),
    }
}

fn sctp_endpoints() -> io::Result<Vec<Listener>> {
    match fs::read_to_string(SCTP_ENDPOINTS) {
        Ok(text) => Ok(parse_sctp(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Parses lines with the columns `ENDPT SOCK STY SST HBKT LPORT UID INODE
/// LADDRS` (`net/sctp/proc.c`, `sctp_eps_seq_show`), and ignores all other
/// lines.
fn parse_sctp(text: &str) -> Vec<Listener> {
    let endpoint = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (state, port) = (*words.get(3)?, words.get(5)?.parse().ok()?);
        let addresses = words.get(8..).filter(|_| state == SCTP_LISTENING)?;
        let addresses = addresses.iter().filter_map(|word| word.parse().ok());
        let listener = |address| Listener {
            protocol: Protocol::SCTP,
            address,
            port,
            is_v6_only: false,
        };
        Some(addresses.map(listener).collect::<Vec<_>>())
    };
    text.lines().filter_map(endpoint).flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn listener(protocol: Protocol, address: &str, port: u16, is_v6_only: bool) -> Listener {
        Listener {
            protocol,
            address: address.parse().unwrap(),
            port,
            is_v6_only,
        }
    }

    #[test]
    fn a_listener_takes_its_own_port_of_the_addresses_that_it_is_bound_to() {
        let (v4, v6) = ("192.0.2.1", "2001:db8::1");
        for (bound, is_v6_only, takes_v4, takes_v6) in [
            ("0.0.0.0", false, true, false),
            ("::", false, true, true),
            ("::", true, false, true),
            (v4, false, true, false),
            ("::ffff:192.0.2.1", false, true, false),
            (v6, false, false, true),
            ("192.0.2.2", false, false, false),
        ] {
            let listener = listener(Protocol::TCP, bound, 22, is_v6_only);
            for (address, expected) in [(v4, takes_v4), (v6, takes_v6)] {
                let address = address.parse().unwrap();
                assert_eq!(
                    listener.takes(Protocol::TCP, address, 22),
                    expected,
                    "clients of {address} come to {listener:?}"
                );
                assert!(!listener.takes(Protocol::TCP, address, 23), "another port");
                assert!(!listener.takes(Protocol::UDP, address, 22), "not TCP");
            }
        }
    }

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

    /// The test's text has the format of `net/sctp/proc.c`,
    /// `sctp_eps_seq_show`. The text lists an endpoint that listens on every
    /// address, an endpoint that listens on two addresses, and a client's
    /// endpoint.
    #[test]
    fn endpoints_of_sctp_are_read_as_the_kernel_writes_them() {
        let text = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
0000000000000000 0000000000000000 2   10  29   3868      0 4711 0.0.0.0
0000000000000000 0000000000000000 2   10  30   3869      0 4712 192.0.2.1 2001:db8::1
0000000000000000 0000000000000000 2   7   31   40000     0 4713 192.0.2.1 \n";
        assert_eq!(
            parse_sctp(text),
            [
                listener(Protocol::SCTP, "0.0.0.0", 3868, false),
                listener(Protocol::SCTP, "192.0.2.1", 3869, false),
                listener(Protocol::SCTP, "2001:db8::1", 3869, false),
            ]
        );
    }
}
