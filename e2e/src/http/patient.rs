//! A connection whose reads end when the other side does not answer in time.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::Duration;

/// How long one look for an answer lasts.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// A connection from which each read waits for a limited time. The time is
/// counted in looks of [`LOOK`]: on a busy machine, a lab can stand still for
/// seconds. Afterwards, a single long wait would end before the server could
/// answer.
#[derive(Debug)]
pub(super) struct Patient {
    stream: TcpStream,
    timeout: Duration,
}

impl Patient {
    /// Sets the time that each read from `stream` may wait.
    pub(super) fn new(stream: TcpStream, timeout: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(LOOK.min(timeout)))?;
        Ok(Self { stream, timeout })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..looks(self.timeout) {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
        let timeout = self.timeout;
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("connected, but no answer in {timeout:?}"),
        ))
    }
}

/// Returns the number of looks in `timeout`.
pub(crate) fn looks(timeout: Duration) -> u128 {
    timeout.as_millis().div_ceil(LOOK.as_millis())
}
