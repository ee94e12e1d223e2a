use std::{net::IpAddr, sync::Arc};

use rustls_pki_types::{
    CertificateDer,
    pem::{self, PemObject},
};

use super::{invalid, name, text};
use crate::{
    BodyRule, HttpProbe, Rejection, StatusRange, TlsRule,
    api::{ExpectedBody, HttpGetProbe, HttpHeader, HttpScheme, ProbeTls},
    body_pattern, bounds,
};

const PATH: &str = "spec.healthCheck.httpGet";

/// Checks `spec.healthCheck.httpGet`.
pub(super) fn probe(raw: &HttpGetProbe) -> Result<HttpProbe, Rejection> {
    path(&raw.path)?;
    if let Some(host) = &raw.host {
        name::host(&format!("{PATH}.host"), host)?;
    }
    let headers = raw.http_headers.iter().enumerate();
    let headers = headers
        .map(|(index, raw)| header(index, raw))
        .collect::<Result<_, _>>()?;
    if raw.http_headers.len() > bounds::HEADERS {
        return Err(invalid(
            &format!("{PATH}.httpHeaders"),
            format_args!("write at most {} headers", bounds::HEADERS),
        ));
    }
    Ok(HttpProbe {
        tls: tls(raw)?,
        host: raw.host.as_deref().map(host_header),
        path: raw.path.clone(),
        headers,
        statuses: statuses(&raw.expected_statuses)?,
        body: raw.expected_body.as_ref().map(body).transpose()?,
    })
}

/// Checks the path and query of a request (RFC 3986, sections 3.3 and 3.4).
fn path(raw: &str) -> Result<(), Rejection> {
    const SPECIAL: &[u8] = b"-._~!$&'()*+,;=:@%/?";
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || SPECIAL.contains(&byte);
    if raw.starts_with('/') && raw.len() <= bounds::PATH && raw.bytes().all(is_good) {
        return Ok(());
    }
    Err(invalid(
        &format!("{PATH}.path"),
        format_args!(
            "{raw:?} is not a path; write one from its first slash, such as /healthz, of at most \
             {} characters, and percent-encode what a URL cannot hold: a space is %20",
            bounds::PATH
        ),
    ))
}

/// Returns the Host header for a host, with brackets around an IPv6 address
/// (RFC 3986, section 3.2.2).
fn host_header(host: &str) -> String {
    match name::address(host) {
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    }
}

/// Checks a header: the name must be a token (RFC 9110, section 5.6.2), and the
/// value must be visible ASCII.
fn header(index: usize, raw: &HttpHeader) -> Result<(String, String), Rejection> {
    const OWN: [&str; 4] = ["host", "connection", "content-length", "transfer-encoding"];
    let path = format!("{PATH}.httpHeaders[{index}]");
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-!#$%&'*+.^_`|~".contains(&byte);
    if !(1..=bounds::HEADER_NAME).contains(&raw.name.len()) || !raw.name.bytes().all(is_token) {
        return Err(invalid(
            &format!("{path}.name"),
            format_args!(
                "{:?} is not the name of a header; write one such as X-Probe: 1 to {} letters, \
                 digits and '-'",
                raw.name,
                bounds::HEADER_NAME
            ),
        ));
    }
    let name = raw.name.to_ascii_lowercase();
    if OWN.contains(&name.as_str()) {
        return Err(invalid(
            &format!("{path}.name"),
            format_args!(
                "{} is written by the probe itself; leave it out, and write httpGet.host instead \
                 of a Host header",
                raw.name
            ),
        ));
    }
    let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if raw.value.len() > bounds::HEADER_VALUE || !raw.value.bytes().all(is_visible) {
        return Err(invalid(
            &format!("{path}.value"),
            format_args!(
                "cannot be the value of a header; write at most {} characters of ASCII without \
                 control characters",
                bounds::HEADER_VALUE
            ),
        ));
    }
    Ok((name, raw.value.clone()))
}

fn statuses(raw: &[String]) -> Result<Vec<StatusRange>, Rejection> {
    if !(1..=bounds::STATUSES).contains(&raw.len()) {
        return Err(invalid(
            &format!("{PATH}.expectedStatuses"),
            format_args!(
                "write 1 to {} statuses, or leave it out for 200-299",
                bounds::STATUSES
            ),
        ));
    }
    let statuses = raw.iter().enumerate();
    statuses
        .map(|(index, raw)| {
            status_range(raw).ok_or_else(|| {
                invalid(
                    &format!("{PATH}.expectedStatuses[{index}]"),
                    format_args!(
                        "{raw:?} is not a range of HTTP statuses; write one such as \"204\" or \
                         \"200-299\", from 100 to 599, the lower one first"
                    ),
                )
            })
        })
        .collect()
}

fn status_range(raw: &str) -> Option<StatusRange> {
    let (first, last) = raw.split_once('-').unwrap_or((raw, raw));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(StatusRange { first, last })
}

fn status(raw: &str) -> Option<u16> {
    let is_number = raw.len() == 3 && raw.bytes().all(|byte| byte.is_ascii_digit());
    let status = raw.parse().ok().filter(|_| is_number)?;
    (100..=599).contains(&status).then_some(status)
}

