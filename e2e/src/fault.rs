//! Real servers that misbehave on command: what a health check is to notice.
//! They are threads in a host, and keep a log of who came, so that probes are
//! counted where they arrive.

mod datagrams;
mod log;
mod server;
mod tls;

use std::time::Duration;

pub use datagrams::{DatagramServer, Protocol};
pub use log::Arrival;
pub use server::FaultServer;
pub use tls::{Authority, Certificate};

/// What a server does with who asks about its health.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behaviour {
    /// It answers as it should.
    Good,
    /// It takes what is sent, and never answers.
    Silent,
    /// It answers as it should, but not before this time has passed.
    Late(Duration),
    /// It says that it failed: with this status of HTTP, or this code of DNS
    /// (2 is SERVFAIL).
    Error(u16),
    /// It answers at once, with something else.
    WrongBody,
    /// The body of its answer does not end.
    EndlessBody,
    /// The head of its answer does not end.
    EndlessHead,
    /// It sends whoever asks to where it asked.
    RedirectLoop,
    /// Good in one second, status 503 in the next.
    ByTurns,
}
