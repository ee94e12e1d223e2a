//! Failures: a server behind many services, and a rack of directors.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use crds::{
    ObjectKey,
    api::{UnhealthyServer, UnhealthyState},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use tokio::time::sleep;

use super::{
    Fleet,
    start::{QUIET, most},
    table::{SHARED, TENANT, service_name},
    world::Kind,
};
use crate::{figure::Target, usage::mebibytes};

/// The directors notice a failed server within one period of its health check.
const PERIOD: Duration = Duration::from_secs(5);
/// How long the reports and statuses after a failure may take.
const SETTLED_WITHIN: Duration = Duration::from_secs(900);
/// The number of directors in a rack.
const RACK: usize = 40;
/// How long the dead rack is observed. A Lease is valid for 40 s.
const DEAD: Duration = Duration::from_secs(90);
/// The shortest time between two plain patches of one object (`PAUSE` in the
/// controller's `outbox.rs`).
const PAUSE: f64 = 5.0;
/// The number of soft patches at once, and the seconds between two further ones
/// (`SOFT_BURST` and `SOFT_PAUSE` in the controller's `outbox.rs`).
const SOFT: (f64, f64) = (20.0, 5.0);

impl Fleet {
    /// Fails a server that half of the services share, and restores it. All
    /// directors report both.
    pub(super) async fn fail_server(&mut self) -> Result<()> {
        let sharing: Vec<String> = self.size.sharing().map(service_name).collect();
        let entry = UnhealthyServer {
            real_server: ObjectKey::new(TENANT, SHARED),
            // An agent names no service if it is all of many.
            virtual_services: Vec::new(),
            state: UnhealthyState::Down,
            since: Time(Timestamp::now()),
            message: "connection refused".to_owned(),
        };
        let servers = i32::try_from(self.size.servers)?;
        self.server_phase("server_down", vec![entry], &sharing, servers)
            .await?;
        self.server_phase("server_up", Vec::new(), &sharing, servers + 1)
            .await
    }

    async fn server_phase(
        &mut self,
        name: &str,
        unhealthy: Vec<UnhealthyServer>,
        sharing: &[String],
        healthy: i32,
    ) -> Result<()> {
        let (before, used, received) = (self.patches().await?, self.used()?, self.received());
        let statuses = self.statuses();
        self.world().forget_changes();
        let start = Instant::now();
        let all = u32::try_from(self.directors.len())?;
        for (number, director) in self.directors.iter().enumerate() {
            let after = PERIOD * u32::try_from(number)? / all;
            director.find(unhealthy.clone(), after);
        }
        let shown = |fleet: &Self| {
            let kind = Kind::VirtualServices;
            let published = sharing
                .iter()
                .filter_map(|name| fleet.world().published(kind, name));
            published.filter(|now| now.healthy == Some(healthy)).count()
        };
        let reported = |fleet: &Self| {
            let now = fleet.statuses();
            now.iter()
                .zip(&statuses)
                .filter(|(now, before)| now > before)
                .count()
        };
        let progress = |fleet: &Self| {
            format!(
                "{} of {all} directors have reported, {} of {} services show {healthy} healthy servers",
                reported(fleet),
                shown(fleet),
                sharing.len()
            )
        };
        let mut next = Instant::now();
        let is_done = |fleet: &Self| {
            // Counting takes a while.
            if Instant::now() < next {
                return false;
            }
            next = Instant::now() + Duration::from_millis(200);
            reported(fleet) == all as usize && shown(fleet) == sharing.len()
        };
        self.wait(name, SETTLED_WITHIN, is_done, progress).await?;
        let end = self.wait_until_quiet(QUIET, SETTLED_WITHIN).await?;
        let (patches, used_after) = (self.patches().await?.since(&before), self.used()?);
        let took = end.duration_since(start).as_secs_f64();
        let (services, servers) = (
            self.world().changes(Kind::VirtualServices),
            self.world().changes(Kind::RealServers),
        );
        let others = others(&services, |name| sharing.iter().any(|own| own == name))
            + others(&servers, |name| name == SHARED);
        let bytes = most(&received, &self.received(), |own| own.1);
        self.log.say(format_args!("{name}: settled"));
        let wanted = Target::AtMost(sharing.len() as f64);
        let figure = |figure: &str| format!("{name}_{figure}");
        self.figure(
            &figure("service_patches"),
            patches.services as f64,
            "patches",
            wanted,
        );
        let limit = Target::AtMost(1.0 + (took / PAUSE).ceil());
        self.figure(
            &figure("server_patches"),
            patches.servers as f64,
            "patches",
            limit,
        );
        self.figure(
            &figure("other_objects"),
            others as f64,
            "objects",
            Target::AtMost(0.0),
        );
        let none = Target::AtMost(0.0);
        self.figure(
            &figure("director_patches"),
            patches.directors as f64,
            "patches",
            none,
        );
        self.figure(
            &figure("group_patches"),
            patches.groups as f64,
            "patches",
            none,
        );
        self.report(&figure("end_to_end"), took, "s");
        self.report(
            &figure("controller"),
            used_after.controller - used.controller,
            "s",
        );
        self.report(&figure("api_server"), used_after.server - used.server, "s");
        self.report(&figure("bytes"), bytes as f64 / 1e6, "MB/director");
        let peak = mebibytes(self.controller()?, "VmHWM")?;
        self.report(&figure("controller_peak"), peak, "MiB");
        Ok(())
    }

    /// Kills a rack of directors, and watches what the controller patches.
    pub(super) async fn lose_rack(&mut self) -> Result<()> {
        let rack = RACK.min(self.directors.len() / 2);
        let (before, used) = (self.patches().await?, self.used()?);
        self.world().forget_changes();
        let living = self.directors.len() - rack;
        for director in &self.directors[living..] {
            director.die();
        }
        self.log.say(format_args!("{rack} directors died"));
        sleep(DEAD).await;
        let (patches, used_after) = (self.patches().await?.since(&before), self.used()?);
        let dead = Target::AtMost(rack as f64);
        self.figure(
            "rack_director_patches",
            patches.directors as f64,
            "patches",
            dead,
        );
        let seconds = DEAD.as_secs_f64();
        let groups = Target::AtMost((seconds / PAUSE).ceil());
        self.figure(
            "rack_group_patches",
            patches.groups as f64,
            "patches",
            groups,
        );
        let soft = Target::AtMost((SOFT.0 + seconds / SOFT.1).ceil());
        let others = patches.services + patches.servers;
        self.figure("rack_soft_patches", others as f64, "patches", soft);
        let controller = used_after.controller - used.controller;
        self.report("rack_controller", controller, "s");
        Ok(())
    }
}

/// Returns the number of changed objects whose names are not expected.
fn others(changed: &BTreeMap<String, u32>, is_expected: impl Fn(&str) -> bool) -> usize {
    changed.keys().filter(|name| !is_expected(name)).count()
}
