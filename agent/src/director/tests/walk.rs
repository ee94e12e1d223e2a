//! Random walks of the loop on a modelled host. Services and servers are
//! created, deleted and replaced, grants change, the disk is full at times, and
//! the agent restarts.
//!
//! If an object still exists after a step, its served entries do not disappear
//! during the step, not even for a moment. No service is created without a
//! grant. At the end, the test grants everything, frees the disk and allows all
//! removals. The kernel then has exactly the entries that the objects ask for,
//! and the audit trail alone tells the same.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::trail::{
    book::Book,
    files::{Line, replay},
    ours::Ours,
    round::Round,
};

const PORTS: [i32; 3] = [80, 81, 443];
const SERVERS: [u8; 3] = [1, 2, 3];

#[derive(Clone, Debug)]
enum Step {
    Make(i32),
    Delete(i32),
    /// Deletes a service, and creates it again after the given number of
    /// seconds.
    Replace(i32, u64),
    MakeServer(u8),
    DeleteServer(u8),
    ReplaceServer(u8, u64),
    /// The group begins to grant the VIP (true) or stops granting it (false).
    Grant(bool),
    /// The disk becomes full, or has space again.
    Disk {
        is_full: bool,
    },
    /// The agent's run ends, and the next run starts. If the agent was killed,
    /// the trail lacks the last rounds.
    Restart {
        is_killed: bool,
    },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (port, last) = (select(&PORTS[..]), select(&SERVERS[..]));
    // A replaced object is created again within its grace.
    let pause = 0..10_u64;
    prop_oneof![
        4 => port.clone().prop_map(Step::Make),
        1 => port.clone().prop_map(Step::Delete),
        2 => (port, pause.clone()).prop_map(|(port, pause)| Step::Replace(port, pause)),
        3 => last.clone().prop_map(Step::MakeServer),
        1 => last.clone().prop_map(Step::DeleteServer),
        1 => (last, pause).prop_map(|(last, pause)| Step::ReplaceServer(last, pause)),
        3 => any::<bool>().prop_map(Step::Grant),
        2 => any::<bool>().prop_map(|is_full| Step::Disk { is_full }),
        1 => any::<bool>().prop_map(|is_killed| Step::Restart { is_killed }),
        2 => (1..20_u64).prop_map(Step::Wait),
    ]
}

/// The director's loop on its modelled host, and the existing objects.
struct Walk {
    world: ModelWorld,
    agent: Loop,
    now: Duration,
    /// The port of each existing service, with the number in its uid. `servers`
    /// maps the last byte of each existing server's address to the number in
    /// its uid.
    services: BTreeMap<i32, u32>,
    servers: BTreeMap<u8, u32>,
    is_granted: bool,
    /// The number of objects created so far. `edits` counts the edits of the
    /// group.
    made: u32,
    edits: i64,
    /// The rounds that the agent has told the trail but that are not in
    /// `lines` yet.
    rounds: Receiver<Round>,
    book: Book,
    /// The lines of the trail, each as one JSON document.
    lines: Vec<String>,
}

impl Walk {
    fn begin() -> Self {
        let world = ModelWorld::new();
        let (agent, rounds) = director_with_trail(&world);
        let mut walk = Self {
            world,
            agent,
            rounds,
            book: Book::default(),
            lines: Vec::new(),
            now: Duration::ZERO,
            services: BTreeMap::new(),
            servers: BTreeMap::new(),
            is_granted: true,
            made: 0,
            edits: 1,
        };
        walk.list();
        walk.round();
        walk
    }

    /// Lists all objects to an agent that knows no object.
    fn list(&mut self) {
        let all = self.services.iter();
        let all: Vec<_> = all.map(|(port, uid)| made_service(*port, *uid)).collect();
        let servers_now = self.servers.iter();
        let servers_now: Vec<_> = servers_now
            .map(|(last, uid)| made_server(*last, *uid))
            .collect();
        let mut events = vec![directors(&["a"])];
        events.extend(services(all));
        events.extend(servers(servers_now));
        events.extend(groups([self.group(false)]));
        events.into_iter().for_each(|event| self.agent.note(event));
    }

