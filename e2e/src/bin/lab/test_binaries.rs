//! Builds and lists the test binaries that need a lab, with Cargo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The name patterns of test files that need a lab. `e2e/tools/runner` has the
/// same list of name patterns.
const NEED_A_LAB: [&str; 2] = ["kernel*", "e2e_*"];

/// A test binary that needs a lab.
pub(crate) struct TestBinary {
    /// The name of the test binary and of its source file, such as `e2e_traffic`.
    pub(crate) name: String,
    /// The Cargo package that contains the test binary.
    pub(crate) package: String,
    /// The folder of the test binary's package. The test binary runs in its
    /// package's folder.
    pub(crate) folder: PathBuf,
    /// The path of the test binary's source file.
    pub(crate) source: PathBuf,
    pub(crate) program: PathBuf,
}

/// Builds the test binaries that need a lab, and then the programs that run in
/// a lab, including `lab` itself. Returns the test binaries, and the folder
/// that contains the programs.
pub(crate) fn build() -> Result<(Vec<TestBinary>, PathBuf)> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools");
    let mut cargo = Command::new(tools.join("cargo"));
    cargo
        .args(["test", "--locked", "--workspace", "--no-run", "--quiet"])
        .arg("--message-format=json-render-diagnostics");
    for pattern in NEED_A_LAB {
        cargo.args(["--test", pattern]);
    }
    let built = cargo
        .current_dir(workspace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("starting Cargo")?;
    ensure!(
        built.status.success(),
        "the tests do not build: {}",
        built.status
    );
    let messages = String::from_utf8(built.stdout).context("Cargo's messages")?;
    let binaries = messages.lines().map(read).collect::<Result<Vec<_>>>()?;
    let mut binaries: Vec<_> = binaries.into_iter().flatten().collect();
    binaries.sort_by(|one, other| one.name.cmp(&other.name));

    // A test binary's path looks like
    // target/debug/deps/e2e_traffic-0123456789abcdef.
    let folder = binaries
        .first()
        .and_then(|first| first.program.ancestors().nth(2))
        .context("Cargo names no test that needs a lab")?
        .to_owned();
    build_programs(&folder, "other")?;
    Ok((binaries, folder))
}

/// Builds programs with e2e/tools/programs, which tells what `what` may be.
pub(crate) fn build_programs(folder: &Path, what: &str) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/programs");
    let status = Command::new(script)
        .arg(folder)
        .arg(what)
        .stdin(Stdio::null())
        .status()
        .context("starting e2e/tools/programs")?;
    ensure!(status.success(), "the programs do not build: {status}");
    Ok(())
}

impl TestBinary {
    /// Returns the names of the tests in this binary.
    pub(crate) fn tests(&self) -> Result<Vec<String>> {
        let listed = Command::new(&self.program)
            .args(["--list", "--format=terse"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {}", self.program.display()))?;
        ensure!(
            listed.status.success(),
            "{} lists no tests: {}",
            self.name,
            listed.status
        );
        let listed = String::from_utf8(listed.stdout).context("names of tests")?;
        let names = listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }
}

/// Returns the root folder of the repository.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e is a folder of the workspace")
}

/// A message from Cargo about a test binary
/// (doc.rust-lang.org/cargo/reference/external-tools.html).
#[derive(Deserialize)]
struct Artifact {
    package_id: String,
    manifest_path: PathBuf,
    target: Target,
    executable: PathBuf,
    profile: Profile,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    src_path: PathBuf,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Parses a message from Cargo. Returns `None` if the message is not about a
/// test binary.
fn read(message: &str) -> Result<Option<TestBinary>> {
    let Ok(artifact) = serde_json::from_str::<Artifact>(message) else {
        return Ok(None);
    };
    if !artifact.profile.test {
        return Ok(None);
    }
    let Some(folder) = artifact.manifest_path.parent() else {
        bail!("{} lies in a folder", artifact.manifest_path.display());
    };
    Ok(Some(TestBinary {
        package: package(&artifact.package_id),
        folder: folder.to_owned(),
        name: artifact.target.name,
        source: artifact.target.src_path,
        program: artifact.executable,
    }))
}

/// Returns the package's name from a Cargo package id such as
/// `path+file:///…/agent/ipvs#0.1.0`. If the folder's name differs from the
/// package's name, the id ends like `…/folder#name@0.1.0`.
fn package(id: &str) -> String {
    let (path, fragment) = id.split_once('#').unwrap_or((id, ""));
    let folder = path.rsplit('/').next().unwrap_or(path);
    let name = fragment.split_once('@').map_or(folder, |(name, _)| name);
    name.to_owned()
}
