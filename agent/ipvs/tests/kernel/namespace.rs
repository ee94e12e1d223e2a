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

/// A network namespace with only a loopback interface, and a netlink socket in
/// that namespace. The network namespace exists until the test ends.
pub(crate) struct Namespace {
    pub(crate) socket: Socket,
    /// All services that the test tried to create.
    asked_for: BTreeSet<ServiceKey>,
}

/// A test reads the table at most this many times to get a complete reading.
/// Because of other tests that run at the same time, up to half of the readings
/// are incomplete.
const READINGS: usize = 50;

impl Namespace {
    /// Runs a test in its own network namespace.
    pub(crate) fn run(test: impl FnOnce(Self) + Send) {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect(
                    "a network namespace cannot be created: \
                     run this test as root, in the lab: cargo test -p ipvs --test kernel",
                );
                // The kernel creates a namespace's table of local addresses
                // when the namespace gets its first address. Without this
                // table, ip_vs takes every IPv4 destination for a broadcast
                // address and returns EINVAL.
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

    /// Reads the complete IPVS table of the network namespace.
    ///
    /// A dump of the kernel's table may need more than one datagram. The second
    /// datagram of a dump continues at an index that counts the services of all
    /// network namespaces (`ip_vs_genl_dump_services`). If another test adds or
    /// removes services during the dump, the dump repeats or leaves out
    /// services of this test. To find out whether a missing service exists,
    /// `table` asks the kernel for that service alone.
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
        panic!("each of {READINGS} readings of the table lacks services that the kernel has")
    }

    pub(crate) fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        self.asked_for.extend(ops.iter().filter_map(|op| match op {
            Op::NewService(key, _) => Some(*key),
            _ => None,
        }));
        self.socket.apply(ops).unwrap()
    }

    /// Applies operations, and panics if the kernel refuses any of them.
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

    /// Returns the plan that turns the kernel's current table into the wanted
    /// table.
    pub(crate) fn plan(&mut self, desired: &WantedTable, ours: &Owned) -> Plan {
        plan(desired, &self.table(), ours, OnConflict::Adopt)
    }

    /// Plans and applies the wanted table, and records the created and adopted
    /// entries as ours.
    pub(crate) fn settle(&mut self, desired: &WantedTable, ours: &mut Owned) -> Plan {
        let plan = self.plan(desired, ours);
        ours.adopt(&plan.adopt);
        ours.forget(&plan.gone);
        self.accept(&plan.ops);
        ours.acknowledge(&plan.ops.iter().collect::<Vec<_>>());
        plan
    }

    /// Returns the lines of `ipvsadm -Sn`, sorted and without duplicates. A
    /// dump that fits into one datagram is complete. The dump may contain an
    /// entry twice because of other tests' services: see
    /// [`table`](Self::table).
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

    /// Runs `ipvsadm -R` with the given lines as its input.
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
