//! What a program asked of the kernel over netlink, as strace recorded it:
//! counted from outside, whatever the program itself reports.

use std::{fs, path::Path, process::Command};

use crate::{eventually, wait::PATIENCE};

/// A command that runs `program` under strace and leaves its netlink messages
/// in `file`.
pub fn traced(program: &Command, file: &Path) -> Command {
    let arguments = ["-xx", "-s", "65536", "-e", "trace=sendto,sendmsg,sendmmsg"];
    under_strace(&arguments, file, program)
}

/// A command that runs `program` and kills it (SIGKILL) when one of its threads
/// begins its `nth` system call of that name, such as `pwrite64`.
pub fn doomed(program: &Command, system_call: &str, nth: u32) -> Command {
    let trace = format!("trace={system_call}");
    let inject = format!("inject={system_call}:signal=SIGKILL:when={nth}");
    under_strace(
        &["-e", &trace, "-e", &inject],
        Path::new("/dev/null"),
        program,
    )
}

fn under_strace(arguments: &[&str], file: &Path, program: &Command) -> Command {
    let mut command = Command::new("strace");
    command
        // strace runs as its child (-D), so that a signal reaches the program
        // itself.
        .args(["-D", "-f", "-q"])
        .args(arguments)
        .arg("-o")
        .arg(file)
        .arg(program.get_program())
        .args(program.get_args());
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

/// Returns the messages by which the program with process id `id` changed the
/// kernel's IPVS table or its addresses, one word per message. The program has
/// ended.
///
/// # Panics
/// When there is no such trace, or it is not complete.
pub fn kernel_writes(file: &Path, id: u32) -> Vec<String> {
    let trace = eventually("the end of the trace", PATIENCE, || {
        let trace = fs::read_to_string(file).map_err(|error| error.to_string())?;
        let ended = trace
            .lines()
            .any(|line| line.starts_with(&id.to_string()) && line.contains("+++"));
        if ended { Ok(trace) } else { Err(trace) }
    });
    trace.lines().flat_map(writes_of).collect()
}

/// The commands of generic netlink family IPVS that write
/// (`include/uapi/linux/ip_vs.h`).
const WRITES: [(u8, &str); 9] = [
    (1, "NEW_SERVICE"),
    (2, "SET_SERVICE"),
    (3, "DEL_SERVICE"),
    (5, "NEW_DEST"),
    (6, "SET_DEST"),
    (7, "DEL_DEST"),
    (12, "SET_CONFIG"),
    (16, "ZERO"),
    (17, "FLUSH"),
];

/// The writes of one traced call, which may hold many messages.
fn writes_of(line: &str) -> Vec<String> {
    line.split("nlmsg_type=")
        .skip(1)
        .filter_map(|message| {
            let kind = message.split(&[',', ' ']).next()?;
            match kind {
                "RTM_NEWADDR" | "RTM_DELADDR" => Some(kind.to_owned()),
                // strace cannot decode the messages of one family, which is
                // IPVS: the first byte of the payload is the command.
                "nlctrl" => None,
                _ if kind.starts_with("RTM_") || kind.starts_with("NLMSG_") => None,
                _ => {
                    let payload = message.split_once("\"\\x")?.1;
                    let command = u8::from_str_radix(payload.get(..2)?, 16).ok()?;
                    let (_, name) = WRITES.iter().find(|(number, _)| *number == command)?;
                    Some((*name).to_owned())
                }
            }
        })
        .collect()
}
