//! Clients that send requests without end and record each one: what a user of
//! the service would have noticed, and when.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Client, Host, eventually, wait::PATIENCE};

/// How long a client waits between two requests.
const PAUSE: Duration = Duration::from_millis(20);

/// How long to wait for the answer to a datagram.
const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(5);

/// A request that has succeeded or failed.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When the request began.
    pub at: Instant,
    /// How long it took to succeed or to fail.
    pub took: Duration,
    /// The page of the server that answered, or the error if there was no
    /// answer.
    pub outcome: Result<String, String>,
}

/// A client that sends requests in the background, one at a time. It ends when
/// dropped.
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
    /// Requests the page at an address such as `192.168.4.5:80` over and over,
    /// with a new connection each time.
    pub fn pages(client: &Client, address: &str) -> Self {
        let (client, address) = (client.clone(), address.to_owned());
        Self::start(move |_| client.get(&address, "/"))
    }

    /// Sends datagrams to an echo ([`Protocol::Echo`](crate::fault::Protocol)),
    /// all from one port: for the director they are one flow.
    ///
    /// # Panics
    /// When the port is taken.
    #[track_caller]
    pub fn datagrams(host: &Host, from: u16, address: &str) -> Self {
        let socket = host
            .enter(|| {
                let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], from)))?;
                socket.connect(address)?;
                socket.set_read_timeout(Some(DATAGRAM_TIMEOUT))?;
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

    /// Every request that has ended so far.
    pub fn so_far(&self) -> Vec<Asked> {
        self.shared.asked().clone()
    }

    /// The requests since a given time that failed.
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

    /// How many requests each server answered since a given time; failures are
    /// counted by their error.
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

    /// Waits until this many more requests have begun and ended.
    ///
    /// # Panics
    /// When they have not ended in time.
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
        // The list is whole after each of its operations.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a number and waits for its echo; returns the text before the number.
fn echo(socket: &UdpSocket, number: usize) -> io::Result<String> {
    let number = number.to_string();
    let start = Instant::now();
    socket.send(number.as_bytes())?;
    let mut datagram = [0; 2048];
    while start.elapsed() < DATAGRAM_TIMEOUT {
        let length = socket.recv(&mut datagram)?;
        let answer = String::from_utf8_lossy(&datagram[..length]);
        // The answer to an earlier number may be late.
        if let Some((page, echoed)) = answer.rsplit_once(' ')
            && echoed == number
        {
            return Ok(page.to_owned());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}
