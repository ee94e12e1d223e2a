//! Probes the standard health service of gRPC, over HTTP/2 without TLS.

use std::{
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, Weak},
};

use futures::future::{Either, select};
use hyper::{client::conn::http2, http::Uri, rt::Executor};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    progress::{Progress, Reached},
    tcp,
    trouble::Failed,
    words::Words,
};

/// The maximum size in bytes of the message in an answer. The probe fails if
/// the message of the answer is longer.
const MOST_MESSAGE: usize = 64 << 10;
/// The maximum size in bytes of the headers of an answer. The probe fails if
/// the headers of the answer are longer.
const MOST_HEADERS: u32 = 16 << 10;

/// Asks a server whether a gRPC service is serving. An empty service name means
/// the whole server.
pub(super) async fn probe(
    address: SocketAddr,
    service: &str,
    progress: &Progress,
) -> Result<(), Failed> {
    let stream = tcp::connect(address, progress).await?;
    let tasks = Tasks::default();
    let (sender, connection) = http2::Builder::new(tasks.executor())
        .max_header_list_size(MOST_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let origin = Uri::try_from(format!("http://{address}"))
        .map_err(|error| Failed::answer(error.to_string()))?;
    let channel = tower::service_fn(move |request| sender.clone().send_request(request));
    let mut client =
        HealthClient::with_origin(channel, origin).max_decoding_message_size(MOST_MESSAGE);
    let answer = client.check(HealthCheckRequest {
        service: service.to_owned(),
    });
    let answer = match select(pin!(answer), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // The connection has ended, but hyper may already have read the whole
        // answer.
        Either::Right((_, answer)) => answer.await,
    };
    let answer = answer.map_err(|status| refused(&status))?;
    progress.reached(Reached::Answer);
    match answer.get_ref().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(Failed::answer(format!("gRPC {}", other.as_str_name()))),
    }
}

/// The background tasks in which hyper runs a connection. The tasks end with
/// the probe.
#[derive(Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// An executor that adds hyper's tasks to [`Tasks`].
#[derive(Clone)]
struct Spawn(Weak<Mutex<JoinSet<()>>>);

impl Tasks {
    fn executor(&self) -> Spawn {
        Spawn(Arc::downgrade(&self.0))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawn {
    fn execute(&self, future: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.lock().expect("spawning does not panic").spawn(future);
        }
    }
}

/// Converts a gRPC status to a failure. If the status has a source error, the
/// connection failed.
fn refused(status: &Status) -> Failed {
    if let Some(source) = status.source() {
        return failed(source);
    }
    let code = mnemonic(status.code());
    Failed::Answer(match status.message() {
        "" => format!("gRPC {code}").into(),
        message => Words::quoting(format!("gRPC {code}"), format!("gRPC {code}: {message}")),
    })
}

/// Returns the name of a gRPC status code as in the gRPC specification, such as
/// `NOT_FOUND` for `NotFound`.
fn mnemonic(code: Code) -> String {
    let mut words = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_uppercase());
    }
    words
}

fn failed(error: &(dyn Error + 'static)) -> Failed {
    let mut cause = error;
    loop {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            return Failed::of(cause);
        }
        match cause.source() {
            Some(source) => cause = source,
            // The error may quote a GOAWAY frame, and the server chooses the
            // text of this frame (RFC 9113, section 6.8).
            None => {
                return Failed::Answer(Words::quoting(
                    "the answer is not gRPC",
                    format!("the answer is not gRPC: {cause}"),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests;
