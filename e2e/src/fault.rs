//! Real servers that misbehave on command, to test health checks. Each server
//! runs as threads in a host. The server logs each connection or datagram.
//! Tests count the probes in this log.

mod datagrams;
mod log;
mod server;
mod tls;

use std::time::Duration;

pub use datagrams::{DatagramServer, Protocol};
pub use log::Arrival;
pub use server::FaultServer;
pub use tls::{Authority, Certificate};

/// How a test server answers health requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behaviour {
    /// The server answers health requests correctly.
    Good,
    /// The server accepts health requests but never answers them.
    Silent,
    /// The server answers health requests correctly, but after a delay.
    Late(Duration),
    /// The server answers health requests with this HTTP status or DNS response
    /// code. The DNS code 2 is SERVFAIL.
    Error(u16),
    /// The server answers health requests at once, but with the wrong content.
    WrongBody,
    /// The server sends an HTTP answer whose body never ends.
    EndlessBody,
    /// The server sends an HTTP answer whose head never ends.
    EndlessHead,
    /// The server redirects every client to the page that the client requested.
    RedirectLoop,
    /// The server alternates every second between correct answers and status
    /// 503.
    ByTurns,
}
