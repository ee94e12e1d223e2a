//! All objects that the controller has seen, and the statuses that follow from
//! these objects.

mod pass;
mod resolve;
mod take;

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    Kind, ObjectKey, Objects, Resolved,
    api::DirectorStatus,
    check::{CheckedGroup, CheckedServer, CheckedService},
    condition,
};
use kube::{ResourceExt, runtime::watcher};

use crate::{
    event::{Event, ObservedDirector},
    history::{History, Places},
    kubernetes_event::AgentFlip,
    liveness::{Life, Liveness, Time},
    need::Need,
    renewals::{Place, Renewals},
    status::{Id, Status, Subject},
    waits::Waits,
};

use pass::Stale;

/// Everything that the controller knows. Callers pass in events and times, and
/// get the wanted statuses.
#[derive(Debug, Default)]
pub struct World {
    objects: Objects,
    resolved: Resolved,
    history: History,
    needs: BTreeMap<ObjectKey, Need>,
    /// The number of accepted services of each group.
    accepted: BTreeMap<String, i32>,
    directors: BTreeMap<String, KnownDirector>,
    renewals: Renewals,
    liveness: Liveness,
    /// The published statuses, as the watches show them.
    published: BTreeMap<Id, Status>,
    /// Objects that changed since the last [`World::resolve`].
    touched: BTreeSet<(Kind, ObjectKey)>,
    /// Kinds that were listed again since the last [`World::resolve`]. Any
    /// object of these kinds may have changed.
    relisted: BTreeSet<Kind>,
    unresolved: bool,
    listing: Listing,
    stale: Stale,
    /// Whether the history has grown since the last pass.
    has_new_states: bool,
    waits: Waits,
    /// The changed conditions that the next [`World::agent_flips`] returns.
    agent_flips: Vec<AgentFlip>,
}

#[derive(Debug)]
struct KnownDirector {
    uid: String,
    generation: i64,
    status: DirectorStatus,
    unreadable: Vec<String>,
    places: Places,
    /// Whether the director was alive at the last call of
    /// [`World::time_passed`].
    life: Life,
    /// Why the API server refused the director's report at that call, if it
    /// did.
    refused: Option<String>,
}

/// The progress of the listing of Directors. [`Renewals`] follows the listings
/// of Leases, and a [`crds::Store`] those of each other kind.
#[derive(Debug, Default)]
struct Listing {
    directors: BTreeSet<String>,
    directors_listed: bool,
}

impl World {
    /// Whether every watch has completed a listing. While this is false, no
    /// status may be published.
    pub fn is_listed(&self) -> bool {
        self.objects.is_listed() && self.listing.directors_listed && self.renewals.is_listed()
    }

    /// All objects, as the watches have shown them.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The result of the last [`World::resolve`].
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// Records a status that was just written, before the watch shows it.
    pub fn wrote(&mut self, id: &Id, status: Status) {
        if let Some(published) = self.published.get_mut(id) {
            *published = status;
            self.stale.add(id.clone());
        }
    }

    /// Lets the next pass look at an object again, because its status could not
    /// be written.
    pub fn not_written(&mut self, id: &Id) {
        self.stale.add(id.clone());
    }

    /// Notes that this process begins or ceases to publish. The next pass looks
    /// at all objects, and finds out anew since when objects wait.
    pub fn lead_changed(&mut self) {
        self.stale.add_all();
        self.waits = Waits::default();
    }

    /// Returns the changes of the condition ProbesWorking since the last call.
    pub fn agent_flips(&mut self) -> Vec<AgentFlip> {
        std::mem::take(&mut self.agent_flips)
    }

