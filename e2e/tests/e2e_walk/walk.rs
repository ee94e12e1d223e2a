//! Takes the steps of the random walk one after another, and checks the kernel
//! and the agent's audit trail after every few steps.

use std::{
    collections::BTreeSet,
    thread::sleep,
    time::{Duration, Instant},
};

use e2e::{
    ApiServerAway, Host, Segment, SmallDisk,
    cluster::{Cluster, state_dir},
    eventually, kubectl,
    process::program,
    segment::attach_to_management,
    wait::PATIENCE,
};
use fastrand::Rng;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    deeds::{
        Deed, Step, any_step, step_without_objects, stranger_edits, stranger_makes,
        stranger_removes,
    },
    life::{DIRECTOR, Life},
    objects::{Objects, SERVERS, SERVICES, beacon},
    strangers::Strangers,
    table::{self, Entry, Table},
};

/// The time between two readings of the kernel's table while the walk waits for
/// the expected table.
const INTERVAL: Duration = Duration::from_millis(150);

pub(crate) struct Walk {
    seed: u64,
    steps: usize,
    api: Kinds,
    life: Life,
    /// The agent's state folder, on its own small disk.
    disk: SmallDisk,
    objects: Objects,
    strangers: Strangers,
    director: Host,
    _segments: [Segment; 2],
    _cluster: Cluster,
}

impl Walk {
    /// Starts a director with an empty table. At first, the only objects are
    /// the DirectorGroup and the beacon.
    pub(crate) fn new(seed: u64) -> Self {
        let cluster = Cluster::start();
        let segments = [Segment::new("outer"), Segment::new("inner")];
        let director = Host::new("director");
        segments[0].attach(&director, "eth0", "192.168.4.5/24");
        segments[1].attach(&director, "eth1", "192.168.2.5/24");
        director.ip("address add 2001:db8:4::5/64 dev eth0 nodad");
        attach_to_management(&director);
        // The DirectorGroup allows all removals for a day, so that the removal
        // guard holds no removal during the walk.
        let until = director.run("date -u -d +1day +%Y-%m-%dT%H:%M:%SZ");
        let release = format!(
            r#"{{"spec":{{"removals":{{"allowUntil":"{}"}}}}}}"#,
            until.trim()
        );
        kubectl(&["patch", "idg/default", "--type=merge", "-p", &release]);
        let objects = Objects {
            beacon: 1,
            ..Objects::default()
        };
        patch_group(&objects.group());
        let disk = SmallDisk::mount(state_dir(DIRECTOR));
        let life = Life::begin(&director);
        let mut api = Kinds::connect();
        let (service, server) = beacon(1);
        api.put(&service, true);
        api.put(&server, true);
        Self {
            seed,
            steps: 0,
            api,
            life,
            disk,
            objects,
            strangers: Strangers::default(),
            director,
            _segments: segments,
            _cluster: cluster,
        }
    }

    pub(crate) fn run(mut self, steps: usize) {
        self.settle("the beginning");
        while self.steps < steps {
            let mut rng = self.rng();
            match rng.u32(..20) {
                0 => self.lose_the_api_server(rng.usize(4..9)),
                // The agent removes an entry only 10 s after the deletion of
                // its object. Waiting for the expected table therefore takes 10
                // s.
                1..3 => self.fill_the_disk(rng.usize(10..20)),
                _ => self.go(rng.usize(15..25), any_step),
            }
            self.settle("a settling");
        }
        self.end();
        let (deaths, at_a_call) = self.life.deaths;
        println!(
            "{} steps; the agent was killed {deaths} times, {at_a_call} of them at a chosen system call",
            self.steps
        );
        assert!(
            at_a_call > 0 || self.steps < 100,
            "strace must have killed the agent at least once"
        );
    }

