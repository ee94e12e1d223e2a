//! Counts, with tcpdump, the packets that a host sends through a network card.
//! Unlike a server's log, the count includes probes that reach no server.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{Host, Process, wait::PATIENCE};

/// The tcpdump filter for the first packet of a connection, a UDP datagram or
/// an ICMP echo request. The filter leaves out SYNs without TCP options. The
/// agent sends such SYNs to test its host's firewall. SYNs from the kernel
/// always have TCP options.
const FIRST_OF_FLOW: &str = "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn \
                             and tcp[12] & 0xf0 > 0x50 \
                             or udp or icmp[icmptype] == icmp-echo";

/// A tcpdump that captures IPv4 packets from a host. The captured packets are
/// the first packet of each connection, UDP datagrams and ICMP echo requests.
/// Dropping a `Wire` ends the capture.
#[derive(Debug)]
pub struct Wire {
    tcpdump: Process,
    began: (SystemTime, Instant),
}

/// A captured packet: the first packet of a connection, a UDP datagram, or an
/// ICMP echo request.
#[derive(Clone, Debug)]
struct Packet {
    at: SystemTime,
    from: String,
    to: String,
}

impl Wire {
    /// Starts to capture packets from `address` on a network card of `host`.
    ///
    /// # Panics
    /// Panics if tcpdump does not start.
    #[track_caller]
    pub fn listen(host: &Host, card: &str, address: &str) -> Self {
        let mut command = Command::new("tcpdump");
        command.args(["-tt", "-n", "-l", "--immediate-mode", "-i", card]);
        command.arg(format!("src host {address} and ({FIRST_OF_FLOW})"));
        let tcpdump = Process::start(host, "tcpdump", &mut command);
        let began = (SystemTime::now(), Instant::now());
        tcpdump.wait_for_log("listening on", PATIENCE);
        Self { tcpdump, began }
    }

    /// Counts the flows to the target `to` between the times `from` and
    /// `until`. All captured packets from the same port are one flow, and each
    /// ICMP echo request is a separate flow. The target is an address and port
    /// such as `192.168.2.100.80`, or an address alone for ICMP.
    pub fn flows(&self, to: &str, from: Instant, until: Instant) -> usize {
        let (from, until) = (self.wall(from), self.wall(until));
        let log = self.tcpdump.log();
        let packets = log.lines().filter_map(parse);
        let ours = packets.filter(|packet| packet.to == to);
        let flows = ours.filter(|packet| (from..=until).contains(&packet.at));
        flows
            .map(|packet| packet.from)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Returns the time of the latest captured packet to the target `to`, or
    /// `None` if no packet to the target was captured.
    pub fn latest(&self, to: &str) -> Option<Instant> {
        let log = self.tcpdump.log();
        let mut packets = log.lines().filter_map(parse);
        let latest = packets.rfind(|packet| packet.to == to)?;
        let (wall, instant) = self.began;
        let since = latest.at.duration_since(wall).unwrap_or_default();
        Some(instant + since)
    }

    fn wall(&self, at: Instant) -> SystemTime {
        let (wall, instant) = self.began;
        match at.checked_duration_since(instant) {
            Some(later) => wall + later,
            None => wall - instant.duration_since(at),
        }
    }
}

/// Parses a line of tcpdump's output, such as `1732529542.123456 IP
/// 192.168.2.5.43210 > 192.168.2.100.80: Flags [S], …`
fn parse(line: &str) -> Option<Packet> {
    let (at, rest) = line.split_once(" IP ")?;
    let (seconds, microseconds) = at.split_once('.')?;
    let (from, rest) = rest.split_once(" > ")?;
    let (to, what) = rest.split_once(": ")?;
    let at = UNIX_EPOCH
        + Duration::from_secs(seconds.parse().ok()?)
        + Duration::from_micros(microseconds.parse().ok()?);
    // ICMP echo requests have no port, so each echo request counts as a
    // separate flow.
    let from = if what.starts_with("ICMP") { what } else { from };
    Some(Packet {
        at,
        from: from.to_owned(),
        to: to.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_a_time_an_origin_and_an_address() {
        let line = "1732529542.123456 IP 192.168.2.5.43210 > 192.168.2.100.80: Flags [S], seq 1";
        let packet = parse(line).expect("tcpdump writes so");
        assert_eq!(packet.to, "192.168.2.100.80");
        assert_eq!(packet.from, "192.168.2.5.43210");
        let since = packet.at.duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(since, Duration::from_micros(1_732_529_542_123_456));
        assert!(parse("listening on eth1, link-type EN10MB").is_none());
    }

    #[test]
    fn each_echo_request_is_told_apart_by_its_number() {
        let packets = [1, 2].map(|seq| {
            let line = format!(
                "1732529542.5 IP 192.168.2.5 > 192.168.2.9: ICMP echo request, id 7, seq {seq}"
            );
            parse(&line).expect("tcpdump writes so")
        });
        assert_eq!(packets[0].to, "192.168.2.9");
        assert_ne!(packets[0].from, packets[1].from);
    }
}