    fn group(&self, is_released: bool) -> Loose<DirectorGroup> {
        let mut spec = match self.is_granted {
            true => json!({"addressPools": [{"name": "all", "cidrs": ["0.0.0.0/0"]}]}),
            false => json!({}),
        };
        if is_released {
            let until = crate::fixtures::NOON + jiff::SignedDuration::from_mins(10);
            spec["removals"] = json!({"allowUntil": until.to_string()});
        }
        serde_json::from_value(json!({
            "metadata": {"name": "default", "uid": "group", "generation": self.edits},
            "spec": spec,
        }))
        .expect("an envelope that parses")
    }

    fn edit_group(&mut self, is_released: bool) {
        self.edits += 1;
        let group = self.group(is_released);
        self.agent.note(Event::DirectorGroup(Change::Apply(group)));
    }

    fn round(&mut self) {
        self.agent.note(Event::Links);
        read_no_connections(&mut self.agent);
        self.agent.act(self.now);
    }

    /// Takes one step of the walk, and runs a round after it.
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Make(port) => self.make(port),
            Step::Delete(port) => self.delete(port),
            Step::Replace(port, pause) => {
                self.delete(port);
                self.wait(pause);
                self.make(port);
            }
            Step::MakeServer(last) => self.make_server(last),
            Step::DeleteServer(last) => self.delete_server(last),
            Step::ReplaceServer(last, pause) => {
                self.delete_server(last);
                self.wait(pause);
                self.make_server(last);
            }
            Step::Grant(is_granted) => {
                self.is_granted = is_granted;
                self.edit_group(false);
            }
            Step::Disk { is_full } => self.world.parts().disk_broken = is_full,
            Step::Restart { is_killed } => {
                if !is_killed {
                    self.write_trail();
                }
                self.book = Book::new(self.told());
                (self.agent, self.rounds) = director_with_trail(&self.world);
                self.list();
            }
            Step::Wait(seconds) => self.wait(seconds),
        }
        self.round();
    }

    /// Writes the rounds that the trail lacks, as the trail's thread does.
    fn write_trail(&mut self) {
        for round in self.rounds.try_iter() {
            let at = round.at;
            let news = self.book.hear(round);
            let lines = Line::of(news, at, &self.book.ours);
            let lines = lines.iter().map(serde_json::to_string);
            self.lines
                .extend(lines.map(|line| line.expect("a line of the trail is JSON")));
        }
    }

    /// Returns what is the agent's, according to the lines of the trail alone.
    fn told(&self) -> Arc<Ours> {
        let lines = self.lines.iter().map(|line| serde_json::from_str(line));
        let lines: Result<Vec<Line>, _> = lines.collect();
        replay(&lines.expect("what the trail wrote can be read"))
    }

    fn wait(&mut self, seconds: u64) {
        self.round();
        self.now += Duration::from_secs(seconds);
    }

    fn make(&mut self, port: i32) {
        self.made += 1;
        let uid = *self.services.entry(port).or_insert(self.made);
        let object = made_service(port, uid);
        self.agent
            .note(Event::VirtualService(Change::Apply(object)));
    }

    fn delete(&mut self, port: i32) {
        if self.services.remove(&port).is_some() {
            let key = ObjectKey::new("shop", format!("web{port}"));
            self.agent.note(Event::VirtualService(Change::Delete(key)));
        }
    }

    fn make_server(&mut self, last: u8) {
        self.made += 1;
        let uid = *self.servers.entry(last).or_insert(self.made);
        let object = made_server(last, uid);
        self.agent.note(Event::RealServer(Change::Apply(object)));
    }

    fn delete_server(&mut self, last: u8) {
        if self.servers.remove(&last).is_some() {
            let key = ObjectKey::new("shop", format!("web{last}"));
            self.agent.note(Event::RealServer(Change::Delete(key)));
        }
    }

    /// Returns the entries that the objects ask for: the lines of the kernel's
    /// table without weights, and the VIP.
    fn asked(&self) -> BTreeSet<String> {
        let mut asked: BTreeSet<_> = self.wanted().into_iter().map(without_weight).collect();
        if !self.services.is_empty() {
            asked.insert(VIP.to_owned());
        }
        asked
    }

    /// Returns the entries on the host that the objects ask for.
    fn served(&self) -> BTreeSet<String> {
        let mut served = self.asked();
        let table: BTreeSet<_> = self.world.table().into_iter().map(without_weight).collect();
        let is_up = !self.world.interfaces_with(ip(VIP)).is_empty();
        served.retain(|line| table.contains(line) || (line == VIP && is_up));
        served
    }

    /// Gives every grant, frees the disk and allows all removals. Then lets
    /// five minutes pass, so that all graces and all waits for another attempt
    /// end.
    fn calm_down(&mut self) {
        self.world.parts().disk_broken = false;
        self.is_granted = true;
        self.edit_group(true);
        for _ in 0..30 {
            self.wait(10);
        }
        self.round();
    }

    /// Returns the lines that the kernel's table must have after
    /// [`Walk::calm_down`].
    fn wanted(&self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        for port in self.services.keys() {
            lines.insert(format!("-A -t {VIP}:{port} -s wrr"));
            for last in self.servers.keys() {
                lines.insert(format!(
                    "-a -t {VIP}:{port} -r 198.51.100.{last}:{port} -m -w 1"
                ));
            }
        }
        lines
    }
}

