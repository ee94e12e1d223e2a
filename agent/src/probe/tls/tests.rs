use std::net::SocketAddr;

use crds::{HttpProbe, Probe, StatusRange};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::{
    ALL_VERSIONS, ServerConfig, SupportedProtocolVersion,
    pki_types::PrivateKeyDer,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::probe::fixtures::{SOON, said, said_within, says, says_and_waits, serve};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Returns a certificate for `names` that expires at the end of `year`, and the
/// certificate's key.
fn certificate(authority: &Authority, names: &[&str], year: i32) -> (Vec<u8>, KeyPair) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_after = date_time_ymd(year, 12, 31);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.der().to_vec(), key)
}

/// Starts a healthy server with the given certificate and key.
async fn server(identity: (Vec<u8>, KeyPair)) -> SocketAddr {
    listening_server(config(vec![identity.0], &identity.1, ALL_VERSIONS))
        .await
        .0
}

/// Returns the configuration of a server that presents `chain`, whether or not
/// `key` is the key of the chain's first certificate.
fn config(
    chain: Vec<Vec<u8>>,
    key: &KeyPair,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = ring::sign::any_supported_type(&key).unwrap();
    let chain = chain.into_iter().map(Into::into).collect();
    let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver))
}

/// Starts a healthy server, and also returns what the server's clients say: one
/// message for each connection.
async fn listening_server(config: ServerConfig) -> (SocketAddr, UnboundedReceiver<Vec<u8>>) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (hear, heard) = unbounded_channel();
    let address = serve(move |stream| {
        let (acceptor, hear) = (acceptor.clone(), hear.clone());
        async move {
            let mut read = vec![0; 4096];
            let Ok(mut stream) = acceptor.accept(stream).await else {
                let _ = hear.send(Vec::new());
                return;
            };
            let length = stream.read(&mut read).await.unwrap_or_default();
            read.truncate(length);
            // Sending fails in tests that do not receive the requests.
            let _ = hear.send(read);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        }
    })
    .await;
    (address, heard)
}

fn rule(authority: Option<&Authority>, name: Option<&str>) -> TlsRule {
    TlsRule {
        server_name: name.map(str::to_owned),
        authorities: authority.map(|authority| vec![authority.der().to_vec()].into()),
    }
}

fn get(tls: TlsRule, host: Option<&str>) -> Probe {
    Probe::Http(HttpProbe {
        tls: Some(tls),
        host: host.map(str::to_owned),
        path: "/".to_owned(),
        headers: Vec::new(),
        statuses: vec![StatusRange {
            first: 200,
            last: 299,
        }],
        body: None,
    })
}

#[tokio::test]
async fn a_certificate_is_good_for_the_name_that_the_check_says() {
    let authority = authority("ours");
    let shop = server(certificate(&authority, &["shop.example"], 2990)).await;
    let named = |name| rule(Some(&authority), name);
    for (tls, host, expected) in [
        (named(Some("shop.example")), None, "success"),
        (named(None), Some("shop.example"), "success"),
        (named(None), Some("shop.example:8443"), "success"),
        (named(Some("shop.example")), Some("else.example"), "success"),
        (
            named(Some("else.example")),
            Some("shop.example"),
            "certificate: not valid for name else.example",
        ),
        (
            named(None),
            None,
            "certificate: not valid for name 127.0.0.1",
        ),
    ] {
        assert_eq!(said(get(tls, host), shop).await, expected, "{host:?}");
    }
    let by_address = server(certificate(&authority, &["127.0.0.1"], 2990)).await;
    assert_eq!(said(get(named(None), None), by_address).await, "success");
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_says_why() {
    let (ours, other) = (authority("ours"), authority("other"));
    let tls = || rule(Some(&ours), Some("shop.example"));
    let stranger = server(certificate(&other, &["shop.example"], 2990)).await;
    assert_eq!(
        said(get(tls(), None), stranger).await,
        "certificate: unknown issuer"
    );
    let expired = server(certificate(&ours, &["shop.example"], 2025)).await;
    assert_eq!(
        said(get(tls(), None), expired).await,
        "certificate: expired on 2025-12-31"
    );
    let own = (
        ours.der().to_vec(),
        KeyPair::try_from(ours.key().serialize_der()).unwrap(),
    );
    assert_eq!(
        said(get(tls(), None), server(own).await).await,
        "certificate: it belongs to an authority, not to a server (CA:TRUE)"
    );
}

/// The check's headers may contain credentials, so a server that is not trusted
/// must not see the headers.
#[tokio::test]
async fn a_server_that_is_not_trusted_gets_no_request() {
    let (ours, other) = (authority("ours"), authority("other"));
    for (signer, expected) in [(&ours, true), (&other, false)] {
        let (certificate, key) = certificate(signer, &["shop.example"], 2990);
        let config = config(vec![certificate], &key, ALL_VERSIONS);
        let (address, mut requests) = listening_server(config).await;
        let tls = rule(Some(&ours), Some("shop.example"));
        said(get(tls, None), address).await;
        let request = requests.recv().await.expect("the server was asked");
        assert_eq!(!request.is_empty(), expected, "it got {request:?}");
    }
}

#[tokio::test]
async fn a_server_without_the_key_of_its_certificate_fails() {
    let ours = authority("ours");
    for version in [&TLS12, &TLS13] {
        let (certificate, _) = certificate(&ours, &["shop.example"], 2990);
        let config = config(vec![certificate], &KeyPair::generate().unwrap(), &[version]);
        let (address, _) = listening_server(config).await;
        let tls = rule(Some(&ours), Some("shop.example"));
        assert_eq!(
            said(get(tls, None), address).await,
            "certificate: its signature is wrong",
            "{version:?}"
        );
    }
}

/// Verifying such a chain could take minutes.
#[tokio::test]
async fn a_server_that_sends_very_many_certificates_fails() {
    let ours = authority("ours");
    for (others, expected) in [
        (MOST_CERTIFICATES - 1, "success"),
        (
            MOST_CERTIFICATES,
            "certificate: more than 8 certificates, or more than 32768 bytes",
        ),
    ] {
        let (certificate, key) = certificate(&ours, &["shop.example"], 2990);
        let mut chain = vec![certificate];
        chain.extend((0..others).map(|_| ours.der().to_vec()));
        let (address, _) = listening_server(config(chain, &key, ALL_VERSIONS)).await;
        let tls = rule(Some(&ours), Some("shop.example"));
        assert_eq!(said(get(tls, None), address).await, expected);
    }
}

#[tokio::test]
async fn without_authorities_every_server_is_trusted() {
    let expired = server(certificate(&authority("other"), &["else.example"], 2025)).await;
    let tls = rule(None, Some("shop.example"));
    assert_eq!(said(get(tls, None), expired).await, "success");
}

#[tokio::test]
async fn a_server_without_tls_fails_in_other_words_than_a_silent_one() {
    let tls = || rule(None, None);
    let plain = says("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_eq!(said(get(tls(), None), plain).await, "the answer is not TLS");
    assert_eq!(
        said(get(tls(), None), says("").await).await,
        "connection closed"
    );
    assert_eq!(
        said_within(SOON, get(tls(), None), says_and_waits("").await).await,
        "connected, and no answer in 0.3 s"
    );
}
