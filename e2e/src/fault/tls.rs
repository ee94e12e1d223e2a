//! Valid and expired TLS certificates for test servers.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// A certificate authority that signs certificates for test servers.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, as a configuration for TLS servers.
#[derive(Clone, Debug)]
pub struct Certificate(pub(super) Arc<ServerConfig>);

impl Authority {
    /// Creates a certificate authority, which no client trusts yet.
    ///
    /// # Panics
    /// Panics if no key can be generated.
    pub fn new(name: &str) -> Self {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key());
        Self(issuer.expect("an authority signs itself"))
    }

    /// Returns the certificate authority's own certificate as PEM, for clients
    /// that must trust the authority.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for a host name, valid for many years.
    ///
    /// # Panics
    /// Panics if the host name is invalid.
    pub fn issue(&self, name: &str) -> Certificate {
        self.sign(&params(&[name]))
    }

    /// Issues an expired certificate for a host name, valid only in 2020.
    ///
    /// # Panics
    /// Panics if the host name is invalid.
    pub fn issue_expired(&self, name: &str) -> Certificate {
        let mut params = params(&[name]);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Certificate {
        let key = key();
        let signed = params.signed_by(&key, &self.0);
        let chain = vec![signed.expect("an authority signs").der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS needs")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key belongs to the certificate");
        Certificate(Arc::new(config))
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names = names.iter().map(|&name| name.to_owned());
    CertificateParams::new(names.collect::<Vec<_>>()).expect("a name, or an address")
}

fn key() -> KeyPair {
    KeyPair::generate().expect("the kernel has random numbers")
}
