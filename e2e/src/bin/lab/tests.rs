//! `lab tests` runs every test that needs a lab, in several labs at once. `lab
//! tests` prints the output of each lab in one piece when the lab has ended.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use e2e::suite::{Share, Verdict, labs_at_once, nodes, places, second_kernel, shares};

use crate::cage::prepare_root;
use crate::kind::Kind;
use crate::signals::Signals;
use crate::test_binaries::{self, TestBinary, workspace};
use crate::tools::kernel_for;

#[derive(Args)]
pub(crate) struct Tests {
    /// How many labs run at once [default: depends on processors and free
    /// memory; 1 on kernel host, whose modules all labs share]
    #[arg(long, env = "LAB_JOBS", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,

    /// The kernel to run the tests on [default: host if its kernel has ip_vs,
    /// else uml, and uml-packaged for tests that need iptables]
    #[arg(long, env = "LAB_KERNEL")]
    kernel: Option<Kind>,

    /// Build the tests and the programs that they need, but run nothing
    #[arg(long)]
    no_run: bool,

    /// A file to which the run time of each lab is appended (see
    /// e2e/tools/timed)
    #[arg(long, env = "TEST_TIMES")]
    times: Option<PathBuf>,

    /// The test binaries to run, such as e2e_traffic [default: all]
    names: Vec<String>,
}

/// The longest sleep before `lab tests` looks again for labs that have ended.
const A_WHILE: Duration = Duration::from_secs(60);

/// How many lines of its output are shown again for a lab that came to no good
/// end.
const LAST_LINES: usize = 40;

/// Builds and runs the tests that need a lab.
pub(crate) fn run(tests: &Tests) -> Result<ExitCode> {
    let (mut binaries, programs) = test_binaries::build()?;
    if !tests.names.is_empty() {
        let has = |name: &String| binaries.iter().any(|binary| binary.name == *name);
        if let Some(name) = tests.names.iter().find(|name| !has(name)) {
            bail!("no test binary {name} needs a lab");
        }
        binaries.retain(|binary| tests.names.contains(&binary.name));
    }
    if binaries.iter().any(|binary| nodes(&binary.name) > 0) {
        test_binaries::build_programs(&programs, "nodes")?;
    }
    if tests.no_run {
        return Ok(ExitCode::SUCCESS);
    }
    let lab = programs.join("lab");
    let logs = programs
        .parent()
        .context("Cargo's folder has one around it")?
        .join("lab");
    prepare_root()?;
    let mut queue = queue(&binaries, tests.kernel)?;
    let total = queue.len();
    let is_shared = queue.iter().any(|job| job.kernel == Kind::Host);
    let jobs = match tests.jobs {
        Some(jobs) => jobs.into(),
        None if is_shared => 1,
        None => labs_at_once(available_parallelism()?.get(), free_mebibytes()?),
    };
    say(&format!(
        "{total} labs, {jobs} at once; the output of each comes when it has ended"
    ));

    let signals = Signals::block()?;
    let began = Instant::now();
    let mut running: Vec<Running<'_>> = Vec::new();
    let mut ended = Vec::new();
    while !queue.is_empty() || !running.is_empty() {
        let taken = |running: &[Running<'_>]| -> usize {
            let places = |lab: &Running<'_>| places(&lab.job.binary.name, jobs);
            running.iter().map(places).sum()
        };
        while let Some(job) = queue.front()
            && taken(&running) + places(&job.binary.name, jobs) <= jobs
            && let Some(job) = queue.pop_front()
        {
            let begun = Running::begin(job, &lab, &logs)?;
            say(&format!("{} begins", begun.job.label()));
            running.push(begun);
        }
        signals.wait(A_WHILE, None)?;
        while let Some((index, status)) = first_ended(&mut running)? {
            let end = running.swap_remove(index).end(status)?;
            end.show()?;
            if let Some(times) = &tests.times {
                end.note_time(times)?;
            }
            say(&format!(
                "{} ended {} after {:.0} s; {} to come",
                end.job.label(),
                if end.is_good() { "well" } else { "badly" },
                end.took.as_secs_f64(),
                running.len() + queue.len()
            ));
            ended.push(end);
        }
    }
    Ok(conclude(&ended, began.elapsed()))
}

/// The tests that one lab runs, and the kernel on which the lab runs these
/// tests.
struct Job<'a> {
    binary: &'a TestBinary,
    share: Share,
    kernel: Kind,
    /// Whether this job runs tests on the second kernel, while another job runs
    /// the same tests on the first kernel.
    is_second: bool,
}

