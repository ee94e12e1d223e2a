//! `bench fleet` measures what a fleet of directors costs the API server and the
//! controller: a real etcd, a real API server, the real controller, and simulated
//! directors, natively on loopback.
//!
//! ```text
//! etcd ◀─▶ kube-apiserver ◀─▶ ipvs-controller
//!                ▲
//!                │ 4 watches each; Lease, Director, DirectorGroupMember
//!                ▼
//!          directors ─▶ world: the objects, decoded once for all directors
//! ```
//!
//! A simulated director publishes with the agent's own code. Its watches make
//! the same requests as the agent's, but they only count most events.

mod changes;
mod child;
mod cluster;
mod director;
mod failures;
mod listing;
mod metrics;
mod restart;
mod start;
mod table;
mod tally;
mod watch;
mod world;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kube::Client;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

pub(crate) use self::table::Size;
use self::{
    child::Background,
    cluster::Cluster,
    director::{Director, Shared},
    metrics::StatusPatches,
    tally::{Counts, Tally},
    world::Kind,
};
use crate::{
    figure::{self, Figure, Target},
    usage,
};

/// How often the bench looks whether a condition holds.
const POLL: Duration = Duration::from_millis(5);
/// How often the bench prints progress while it waits.
const NEWS: Duration = Duration::from_secs(15);

/// Measures a fleet, and prints the figures.
pub(crate) fn run(size: Size, check: bool) -> Result<ExitCode> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    // The programs that the bench starts live as long as this thread.
    let figures = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            figures = measure(size) => figures,
            _ = terminate.recv() => bail!("stopped"),
            _ = interrupt.recv() => bail!("interrupted"),
        }
    })?;
    runtime.shutdown_background();
    println!("\n{}", figure::table(&figures));
    let is_any_short = figures.iter().any(Figure::is_short);
    Ok(ExitCode::from(u8::from(check && is_any_short)))
}

async fn measure(size: Size) -> Result<Vec<Figure>> {
    let mut fleet = Fleet::start(size).await?;
    fleet.program().await?;
    fleet.rest().await?;
    fleet.relabel().await?;
    fleet.change_weights().await?;
    fleet.fail_server().await?;
    fleet.lose_rack().await?;
    fleet.restart_api_server().await?;
    Ok(fleet.figures)
}

/// A cluster with its simulated directors, while it runs.
struct Fleet {
    size: Size,
    /// The controller, once it was started. It stops before the API server.
    controller: Option<Background>,
    cluster: Cluster,
    administrator: Client,
    shared: Arc<Shared>,
    directors: Vec<Director>,
    tally: Tally,
    log: Log,
    figures: Vec<Figure>,
}

/// Prints progress with the time since the bench started.
#[derive(Clone, Copy)]
struct Log(Instant);

impl Log {
    fn say(self, text: impl std::fmt::Display) {
        eprintln!("fleet {:>5.0} s: {text}", self.0.elapsed().as_secs_f64());
    }
}

/// The processor time that the programs have used, at one moment.
#[derive(Clone, Copy)]
struct Used {
    at: Instant,
    controller: f64,
    server: f64,
    bench: f64,
}

impl Used {
    /// The share of a core that was used since an earlier reading, in percent.
    fn percent(&self, before: &Self, of: impl Fn(&Self) -> f64) -> f64 {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        (of(self) - of(before)) / seconds * 100.0
    }
}

impl Fleet {
    /// Returns the controller's process id.
    fn controller(&self) -> Result<u32> {
        let controller = self.controller.as_ref();
        Ok(controller.context("the controller was not started")?.id())
    }

    fn used(&self) -> Result<Used> {
        Ok(Used {
            at: Instant::now(),
            controller: usage::processor_seconds(self.controller()?)?,
            server: usage::processor_seconds(self.cluster.server())?,
            bench: usage::processor_seconds(std::process::id())?,
        })
    }

    /// Returns the status patches so far, by resource. `directors` counts only
    /// the controller's patches.
    async fn patches(&self) -> Result<StatusPatches> {
        let mut patches = StatusPatches::read(&self.administrator).await?;
        let by_agents: u64 = self.counts().map(Counts::statuses).sum();
        patches.directors = patches.directors.saturating_sub(by_agents);
        Ok(patches)
    }

    /// Records a figure and prints it.
    fn figure(&mut self, name: &str, value: f64, unit: &str, target: Target) {
        let name = format!("fleet_{}_{name}", self.size.name());
        let figure = Figure::new(name, value, unit, target);
        println!("{figure}");
        self.figures.push(figure);
    }

    /// Waits until `is_done`, and prints progress meanwhile.
    async fn wait(
        &mut self,
        what: &str,
        within: Duration,
        mut is_done: impl FnMut(&Self) -> bool,
        progress: impl Fn(&Self) -> String,
    ) -> Result<()> {
        let start = Instant::now();
        let mut news = start + NEWS;
        while !is_done(self) {
            if let Some(controller) = &mut self.controller {
                controller.check()?;
            }
            if start.elapsed() > within {
                bail!("{what}: not within {within:?}: {}", progress(self));
            }
            if Instant::now() > news {
                self.log.say(progress(self));
                news += NEWS;
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until the statuses of services and servers have not changed for
    /// `pause`. Returns when they changed last.
    async fn wait_until_quiet(&mut self, pause: Duration, within: Duration) -> Result<Instant> {
        let mut last = (self.world().events(), Instant::now());
        let is_quiet = |fleet: &Self| {
            let events = fleet.world().events();
            if events != last.0 {
                last = (events, Instant::now());
            }
            last.1.elapsed() > pause
        };
        let progress = |fleet: &Self| format!("{} events so far", fleet.world().events());
        self.wait("the statuses do not rest", within, is_quiet, progress)
            .await?;
        Ok(last.1)
    }

    fn world(&self) -> &world::World {
        &self.shared.world
    }

    /// Returns the number and the bytes of the watch events of each director so
    /// far.
    fn received(&self) -> Vec<(u64, u64)> {
        let counts = self.counts();
        counts
            .map(|own| (own.events(), own.event_bytes()))
            .collect()
    }

    /// Returns the number of status patches of each director so far.
    fn statuses(&self) -> Vec<u64> {
        self.counts().map(Counts::statuses).collect()
    }

    fn counts(&self) -> impl Iterator<Item = &Counts> {
        let directors = self.directors.iter();
        directors.map(|director| &director.sight().counts)
    }

    /// Returns what the status of a service says.
    fn service(&self, name: &str) -> Result<world::Published> {
        let published = self.world().published(Kind::VirtualServices, name);
        published.with_context(|| format!("{name} has no status"))
    }
}

/// Returns the name of a director.
fn director_name(number: u32) -> String {
    format!("director-{number:04}")
}
