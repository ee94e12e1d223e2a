//! Tells programs on this host what the agent sees. The socket `agent.sock` in
//! the state folder answers a question, which is one line, with one JSON
//! document. `ipvs-agent status` and `ipvs-agent table` show it. Threads of the
//! runtime serve the socket, so it answers even if the loop hangs.

pub mod table;
mod text;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{fs::PermissionsExt, net},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::{
    api::{DirectorStatus, DrainingServer},
    condition,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
    time,
};

use super::report::{self, Observed};
use crate::{
    disk::SOCKET,
    heartbeat::Heartbeat,
    reach::{Away, Reach},
    trail::book::Book,
};

/// How long a reader of the socket may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after which the agent tries again to create the socket.
const RETRY: Duration = Duration::from_secs(60);
/// The pause after which the agent logs again what is still wrong.
const REMINDER: Duration = Duration::from_secs(10 * 60);

/// What the agent sees, as the socket tells it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The name of the director.
    pub director_name: String,
    /// The number of seconds since the loop last showed that it works.
    pub loop_silent_seconds: u64,
    /// Since when the API server does not answer, or `None` if it answers or if
    /// the agent uses none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server_away: Option<Away>,
    /// The time of the loop's findings, or `None` before the first ones.
    pub observed_at: Option<Time>,
    /// The Director's status, as the agent would report it now. Only the
    /// controller adds the conditions Alive, Reporting and Ready.
    pub status: DirectorStatus,
    /// The servers that are drained, with the last known number of their
    /// connections. The status counts less often.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drains: Vec<DrainingServer>,
    /// What the agent knows of the IPVS table, if the question asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<table::Known>,
}

/// The sources of the answers.
pub struct Sources {
    /// The name of the director.
    pub name: String,
    /// The status before the first findings: the group and the versions.
    pub first: DirectorStatus,
    /// The loop's latest findings.
    pub observed: watch::Receiver<Option<Observed>>,
    /// The heartbeat of the loop.
    pub heartbeat: Heartbeat,
    /// What the audit trail knows.
    pub book: Arc<Mutex<Book>>,
    /// Whether the API server answers.
    pub reach: Reach,
}

/// A question to the agent. It is the first line that a program writes to the
/// socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// What the agent sees.
    Status,
    /// What the agent sees, and what it knows of the IPVS table.
    Table,
}

impl Question {
    fn line(self) -> &'static str {
        match self {
            Self::Status => "status\n",
            Self::Table => "table\n",
        }
    }
}

/// The answers that the connections share.
struct Shared {
    sources: Sources,
    seen: Mutex<Seen>,
}

/// The status as of the loop's latest findings.
#[derive(Clone)]
struct Seen {
    status: DirectorStatus,
    observed: Option<Arc<Observed>>,
}

/// Serves the socket in the state folder until the runtime ends. While the
/// socket cannot be created, tries again.
pub async fn serve(folder: &Path, sources: Sources) {
    let path = folder.join(SOCKET);
    let listener = listen_at_last(&path).await;
    let mut observed = sources.observed.clone();
    let shared = Arc::new(Shared {
        seen: Mutex::new(Seen {
            status: sources.first.clone(),
            observed: None,
        }),
        sources,
    });
    let mut reminder = time::interval(REMINDER);
    reminder.reset();
    loop {
        tokio::select! {
            biased;
            Ok(()) = observed.changed() => {
                let found = observed.borrow_and_update().clone();
                if let Some(found) = found {
                    shared.see(found);
                }
            }
            _ = reminder.tick() => remind(&shared.seen().status),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    // A program that is too slow gets no answer.
                    tokio::spawn(time::timeout(PATIENCE, answer(stream, shared)));
                }
                // Without a free descriptor, for example, the next attempt
                // would fail at once.
                Err(error) => {
                    tracing::warn!("cannot answer at {}: {error}", path.display());
                    time::sleep(PATIENCE).await;
                }
            }
        }
    }
}

