//! Test servers on the loopback interface. Many of the test servers misbehave
//! on purpose.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use crds::{HealthCheck, Probe};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};

use super::{
    Target,
    attempt::{Outcome, Prepared, Shared, attempt},
};
use crate::probe::tally::Verdict;

/// A timeout that is long enough for every probe that gets an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// A short timeout for probes that get no answer.
pub(super) const SOON: Duration = Duration::from_millis(300);

/// Probes a server once, and returns the result in words.
pub(super) async fn said(probe: Probe, address: SocketAddr) -> String {
    said_within(PATIENCE, probe, address).await
}

/// Probes a server once with the given timeout, and returns the result in
/// words.
pub(super) async fn said_within(timeout: Duration, probe: Probe, address: SocketAddr) -> String {
    result(timeout, probe, address, true).await
}

/// Probes a server once, and returns the result in words, without any text that
/// the server sent.
pub(super) async fn said_unquoted(probe: Probe, address: SocketAddr) -> String {
    result(PATIENCE, probe, address, false).await
}

async fn result(timeout: Duration, probe: Probe, address: SocketAddr, may_quote: bool) -> String {
    let check = HealthCheck {
        probe,
        port: None,
        period: 2 * PATIENCE,
        timeout,
        success_threshold: 2,
        failure_threshold: 3,
    };
    let prepared = Prepared::new(&check);
    let target = Target {
        check: Arc::new(check),
        address,
        namespace: "shop".into(),
        may_quote,
    };
    match attempt(&target, &prepared, &Shared::open().unwrap(), Instant::now()).await {
        Outcome::Verdict(Verdict::Success) => "success".to_owned(),
        Outcome::Verdict(Verdict::Failure(why)) => why.to_string(),
        Outcome::Void(why) => format!("void: {why}"),
    }
}

/// Starts a server that handles each connection with the given function.
pub(super) async fn serve<F: Future<Output = ()> + Send>(
    act: impl Fn(TcpStream) -> F + Clone + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            act(stream).await;
        }
    });
    address
}

/// Starts a server that reads from each connection, sends `words`, and closes
/// the connection.
pub(super) async fn says(words: impl Into<Vec<u8>>) -> SocketAddr {
    let words: Arc<[u8]> = words.into().into();
    serve(move |mut stream| {
        let words = words.clone();
        async move {
            let mut read = [0; 4096];
            // The probe may already have closed the connection.
            let _ = stream.read(&mut read).await;
            let _ = stream.write_all(&words).await;
        }
    })
    .await
}

/// Starts a server that sends `first` on each connection, and then `again`
/// without end.
pub(super) async fn says_for_ever(first: &'static str, again: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        let mut read = [0; 4096];
        let _ = stream.read(&mut read).await;
        let _ = stream.write_all(first.as_bytes()).await;
        while stream.write_all(again.as_bytes()).await.is_ok() {}
    })
    .await
}

/// Starts a server that sends `words` on each connection and then keeps the
/// connection open without sending more.
pub(super) async fn says_and_waits(words: &'static str) -> SocketAddr {
    serve(move |mut stream| async move {
        let _ = stream.write_all(words.as_bytes()).await;
        let mut read = [0; 4096];
        while stream.read(&mut read).await.is_ok_and(|count| count > 0) {}
    })
    .await
}

/// Starts a server that resets each connection.
pub(super) async fn resets() -> SocketAddr {
    serve(|stream| async move {
        stream.readable().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await
}

/// Returns an address where nothing listens. No other test uses the returned
/// address.
pub(super) async fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.5.5.5:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Returns an address that does not answer a SYN, because its accept queue is
/// full. The first returned value keeps the queue full until it is dropped.
pub(super) async fn silent() -> (impl Sized, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // With a backlog of 0, the accept queue holds one connection
    // (`include/net/sock.h`, sk_acceptq_is_full).
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let queued = TcpStream::connect(address).await.unwrap();
    ((listener, queued), address)
}
