//! Tests whether this host's own firewall lets a connection out.
//!
//! When the firewall drops a SYN, the kernel hides the drop from the socket
//! (`net/ipv4/tcp_output.c`, tcp_connect). When the firewall rejects a SYN, the
//! rejection looks like an answer from the server. Only a raw socket returns
//! the firewall's error (EPERM). To get the firewall's error, the agent sends
//! one SYN to the server's port over a raw socket. If the server answers the
//! raw SYN, the kernel resets the connection.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    sync::OnceLock,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
        socket,
    },
};

use super::recent::Recent;

/// How long the result of a firewall test is valid, if the server still fails
/// in the same way.
const BELIEVED: Duration = Duration::from_secs(30);
const NO_FLAGS: MsgFlags = MsgFlags::empty();
/// The IP protocol number of TCP (IPPROTO_TCP).
const TCP: u8 = 6;

/// How a server failed to answer a SYN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unheard {
    /// The server sent no answer to the SYN.
    Silent,
    /// A rejection of the SYN came back to the host.
    Refused,
}

/// Tests the firewall with raw SYNs. Without the capability `CAP_NET_RAW` the
/// test finds no problem.
pub(super) struct Firewall {
    /// The addresses to which the firewall recently let a SYN through. The
    /// value for each address is the server's failure that led to the test.
    let_through: Recent<SocketAddr, Unheard>,
    v4: OnceLock<Option<OwnedFd>>,
    v6: OnceLock<Option<OwnedFd>>,
}

impl Firewall {
    /// Returns a firewall test that has not sent any SYN yet.
    pub(super) fn new() -> Self {
        Self {
            let_through: Recent::new(BELIEVED),
            v4: OnceLock::new(),
            v6: OnceLock::new(),
        }
    }

    /// Returns true if this host's firewall drops or rejects a SYN to `address`
    /// before the SYN leaves the host. After the firewall let a SYN through,
    /// the address is not tested again for a while.
    pub(super) fn forbids(&self, address: SocketAddr, unheard: Unheard) -> bool {
        let now = Instant::now();
        if self.let_through.get(&address, now) == Some(unheard) {
            return false;
        }
        match self.send_syn(address) {
            Some(Ok(())) => {
                self.let_through.put(address, unheard, now);
                false
            }
            Some(Err(errno)) => errno == Errno::EPERM,
            None => false,
        }
    }

    /// Records that the server has answered. After the server's next failure,
    /// the firewall is tested again.
    pub(super) fn answered(&self, address: SocketAddr) {
        self.let_through.forget(&address);
    }

    /// Sends a SYN and returns the result, or `None` if no SYN could be sent.
    fn send_syn(&self, address: SocketAddr) -> Option<Result<(), Errno>> {
        let (socket, family) = match address {
            SocketAddr::V4(_) => (&self.v4, AddressFamily::Inet),
            SocketAddr::V6(_) => (&self.v6, AddressFamily::Inet6),
        };
        let socket = match socket.get() {
            Some(socket) => socket,
            None => match raw(family) {
                Ok(made) => socket.get_or_init(|| Some(made)),
                // The agent lacks the capability `CAP_NET_RAW`, so later
                // attempts would fail too.
                Err(Errno::EPERM | Errno::EACCES) => socket.get_or_init(|| None),
                Err(_) => return None,
            },
        };
        let socket = socket.as_ref()?.as_raw_fd();
        let segment = syn(own_address(address)?, address);
        // The port of a raw socket's address is the protocol number or 0
        // (raw(7)).
        let mut address = address;
        address.set_port(0);
        let sent = match address {
            SocketAddr::V4(to) => sendto(socket, &segment, &SockaddrIn::from(to), NO_FLAGS),
            SocketAddr::V6(to) => sendto(socket, &segment, &SockaddrIn6::from(to), NO_FLAGS),
        };
        Some(sent.map(|_| ()))
    }
}

fn raw(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(family, SockType::Raw, flags, SockProtocol::Tcp)
}

/// Returns the source address that the kernel would use for packets to
/// `address`. No packet is sent to find the address.
fn own_address(address: SocketAddr) -> Option<IpAddr> {
    let any = match address {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Builds a SYN segment that is sent from a high port (RFC 9293, section 3.1).
fn syn(source: IpAddr, destination: SocketAddr) -> [u8; 20] {
    let mut segment = [0; 20];
    segment[0..2].copy_from_slice(&fastrand::u16(61_000..65_000).to_be_bytes());
    segment[2..4].copy_from_slice(&destination.port().to_be_bytes());
    segment[4..8].copy_from_slice(&fastrand::u32(..).to_be_bytes());
    // Bytes 12 to 15 of the segment are the header length (five words), the
    // flag SYN, and the window.
    segment[12..16].copy_from_slice(&[5 << 4, 0x02, 0xff, 0xff]);
    let checksum = checksum(source, destination.ip(), &segment);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

/// Computes the TCP checksum with the pseudo-header (RFC 9293, section 3.1; RFC
/// 8200, section 8.1).
fn checksum(source: IpAddr, destination: IpAddr, segment: &[u8; 20]) -> u16 {
    let mut bytes = Vec::with_capacity(60);
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend([0, TCP, 0, 20]);
    bytes.extend(segment);
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum over a segment that contains its correct checksum is 0.
    #[test]
    fn the_checksum_is_the_internets() {
        for (source, destination) in [
            ("192.0.2.1", "198.51.100.7:443"),
            ("2001:db8::1", "[2001:db8:1::7]:443"),
        ] {
            let source = source.parse().unwrap();
            let destination: SocketAddr = destination.parse().unwrap();
            for _ in 0..100 {
                let segment = syn(source, destination);
                assert_eq!(checksum(source, destination.ip(), &segment), 0);
                assert_eq!(segment[2..4], 443u16.to_be_bytes());
            }
        }
    }

    #[test]
    fn what_is_on_this_host_is_let_through() {
        let firewall = Firewall::new();
        for address in ["127.0.0.1:9", "[::1]:9"] {
            let address = address.parse().unwrap();
            assert!(!firewall.forbids(address, Unheard::Refused), "{address}");
            assert!(!firewall.forbids(address, Unheard::Silent), "{address}");
        }
    }
}
