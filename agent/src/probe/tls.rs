//! Opens TLS connections to servers, and verifies the servers' certificates.

use std::sync::Arc;

use crds::TlsRule;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    bounded::Bounded,
    progress::{Progress, Reached},
    tls_failure,
    trouble::Failed,
    worker::Share,
};

/// The maximum number of certificates that a server may send. rustls tries the
/// paths from the server's certificate to an authority, and their number grows
/// exponentially with the number of certificates.
const MOST_CERTIFICATES: usize = 8;
/// The maximum size of the certificates that a server may send, in bytes.
const MOST_BYTES: usize = 32 << 10;

/// Opens the TLS connections of one check.
pub(super) struct Tls {
    connector: TlsConnector,
    name: Option<ServerName<'static>>,
    /// Verifies the servers' certificates. `None` if the check switches
    /// verification off.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl Tls {
    /// Prepares TLS connections that follow `rule`. `host` is the check's host
    /// name without a port.
    ///
    /// # Errors
    /// Returns an error, with the reason, if `rule` can never work.
    pub(super) fn new(rule: &TlsRule, host: Option<&str>) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let authorities = rule.authorities.as_deref();
        let verifier = authorities.map(|authorities| verifier(authorities, &provider));
        let verifier = verifier.transpose()?;
        let handshake = Handshake {
            verifier: verifier.clone(),
            schemes: provider
                .signature_verification_algorithms
                .supported_schemes(),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(handshake))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let name = match rule.server_name.as_deref().or(host) {
            Some(name) => {
                let fit = ServerName::try_from(name.to_owned());
                Some(fit.map_err(|error| format!("{name:?} is not a valid server name: {error}"))?)
            }
            None => None,
        };
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
            verifier,
        })
    }

    /// Opens a TLS connection over a TCP connection, and lets the worker verify
    /// the server's certificates.
    pub(super) async fn connect(
        &self,
        stream: Bounded,
        share: Share<'_>,
        progress: &Progress,
    ) -> Result<TlsStream<Bounded>, Failed> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => stream.peer_address()?.ip().into(),
        };
        let stream = self.connector.connect(name.clone(), stream).await?;
        if let Some(verifier) = self.verifier.clone() {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let bytes: usize = chain.iter().map(|one| one.len()).sum();
            if chain.len() > MOST_CERTIFICATES || bytes > MOST_BYTES {
                return Err(Failed::answer(format!(
                    "certificate: more than {MOST_CERTIFICATES} certificates, or more than \
                     {MOST_BYTES} bytes"
                )));
            }
            let chain = chain.to_vec();
            progress.reached(Reached::Worker);
            share.run(move || verify(&verifier, &chain, &name)).await?;
            progress.reached(Reached::Connected);
        }
        Ok(stream)
    }
}

fn verifier(
    authorities: &[Vec<u8>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let authority = CertificateDer::from_slice(authority).into_owned();
        roots
            .add(authority)
            .map_err(|error| tls_failure::words(&error).text(true).to_owned())?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| error.to_string())
}

/// Verifies a chain of certificates. The server's own certificate is the first
/// of the chain (RFC 8446, section 4.4.2).
fn verify(
    verifier: &WebPkiServerVerifier,
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
) -> Result<(), Failed> {
    let verified = match chain.split_first() {
        Some((own, others)) => verifier.verify_server_cert(own, others, name, &[], UnixTime::now()),
        None => Err(Error::NoCertificatesPresented),
    };
    match verified {
        Ok(_) => Ok(()),
        Err(error) => Err(Failed::answer(tls_failure::words(&error))),
    }
}

/// Accepts every chain of certificates, so that a handshake takes the prober's
/// thread only a short time. [`Tls::connect`] verifies the chain afterwards.
/// If the check verifies certificates, the handshake proves that the server has
/// the key of its own certificate.
#[derive(Debug)]
struct Handshake {
    /// Verifies the proof that the server has the key. `None` if the check
    /// switches verification off.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Handshake {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.verifier {
            Some(verifier) => verifier.verify_tls12_signature(message, certificate, signed),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match &self.verifier {
            Some(verifier) => verifier.verify_tls13_signature(message, certificate, signed),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
mod tests;
