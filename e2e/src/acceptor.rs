//! A TCP listener that runs in a host and serves each connection on a new
//! thread.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{Shutdown as SocketShutdown, shutdown};

use crate::Host;

/// Accepts TCP connections and serves each connection on a new thread. Dropping
/// the acceptor closes its listener and its open connections.
#[derive(Debug)]
pub(crate) struct Acceptor {
    address: SocketAddr,
    listener: TcpListener,
    open: Arc<Open>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Open {
    stopped: AtomicBool,
    connections: Mutex<HashMap<usize, TcpStream>>,
}

impl Acceptor {
    /// Starts an acceptor in `host` on an address such as `0.0.0.0:80`. Port 0
    /// means any free port. The acceptor calls `serve` once for each
    /// connection, with the client's address, and closes the connection when
    /// `serve` returns.
    ///
    /// # Panics
    /// Panics if the acceptor cannot bind the address.
    #[track_caller]
    pub(crate) fn start(
        host: &Host,
        address: &str,
        serve: impl Fn(&TcpStream, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = host
            .enter(|| TcpListener::bind(address))
            .unwrap_or_else(|error| panic!("a server in {} binds {address}: {error}", host.name()));
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let open = Arc::new(Open::default());
        let shared = listener.try_clone().expect("a listener can be shared");
        let accepting = thread::spawn({
            let open = Arc::clone(&open);
            move || accept(&shared, &open, &Arc::new(serve))
        });
        Self {
            address,
            listener,
            open,
            accepting: Some(accepting),
        }
    }

    /// Returns the address on which the acceptor listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.open.stopped.store(true, Ordering::Relaxed);
        // On Linux, shutting down a listening socket wakes a thread that waits
        // in accept().
        if let Err(error) = shutdown(self.listener.as_raw_fd(), SocketShutdown::Both) {
            eprintln!("stopping the server at {}: {error}", self.address);
            return;
        }
        for stream in self.open.connections().values() {
            // Errors are ignored here, because the client may have closed the
            // connection already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Open {
    fn connections(&self) -> MutexGuard<'_, HashMap<usize, TcpStream>> {
        // The map of connections is consistent after each operation, so the
        // map's lock is safe to use even if poisoned.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(
    listener: &TcpListener,
    open: &Arc<Open>,
    serve: &Arc<impl Fn(&TcpStream, SocketAddr) -> io::Result<()> + Send + Sync + 'static>,
) {
    for number in 0.. {
        let accepted = listener.accept();
        if open.stopped.load(Ordering::Relaxed) {
            return;
        }
        // The client's address comes from accept(), because a stream cannot
        // name its peer after the client has disconnected.
        let Ok((stream, from)) = accepted else {
            continue;
        };
        let (open, serve) = (Arc::clone(open), Arc::clone(serve));
        thread::spawn(move || {
            if let Ok(kept) = stream.try_clone() {
                open.connections().insert(number, kept);
            }
            if open.stopped.load(Ordering::Relaxed) {
                return;
            }
            // An error of `serve` is ignored, because a client may disconnect
            // early.
            let _ = serve(&stream, from);
            open.connections().remove(&number);
        });
    }
}
