//! The main loop: applies events, computes the wanted statuses, and publishes
//! them while this process leads.

use std::time::{Duration, Instant};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Client, Result,
    runtime::{
        events::{Recorder, Reporter},
        watcher,
    },
};
use nix::time::{ClockId, clock_gettime};
use tokio::{sync::watch as channel, task::JoinSet, time};
use tracing::{debug, info, warn};

use crate::{
    definitions,
    event::Event,
    kubernetes_event::{self, KubernetesEvent},
    leader::{self, Candidate, Signals, Tenure},
    liveness::Time,
    outbox::{Letter, Outbox, Outcome},
    pace::Pace,
    publish::{self, FIELD_MANAGER},
    ration::Ration,
    status::Status,
    trouble::{self, Complaints},
    waits::Moment,
    watch,
    world::World,
};

/// How long a write may wait for the API server's answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest sleep of the loop. If the deadline of a Lease has passed, the
/// loop waits this long before it checks the deadline again.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// Runs the controller until `stop` is true. The controller always watches, and
/// publishes while it leads. When it begins to lead, it upgrades the definitions
/// if `upgrades` is true. Before it ends, the controller releases the leader's
/// Lease.
pub async fn run(
    client: Client,
    candidate: Candidate,
    upgrades: bool,
    mut stop: channel::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let complaints = Complaints::default();
    let mut events = watch::start(&client, &candidate.namespace, &complaints, &mut tasks);
    let (elected, mut elections) = channel::channel(false);
    let (free, is_free) = channel::channel(false);
    let (in_vain, is_in_vain) = channel::channel(false);
    let (end_campaign, campaign_ends) = channel::channel(false);
    let campaign = tokio::spawn(leader::campaign(
        client.clone(),
        candidate.clone(),
        complaints.clone(),
        elected,
        Signals {
            free: is_free,
            in_vain: is_in_vain,
            stop: campaign_ends,
        },
    ));
    let mut controller = Controller::new(client, candidate, complaints, free, in_vain);
    controller.upgrades = upgrades;
    loop {
        let pause = controller.pause();
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            Ok(()) = elections.changed() => {
                let elected = *elections.borrow_and_update();
                let now = controller.now();
                controller.tenure.elected(elected, now);
            }
            Some(written) = controller.writes.join_next() => controller.written(written),
            Some(event) = events.recv() => {
                controller.see(event);
                while let Ok(event) = events.try_recv() {
                    controller.see(event);
                }
            }
            () = time::sleep(pause) => {}
        }
        controller.work();
    }
    // All writes must end before another process can lead.
    controller.writes.shutdown().await;
    controller.upgrade.shutdown().await;
    drop(controller);
    drop(tasks);
    end_campaign.send_replace(true);
    if campaign.await.is_err() {
        warn!("cannot give the leader's Lease back");
    }
    info!("stopped");
}

type Written = (Letter, Result<Status>);

struct Controller {
    client: Client,
    candidate: Candidate,
    recorder: Recorder,
    start: Instant,
    world: World,
    outbox: Outbox,
    writes: JoinSet<Written>,
    kubernetes_events: JoinSet<()>,
    ration: Ration,
    tenure: Tenure,
    leading: bool,
    lease_renewed_at: Option<Timestamp>,
    free: channel::Sender<bool>,
    in_vain: channel::Sender<bool>,
    /// The time at which the gathered events must be processed.
    due: Option<Time>,
    pace: Pace,
    listed: bool,
    complaints: Complaints,
    /// Whether a leader upgrades the definitions.
    upgrades: bool,
    /// The upgrade of the definitions, while this process leads.
    upgrade: JoinSet<()>,
}