    /// Returns a random number generator for the next step. The generator's
    /// numbers depend only on the walk's seed and the number of the step.
    fn rng(&self) -> Rng {
        let step = u64::try_from(self.steps).expect("steps can be counted");
        let mut rng = Rng::with_seed(self.seed);
        Rng::with_seed(rng.u64(..) ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn go(&mut self, steps: usize, choose: fn(&mut Rng) -> Step) {
        for _ in 0..steps {
            let mut rng = self.rng();
            rng.u64(..);
            self.steps += 1;
            let step = choose(&mut rng);
            self.take(step);
            sleep(Duration::from_millis(rng.u64(..300)));
        }
    }

    fn lose_the_api_server(&mut self, steps: usize) {
        self.say("the API server goes away");
        let away = ApiServerAway::begin();
        self.go(steps, step_without_objects);
        self.settle_table("the API server is away");
        drop(away);
        self.say("the API server is back");
        self.api = Kinds::connect();
        self.settle("the API server came back");
    }

    fn fill_the_disk(&mut self, steps: usize) {
        self.say("the disk is full");
        self.disk.fill();
        self.go(steps, any_step);
        self.disk.free();
        self.say("the disk has space");
        self.settle("the disk has space again");
        self.wait_until_written();
    }

    /// Waits until the Director reports no problem with the agent's disk.
    fn wait_until_written(&mut self) {
        eventually("the Director to report a working disk", PATIENCE, || {
            self.life.resume();
            let path = "jsonpath={.status.conditions[*].reason} {.status.notices}";
            let said = kubectl(&["get", &format!("idir/{DIRECTOR}"), "-o", path]);
            let is_in_trouble =
                said.contains("StateFolderUnavailable") || said.contains("checkpoint");
            match is_in_trouble {
                true => Err(said),
                false => Ok(()),
            }
        });
    }

    /// Deletes every VirtualService and RealServer, and waits until none of our
    /// entries is left in the kernel.
    fn end(&mut self) {
        for index in 0..SERVICES.len() {
            self.take(Step::DeleteService(index));
        }
        for index in 0..SERVERS.len() {
            self.take(Step::DeleteServer(index));
        }
        self.settle("all objects are deleted");
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::PutService(index, service) => {
                let known = self.objects.services.get(&index).map(|(age, _)| age);
                let (age, is_new) = (known.cloned(), known.is_none());
                self.say(&format!("{} {service:?}", SERVICES[index].name));
                let made = self.api.put(&service.json(&SERVICES[index]), is_new);
                let age = age.unwrap_or((made, SERVICES[index].name));
                self.objects.services.insert(index, (age, service));
            }
            Step::PutServer(index, server) => {
                let (name, address) = SERVERS[index];
                let known = self.objects.servers.get(&index).map(|(age, _)| age);
                let (age, is_new) = (known.cloned(), known.is_none());
                self.say(&format!("{name} {address} {server:?}"));
                let made = self.api.put(&server.json(name, address), is_new);
                let age = age.unwrap_or((made, name));
                self.objects.servers.insert(index, (age, server));
            }
            Step::DeleteService(index) => {
                if self.objects.services.remove(&index).is_some() {
                    self.say(&format!("delete service {}", SERVICES[index].name));
                    self.api.delete_service(SERVICES[index].name);
                }
            }
            Step::DeleteServer(index) => {
                if self.objects.servers.remove(&index).is_some() {
                    self.say(&format!("delete server {}", SERVERS[index].0));
                    self.api.delete_server(SERVERS[index].0);
                }
            }
            Step::ReplaceService(index, service) => {
                self.take(Step::DeleteService(index));
                self.take(Step::PutService(index, service));
                return;
            }
            Step::ReplaceServer(index, server) => {
                self.take(Step::DeleteServer(index));
                self.take(Step::PutServer(index, server));
                return;
            }
            Step::TurnGrant(index) => {
                self.objects.turn_grant(index);
                self.say(&format!("not granted now: {:?}", self.objects.revoked));
                patch_group(&self.objects.group());
            }
            Step::Stranger(deed) => self.do_deed(deed),
            Step::Kill => {
                self.say("kill");
                self.life.kill();
            }
            Step::Stop => {
                self.say("stop");
                self.life.stop();
            }
            Step::Doom(system_call, nth) => {
                self.say(&format!("kill, and at {system_call} number {nth} again"));
                self.life.doom(system_call, nth);
            }
            Step::Resume => self.life.resume(),
        }
        self.strangers.wish(&self.objects.desired());
    }

    fn do_deed(&mut self, deed: Deed) {
        match deed {
            Deed::MakeService(key, scheduler) => {
                self.make(&Entry::service(&key), scheduler, 0);
            }
            Deed::MakeServer(key, server, weight) => {
                self.make(&Entry::server(&key, &server), "", weight);
            }
            Deed::Edit(which, scheduler, weight) => {
                let Some(entry) = self.one_within_reach(which) else {
                    return;
                };
                let line = stranger_makes(&entry, scheduler, weight);
                if self.ipvsadm(&stranger_edits(&line)) {
                    self.strangers.edited(&entry, line);
                }
            }
            Deed::Remove(which) => {
                let Some(entry) = self.one_within_reach(which) else {
                    return;
                };
                if self.ipvsadm(&stranger_removes(&entry)) {
                    self.strangers.removed(&entry);
                }
            }
            Deed::Clear => {
                if self.ipvsadm("-C") {
                    self.strangers.cleared();
                }
            }
        }
    }

    fn make(&mut self, entry: &Entry, scheduler: &str, weight: u32) {
        if self.objects.desired().contains_key(entry) {
            return;
        }
        let line = stranger_makes(entry, scheduler, weight);
        if self.ipvsadm(&line) {
            self.strangers.made(entry, line);
        }
    }

    fn one_within_reach(&self, which: usize) -> Option<Entry> {
        let mut all = self.strangers.within_reach();
        (!all.is_empty()).then(|| all.swap_remove(which % all.len()))
    }

    /// Runs ipvsadm, and returns whether it succeeded.
    fn ipvsadm(&mut self, arguments: &str) -> bool {
        let done = self.director.try_run(&format!("ipvsadm {arguments}"));
        let outcome = match &done {
            Ok(_) => String::new(),
            Err(failed) => format!(": {}", failed.stderr().trim()),
        };
        self.say(&format!("ipvsadm {arguments}{outcome}"));
        done.is_ok()
    }

    /// Waits until the director has seen every change of an object, and the
    /// kernel has the expected table and VIPs.
    fn settle(&mut self, when: &str) {
        self.objects.beacon += 1;
        let (service, server) = beacon(self.objects.beacon);
        self.api.put(&service, false);
        self.api.put(&server, false);
        self.settle_table(when);
    }

    fn settle_table(&mut self, when: &str) {
        let began = Instant::now();
        let desired = self.objects.desired();
        let found = loop {
            self.life.resume();
            let found = table::of_kernel(&self.director);
            let mut objections = self.strangers.objections(&found, &desired);
            if objections.is_empty() {
                objections = self.wrong_addresses();
            }
            if objections.is_empty() {
                objections = self.wrong_timeout();
            }
            if objections.is_empty() {
                break found;
            }
            if began.elapsed() > PATIENCE {
                self.fail(when, &objections, &found, &desired);
            }
            sleep(INTERVAL);
        };
        self.say(&format!("{when}, settled after {:?}", began.elapsed()));
        self.strangers.settled(&found, &desired);
        self.settle_trail(when, &found, &desired);
    }

    /// Waits until the audit trail alone tells which entries of the kernel's
    /// table `found` are the agent's: the desired ones.
    fn settle_trail(&mut self, when: &str, found: &Table, desired: &Table) {
        let ours = found.iter();
        let ours = ours.filter(|(entry, _)| desired.contains_key(entry));
        let ours: BTreeSet<_> = ours.map(|(_, line)| line.clone()).collect();
        let mut command = program("ipvs-agent");
        command.env("IPVS_STATE_DIR", self.disk.path());
        command.args(["history", "--table"]);
        let what = format!("{when}: the trail to tell what is the agent's in the kernel");
        eventually(&what, PATIENCE, || {
            let told = self.director.try_command(&mut command);
            let told = told.map_err(|failed| failed.stderr())?;
            let told = told.lines().filter(|line| line.starts_with('-'));
            let told: BTreeSet<_> = told.map(str::to_owned).collect();
            let differing = told.symmetric_difference(&ours);
            match differing.collect::<Vec<_>>() {
                differing if differing.is_empty() => Ok(()),
                differing => Err(format!("{differing:#?}")),
            }
        });
    }

    /// Returns how the kernel's UDP timeout differs from the group's UDP
    /// timeout.
    fn wrong_timeout(&self) -> Vec<String> {
        let shown = self.director.run("ipvsadm -l --timeout");
        let wanted = self.objects.udp_seconds().to_string();
        match shown.split_whitespace().last() == Some(&wanted) {
            true => Vec::new(),
            false => vec![format!("the UDP timeout must be {wanted}: {shown}")],
        }
    }

    /// Returns a line of text for each difference between the director's VIPs
    /// and the expected VIPs.
    fn wrong_addresses(&self) -> Vec<String> {
        let shown = self.director.run("ip -brief address show dev eth0");
        let words = shown.split_whitespace();
        let held: BTreeSet<_> = words
            .filter_map(|word| word.strip_suffix("/32").or(word.strip_suffix("/128")))
            .map(str::to_owned)
            .collect();
        let wanted = self.objects.vips();
        match held == wanted {
            true => Vec::new(),
            false => vec![format!("held: {held:?}, wanted: {wanted:?}")],
        }
    }

    fn fail(&self, when: &str, objections: &[String], found: &Table, desired: &Table) -> ! {
        panic!(
            "{when}, but the kernel is wrong:\n{}\n\n\
             in the kernel:\n{}\nwanted:\n{}\nstrangers':\n{}\n\
             again: IPVS_WALK_SEED={} IPVS_WALK_STEPS={}",
            objections.join("\n"),
            table::lines(found),
            table::lines(desired),
            self.strangers.lines(),
            self.seed,
            self.steps,
        );
    }

    /// Prints a line about the walk's progress. If the test fails, its output
    /// contains the line.
    fn say(&self, line: &str) {
        println!("{:3} {line}", self.steps);
    }
}

/// Applies a patch to the DirectorGroup `default`.
fn patch_group(patch: &Value) {
    let patch = patch.to_string();
    kubectl(&["patch", "idg/default", "--type=merge", "-p", &patch]);
}

/// A Kubernetes client for VirtualServices and RealServers.
struct Kinds {
    runtime: Runtime,
    services: Api<DynamicObject>,
    servers: Api<DynamicObject>,
}

impl Kinds {
    fn connect() -> Self {
        let runtime = Runtime::new().expect("a runtime starts");
        let client = runtime
            .block_on(Client::try_default())
            .expect("the lab has a kubeconfig");
        let api = |kind: &str, plural: &str| {
            let kind = GroupVersionKind::gvk("ipvs.dev", "v1alpha1", kind);
            let resource = ApiResource::from_gvk_with_plural(&kind, plural);
            Api::default_namespaced_with(client.clone(), &resource)
        };
        Self {
            services: api("VirtualService", "ipvsvirtualservices"),
            servers: api("RealServer", "realservers"),
            runtime,
        }
    }

