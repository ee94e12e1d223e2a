//! Answers a kubelet's probes: whether the agent works, and whether its table is
//! in force. `ipvs-agent probe` asks the socket of `--health-socket`, which only
//! the processes of one pod see: another agent on the host has another one. A
//! task of the runtime answers from the start of the process, also while it
//! waits for the lock or for a disk.

use std::{
    fs,
    io::{self, Read},
    os::unix::net,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    time,
};

use crate::heartbeat::Heartbeat;

/// How long the loop may be silent before a restart of the agent is due. A
/// round may wait for a disk or for the kernel's mutex.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// How long the other side of the socket may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question of a kubelet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Question {
    /// Whether the agent's loop works. The API server does not matter.
    Alive,
    /// Whether a table is in force in the kernel: that of the previous run, or
    /// that of the first plan.
    Ready,
}

/// What the threads of the agent show of their work. All clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    heart: Arc<OnceLock<Heartbeat>>,
    is_in_force: Arc<AtomicBool>,
}

impl Pulse {
    /// Tells the heartbeat of the loop, which is about to start.
    pub fn starts(&self, heart: Heartbeat) {
        // The loop starts once.
        let _ = self.heart.set(heart);
    }

    /// Tells that a round has brought its table into force.
    pub fn in_force(&self) {
        self.is_in_force.store(true, Ordering::Relaxed);
    }

    fn answer(&self) -> Answer {
        let silent = self.heart.get().map(Heartbeat::age);
        Answer {
            loop_silent_seconds: silent.unwrap_or_default().as_secs(),
            is_in_force: self.is_in_force.load(Ordering::Relaxed),
        }
    }
}

/// The answer to each connection, as one JSON document.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// 0 if the loop has not started yet.
    loop_silent_seconds: u64,
    is_in_force: bool,
}

impl Answer {
    fn judge(self, question: Question) -> Result<(), String> {
        let silent = self.loop_silent_seconds;
        match question {
            Question::Alive if silent >= LONGEST_SILENCE.as_secs() => Err(format!(
                "the agent's loop has not worked for {silent} s: a disk or the kernel does not answer"
            )),
            Question::Ready if !self.is_in_force => Err(
                "no table is in force yet: the agent has not carried out its first plan. Its log says what it waits for"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

/// Serves the socket until the runtime ends.
///
/// # Errors
/// Returns an error if the socket cannot be created.
pub fn serve(path: &Path, pulse: Pulse) -> io::Result<impl Future<Output = ()> + use<>> {
    // A container that starts again finds the socket of the one before.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    Ok(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let answer = answer(stream, pulse.answer());
                    tokio::spawn(time::timeout(PATIENCE, answer));
                }
                // Without a free descriptor, for example, the next attempt
                // would fail at once.
                Err(_) => time::sleep(Duration::from_secs(1)).await,
            }
        }
    })
}

async fn answer(mut stream: UnixStream, answer: Answer) {
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    // A program that goes away needs no answer.
    let _ = stream.write_all(&text).await;
}

/// Asks the agent whose socket is at `path`.
///
/// # Errors
/// Returns an error in words for people if the answer is no, or if there is no
/// answer.
pub fn ask(path: &Path, question: Question) -> Result<(), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("the agent did not answer in {PATIENCE:?}")
        }
        _ => format!("cannot ask the agent at {}: {error}", path.display()),
    };
    let mut stream = net::UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|error| format!("cannot read the agent's answer {text:?}: {error}"))?;
    answer.judge(question)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(pulse: &Pulse) -> (tempfile::TempDir, tokio::runtime::Runtime) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let pulse = pulse.clone();
        let path = folder.path().join("health.sock");
        // A container that was killed leaves its socket behind.
        drop(net::UnixListener::bind(&path).unwrap());
        runtime.block_on(async {
            let task = serve(&path, pulse).expect("the old socket is replaced");
            tokio::spawn(task);
        });
        (folder, runtime)
    }

    #[test]
    fn an_agent_is_alive_from_its_start_and_ready_once_a_table_is_in_force() {
        let pulse = Pulse::default();
        let (folder, _runtime) = served(&pulse);
        let path = folder.path().join("health.sock");
        assert_eq!(ask(&path, Question::Alive), Ok(()), "it waits for the lock");
        let refused = ask(&path, Question::Ready).expect_err("no plan was carried out");
        assert!(refused.contains("no table is in force"), "{refused}");
        pulse.starts(Heartbeat::default());
        pulse.in_force();
        assert_eq!(ask(&path, Question::Ready), Ok(()));
        assert_eq!(ask(&path, Question::Alive), Ok(()));
    }

    #[test]
    fn an_agent_whose_loop_is_silent_for_a_minute_is_not_alive() {
        let pulse = Pulse::default();
        let (folder, _runtime) = served(&pulse);
        let path = folder.path().join("health.sock");
        pulse.starts(Heartbeat::aged(Duration::from_secs(30)));
        assert_eq!(ask(&path, Question::Alive), Ok(()));
        let pulse = Pulse::default();
        let (folder, _runtime) = served(&pulse);
        let path = folder.path().join("health.sock");
        pulse.starts(Heartbeat::aged(Duration::from_secs(60)));
        let refused = ask(&path, Question::Alive).expect_err("the loop hangs");
        assert!(refused.contains("has not worked for 60 s"), "{refused}");
    }

    #[test]
    fn a_process_that_is_stopped_is_not_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("health.sock");
        let _silent = net::UnixListener::bind(&path).unwrap();
        let refused = ask(&path, Question::Alive).expect_err("nobody answers");
        assert_eq!(refused, "the agent did not answer in 5s");
        let refused = ask(&folder.path().join("other.sock"), Question::Alive);
        let refused = refused.expect_err("there is no agent");
        assert!(refused.starts_with("cannot ask the agent at"), "{refused}");
    }
}
