//! The servers that the benchmark's agents probe. The servers run in a separate
//! process, so the agent's processor time does not include the servers' time.

use std::{
    io::{self, BufRead, BufReader, Write},
    mem,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::Host;
use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        resource::{Resource, getrlimit, setrlimit},
        socket::{Backlog, listen},
    },
};

/// The TCP port on which each probed server listens.
pub(crate) const PORT: u16 = 20080;
/// How many files the servers' process may have open in addition to the
/// servers' listeners.
const OTHER_FILES: u64 = 100;
/// The value that identifies standard input in epoll events. A listener is
/// identified by the number of its server.
const INPUT: u64 = u64::MAX;

/// Returns the address of the server with the given number.
pub(crate) fn address(first: Ipv4Addr, number: u32) -> SocketAddr {
    let address = Ipv4Addr::from_bits(first.to_bits() + number);
    SocketAddrV4::new(address, PORT).into()
}

/// Servers at consecutive addresses. Each server accepts connections and closes
/// them at once. Dropping a `Servers` ends the servers' process.
pub(crate) struct Servers {
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    child: Child,
}

impl Servers {
    /// Starts `count` servers in `host`. Without `host`, the servers run in the
    /// caller's network namespace.
    pub(crate) fn start(first: Ipv4Addr, count: u32, host: Option<&Host>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("servers")
            .args([first.to_string(), count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = match host {
            Some(host) => host.spawn(&mut command),
            None => command.spawn(),
        }
        .context("the servers start")?;
        let mut servers = Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().expect("the output is piped")),
            child,
        };
        servers.connections().context("the servers listen")?;
        Ok(servers)
    }

    /// Returns how many connections all servers together have accepted.
    pub(crate) fn connections(&mut self) -> Result<u64> {
        self.ask("connections")
    }

    /// Makes one server refuse connections from now on.
    pub(crate) fn stop(&mut self, number: u32) -> Result<()> {
        self.ask(&format!("stop {number}")).map(drop)
    }

    /// Makes a stopped server accept connections again.
    pub(crate) fn listen(&mut self, number: u32) -> Result<()> {
        self.ask(&format!("listen {number}")).map(drop)
    }

    /// Makes one server silent, so that the kernel drops every connection
    /// attempt to the server.
    pub(crate) fn silence(&mut self, number: u32) -> Result<()> {
        self.ask(&format!("silence {number}")).map(drop)
    }

    fn ask(&mut self, what: &str) -> Result<u64> {
        let input = self.input.as_mut().expect("the input is open until drop");
        writeln!(input, "{what}")?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        let number = answer.trim().parse();
        number.with_context(|| format!("the servers' answer to {what:?}: {answer:?}"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.input.take());
        // The exit status is ignored, because the result of the servers'
        // process does not matter.
        let _ = self.child.wait();
    }
}

enum Server {
    Listening(TcpListener),
    Stopped,
    /// The server does not answer, because its accept queue is full.
    Silent {
        _listener: TcpListener,
        _queued: TcpStream,
    },
}

/// Runs the servers, and executes commands from standard input until the input
/// ends.
pub(crate) fn run(first: Ipv4Addr, count: u32) -> Result<()> {
    allow_files(u64::from(count) + OTHER_FILES)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut lines = io::stdin().lines();
    epoll.add(io::stdin(), EpollEvent::new(EpollFlags::EPOLLIN, INPUT))?;
    let mut servers = Vec::new();
    for number in 0..count {
        servers.push(Server::Listening(listener(&epoll, first, number)?));
    }
    let mut connections = 0_u64;
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            if event.data() == INPUT {
                let Some(line) = lines.next() else {
                    return Ok(());
                };
                obey(&line?, &epoll, first, &mut servers)?;
                println!("{connections}");
            } else if let Server::Listening(listener) = &servers[usize::try_from(event.data())?] {
                // A failed `accept` is not counted: the client may have closed
                // the connection already.
                connections += u64::from(listener.accept().is_ok());
            }
        }
    }
}

fn allow_files(wanted: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        hard >= wanted,
        "{wanted} open files are needed, but only {hard} are allowed: raise `ulimit -Hn`"
    );
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted), hard)?;
    Ok(())
}

fn listener(epoll: &Epoll, first: Ipv4Addr, number: u32) -> Result<TcpListener> {
    let address = address(first, number);
    let listener = TcpListener::bind(address).with_context(|| format!("listening at {address}"))?;
    listener.set_nonblocking(true)?;
    epoll.add(
        &listener,
        EpollEvent::new(EpollFlags::EPOLLIN, number.into()),
    )?;
    Ok(listener)
}

fn obey(line: &str, epoll: &Epoll, first: Ipv4Addr, servers: &mut [Server]) -> Result<()> {
    let Some((what, number)) = line.split_once(' ') else {
        return Ok(());
    };
    let number: u32 = number.parse()?;
    let server = servers.get_mut(usize::try_from(number)?);
    let server = server.with_context(|| format!("server {number} does not exist"))?;
    let before = mem::replace(server, Server::Stopped);
    *server = match (what, before) {
        ("stop", _) => Server::Stopped,
        ("listen", Server::Stopped) => Server::Listening(listener(epoll, first, number)?),
        ("silence", Server::Listening(listener)) => silence(listener, epoll)?,
        _ => bail!("server {number} cannot be made to {what}"),
    };
    Ok(())
}

/// Makes a server silent by filling its queue of connections to accept. A
/// backlog of 0 makes a queue of one connection (`include/net/sock.h`,
/// sk_acceptq_is_full). The kernel drops a SYN when the queue is full
/// (`net/ipv4/tcp_input.c`, tcp_conn_request).
fn silence(listener: TcpListener, epoll: &Epoll) -> Result<Server> {
    epoll.delete(&listener)?;
    listen(&listener, Backlog::new(0)?)?;
    let queued = TcpStream::connect(listener.local_addr()?)?;
    Ok(Server::Silent {
        _listener: listener,
        _queued: queued,
    })
}
