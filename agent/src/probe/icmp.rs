//! Sends ICMP echo requests, over one socket per address family.

use std::{
    io,
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::Duration,
};

use nix::errno::Errno;
use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};

use super::trouble::Failed;

/// The payload of an echo request. The echo reply has the same payload.
const PAYLOAD: &[u8] = b"ipvs-operator";
/// The timeout for the library surge-ping. The probe's own timeout is shorter,
/// so the library's timeout never takes effect.
const FOREVER: Duration = Duration::from_secs(3600);

/// Sends echo requests. The sockets are opened when they are first needed,
/// because most agents send no echo requests.
#[derive(Default)]
pub(super) struct Pings {
    v4: Mutex<Option<Client>>,
    v6: Mutex<Option<Client>>,
    number: AtomicU16,
}

impl Pings {
    /// Sends an echo request, and waits for the answer.
    pub(super) async fn probe(&self, address: IpAddr) -> Result<(), Failed> {
        let client = self.client(address)?;
        let number = self.number.fetch_add(1, Relaxed);
        let mut pinger = client
            .pinger(address, PingIdentifier(fastrand::u16(..)))
            .await;
        pinger.timeout(FOREVER);
        match pinger.ping(PingSequence(number), PAYLOAD).await {
            Ok((packet, _)) => judge(&packet),
            Err(SurgeError::IOError(error)) => Err(error.into()),
            Err(error) => Err(Failed::Own(error.to_string().into())),
        }
    }

    fn client(&self, address: IpAddr) -> Result<Client, Failed> {
        let (client, kind) = match address {
            IpAddr::V4(_) => (&self.v4, ICMP::V4),
            IpAddr::V6(_) => (&self.v6, ICMP::V6),
        };
        let mut client = client
            .lock()
            .expect("nothing panics while the lock is held");
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let made = Client::new(&Config::builder().kind(kind).build())
            .map_err(|error| not_allowed(&error))?;
        Ok(client.insert(made).clone())
    }
}

/// Accepts an echo reply: type 0 in ICMP (RFC 792), type 129 in ICMPv6 (RFC
/// 4443). A raw socket also receives ICMP errors about the request.
fn judge(packet: &IcmpPacket) -> Result<(), Failed> {
    let (kind, reply, unreachable) = match packet {
        IcmpPacket::V4(packet) => (packet.get_icmp_type().0, 0, 3),
        IcmpPacket::V6(packet) => (packet.get_icmpv6_type().0, 129, 1),
    };
    match kind {
        kind if kind == reply => Ok(()),
        kind if kind == unreachable => Err(Failed::Silence("unreachable (ICMP)".to_owned())),
        other => Err(Failed::answer(format!("ICMP type {other}"))),
    }
}

fn not_allowed(error: &io::Error) -> Failed {
    match error.raw_os_error().map(Errno::from_raw) {
        None | Some(Errno::EPERM | Errno::EACCES) => Failed::Own(
            "the agent may not send ICMP (EPERM): give it the capability CAP_NET_RAW".into(),
        ),
        _ => Failed::of(error),
    }
}

#[cfg(test)]
mod tests;
