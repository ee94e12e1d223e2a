//! Changes of single objects: a label, and a weight.

use std::time::{Duration, Instant};

use anyhow::Result;
use crds::api::RealServer;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Fleet,
    start::{QUIET, most},
    table::{LABEL, SPARE, TENANT, server_name, service_name},
    world::Kind,
};
use crate::figure::Target;

/// How long the reports and statuses after a change may take.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// How long a service may stay Programmed after the last report. If all
/// directors report before the controller sees the change, the service is
/// Programmed all the time.
const UNCHANGED: Duration = Duration::from_secs(3);
/// How many weights are changed, one after another.
const WEIGHTS: u32 = 3;

impl Fleet {
    /// Relabels a server that no service selects, and then a server that moves
    /// from one service to another.
    pub(super) async fn relabel(&mut self) -> Result<()> {
        let moved = server_name(3, 0);
        for (name, what, server, label, limit) in [
            ("relabel_unselected", "an unselected", SPARE, "other", 2.0),
            ("relabel_selected", "a selected", &*moved, "4", 6.0),
        ] {
            let (before, used) = (self.received(), self.used()?);
            let statuses = self.statuses();
            self.edit(server, json!({"metadata": {"labels": {LABEL: label}}}))
                .await?;
            self.wait_for_reports("a label is not reported", &statuses)
                .await?;
            self.wait_until_quiet(QUIET, SETTLED_WITHIN).await?;
            let (after, used_after) = (self.received(), self.used()?);
            let events = most(&before, &after, |own| own.0);
            let bytes = most(&before, &after, |own| own.1);
            let reports = self.statuses().iter().sum::<u64>() - statuses.iter().sum::<u64>();
            self.log.say(format_args!("{what} server was relabelled"));
            self.figure(
                &format!("{name}_events"),
                events as f64,
                "events/director",
                Target::AtMost(limit),
            );
            self.report(&format!("{name}_bytes"), bytes as f64 / 1e3, "kB/director");
            self.report(&format!("{name}_patches"), reports as f64, "patches");
            let controller = used_after.controller - used.controller;
            self.report(&format!("{name}_controller"), controller, "s");
        }
        Ok(())
    }

    /// Changes the weight of one server several times, and follows each change
    /// until all directors have reported it and the service is Programmed.
    pub(super) async fn change_weights(&mut self) -> Result<()> {
        for service in 0..WEIGHTS {
            self.change_weight(service).await?;
        }
        Ok(())
    }

    async fn change_weight(&mut self, service: u32) -> Result<()> {
        let (name, server) = (service_name(service), server_name(service, 0));
        let before = self.statuses();
        let times = self.service(&name)?.times;
        let used = self.used()?;
        let start = Instant::now();
        self.edit(&server, json!({"spec": {"weight": 7}})).await?;
        self.wait_for_reports("a weight is not reported", &before)
            .await?;
        let last = self
            .directors
            .iter()
            .map(|director| director.sight().counts.last_status());
        let last = last.max().unwrap_or(start);
        let is_programmed = |fleet: &Self| {
            let now = fleet.world().published(Kind::VirtualServices, &name);
            now.is_some_and(|now| now.is_good && (now.times > times || last.elapsed() > UNCHANGED))
        };
        self.wait(
            "a weight is not programmed",
            SETTLED_WITHIN,
            is_programmed,
            |_| format!("{name} is not Programmed"),
        )
        .await?;
        let used_after = self.used()?;
        let published = self.service(&name)?;
        let (end, until) = match published.times > times {
            true => {
                let end = published.since.max(last);
                (end, end.duration_since(last).as_secs_f64())
            }
            false => (last, 0.0),
        };
        // A director that reports twice does so after its reporting interval.
        sleep(QUIET).await;
        let after = self.statuses();
        let each = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before);
        let (fewest, most) = (each.clone().min(), each.max());
        self.log
            .say(format_args!("weight {} was changed", service + 1));
        let name = |figure: &str| format!("weight_{}_{figure}", service + 1);
        let (fewest, most) = (fewest.unwrap_or_default(), most.unwrap_or_default());
        self.figure(
            &name("patches_least"),
            fewest as f64,
            "patches/director",
            Target::AtLeast(1.0),
        );
        self.figure(
            &name("patches_most"),
            most as f64,
            "patches/director",
            Target::AtMost(1.0),
        );
        self.report(
            &name("reports"),
            last.duration_since(start).as_secs_f64(),
            "s",
        );
        self.figure(&name("true_after_last"), until, "s", Target::AtMost(1.0));
        let controller = used_after.controller - used.controller;
        self.figure(&name("controller"), controller, "s", Target::AtMost(1.2));
        self.report(
            &name("end_to_end"),
            end.duration_since(start).as_secs_f64(),
            "s",
        );
        Ok(())
    }

    /// Waits until each director has written more statuses than `before`.
    async fn wait_for_reports(&mut self, what: &str, before: &[u64]) -> Result<()> {
        let reported = |fleet: &Self| {
            let now = fleet.statuses();
            let directors = now.iter().zip(before);
            directors.filter(|(now, before)| now > before).count()
        };
        let all = self.directors.len();
        self.wait(
            what,
            SETTLED_WITHIN,
            |fleet| reported(fleet) == all,
            |fleet| format!("{} of {all} directors have reported", reported(fleet)),
        )
        .await
    }

    /// Edits a RealServer.
    async fn edit(&self, server: &str, change: Value) -> Result<()> {
        let servers = Api::<RealServer>::namespaced(self.administrator.clone(), TENANT);
        let parameters = PatchParams::default();
        servers
            .patch(server, &parameters, &Patch::Merge(change))
            .await?;
        Ok(())
    }
}
