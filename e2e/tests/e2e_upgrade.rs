//! Upgrades from the last release, and downgrades to it: with its programs and
//! its chart, which e2e/tools/install builds.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crds::crd::SCHEMA;
use e2e::{
    Asking, Host, Process, Transfers,
    cluster::{
        Cluster, PATIENCE, agent, chart, controller, example, install_chart_from,
        install_the_last_definitions, name_holder, value, wait_for, wait_until_ready,
    },
    control::try_kubectl,
    course::{Course, DR_VIP},
    eventually, kubectl_apply,
    layout::Which,
};

/// The oldest that a director's report may become: 60 s, counted in looks. While
/// a busy machine stands still, there are no looks.
const OLDEST: usize = 120;
/// The pause between two looks at the reports.
const LOOK: Duration = Duration::from_millis(500);

const DIRECTORS: [&str; 2] = ["director1", "director2"];

/// The releases between which the tests change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Release {
    Last,
    This,
}

/// What is changed first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum First {
    Agents,
    Controller,
}

fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tools/bin")
        .join(name);
    assert!(path.exists(), "{name} is built (make tools)");
    path
}

impl Release {
    /// Installs the chart of this release. helm does not change definitions.
    fn install_chart(self) {
        let chart = match self {
            Self::Last => tool("older-chart.tgz"),
            Self::This => chart(),
        };
        install_chart_from(&chart, Which::First);
    }

    /// Returns the command line of this release's program, from that of a
    /// program of this build.
    fn program(self, usual: &Command) -> Command {
        let name = Path::new(usual.get_program()).file_name();
        let name = name.expect("a program has a name").to_string_lossy();
        let mut command = match self {
            Self::Last => Command::new(tool(&format!("older-{name}"))),
            Self::This => Command::new(usual.get_program()),
        };
        command.args(usual.get_args());
        let environment = usual.get_envs();
        command.envs(environment.filter_map(|(name, value)| Some((name, value?))));
        command
    }
}

/// Returns the schema number of the definition of Directors.
fn schema() -> String {
    value(
        "crd/directors.ipvs.dev",
        r".metadata.annotations.ipvs\.dev/schema",
    )
}

/// Edits a VirtualService again and again, and measures how long each director
/// goes without a report of the edits.
struct Reports {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    watching: Option<JoinHandle<()>>,
}

/// What each director reported last, the number of looks that have seen this
/// report, and the largest such number.
type Seen = BTreeMap<String, (String, usize, usize)>;

impl Reports {
    fn watch() -> Self {
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Seen>>::default());
        let watching = thread::spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || {
                for scheduler in ["rr", "wrr"].iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let patch = format!(r#"{{"spec":{{"scheduler":"{scheduler}"}}}}"#);
                    try_kubectl(&["patch", "ivs/web", "--type=merge", "-p", &patch]);
                    for _ in 0..4 {
                        look(&mut seen.lock().expect("no look fails"));
                        thread::sleep(LOOK);
                    }
                }
            }
        });
        Self {
            stop,
            seen,
            watching: Some(watching),
        }
    }

    /// Waits until a director has reported twice from now on. The first report
    /// may be of an agent that has just ended.
    #[track_caller]
    fn wait_for(&self, director: &str) {
        for _ in 0..2 {
            let report = || {
                let seen = self.seen.lock().expect("no look fails");
                seen.get(director).map(|(used, ..)| used.clone())
            };
            let before = report();
            eventually(
                &format!("{director} to report an edit"),
                PATIENCE,
                || match report() {
                    now if now.is_some() && now != before => Ok(()),
                    now => Err(format!("{now:?}")),
                },
            );
        }
    }

    /// Ends the edits, and returns the age that each director's report reached,
    /// in looks.
    fn end(mut self) -> BTreeMap<String, usize> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watching) = self.watching.take() {
            watching.join().expect("the edits go on");
        }
        let seen = self.seen.lock().expect("no look fails").clone();
        let ages = seen
            .into_iter()
            .map(|(name, (_, _, longest))| (name, longest));
        ages.collect()
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(seen: &mut Seen) {
    let used = r#"jsonpath={range .items[*]}{.metadata.name} {.status.used}{"\n"}{end}"#;
    let found = try_kubectl(&["get", "idir", "-o", used]);
    let found: BTreeMap<_, _> = found
        .stdout
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    for director in DIRECTORS {
        let (last, looks, longest) = seen.entry(director.to_owned()).or_default();
        // A look that fails shows no new report.
        let used = found.get(director).copied().unwrap_or(last).to_owned();
        *looks = if *last == used { *looks + 1 } else { 0 };
        *longest = (*longest).max(*looks);
        *last = used;
    }
}

