//! Matches regular expressions against answers, on a thread of its own.
//!
//! A match with the largest program and the longest text takes long enough to
//! delay all other probes. So the prober's thread never matches: a probe hands
//! its text to this thread and waits. The thread is shared fairly by
//! namespace. If a probe's time is over before its text was matched, that probe
//! is void, and no other.

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

/// The most bytes of a text that are matched.
pub(super) const MOST_TEXT: usize = 16 << 10;
/// The most texts of one namespace that wait to be matched. Their bytes are
/// held in memory.
const MOST_WAITING: usize = 1024;

/// A regular expression. The matcher's thread compiles it before its first
/// match.
pub(super) struct Pattern {
    text: String,
    compiled: OnceLock<Result<Regex, String>>,
}

/// Matches regular expressions. The thread starts with the first match, because
/// most agents have no regular expression.
#[derive(Default)]
pub(super) struct Matcher {
    desk: Arc<Desk>,
    has_thread: Mutex<bool>,
}

/// Where probes and the matcher's thread meet.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    /// Signals the thread that the state has changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queues: Queues<Job>,
    /// Whether the thread must end.
    is_closed: bool,
}

struct Job {
    pattern: Arc<Pattern>,
    text: Vec<u8>,
    /// Whether the pattern matches; the reason if it cannot be used. Nobody
    /// waits for the answer any more once the probe's time is over.
    answer: oneshot::Sender<Result<bool, String>>,
}

impl Pattern {
    /// Makes a pattern from a text that `crds` has checked.
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
    /// Returns whether the pattern matches the text. The thread's time is
    /// counted for this namespace.
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
        // The thread answers every job whose probe still waits.
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
    /// Does the jobs until the matcher is dropped.
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
            // The probe may have given up meanwhile.
            let _ = job.answer.send(answer);
            let took = began.elapsed();
            state = self.state.lock().expect(UNHURT);
            state.queues.charge(&namespace, took);
        }
    }
}

/// The result of a probe whose text was not matched in time.
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
