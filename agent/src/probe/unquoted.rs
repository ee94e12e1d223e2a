//! Tests that messages without quotes contain no text of a server. Each test
//! server puts one word into every text that it can choose.

use std::{net::SocketAddr, sync::Arc};

use crds::{BodyRule, DnsProbe, HttpProbe, Probe, StatusRange, TlsRule};
use hickory_proto::{
    op::Message,
    rr::{
        Name, RData, Record,
        rdata::{CNAME, TXT},
    },
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio::{io::AsyncWriteExt, net::UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::fixtures::{said, said_unquoted, says, serve};

const WORD: &str = "xyzzy";

fn get(body: Option<BodyRule>, tls: Option<TlsRule>) -> Probe {
    Probe::Http(HttpProbe {
        tls,
        host: None,
        path: "/".to_owned(),
        headers: Vec::new(),
        statuses: vec![StatusRange {
            first: 200,
            last: 200,
        }],
        body,
    })
}

fn grpc() -> Probe {
    Probe::Grpc {
        service: String::new(),
    }
}

fn ask(record_type: &str, expect: &str) -> Probe {
    Probe::Dns(DnsProbe {
        name: "shop.example".to_owned(),
        record_type: record_type.to_owned(),
        expect: Some(expect.to_owned()),
    })
}

/// Returns an HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Starts a server that sends a SETTINGS frame and then `last`.
async fn sends(last: Vec<u8>) -> SocketAddr {
    serve(move |mut stream| {
        let last = last.clone();
        async move {
            let settings = frame(4, 0, 0, &[]);
            // The probe may have closed the connection.
            let _ = stream.write_all(&[settings, last].concat()).await;
            let mut read = [0; 4096];
            while tokio::io::AsyncReadExt::read(&mut stream, &mut read)
                .await
                .is_ok_and(|count| count > 0)
            {}
        }
    })
    .await
}

/// Starts a server that ends the connection with an error (RFC 9113, section
/// 6.8). The error's debug data is the word that the tests look for.
async fn goes_away() -> SocketAddr {
    let error = 1_u32.to_be_bytes();
    let payload = [&[0; 4], &error[..], WORD.as_bytes()].concat();
    sends(frame(7, 0, 0, &payload)).await
}

/// Starts a server that answers with the gRPC status UNKNOWN. The status's
/// message is the word that the tests look for. The status and the message are
/// literal header fields without indexing (RFC 7541, section 6.2.2).
async fn unknown_to_grpc() -> SocketAddr {
    let mut headers = vec![0x88];
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("grpc-status", "2"),
        ("grpc-message", WORD),
    ] {
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).unwrap());
            headers.extend(text.bytes());
        }
    }
    // The frame's flags are END_STREAM and END_HEADERS.
    sends(frame(1, 5, 1, &headers)).await
}

async fn answers_dns(data: RData) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 4096];
        while let Ok((count, from)) = socket.recv_from(&mut query).await {
            let query = Message::from_vec(&query[..count]).unwrap();
            let name = query.queries[0].name().clone();
            let mut answer = query.into_response();
            answer.add_answer(Record::from_rdata(name, 60, data.clone()));
            let answer = answer.to_vec().unwrap();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

async fn answers_udp() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut came = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut came).await {
            socket.send_to(WORD.as_bytes(), from).await.unwrap();
        }
    });
    address
}

/// Starts a TLS server whose certificate is for the word that the tests look
/// for.
async fn certified() -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let names = vec![format!("{WORD}.example")];
    let certificate = CertificateParams::new(names).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // The handshake fails, because the probe refuses the certificate.
            let _ = acceptor.accept(stream).await;
        }
    })
    .await
}

fn trusting(authority: Vec<u8>) -> TlsRule {
    TlsRule {
        server_name: Some("shop.example".to_owned()),
        authorities: Some(vec![authority].into()),
    }
}

#[tokio::test]
async fn no_text_of_a_server_stands_in_a_message_that_may_not_quote() {
    let authority = {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    };
    let body = |rule| get(Some(rule), None);
    let page = || {
        says(format!(
            "HTTP/1.1 200 {WORD}\r\nX-{WORD}: {WORD}\r\n\r\n{WORD}"
        ))
    };
    let word = || RData::TXT(TXT::new(vec![WORD.to_owned()]));
    let name = || {
        let name = Name::from_ascii(format!("{WORD}.example.")).unwrap();
        RData::CNAME(CNAME(name))
    };
    for (probe, server, expected) in [
        (
            get(None, None),
            says(format!("HTTP/1.1 503 {WORD}\r\n\r\n{WORD}")).await,
            "HTTP 503, expected 200",
        ),
        (
            get(None, None),
            says(WORD).await,
            "the answer is not HTTP/1: invalid HTTP version parsed",
        ),
        (
            body(BodyRule::Contains("well".to_owned())),
            page().await,
            "the body does not contain \"well\"",
        ),
        (
            body(BodyRule::Matches("well".to_owned())),
            page().await,
            "the body does not match \"well\"",
        ),
        (
            get(None, Some(trusting(authority.clone()))),
            says(WORD).await,
            "the answer is not TLS",
        ),
        (
            get(None, Some(trusting(authority))),
            certified().await,
            "certificate: its signature is wrong",
        ),
        (
            Probe::Tcp {
                send: "ping".to_owned(),
                expect: "well".to_owned(),
            },
            says(WORD).await,
            "the answer does not contain \"well\"",
        ),
        (
            Probe::Udp {
                send: "ping".to_owned(),
                expect: "well".to_owned(),
            },
            answers_udp().await,
            "the answer does not contain \"well\"",
        ),
        (
            ask("TXT", "well"),
            answers_dns(word()).await,
            "DNS answer without the record well",
        ),
        (
            ask("CNAME", "www.example"),
            answers_dns(name()).await,
            "DNS answer without the record www.example",
        ),
        (grpc(), goes_away().await, "the answer is not gRPC"),
        (grpc(), unknown_to_grpc().await, "gRPC UNKNOWN"),
    ] {
        let unquoted = said_unquoted(probe.clone(), server).await;
        assert_eq!(unquoted, expected);
        assert!(!unquoted.contains(WORD), "{unquoted}");
    }
}

#[tokio::test]
async fn a_message_that_may_quote_says_what_the_server_answered() {
    for (probe, server) in [
        (grpc(), goes_away().await),
        (grpc(), unknown_to_grpc().await),
        (
            ask("TXT", "well"),
            answers_dns(RData::TXT(TXT::new(vec![WORD.to_owned()]))).await,
        ),
    ] {
        let quoted = said(probe.clone(), server).await;
        assert!(quoted.contains(WORD), "{probe:?}: {quoted}");
    }
}
