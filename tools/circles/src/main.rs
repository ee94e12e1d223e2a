//! The program `circles [--except PACKAGE]...` fails if modules of a crate in
//! the workspace import each other, and prints these imports.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!(
                "circles: move an item that one of them imports from another to the module where \
                 it belongs, or to a module that all of them may import"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("circles: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints every circle, and returns the number of circles.
fn run() -> Result<usize> {
    let mut except = exceptions()?;
    let folder = env::current_dir().context("the current folder")?;
    let (mut checked, mut found) = (0, 0);
    for (package, roots) in packages()? {
        if except.remove(&package) {
            continue;
        }
        checked += 1;
        for root in roots {
            let root = root.strip_prefix(&folder).unwrap_or(&root);
            for circle in circles::circles(root)? {
                found += 1;
                eprintln!("{package}, {}: {circle}", root.display());
            }
        }
    }
    ensure!(
        except.is_empty(),
        "--except: the workspace has no package {except:?}"
    );
    ensure!(checked > 0, "no package is left to check");
    Ok(found)
}

/// Returns the packages that `--except` leaves out.
fn exceptions() -> Result<BTreeSet<String>> {
    let mut words = env::args().skip(1);
    let mut except = BTreeSet::new();
    while let Some(word) = words.next() {
        match (word.as_str(), words.next()) {
            ("--except", Some(package)) => {
                except.insert(package);
            }
            _ => bail!("usage: circles [--except PACKAGE]..."),
        }
    }
    Ok(except)
}

/// Returns the packages of the workspace, each with the root files of its
/// crates, such as its library, its programs and its tests.
fn packages() -> Result<Vec<(String, Vec<PathBuf>)>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"]).into_iter().map(|package| {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let roots = list(&package["targets"])
            .iter()
            .filter_map(|target| target["src_path"].as_str())
            .map(|path| Path::new(path).to_owned())
            .collect();
        (name, roots)
    });
    Ok(packages.collect())
}
