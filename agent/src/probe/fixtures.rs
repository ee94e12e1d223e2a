//! Servers on the loopback that behave as no server should.

use std::net::{SocketAddr, TcpListener, TcpStream};

use tokio::net::TcpSocket;

/// An address that does not answer a SYN, while what comes with it is held: its
/// queue of connections to accept is full.
pub(super) fn silent() -> (impl Sized, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let listener: TcpListener = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(0).unwrap().into_std().unwrap()
    });
    let address = listener.local_addr().unwrap();
    // A backlog of 0 is a queue of one (`include/net/sock.h`, sk_acceptq_is_full).
    let queued = TcpStream::connect(address).unwrap();
    ((listener, queued), address)
}
