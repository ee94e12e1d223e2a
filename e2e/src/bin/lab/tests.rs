//! `lab tests`: runs every test that needs a lab, several labs at once. The
//! output of a lab is printed in one piece when the lab has ended.

use std::collections::VecDeque;
use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use e2e::suite::{Share, Verdict, labs_at_once, second_kernel, shares};

use crate::kind::Kind;
use crate::signals::Signals;
use crate::test_binaries::{self, TestBinary, workspace};

#[derive(Args)]
pub(crate) struct Tests {
    /// How many labs run at once [default: by processors and free memory]
    #[arg(long, env = "LAB_JOBS", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,

    /// Build everything that is needed, and run nothing
    #[arg(long)]
    no_run: bool,

    /// A file to add the times of the labs to (e2e/tools/timed)
    #[arg(long, env = "TEST_TIMES")]
    times: Option<PathBuf>,

    /// Only these test binaries, such as e2e_table [default: all]
    names: Vec<String>,
}

/// How long to sleep when no signal comes.
const A_WHILE: Duration = Duration::from_secs(60);

/// Builds and runs the tests.
pub(crate) fn run(tests: &Tests) -> Result<ExitCode> {
    let (mut binaries, programs) = test_binaries::build()?;
    if tests.no_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !tests.names.is_empty() {
        let has = |name: &String| binaries.iter().any(|binary| binary.name == *name);
        if let Some(name) = tests.names.iter().find(|name| !has(name)) {
            bail!("no test binary {name} needs a lab");
        }
        binaries.retain(|binary| tests.names.contains(&binary.name));
    }
    let lab = programs.join("lab");
    let logs = programs
        .parent()
        .context("Cargo's folder has one around it")?
        .join("lab");
    let jobs = match tests.jobs {
        Some(jobs) => jobs.into(),
        None => labs_at_once(available_parallelism()?.get(), free_mebibytes()?),
    };
    let mut queue = queue(&binaries)?;
    let total = queue.len();
    say(&format!(
        "{total} labs, {jobs} at once; each lab's output is printed when it ends"
    ));

    let signals = Signals::block()?;
    let began = Instant::now();
    let mut running: Vec<Running<'_>> = Vec::new();
    let mut ended = Vec::new();
    while !queue.is_empty() || !running.is_empty() {
        while running.len() < jobs
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

/// What one lab does.
struct Job<'a> {
    binary: &'a TestBinary,
    share: Share,
    /// Whether it runs on the second kernel, rather than on the one that
    /// LAB_KERNEL names or this machine has.
    is_second: bool,
}

/// All jobs, the longest first. Unless LAB_KERNEL names a kernel, some tests
/// run on a second kernel too.
fn queue(binaries: &[TestBinary]) -> Result<VecDeque<Job<'_>>> {
    let is_one_asked_for = env::var_os("LAB_KERNEL").is_some();
    let mut jobs = Vec::new();
    for binary in binaries {
        let shares = shares(&binary.name, &binary.tests()?).into_iter();
        jobs.extend(shares.map(|share| Job {
            binary,
            share,
            is_second: false,
        }));
        if let Some(share) = second_kernel(&binary.name).filter(|_| !is_one_asked_for) {
            jobs.push(Job {
                binary,
                share,
                is_second: true,
            });
        }
    }
    jobs.sort_by_key(|job| std::cmp::Reverse(job.share.seconds));
    Ok(jobs.into())
}

impl Job<'_> {
    /// A name for messages and files.
    fn label(&self) -> String {
        let name = &self.binary.name;
        match self.share.number {
            _ if self.is_second => format!("{name}-{}", Kind::Qemu.name()),
            (_, 1) => name.clone(),
            (number, _) => format!("{name}-{number}"),
        }
    }

    /// The environment variables of the lab, for what its arguments do not set.
    fn environment(&self) -> &'static [(&'static str, &'static str)] {
        match self.is_second {
            true => &[("LAB_KERNEL", "qemu"), ("IPVS_WALK_STEPS", "50")],
            false => &[],
        }
    }

    fn command(&self, lab: &Path, logs: &Path) -> Command {
        let mut command = Command::new(lab);
        command.arg("run");
        // By the name, as e2e/tools/runner does.
        if self.binary.name.starts_with("e2e_") {
            command.arg("--api-server");
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
        // As Cargo does it.
        command
            .current_dir(&self.binary.folder)
            .env("CARGO_MANIFEST_DIR", &self.binary.folder)
            .envs(self.environment().iter().copied());
        command
    }

    /// The command line that runs one of its tests again.
    fn again(&self, test: &str) -> String {
        let TestBinary { package, name, .. } = self.binary;
        let environment = self.environment().iter();
        let environment: String = environment
            .map(|(name, value)| format!("{name}={value} "))
            .collect();
        format!("{environment}cargo test -p {package} --test {name} {test} -- --exact --nocapture")
    }
}

/// A lab that is running.
struct Running<'a> {
    job: Job<'a>,
    child: Tied,
    began: Instant,
    logs: PathBuf,
    output: PathBuf,
}

/// A lab's process. Dropping it ends the lab, and waits for that.
struct Tied(Child);

impl Drop for Tied {
    fn drop(&mut self) {
        // The lab ends when its standard input does, and this closes it.
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

/// Returns the first lab that has ended, and how it ended.
fn first_ended(running: &mut [Running<'_>]) -> Result<Option<(usize, ExitStatus)>> {
    for (index, lab) in running.iter_mut().enumerate() {
        if let Some(status) = lab.child.0.try_wait().context("looking at a lab")? {
            return Ok(Some((index, status)));
        }
    }
    Ok(None)
}

/// A lab that has ended.
struct Ended<'a> {
    job: Job<'a>,
    status: ExitStatus,
    /// None if its tests did not finish.
    verdict: Option<Verdict>,
    output: String,
    took: Duration,
    logs: PathBuf,
}

impl Ended<'_> {
    /// Whether every test passed.
    fn is_good(&self) -> bool {
        let verdict = self.verdict.as_ref();
        self.status.success() && verdict.is_some_and(|verdict| verdict.failed.is_empty())
    }

    /// Prints the lab's output, under a line as Cargo prints it.
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

    /// Adds a line to the file of times.
    fn note_time(&self, times: &Path) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(times)?;
        let (name, seconds) = (self.job.label(), self.took.as_secs_f64());
        writeln!(file, "lab {name} {seconds:.0}")
            .with_context(|| format!("writing {}", times.display()))
    }

    /// The failures, and how to look at them.
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
                    "FAILED: {label} did not finish properly: {}",
                    self.status
                ));
                say(&format!("  again: {}", self.job.again("")));
            }
        }
        say(&format!("  its logs: {}/", shortened(&self.logs).display()));
    }
}

/// Prints the result of all labs, the failures last.
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

/// The available memory of the machine, in MiB.
fn free_mebibytes() -> Result<usize> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: usize = kibibytes
        .context("/proc/meminfo reports no available memory")?
        .parse()
        .context("a number")?;
    Ok(kibibytes / 1024)
}

/// A path as seen from the project's folder.
fn shortened(path: &Path) -> &Path {
    path.strip_prefix(workspace()).unwrap_or(path)
}

fn say(words: &str) {
    println!("lab: {words}");
}
