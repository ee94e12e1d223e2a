use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
    thread,
};

use ipvs::{
    ActualTable, Failure, Kernel, OnConflict, Op, Owned, Plan, ServiceKey, Socket, WantedTable,
    plan,
};
use nix::sched::{CloneFlags, unshare};

/// A network namespace with nothing but its loopback, a socket there, and the thread
/// that lives in it. Ends with the test.
pub(crate) struct Namespace {
    pub(crate) socket: Socket,
    /// Every service that the test asked for.
    asked_for: BTreeSet<ServiceKey>,
}

/// How often a table is read until a reading is complete. Tests beside this one
/// spoil one reading in two at most.
const READINGS: usize = 50;

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
                test(Self {
                    socket,
                    asked_for: BTreeSet::new(),
                });
            });
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    /// A complete reading of the table.
    ///
    /// The kernel's dump of more services than fit into a datagram continues at
    /// an index that counts the services of all namespaces
    /// (`ip_vs_genl_dump_services`). When another test adds or removes services
    /// meanwhile, the dump repeats some of ours or leaves some out. Whether it
    /// left one out is known from asking the kernel for that one alone.
    pub(crate) fn table(&mut self) -> ActualTable {
        for _ in 0..READINGS {
            let table = self.socket.table().unwrap();
            let mut missing = self
                .asked_for
                .iter()
                .filter(|key| !table.contains_key(*key));
            if missing.all(|key| self.socket.service(key).unwrap().is_none()) {
                return table;
            }
        }
        panic!("{READINGS} readings of the table all lack services that the kernel has")
    }

    pub(crate) fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        self.asked_for.extend(ops.iter().filter_map(|op| match op {
            Op::NewService(key, _) => Some(*key),
            _ => None,
        }));
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

    /// `ipvsadm -Sn`, sorted. What fits into a datagram is complete, but another
    /// test's services can make the kernel repeat it ([`table`](Self::table)).
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
        lines.dedup();
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
