//! Describes problems with the API server in one line that says what to do.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crds::advice;
use kube::runtime::watcher;
use tracing::warn;

/// How often an unchanged complaint is logged again.
const REPEAT: Duration = Duration::from_secs(60);

/// Describes why a watch failed. Returns `None` if the watch recovers by
/// itself.
pub fn of_watch(plural: &str, error: &watcher::Error) -> Option<String> {
    let what = format!("watch {plural}");
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => of_request(&what, error),
        watcher::Error::WatchError(answer) => advice::api_error(&what, answer),
        watcher::Error::NoResourceVersion => Some(format!(
            "cannot {what}: the API server's answer has no resourceVersion"
        )),
    }
}

/// Describes why a request failed. Returns `None` if a retry alone can solve
/// the problem.
pub fn of_request(what: &str, error: &kube::Error) -> Option<String> {
    match error {
        kube::Error::Api(answer) => advice::api_error(what, answer),
        // This complaint does not name the request. So if many requests fail,
        // the complaint is logged only once.
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => Some(
            format!("the API server cannot be reached: {}", innermost(error)),
        ),
        other => Some(format!("cannot {what}: {}", advice::with_sources(other))),
    }
}

/// Returns the text of an error's innermost source, usually the operating
/// system's message.
fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().replace('\n', " ")
}

/// Remembers the complaints that were logged recently, so that an unchanged
/// complaint is not logged again at once.
#[derive(Clone, Debug, Default)]
pub struct Complaints {
    made: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl Complaints {
    /// Logs `complaint` as a warning, unless the same complaint was logged
    /// recently.
    pub fn warn(&self, complaint: &str) {
        if self.is_news(complaint, Instant::now()) {
            warn!("{complaint}; trying again");
        }
    }

    fn is_news(&self, complaint: &str, now: Instant) -> bool {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|_, at| now.saturating_duration_since(*at) < REPEAT);
        let is_news = !made.contains_key(complaint);
        if is_news {
            made.insert(complaint.to_owned(), now);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answer(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "").with_code(code).boxed())
    }

    #[test]
    fn every_trouble_is_one_line_that_says_what_to_do() {
        for (error, expected) in [
            (
                answer(404, "404 page not found"),
                "install the chart's CRDs",
            ),
            (
                answer(
                    403,
                    "realservers.ipvs.dev is forbidden: User \"x\" cannot list resource \
                     \"realservers\"",
                ),
                "cannot list resource \"realservers\"; the chart's roles allow it",
            ),
            (answer(401, "Unauthorized"), "does not accept the token"),
            (
                kube::Error::Service("connection refused".into()),
                "the API server cannot be reached: connection refused",
            ),
        ] {
            let complaint = of_request("watch realservers", &error).unwrap();
            assert!(complaint.contains(expected), "{complaint}");
            assert!(!complaint.contains('\n'));
        }
        assert_eq!(of_request("watch realservers", &answer(410, "")), None);
    }

    #[test]
    fn the_same_complaint_is_said_once_a_minute() {
        let complaints = Complaints::default();
        let start = Instant::now();
        assert!(complaints.is_news("away", start));
        assert!(!complaints.is_news("away", start + Duration::from_secs(59)));
        assert!(complaints.is_news("other", start + Duration::from_secs(59)));
        assert!(complaints.is_news("away", start + Duration::from_secs(60)));
    }
}
