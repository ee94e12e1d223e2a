//! Repeats requests to the API server until they succeed.

use std::time::Duration;

use crds::advice;
use tokio::time;

use crate::{pauses::Pauses, said::Said};

/// The maximum wait for the API server's answer to a report. Without a limit, a
/// dead connection would block the agent. When all directors of a large fleet
/// report at once, the API server queues their reports, and refuses those that
/// wait for longer than a quarter of its request timeout, 15 s by default
/// (`--request-timeout`). A report that is given up earlier and written again
/// would make the queue longer.
pub(super) const REPORT_TIME: Duration = Duration::from_secs(20);

/// Why a write failed.
pub(super) struct Failure {
    /// A sentence for the log and for the status: what failed, and what to do.
    pub(super) why: String,
    /// Whether the API server answered and refused this write. If so, another
    /// write may succeed at once.
    pub(super) is_refusal: bool,
}

/// Tries a write once, and waits for the answer for at most `limit`. `what` names
/// the write in messages: "report this director's status", for example.
pub(super) async fn once<T>(
    what: &str,
    limit: Duration,
    write: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    let error = match time::timeout(limit, write).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error,
        Err(_) => kube::Error::Service("no answer in time".into()),
    };
    Err(Failure {
        why: explain(what, &error),
        is_refusal: is_refusal(&error),
    })
}

/// Repeats a write until it succeeds, with pauses of at most about
/// twice `longest`.
/// Logs each problem only once.
pub(super) async fn insist<T, F>(what: &str, longest: Duration, mut write: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let mut pauses = Pauses::up_to(longest);
    let mut said = Said::default();
    loop {
        match once(what, REPORT_TIME, write()).await {
            Ok(done) => {
                succeeded(what, &mut said);
                return done;
            }
            Err(failure) => said.warn([failure.why]),
        }
        time::sleep(pauses.next()).await;
    }
}

/// Logs that a write succeeded, if an earlier attempt failed.
pub(super) fn succeeded(what: &str, said: &mut Said) {
    if said.clear() {
        tracing::info!("{what}: succeeded");
    }
}

/// Whether the API server answered, and will refuse the same write again: the
/// custom resource definition is older than the agent, for example, or the
/// object is too large, or a webhook denies it. An API server that is
/// overloaded or shuts down does not refuse anything.
fn is_refusal(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => !matches!(status.code, 0 | 401 | 429 | 502..=504),
        _ => false,
    }
}

fn explain(what: &str, error: &kube::Error) -> String {
    let why = match error {
        kube::Error::Api(status) => advice::api_error(what, status),
        error => Some(format!("cannot {what}: {}", advice::with_sources(error))),
    };
    let why = why.unwrap_or_else(|| format!("cannot {what}: {error}"));
    format!("{why}. Trying again; packets keep flowing meanwhile")
}
