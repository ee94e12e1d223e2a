//! Test clients that send requests in the background. Each client runs until it
//! is dropped, and records the outcome and the time of every request. The
//! record shows the failures and delays that a user of the service would have
//! noticed.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::http::{LOOK, looks};
use crate::{Client, Host, eventually, wait::PATIENCE};

/// How long a client waits between two requests.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a client waits for the answer to a datagram.
const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(5);

/// A test client's request that has succeeded or failed.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The time at which the test client's request began.
    pub at: Instant,
    /// How long the client's request took to succeed or fail.
    pub took: Duration,
    /// The page of the server that answered, or the error if no server
    /// answered.
    pub outcome: Result<String, String>,
}

/// A test client that sends requests in the background, one at a time, until
/// the client is dropped.
#[derive(Debug)]
pub struct Asking {
    shared: Arc<Shared>,
    asking: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    asked: Mutex<Vec<Asked>>,
}

impl Asking {
    /// Starts a client that repeatedly requests the page at an address such as
    /// `192.168.4.5:80`, each time over a new connection.
    pub fn pages(client: &Client, address: &str) -> Self {
        let (client, address) = (client.clone(), address.to_owned());
        Self::start(move |_| client.get(&address, "/"))
    }

    /// Starts a client that sends datagrams from a single port to an echo
    /// server ([`Protocol::Echo`](crate::fault::Protocol)), so that the
    /// director sees one flow.
    ///
    /// # Panics
    /// Panics if another socket uses the port `from`.
    #[track_caller]
    pub fn datagrams(host: &Host, from: u16, address: &str) -> Self {
        let socket = host
            .enter(|| {
                let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], from)))?;
                socket.connect(address)?;
                socket.set_read_timeout(Some(LOOK))?;
                io::Result::Ok(socket)
            })
            .unwrap_or_else(|error| panic!("a client of {address} on port {from}: {error}"));
        Self::start(move |number| echo(&socket, number))
    }

    fn start(ask: impl Fn(usize) -> io::Result<String> + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let asking = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for number in 0.. {
                    if shared.ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let at = Instant::now();
                    let outcome = ask(number).map_err(|error| error.to_string());
                    let took = at.elapsed();
                    shared.asked().push(Asked { at, took, outcome });
                    thread::sleep(PAUSE);
                }
            }
        });
        Self {
            shared,
            asking: Some(asking),
        }
    }

    /// Returns this client's finished requests.
    pub fn so_far(&self) -> Vec<Asked> {
        self.shared.asked().clone()
    }

    /// Returns this client's failed requests that began since a given time.
    pub fn failed(&self, since: Instant) -> Vec<Asked> {
        let asked = self.shared.asked();
        let latest = asked.iter().rev().take_while(|asked| asked.at >= since);
        let mut failed: Vec<_> = latest
            .filter(|asked| asked.outcome.is_err())
            .cloned()
            .collect();
        failed.reverse();
        failed
    }

    /// Counts this client's requests that began since a given time, by result.
    /// The result of a request is the page that a server sent, or the text of
    /// an error.
    pub fn counts(&self, since: Instant) -> BTreeMap<String, usize> {
        let asked = self.shared.asked();
        let mut counts = BTreeMap::new();
        for asked in asked.iter().rev().take_while(|asked| asked.at >= since) {
            let key = match &asked.outcome {
                Ok(page) => page.clone(),
                Err(error) => format!("failed: {error}"),
            };
            *counts.entry(key).or_default() += 1;
        }
        counts
    }

    /// Waits until the client has finished `requests` requests that began after
    /// this call.
    ///
    /// # Panics
    /// Panics if the client does not finish the requests in time.
    #[track_caller]
    pub fn wait_for_more(&self, requests: usize) {
        let start = Instant::now();
        let what = format!("{requests} more requests of a client");
        eventually(&what, PATIENCE, || {
            let asked = self.shared.asked();
            match asked
                .iter()
                .rev()
                .take_while(|asked| asked.at >= start)
                .count()
            {
                count if count >= requests => Ok(()),
                count => Err(count),
            }
        });
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(asking) = self.asking.take() {
            let _ = asking.join();
        }
    }
}

impl Shared {
    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        // The list of requests is consistent after each operation, so the
        // list's lock is safe to use even if poisoned.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a number to an echo server and waits for its echo. Returns the
/// server's page, which is the text before the echoed number.
fn echo(socket: &UdpSocket, number: usize) -> io::Result<String> {
    let number = number.to_string();
    socket.send(number.as_bytes())?;
    let mut datagram = [0; 2048];
    for _ in 0..looks(DATAGRAM_TIMEOUT) {
        let length = match socket.recv(&mut datagram) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            received => received?,
        };
        let answer = String::from_utf8_lossy(&datagram[..length]);
        // The client ignores a late answer to an earlier number.
        if let Some((page, echoed)) = answer.rsplit_once(' ')
            && echoed == number
        {
            return Ok(page.to_owned());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
