//! The state of the objects, decoded once for the whole fleet.
//!
//! The API server sends every event to every director. The directors' watches
//! of one kind deliver the same events in the same order. So only the first
//! watch that receives an event decodes it. Each director then looks up which
//! digest belongs to the resourceVersion that its own watch has reached.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use anyhow::{Context, Result};
use crds::{
    Digest,
    condition::kind::{PROGRAMMED, READY},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;

/// The kinds that agents watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    VirtualServices,
    RealServers,
    DirectorGroups,
    Members,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [
        Self::VirtualServices,
        Self::RealServers,
        Self::DirectorGroups,
        Self::Members,
    ];
}

/// The objects of all kinds that the directors' digests cover.
#[derive(Debug, Default)]
pub(super) struct World {
    kinds: [Followed; 4],
}

/// The objects of one kind.
#[derive(Debug, Default)]
struct Followed {
    /// The resourceVersion of the newest decoded event.
    decoded: AtomicU64,
    /// The resourceVersion of the newest event that changed the digest.
    changed: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The digest of each object, by uid.
    digests: HashMap<String, Digest>,
    /// The digest of all objects after each change, oldest first.
    history: Vec<(u64, Digest)>,
    /// The published conditions, by the object's name.
    published: HashMap<String, Published>,
    /// The number of objects whose main condition is True.
    good: usize,
    /// The number of changes of each object since [`World::forget_changes`].
    changes: BTreeMap<String, u32>,
    events: u64,
}

/// What an object's status says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published {
    /// Whether the main condition is True for the object's current generation:
    /// Programmed of a VirtualService, Ready of a RealServer.
    pub(super) is_good: bool,
    /// When the main condition last changed to or from True.
    pub(super) since: Instant,
    /// How often the main condition became True.
    pub(super) times: u32,
    /// The number of healthy servers of a VirtualService.
    pub(super) healthy: Option<i32>,
}

/// The parts of a watch event that the fleet bench uses.
#[derive(Deserialize)]
struct Line {
    r#type: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

/// The parts of an object's metadata that a digest covers, and the name.
#[derive(Deserialize)]
pub(super) struct Metadata {
    name: String,
    uid: String,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
    real_servers: Option<Servers>,
}

#[derive(Deserialize)]
struct Servers {
    healthy: i32,
}

impl From<kube::api::ObjectMeta> for Metadata {
    fn from(metadata: kube::api::ObjectMeta) -> Self {
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
        }
    }
}

impl World {
    /// Adds an object before the directors watch.
    pub(super) fn add(&self, kind: Kind, metadata: &Metadata) {
        let mut state = self.state(kind);
        state.apply(0, metadata, false);
    }

    /// Records an event of a watch, and returns whether the event may change the
    /// digest of a director whose watch was at `before`. `line` is the event as
    /// the API server sent it.
    ///
    /// # Errors
    /// Returns an error if the event cannot be decoded.
    pub(super) fn see(&self, kind: Kind, before: u64, version: u64, line: &[u8]) -> Result<bool> {
        let followed = &self.kinds[kind as usize];
        if kind != Kind::Members && version > followed.decoded.load(Relaxed) {
            let mut state = self.state(kind);
            // Another watch may have decoded the event in the meantime.
            if version > followed.decoded.load(Relaxed) {
                let event: Line = serde_json::from_slice(line)
                    .with_context(|| String::from_utf8_lossy(line).into_owned())?;
                if state.see(kind, version, event) {
                    followed.changed.store(version, Relaxed);
                }
                followed.decoded.store(version, Relaxed);
            }
        }
        Ok(before < followed.changed.load(Relaxed))
    }

    /// Returns the digest of all objects of a kind at a resourceVersion.
    pub(super) fn digest(&self, kind: Kind, version: u64) -> Digest {
        let state = self.state(kind);
        let later = state.history.partition_point(|(at, _)| *at <= version);
        let last = later.checked_sub(1).map(|last| state.history[last].1);
        last.unwrap_or_default()
    }

    /// Returns the number of objects whose main condition is True.
    pub(super) fn good(&self, kind: Kind) -> usize {
        self.state(kind).good
    }

    /// Returns what an object's status says, or `None` if no event has shown the
    /// object yet.
    pub(super) fn published(&self, kind: Kind, name: &str) -> Option<Published> {
        self.state(kind).published.get(name).copied()
    }

    /// Returns the number of decoded events of VirtualServices and RealServers.
    pub(super) fn events(&self) -> u64 {
        self.state(Kind::VirtualServices).events + self.state(Kind::RealServers).events
    }

