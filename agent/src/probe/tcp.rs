//! Opens a TCP connection, and optionally sends data and waits for an answer.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use super::{
    bounded::Bounded,
    progress::{Progress, Reached},
    trouble::Failed,
};

/// A probe searches this many bytes, from the start of an answer, for the
/// expected text.
const MOST: usize = 64 << 10;

/// Connects to the server, sends `send`, and waits until the answer contains
/// `expect`. If `send` is empty, nothing is sent. If `expect` is empty, no
/// answer is needed.
pub(super) async fn probe(
    address: SocketAddr,
    send: &str,
    expect: &str,
    progress: &Progress,
) -> Result<(), Failed> {
    let mut stream = connect(address, progress).await?;
    stream.write_all(send.as_bytes()).await?;
    if expect.is_empty() {
        return Ok(());
    }
    let mut came = Vec::new();
    loop {
        let known = came.len();
        let room = (MOST - known) as u64;
        let count = (&mut stream).take(room).read_buf(&mut came).await?;
        // The match may begin in bytes that an earlier read returned.
        let from = known.saturating_sub(expect.len());
        if memchr::memmem::find(&came[from..], expect.as_bytes()).is_some() {
            return Ok(());
        }
        progress.reached(Reached::Answer);
        match count {
            0 if known == MOST => {
                let words = format!("the first {MOST} bytes do not contain {expect:?}");
                return Err(Failed::answer(words));
            }
            0 if known == 0 => {
                return Err(Failed::answer("connected, and closed without an answer"));
            }
            0 => {
                return Err(Failed::answer(format!(
                    "the answer does not contain {expect:?}"
                )));
            }
            _ => {}
        }
    }
}

/// Opens a TCP connection that is closed with RST, whether the probe succeeds
/// or fails.
pub(super) async fn connect(address: SocketAddr, progress: &Progress) -> io::Result<Bounded> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_zero_linger()?;
    let stream = socket.connect(address).await?;
    progress.reached(Reached::Connected);
    Ok(Bounded::new(stream))
}

#[cfg(test)]
mod tests {
    use crds::Probe;

    use crate::probe::fixtures::{
        SOON, closed, resets, said, said_within, says, says_and_waits, says_for_ever, silent,
    };

    fn tcp(send: &str, expect: &str) -> Probe {
        Probe::Tcp {
            send: send.to_owned(),
            expect: expect.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_server_that_accepts_is_good() {
        assert_eq!(said(tcp("", ""), says("").await).await, "success");
        assert_eq!(said(tcp("PING\r\n", ""), says("").await).await, "success");
    }

    #[tokio::test]
    async fn one_that_does_not_says_how() {
        let refused = said(tcp("", ""), closed().await).await;
        assert_eq!(refused, "connection refused");
        let (_held, address) = silent().await;
        let silent = said_within(SOON, tcp("", ""), address).await;
        assert_eq!(silent, "no answer in 0.3 s");
    }

    #[tokio::test]
    async fn what_is_expected_may_be_anywhere_in_the_answer() {
        let ping = || tcp("PING\r\n", "+PONG");
        assert_eq!(said(ping(), says("+PONG\r\n").await).await, "success");
        let waits = says_and_waits("hello +PONG").await;
        assert_eq!(said(ping(), waits).await, "success", "at once");
        let wrong = said(ping(), says("-ERR\r\n").await).await;
        assert_eq!(wrong, "the answer does not contain \"+PONG\"");
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_or_does_not_end_is_a_failure() {
        let ping = || tcp("PING\r\n", "+PONG");
        let waits = said_within(SOON, ping(), says_and_waits("").await).await;
        assert_eq!(waits, "connected, and no answer in 0.3 s");
        let half = said_within(SOON, ping(), says_and_waits("+PO").await).await;
        assert_eq!(half, "incomplete answer in 0.3 s");
        let closes = said(ping(), says("").await).await;
        assert_eq!(closes, "connected, and closed without an answer");
        assert_eq!(said(ping(), resets().await).await, "connection reset");
        let endless = said(ping(), says_for_ever("", "no").await).await;
        assert_eq!(endless, "the first 65536 bytes do not contain \"+PONG\"");
    }
}
