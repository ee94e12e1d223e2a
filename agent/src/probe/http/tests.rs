use crds::Probe;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::*;
use crate::probe::fixtures::{
    SOON, closed, resets, said, said_within, says, says_and_waits, says_for_ever, serve, silent,
};

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn get() -> HttpProbe {
    HttpProbe {
        tls: None,
        host: None,
        path: "/".to_owned(),
        headers: Vec::new(),
        statuses: vec![StatusRange {
            first: 200,
            last: 299,
        }],
        body: None,
    }
}

async fn said_of(address: SocketAddr) -> String {
    said(Probe::Http(get()), address).await
}

async fn said_of_body(rule: BodyRule, address: SocketAddr) -> String {
    let probe = HttpProbe {
        body: Some(rule),
        ..get()
    };
    said(Probe::Http(probe), address).await
}

fn contains(text: &str) -> BodyRule {
    BodyRule::Contains(text.to_owned())
}

/// Probes a server once. Returns the server's address and the request that the
/// server received.
async fn request(probe: HttpProbe) -> (SocketAddr, String) {
    let (asked, mut heard) = mpsc::unbounded_channel();
    let address = serve(move |mut stream| {
        let asked = asked.clone();
        async move {
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            request.truncate(count);
            asked.send(String::from_utf8(request).unwrap()).unwrap();
            let answer = format!("{OK}Content-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    assert_eq!(said(Probe::Http(probe), address).await, "success");
    (address, heard.recv().await.unwrap())
}

#[tokio::test]
async fn a_request_names_the_server_and_the_agent_and_wants_only_one_answer() {
    let (address, request) = request(get()).await;
    let version = env!("CARGO_PKG_VERSION");
    let (line, headers) = request.split_once("\r\n").unwrap();
    assert_eq!(line, "GET / HTTP/1.1");
    let mut headers: Vec<_> = headers.trim_end().split("\r\n").collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            "connection: close".to_owned(),
            format!("host: {address}"),
            format!("user-agent: ipvs-operator/{version}"),
        ]
    );
}

#[tokio::test]
async fn a_request_is_as_the_check_wants_it() {
    let probe = HttpProbe {
        host: Some("shop.example".to_owned()),
        path: "/healthz?deep=1".to_owned(),
        headers: vec![
            ("x-probe".to_owned(), "1".to_owned()),
            ("x-probe".to_owned(), "2".to_owned()),
            ("user-agent".to_owned(), "me".to_owned()),
        ],
        ..get()
    };
    let (_, request) = request(probe).await;
    assert!(
        request.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"),
        "{request}"
    );
    for header in [
        "host: shop.example",
        "x-probe: 1",
        "x-probe: 2",
        "user-agent: me",
        "connection: close",
    ] {
        let count = request.split("\r\n").filter(|line| *line == header).count();
        assert_eq!(count, 1, "{header} in {request}");
    }
    assert_eq!(request.matches("user-agent").count(), 1, "{request}");
}

#[tokio::test]
async fn a_status_is_good_when_it_is_expected_and_a_redirect_is_not_followed() {
    let good = says(format!("{OK}\r\n")).await;
    assert_eq!(said_of(good).await, "success");
    for (line, words) in [
        ("503 Service Unavailable", "HTTP 503, expected 200-299"),
        ("302 Found\r\nLocation: /", "HTTP 302, expected 200-299"),
        ("404 Not Found", "HTTP 404, expected 200-299"),
    ] {
        let address = says(format!("HTTP/1.1 {line}\r\n\r\n")).await;
        assert_eq!(said_of(address).await, words);
    }
    let range = |first, last| StatusRange { first, last };
    let probe = HttpProbe {
        statuses: vec![range(200, 204), range(401, 401)],
        ..get()
    };
    let refused = says("HTTP/1.1 401 Unauthorized\r\n\r\n").await;
    assert_eq!(said(Probe::Http(probe.clone()), refused).await, "success");
    let error = says("HTTP/1.1 500 Internal Server Error\r\n\r\n").await;
    assert_eq!(
        said(Probe::Http(probe), error).await,
        "HTTP 500, expected 200-204, 401"
    );
}

#[tokio::test]
async fn without_a_rule_the_body_is_not_waited_for() {
    let address = says_and_waits("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
    assert_eq!(said_of(address).await, "success");
}

#[tokio::test]
async fn a_body_contains_or_matches_what_is_expected() {
    let body = || says(format!("{OK}Content-Length: 11\r\n\r\nstatus: ok\n"));
    let chunked = || {
        let chunks = "5\r\nstatu\r\n6\r\ns: ok\n\r\n0\r\n\r\n";
        says(format!("{OK}Transfer-Encoding: chunked\r\n\r\n{chunks}"))
    };
    for address in [body().await, chunked().await] {
        assert_eq!(
            said_of_body(contains("status: ok"), address).await,
            "success"
        );
    }
    let matches = |text: &str| BodyRule::Matches(text.to_owned());
    assert_eq!(
        said_of_body(matches("^status: (ok|fine)$|x"), body().await).await,
        "the body does not match \"^status: (ok|fine)$|x\""
    );
    assert_eq!(
        said_of_body(matches("(?m)^status: (ok|fine)$"), body().await).await,
        "success"
    );
    assert_eq!(
        said_of_body(contains("\"ok\""), body().await).await,
        "the body does not contain \"\\\"ok\\\"\""
    );
}

#[tokio::test]
async fn an_endless_body_is_read_so_far_and_no_further() {
    let endless = || says_for_ever("HTTP/1.1 200 OK\r\n\r\n", "all is well ");
    assert_eq!(
        said_of_body(contains("ok"), endless().await).await,
        "the first 65536 bytes of the body do not contain \"ok\""
    );
    assert_eq!(
        said_of_body(BodyRule::Matches("ok".to_owned()), endless().await).await,
        "the first 16384 bytes of the body do not match \"ok\""
    );
    assert_eq!(
        said_of_body(contains("well all"), endless().await).await,
        "success"
    );
}

#[tokio::test]
async fn a_body_that_does_not_end_is_good_when_it_already_contains_what_is_expected() {
    let address = says_and_waits("HTTP/1.1 200 OK\r\n\r\nok").await;
    assert_eq!(said_of_body(contains("ok"), address).await, "success");
    let address = says_and_waits("HTTP/1.1 200 OK\r\n\r\nno").await;
    let probe = HttpProbe {
        body: Some(contains("ok")),
        ..get()
    };
    assert_eq!(
        said_within(SOON, Probe::Http(probe), address).await,
        "incomplete answer in 0.3 s"
    );
}

#[tokio::test]
async fn endless_headers_are_a_failure() {
    let words = "headers longer than 16384 bytes, or more than 256";
    let many = says_for_ever(OK, "X-More: and more\r\n").await;
    assert_eq!(said_of(many).await, words);
    let long = says_for_ever(concat!("HTTP/1.1 200 OK\r\n", "X-Long: "), "more").await;
    assert_eq!(said_of(long).await, words);
    let fit = format!("{OK}X-Long: {}\r\n\r\n", "a".repeat(10_000));
    assert_eq!(said_of(says(fit).await).await, "success");
}

#[tokio::test]
async fn what_is_not_an_answer_is_a_failure() {
    assert_eq!(said_of(closed().await).await, "connection refused");
    assert_eq!(said_of(resets().await).await, "connection reset");
    assert_eq!(
        said_of(says("").await).await,
        "connection closed before the end of the answer"
    );
    assert_eq!(
        said_of(says("SSH-2.0-OpenSSH_9.9\r\n").await).await,
        "the answer is not HTTP/1: invalid HTTP version parsed"
    );
    let (_held, address) = silent().await;
    assert_eq!(
        said_within(SOON, Probe::Http(get()), address).await,
        "no answer in 0.3 s"
    );
    let waits = says_and_waits("").await;
    assert_eq!(
        said_within(SOON, Probe::Http(get()), waits).await,
        "connected, and no answer in 0.3 s"
    );
}

#[tokio::test]
async fn a_request_that_cannot_be_made_says_nothing_of_the_server() {
    let probe = HttpProbe {
        headers: vec![("x probe".to_owned(), "1".to_owned())],
        ..get()
    };
    assert_eq!(
        said(Probe::Http(probe), closed().await).await,
        "void: the check cannot be made: invalid HTTP header name"
    );
}
