//! Sends a UDP datagram, and optionally waits for an answer.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use memchr::memmem;
use nix::errno::Errno;
use tokio::net::UdpSocket;

use super::trouble::Failed;

/// The size in bytes of the longest datagram that a probe reads.
const MOST: usize = 64 << 10;

/// Sends the datagram `send` to a server, and waits for an answer that contains
/// `expect`. If `expect` is empty, any answer is accepted.
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
        return Err(Failed::answer(words));
    }
    Ok(())
}

/// Opens a UDP socket that receives datagrams only from the server at
/// `address`.
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

/// Classifies an error of a UDP socket to a server.
pub(super) fn failed(error: &io::Error) -> Failed {
    if error.raw_os_error() == Some(Errno::ECONNREFUSED as i32) {
        return Failed::answer("port unreachable (ICMP)");
    }
    Failed::of(error)
}

#[cfg(test)]
mod tests {
    use crds::Probe;

    use super::*;
    use crate::probe::fixtures::{SOON, said, said_within};

    fn udp(expect: &str) -> Probe {
        Probe::Udp {
            send: "ping".to_owned(),
            expect: expect.to_owned(),
        }
    }

    /// Starts a server that answers each datagram with `answer`.
    async fn server(answer: &'static str) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut came = [0; 100];
            while let Ok((count, from)) = socket.recv_from(&mut came).await {
                assert_eq!(&came[..count], b"ping");
                socket.send_to(answer.as_bytes(), from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn an_answer_contains_what_is_expected() {
        let server = server("a pong").await;
        assert_eq!(said(udp("pong"), server).await, "success");
        assert_eq!(said(udp(""), server).await, "success", "any answer will do");
        assert_eq!(
            said(udp("else"), server).await,
            "the answer does not contain \"else\""
        );
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable_whether_an_answer_is_expected_or_not() {
        let socket = UdpSocket::bind("127.5.5.5:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        for expect in ["pong", ""] {
            assert_eq!(said(udp(expect), address).await, "port unreachable (ICMP)");
        }
    }

    #[tokio::test]
    async fn silence_is_good_when_nothing_is_expected() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        assert_eq!(
            said_within(SOON, udp("pong"), address).await,
            "no answer in 0.3 s"
        );
        assert_eq!(said_within(SOON, udp(""), address).await, "success");
    }

    #[tokio::test]
    async fn what_this_host_may_not_send_says_nothing_of_the_server() {
        let everybody = "255.255.255.255:9".parse().unwrap();
        let words = said(udp(""), everybody).await;
        assert!(words.starts_with("void: "), "{words}");
    }
}