/// Creates the socket, sooner or later.
async fn listen_at_last(path: &Path) -> UnixListener {
    let mut is_told = false;
    loop {
        match listen(path) {
            Ok(listener) => return listener,
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(
                    "cannot create {}, so `ipvs-agent status` does not work: {error}",
                    path.display()
                );
            }
            Err(_) => {}
        }
        time::sleep(RETRY).await;
    }
}

/// Logs again what is still wrong.
fn remind(status: &DirectorStatus) {
    for kind in condition::WRITTEN_BY_AGENTS {
        let found = condition::find(&status.conditions, kind);
        if let Some(found) = found.filter(|found| condition::needs_attention(found)) {
            tracing::warn!(
                condition = found.type_,
                reason = found.reason,
                "still: {}",
                found.message
            );
        }
    }
}

async fn answer(stream: UnixStream, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    let mut question = String::new();
    // A program that goes away needs no answer.
    if stream.read_line(&mut question).await.is_err() {
        return;
    }
    let is_table = question == Question::Table.line();
    let text = tokio::task::spawn_blocking(move || {
        let answer = shared.answer(is_table);
        serde_json::to_vec(&answer).unwrap_or_default()
    });
    let text = text.await.unwrap_or_default();
    let _ = stream.write_all(&text).await;
}

impl Shared {
    fn seen(&self) -> Seen {
        locked(&self.seen).clone()
    }

    fn see(&self, found: Observed) {
        let mut seen = locked(&self.seen);
        seen.status = report::status(&found, &seen.status, 0);
        seen.observed = Some(Arc::new(found));
    }

    fn answer(&self, with_table: bool) -> Answer {
        let Seen { status, observed } = self.seen();
        let known = with_table.then(|| {
            let exceptions = status.exceptions.clone();
            table::known(&locked(&self.sources.book), observed.as_deref(), exceptions)
        });
        Answer {
            director_name: self.sources.name.clone(),
            loop_silent_seconds: self.sources.heartbeat.age().as_secs(),
            api_server_away: self.sources.reach.away(),
            observed_at: observed.as_ref().map(|observed| Time(observed.at)),
            drains: observed.map_or_else(Vec::new, |observed| observed.drains.exact()),
            status,
            table: known,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates the socket, which only its owner may use. A socket of an earlier run
/// is replaced: the agent's lock shows that no other agent runs.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let new = path.with_extension("sock.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    // Replaces the socket of an earlier run.
    fs::rename(&new, path)?;
    Ok(listener)
}

/// Asks the agent that runs with a state folder.
///
/// # Errors
/// Returns an error in words for people if no agent answers.
pub fn ask(folder: &Path, question: Question) -> Result<Answer, String> {
    let path = folder.join(SOCKET);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "no agent runs with the state folder {}. The kernel's table and the addresses stay as \
             they are: see `ipvsadm -Ln` and `ip address`",
            folder.display()
        ),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!(
            "the agent did not answer in {PATIENCE:?}: its process is stopped, or its machine is \
             very busy. The kernel's table and the addresses stay as they are"
        ),
        _ => format!("cannot ask the agent at {}: {error}", path.display()),
    };
    let mut stream = net::UnixStream::connect(&path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream
        .write_all(question.line().as_bytes())
        .map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    serde_json::from_str(&text)
        .map_err(|error| format!("the agent's answer is of another version: {error}"))
}

impl Answer {
    /// Returns the first lines of a text for people: whose the answer is, and how
    /// old.
    pub fn heading(&self, now: Timestamp) -> String {
        text::heading(self, now)
    }

    /// Returns the answer as text for people. Lists are cut unless `is_wide` is
    /// true.
    pub fn text(&self, now: Timestamp, is_wide: bool) -> String {
        text::of(self, now, is_wide)
    }
}

#[cfg(test)]
mod tests;