    /// Forgets which objects have changed.
    pub(super) fn forget_changes(&self) {
        for kind in Kind::ALL {
            self.state(kind).changes.clear();
        }
    }

    /// Returns how often each object of a kind has changed since the last
    /// [`World::forget_changes`], by the object's name.
    pub(super) fn changes(&self, kind: Kind) -> BTreeMap<String, u32> {
        self.state(kind).changes.clone()
    }

    fn state(&self, kind: Kind) -> MutexGuard<'_, State> {
        let state = self.kinds[kind as usize].state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Records an event, and returns whether the digest changed.
    fn see(&mut self, kind: Kind, version: u64, event: Line) -> bool {
        let Line { r#type, object } = event;
        let is_gone = r#type == "DELETED";
        self.events += 1;
        *self
            .changes
            .entry(object.metadata.name.clone())
            .or_default() += 1;
        self.publish(kind, &object);
        self.apply(version, &object.metadata, is_gone)
    }

    fn publish(&mut self, kind: Kind, object: &Object) {
        let main = match kind {
            Kind::RealServers => READY,
            _ => PROGRAMMED,
        };
        let conditions = &object.status.conditions;
        let is_good = crds::condition::find(conditions, main).is_some_and(|condition| {
            condition.status == "True"
                && condition.observed_generation == Some(object.metadata.generation)
        });
        let published = self
            .published
            .entry(object.metadata.name.clone())
            .or_insert_with(|| Published {
                is_good: false,
                since: Instant::now(),
                times: 0,
                healthy: None,
            });
        published.healthy = object
            .status
            .real_servers
            .as_ref()
            .map(|servers| servers.healthy);
        if published.is_good == is_good {
            return;
        }
        published.is_good = is_good;
        published.since = Instant::now();
        match is_good {
            true => {
                published.times += 1;
                self.good += 1;
            }
            false => self.good -= 1,
        }
    }

    fn apply(&mut self, version: u64, metadata: &Metadata, is_gone: bool) -> bool {
        let Metadata {
            uid,
            generation,
            labels,
            ..
        } = metadata;
        let after = match is_gone {
            true => Digest::default(),
            false => Digest::of(uid, *generation, labels),
        };
        let before = self.digests.insert(uid.clone(), after).unwrap_or_default();
        if before == after {
            return false;
        }
        let all = self
            .history
            .last()
            .map_or(Digest::default(), |(_, all)| *all);
        let all = all ^ before ^ after;
        match self.history.last_mut() {
            Some((at, last)) if *at == version => *last = all,
            _ => self.history.push((version, all)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(uid: &str, generation: i64, version: u64, programmed: &str) -> Vec<u8> {
        let line = serde_json::json!({
            "type": "MODIFIED",
            "object": {
                "metadata": {
                    "name": uid,
                    "uid": uid,
                    "generation": generation,
                    "resourceVersion": version.to_string(),
                },
                "status": {"conditions": [{
                    "type": "Programmed",
                    "status": programmed,
                    "reason": "Programmed",
                    "message": "",
                    "observedGeneration": generation,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }]},
            },
        });
        line.to_string().into_bytes()
    }

    #[test]
    fn a_director_reports_the_digest_that_its_own_watch_has_reached() {
        let world = World::default();
        let kind = Kind::VirtualServices;
        let none = BTreeMap::new();
        let [old, new] = [1, 2].map(|generation| Digest::of("a", generation, &none));
        assert!(world.see(kind, 0, 5, &line("a", 1, 5, "Unknown")).unwrap());
        assert!(world.see(kind, 5, 9, &line("a", 2, 9, "Unknown")).unwrap());
        assert_eq!(world.digest(kind, 4), Digest::default());
        assert_eq!(world.digest(kind, 5), old);
        assert_eq!(world.digest(kind, 8), old);
        assert_eq!(world.digest(kind, 9), new);
        assert!(
            world.see(kind, 0, 5, b"already decoded").unwrap(),
            "the change is new for a watch that is behind"
        );
    }

    #[test]
    fn a_status_changes_no_digest_and_is_counted_as_published() {
        let world = World::default();
        let kind = Kind::VirtualServices;
        world.see(kind, 0, 5, &line("a", 1, 5, "Unknown")).unwrap();
        assert_eq!(world.good(kind), 0);
        let changed = world.see(kind, 5, 7, &line("a", 1, 7, "True")).unwrap();
        assert!(!changed);
        assert_eq!(world.good(kind), 1);
        let published = world.published(kind, "a").unwrap();
        assert!(published.is_good);
        assert_eq!(published.times, 1);
        assert_eq!(world.changes(kind)["a"], 2);
    }
}
