//! Matches regular expressions against answers, on a thread of its own.
//!
//! Matching the longest text with the largest regular expression takes long
//! enough to delay all other probes. The prober's thread therefore does not
//! match texts. A probe passes its text to the matcher's thread, and waits for
//! the result. The namespaces share the matcher's thread fairly. If a probe's
//! timeout ends before its text was matched, only that probe is void.

mod queues;

use std::{
    sync::{Arc, Condvar, Mutex, OnceLock},
    thread,
    time::Instant,
};

use crds::body_pattern;
use regex::bytes::Regex;
use tokio::sync::oneshot;

use self::queues::Queues;
use super::trouble::Failed;

/// The number of bytes at the start of a text that are matched.
pub(super) const MOST_TEXT: usize = 16 << 10;
/// The maximum number of one namespace's texts that wait to be matched.
const MOST_WAITING: usize = 1024;

/// A regular expression. The matcher's thread compiles a regular expression
/// before its first match.
pub(super) struct Pattern {
    text: String,
    compiled: OnceLock<Result<Regex, String>>,
}

/// Matches regular expressions on a thread. The matcher's thread starts with
/// the first match, because most agents have no regular expression.
#[derive(Default)]
pub(super) struct Matcher {
    desk: Arc<Desk>,
    has_thread: Mutex<bool>,
}

/// The state that probes and the matcher's thread share.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    /// Signals the matcher's thread that the shared state has changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queues: Queues<Job>,
    /// Whether the matcher's thread must end.
    is_closed: bool,
}

struct Job {
    pattern: Arc<Pattern>,
    text: Vec<u8>,
    /// The channel for the result: whether the pattern matches, or why the
    /// pattern cannot be used. The channel is closed once the probe's timeout
    /// is over.
    answer: oneshot::Sender<Result<bool, String>>,
}

impl Pattern {
    /// Creates a pattern from the text of a regular expression that `crds` has
    /// checked.
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            compiled: OnceLock::new(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    fn is_match(&self, text: &[u8]) -> Result<bool, String> {
        let compile = || body_pattern(&self.text).map_err(|error| error.to_string());
        match self.compiled.get_or_init(compile) {
            Ok(regex) => Ok(regex.is_match(text)),
            Err(why) => Err(why.clone()),
        }
    }
}

impl Matcher {
    /// Returns whether the pattern matches the text. The duration of the match
    /// is charged to `namespace`.
    pub(super) async fn is_match(
        &self,
        namespace: &Arc<str>,
        pattern: &Arc<Pattern>,
        text: Vec<u8>,
    ) -> Result<bool, Failed> {
        self.start()?;
        let (answer, answered) = oneshot::channel();
        let job = Job {
            pattern: pattern.clone(),
            text,
            answer,
        };
        {
            let mut state = self.desk.state.lock().expect(UNHURT);
            let has_room = state.queues.waiting(namespace) < MOST_WAITING;
            if !has_room {
                return Err(too_slow(namespace));
            }
            state.queues.push(namespace, job);
        }
        self.desk.changed.notify_one();
        // The matcher's thread answers every job whose probe still waits.
        let answer = answered.await.map_err(|_| too_slow(namespace))?;
        answer.map_err(|why| Failed::Own(format!("the check cannot be made: {why}").into()))
    }

    fn start(&self) -> Result<(), Failed> {
        let mut has_thread = self.has_thread.lock().expect(UNHURT);
        if *has_thread {
            return Ok(());
        }
        let desk = self.desk.clone();
        let thread = thread::Builder::new().name("matcher".to_owned());
        thread
            .spawn(move || desk.work())
            .map_err(|error| Failed::Own(format!("no thread to match with: {error}").into()))?;
        *has_thread = true;
        Ok(())
    }
}

impl Drop for Matcher {
    fn drop(&mut self) {
        self.desk.state.lock().expect(UNHURT).is_closed = true;
        self.desk.changed.notify_one();
    }
}

impl Desk {
    /// Runs the matching jobs until the matcher is dropped.
    fn work(&self) {
        let mut state = self.state.lock().expect(UNHURT);
        while !state.is_closed {
            let next = state.queues.pop(|job: &Job| !job.answer.is_closed());
            let Some((namespace, job)) = next else {
                state = self.changed.wait(state).expect(UNHURT);
                continue;
            };
            drop(state);
            let began = Instant::now();
            let answer = job.pattern.is_match(&job.text);
            // The probe may have ended in the meantime.
            let _ = job.answer.send(answer);
            let took = began.elapsed();
            state = self.state.lock().expect(UNHURT);
            state.queues.charge(&namespace, took);
        }
    }
}

/// Returns the failure of a probe whose text was not matched in time.
pub(super) fn too_slow(namespace: &str) -> Failed {
    let words = format!(
        "namespace {namespace} has regular expressions that take too long to match: simplify \
         httpGet.expectedBody.matches, or lengthen periodSeconds and timeoutSeconds"
    );
    Failed::Own(words.into())
}

const UNHURT: &str = "nothing panics while the lock is held";

#[cfg(test)]
mod tests;
