//! A TCP listener in a host that serves each connection on its own thread.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use nix::sys::socket::{Shutdown as SocketShutdown, shutdown};

use crate::Host;

/// Accepts TCP connections and serves each one. Dropping the acceptor ends open
/// connections; new ones are refused.
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
    /// Starts an acceptor in `host` on an address such as `0.0.0.0:80`; port 0
    /// means any free port. `serve` runs once for each connection, with the
    /// client's address. The connection is closed when `serve` returns.
    ///
    /// # Panics
    /// Panics if the address is invalid or cannot be bound.
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

    /// The address on which the acceptor listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.open.stopped.store(true, Ordering::Relaxed);
        // On Linux, shutting down a listener wakes a waiting accept().
        if let Err(error) = shutdown(self.listener.as_raw_fd(), SocketShutdown::Both) {
            eprintln!("stopping the server at {}: {error}", self.address);
            return;
        }
        for stream in self.open.connections().values() {
            // The client may have closed the connection just now.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Open {
    fn connections(&self) -> MutexGuard<'_, HashMap<usize, TcpStream>> {
        // The map is consistent after each operation, so a poisoned lock is
        // safe to use.
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
        // The client's address comes from accept(), because a stream can no
        // longer name its peer once the client has gone.
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
            // A client that disconnects early is not an error of the server.
            let _ = serve(&stream, from);
            open.connections().remove(&number);
        });
    }
}
