//! Tells programs on this host what the agent sees. The socket `agent.sock` in
//! the state folder answers each connection with one JSON document, and
//! `ipvs-agent status` shows it. Threads of the runtime serve the socket, so it
//! answers even if the loop hangs.

mod text;

use std::{
    fs,
    io::{self, Read},
    os::unix::{fs::PermissionsExt, net},
    path::Path,
    time::Duration,
};

use crds::api::DirectorStatus;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt, net::UnixListener, sync::watch, time};

use super::report::{self, Observed};
use crate::{disk::SOCKET, heartbeat::Heartbeat, reach::Reach};

/// How long a reader of the socket may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after which the agent tries again to create the socket.
const RETRY: Duration = Duration::from_secs(60);

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
}

/// An API server that does not answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Away {
    /// The time of the first failure since the API server's last answer.
    pub since: Time,
    /// The URL of the API server, if the agent has a configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Why the latest request failed.
    pub message: String,
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
    /// Whether the API server answers.
    pub reach: Reach,
}

/// Serves the socket in the state folder until the runtime ends. While the
/// socket cannot be created, tries again.
pub async fn serve(folder: &Path, mut sources: Sources) {
    let path = folder.join(SOCKET);
    let mut is_told = false;
    let listener = loop {
        match listen(&path) {
            Ok(listener) => break listener,
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
    };
    let mut status = sources.first.clone();
    let mut observed_at = None;
    loop {
        tokio::select! {
            biased;
            Ok(()) = sources.observed.changed() => {
                let observed = sources.observed.borrow_and_update();
                if let Some(observed) = &*observed {
                    status = report::status(observed, &status, 0);
                    observed_at = Some(Time(observed.at));
                }
            }
            accepted = listener.accept() => {
                let mut stream = match accepted {
                    Ok((stream, _)) => stream,
                    // Without a free descriptor, for example, the next attempt
                    // would fail at once.
                    Err(error) => {
                        tracing::warn!("cannot answer at {}: {error}", path.display());
                        time::sleep(PATIENCE).await;
                        continue;
                    }
                };
                let answer = Answer {
                    director_name: sources.name.clone(),
                    loop_silent_seconds: sources.heartbeat.age().as_secs(),
                    api_server_away: sources.reach.away().map(|away| Away {
                        since: Time(away.since),
                        url: away.url,
                        message: away.why,
                    }),
                    observed_at: observed_at.clone(),
                    status: status.clone(),
                };
                tokio::spawn(async move {
                    let text = serde_json::to_vec(&answer).unwrap_or_default();
                    // A reader that went away needs no answer.
                    let _ = time::timeout(PATIENCE, stream.write_all(&text)).await;
                });
            }
        }
    }
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
pub fn ask(folder: &Path) -> Result<Answer, String> {
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
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    serde_json::from_str(&text)
        .map_err(|error| format!("the agent's answer is of another version: {error}"))
}

impl Answer {
    /// Returns the answer as text for people.
    pub fn text(&self, now: Timestamp) -> String {
        text::of(self, now)
    }
}

#[cfg(test)]
mod tests;
