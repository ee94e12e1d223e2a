//! Opens TLS connections to servers, and verifies the servers' certificates.

use std::sync::Arc;

use crds::TlsRule;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{bounded::Bounded, tls_failure, trouble::Failed};

/// Opens the TLS connections of one check.
pub(super) struct Tls {
    connector: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl Tls {
    /// Prepares TLS connections that follow `rule`. `host` is the check's host
    /// name without a port.
    ///
    /// # Errors
    /// Returns an error, with the reason, if `rule` can never work.
    pub(super) fn new(rule: &TlsRule, host: Option<&str>) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = match &rule.authorities {
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in authorities.iter() {
                    let authority = CertificateDer::from_slice(authority).into_owned();
                    roots
                        .add(authority)
                        .map_err(|error| tls_failure::words(&error).text(true).to_owned())?;
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
                .with_no_client_auth(),
        };
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
        })
    }

    /// Opens a TLS connection over a TCP connection.
    pub(super) async fn connect(&self, stream: Bounded) -> Result<TlsStream<Bounded>, Failed> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => stream.peer_address()?.ip().into(),
        };
        Ok(self.connector.connect(name, stream).await?)
    }
}

/// Accepts every certificate, for checks that switch verification off.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