fn body(raw: &ExpectedBody) -> Result<BodyRule, Rejection> {
    const FIELD: &str = "httpGet.expectedBody";
    match (&raw.contains, &raw.matches) {
        (Some(contained), None) => Ok(BodyRule::Contains(text(
            &format!("{FIELD}.contains"),
            Some(contained),
            bounds::TEXT,
        )?)),
        (None, Some(pattern)) => {
            let pattern = text(&format!("{FIELD}.matches"), Some(pattern), bounds::PATTERN)?;
            match body_pattern(&pattern) {
                Ok(_) => Ok(BodyRule::Matches(pattern)),
                Err(regex::Error::CompiledTooBig(most)) => Err(invalid(
                    &format!("{PATH}.expectedBody.matches"),
                    format_args!(
                        "compiles to more than {} KiB, which takes too long to match; write fewer \
                         and shorter repetitions, and [0-9] and [0-9A-Za-z_] instead of \\d and \\w",
                        most >> 10
                    ),
                )),
                Err(error) => Err(invalid(
                    &format!("{PATH}.expectedBody.matches"),
                    format_args!(
                        "cannot be used as a regular expression: {}",
                        one_line(&error)
                    ),
                )),
            }
        }
        (Some(_), Some(_)) => Err(invalid(
            &format!("{PATH}.expectedBody"),
            "contains and matches exclude each other; write one of them",
        )),
        (None, None) => Err(invalid(
            &format!("{PATH}.expectedBody"),
            "neither contains nor matches is given; write one of them",
        )),
    }
}

/// Returns the last line of a regex error. The last line says what is wrong.
/// The earlier lines show the pattern, and would make a condition's message too
/// long.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

fn tls(raw: &HttpGetProbe) -> Result<Option<TlsRule>, Rejection> {
    match (raw.scheme, &raw.tls) {
        (HttpScheme::Http, None) => Ok(None),
        (HttpScheme::Https, Some(tls)) => Ok(Some(tls_rule(tls, raw.host.as_deref())?)),
        (HttpScheme::Http, Some(_)) => Err(invalid(
            &format!("{PATH}.tls"),
            "scheme HTTP has no tls; leave it out, or set scheme to HTTPS",
        )),
        (HttpScheme::Https, None) => Err(invalid(
            &format!("{PATH}.tls"),
            "scheme HTTPS needs to know whom to trust; write tls with caBundle or \
             insecureSkipVerify: true, or set scheme to HTTP",
        )),
    }
}

fn tls_rule(raw: &ProbeTls, host: Option<&str>) -> Result<TlsRule, Rejection> {
    const BUNDLE: &str = "spec.healthCheck.httpGet.tls.caBundle";
    if let Some(server_name) = &raw.server_name {
        name::host(&format!("{PATH}.tls.serverName"), server_name)?;
    }
    let authorities = match (&raw.ca_bundle, raw.insecure_skip_verify) {
        (Some(bundle), false) => Some(authorities(BUNDLE, &bundle.0)?),
        (None, true) => None,
        (Some(_), true) => {
            return Err(invalid(
                BUNDLE,
                "has no effect with insecureSkipVerify, which trusts every server; leave one of the \
                 two out",
            ));
        }
        (None, false) => {
            return Err(invalid(
                BUNDLE,
                "nothing says whom to trust; write caBundle, or insecureSkipVerify: true",
            ));
        }
    };
    Ok(TlsRule {
        server_name: raw.server_name.as_deref().or(host).map(str::to_owned),
        authorities,
    })
}

/// Reads the certificates of a bundle. Each certificate must be usable as a
/// trust anchor.
fn authorities(path: &str, bundle: &[u8]) -> Result<Arc<[Vec<u8>]>, Rejection> {
    /// The largest size of a bundle in bytes. The API limits the length of the
    /// base64 text. Four base64 characters encode three bytes.
    const LARGEST: usize = bounds::CA_BUNDLE_BASE64 / 4 * 3;
    if bundle.len() > LARGEST {
        return Err(invalid(
            path,
            format_args!(
                "holds {} bytes; write at most {LARGEST}, and only the authorities that sign the \
                 servers' certificates",
                bundle.len()
            ),
        ));
    }
    let bundle = str::from_utf8(bundle).map_err(|_| {
        invalid(
            path,
            "is not text; write PEM, as `openssl x509 -inform der -in ca.der` prints it",
        )
    })?;
    let authorities: Vec<_> = CertificateDer::pem_slice_iter(bundle.as_bytes())
        .enumerate()
        .map(|(index, found)| {
            let number = index + 1;
            let certificate = found.map_err(|error| {
                let why = pem_error(&error);
                invalid(path, format_args!("certificate {number}: {why}"))
            })?;
            webpki::anchor_from_trusted_cert(&certificate).map_err(|error| {
                invalid(
                    path,
                    format_args!(
                        "certificate {number}: it is not an X.509 certificate ({error:?})"
                    ),
                )
            })?;
            Ok(certificate.to_vec())
        })
        .collect::<Result<_, _>>()?;
    if authorities.is_empty() {
        return Err(invalid(
            path,
            "has no certificate; write PEM with at least one, from -----BEGIN CERTIFICATE----- to \
             -----END CERTIFICATE-----",
        ));
    }
    Ok(authorities.into())
}

fn pem_error(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => format!(
            "it does not end with -----END {}-----",
            String::from_utf8_lossy(end_marker)
        ),
        pem::Error::IllegalSectionStart { line } => {
            format!("{:?} does not begin it", String::from_utf8_lossy(line))
        }
        pem::Error::Base64Decode(_) => {
            "the text between its first and last line is not base64".to_owned()
        }
        other => other.to_string(),
    }
}