/// Two directors with their agents, and a controller.
struct Fleet<'a> {
    cluster: Cluster,
    hosts: [&'a Host; 2],
    agents: Vec<Process>,
}

impl Fleet<'_> {
    fn start_agents(&mut self, release: Release) {
        for (host, director) in self.hosts.iter().zip(DIRECTORS) {
            let name = format!("agent-{director}-{release:?}");
            let mut command = release.program(&agent(director));
            self.agents.push(Process::start(host, &name, &mut command));
        }
    }

    /// Replaces the agents one after another, as a DaemonSet does.
    fn change_agents(&mut self, release: Release, reports: &Reports, transfers: &Transfers) {
        for (index, director) in DIRECTORS.into_iter().enumerate() {
            let end = self.agents[index].terminate(PATIENCE);
            assert!(
                end.success(),
                "the agent of {director} ends by itself: {end}"
            );
            let began = Instant::now();
            let name = format!("agent-{director}-{release:?}");
            let mut command = release.program(&agent(director));
            self.agents[index] = Process::start(self.hosts[index], &name, &mut command);
            reports.wait_for(director);
            let gap = began.elapsed();
            println!("{director} of the {release:?} release reports after {gap:.1?}");
            transfers.expect_to_move(&format!("with {director} of the {release:?} release"));
        }
    }

    fn change_controller(&mut self, release: Release) {
        let identity = format!("controller-{release:?}");
        let mut command = release.program(&controller(&identity.to_lowercase()));
        self.cluster.replace_controller(&mut command);
    }

    /// Changes all programs to another release.
    fn change(&mut self, release: Release, first: First, reports: &Reports, transfers: &Transfers) {
        release.install_chart();
        if first == First::Controller {
            self.change_controller(release);
            transfers.expect_to_move("with another controller");
        }
        self.change_agents(release, reports, transfers);
        if first == First::Agents {
            self.change_controller(release);
        }
        for director in DIRECTORS {
            wait_for(&format!("idir/{director}"), "Ready", "True");
        }
        wait_until_ready(&["web"]);
    }
}

fn upgrade_and_downgrade(first: First) {
    let course = Course::dr();
    let second = course.another_director("director2", "192.168.4.6/24");
    let mut fleet = Fleet {
        cluster: Cluster::start(),
        hosts: [&course.director, &second],
        agents: Vec::new(),
    };
    Release::Last.install_chart();
    install_the_last_definitions();
    assert_eq!(schema(), "", "the last release has no numbers");
    fleet.change_controller(Release::Last);
    name_holder("director1");
    kubectl_apply(&example("dr-cluster.yaml"));
    fleet.start_agents(Release::Last);
    wait_until_ready(&["web"]);
    let transfers = Transfers::begin(&course.browser(), DR_VIP, 2);
    let asking = Asking::pages(&course.browser(), DR_VIP);
    let began = Instant::now();
    let reports = Reports::watch();

    fleet.change(Release::This, first, &reports, &transfers);
    eventually(
        "the definitions to be upgraded",
        PATIENCE,
        || match schema() {
            found if found == SCHEMA.to_string() => Ok(()),
            found => Err(found),
        },
    );
    for director in DIRECTORS {
        wait_for(&format!("idir/{director}"), "DefinitionOlder", "False");
    }
    transfers.expect_to_move("after the upgrade");

    fleet.change(Release::Last, first, &reports, &transfers);
    let left = schema();
    assert_eq!(
        left,
        SCHEMA.to_string(),
        "a downgrade leaves the newer definitions"
    );
    transfers.expect_to_move("after the downgrade");

    let ages = reports.end();
    println!("the oldest report of each director, in looks of {LOOK:?}: {ages:?}");
    for (director, age) in ages {
        assert!(age < OLDEST, "the report of {director} was {age} looks old");
    }
    let failed = asking.failed(began);
    assert!(failed.is_empty(), "no request fails: {failed:?}");
    transfers.finish();
}

#[test]
fn agents_upgraded_first_and_downgraded_first_go_on_to_report_and_to_serve() {
    upgrade_and_downgrade(First::Agents);
}

#[test]
fn a_controller_upgraded_first_and_downgraded_first_gets_every_report() {
    upgrade_and_downgrade(First::Controller);
}
