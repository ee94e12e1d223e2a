//! Plans a run of `lab tests`: how many labs run at once, and which tests share
//! a lab. The module also estimates the run time of each lab, and reads test
//! results from libtest's output. The module starts no process and reads no
//! clock.

use std::ffi::OsStr;
use std::path::Path;

/// The number of labs that may run at once on a machine with two processors. A
/// lab spends more than two thirds of its time waiting.
const LABS_PER_TWO_CORES: usize = 6;
/// The peak memory use of a lab with an API server, in MiB.
const MEMORY_OF_A_LAB: usize = 1500;

/// Returns how many labs a machine can run at once, given its processors and
/// free memory. The returned number is at least one.
pub fn labs_at_once(cores: usize, free_mebibytes: usize) -> usize {
    let by_memory = free_mebibytes / MEMORY_OF_A_LAB;
    by_memory.min(cores * LABS_PER_TWO_CORES / 2).max(1)
}

/// Returns the number of nodes that a test binary's lab has.
pub fn nodes(binary: &str) -> u8 {
    match binary {
        "e2e_nodes" => 2,
        _ => 0,
    }
}

/// Returns how many of the `jobs` labs that may run at once a lab takes the place
/// of. A lab with nodes runs alone: the processors of its nodes are emulated and
/// always busy, and a kubelet restarts a container whose probe takes 10 s.
pub fn places(binary: &str, jobs: usize) -> usize {
    match nodes(binary) {
        0 => 1,
        _ => jobs,
    }
}

/// A test binary that takes minutes to run in a lab.
struct Long {
    binary: &'static str,
    /// The total run time of the tests in seconds, on a machine with two
    /// processors that also runs other labs.
    seconds: u32,
    /// The number of labs among which the binary's tests are divided.
    labs: usize,
}

/// The slow test binaries, which determine how long a run of all tests takes.
/// The times in this list may be slightly out of date. Add every new test
/// binary that takes minutes.
const LONG: [Long; 17] = [
    long("e2e_nodes", 650, 1),
    long("e2e_health", 500, 3),
    long("e2e_director", 640, 3),
    long("e2e_drains", 600, 3),
    long("e2e_walk", 400, 1),
    long("e2e_vips", 400, 2),
    long("e2e_guard", 350, 2),
    long("e2e_seen", 400, 2),
    long("e2e_tenant", 210, 1),
    long("e2e_transfers", 200, 1),
    long("e2e_resilience", 180, 1),
    long("e2e_sysctls", 170, 1),
    long("e2e_hijack", 150, 1),
    long("e2e_upgrade", 150, 1),
    long("e2e_undo", 140, 1),
    long("e2e_restart", 120, 1),
    long("e2e_bad_input", 120, 1),
];

const fn long(binary: &'static str, seconds: u32, labs: usize) -> Long {
    Long {
        binary,
        seconds,
        labs,
    }
}

/// The tests of one test binary that run together in one lab.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Share {
    /// The number of this share, and the number of all shares of the binary:
    /// `(2, 3)` means the second of three shares.
    pub number: (usize, usize),
    /// The names of the tests that this share runs. An empty list means all
    /// tests of the binary.
    pub tests: Vec<String>,
    /// The estimated run time of this share in seconds. The value is 0 if the
    /// binary is not listed as slow.
    pub seconds: u32,
}

/// Divides the tests of a binary among labs.
pub fn shares(binary: &str, tests: &[String]) -> Vec<Share> {
    let whole = Share {
        number: (1, 1),
        tests: Vec::new(),
        seconds: 0,
    };
    let Some(known) = LONG.iter().find(|long| long.binary == binary) else {
        return vec![whole];
    };
    let labs = known.labs.min(tests.len()).max(1);
    if labs == 1 {
        let seconds = known.seconds;
        return vec![Share { seconds, ..whole }];
    }
    let share = |index| Share {
        number: (index + 1, labs),
        tests: tests.iter().skip(index).step_by(labs).cloned().collect(),
        seconds: known.seconds / u32::try_from(labs).expect("a few labs"),
    };
    (0..labs).map(share).collect()
}

/// The programs that run on Debian's packaged user-mode Linux. Tests need it if
/// they add firewall rules to a director, because the newer one has no
/// iptables. The figures of the benchmarks in docs/benchmarks.md are from it.
const NEED_THE_PACKAGED_KERNEL: [&str; 5] = [
    "bench",
    "e2e_faults",
    "e2e_hijack",
    "e2e_sysctls",
    "kernel_agent",
];

/// Returns whether a program needs the packaged user-mode Linux. The file name
/// of a test binary has a hash: `e2e_faults-0123456789abcdef`.
pub fn needs_packaged_kernel(program: &Path) -> bool {
    let file = program.file_name().and_then(OsStr::to_str).unwrap_or("");
    let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
    NEED_THE_PACKAGED_KERNEL.contains(&name)
}

/// A test binary that `make lab-tests` also runs on the second kernel: Debian's
/// kernel in QEMU. `make test-qemu` runs all test binaries on the second
/// kernel.
struct OnTheSecondKernel {
    binary: &'static str,
    /// The estimated run time on the second kernel, in seconds.
    seconds: u32,
    /// The beginnings of the names of the tests that run on the second kernel.
    /// An empty list means all tests of the binary. The other tests of the
    /// binary test decisions of the agent that are the same on every kernel,
    /// and would take minutes on the second kernel.
    tests: &'static [&'static str],
}

const ON_THE_SECOND_KERNEL: [OnTheSecondKernel; 5] = [
    on_the_second_kernel("kernel_agent", 250, &[]),
    on_the_second_kernel(
        "e2e_vips",
        180,
        &["calm::while", "drift::", "of_two_directors"],
    ),
    on_the_second_kernel("e2e_traffic", 140, &[]),
    on_the_second_kernel("e2e_walk", 120, &[]),
    on_the_second_kernel("kernel", 110, &[]),
];