/// Returns the jobs of all test binaries, the longest first. All jobs run on
/// `chosen`, if the user has chosen a kernel. Otherwise each test binary runs on the
/// kernel that suits it, and some get a job on the second kernel as well.
fn queue(binaries: &[TestBinary], chosen: Option<Kind>) -> Result<VecDeque<Job<'_>>> {
    let mut jobs = Vec::new();
    for binary in binaries {
        let tests = binary.tests()?;
        let kernel = chosen.unwrap_or_else(|| kernel_for(&binary.program));
        let shares = shares(&binary.name, &tests).into_iter();
        jobs.extend(shares.map(|share| Job {
            binary,
            share,
            kernel,
            is_second: false,
        }));
        if let Some(share) = second_kernel(&binary.name, &tests).filter(|_| chosen.is_none()) {
            jobs.push(Job {
                binary,
                share,
                kernel: Kind::Qemu,
                is_second: true,
            });
        }
    }
    jobs.sort_by_key(|job| std::cmp::Reverse(job.share.seconds));
    Ok(jobs.into())
}

impl Job<'_> {
    /// Returns the job's name for messages and file names.
    fn label(&self) -> String {
        let name = &self.binary.name;
        match self.share.number {
            _ if self.is_second => format!("{name}-{}", self.kernel.name()),
            (_, 1) => name.clone(),
            (number, _) => format!("{name}-{number}"),
        }
    }

    /// Returns the job's additional environment variables. The second kernel is
    /// slow, so `IPVS_WALK_STEPS` shortens the random walk of the test
    /// `e2e_walk` on that kernel.
    fn environment(&self) -> Vec<(&'static str, &'static str)> {
        match self.is_second {
            true => vec![
                ("LAB_KERNEL", self.kernel.name()),
                ("IPVS_WALK_STEPS", "50"),
            ],
            false => Vec::new(),
        }
    }

    fn command(&self, lab: &Path, logs: &Path) -> Command {
        let mut command = Command::new(lab);
        command.arg("run");
        // Test binaries named `e2e_…` get an API server, as in
        // e2e/tools/runner.
        if self.binary.name.starts_with("e2e_") {
            command.arg("--api-server");
        }
        let nodes = nodes(&self.binary.name);
        if nodes > 0 {
            command.arg(format!("--nodes={nodes}"));
        }
        command
            .arg("--while-input-lasts")
            .arg("--logs")
            .arg(logs)
            .arg("--")
            .arg(&self.binary.program);
        if !self.share.tests.is_empty() {
            command.arg("--exact").args(&self.share.tests);
        }
        // Like Cargo, the lab runs a test in the folder of the test's package
        // and sets CARGO_MANIFEST_DIR.
        command
            .current_dir(&self.binary.folder)
            .env("CARGO_MANIFEST_DIR", &self.binary.folder)
            .env("LAB_KERNEL", self.kernel.name())
            .envs(self.environment());
        command
    }

    /// Returns the command line with which a user runs one of the job's tests
    /// again.
    fn again(&self, test: &str) -> String {
        let TestBinary { package, name, .. } = self.binary;
        let environment = self.environment().into_iter();
        let environment: String = environment
            .map(|(name, value)| format!("{name}={value} "))
            .collect();
        format!("{environment}cargo test -p {package} --test {name} {test} -- --exact --nocapture")
    }
}

/// A running lab and its job.
struct Running<'a> {
    job: Job<'a>,
    child: Tied,
    began: Instant,
    logs: PathBuf,
    output: PathBuf,
}

/// A lab's process. Dropping a `Tied` stops the lab and waits until the lab has
/// ended.
struct Tied(Child);

impl Drop for Tied {
    fn drop(&mut self) {
        // `Child::wait` closes the lab's standard input, and the lab stops when
        // its input ends.
        let _ = self.0.wait();
    }
}

impl<'a> Running<'a> {
    fn begin(job: Job<'a>, lab: &Path, folder: &Path) -> Result<Self> {
        let logs = folder.join(job.label());
        if logs.exists() {
            fs::remove_dir_all(&logs)
                .with_context(|| format!("removing old logs in {}", logs.display()))?;
        }
        fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        let output = logs.with_extension("output");
        let file = File::create(&output)?;
        let child = job
            .command(lab, &logs)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {}", lab.display()))?;
        Ok(Self {
            job,
            child: Tied(child),
            began: Instant::now(),
            logs,
            output,
        })
    }