    /// Creates or edits an object in the API server, and returns the object's
    /// creation time.
    fn put(&mut self, object: &Value, is_new: bool) -> String {
        let typed: DynamicObject =
            serde_json::from_value(object.clone()).expect("the object has kind and name");
        let name = typed.metadata.name.clone().expect("the object has a name");
        let api = match object["kind"] == "VirtualService" {
            true => &self.services,
            false => &self.servers,
        };
        let put = self.runtime.block_on(async {
            match is_new {
                true => api.create(&PostParams::default(), &typed).await,
                false => {
                    let patch = Patch::Merge(object);
                    api.patch(&name, &PatchParams::default(), &patch).await
                }
            }
        });
        let put = put.unwrap_or_else(|error| panic!("cannot write {object}: {error}"));
        let made = put
            .metadata
            .creation_timestamp
            .expect("the API server sets the creation time");
        made.0.to_string()
    }

    fn delete_service(&mut self, name: &str) {
        self.delete(&self.services, name);
    }

    fn delete_server(&mut self, name: &str) {
        self.delete(&self.servers, name);
    }

    fn delete(&self, api: &Api<DynamicObject>, name: &str) {
        let deleted = self
            .runtime
            .block_on(api.delete(name, &DeleteParams::default()));
        deleted.unwrap_or_else(|error| panic!("cannot delete {name}: {error}"));
    }
}
