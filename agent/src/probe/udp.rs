//! A datagram, and perhaps one in answer.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use memchr::memmem;
use nix::errno::Errno;
use tokio::net::UdpSocket;

use super::trouble::Failed;

/// The longest datagram.
const MOST: usize = 64 << 10;

/// Sends, and waits for an answer that contains what is expected. Nothing that
/// is expected means that any answer will do.
pub(super) async fn probe(address: SocketAddr, send: &str, expect: &str) -> Result<(), Failed> {
    let socket = connect(address).await?;
    socket
        .send(send.as_bytes())
        .await
        .map_err(|error| failed(&error))?;
    let mut came = vec![0; MOST];
    let count = socket
        .recv(&mut came)
        .await
        .map_err(|error| failed(&error))?;
    if memmem::find(&came[..count], expect.as_bytes()).is_none() {
        let words = format!("the answer does not contain {expect:?}");
        return Err(Failed::Answer(words));
    }
    Ok(())
}

/// A socket that hears this server and nobody else.
pub(super) async fn connect(address: SocketAddr) -> Result<UdpSocket, Failed> {
    let any = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket
        .connect(address)
        .await
        .map_err(|error| failed(&error))?;
    Ok(socket)
}

/// What an error of such a socket says.
pub(super) fn failed(error: &io::Error) -> Failed {
    if error.raw_os_error() == Some(Errno::ECONNREFUSED as i32) {
        return Failed::Answer("port unreachable (ICMP)".to_owned());
    }
    Failed::of(error)
}