/// Removes the weight from a line of a table. Tests ignore the weight, because
/// a deleted server has weight 0 during its grace.
fn without_weight(line: String) -> String {
    match line.split_once(" -w ") {
        Some((entry, _)) => entry.to_owned(),
        None => line,
    }
}

/// Returns the entry that the log line `news` reports as removed. The entry has
/// the form that [`Walk::served`] uses. Returns none if the line reports no
/// removal.
fn taken_away(news: &str) -> Option<String> {
    let vip = news
        .strip_prefix("- ")
        .and_then(|rest| rest.split_once(' '));
    let service = news.strip_prefix("-D ");
    let server = news.strip_prefix("-d ");
    match (vip, service, server) {
        (Some((address, _)), ..) => Some(address.to_owned()),
        (_, Some(key), _) => Some(format!("-A {key} -s wrr")),
        (_, _, Some(server)) => Some(format!("-a {server} -m")),
        _ => None,
    }
}

fn director_with_trail(world: &ModelWorld) -> (Loop, Receiver<Round>) {
    let mut agent = patient_director(&Doors::default(), world);
    let (trail, rounds) = Trail::channel();
    agent.world.trail = trail;
    (agent, rounds)
}

fn made_service(port: i32, uid: u32) -> Loose<VirtualService> {
    let mut object = service(port, "wrr", 1);
    object.metadata.uid = Some(format!("service{uid}"));
    object
}

fn made_server(last: u8, uid: u32) -> Loose<RealServer> {
    let mut object = server(last);
    object.metadata.uid = Some(format!("server{uid}"));
    object
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn grants_that_go_replaced_objects_and_a_full_disk_cut_no_service(
        steps in vec(step(), 0..40),
    ) {
        let mut walk = Walk::begin();
        for step in &steps {
            let (before, could_make) = (walk.served(), walk.is_granted);
            walk.world.news();
            walk.take(step);
            let (news, asked) = (walk.world.news(), walk.asked());
            let mut stay: BTreeSet<_> = before.intersection(&asked).cloned().collect();
            // The agent removes the VIP from the host when no service is left.
            if !stay.iter().any(|line| line.starts_with("-A ")) {
                stay.remove(VIP);
            }
            for gone in news.iter().filter_map(|line| taken_away(line)) {
                prop_assert!(!stay.contains(&gone), "{step:?} cut {gone}: {news:?}");
            }
            prop_assert!(stay.is_subset(&walk.served()), "{step:?}: {news:?}");
            let made = news.iter().any(|line| line.starts_with("-A "));
            prop_assert!(
                !made || could_make || walk.is_granted,
                "{step:?} made a service without a grant: {news:?}"
            );
        }
        walk.calm_down();
        let found: BTreeSet<_> = walk.world.table().into_iter().collect();
        prop_assert_eq!(found, walk.wanted());
        let holders = walk.world.interfaces_with(ip(VIP));
        prop_assert_eq!(holders.is_empty(), walk.services.is_empty());
        walk.write_trail();
        let told = walk.told();
        let table: BTreeSet<_> = told.table().iter().map(Op::to_string).collect();
        prop_assert_eq!(table, walk.wanted(), "the trail tells the kernel's table");
        prop_assert_eq!(told.addresses.contains_key(&ip(VIP)), !holders.is_empty());
    }
}
