//! A web client that makes a new connection for each request.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Upload, answer::Answer, patient::Patient, stream_byte};
use crate::Host;

/// A web client that runs in a host of the lab.
#[derive(Clone, Debug)]
pub struct Client {
    host: Host,
    timeout: Duration,
}

impl Client {
    /// Creates a web client in `host`. The client waits at most ten seconds for
    /// an answer.
    pub fn new(host: &Host) -> Self {
        Self {
            host: host.clone(),
            timeout: Duration::from_secs(10),
        }
    }

    /// Sets the client's timeout for connecting and for each read.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Requests `path` from the server at an address such as
    /// `192.168.4.100:80`, over a new connection, and returns the page.
    ///
    /// # Errors
    /// Returns an error if the connection fails, or if no complete answer with
    /// status 200 arrives in time.
    ///
    /// # Panics
    /// Panics if the address is invalid.
    pub fn get(&self, address: &str, path: &str) -> io::Result<String> {
        let address = parse(address);
        self.host.enter(|| self.page(address, path))
    }

    /// Sends `requests` requests, each over a new connection. Returns how often
    /// each page arrived, and how often each kind of error occurred.
    ///
    /// # Panics
    /// Panics if the address is invalid.
    pub fn counts(&self, requests: usize, address: &str) -> BTreeMap<String, usize> {
        let address = parse(address);
        let mut counts = BTreeMap::new();
        self.host.enter(|| {
            for _ in 0..requests {
                let page = self.page(address, "/");
                let key = page.unwrap_or_else(|error| format!("failed: {}", error.kind()));
                *counts.entry(key).or_default() += 1;
            }
        });
        counts
    }

    /// Starts a download of `bytes` bytes in the background, at a limited rate.
    /// `download` returns when the first part of the server's answer has
    /// arrived.
    ///
    /// # Errors
    /// Returns an error in the same cases as [`get`](Self::get).
    ///
    /// # Panics
    /// Panics if the address is invalid.
    pub fn download(
        &self,
        address: &str,
        bytes: u64,
        bytes_per_second: u64,
    ) -> io::Result<Download> {
        let address = parse(address);
        let path = format!("/stream?bytes={bytes}&rate={bytes_per_second}");
        let answer = self.host.enter(|| self.request(address, &path))?;
        let server = answer.server.clone();
        let connection = answer.body.get_ref().stream().try_clone()?;
        let received = Arc::new(AtomicU64::new(0));
        let reader = thread::spawn({
            let received = Arc::clone(&received);
            move || receive(answer, &received)
        });
        Ok(Download {
            server,
            received,
            connection,
            reader: Some(reader),
        })
    }

    /// Starts an upload in the background, at a limited rate. The upload runs
    /// until it fails or the caller ends it.
    ///
    /// # Errors
    /// Returns an error if the connection to the server fails.
    ///
    /// # Panics
    /// Panics if the address is invalid.
    pub fn upload(&self, address: &str, bytes_per_second: u64) -> io::Result<Upload> {
        let address = parse(address);
        let connect = || TcpStream::connect_timeout(&address, self.timeout);
        let stream = self.host.enter(connect)?;
        Upload::begin(stream, address, bytes_per_second, self.timeout)
    }

    fn page(&self, address: SocketAddr, path: &str) -> io::Result<String> {
        self.request(address, path)?.page()
    }

    fn request(&self, address: SocketAddr, path: &str) -> io::Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&address, self.timeout)?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        Answer::read(Patient::new(stream, self.timeout)?)
    }
}

/// A download that is running or has ended. Dropping a `Download` aborts a
/// running download.
#[derive(Debug)]
pub struct Download {
    server: String,
    received: Arc<AtomicU64>,
    connection: TcpStream,
    reader: Option<JoinHandle<io::Result<u64>>>,
}

impl Download {
    /// Returns the name of the server that sends the download. The name is the
    /// first line of the server's page.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Returns how many correct bytes of the download have arrived so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Returns whether the download is still running. Returns false if the
    /// download has failed.
    pub fn is_running(&self) -> bool {
        self.reader
            .as_ref()
            .is_some_and(|reader| !reader.is_finished())
    }

    /// Closes the client's direction of the connection. The download goes on.
    ///
    /// # Panics
    /// Panics if the connection has ended.
    #[track_caller]
    pub fn close_sending(&self) {
        let closed = self.connection.shutdown(Shutdown::Write);
        closed.expect("the download is running");
    }

    /// Waits until the download ends, and returns the number of bytes received.
    ///
    /// # Errors
    /// Returns an error if the download was aborted, stalled for longer than
    /// the client's timeout, or contained a wrong byte.
    pub fn finish(mut self) -> io::Result<u64> {
        let reader = self
            .reader
            .take()
            .expect("only `finish` takes the reader, once");
        reader.join().expect("the reader does not panic")
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // The connection may already be closed, so an error of `shutdown` is
        // ignored.
        let _ = self.connection.shutdown(Shutdown::Both);
    }
}

fn receive(mut answer: Answer, received: &AtomicU64) -> io::Result<u64> {
    let mut block = [0; 4096];
    let mut position = 0;
    while position < answer.length {
        let count = answer.body.read(&mut block)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for &byte in &block[..count] {
            if byte != stream_byte(position) {
                return Err(io::Error::other(format!("byte {position} is wrong")));
            }
            position += 1;
        }
        received.store(position, Ordering::Relaxed);
    }
    Ok(position)
}

#[track_caller]
fn parse(address: &str) -> SocketAddr {
    address
        .parse()
        .unwrap_or_else(|error| panic!("{address:?} is an address and port: {error}"))
}
