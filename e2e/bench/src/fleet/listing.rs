//! Measures what a listing costs, with the agent's own watches.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use agent::{
    event::Event,
    input::kubernetes::{self, Group},
};
use anyhow::{Result, ensure};
use crds::Change;
use futures::future::join_all;
use kube::Client;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::timeout,
};

use super::table::GROUP;

/// The deadline for all listings together.
const LISTED_WITHIN: Duration = Duration::from_secs(300);

/// Starts the watches of an agent for each client, and waits until all agents
/// have listed all objects. Returns how long that took.
pub(super) async fn list(clients: &[Client]) -> Result<Duration> {
    let start = Instant::now();
    let listed = timeout(LISTED_WITHIN, join_all(clients.iter().map(list_one))).await;
    let are_all = listed.is_ok_and(|all| all.into_iter().all(|listed| listed));
    ensure!(are_all, "agents did not list within {LISTED_WITHIN:?}");
    Ok(start.elapsed())
}

/// Returns whether the agent has listed its objects.
async fn list_one(client: &Client) -> bool {
    let (events, heard) = mpsc::channel();
    let (done, listed) = oneshot::channel();
    // The thread ends when the agent's watches have ended.
    thread::spawn(move || {
        let mut done = Some(done);
        let mut missing = 3;
        for event in heard {
            missing -= i32::from(matches!(
                event,
                Event::VirtualService(Change::Listed)
                    | Event::RealServer(Change::Listed)
                    | Event::DirectorGroup(Change::Listed)
            ));
            if missing == 0 {
                done.take().map(|done| done.send(()));
            }
        }
    });
    let (vanished, directors) = (Notify::new(), watch::Sender::new(0));
    let group = Group {
        name: GROUP,
        me: "lister",
        vanished: &vanished,
        directors: &directors,
    };
    tokio::select! {
        () = kubernetes::watch(client.clone(), group, events) => false,
        listed = listed => listed.is_ok(),
    }
}
