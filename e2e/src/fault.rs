//! Real servers that misbehave on command, for health checks to notice. They
//! are threads in a host. Each keeps a log of what came to it, so that probes
//! are counted where they arrive.

mod datagrams;
mod log;
mod server;
mod tls;

use std::time::Duration;

pub use datagrams::{DatagramServer, Protocol};
pub use log::Arrival;
pub use server::FaultServer;
pub use tls::{Authority, Certificate};

/// How a server answers requests about its health.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behaviour {
    /// It answers as it should.
    Good,
    /// It accepts what is sent, and never answers.
    Silent,
    /// It answers as it should, but only after this time.
    Late(Duration),
    /// It reports a failure: this HTTP status, or this DNS code (2 is
    /// SERVFAIL).
    Error(u16),
    /// It answers at once, with the wrong content.
    WrongBody,
    /// The body of its answer does not end.
    EndlessBody,
    /// The head of its answer does not end.
    EndlessHead,
    /// It redirects every client to the page that it asked for.
    RedirectLoop,
    /// Good in one second, status 503 in the next.
    ByTurns,
}