const fn on_the_second_kernel(
    binary: &'static str,
    seconds: u32,
    tests: &'static [&'static str],
) -> OnTheSecondKernel {
    OnTheSecondKernel {
        binary,
        seconds,
        tests,
    }
}

/// Returns a share with the binary's tests that run on the second kernel.
/// Returns `None` if the binary does not run on the second kernel.
pub fn second_kernel(binary: &str, tests: &[String]) -> Option<Share> {
    let mut known = ON_THE_SECOND_KERNEL.iter();
    let known = known.find(|known| known.binary == binary)?;
    let is_wanted = |test: &&String| known.tests.iter().any(|start| test.starts_with(start));
    Some(Share {
        number: (1, 1),
        tests: tests.iter().filter(is_wanted).cloned().collect(),
        seconds: known.seconds,
    })
}

/// The result of a test binary, read from its output.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verdict {
    /// The number of the test binary's tests that passed.
    pub passed: usize,
    /// The names of the test binary's tests that failed.
    pub failed: Vec<String>,
}

impl Verdict {
    /// Reads the result from libtest's output. Returns `None` if the test
    /// binary did not finish.
    pub fn read(output: &str) -> Option<Self> {
        let result = output
            .lines()
            .rfind(|line| line.starts_with("test result: "))?;
        let passed = result
            .split([' ', ';'])
            .zip(result.split([' ', ';']).skip(1));
        let passed = passed.filter(|(_, word)| *word == "passed");
        let passed = passed.filter_map(|(count, _)| count.parse().ok()).next()?;
        Some(Self {
            passed,
            failed: failed(output),
        })
    }
}

/// Returns the test names in the last section `failures:` of libtest's output.
/// An earlier section `failures:` contains the output of the failed tests.
fn failed(output: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_in_list = false;
    for line in output.lines() {
        match line.strip_prefix("    ") {
            _ if line == "failures:" => {
                is_in_list = true;
                names.clear();
            }
            Some(name) if is_in_list => names.push(name.to_owned()),
            _ => is_in_list = false,
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_labs_run_as_there_are_processors_and_memory_for() {
        assert_eq!(labs_at_once(2, 20_000), 6);
        assert_eq!(labs_at_once(16, 20_000), 13);
        assert_eq!(labs_at_once(2, 3_500), 2);
        assert_eq!(labs_at_once(1, 500), 1, "at least one");
    }

    #[test]
    fn a_lab_with_nodes_runs_alone() {
        assert_eq!(places("e2e_nodes", 6), 6);
        assert_eq!(places("e2e_walk", 6), 1);
    }

    #[test]
    fn a_binary_that_is_not_long_is_one_share() {
        let [share] = &*shares("e2e_traffic", &["one".into(), "two".into()]) else {
            panic!("one share");
        };
        assert_eq!((share.number, share.tests.len()), ((1, 1), 0));
    }

    #[test]
    fn each_test_of_a_long_binary_is_in_one_share() {
        let Long { binary, labs, .. } = LONG.iter().find(|long| long.labs > 1).expect("one");
        let tests: Vec<_> = (0..10).map(|number| format!("test{number}")).collect();
        let shares = shares(binary, &tests);
        assert_eq!(shares.len(), *labs);
        let mut dealt: Vec<_> = shares.iter().flat_map(|share| &share.tests).collect();
        dealt.sort();
        assert_eq!(dealt, tests.iter().collect::<Vec<_>>());
    }

    #[test]
    fn the_second_kernel_gets_a_binarys_tests_or_those_that_are_named() {
        let tests = ["kept::one".to_owned(), "drift::two".to_owned()];
        let share = |binary| second_kernel(binary, &tests).map(|share| share.tests);
        assert_eq!(share("e2e_vips"), Some(vec!["drift::two".to_owned()]));
        assert_eq!(share("e2e_walk"), Some(Vec::new()), "all tests");
        assert_eq!(share("e2e_undo"), None);
    }

    #[test]
    fn the_tests_with_firewall_rules_get_a_kernel_with_iptables() {
        let needs = |program| needs_packaged_kernel(Path::new(program));
        assert!(needs("target/debug/deps/e2e_faults-0123456789abcdef"));
        assert!(!needs("target/debug/deps/e2e_walk-0123456789abcdef"));
        assert!(!needs("target/debug/demo"));
    }

    #[test]
    fn no_share_is_without_tests() {
        let Long { binary, .. } = LONG.iter().find(|long| long.labs > 1).expect("one");
        let [share] = &*shares(binary, &["one".into()]) else {
            panic!("one share");
        };
        assert_eq!(share.tests, [""; 0], "all of the binary");
    }

    const FAILED: &str = "
running 3 tests
test calm::works ... ok
test calm::breaks ... FAILED
test policy::breaks ... FAILED

failures:

---- calm::breaks stdout ----

thread 'calm::breaks' panicked at e2e/tests/e2e_health/calm.rs:1:1:
    not a name

failures:
    calm::breaks
    policy::breaks

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

lab: e2e_health-1 exited with 101 after 4.1s
";

    #[test]
    fn the_tests_that_failed_are_found_by_name() {
        let verdict = Verdict::read(FAILED).expect("the test binary finished");
        assert_eq!(verdict.passed, 1);
        assert_eq!(verdict.failed, ["calm::breaks", "policy::breaks"]);
    }

    #[test]
    fn a_binary_that_died_has_no_verdict() {
        let (died, _) = FAILED.split_once("test result").expect("it has one");
        assert_eq!(Verdict::read(died), None);
    }
}