impl Controller {
    fn new(
        client: Client,
        candidate: Candidate,
        complaints: Complaints,
        free: channel::Sender<bool>,
        in_vain: channel::Sender<bool>,
    ) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(candidate.identity.clone()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            candidate,
            start: Instant::now(),
            world: World::default(),
            outbox: Outbox::default(),
            writes: JoinSet::new(),
            kubernetes_events: JoinSet::new(),
            ration: Ration::default(),
            tenure: Tenure::default(),
            leading: false,
            lease_renewed_at: None,
            free,
            in_vain,
            due: None,
            pace: Pace::default(),
            listed: false,
            complaints,
            upgrades: false,
            upgrade: JoinSet::new(),
        }
    }

    fn now(&self) -> Time {
        self.start.elapsed()
    }

    fn see(&mut self, event: Event) {
        let now = self.now();
        if let Event::Leases(event) = &event {
            self.see_leases(event, now);
        }
        if self.world.apply(event, now) {
            self.due.get_or_insert(now + self.pace.gather(now));
        }
    }

    fn see_leases(&mut self, event: &watcher::Event<Lease>, now: Time) {
        let is_leaders =
            |lease: &Lease| lease.metadata.name.as_deref() == Some(&self.candidate.name);
        match event {
            watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)
                if is_leaders(lease) =>
            {
                let spec = lease.spec.clone().unwrap_or_default();
                let renewed_at = spec.renew_time.map(|time| time.0);
                let holder = spec.holder_identity.unwrap_or_default();
                self.free.send_if_modified(|free| {
                    std::mem::replace(free, holder.is_empty()) != holder.is_empty()
                });
                if holder != self.candidate.identity {
                    self.tenure.lost(now);
                } else if let Some(renewed_at) = renewed_at
                    && self.lease_renewed_at != Some(renewed_at)
                {
                    self.tenure.renewed(age(renewed_at), now);
                }
                self.lease_renewed_at = renewed_at;
            }
            watcher::Event::Delete(lease) if is_leaders(lease) => self.tenure.lost(now),
            _ => {}
        }
    }

    /// How long the loop may sleep, if no event arrives.
    fn pause(&self) -> Duration {
        let now = self.now();
        let lease = self
            .world
            .next_deadline(now)
            .map(|at| at.max(now + LEAST_PAUSE));
        let letters = self
            .leading
            .then(|| self.outbox.next_deadline(now))
            .flatten();
        [self.due, lease, letters]
            .into_iter()
            .flatten()
            .min()
            .map_or(LEAST_PAUSE, |at| at.saturating_sub(now))
            .min(LEAST_PAUSE)
    }

    fn work(&mut self) {
        let now = self.now();
        self.take_or_leave_the_lead(now);
        if self.world.time_passed(now) {
            self.due.get_or_insert(now + self.pace.gather(now));
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            let began = processor_time();
            self.world.resolve();
            if !self.listed && self.world.is_listed() {
                self.listed = true;
                info!("everything is listed");
            }
            if self.leading {
                let clock = Timestamp::now();
                let pass = self.world.pass(Moment { now, clock });
                self.outbox.update(pass, now);
            }
            let used = processor_time().saturating_sub(began);
            debug!("computing statuses took {used:?} of a processor");
            self.pace.passed(used, self.now());
        }
        let flips = self.world.agent_flips();
        if self.leading {
            for letter in self.outbox.due(now) {
                self.send(letter);
            }
            for flip in flips {
                self.make_event(flip.event(), now);
            }
            for left_out in self.ration.due(now) {
                self.publish_event(kubernetes_event::of_left_out(left_out));
            }
        }
    }

    fn take_or_leave_the_lead(&mut self, now: Time) {
        let in_vain = self.tenure.is_in_vain(now);
        self.in_vain
            .send_if_modified(|was| std::mem::replace(was, in_vain) != in_vain);
        let leads = self.tenure.leads(now);
        if leads == self.leading {
            return;
        }
        self.leading = leads;
        self.world.lead_changed();
        if leads {
            info!("{} leads, and publishes", self.candidate.identity);
            self.due = Some(now);
            if self.upgrades {
                let (client, complaints) = (self.client.clone(), self.complaints.clone());
                self.upgrade.spawn(definitions::upgrade(client, complaints));
            }
        } else {
            info!("{} no longer leads", self.candidate.identity);
            self.writes = JoinSet::new();
            self.upgrade = JoinSet::new();
            self.outbox.clear();
        }
    }

    fn send(&mut self, letter: Letter) {
        debug!(
            "{:?} of {:?}: {:?}",
            letter.difference, letter.id, letter.status
        );
        let client = self.client.clone();
        self.writes.spawn(async move {
            let write = publish::write(client, &letter, Timestamp::now());
            let result = time::timeout(WRITE_TIMEOUT, write)
                .await
                .unwrap_or_else(|_| Err(kube::Error::Service("no answer".into())));
            (letter, result)
        });
    }

    fn written(&mut self, written: Result<Written, tokio::task::JoinError>) {
        // An aborted write has no result.
        let Ok((letter, result)) = written else {
            return;
        };
        let now = self.now();
        let outcome = publish::outcome(&result);
        self.outbox.done(&letter.id, outcome, now);
        if outcome != Outcome::Written {
            self.world.not_written(&letter.id);
            self.due.get_or_insert(now + self.pace.gather(now));
        }
        match result {
            Ok(status) => {
                for event in kubernetes_event::of_letter(&letter) {
                    self.make_event(event, now);
                }
                self.world.wrote(&letter.id, status);
            }
            Err(error) if outcome == Outcome::Failed => {
                let what = format!(
                    "write the status of {:?} {}",
                    letter.id.subject, letter.id.key
                );
                if let Some(complaint) = trouble::of_request(&what, &error) {
                    self.complaints.warn(&complaint);
                }
            }
            Err(_) => {}
        }
    }

    fn make_event(&mut self, event: KubernetesEvent, now: Time) {
        if self.ration.take(&event.about, event.is_minor, now) {
            self.publish_event(event);
        }
    }

    /// Makes an Event, whatever the limits are.
    fn publish_event(&mut self, event: KubernetesEvent) {
        while self.kubernetes_events.try_join_next().is_some() {}
        let recorder = self.recorder.clone();
        self.kubernetes_events.spawn(async move {
            if let Err(error) = recorder.publish(&event.event, &event.about).await {
                debug!("cannot make an Event: {error}");
            }
        });
    }
}

