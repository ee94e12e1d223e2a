//! A connection over which a server can send only a limited number of bytes.
//! Without the limit, a server that floods its probe would delay all other
//! probes.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// The maximum number of bytes that a server can send over a connection. The
/// limit has room for the headers, for the part of a body that a check reads,
/// and for the overhead of TLS and HTTP/2.
const MOST: usize = 256 << 10;

/// The error of a connection over which the server sent more than [`MOST`]
/// bytes.
#[derive(Debug, thiserror::Error)]
#[error("the server sent more than {MOST} bytes")]
struct TooMuch;

/// Returns the message of an error if the limit caused the error, and `None`
/// otherwise.
pub(super) fn in_words(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<TooMuch>()?;
    Some(error.to_string())
}

/// A connection whose reads fail after [`MOST`] bytes.
#[derive(Debug)]
pub(super) struct Bounded {
    stream: TcpStream,
    room: usize,
}

impl Bounded {
    /// Limits a connection from which nothing has been read yet.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, room: MOST }
    }

    /// Returns the address of the server at the other end of the connection.
    pub(super) fn peer_address(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.room == 0 {
            return Poll::Ready(Err(io::Error::other(TooMuch)));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let came = buffer.filled().len() - before;
        self.room = self.room.saturating_sub(came);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
