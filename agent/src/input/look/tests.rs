//! Tests of the looks and the watches together, with a model of an API server
//! that counts its requests. The time is tokio's paused time, so the tests do
//! not depend on how fast the machine is.

use std::{sync::mpsc, time::Duration};

use crds::Change;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::*;
use crate::{
    fixtures::api_server::{ApiServer, Mood},
    input::kubernetes::{self, Group},
};

const SECOND: Duration = Duration::from_secs(1);
/// The request for the cluster. Each look makes it once.
const LOOKS: &str = "get kube-system";
const SERVERS: &str = "realservers";
const SERVICES: &str = "ipvsvirtualservices";
const KINDS: [&str; 4] = [SERVICES, SERVERS, "directorgroups", "directorgroupmembers"];

/// The watches of an agent, and what the loop hears from them.
struct Scene {
    server: ApiServer,
    heard: mpsc::Receiver<Event>,
    watches: JoinHandle<()>,
}

impl Scene {
    /// Returns the watches of an agent that has just started, after a while.
    async fn start(server: ApiServer) -> Self {
        let (events, heard) = mpsc::channel();
        let client = server.client();
        let watches = tokio::spawn(async move {
            let (directors, _counted) = watch::channel(0);
            let group = Group {
                name: "default",
                me: "a",
                vanished: &Notify::new(),
                directors: &directors,
            };
            kubernetes::watch(client, group, events).await;
        });
        let scene = Self {
            server,
            heard,
            watches,
        };
        time::sleep(20 * SECOND).await;
        scene
    }

    /// Returns what the loop has heard since the last call: "awaits 1",
    /// "deleted a" or "ended 1", for example.
    fn heard(&self) -> Vec<String> {
        self.heard
            .try_iter()
            .filter_map(|event| told(&event))
            .collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.watches.abort();
    }
}

fn told(event: &Event) -> Option<String> {
    Some(match event {
        Event::RealServer(Change::Apply(server)) => {
            let name = server.metadata.name.as_deref();
            format!("applied {}", name.unwrap_or_default())
        }
        Event::RealServer(Change::Delete(key)) => format!("deleted {}", key.name),
        Event::Caution(Word::Awaited { look, .. }) => format!("awaits {look}"),
        Event::Caution(Word::Ended(look)) => format!("ended {look}"),
        Event::Caution(Word::Cluster(Answer::None(_))) => "no answer".to_owned(),
        Event::Caution(Word::Definition(_, Answer::Is(how))) if *how != Definition::Stands => {
            format!("{how:?}")
        }
        _ => return None,
    })
}

