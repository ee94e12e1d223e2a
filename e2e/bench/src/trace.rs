//! Counts, with strace, the system calls of a program or of a part of its run.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::scratch::scratch;

const BEGIN: &str = "bench: begin\n";
const END: &str = "bench: end\n";

/// Marks the beginning of the traced part of the program's run.
pub(crate) fn begin() {
    mark(BEGIN);
}

/// Marks the end of the traced part of the program's run.
pub(crate) fn end() {
    mark(END);
}

/// Writes a mark into strace's trace. A mark is exactly one system call, so the
/// marks add no calls to the traced part.
fn mark(text: &str) {
    // An error is ignored, because the reader of the trace notices a missing
    // mark.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Runs a program under strace, with all its threads, and returns the system
/// calls between [`begin`] and [`end`], such as `sendto(3, [{...`.
pub(crate) fn window(program: &Command) -> Result<Vec<String>> {
    let trace = traced(program)?;
    let calls = between_marks(&trace, false);
    calls.with_context(|| format!("the marks in the trace of {program:?}"))
}

/// Works like [`window`], but returns only the system calls of the thread that
/// calls [`begin`] and [`end`].
pub(crate) fn window_of_thread(program: &Command) -> Result<Vec<String>> {
    let trace = traced(program)?;
    let calls = between_marks(&trace, true);
    calls.with_context(|| format!("the marks in the trace of {program:?}"))
}

/// Runs a program under strace, with all its threads, and returns the trace.
fn traced(program: &Command) -> Result<String> {
    let folder = scratch("trace")?;
    let file = folder.join("trace");
    let output = Command::new("strace")
        .args(["-f", "-q", "-s", "64", "-o"])
        .arg(&file)
        .arg(program.get_program())
        .args(program.get_args())
        .envs(
            program
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .output()
        .context("strace starts")?;
    ensure!(
        output.status.success(),
        "{program:?} under strace: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let trace = fs::read_to_string(&file).context("reading the trace")?;
    fs::remove_dir_all(folder)?;
    Ok(trace)
}

/// Counts, by name, the system calls that all threads of `processes` make
/// during `time`.
pub(crate) fn count(processes: &[u32], time: Duration) -> Result<BTreeMap<String, u64>> {
    let folder = scratch("count")?;
    let file = folder.join("counts");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-q", "-c", "-U", "calls,name", "-o"])
        .arg(&file);
    for process in processes {
        command.arg("-p").arg(process.to_string());
    }
    let mut strace = command.spawn().context("strace starts")?;
    thread::sleep(time);
    let id = i32::try_from(strace.id()).context("process ids are positive")?;
    kill(Pid::from_raw(id), Signal::SIGINT)?;
    strace.wait()?;
    let table = fs::read_to_string(&file).context("reading the counts")?;
    fs::remove_dir_all(folder)?;
    let counts = counts(&table);
    ensure!(!counts.is_empty(), "strace counted nothing: {table}");
    Ok(counts)
}

/// Parses strace's table, where each row has a count and the name of a system
/// call.
fn counts(table: &str) -> BTreeMap<String, u64> {
    let rows = table.lines().filter_map(|line| {
        let (count, name) = line.trim().split_once(char::is_whitespace)?;
        Some((name.trim().to_owned(), count.parse().ok()?))
    });
    rows.filter(|(name, _)| name != "total").collect()
}

/// Returns the system calls between the marks. With `of_one_thread`, returns
/// only those of the thread that made the marks.
fn between_marks(trace: &str, of_one_thread: bool) -> Option<Vec<String>> {
    let mark = |text: &str| {
        let mut lines = trace.lines();
        lines.position(|line| line.contains("write(2, ") && line.contains(text.trim_end()))
    };
    let (begin, end) = (mark(BEGIN)?, mark(END)?);
    let thread = trace.lines().nth(begin)?.split_once(' ')?.0;
    let is_of = |line: &&str| {
        let of = line.split_once(' ').map(|(thread, _)| thread);
        !of_one_thread || of == Some(thread)
    };
    let calls = trace.lines().take(end).skip(begin + 1).filter(is_of);
    // The second line of an interrupted system call is not counted. Lines about
    // signals and exits are not counted either.
    let is_call = |line: &&str| {
        !["resumed>", " --- ", " +++ "]
            .iter()
            .any(|no| line.contains(no))
    };
    let calls = calls.filter(is_call);
    // Removes the thread id at the beginning of a trace line.
    let call = |line: &str| Some(line.split_once(' ')?.1.trim_start().to_owned());
    Some(calls.filter_map(call).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_between_the_marks_count_once() {
        let trace = "\
7 openat(AT_FDCWD, \"/x\", O_RDONLY) = 3
7 write(2, \"bench: begin\\n\", 13) = 13
7 sendto(3, [{nlmsg_len=20}], 20, 0, NULL, 0) = 20
7 recvfrom(3,  <unfinished ...>
8 futex(0x7f, FUTEX_WAIT) = 0
7 <... recvfrom resumed>\"\", 65536, MSG_TRUNC, NULL, NULL) = 36
8 --- SIGCHLD {si_signo=SIGCHLD} ---
7 write(2, \"bench: end\\n\", 11) = 11
7 exit_group(0) = ?
";
        let names = |of_one_thread| {
            let calls = between_marks(trace, of_one_thread).expect("both marks are there");
            let name = |call: &String| call.split('(').next().unwrap_or_default().to_owned();
            calls.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["sendto", "recvfrom", "futex"]);
        assert_eq!(names(true), ["sendto", "recvfrom"]);
    }

    #[test]
    fn a_trace_without_its_end_is_none() {
        assert_eq!(
            between_marks("7 write(2, \"bench: begin\\n\", 13) = 13\n", false),
            None
        );
    }

    #[test]
    fn a_table_of_counts_reads_as_names_with_numbers() {
        let table = "\
    calls syscall
--------- ----------------
      210 epoll_wait
      200 connect
--------- ----------------
      410 total
";
        let expected = [("connect", 200), ("epoll_wait", 210)];
        let expected = expected.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(counts(table), expected.into());
    }
}
