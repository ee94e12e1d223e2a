//! The API server's time of day, from the Date header of its answers. Before
//! the agent acts on a time that a person wrote into a spec, it compares its
//! own clock with the API server's time ([`crate::decide::permission`]). The
//! comparison needs no extra request: the agent renews its Lease every few
//! seconds, and each answer has a Date header.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use hyper::{HeaderMap, Response, header::DATE};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use tower::util::MapResponseLayer;

use crate::decide::permission::{ApiServerTime, Daytime};

/// The API server's time of day, from its latest answer. All clones of an
/// `ApiTime` share the latest answer.
#[derive(Clone, Debug, Default)]
pub struct ApiTime(Arc<Mutex<Option<Heard>>>);

/// The Date header of an answer, and the time at which the answer arrived.
#[derive(Clone, Copy, Debug)]
struct Heard {
    date: Timestamp,
    at: Instant,
}

impl ApiTime {
    /// Returns a layer for a client of the API server. The layer records the
    /// Date header of each answer, and passes on the answer.
    pub fn layer<B>(
        &self,
    ) -> MapResponseLayer<impl Fn(Response<B>) -> Response<B> + Clone + use<B>> {
        let this = self.clone();
        MapResponseLayer::new(move |answer: Response<B>| {
            this.hear(answer.headers(), Instant::now());
            answer
        })
    }

    /// Returns this host's time of day, and the API server's time of day if an
    /// answer contained a time. A monotonic clock measures the age of the API
    /// server's answer. So if this host's clock jumps, the two times differ at
    /// once.
    pub fn daytime(&self) -> Daytime {
        Daytime {
            here: Timestamp::now(),
            api_server: self.at(Instant::now()),
        }
    }

    fn hear(&self, headers: &HeaderMap, at: Instant) {
        let date = headers.get(DATE).map(|date| date.as_bytes());
        // An answer without a readable Date header is ignored.
        let date = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
        if let Some(date) = date {
            *self.heard() = Some(Heard { date, at });
        }
    }

    fn at(&self, now: Instant) -> ApiServerTime {
        let heard = *self.heard();
        let time = heard.and_then(|Heard { date, at }| {
            let since = now.saturating_duration_since(at);
            date.checked_add(since).ok()
        });
        time.map_or(ApiServerTime::Unknown, ApiServerTime::Is)
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Option<Heard>> {
        // No panic can leave the value half-written, so a poisoned lock can
        // still be used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use tower::{Layer, ServiceExt, service_fn};

    use super::*;

    /// The example date of RFC 9110, section 5.6.7, as text and in seconds
    /// since 1970.
    const EXAMPLE: (&str, i64) = ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777);

    fn headers(date: &str) -> HeaderMap {
        HeaderMap::from_iter([(DATE, date.parse().expect("a header"))])
    }

    fn is(second: i64) -> ApiServerTime {
        ApiServerTime::Is(Timestamp::from_second(second).expect("a time"))
    }

    #[tokio::test]
    async fn the_date_of_an_answer_is_the_api_servers_time_when_it_came() {
        let time = ApiTime::default();
        assert_eq!(time.daytime().api_server, ApiServerTime::Unknown);
        let server = service_fn(|date: &'static str| async move {
            let mut answer = Response::new("body");
            *answer.headers_mut() = headers(date);
            Ok::<_, Infallible>(answer)
        });
        let client = time.layer().layer(server);
        let answer = client.oneshot(EXAMPLE.0).await.expect("it cannot fail");
        assert_eq!(*answer.body(), "body", "the answer is passed on");
        let heard = time.heard().expect("the header was read");
        assert_eq!(time.at(heard.at), is(EXAMPLE.1));
    }

    #[test]
    fn the_api_servers_time_goes_on_between_answers_and_the_latest_counts() {
        let (time, start) = (ApiTime::default(), Instant::now());
        time.hear(&headers(EXAMPLE.0), start);
        let minute = Duration::from_secs(60);
        assert_eq!(time.at(start + minute), is(EXAMPLE.1 + 60));
        time.hear(&headers("Sun, 06 Nov 1994 09:49:37 GMT"), start + minute);
        assert_eq!(time.at(start + minute), is(EXAMPLE.1 + 3600));
        for nothing in [HeaderMap::new(), headers("yesterday")] {
            time.hear(&nothing, start + minute);
            assert_eq!(time.at(start + minute), is(EXAMPLE.1 + 3600));
        }
    }
}