/// The processor time that this thread has used. A pass never changes threads.
/// The time on the clock would make a busy machine delay the statuses even more.
fn processor_time() -> Duration {
    // Linux always has this clock (clock_gettime(2)).
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// How long ago `renewed_at` is, by this process's own clock. A time in the
/// future counts as now.
fn age(renewed_at: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(renewed_at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::Config;
    use serde_json::json;

    use super::*;

    /// Returns an elected controller whose API server is never called.
    fn elected() -> (Controller, channel::Receiver<bool>) {
        let config = Config::new("http://192.0.2.1".parse().unwrap());
        let candidate = Candidate {
            namespace: "ipvs-operator".to_owned(),
            name: "ipvs-controller".to_owned(),
            identity: "me".to_owned(),
        };
        let (free, _) = channel::channel(false);
        let (in_vain, is_in_vain) = channel::channel(false);
        let mut controller = Controller::new(
            Client::try_from(config).unwrap(),
            candidate,
            Complaints::default(),
            free,
            in_vain,
        );
        controller.tenure.elected(true, controller.now());
        (controller, is_in_vain)
    }

    fn renewed(name: &str, holder: &str, ago: Duration) -> Event {
        let at = Timestamp::now() - ago;
        let lease = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": 15,
                "renewTime": format!("{at:.6}"),
            },
        }));
        Event::Leases(watcher::Event::Apply(lease.unwrap()))
    }

    const NOW: Duration = Duration::ZERO;

    #[tokio::test]
    async fn renewals_make_no_work() {
        let (mut controller, _) = elected();
        for name in ["lb-1", "ipvs-controller", "lb-1"] {
            controller.see(renewed(name, "me", NOW));
        }
        assert_eq!(controller.due, None);
        controller.see(Event::RealServers(watcher::Event::Init));
        assert!(controller.due.is_some());
    }

    #[tokio::test]
    async fn a_leader_counts_from_when_it_renewed_by_its_own_clock() {
        for (ago, leads) in [
            (NOW, true),
            (Duration::from_secs(10), true),
            (Duration::from_secs(16), false),
            (Duration::from_secs(3600), false),
        ] {
            let (mut controller, _) = elected();
            controller.see(renewed("ipvs-controller", "me", ago));
            assert_eq!(controller.tenure.leads(controller.now()), leads, "{ago:?}");
        }
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_makes_no_renewal_count_longer() {
        let (mut controller, _) = elected();
        let ahead = Timestamp::now() + Duration::from_secs(3600);
        assert_eq!(age(ahead), Duration::ZERO);
        let before = controller.now();
        controller.tenure.renewed(age(ahead), before);
        assert!(!controller.tenure.leads(before + leader::LEASE_DURATION));
    }

    #[tokio::test]
    async fn who_sees_the_lease_to_be_anothers_does_not_lead() {
        let (mut controller, _) = elected();
        controller.see(renewed("ipvs-controller", "me", NOW));
        controller.see(renewed("ipvs-controller", "another", NOW));
        assert!(!controller.tenure.leads(controller.now()));
    }

    #[tokio::test]
    async fn the_campaign_is_told_when_the_lease_is_held_in_vain() {
        let (mut controller, is_in_vain) = elected();
        controller.take_or_leave_the_lead(Duration::from_secs(1));
        assert!(!*is_in_vain.borrow());
        controller.take_or_leave_the_lead(Duration::from_secs(16));
        assert!(*is_in_vain.borrow());
        controller.tenure.elected(false, Duration::from_secs(17));
        controller.take_or_leave_the_lead(Duration::from_secs(17));
        assert!(!*is_in_vain.borrow());
    }
}
