//! Sends uploads with `PUT /stream`, as a client.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::SndBuf};

use super::answer::Answer;
use super::patient::Patient;
use super::stream_byte;

/// The pause between two writes of an upload.
const TICK: Duration = Duration::from_millis(50);

/// The size in bytes of the send buffer of an upload's socket. The send buffer
/// is small, so nearly all bytes that the client has written have already
/// reached the server. The kernel doubles the requested buffer size
/// (socket(7)).
const SEND_BUFFER: usize = 8 << 10;

/// An upload that runs until it fails or the caller ends it. Dropping an
/// `Upload` aborts a running upload.
#[derive(Debug)]
pub struct Upload {
    sent: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    connection: TcpStream,
    writer: Option<JoinHandle<io::Result<String>>>,
}

impl Upload {
    /// Begins an upload on an open connection.
    pub(super) fn begin(
        stream: TcpStream,
        address: SocketAddr,
        bytes_per_second: u64,
        timeout: Duration,
    ) -> io::Result<Self> {
        stream.set_write_timeout(Some(timeout))?;
        setsockopt(&stream, SndBuf, &SEND_BUFFER)?;
        let head = format!("PUT /stream HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        (&stream).write_all(head.as_bytes())?;
        let connection = stream.try_clone()?;
        let (sent, ended) = (Arc::default(), Arc::default());
        let writer = thread::spawn({
            let (sent, ended) = (Arc::clone(&sent), Arc::clone(&ended));
            move || send(stream, timeout, bytes_per_second, &sent, &ended)
        });
        Ok(Self {
            sent,
            ended,
            connection,
            writer: Some(writer),
        })
    }

    /// Returns how many bytes of the upload the client's kernel has accepted
    /// for sending. All accepted bytes have arrived at the server, except at
    /// most the last 16 KiB.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns whether the upload is still running.
    pub fn is_running(&self) -> bool {
        self.writer
            .as_ref()
            .is_some_and(|writer| !writer.is_finished())
    }

    /// Ends the upload and returns how many bytes the server received.
    ///
    /// # Errors
    /// Returns an error if the upload was aborted or stalled for longer than
    /// the client's timeout. Also returns an error if the server received a
    /// wrong byte.
    pub fn finish(mut self) -> io::Result<u64> {
        self.ended.store(true, Ordering::Relaxed);
        let writer = self
            .writer
            .take()
            .expect("only `finish` takes the writer, once");
        let page = writer.join().expect("the writer does not panic")?;
        page.parse()
            .map_err(|_| io::Error::other(format!("the server says: {page}")))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The connection may already be closed, so an error of `shutdown` is
        // ignored.
        let _ = self.connection.shutdown(Shutdown::Both);
    }
}

fn send(
    mut stream: TcpStream,
    timeout: Duration,
    rate: u64,
    sent: &AtomicU64,
    ended: &AtomicBool,
) -> io::Result<String> {
    let ticks_per_second = 1000 / TICK.as_millis() as u64;
    let share = (rate / ticks_per_second).max(1);
    let mut position = 0;
    while !ended.load(Ordering::Relaxed) {
        let block: Vec<u8> = (position..position + share).map(stream_byte).collect();
        stream.write_all(&block)?;
        position += share;
        sent.store(position, Ordering::Relaxed);
        thread::sleep(TICK);
    }
    stream.shutdown(Shutdown::Write)?;
    Answer::read(Patient::new(stream, timeout)?)?.page()
}
