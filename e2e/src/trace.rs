//! Reads a program's netlink requests from a strace recording. Tests use the
//! recording because the program's own reports may be wrong.

use std::{fs, path::Path, process::Command};

use crate::{eventually, wait::PATIENCE};

/// Returns a command that runs `program` under strace and records the program's
/// netlink messages in `file`.
pub fn traced(program: &Command, file: &Path) -> Command {
    let arguments = ["-xx", "-s", "65536", "-e", "trace=sendto,sendmsg,sendmmsg"];
    under_strace(&arguments, file, program)
}

/// Returns a command that runs `program` under strace. strace kills the program
/// (SIGKILL) when a thread begins its `nth` call of `system_call`, such as
/// `pwrite64`.
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
        // With -D, strace runs as a child of the program, so that signals reach
        // the program itself.
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

/// Returns the netlink messages that process `id` sent to change the kernel's
/// IPVS table or addresses. Each message is returned as its name, such as
/// `NEW_SERVICE`. The traced process must have ended before the call of
/// `kernel_writes`.
///
/// # Panics
/// Panics if the trace does not exist or is incomplete.
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

/// The commands of the generic netlink family IPVS that change the kernel's
/// state (`include/uapi/linux/ip_vs.h`).
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

/// The beginning of a message to IPVS: the command, and the version of the
/// generic netlink family (`IPVS_GENL_VERSION`). strace prints a message as
/// bytes if it does not know the socket's family, which it looks up while the
/// process runs. Messages to other families then look alike, except for their
/// second byte.
const VERSION: &str = "\\x01";

/// Returns the names of the state-changing netlink messages in one traced
/// system call. One system call may send many netlink messages.
fn writes_of(line: &str) -> Vec<String> {
    line.split("nlmsg_type=")
        .skip(1)
        .filter_map(|message| {
            let kind = message.split(&[',', ' ']).next()?;
            match kind {
                "RTM_NEWADDR" | "RTM_DELADDR" => Some(kind.to_owned()),
                "nlctrl" => None,
                _ if ["RTM_", "NLMSG_", "NFNL_"]
                    .iter()
                    .any(|family| kind.starts_with(family)) =>
                {
                    None
                }
                _ => {
                    let payload = message.split_once("\"\\x")?.1;
                    let (command, rest) = payload.split_at_checked(2)?;
                    let command = u8::from_str_radix(command, 16).ok()?;
                    rest.starts_with(VERSION).then_some(())?;
                    let (_, name) = WRITES.iter().find(|(number, _)| *number == command)?;
                    Some((*name).to_owned())
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first payload byte of each message is 2. In messages to netfilter
    /// and in requests for sockets, this is the address family AF_INET.
    #[test]
    fn a_message_to_another_family_that_strace_cannot_decode_is_no_write_to_ipvs() {
        let line = |kind, payload| {
            format!(
                r#"sendto(3, [{{nlmsg_len=20, nlmsg_type={kind} /* NLMSG_??? */, nlmsg_flags=NLM_F_REQUEST}}, "{payload}\x00\x00"], 20, 0, NULL, 0) = 20"#
            )
        };
        assert_eq!(writes_of(&line("0x1d", r"\x02\x01")), ["SET_SERVICE"]);
        assert_eq!(writes_of(&line("0x101", r"\x02\x00")), [""; 0], "netfilter");
        assert_eq!(writes_of(&line("0x14", r"\x02\x06")), [""; 0], "sockets");
    }
}