#[tokio::test(start_paused = true)]
async fn the_kinds_share_one_look_and_each_listing_is_followed_by_one() {
    let scene = Scene::start(ApiServer::new()).await;
    let looks = scene.server.count(LOOKS);
    assert!((1..=2).contains(&looks), "three listings, {looks} looks");
    assert_eq!(scene.server.count("get"), 4 * looks);
    let heard = scene.heard();
    let last = heard.iter().rposition(|word| word.starts_with("awaits"));
    let end = heard
        .iter()
        .rposition(|word| *word == format!("ended {looks}"));
    assert!(last < end, "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn additions_go_on_at_once_while_a_look_has_no_answer() {
    let server = ApiServer::new();
    server.create(SERVERS, "old");
    let scene = Scene::start(server).await;
    scene.heard();
    let last = scene.server.count(LOOKS);
    scene.server.set_mood(Mood::IsSilentAboutTheCluster);
    scene.server.delete(SERVERS, "old");
    time::sleep(SECOND).await;
    for name in ["new", "newer"] {
        scene.server.create(SERVERS, name);
        time::sleep(SECOND).await;
    }
    let awaits = format!("awaits {}", last + 1);
    let expected = [&*awaits, "deleted old", "applied new", "applied newer"];
    assert_eq!(scene.heard(), expected, "the look has not ended");

    time::sleep(ANSWER_TIME).await;
    let ended = format!("ended {}", last + 1);
    assert_eq!(scene.heard()[..2], ["no answer".to_owned(), ended]);
    scene.server.set_mood(Mood::Answers);
    time::sleep(120 * SECOND).await;
    assert!(
        scene
            .heard()
            .last()
            .is_some_and(|last| last.starts_with("ended"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_deletions_of_all_kinds_shares_looks() {
    let scene = Scene::start(ApiServer::new()).await;
    let before = scene.server.count(LOOKS);
    for number in 0..1000 {
        let kind = [SERVICES, SERVERS, "directorgroups"][number % 3];
        scene.server.delete(kind, &number.to_string());
        time::sleep(SECOND / 10).await;
    }
    time::sleep(30 * SECOND).await;
    let looks = scene.server.count(LOOKS) - before;
    assert!((9..=18).contains(&looks), "{looks} looks in 100 s");
    let heard = scene.heard();
    let number = |word: &String| {
        word.split(' ')
            .nth(1)
            .and_then(|text| text.parse::<u64>().ok())
    };
    let last = |word: &str| {
        heard
            .iter()
            .rfind(|heard| heard.starts_with(word))
            .and_then(number)
    };
    assert_eq!(
        last("awaits"),
        last("ended"),
        "every deletion was looked at"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deletion_after_quiet_is_looked_at_at_once() {
    let scene = Scene::start(ApiServer::new()).await;
    for _ in 0..3 {
        scene.heard();
        scene.server.delete(SERVERS, "a");
        time::sleep(SECOND / 10).await;
        let heard = scene.heard();
        let [awaits, deleted, ended] = &heard[..] else {
            panic!("{heard:?}");
        };
        assert!(
            awaits.starts_with("awaits") && deleted == "deleted a",
            "{heard:?}"
        );
        assert!(ended.starts_with("ended"), "{heard:?}");
        time::sleep(20 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_api_server_is_asked_ever_more_seldom() {
    let server = ApiServer::new();
    let scene = Scene::start(server).await;
    scene.server.set_mood(Mood::IsAway);
    let before = scene.server.count(LOOKS);
    time::sleep(300 * SECOND).await;
    let looks = scene.server.count(LOOKS) - before;
    assert!((3..=14).contains(&looks), "{looks} looks in 5 minutes");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_is_resumed_and_does_not_list_again() {
    let scene = Scene::start(ApiServer::new()).await;
    for minute in 0..10 {
        scene.server.create(SERVERS, &minute.to_string());
        time::sleep(60 * SECOND).await;
    }
    assert_listed(&scene.server, 1);
    for kind in KINDS {
        let watches = scene.server.count(&format!("watch {kind} "));
        assert!(watches >= 10, "{watches} watches of {kind}");
    }
    let last = scene.server.count(&format!("watch {SERVERS} from 110"));
    assert!(last > 0, "{:?}", scene.server.requests());
}

#[tokio::test(start_paused = true)]
async fn after_the_api_server_was_away_the_watches_resume_and_do_not_list_again() {
    let scene = Scene::start(ApiServer::new()).await;
    scene.server.create(SERVERS, "a");
    time::sleep(SECOND).await;
    scene.server.set_mood(Mood::IsAway);
    time::sleep(60 * SECOND).await;
    scene.server.set_mood(Mood::Answers);
    time::sleep(120 * SECOND).await;
    assert_listed(&scene.server, 1);
    let versions = scene.server.count(&format!("version {SERVERS}"));
    assert!(versions > 1, "the resourceVersion is compared");
    scene.heard();
    scene.server.create(SERVERS, "b");
    time::sleep(SECOND).await;
    assert_eq!(scene.heard(), ["applied b"]);
}

#[tokio::test(start_paused = true)]
async fn another_cluster_or_an_older_state_is_listed_again() {
    for (cluster, version) in [("another", 300), ("", 50)] {
        let scene = Scene::start(ApiServer::new()).await;
        scene.server.set_mood(Mood::IsAway);
        time::sleep(10 * SECOND).await;
        scene.server.restore(cluster, version);
        scene.server.set_mood(Mood::Answers);
        time::sleep(120 * SECOND).await;
        assert_listed(&scene.server, 2);
    }
}

/// Checks how often each kind was listed. The listings ask for the most recent
/// state, so they name no resourceVersion.
#[track_caller]
fn assert_listed(server: &ApiServer, times: usize) {
    for kind in KINDS {
        let lists = server.count(&format!("list {kind} "));
        assert_eq!(lists, times, "listings of {kind}: {:?}", server.requests());
        assert_eq!(server.count(&format!("list {kind} from latest")), lists);
    }
}
