//! UDP servers for tests: an echo server and a DNS server.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Behaviour;
use super::log::{Arrival, Log};
use crate::Host;

/// The longest time that a stopped UDP server takes to notice the stop.
const TICK: Duration = Duration::from_millis(100);

/// The protocol that a UDP server speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// The echo protocol: the server answers with its page, a space, and the
    /// received datagram.
    Echo,
    /// The DNS protocol: the server answers that every name has the address
    /// 192.0.2.1.
    Dns,
}

/// A UDP server on a thread inside a host. The test chooses whether the server
/// answers every datagram, stays silent or returns errors. Dropping the server
/// closes its port, and the kernel then reports the closed port to clients.
#[derive(Debug)]
pub struct DatagramServer {
    host: Host,
    address: String,
    shared: Arc<Shared>,
    listening: Option<Listening>,
}

#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    page: String,
    log: Log,
}

/// The thread that holds the server's socket.
#[derive(Debug)]
struct Listening {
    stopped: Arc<AtomicBool>,
    reading: Option<JoinHandle<()>>,
}

impl DatagramServer {
    /// Starts a UDP server in `host` on an address such as `0.0.0.0:53`. The
    /// text `page` identifies the UDP server to tests.
    ///
    /// # Panics
    /// Panics if the UDP server cannot bind the address.
    #[track_caller]
    pub fn start(host: &Host, address: &str, protocol: Protocol, page: &str) -> Self {
        let shared = Arc::new(Shared {
            protocol,
            page: page.to_owned(),
            log: Log::new(),
        });
        Self {
            host: host.clone(),
            address: address.to_owned(),
            listening: Some(Listening::start(host, address, &shared)),
            shared,
        }
    }

    /// Sets the server's behaviour for all later datagrams.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.log.behave(behaviour, None);
    }

    /// Stops the UDP server and closes its port.
    pub fn stop(&mut self) {
        self.listening = None;
    }

    /// Starts a stopped UDP server again on its previous address.
    ///
    /// # Panics
    /// Panics if another socket has bound the server's address.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.listening = Some(Listening::start(&self.host, &self.address, &self.shared));
    }

    /// Returns every datagram that has arrived at the server so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.log.arrivals()
    }

    /// Counts the datagrams that arrived from an address since a given time.
    pub fn came(&self, from: IpAddr, since: Instant) -> usize {
        self.shared.log.came(from, since)
    }
}

impl Listening {
    #[track_caller]
    fn start(host: &Host, address: &str, shared: &Arc<Shared>) -> Self {
        let socket = host
            .enter(|| {
                let socket = UdpSocket::bind(address)?;
                socket.set_read_timeout(Some(TICK))?;
                io::Result::Ok(socket)
            })
            .unwrap_or_else(|error| panic!("a server in {} binds {address}: {error}", host.name()));
        let stopped = Arc::new(AtomicBool::new(false));
        let reading = thread::spawn({
            let (stopped, shared) = (Arc::clone(&stopped), Arc::clone(shared));
            move || read(&socket, &stopped, &shared)
        });
        Self {
            stopped,
            reading: Some(reading),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(reading) = self.reading.take() {
            let _ = reading.join();
        }
    }
}

fn read(socket: &UdpSocket, stopped: &AtomicBool, shared: &Shared) {
    let mut datagram = [0; 2048];
    while !stopped.load(Ordering::Relaxed) {
        // recv_from fails if no datagram came, or if the previous answer could
        // not be delivered.
        let Ok((length, from)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        // The client may already be gone, so an error in sending the answer is
        // ignored.
        let _ = answer(socket, &datagram[..length], from, shared);
    }
}

fn answer(socket: &UdpSocket, asked: &[u8], from: SocketAddr, shared: &Shared) -> io::Result<()> {
    shared.log.arrived(from.ip());
    let error = match shared.log.behaviour() {
        Behaviour::Silent => return Ok(()),
        Behaviour::Error(code) => code,
        _ => 0,
    };
    let answer = match shared.protocol {
        Protocol::Echo => [shared.page.as_bytes(), b" ", asked].concat(),
        Protocol::Dns => dns_answer(asked, error).ok_or(io::ErrorKind::InvalidData)?,
    };
    socket.send_to(&answer, from).map(drop)
}

/// Builds a DNS answer to a query with one question (RFC 1035, section 4.1).
/// The test server uses no DNS library. A test server with the agent's DNS
/// library could hide the library's bugs from the tests.
fn dns_answer(query: &[u8], code: u16) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const ANSWER_TO_RECURSION: u16 = 0x8180;
    let name = query.get(HEADER..)?.iter().position(|&byte| byte == 0)?;
    // In the DNS question, a zero byte ends the name. The type (2 bytes) and
    // the class (2 bytes) follow.
    let question = query.get(HEADER..HEADER + name + 1 + 4)?;
    let answers: u16 = if code == 0 { 1 } else { 0 };
    let mut answer = query[..2].to_vec();
    for field in [ANSWER_TO_RECURSION | code, 1, answers, 0, 0] {
        answer.extend(field.to_be_bytes());
    }
    answer.extend(question);
    if answers > 0 {
        // The answer record holds a pointer to the question's name, type A,
        // class IN, a lifetime of 60 seconds, and an address of 4 bytes.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend([192, 0, 2, 1]);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recursive DNS query for the address of shop.example.
    const QUERY: &[u8] = b"\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x00\
                           \x04shop\x07example\x00\x00\x01\x00\x01";

    #[test]
    fn an_answer_repeats_the_question_and_has_one_address() {
        let answer = dns_answer(QUERY, 0).expect("the query is valid");
        assert_eq!(answer[..12], *b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0");
        assert_eq!(answer[12..QUERY.len()], QUERY[12..]);
        assert!(answer.ends_with(&[0, 4, 192, 0, 2, 1]));
    }

    #[test]
    fn a_failure_has_its_code_and_no_address() {
        let answer = dns_answer(QUERY, 2).expect("the query is valid");
        assert_eq!(answer[..12], *b"\x12\x34\x81\x82\0\x01\0\0\0\0\0\0");
        assert_eq!(answer.len(), QUERY.len());
    }

    #[test]
    fn what_is_no_query_has_no_answer() {
        assert_eq!(dns_answer(b"ping", 0), None);
        assert_eq!(dns_answer(&QUERY[..20], 0), None);
    }
}
