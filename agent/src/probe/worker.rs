//! Does the slow work of probes on a thread of its own: it matches regular
//! expressions and verifies chains of certificates.
//!
//! Matching the longest text with the largest regular expression, or verifying
//! the worst chain of certificates, takes long enough to delay all other
//! probes. A probe therefore passes such work to the worker's thread, and waits
//! for the result. The namespaces share the worker's thread fairly. If a
//! probe's timeout ends before its work was done, only that probe is void.

mod queues;

use std::{
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Instant,
};

use tokio::sync::oneshot;

use self::queues::Queues;
use super::trouble::Failed;

/// The maximum number of one namespace's jobs that wait for the worker.
const MOST_WAITING: usize = 1024;

/// Does jobs on a thread. The thread starts with the first job, because most
/// agents have no slow work.
#[derive(Default)]
pub(super) struct Worker {
    desk: Arc<Desk>,
    has_thread: Mutex<bool>,
}

/// The worker, and the namespace whose share of the worker's time a probe uses.
#[derive(Clone, Copy)]
pub(super) struct Share<'a> {
    pub(super) worker: &'a Worker,
    pub(super) namespace: &'a Arc<str>,
}

/// The state that probes and the worker's thread share.
#[derive(Default)]
struct Desk {
    state: Mutex<State>,
    /// Signals the worker's thread that the shared state has changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queues: Queues<Box<dyn Job>>,
    /// Whether the worker's thread must end.
    is_closed: bool,
}

/// A job for the worker's thread.
trait Job: Send {
    /// Whether a probe still waits for the result.
    fn is_wanted(&self) -> bool;

    /// Does the job, and passes the result to the probe.
    fn work(self: Box<Self>);
}

/// A job, with the channel for its result. The channel is closed once the
/// probe's timeout is over.
struct Work<T, F> {
    job: F,
    answer: oneshot::Sender<Result<T, Failed>>,
}

impl<T: Send, F: FnOnce() -> Result<T, Failed> + Send> Job for Work<T, F> {
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn work(self: Box<Self>) {
        let answer = (self.job)();
        // The probe may have ended in the meantime.
        let _ = self.answer.send(answer);
    }
}

impl Share<'_> {
    /// Does a job on the worker's thread. The duration of the job is charged to
    /// the namespace.
    ///
    /// # Errors
    /// Returns the failure that the job returned, or a failure of this host if
    /// the job cannot be done now.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        let Self { worker, namespace } = self;
        worker.start()?;
        let (answer, answered) = oneshot::channel();
        let job = Box::new(Work { job, answer });
        {
            let mut state = worker.desk.state.lock().expect(UNHURT);
            let has_room = state.queues.waiting(namespace) < MOST_WAITING;
            if !has_room {
                return Err(too_slow(namespace));
            }
            state.queues.push(namespace, job);
        }
        worker.desk.changed.notify_one();
        // The worker's thread answers every job whose probe still waits.
        answered.await.map_err(|_| too_slow(namespace))?
    }
}

/// Returns the failure of a probe whose work was not done in time.
pub(super) fn too_slow(namespace: &str) -> Failed {
    let words = format!(
        "this host had no time for the regular expressions and certificates of namespace \
         {namespace}: simplify httpGet.expectedBody.matches, let the servers send shorter chains \
         of certificates, or lengthen periodSeconds and timeoutSeconds"
    );
    Failed::Own(words.into())
}

impl Worker {
    fn start(&self) -> Result<(), Failed> {
        let mut has_thread = self.has_thread.lock().expect(UNHURT);
        if *has_thread {
            return Ok(());
        }
        let desk = self.desk.clone();
        let thread = thread::Builder::new().name("worker".to_owned());
        thread
            .spawn(move || desk.work())
            .map_err(|error| Failed::Own(format!("no thread for slow work: {error}").into()))?;
        *has_thread = true;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.desk.state.lock().expect(UNHURT).is_closed = true;
        self.desk.changed.notify_one();
    }
}

impl Desk {
    /// Does jobs until the worker is dropped.
    fn work(&self) {
        let mut state = self.state.lock().expect(UNHURT);
        while !state.is_closed {
            let next = state.queues.pop(|job| job.is_wanted());
            let Some((namespace, job)) = next else {
                state = self.changed.wait(state).expect(UNHURT);
                continue;
            };
            drop(state);
            let began = Instant::now();
            job.work();
            let took = began.elapsed();
            state = self.state.lock().expect(UNHURT);
            state.queues.charge(&namespace, took);
        }
    }
}

const UNHURT: &str = "nothing panics while the lock is held";

#[cfg(test)]
mod tests;
