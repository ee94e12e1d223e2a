//! The screen of a person who looks at the objects with kubectl.

use e2e::{
    Host,
    cluster::{PATIENCE, state_dir},
    control, eventually, kubectl,
    process::program,
};

/// The size of a terminal, in columns and lines.
const COLUMNS: usize = 100;
const LINES: usize = 24;

/// Returns what a terminal shows of a command's output: the first lines, each
/// broken at the terminal's width.
fn shown(output: &str) -> String {
    let mut lines = Vec::new();
    for line in output.lines() {
        let characters: Vec<char> = line.trim_end().chars().collect();
        match characters.is_empty() {
            true => lines.push(String::new()),
            false => lines.extend(characters.chunks(COLUMNS).map(|part| part.iter().collect())),
        }
    }
    lines.truncate(LINES);
    lines.join("\n")
}

/// Returns what a terminal shows of `kubectl get` for all our kinds.
fn screen() -> String {
    shown(&control::try_kubectl(&["get", "ivs,irs,idg,idir", "-A"]).stdout)
}

/// Waits until the screen of `kubectl get` shows all of `words`, wherever the
/// terminal breaks the lines. Prints the screen, and returns it without line
/// breaks.
#[track_caller]
pub(crate) fn expect_on_screen(fault: &str, words: &[&str]) -> String {
    expect_shown(fault, words, screen)
}

/// Waits until the screen of `ipvs-agent status` on a director shows all of
/// `words`. Prints the screen, and returns it without line breaks.
#[track_caller]
pub(crate) fn expect_in_status(director: &Host, fault: &str, words: &[&str]) -> String {
    expect_shown(fault, words, || {
        shown(&status(director, &[]).unwrap_or_else(|error| error))
    })
}

/// Runs `ipvs-agent status` on a director, and returns its output, or its error.
pub(crate) fn status(director: &Host, options: &[&str]) -> Result<String, String> {
    let mut command = program("ipvs-agent");
    command
        .env("IPVS_STATE_DIR", state_dir("director1"))
        .arg("status")
        .args(options);
    let said = director.try_command(&mut command);
    said.map_err(|failed| failed.stderr())
}

#[track_caller]
fn expect_shown(fault: &str, words: &[&str], screen: impl Fn() -> String) -> String {
    let what = format!("{fault}: {words:?} in {LINES} lines of {COLUMNS} columns");
    let screen = eventually(&what, PATIENCE, || {
        let screen = screen();
        let text = screen.replace('\n', "");
        match words.iter().all(|word| text.contains(word)) {
            true => Ok(screen),
            false => Err(screen),
        }
    });
    println!("{fault}:\n{screen}\n");
    screen.replace('\n', "")
}

/// Waits with the one command that says that a fleet is well. `timeout` is in
/// kubectl's notation.
pub(crate) fn is_fleet_well(timeout: &str) -> bool {
    let timeout = format!("--timeout={timeout}");
    let command = ["wait", "idir", "--all", "--for=condition=Ready", &timeout];
    control::try_kubectl(&command).is_success()
}

#[track_caller]
pub(crate) fn expect_the_fleet_is_not_well(fault: &str) {
    assert!(
        !is_fleet_well("0s"),
        "{fault}: no Director may be Ready\n{}",
        screen()
    );
}

#[track_caller]
pub(crate) fn expect_the_fleet_is_well(after: &str) {
    let timeout = format!("{}s", PATIENCE.as_secs());
    assert!(
        is_fleet_well(&timeout),
        "{after}: every Director was expected to be Ready\n{}",
        screen()
    );
}

/// Runs the kubectl command that begins with `start` on the screen. The command
/// ends with its patch, with its sentence, or with its column.
#[track_caller]
pub(crate) fn run_from_screen(screen: &str, start: &str) {
    let (_, rest) = screen
        .split_once(start)
        .unwrap_or_else(|| panic!("the screen has a command {start}: {screen}"));
    let end = match rest.find("-p '") {
        Some(patch) => rest[patch + 4..]
            .find('\'')
            .map(|quote| patch + 4 + quote + 1),
        None => rest.find(". ").into_iter().chain(rest.find("  ")).min(),
    };
    let command = format!("{start}{}", &rest[..end.unwrap_or(rest.len())]);
    let words = words(command.trim());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(words.first(), Some(&"kubectl"), "{command}");
    kubectl(&words[1..]);
}

/// Splits a command line at blanks, as a shell does with single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}
