//! A web server that misbehaves on command, with or without TLS.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use rustls::{ServerConnection, StreamOwned};

use super::log::{Arrival, Log};
use super::{Behaviour, Certificate};
use crate::Host;
use crate::acceptor::Acceptor;

/// The prefix of the URL paths that count as health requests.
const HEALTH: &str = "/health";

/// A server that sends an endless answer writes about this many bytes at a
/// time.
const BLOCK: usize = 16 << 10;

/// A web server on threads inside a host. The test chooses how the server
/// answers requests for `/health…`. The server answers all other requests with
/// its page, so tests see which servers get traffic. Dropping a `FaultServer`
/// stops the server and ends its open connections.
#[derive(Debug)]
pub struct FaultServer {
    host: Host,
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<Acceptor>,
}

#[derive(Debug)]
struct Shared {
    page: String,
    log: Log,
    certificate: Option<Mutex<Certificate>>,
}

impl FaultServer {
    /// Starts a web server in `host` on an address such as `0.0.0.0:80`. The
    /// text `page` identifies the web server to tests.
    ///
    /// # Panics
    /// Panics if the address is invalid or cannot be bound.
    #[track_caller]
    pub fn start(host: &Host, address: &str, page: &str) -> Self {
        Self::start_with(host, address, page, None)
    }

    /// Starts a web server that speaks TLS with the given certificate.
    ///
    /// # Panics
    /// Panics if the address is invalid or cannot be bound.
    #[track_caller]
    pub fn start_tls(host: &Host, address: &str, page: &str, certificate: Certificate) -> Self {
        Self::start_with(host, address, page, Some(Mutex::new(certificate)))
    }

    #[track_caller]
    fn start_with(
        host: &Host,
        address: &str,
        page: &str,
        certificate: Option<Mutex<Certificate>>,
    ) -> Self {
        let shared = Arc::new(Shared {
            page: page.to_owned(),
            log: Log::new(),
            certificate,
        });
        let acceptor = accept(host, address, &shared);
        Self {
            host: host.clone(),
            address: acceptor.address(),
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Sets the server's behaviour for all later health requests.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.log.behave(behaviour, None);
    }

    /// Sets the server's behaviour for the next `times` health requests. The
    /// server answers all later health requests correctly.
    pub fn behave_times(&self, times: usize, behaviour: Behaviour) {
        self.shared.log.behave(behaviour, Some(times));
    }

    /// Makes the server present another certificate to clients from now on.
    ///
    /// # Panics
    /// Panics if the server was started without a certificate.
    pub fn present(&self, certificate: Certificate) {
        let shown = self.shared.certificate.as_ref();
        let shown = shown.expect("the server was started with a certificate");
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = certificate;
    }

    /// Stops the web server. The server's open connections end, and new
    /// connections are refused.
    pub fn stop(&mut self) {
        self.acceptor = None;
    }

    /// Starts a stopped web server again on its previous address.
    ///
    /// # Panics
    /// Panics if another socket has bound the server's address.
    #[track_caller]
    pub fn start_again(&mut self) {
        let address = self.address.to_string();
        self.acceptor = Some(accept(&self.host, &address, &self.shared));
    }

    /// Returns every connection that has arrived at the server so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.log.arrivals()
    }

    /// Counts the connections that arrived from an address since a given time.
    pub fn came(&self, from: IpAddr, since: Instant) -> usize {
        self.shared.log.came(from, since)
    }

    /// Returns the page that identifies this web server.
    pub fn page(&self) -> &str {
        &self.shared.page
    }
}

#[track_caller]
fn accept(host: &Host, address: &str, shared: &Arc<Shared>) -> Acceptor {
    let shared = Arc::clone(shared);
    Acceptor::start(host, address, move |stream, from| {
        shared.log.arrived(from.ip());
        let Some(certificate) = &shared.certificate else {
            return answer(stream, &shared);
        };
        let shown = certificate.lock().unwrap_or_else(PoisonError::into_inner);
        let config = Arc::clone(&shown.0);
        drop(shown);
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, stream.try_clone()?);
        answer(&mut tls, &shared)?;
        tls.conn.send_close_notify();
        tls.flush()
    })
}

fn answer(stream: impl Read + Write, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines();
    let Some(request) = lines.next().transpose()? else {
        // A TCP health check opens and closes a connection without sending a
        // request. A connection without a request is therefore not an error.
        return Ok(());
    };
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let target = request.split(' ').nth(1).unwrap_or("/");
    let behaviour = if target.starts_with(HEALTH) {
        shared.log.behaviour()
    } else {
        Behaviour::Good
    };
    let stream = reader.get_mut();
    match behaviour {
        Behaviour::Good | Behaviour::ByTurns => page(stream, "200 OK", "", &shared.page),
        Behaviour::Silent => until_it_goes(stream),
        Behaviour::Late(delay) => {
            thread::sleep(delay);
            page(stream, "200 OK", "", &shared.page)
        }
        Behaviour::Error(status) => page(stream, &format!("{status} Fault"), "", &shared.page),
        Behaviour::WrongBody => page(stream, "200 OK", "", "under construction"),
        Behaviour::RedirectLoop => {
            page(stream, "302 Found", &format!("Location: {target}\r\n"), "")
        }
        Behaviour::EndlessBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            without_end(stream, b"and so on\n")
        }
        Behaviour::EndlessHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            without_end(stream, b"X-And-So-On: and on\r\n")
        }
    }
}

fn page(mut stream: impl Write, status: &str, headers: &str, page: &str) -> io::Result<()> {
    let length = page.len();
    // The server sends its answer in one write, because Nagle's algorithm would
    // delay a second write.
    let answer = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    );
    stream.write_all(answer.as_bytes())
}

fn until_it_goes(mut stream: impl Read) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

/// Sends `line` repeatedly until the client closes the connection.
fn without_end(mut stream: impl Write, line: &[u8]) -> io::Result<()> {
    let block = line.repeat(BLOCK / line.len());
    loop {
        stream.write_all(&block)?;
    }
}
