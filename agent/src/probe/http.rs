//! Sends a GET request over HTTP/1.1, plain or over TLS. A redirect counts as
//! an answer and is not followed.

use std::{error::Error, io, net::SocketAddr, pin::pin, sync::Arc};

use crds::{BodyRule, HttpProbe, StatusRange};
use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT},
    http::uri::{Authority, PathAndQuery},
};
use hyper_util::rt::TokioIo;
use memchr::memmem::Finder;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    pattern::{self, Pattern},
    progress::{Progress, Reached},
    tcp,
    tls::Tls,
    trouble::Failed,
    worker::Share,
};

/// A probe searches this many bytes, from the start of a body, for a literal
/// text.
const MOST_BODY: usize = 64 << 10;
/// The maximum size in bytes of the headers of an answer. The probe fails if
/// the headers of the answer are longer.
const MOST_HEADERS: usize = 16 << 10;
/// The maximum number of headers in an answer. The probe fails if the answer
/// has more headers.
const MOST_NUMBER: usize = 256;

/// The HTTP requests of one check.
pub(super) struct Http {
    tls: Option<Tls>,
    path: PathAndQuery,
    host: Option<HeaderValue>,
    headers: HeaderMap,
    statuses: Vec<StatusRange>,
    body: Option<Body>,
}

/// The text or pattern that a body must contain.
enum Body {
    Contains(Box<Finder<'static>>),
    Matches(Arc<Pattern>),
}

impl Http {
    /// # Errors
    /// Returns an error, with the reason, if the HTTP request cannot be made.
    pub(super) fn new(probe: &HttpProbe) -> Result<Self, String> {
        let host_name = probe.host.as_deref().map(name_of).transpose()?;
        let tls = probe.tls.as_ref();
        let tls = tls.map(|rule| Tls::new(rule, host_name.as_deref()));
        let mut headers = HeaderMap::new();
        for (name, value) in &probe.headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            headers.append(
                name,
                HeaderValue::try_from(value).map_err(|error| error.to_string())?,
            );
        }
        let defaults = [
            (
                USER_AGENT,
                concat!("ipvs-operator/", env!("CARGO_PKG_VERSION")),
            ),
            (CONNECTION, "close"),
        ];
        for (name, value) in defaults {
            let value = HeaderValue::from_static(value);
            headers.entry(name).or_insert(value);
        }
        let host = probe.host.as_deref().map(HeaderValue::try_from);
        let body = probe.body.as_ref().map(|rule| match rule {
            BodyRule::Contains(text) => {
                let text = Finder::new(text).into_owned();
                Body::Contains(Box::new(text))
            }
            BodyRule::Matches(text) => Body::Matches(Arc::new(Pattern::new(text))),
        });
        Ok(Self {
            tls: tls.transpose()?,
            path: PathAndQuery::try_from(&probe.path).map_err(|error| error.to_string())?,
            host: host.transpose().map_err(|error| error.to_string())?,
            headers,
            statuses: probe.statuses.clone(),
            body,
        })
    }

    /// Sends the request, and judges the answer.
    pub(super) async fn probe(
        &self,
        address: SocketAddr,
        share: Share<'_>,
        progress: &Progress,
    ) -> Result<(), Failed> {
        let stream = tcp::connect(address, progress).await?;
        match &self.tls {
            None => self.ask(stream, address, share, progress).await,
            Some(tls) => {
                let stream = tls.connect(stream, share, progress).await?;
                self.ask(stream, address, share, progress).await
            }
        }
    }

