//! The ports on which programs of this host listen.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipvs::Protocol;
use netlink_packet_sock_diag::inet::{InetResponse, nlas::Nla};

/// The file that lists the SCTP endpoints of this thread's network namespace.
/// The SCTP file exists only after the kernel has loaded SCTP. The agent does
/// not use sock_diag for SCTP, because a sock_diag request would make the
/// kernel load SCTP.
const SCTP_ENDPOINTS: &str = "/proc/thread-self/net/sctp/eps";
/// The state of a listening SCTP endpoint: `SCTP_SS_LISTENING` equals TCP's
/// LISTEN (`include/net/sctp/constants.h`).
const SCTP_LISTENING: &str = "10";

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

/// Reads a listener from the kernel's answer. The kernel reports IPV6_V6ONLY
/// for every IPv6 socket that listens or is not connected
/// (`net/ipv4/inet_diag.c`, `inet_diag_msg_attrs_fill`).
pub(super) fn listener(protocol: Protocol, response: &InetResponse) -> Listener {
    let id = &response.header.socket_id;
    Listener {
        protocol,
        address: id.source_address,
        port: id.source_port,
        is_v6_only: response.nlas.contains(&Nla::SkV6Only(true)),
    }
}

/// Returns the SCTP endpoints that wait for clients.
///
/// # Errors
/// Returns an error if the kernel's list cannot be read.
pub(super) fn sctp_endpoints() -> io::Result<Vec<Listener>> {
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

    /// The text has the format of `net/sctp/proc.c`, `sctp_eps_seq_show`. The
    /// text lists three endpoints: the first listens on every address, the
    /// second listens on two addresses, and the third belongs to a client.
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
