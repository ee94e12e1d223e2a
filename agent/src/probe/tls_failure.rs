//! Describes in words why a TLS connection to a server failed.

use std::io;

use jiff::{Timestamp, tz::TimeZone};
use rustls::{CertificateError, Error, pki_types::UnixTime};

use super::words::Words;

/// Returns the reason for a TLS failure in words, or `None` if the error is not
/// from TLS.
pub(super) fn in_words(error: &io::Error) -> Option<Words> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(words(error))
}

/// Returns the reason for a TLS failure in words.
pub(super) fn words(error: &Error) -> Words {
    let Error::InvalidCertificate(error) = error else {
        return match error {
            // A TLS alert is only a number, and its name comes from rustls.
            Error::AlertReceived(alert) => format!("TLS alert {alert:?}").into(),
            Error::InvalidMessage(_) => "the answer is not TLS".into(),
            // The messages of the following errors contain only text of rustls,
            // and no text of the server.
            Error::PeerIncompatible(_)
            | Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::NoCertificatesPresented
            | Error::DecryptError => format!("TLS: {error}").into(),
            other => Words::quoting("TLS failed", format!("TLS: {other}")),
        };
    };
    let why = match error {
        CertificateError::Expired => "expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("expired on {}", day(*not_after))
        }
        CertificateError::NotValidYet => "not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("not valid before {}", day(*not_before))
        }
        CertificateError::UnknownIssuer => "unknown issuer".to_owned(),
        CertificateError::NotValidForName => "not valid for the name".to_owned(),
        CertificateError::NotValidForNameContext { expected, .. } => {
            format!("not valid for name {}", expected.to_str())
        }
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "not meant for a server".to_owned()
        }
        // rustls has no variant for webpki's error CaUsedAsEndEntity, so the
        // error is recognized by its text.
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "it belongs to an authority, not to a server (CA:TRUE)".to_owned()
        }
        other => {
            return Words::quoting("certificate: not valid", format!("certificate: {other}"));
        }
    };
    format!("certificate: {why}").into()
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(TimeZone::UTC).date().to_string(),
        Err(_) => format!("second {seconds}"),
    }
}