    async fn ask<S>(
        &self,
        stream: S,
        address: SocketAddr,
        share: Share<'_>,
        progress: &Progress,
    ) -> Result<(), Failed>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MOST_HEADERS)
            .max_header_size(MOST_HEADERS)
            .max_headers(MOST_NUMBER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        let request = self.request(address)?;
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| failed(&error))?;
            progress.reached(Reached::Answer);
            self.judge(response, share, progress).await
        };
        match select(pin!(answer), pin!(connection)).await {
            Either::Left((judgement, _)) => judgement,
            // The connection has ended, but hyper may already have read the
            // answer. That answer must still be judged.
            Either::Right((_, answer)) => answer.await,
        }
    }

    fn request(&self, address: SocketAddr) -> Result<Request<Empty<Bytes>>, Failed> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.path.clone().into();
        *request.headers_mut() = self.headers.clone();
        if !self.headers.contains_key(HOST) {
            let host = match &self.host {
                Some(host) => host.clone(),
                None => HeaderValue::try_from(address.to_string())
                    .expect("an address and a port make a valid header"),
            };
            request.headers_mut().insert(HOST, host);
        }
        Ok(request)
    }

    async fn judge(
        &self,
        response: Response<Incoming>,
        share: Share<'_>,
        progress: &Progress,
    ) -> Result<(), Failed> {
        let status = response.status().as_u16();
        let is_good = |statuses: &StatusRange| statuses.range().contains(&status);
        if !self.statuses.iter().any(is_good) {
            let expected: Vec<_> = self.statuses.iter().map(range_in_words).collect();
            let expected = expected.join(", ");
            return Err(Failed::answer(format!(
                "HTTP {status}, expected {expected}"
            )));
        }
        match &self.body {
            Some(body) => body.find(response.into_body(), share, progress).await,
            None => Ok(()),
        }
    }
}

impl Body {
    async fn find(
        &self,
        mut body: Incoming,
        share: Share<'_>,
        progress: &Progress,
    ) -> Result<(), Failed> {
        let most = match self {
            Self::Contains(_) => MOST_BODY,
            Self::Matches(_) => pattern::MOST_TEXT,
        };
        // The bytes of the body in which the text or pattern may still be
        // found.
        let mut kept: Vec<u8> = Vec::new();
        let mut left = most;
        let is_whole = loop {
            let Some(frame) = body.frame().await else {
                break true;
            };
            let Ok(data) = frame.map_err(|error| failed(&error))?.into_data() else {
                continue;
            };
            let data = &data[..data.len().min(left)];
            left -= data.len();
            kept.extend_from_slice(data);
            if let Self::Contains(text) = self {
                if text.find(&kept).is_some() {
                    return Ok(());
                }
                // Thousands of bodies may arrive at once. To save memory, the
                // probe keeps only the last bytes, in which a match may begin.
                let begins = kept
                    .len()
                    .saturating_sub(text.needle().len().saturating_sub(1));
                kept.drain(..begins);
            }
            if left == 0 {
                break false;
            }
        };
        let (is_found, expected) = match self {
            Self::Contains(text) => {
                let needle = String::from_utf8_lossy(text.needle());
                (false, format!("contain {needle:?}"))
            }
            Self::Matches(pattern) => {
                progress.reached(Reached::Worker);
                let is_found = pattern.is_match(share, kept).await?;
                (is_found, format!("match {:?}", pattern.as_str()))
            }
        };
        match (is_found, is_whole) {
            (true, _) => Ok(()),
            (false, true) => Err(Failed::answer(format!("the body does not {expected}"))),
            (false, false) => Err(Failed::answer(format!(
                "the first {most} bytes of the body do not {expected}"
            ))),
        }
    }
}

/// Returns the host name from a Host header, without the port.
fn name_of(host: &str) -> Result<String, String> {
    let authority = Authority::try_from(host).map_err(|error| error.to_string())?;
    let name = authority.host();
    Ok(name.trim_matches(['[', ']']).to_owned())
}

fn range_in_words(statuses: &StatusRange) -> String {
    match (statuses.first, statuses.last) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

fn failed(error: &hyper::Error) -> Failed {
    // hyper has a method that recognizes headers that are too large, but only
    // if hyper's feature `server` is on.
    if error.is_parse() && error.to_string().contains("too large") {
        return Failed::answer(format!(
            "headers longer than {MOST_HEADERS} bytes, or more than {MOST_NUMBER}"
        ));
    }
    if error.is_parse() {
        return Failed::answer(format!("the answer is not HTTP/1: {error}"));
    }
    if error.is_incomplete_message() {
        return Failed::answer("connection closed before the end of the answer");
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            return Failed::of(cause);
        }
        source = cause.source();
    }
    Failed::answer(error.to_string())
}

#[cfg(test)]
mod tests;
