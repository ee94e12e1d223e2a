use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

use ipvs::{ActualTable, Failure, Kernel, OnConflict, Op, Owned, Plan, Socket, WantedTable, plan};
use nix::sched::{CloneFlags, unshare};

/// A network namespace with nothing but its loopback, a socket there, and the thread
/// that lives in it. Ends with the test.
pub(crate) struct Namespace {
    pub(crate) socket: Socket,
}

impl Namespace {
    /// Runs a test in a network namespace of its own.
    pub(crate) fn run(test: impl FnOnce(Self) + Send) {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect(
                    "a network namespace cannot be made: \
                     this test runs as root, in the lab: cargo test -p ipvs --test kernel",
                );
                // A namespace that never had an address has no table of local
                // addresses yet, and ip_vs then takes every IPv4 destination
                // for a broadcast address (EINVAL).
                let status = Command::new("ip")
                    .args(["link", "set", "lo", "up"])
                    .status();
                let status = status.expect("ip does not start: apt-get install iproute2");
                assert!(status.success(), "ip link set lo up: {status}");
                let socket = Socket::open().unwrap_or_else(|error| panic!("{error}"));
                test(Self { socket });
            });
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    pub(crate) fn table(&mut self) -> ActualTable {
        self.socket.table().unwrap()
    }

    pub(crate) fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        self.socket.apply(ops).unwrap()
    }

    /// Applies operations that the kernel is to accept.
    pub(crate) fn accept(&mut self, ops: &[Op]) {
        let failures = self.apply(ops);
        let explained: Vec<_> = failures
            .iter()
            .take(10)
            .map(|failure| {
                let op = &ops[failure.index];
                format!("{op}: {}", failure.errno.explain(op))
            })
            .collect();
        assert!(
            failures.is_empty(),
            "{} failed: {explained:#?}",
            failures.len()
        );
    }

    /// The plan from what the kernel has.
    pub(crate) fn plan(&mut self, desired: &WantedTable, ours: &Owned) -> Plan {
        plan(desired, &self.table(), ours, OnConflict::Adopt)
    }

    /// Plans, applies, and is then the owner of what it made.
    pub(crate) fn settle(&mut self, desired: &WantedTable, ours: &mut Owned) -> Plan {
        let plan = self.plan(desired, ours);
        ours.adopt(&plan.adopt);
        ours.forget(&plan.gone);
        self.accept(&plan.ops);
        ours.acknowledge(&plan.ops.iter().collect::<Vec<_>>());
        plan
    }

    /// `ipvsadm -Sn`, sorted.
    pub(crate) fn ipvsadm_save(&self) -> Vec<String> {
        let output = Command::new("ipvsadm").arg("-Sn").output();
        let output = output.expect("ipvsadm does not start: apt-get install ipvsadm");
        assert!(output.status.success(), "{output:?}");
        let mut lines: Vec<_> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        lines.sort();
        lines
    }

    /// Runs `ipvsadm -R` on these lines.
    pub(crate) fn ipvsadm_restore(&self, lines: &str) {
        let mut child = Command::new("ipvsadm")
            .arg("-R")
            .stdin(Stdio::piped())
            .spawn()
            .expect("ipvsadm does not start: apt-get install ipvsadm");
        let mut input = child.stdin.take().unwrap();
        input.write_all(lines.as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}
