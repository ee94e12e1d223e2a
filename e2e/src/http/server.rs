//! A web server with a page that identifies the server to tests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::stream_byte;
use crate::Host;
use crate::acceptor::Acceptor;

/// The pause between two writes of a download.
const STREAM_TICK: Duration = Duration::from_millis(50);

/// The rate of a download if the request does not set a rate.
const STREAM_BYTES_PER_SECOND: u64 = 64 * 1024;

/// A web server on threads inside a host. A request for
/// `/stream?bytes=N&rate=BYTES_PER_SECOND` starts a long download. `PUT
/// /stream` starts an upload that lasts until the client ends it. The server's
/// answer to an upload is the number of bytes received, or the position of the
/// first wrong byte. The server answers a request for any other path with its
/// page. Dropping a `WebServer` stops the server and ends its open connections.
#[derive(Debug)]
pub struct WebServer {
    acceptor: Acceptor,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    page: String,
    served: AtomicUsize,
}

impl WebServer {
    /// Starts a web server in `host` on an address such as `0.0.0.0:80`. Port 0
    /// means any free port.
    ///
    /// # Panics
    /// Panics if the web server cannot bind the address.
    #[track_caller]
    pub fn start(host: &Host, address: &str, page: &str) -> Self {
        let shared = Arc::new(Shared {
            page: page.to_owned(),
            served: AtomicUsize::new(0),
        });
        let acceptor = Acceptor::start(host, address, {
            let shared = Arc::clone(&shared);
            move |stream, _| answer(stream, &shared)
        });
        Self { acceptor, shared }
    }

    /// Returns the address on which the web server listens.
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Returns how many requests the server has answered or begun to answer.
    pub fn served(&self) -> usize {
        self.shared.served.load(Ordering::Relaxed)
    }
}

fn answer(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    if request.is_empty() {
        // A TCP health check opens and closes a connection without sending a
        // request. A connection without a request is therefore not an error.
        return Ok(());
    }
    shared.served.fetch_add(1, Ordering::Relaxed);
    if request.starts_with("PUT /stream ") {
        let page = receive_stream(reader)?;
        head(stream, shared, page.len() as u64)?;
        return (&*stream).write_all(page.as_bytes());
    }
    let target = request.split(' ').nth(1).unwrap_or("/");
    match target.strip_prefix("/stream?") {
        Some(query) => {
            let bytes = parameter(query, "bytes").unwrap_or(0);
            let rate = parameter(query, "rate").unwrap_or(STREAM_BYTES_PER_SECOND);
            head(stream, shared, bytes)?;
            send_stream(stream, bytes, rate)
        }
        None => {
            head(stream, shared, shared.page.len() as u64)?;
            (&*stream).write_all(shared.page.as_bytes())
        }
    }
}

fn head(mut stream: &TcpStream, shared: &Shared, length: u64) -> io::Result<()> {
    let name = shared.page.lines().next().unwrap_or_default();
    // The server sends the head of its answer in one write, because Nagle's
    // algorithm would delay a second write.
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: {name}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())
}

fn send_stream(mut stream: &TcpStream, bytes: u64, rate: u64) -> io::Result<()> {
    let ticks_per_second = 1000 / STREAM_TICK.as_millis() as u64;
    let share = (rate / ticks_per_second).max(1);
    let mut sent = 0;
    while sent < bytes {
        let end = bytes.min(sent + share);
        let block: Vec<u8> = (sent..end).map(stream_byte).collect();
        stream.write_all(&block)?;
        sent = end;
        thread::sleep(STREAM_TICK);
    }
    Ok(())
}

/// Receives a whole upload, and checks its bytes. Returns the server's answer:
/// the upload's length, or the position of the first wrong byte.
fn receive_stream(mut body: impl Read) -> io::Result<String> {
    let mut block = [0; 4096];
    let mut position = 0;
    loop {
        let count = body.read(&mut block)?;
        if count == 0 {
            return Ok(position.to_string());
        }
        for &byte in &block[..count] {
            if byte != stream_byte(position) {
                return Ok(format!("byte {position} is wrong"));
            }
            position += 1;
        }
    }
}

fn parameter(query: &str, name: &str) -> Option<u64> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
}
