//! Whether the API server answers this agent. The agent renews its Lease every
//! few seconds, so an API server that is away is noticed without an extra
//! request.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use crds::advice;
use hyper::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tower::{BoxError, util::MapResultLayer};

/// What the agent knows about its way to the API server. All clones of a `Reach`
/// share it.
#[derive(Clone, Debug, Default)]
pub struct Reach(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The URL of the API server, if the agent has a configuration.
    url: Option<String>,
    /// The first failure since the last answer, with the words of the latest
    /// failure.
    away: Option<Away>,
}

/// An API server that does not answer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Away {
    /// The time of the first failure since the API server's last answer.
    pub since: Timestamp,
    /// The URL of the API server, if the agent has a configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Why the latest request failed.
    pub message: String,
}

/// The result of a request to the API server.
type Answered<B> = Result<Response<B>, BoxError>;

impl Reach {
    /// Returns the API server's absence, or `None` if the API server answered
    /// the latest request, or if the agent uses no API server.
    pub fn away(&self) -> Option<Away> {
        self.known().away.clone()
    }

    /// Records the URL at which the agent reaches the API server.
    pub(crate) fn is_at(&self, url: String) {
        self.known().url = Some(url);
    }

    /// Records that the API server could not be asked.
    pub(crate) fn failed(&self, why: String) {
        let mut known = self.known();
        let before = known.away.take();
        known.away = Some(Away {
            since: before.map_or_else(Timestamp::now, |before| before.since),
            url: known.url.clone(),
            message: why,
        });
    }

    /// Returns a layer for a client of the API server. The layer records
    /// whether each request gets an answer, and passes on the result.
    pub(crate) fn layer<B>(
        &self,
    ) -> MapResultLayer<impl Fn(Answered<B>) -> Answered<B> + Clone + use<B>> {
        let this = self.clone();
        MapResultLayer::new(move |result: Answered<B>| {
            match &result {
                // These answers are a proxy's, whose API server is away.
                Ok(answer) if matches!(answer.status().as_u16(), 502..=504) => {
                    this.failed(format!("the answer is {}", answer.status()));
                }
                Ok(_) => this.known().away = None,
                Err(error) => {
                    let error: &(dyn Error + 'static) = error.as_ref();
                    this.failed(advice::with_sources(error));
                }
            }
            result
        })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // No panic can leave the value half-written, so a poisoned lock can
        // still be used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;

    /// Sends a request that gets an answer with a status, or fails with words.
    async fn ask(reach: &Reach, result: Result<u16, &'static str>) {
        let server = service_fn(move |()| async move {
            let mut answer = Response::new(());
            *answer.status_mut() = StatusCode::from_u16(result?).expect("a status");
            Ok::<_, BoxError>(answer)
        });
        let client = reach.layer().layer(server);
        assert_eq!(client.oneshot(()).await.is_ok(), result.is_ok());
    }

    #[tokio::test]
    async fn an_api_server_is_away_from_its_first_failure_to_its_next_answer() {
        let reach = Reach::default();
        reach.is_at("https://192.0.2.1/".to_owned());
        assert_eq!(reach.away(), None, "nothing was asked");
        ask(&reach, Err("connection refused")).await;
        let first = reach.away().expect("it is away");
        assert_eq!(first.message, "connection refused");
        assert_eq!(first.url.as_deref(), Some("https://192.0.2.1/"));
        ask(&reach, Ok(503)).await;
        let second = reach.away().expect("a proxy's answer is none");
        assert!(second.message.contains("503"), "{second:?}");
        assert_eq!(second.since, first.since);
        for status in [200, 403, 500] {
            ask(&reach, Ok(status)).await;
            assert_eq!(reach.away(), None, "it answered {status}");
            ask(&reach, Err("again")).await;
        }
    }
}
