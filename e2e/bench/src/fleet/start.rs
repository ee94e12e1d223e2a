//! The start of a fleet: objects, listings, directors, and the controller.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agent::heartbeat::Heartbeat;
use anyhow::{Result, bail};
use crds::condition;
use futures::{StreamExt, TryStreamExt, stream};
use kube::{Api, api::ListParams};
use tokio::time::sleep;

use super::{
    Fleet, Log,
    child::Background,
    cluster::Cluster,
    director::{Director, Shared},
    director_name, listing,
    table::Size,
    tally::{Call, Counts, Tally},
    watch::current_version,
    world::Kind,
};
use crate::{
    figure::Target,
    usage::{mebibytes, processor_seconds},
};

/// The number of agents that list at the same time.
const LISTING: usize = 20;
/// The number of tokens that are requested at the same time.
const AT_ONCE: usize = 32;
/// The directors start evenly within this time, which is the interval at which
/// they renew their Leases.
const SPREAD: Duration = Duration::from_secs(10);
/// The interval of the heartbeat of the directors' loops.
const BEAT: Duration = Duration::from_secs(1);
const STARTED_WITHIN: Duration = Duration::from_secs(900);
const PROGRAMMED_WITHIN: Duration = Duration::from_secs(1800);
/// The directors and the controller are at rest if no status has changed for
/// this long. A director reports again after at most 10 s.
pub(super) const QUIET: Duration = Duration::from_secs(12);
/// How long the fleet at rest is measured.
const REST: Duration = Duration::from_secs(30);

impl Fleet {
    /// Starts a cluster with all objects, and a director with watches for each
    /// Director. Also measures the listings of agents.
    pub(super) async fn start(size: Size) -> Result<Self> {
        let log = Log(Instant::now());
        log.say(format_args!(
            "{} directors, {} services x {} servers",
            size.directors, size.services, size.servers
        ));
        let cluster = Cluster::start(&size.group()).await?;
        log.say("the API server runs and has the chart");
        let administrator = cluster.administrator()?;
        let shared = Arc::new(Shared {
            world: Arc::default(),
            entries: (size.services as usize, size.destinations()),
            checked: size.checked(),
            sharing: size.sharing().len(),
            vips: size.vips(),
            directors: size.directors as usize,
            heartbeat: Heartbeat::default(),
        });
        size.create(&administrator, &shared.world).await?;
        log.say("the objects are created");
        let tally = Tally::new();
        let directors = stream::iter(0..size.directors).map(|number| {
            let (cluster, administrator, tally) = (&cluster, &administrator, &tally);
            let shared = shared.clone();
            async move {
                let (name, counts) = (director_name(number), Counts::new());
                let client = cluster
                    .director(administrator, &name, tally, &counts)
                    .await?;
                anyhow::Ok(Director::new(name, client, counts, shared, number == 0))
            }
        });
        let directors = directors.buffered(AT_ONCE).try_collect().await?;
        log.say("every director has a token");
        let mut fleet = Self {
            size,
            controller: None,
            cluster,
            administrator,
            shared,
            directors,
            tally,
            log,
            figures: Vec::new(),
        };
        fleet.list().await?;
        fleet.start_directors().await?;
        Ok(fleet)
    }

    /// Measures how agents list all objects.
    async fn list(&mut self) -> Result<()> {
        let agents = self.directors.len().min(LISTING);
        let clients: Vec<_> = self.directors[..agents]
            .iter()
            .map(|director| director.sight().client.clone())
            .collect();
        let (before, server) = (self.tally.read(), processor_seconds(self.cluster.server())?);
        let took = listing::list(&clients).await?;
        let since = self.tally.read().since(&before);
        let server = processor_seconds(self.cluster.server())? - server;
        let each = agents as f64;
        self.log.say(format_args!(
            "{agents} agents listed all objects in {took:.1?}"
        ));
        let requests = since.of(Call::List) + since.of(Call::Get);
        self.report(
            "listing_requests",
            requests as f64 / each,
            "requests/director",
        );
        self.report(
            "listing_bytes",
            since.bytes as f64 / each / 1e6,
            "MB/director",
        );
        self.report("listing_20_directors", took.as_secs_f64(), "s");
        self.report("listing_api_server", server / each, "s/director");
        Ok(())
    }

