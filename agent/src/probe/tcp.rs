//! A TCP connection, and perhaps an exchange over it.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{
    attempt::{Progress, Reached},
    trouble::Failed,
};

/// So much of an answer is looked at, in bytes.
const MOST: usize = 64 << 10;

/// Connects, sends, and waits until what is expected has come; what is empty is
/// not sent or not waited for.
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
        // What is expected may have begun with what came before.
        let from = known.saturating_sub(expect.len());
        if memchr::memmem::find(&came[from..], expect.as_bytes()).is_some() {
            return Ok(());
        }
        progress.reached(Reached::Answer);
        match count {
            0 if known == MOST => {
                let words = format!("the first {MOST} bytes do not contain {expect:?}");
                return Err(Failed::Answer(words));
            }
            0 if known == 0 => {
                return Err(Failed::Answer(
                    "connected, and closed without an answer".to_owned(),
                ));
            }
            0 => {
                return Err(Failed::Answer(format!(
                    "the answer does not contain {expect:?}"
                )));
            }
            _ => {}
        }
    }
}

/// A connection that is closed with RST, whatever came of it.
pub(super) async fn connect(address: SocketAddr, progress: &Progress) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_zero_linger()?;
    let stream = socket.connect(address).await?;
    progress.reached(Reached::Connected);
    Ok(stream)
}