    fn end(self, status: ExitStatus) -> Result<Ended<'a>> {
        let output =
            fs::read(&self.output).with_context(|| format!("reading {}", self.output.display()))?;
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(Ended {
            status,
            verdict: Verdict::read(&output),
            output,
            took: self.began.elapsed(),
            logs: self.logs,
            job: self.job,
        })
    }
}

/// Returns the index and exit status of the first lab in `running` that has
/// ended.
fn first_ended(running: &mut [Running<'_>]) -> Result<Option<(usize, ExitStatus)>> {
    for (index, lab) in running.iter_mut().enumerate() {
        if let Some(status) = lab.child.0.try_wait().context("looking at a lab")? {
            return Ok(Some((index, status)));
        }
    }
    Ok(None)
}

/// A lab that has ended, with its job and its result.
struct Ended<'a> {
    job: Job<'a>,
    status: ExitStatus,
    /// The result of the lab's tests, or `None` if the tests did not finish.
    verdict: Option<Verdict>,
    output: String,
    took: Duration,
    logs: PathBuf,
}

impl Ended<'_> {
    /// Returns whether the lab succeeded and no test failed.
    fn is_good(&self) -> bool {
        let verdict = self.verdict.as_ref();
        self.status.success() && verdict.is_some_and(|verdict| verdict.failed.is_empty())
    }

    /// Prints the lab's output, below a heading in the style of Cargo's
    /// headings for test binaries.
    fn show(&self) -> Result<()> {
        let TestBinary {
            folder,
            source,
            program,
            ..
        } = self.job.binary;
        let source = source.strip_prefix(folder).unwrap_or(source);
        let program = shortened(program);
        let mut stdout = io::stdout().lock();
        write!(
            stdout,
            "     Running {} ({})\n{}\n",
            source.display(),
            program.display(),
            self.output
        )?;
        Ok(stdout.flush()?)
    }

    /// Appends the lab's run time to the file `times`.
    fn note_time(&self, times: &Path) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(times)?;
        let (name, seconds) = (self.job.label(), self.took.as_secs_f64());
        writeln!(file, "lab {name} {seconds:.0}")
            .with_context(|| format!("writing {}", times.display()))
    }

    /// Prints which tests of the lab failed, how to run these tests again, and
    /// where the lab's logs are.
    fn complain(&self) {
        let label = self.job.label();
        match &self.verdict {
            Some(verdict) if !verdict.failed.is_empty() => {
                for test in &verdict.failed {
                    say(&format!("FAILED: {label} {test}"));
                    say(&format!("  again: {}", self.job.again(test)));
                }
            }
            _ => {
                say(&format!(
                    "FAILED: {label} came to no good end: {}",
                    self.status
                ));
                say(&format!("  again: {}", self.job.again("")));
                say("  the end of its output:");
                let lines: Vec<_> = self.output.lines().collect();
                for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                    println!("    {line}");
                }
            }
        }
        say(&format!("  its logs: {}/", shortened(&self.logs).display()));
    }
}

/// Prints the results of all labs, the failures last, and returns the exit
/// code.
fn conclude(ended: &[Ended<'_>], took: Duration) -> ExitCode {
    let verdicts = ended.iter().filter_map(|lab| lab.verdict.as_ref());
    let passed: usize = verdicts.clone().map(|verdict| verdict.passed).sum();
    let failed: usize = verdicts.map(|verdict| verdict.failed.len()).sum();
    let bad: Vec<_> = ended.iter().filter(|lab| !lab.is_good()).collect();
    say(&format!(
        "{passed} tests passed and {failed} failed in {} labs, after {} s",
        ended.len(),
        took.as_secs()
    ));
    bad.iter().for_each(|lab| lab.complain());
    match bad.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Returns the machine's available memory in MiB.
fn free_mebibytes() -> Result<usize> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: usize = kibibytes
        .context("/proc/meminfo says how much memory is available")?
        .parse()
        .context("a number")?;
    Ok(kibibytes / 1024)
}

/// Returns a path relative to the root folder of the repository.
fn shortened(path: &Path) -> &Path {
    path.strip_prefix(workspace()).unwrap_or(path)
}

fn say(words: &str) {
    println!("lab: {words}");
}
