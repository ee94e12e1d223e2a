//! The remote addresses that programs of this host talk to.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, SocketAddr},
};

use ipvs::Protocol;
use netlink_packet_sock_diag::{constants::TCP_LISTEN, inet::InetResponse};

/// The links to the open files of this process. A socket's link is
/// `socket:[INODE]` (`proc_pid_fd(5)`).
const OPEN_FILES: &str = "/proc/self/fd";
/// The configuration of the C library's resolver (`resolv.conf(5)`).
const RESOLVERS: &str = "/etc/resolv.conf";
/// The port of DNS.
const DNS: u16 = 53;

/// A remote address that a program of this host talks to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Peer {
    /// The protocol of the connection.
    pub protocol: Protocol,
    /// The remote address and port.
    pub address: SocketAddr,
}

/// A TCP connection of this host, as its program sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connection {
    /// The local address and port.
    pub local: SocketAddr,
    /// The remote address and port that the program connected to.
    pub remote: SocketAddr,
}

/// Returns the inode numbers of the agent's own sockets.
///
/// # Errors
/// Returns an error if the open files cannot be listed.
pub(super) fn own_sockets() -> io::Result<BTreeSet<u32>> {
    let mut own = BTreeSet::new();
    for file in fs::read_dir(OPEN_FILES)? {
        // A listed file may have been closed in the meantime.
        let Ok(target) = fs::read_link(file?.path()) else {
            continue;
        };
        let inode = target.to_str().and_then(|target| {
            let number = target.strip_prefix("socket:[")?.strip_suffix(']')?;
            number.parse::<u32>().ok()
        });
        own.extend(inode);
    }
    Ok(own)
}

/// Returns the peers of TCP connections that this host's programs opened.
/// `sockets` includes the listening sockets. If a connection's local port is
/// the port of a listening socket, the peer opened the connection.
pub(super) fn of_tcp(sockets: &[InetResponse], own: &BTreeSet<u32>) -> BTreeSet<Peer> {
    let (listening, connected): (Vec<_>, Vec<_>) = sockets
        .iter()
        .partition(|socket| socket.header.state == TCP_LISTEN);
    let ports = listening.iter();
    let ports: BTreeSet<_> = ports
        .map(|socket| socket.header.socket_id.source_port)
        .collect();
    let opened = connected
        .into_iter()
        .filter(|socket| !ports.contains(&socket.header.socket_id.source_port));
    opened
        .filter_map(|socket| peer(Protocol::TCP, socket, own))
        .collect()
}

/// Returns the peers of connected UDP sockets.
pub(super) fn of_udp(sockets: &[InetResponse], own: &BTreeSet<u32>) -> BTreeSet<Peer> {
    let peers = sockets.iter();
    peers
        .filter_map(|socket| peer(Protocol::UDP, socket, own))
        .collect()
}

/// Returns the agent's own connections among the TCP sockets.
pub(super) fn own_connections(sockets: &[InetResponse], own: &BTreeSet<u32>) -> Vec<Connection> {
    let own = sockets
        .iter()
        .filter(|socket| own.contains(&socket.header.inode));
    let connections = own.map(|socket| {
        let id = &socket.header.socket_id;
        Connection {
            local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
            remote: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
        }
    });
    connections.collect()
}

fn peer(protocol: Protocol, socket: &InetResponse, own: &BTreeSet<u32>) -> Option<Peer> {
    let header = &socket.header;
    let id = &header.socket_id;
    let address = id.destination_address.to_canonical();
    let is_remote = !address.is_loopback() && !address.is_unspecified();
    (is_remote && !own.contains(&header.inode)).then(|| Peer {
        protocol,
        address: SocketAddr::new(address, id.destination_port),
    })
}

/// Returns the DNS servers of this host. Programs have a socket to a DNS server
/// only for a moment.
pub(super) fn resolvers() -> BTreeSet<Peer> {
    // If the configuration of the resolver cannot be read, the host's DNS
    // servers are unknown.
    let text = fs::read_to_string(RESOLVERS).unwrap_or_default();
    resolvers_in(&text)
}

fn resolvers_in(text: &str) -> BTreeSet<Peer> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let is_one = words.next() == Some("nameserver");
        let address: IpAddr = words.next().filter(|_| is_one)?.parse().ok()?;
        (!address.is_loopback()).then_some(SocketAddr::new(address, DNS))
    };
    let addresses = text.lines().filter_map(address);
    let both = |address| [Protocol::UDP, Protocol::TCP].map(|protocol| Peer { protocol, address });
    addresses.flat_map(both).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use netlink_packet_sock_diag::{
        constants::{AF_INET, TCP_ESTABLISHED},
        inet::{InetResponseHeader, SocketId},
    };

    use super::*;

    #[test]
    fn name_servers_are_peers_but_those_of_this_host_are_not() {
        let text = "# comment\nnameserver 192.0.2.53\nsearch example.org\n\
                    nameserver 127.0.0.53\nnameserver 2001:db8::53\nnameserver nonsense\n";
        let found = resolvers_in(text);
        let addresses: BTreeSet<_> = found.iter().map(|peer| peer.address).collect();
        let expected = ["192.0.2.53:53", "[2001:db8::53]:53"];
        let expected = expected.map(|address| address.parse().expect("an address"));
        assert_eq!(addresses, expected.into());
        assert_eq!(found.len(), 4, "each is asked over UDP and TCP");
    }

    #[test]
    fn the_agents_own_sockets_are_known() {
        let own = || own_sockets().expect("this process may list its files");
        let before = own();
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let with = own();
        assert!(with.difference(&before).count() >= 1, "{socket:?} is new");
    }

    /// Returns a socket as the kernel describes it.
    fn socket(state: u8, local_port: u16, remote: &str, inode: u32) -> InetResponse {
        let remote: SocketAddr = remote.parse().expect("an address");
        let mut socket_id = SocketId::new_v4();
        socket_id.source_port = local_port;
        socket_id.destination_address = remote.ip();
        socket_id.destination_port = remote.port();
        InetResponse {
            header: InetResponseHeader {
                family: AF_INET,
                state,
                timer: None,
                socket_id,
                recv_queue: 0,
                send_queue: 0,
                uid: 0,
                inode,
            },
            nlas: Default::default(),
        }
    }

    #[test]
    fn only_connections_that_other_programs_of_this_host_opened_have_peers() {
        let sockets = [
            socket(TCP_LISTEN, 22, "0.0.0.0:0", 1),
            socket(TCP_ESTABLISHED, 22, "192.0.2.1:50000", 2),
            socket(TCP_ESTABLISHED, 50001, "192.0.2.2:443", 3),
            socket(TCP_ESTABLISHED, 50002, "127.0.0.1:443", 4),
            socket(TCP_ESTABLISHED, 50003, "[::ffff:192.0.2.3]:5000", 5),
            socket(TCP_ESTABLISHED, 50004, "192.0.2.4:80", 6),
        ];
        let found = of_tcp(&sockets, &BTreeSet::from([6]));
        let found: Vec<_> = found.iter().map(|peer| peer.address.to_string()).collect();
        assert_eq!(found, ["192.0.2.2:443", "192.0.2.3:5000"]);
    }
}