    /// Registers all directors, and lets them report.
    async fn start_directors(&mut self) -> Result<()> {
        let heartbeat = self.shared.heartbeat.clone();
        tokio::spawn(async move {
            loop {
                heartbeat.beat();
                sleep(BEAT).await;
            }
        });
        let all = self.directors.len() as u64;
        let before = self.tally.read();
        let pause = SPREAD / self.size.directors;
        for director in &self.directors {
            director.publish();
            sleep(pause).await;
        }
        self.wait_for_calls(before, Call::Member, all, "registered directors")
            .await?;
        self.log.say("every director is registered");
        let watching = match self.size.watch_start {
            true => self.directors.len(),
            false => 1,
        };
        self.open_watches(0..watching).await?;
        let (before, start) = (self.tally.read(), Instant::now());
        self.directors.iter().for_each(Director::report);
        self.wait_for_calls(before, Call::Status, all, "reports")
            .await?;
        self.log.say("every director has reported");
        self.report("first_reports", start.elapsed().as_secs_f64(), "s");
        Ok(())
    }

    /// Opens the watches of some directors, all from one resourceVersion.
    async fn open_watches(&mut self, of: std::ops::Range<usize>) -> Result<()> {
        if of.is_empty() {
            return Ok(());
        }
        let mut from = [0; Kind::ALL.len()];
        for (version, kind) in from.iter_mut().zip(Kind::ALL) {
            *version = current_version(&self.administrator, kind).await?;
        }
        let before = self.tally.read();
        let watches = of.len() * Kind::ALL.len();
        let pause = SPREAD / self.size.directors;
        for director in &self.directors[of] {
            director.watch(from);
            sleep(pause).await;
        }
        self.wait_for_calls(before, Call::Watch, watches as u64, "watches")
            .await?;
        self.log
            .say(format_args!("{watches} more watches are open"));
        Ok(())
    }

    async fn wait_for_calls(
        &mut self,
        before: super::tally::Reading,
        call: Call,
        wanted: u64,
        what: &str,
    ) -> Result<()> {
        let answered = |fleet: &Self| fleet.tally.read().since(&before).of(call);
        let start = Instant::now();
        while answered(self) < wanted {
            if start.elapsed() > STARTED_WITHIN {
                bail!("{} of {wanted} {what}", answered(self));
            }
            sleep(super::POLL).await;
        }
        Ok(())
    }

    /// Starts the controller, and waits until every service is programmed.
    pub(super) async fn program(&mut self) -> Result<()> {
        let controller = self.cluster.start_controller(&self.administrator).await?;
        self.controller = Some(controller);
        let (before, received) = (self.used()?, self.received());
        let start = Instant::now();
        let (services, servers) = (
            self.size.services as usize,
            self.size.services * self.size.servers,
        );
        let good = |fleet: &Self, kind| fleet.world().good(kind);
        self.wait(
            "not everything is programmed",
            PROGRAMMED_WITHIN,
            |fleet| good(fleet, Kind::VirtualServices) >= services,
            |fleet| {
                format!(
                    "{} of {services} services are Programmed, {} of {servers} servers are Ready",
                    good(fleet, Kind::VirtualServices),
                    good(fleet, Kind::RealServers),
                )
            },
        )
        .await?;
        let took = start.elapsed().as_secs_f64();
        let used = self.used()?;
        self.log.say("every service is Programmed");
        // The server without a service is not Ready.
        let all_servers = servers as usize + 1;
        self.wait(
            "not every server is Ready",
            PROGRAMMED_WITHIN,
            |fleet| good(fleet, Kind::RealServers) >= all_servers,
            |fleet| {
                let ready = good(fleet, Kind::RealServers);
                format!("{ready} of {all_servers} servers are Ready")
            },
        )
        .await?;
        let quiet = self.wait_until_quiet(QUIET, STARTED_WITHIN).await?;
        let all_statuses = quiet.duration_since(start).as_secs_f64();
        self.report("all_programmed", took, "s");
        self.report("all_statuses", all_statuses, "s");
        self.report(
            "all_programmed_controller",
            used.controller - before.controller,
            "s",
        );
        self.report(
            "all_programmed_api_server",
            used.server - before.server,
            "s",
        );
        self.report("all_programmed_bench", used.bench - before.bench, "s");
        let memory = mebibytes(self.controller()?, "VmRSS")?;
        self.report("controller_resident", memory, "MiB");
        let memory = mebibytes(self.cluster.server(), "VmRSS")?;
        self.report("api_server_resident", memory, "MiB");
        let after = self.received();
        let events = most(&received, &after, |own| own.0);
        let bytes = most(&received, &after, |own| own.1);
        self.report("all_programmed_events", events as f64, "events/director");
        let expired: u64 = self.counts().map(Counts::expired).sum();
        self.report("all_programmed_expired", expired as f64, "watches");
        self.report("all_programmed_bytes", bytes as f64 / 1e6, "MB/director");
        Ok(())
    }

