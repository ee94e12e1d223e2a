//! The steps that the random walk can take, with the probability of each step.

use fastrand::Rng;

use crate::{
    life::LAST_CALLS,
    objects::{APPS, Method, REVOCABLE, SCHEDULERS, SERVERS, SERVICES, Server, Service},
    table::Entry,
};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Creates a VirtualService, or edits it if it exists.
    PutService(usize, Service),
    DeleteService(usize),
    /// Deletes a VirtualService if it exists, and creates it again at once.
    ReplaceService(usize, Service),
    PutServer(usize, Server),
    DeleteServer(usize),
    /// Deletes a RealServer if it exists, and creates it again at once.
    ReplaceServer(usize, Server),
    /// Revokes the grant of a VIP or mark, or restores a revoked grant.
    TurnGrant(usize),
    Stranger(Deed),
    /// Kills the agent with SIGKILL.
    Kill,
    /// Stops the agent with SIGTERM.
    Stop,
    /// Sends SIGKILL to the agent, and starts an agent that gets SIGKILL at the
    /// given system call.
    Doom(&'static str, u32),
    Resume,
}

/// A change that a stranger makes with ipvsadm.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    MakeService(String, &'static str),
    MakeServer(String, String, u32),
    /// Edits an existing entry of the kernel's table: a service's scheduler or
    /// a server's weight.
    Edit(usize, &'static str, u32),
    /// Removes an existing entry of the kernel's table.
    Remove(usize),
    Clear,
}

/// The service keys of strangers. No VirtualService ever has one of these keys.
const FOREIGN: [&str; 2] = ["-t 192.168.4.30:80", "-u 192.168.4.30:53"];
/// The addresses of strangers' servers. No RealServer ever has one of these
/// addresses. The last address is an IPv6 address.
const FOREIGN_SERVERS: [&str; 3] = ["192.168.2.201", "192.168.2.202", "2001:db8:2::201"];

/// Chooses a step of the walk while the API server is running.
pub(crate) fn any_step(rng: &mut Rng) -> Step {
    match rng.u32(..110) {
        100..103 => Step::ReplaceService(rng.usize(..SERVICES.len()), service(rng)),
        103..106 => Step::ReplaceServer(rng.usize(..SERVERS.len()), server(rng)),
        106..110 => Step::TurnGrant(rng.usize(..REVOCABLE.len())),
        0..14 => Step::PutService(rng.usize(..SERVICES.len()), service(rng)),
        14..20 => Step::DeleteService(rng.usize(..SERVICES.len())),
        20..48 => Step::PutServer(rng.usize(..SERVERS.len()), server(rng)),
        48..54 => Step::DeleteServer(rng.usize(..SERVERS.len())),
        _ => step_without_objects(rng),
    }
}

/// Chooses a step of the walk that needs no API server.
pub(crate) fn step_without_objects(rng: &mut Rng) -> Step {
    match rng.u32(..46) {
        0..30 => Step::Stranger(deed(rng)),
        30..33 => Step::Kill,
        33..34 => Step::Stop,
        34..40 => {
            let (system_call, most) = LAST_CALLS[rng.usize(..LAST_CALLS.len())];
            Step::Doom(system_call, rng.u32(1..=most))
        }
        _ => Step::Resume,
    }
}

fn service(rng: &mut Rng) -> Service {
    let mut apps = vec![one_of(rng, &APPS)];
    let other = one_of(rng, &APPS);
    if rng.bool() && !apps.contains(&other) {
        apps.push(other);
    }
    Service {
        scheduler: one_of(rng, &SCHEDULERS),
        persistence: one_of(rng, &[None, None, Some(60), Some(300)]),
        method: method(rng),
        apps,
    }
}

fn server(rng: &mut Rng) -> Server {
    Server {
        port: one_of(rng, &[None, None, None, Some(80), Some(8080)]),
        weight: rng.u32(..5),
        method: one_of(rng, &[false, false, true]).then(|| method(rng)),
        upper_threshold: one_of(rng, &[None, None, Some(100)]),
        app: one_of(rng, &APPS),
    }
}

fn method(rng: &mut Rng) -> Method {
    one_of(rng, &[Method::Nat, Method::Nat, Method::Dr, Method::Tun])
}

fn deed(rng: &mut Rng) -> Deed {
    match rng.u32(..60) {
        0..12 => {
            let own = SERVICES[rng.usize(..SERVICES.len())].key;
            let foreign = one_of(rng, &FOREIGN);
            let key = one_of(rng, &[own, foreign]);
            Deed::MakeService(key.to_owned(), one_of(rng, &SCHEDULERS))
        }
        12..30 => {
            let identity = SERVICES[rng.usize(..SERVICES.len())];
            let own = SERVERS[rng.usize(..SERVERS.len())].1;
            let foreign = one_of(rng, &FOREIGN_SERVERS);
            let (key, port) = match rng.u32(..4) {
                0 => (one_of(rng, &FOREIGN), 80),
                _ => (identity.key, identity.port()),
            };
            let server = match one_of(rng, &[own, foreign]) {
                v6 if v6.contains(':') => format!("[{v6}]:{port}"),
                v4 => format!("{v4}:{port}"),
            };
            Deed::MakeServer(key.to_owned(), server, rng.u32(900..903))
        }
        30..46 => Deed::Edit(
            rng.usize(..1000),
            one_of(rng, &SCHEDULERS),
            rng.u32(900..903),
        ),
        46..59 => Deed::Remove(rng.usize(..1000)),
        _ => Deed::Clear,
    }
}

fn one_of<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}

/// Returns the ipvsadm arguments that create a stranger's entry. In a
/// [`Table`](crate::table::Table), the entry's line is the same text.
pub(crate) fn stranger_makes(entry: &Entry, scheduler: &str, weight: u32) -> String {
    match &entry.server {
        None => format!("-A {} -s {scheduler}", entry.service),
        Some(server) => format!("-a {} -r {server} -m -w {weight}", entry.service),
    }
}

pub(crate) fn stranger_edits(line: &str) -> String {
    match line.strip_prefix("-A") {
        Some(service) => format!("-E{service}"),
        None => line.replacen("-a", "-e", 1),
    }
}

pub(crate) fn stranger_removes(entry: &Entry) -> String {
    match &entry.server {
        None => format!("-D {}", entry.service),
        Some(server) => format!("-d {} -r {server}", entry.service),
    }
}
