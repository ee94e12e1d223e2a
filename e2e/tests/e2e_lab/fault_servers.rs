//! Tests that the lab's faulty servers and traffic watchers behave as the tests
//! of health checks assume.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use e2e::{
    Asking, Client, Host, Segment, Weights, Wire,
    fault::{Authority, Behaviour, DatagramServer, FaultServer, Protocol},
    wait::PATIENCE,
};

const SERVER: &str = "192.168.2.100:80";
/// How long a test waits for an answer that must not come.
const SHORT: Duration = Duration::from_millis(500);

struct Pair {
    director: Host,
    server: Host,
    _segment: Segment,
}

fn pair() -> Pair {
    let segment = Segment::new("segment");
    let [director, server] = ["director", "server"].map(Host::new);
    segment.attach(&director, "eth0", "192.168.2.5/24");
    segment.attach(&server, "eth0", "192.168.2.100/24");
    Pair {
        director,
        server,
        _segment: segment,
    }
}

/// Requests a path from the test server and returns up to 1 MiB of the answer.
/// Returns an error if the server sends no data for the duration `patience`.
fn ask(host: &Host, path: &str, patience: Duration) -> io::Result<String> {
    host.enter(|| {
        let mut stream = TcpStream::connect(SERVER)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(1 << 20).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}

#[test]
fn a_server_misbehaves_as_it_is_told_and_only_towards_who_asks_about_its_health() {
    let pair = pair();
    let mut server = FaultServer::start(&pair.server, "0.0.0.0:80", "one");
    let begun = Instant::now();
    let health = || ask(&pair.director, "/healthz", PATIENCE);
    let health_soon = || ask(&pair.director, "/healthz", SHORT);
    let begins = |expected: &str| {
        let answer = health().expect("it answers");
        assert!(answer.starts_with(expected), "{expected}: {answer:.99}");
        answer
    };
    assert!(begins("HTTP/1.1 200 OK\r\n").ends_with("\r\n\r\none"));
    server.behave(Behaviour::Error(500));
    begins("HTTP/1.1 500");
    server.behave(Behaviour::WrongBody);
    assert!(!begins("HTTP/1.1 200").ends_with("one"));
    server.behave(Behaviour::RedirectLoop);
    assert!(begins("HTTP/1.1 302").contains("\r\nLocation: /healthz\r\n"));
    server.behave(Behaviour::EndlessBody);
    assert_eq!(begins("HTTP/1.1 200 OK\r\n").len(), 1 << 20);
    server.behave(Behaviour::EndlessHead);
    assert!(!begins("HTTP/1.1 200 OK\r\n").contains("\r\n\r\n"));
    server.behave(Behaviour::Silent);
    health_soon().expect_err("there is no answer");
    server.behave(Behaviour::Late(PATIENCE));
    health_soon().expect_err("the answer comes later");
    let page = ask(&pair.director, "/", PATIENCE);
    assert!(page.expect("a page").ends_with("one"));
    assert_eq!(server.came(director(), begun), 9);

    server.behave_times(2, Behaviour::Error(500));
    begins("HTTP/1.1 500");
    begins("HTTP/1.1 500");
    begins("HTTP/1.1 200");

    server.behave(Behaviour::ByTurns);
    let mut seen = Vec::new();
    while seen.len() < 4 && begun.elapsed() < PATIENCE {
        let answer = health().expect("it answers");
        let status = answer.split(' ').nth(1).expect("a status").to_owned();
        if seen.last() != Some(&status) {
            seen.push(status);
        }
    }
    assert_eq!(seen, ["503", "200", "503", "200"]);

    server.stop();
    let refused = health().expect_err("the port is closed");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    server.start_again();
    server.behave(Behaviour::Good);
    begins("HTTP/1.1 200 OK");
}

#[test]
fn a_certificate_is_what_a_client_is_shown() {
    let pair = pair();
    let authority = Authority::new("lab");
    let good = authority.issue("shop.example");
    let server = FaultServer::start_tls(&pair.server, "0.0.0.0:443", "one", good);
    let file = e2e::layout::file("authority.pem");
    std::fs::write(&file, authority.pem()).expect("the lab has a folder");
    let verify = || {
        // The command `openssl s_client` exits when its input ends, and its
        // exit status shows whether the certificate is valid.
        let line = "openssl s_client -connect 192.168.2.100:443 -verify_return_error \
                    -verify_hostname shop.example -CAfile";
        let answer = pair.director.try_run(&format!("{line} {}", file.display()));
        answer.map_err(|failed| failed.stderr())
    };
    verify().expect("the certificate is valid");
    server.present(authority.issue("other.example"));
    let failed = verify().expect_err("the certificate is for another name");
    assert!(failed.contains("hostname mismatch"), "{failed}");
    server.present(authority.issue_expired("shop.example"));
    let failed = verify().expect_err("the certificate has expired");
    assert!(failed.contains("certificate has expired"), "{failed}");
    server.present(Authority::new("stranger").issue("shop.example"));
    let failed = verify().expect_err("the certificate's authority is unknown");
    assert!(failed.contains("unable to get local issuer"), "{failed}");
}

#[test]
fn a_closed_port_says_so_and_an_open_one_echoes() {
    let pair = pair();
    let mut server = DatagramServer::start(&pair.server, "0.0.0.0:7", Protocol::Echo, "one");
    let echo = |patience| {
        pair.director.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect("192.168.2.100:7")?;
            socket.set_read_timeout(Some(patience))?;
            socket.send(b"ping")?;
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer)?;
            io::Result::Ok(answer[..length].to_vec())
        })
    };
    assert_eq!(echo(PATIENCE).expect("an answer"), b"one ping");
    server.behave(Behaviour::Silent);
    let silent = echo(SHORT).expect_err("the server does not answer");
    assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
    server.stop();
    let closed = echo(PATIENCE).expect_err("the port is closed");
    assert_eq!(closed.kind(), io::ErrorKind::ConnectionRefused);
    server.start_again();
    server.behave(Behaviour::Good);
    assert_eq!(echo(PATIENCE).expect("an answer"), b"one ping");
}