    /// Opens the watches that are not open yet, and measures the fleet at rest.
    pub(super) async fn rest(&mut self) -> Result<()> {
        if !self.size.watch_start {
            self.open_watches(1..self.directors.len()).await?;
            self.wait_until_quiet(QUIET, STARTED_WITHIN).await?;
        }
        let (before, calls) = (self.used()?, self.tally.read());
        sleep(REST).await;
        let (after, calls) = (self.used()?, self.tally.read().since(&calls));
        self.log.say("the fleet was at rest");
        let controller = after.percent(&before, |used| used.controller);
        self.figure("rest_controller", controller, "%", Target::AtMost(5.0));
        let server = after.percent(&before, |used| used.server);
        self.report("rest_api_server", server, "%");
        self.report("rest_refused", calls.refused as f64, "requests");
        let dead = self.count_dead().await?;
        self.figure("rest_dead", dead as f64, "directors", Target::AtMost(0.0));
        let lost = self.times_lead_was_lost()?;
        self.figure("lead_lost", lost as f64, "times", Target::AtMost(0.0));
        let seconds = REST.as_secs_f64();
        for call in Call::ALL {
            let rate = calls.of(call) as f64 / seconds;
            if rate > 0.0 {
                self.report(&format!("rest_{}", call.name()), rate, "requests/s");
            }
        }
        Ok(())
    }

    /// Returns the number of directors that the controller takes for dead.
    async fn count_dead(&self) -> Result<usize> {
        let directors = Api::<crds::api::Director>::all(self.administrator.clone());
        let directors = directors.list(&ListParams::default()).await?;
        let is_dead = |status: &crds::api::DirectorStatus| {
            let alive = condition::find(&status.conditions, condition::kind::ALIVE);
            alive.is_some_and(|alive| alive.status == "False")
        };
        let statuses = directors
            .iter()
            .filter_map(|director| director.status.as_ref());
        Ok(statuses.filter(|status| is_dead(status)).count())
    }

    /// Returns how often the controller ceased to lead, according to its log.
    fn times_lead_was_lost(&self) -> Result<usize> {
        let log = self.controller.as_ref().map(Background::log);
        Ok(log
            .transpose()?
            .map_or(0, |log| log.matches("no longer leads").count()))
    }

    /// Records and prints a figure without a target.
    pub(super) fn report(&mut self, name: &str, value: f64, unit: &str) {
        self.figure(name, value, unit, Target::Reported);
    }
}

/// Returns the largest growth of a count among the directors.
pub(super) fn most(
    before: &[(u64, u64)],
    after: &[(u64, u64)],
    of: impl Fn(&(u64, u64)) -> u64,
) -> u64 {
    let grown = before
        .iter()
        .zip(after)
        .map(|(before, after)| of(after) - of(before));
    grown.max().unwrap_or_default()
}
