//! A long-lived TCP session between two hosts, similar to an ssh session. A
//! [`Shell`] greets its client as sshd does and echoes each line. A [`Session`]
//! keeps its connection open.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use crate::Host;
use crate::acceptor::Acceptor;
use crate::wait::PATIENCE;

const BANNER: &str = "SSH-2.0-lab";

/// A server that greets each client and echoes lines. Dropping a `Shell` stops
/// the server and ends its open sessions.
#[derive(Debug)]
pub struct Shell {
    _acceptor: Acceptor,
}

impl Shell {
    /// Starts a shell server in `host` on an address such as `0.0.0.0:22`.
    ///
    /// # Panics
    /// Panics if the shell server cannot bind the address.
    #[track_caller]
    pub fn start(host: &Host, address: &str) -> Self {
        let serve = |stream: &TcpStream, _: SocketAddr| {
            let mut answers = stream;
            writeln!(answers, "{BANNER}")?;
            for line in BufReader::new(stream).lines() {
                writeln!(answers, "{}", line?)?;
            }
            Ok(())
        };
        Self {
            _acceptor: Acceptor::start(host, address, serve),
        }
    }
}

/// A client's session with a [`Shell`].
#[derive(Debug)]
pub struct Session {
    stream: BufReader<TcpStream>,
}

impl Session {
    /// Opens a session from the host `client` to a server at an address such as
    /// `192.168.4.5:22`.
    ///
    /// # Errors
    /// Returns an error if the connection fails or if the server's greeting
    /// differs from the greeting of a [`Shell`].
    ///
    /// # Panics
    /// Panics if the address is invalid.
    pub fn open(client: &Host, address: &str) -> io::Result<Self> {
        let address = address
            .parse()
            .unwrap_or_else(|error| panic!("{address} is an address and a port: {error}"));
        let stream = client.enter(|| TcpStream::connect_timeout(&address, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut session = Self {
            stream: BufReader::new(stream),
        };
        match session.line()?.as_str() {
            BANNER => Ok(session),
            other => Err(io::Error::other(format!("another server answers: {other}"))),
        }
    }

    /// Sends a line in the session and checks that the server echoes the line.
    ///
    /// # Errors
    /// Returns an error if the connection is broken or the echo differs from
    /// the line.
    pub fn say(&mut self, words: &str) -> io::Result<()> {
        writeln!(self.stream.get_mut(), "{words}")?;
        match self.line()? {
            said if said == words => Ok(()),
            said => Err(io::Error::other(format!("heard {said:?}, not {words:?}"))),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}