#[test]
fn weights_packets_and_requests_are_seen_by_those_who_watch() {
    let pair = pair();
    let vip = "192.168.2.5:8080";
    let director = &pair.director;
    let _server = FaultServer::start(&pair.server, "0.0.0.0:80", "one");
    director.run(&format!("ipvsadm -A -t {vip} -s rr"));
    director.run(&format!("ipvsadm -a -t {vip} -r {SERVER} -m -w 3"));
    let weights = Weights::watch(director);
    let wire = Wire::listen(director, "eth0", "192.168.2.5");
    let begun = Instant::now();
    assert_eq!(weights.of(vip, SERVER), Some(3));

    let asking = Asking::pages(&Client::new(director), vip);
    asking.wait_for_more(5);
    director.run(&format!("ipvsadm -e -t {vip} -r {SERVER} -m -w 0"));
    let drained = weights.wait_for((vip, SERVER), Some(0), PATIENCE);
    asking.wait_for_more(2);
    director.run(&format!("ipvsadm -d -t {vip} -r {SERVER}"));
    weights.wait_for((vip, SERVER), None, PATIENCE);
    let asked = asking.so_far();
    drop(asking);

    let seen: Vec<_> = weights
        .changes(begun)
        .iter()
        .map(|change| change.weight)
        .collect();
    assert_eq!(seen, [Some(0), None]);
    let (before, after): (Vec<_>, Vec<_>) = asked.iter().partition(|asked| asked.at < drained);
    let good = before.iter().filter(|asked| asked.outcome.is_ok()).count();
    let first_bad = before.iter().position(|asked| asked.outcome.is_err());
    let is_cut_once = first_bad.is_none_or(|index| index == good);
    assert!(
        good >= 5 && is_cut_once,
        "requests must succeed until the server is drained, and then fail: {before:#?}"
    );
    assert!(
        after.iter().all(|asked| asked.outcome.is_err()),
        "{after:#?}"
    );
    let flows = || wire.flows("192.168.2.100.80", begun, drained);
    e2e::eventually("tcpdump to have written every packet", PATIENCE, || {
        let found = flows();
        if (good..=good + 1).contains(&found) {
            Ok(())
        } else {
            Err(format!("{found} flows, {good} requests"))
        }
    });
}

fn director() -> IpAddr {
    Ipv4Addr::new(192, 168, 2, 5).into()
}