    /// The earliest time at which [`World::time_passed`] may return true without
    /// any event: a Lease expires, or an object has waited too long.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        let lease = self.liveness.next_deadline(now);
        let wait = self.waits.next_deadline();
        lease.into_iter().chain(wait).min()
    }

    /// Whether a new pass is necessary because of what happened since the last
    /// call: a director died or came back, the API server began or ceased to
    /// refuse a director's report, or an object has waited too long.
    pub fn time_passed(&mut self, now: Time) -> bool {
        let late = self.waits.late(now);
        let mut changed = !late.is_empty();
        for id in late {
            self.stale.add(id);
        }
        for name in self.liveness.suspects(now) {
            let Some(director) = self.directors.get_mut(&name) else {
                continue;
            };
            let life = self.liveness.life(&name, now);
            let refused = self.liveness.refused(&name);
            if director.life != life || director.refused.as_deref() != refused {
                director.life = life;
                director.refused = refused.map(str::to_owned);
                changed = true;
                self.stale.add_all();
            }
        }
        changed
    }

    /// Applies an event, and returns whether the result of [`World::wanted`]
    /// may have changed. Returns false for changes of single Leases, because
    /// most renewals change no status. [`World::time_passed`] finds the
    /// directors that died or came back.
    pub fn apply(&mut self, event: Event, now: Time) -> bool {
        let matters = !matches!(
            event,
            Event::Leases(watcher::Event::Apply(_) | watcher::Event::Delete(_))
                | Event::DirectorLeases(watcher::Event::Apply(_) | watcher::Event::Delete(_))
        );
        if matters
            && matches!(
                event,
                Event::Leases(_)
                    | Event::DirectorLeases(_)
                    | Event::LeasesUnseen
                    | Event::DirectorLeasesUnseen
            )
        {
            self.stale.add_all();
        }
        let (renewals, liveness) = (&mut self.renewals, &mut self.liveness);
        match event {
            Event::VirtualServices(event) => self.take::<CheckedService>(event),
            Event::RealServers(event) => self.take::<CheckedServer>(event),
            Event::DirectorGroups(event) => self.take::<CheckedGroup>(event),
            Event::Directors(event) => self.directors(event, now),
            Event::Leases(event) => renewals.take(Place::Controller, event, liveness, now),
            Event::LeasesUnseen => renewals.blind(Place::Controller, liveness, now),
            Event::DirectorLeases(event) => renewals.take(Place::Directors, event, liveness, now),
            Event::DirectorLeasesUnseen => renewals.blind(Place::Directors, liveness, now),
        }
        matters
    }

    fn directors(&mut self, event: watcher::Event<ObservedDirector>, now: Time) {
        match event {
            watcher::Event::Init => self.listing.directors.clear(),
            watcher::Event::InitApply(director) => {
                self.listing.directors.insert(director.name_any());
                self.director_seen(director, now);
            }
            watcher::Event::InitDone => {
                self.listing.directors_listed = true;
                let there = std::mem::take(&mut self.listing.directors);
                let gone: Vec<String> = self
                    .directors
                    .keys()
                    .filter(|name| !there.contains(*name))
                    .cloned()
                    .collect();
                for name in gone {
                    self.director_gone(&name);
                }
            }
            watcher::Event::Apply(director) => self.director_seen(director, now),
            watcher::Event::Delete(director) => self.director_gone(&director.name_any()),
        }
    }

    fn director_seen(&mut self, director: ObservedDirector, now: Time) {
        let name = director.name_any();
        let uid = director.uid().unwrap_or_default();
        let generation = director.metadata.generation.unwrap_or_default();
        let status = director.status;
        let id = director_id(&name);
        if self
            .directors
            .get(&name)
            .is_some_and(|before| before.uid != uid)
        {
            self.director_gone(&name);
        }
        let reported_dead = status.conditions.iter().any(|condition| {
            condition.type_ == condition::kind::ALIVE && condition.status == "False"
        });
        self.liveness.director(&name, reported_dead, now);
        self.published
            .insert(id.clone(), Status::Director(status.conditions.clone()));
        let seen = KnownDirector {
            uid,
            generation,
            status,
            unreadable: director.unreadable,
            places: Places::default(),
            life: Life::NoLease,
            refused: None,
        };
        let Some(known) = self.directors.get_mut(&name) else {
            self.stale.joined();
            let new = self.directors.entry(name).or_insert(seen);
            new.follow(&self.history);
            return;
        };
        let (before, after) = (&known.status.conditions, &seen.status.conditions);
        let flips = AgentFlip::between(&id.key, &known.uid, before, after);
        self.agent_flips.extend(flips);
        self.stale.reported(id, known, &seen);
        let before = known.places.position();
        *known = KnownDirector {
            places: std::mem::take(&mut known.places),
            life: known.life.clone(),
            refused: known.refused.take(),
            ..seen
        };
        known.follow(&self.history);
        self.stale.advanced(known, before);
    }

    fn director_gone(&mut self, name: &str) {
        self.stale.add_all();
        self.directors.remove(name);
        self.published.remove(&director_id(name));
        self.liveness.director_gone(name);
    }
}

impl KnownDirector {
    /// Updates the director's places in the history after a report, or after
    /// the history has grown.
    fn follow(&mut self, history: &History) {
        let group = &self.status.director_group_name;
        history.follow(&mut self.places, group, self.status.used.as_ref());
    }
}

fn director_id(name: &str) -> Id {
    Id {
        subject: Subject::Director,
        key: ObjectKey::cluster(name),
    }
}
