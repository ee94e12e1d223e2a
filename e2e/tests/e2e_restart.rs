//! Tests an agent that starts on a host where an agent ran before. Before the
//! second start, another build replaces the agent, or the host reboots.

use std::{fs, mem};

use e2e::{
    ApiServerAway, Host,
    cluster::{
        Cluster, PATIENCE, example, expect_table, start_agent, start_agent_after_reboot,
        start_agent_traced, start_other_agent_traced, state_dir, wait_for, wait_for_words,
        wait_until_ready,
    },
    course::{Course, DR_VIP, DR_WEB, another_service},
    eventually, ipvsadm, kubectl, kubectl_apply,
    process::program,
    trace,
};
use ipvs::{ActualTable, Kernel, Socket};
use redb::{Database, TableDefinition};
use serde_json::json;

const DIRECTOR: &str = "director1";

#[test]
fn another_build_of_the_agent_sends_no_write_to_the_kernel() {
    let read = |name| fs::read(program(name).get_program()).expect("the agent is built");
    let is_same = read("ipvs-agent") == read("ipvs-agent-other");
    assert!(!is_same, "the two builds differ");

    let _cluster = Cluster::start();
    let course = Course::dr();
    let mut agent = start_agent(&course.director, DIRECTOR);
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    agent.terminate(PATIENCE);

    let (there, trace) = start_other_agent_traced(&course.director, DIRECTOR, "other");
    expect_one_service_written(there, &trace, "from-other", 8081);
    let (back, trace) = start_agent_traced(&course.director, DIRECTOR, "usual");
    expect_one_service_written(back, &trace, "from-usual", 8082);
}

/// Creates a service, and waits until the agent has programmed the service and
/// processed all older objects. Asserts that the agent wrote only the new
/// service's entries to the kernel.
#[track_caller]
fn expect_one_service_written(
    mut agent: e2e::Process,
    file: &std::path::Path,
    name: &str,
    port: u16,
) {
    kubectl_apply(&another_service(name, port));
    wait_until_ready(&[name]);
    agent.kill();
    assert_eq!(
        trace::kernel_writes(file, agent.id()),
        ["NEW_SERVICE", "NEW_DEST", "NEW_DEST"],
        "only {name} with its servers must be written"
    );
}

#[test]
fn a_state_folder_with_an_older_schema_sends_no_write_to_the_kernel_and_is_taken_over() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let mut agent = start_agent(&course.director, DIRECTOR);
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    agent.terminate(PATIENCE);
    let table = course.director.enter(|| {
        let mut socket = Socket::open().expect("the lab's kernel has ip_vs");
        socket.table().expect("the kernel answers")
    });
    write_journal_of_schema_1(&table);

    let (agent, trace) = start_agent_traced(&course.director, DIRECTOR, "older-schema");
    expect_one_service_written(agent, &trace, "new", 8081);

    // The new agent owns the entries in the old journal, and removes an entry
    // when its object is deleted. When the new service is Ready, the agent has
    // also processed all older objects.
    let _agent = start_agent(&course.director, DIRECTOR);
    kubectl_apply(&another_service("newer", 8082));
    wait_until_ready(&["newer"]);
    kubectl(&["delete", "ivs", "--all"]);
    expect_table(&course.director, &[]);
    eventually("the VIP to be gone", PATIENCE, || {
        let addresses = course.director.run("ip -brief address show eth0");
        match addresses.contains("192.168.4.15/32") {
            true => Err(addresses),
            false => Ok(()),
        }
    });
}

/// Writes the journal in the format of the first builds of the agent, with a
/// row of JSON for each entry.
fn write_journal_of_schema_1(table: &ActualTable) {
    const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
    const OWNED: TableDefinition<'_, &str, ()> = TableDefinition::new("owned");
    let mut entries = vec![json!({"Address": ["192.168.4.15", "eth0"]})];
    for (service, found) in table {
        entries.push(json!({"Service": service}));
        for destination in found.destinations.keys() {
            entries.push(json!({"Destination": [service, destination]}));
        }
    }
    let boot_id =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux has a boot ID");
    let file = state_dir(DIRECTOR).join("journal.redb");
    fs::remove_file(&file).expect("the agent left a journal");
    let database = Database::create(&file).expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    {
        let mut meta = transaction.open_table(META).expect("a table");
        meta.insert("schema", "1").expect("a row");
        meta.insert("boot", boot_id.trim()).expect("a row");
        let mut owned = transaction.open_table(OWNED).expect("a table");
        for entry in &entries {
            owned.insert(&*entry.to_string(), ()).expect("a row");
        }
    }
    transaction.commit().expect("the journal is written");
}

#[test]
fn after_a_reboot_the_table_is_back_and_nothing_of_others_is_touched() {
    let _cluster = Cluster::start();
    let mut course = Course::dr();
    let mut agent = start_agent(&course.director, DIRECTOR);
    kubectl_apply(&example("dr-cluster.yaml"));
    kubectl_apply(&another_service("former", 8081));
    wait_until_ready(&["web", "former"]);
    let ours = ipvsadm::sorted(&course.director);
    // The agent writes the journal and the checkpoint to disk within seconds.
    agent.terminate(PATIENCE);

    // While the API server does not answer, the agent starts from its
    // checkpoint. The table already has a stranger's services. The keys of
    // these services differ from our keys in port, protocol or address.
    let away = ApiServerAway::begin();
    reboot(&mut course, "rebooted");
    for line in STRANGERS {
        course.director.run(&format!("ipvsadm {line}"));
    }
    let strangers = ipvsadm::sorted(&course.director);
    let mut agent = start_agent_after_reboot(&course.director, DIRECTOR, "second-boot");
    let all: Vec<_> = ours.iter().chain(&strangers).map(String::as_str).collect();
    expect_table(&course.director, &all);
    expect_vip(&course.director);
    expect_answers(&course);
    drop(away);
    // The test deletes the Director, and the agent creates it again. The new
    // Director is Programmed only after the agent has listed all objects.
    let object = format!("idir/{DIRECTOR}");
    kubectl(&["delete", &object]);
    wait_for(&object, "Programmed", "True");
    expect_table(&course.director, &all);
    agent.terminate(PATIENCE);

    // The journal records the entries that the kernel had before the reboot.
    // Now our service is deleted, and a stranger makes a service with the same
    // key. The checkpoint is deleted, so the agent does not restore our
    // service.
    kubectl(&["delete", "ivs/former"]);
    fs::remove_file(state_dir(DIRECTOR).join("checkpoint.redb"))
        .expect("the agent left a checkpoint");
    reboot(&mut course, "rebooted-again");
    let taken = "-A -t 192.168.4.5:8081 -s sed";
    for line in STRANGERS.iter().chain(&[taken]) {
        course.director.run(&format!("ipvsadm {line}"));
    }
    let strangers = ipvsadm::sorted(&course.director);
    let _agent = start_agent_after_reboot(&course.director, DIRECTOR, "third-boot");
    kubectl_apply(&another_service("new", 8085));
    // After a reboot, a program of the host may not yet listen on its port. The
    // agent therefore waits before it creates a service on the port.
    let waits = ["WouldHijackDirector", "started less than 10 minutes ago"];
    wait_for_words("ivs/new", "Ready", &waits);
    let own = r#"[{"op": "add", "path": "/spec/addressPools/-", "value": {"name": "own", "cidrs": ["192.168.4.5/32"]}}]"#;
    kubectl(&["patch", "idg/default", "--type=json", "-p", own]);
    let new = "192.168.4.5:8085";
    let servers = DR_WEB.map(|web| format!("-a -t {new} -r {web}:8085 -m -w 1"));
    let made = format!("-A -t {new} -s wlc");
    let all: Vec<_> = ours
        .iter()
        .filter(|line| line.contains(DR_VIP))
        .chain(&strangers)
        .chain(&servers)
        .map(String::as_str)
        .chain([made.as_str()])
        .collect();
    expect_table(&course.director, &all);
    expect_vip(&course.director);
    expect_answers(&course);
}

/// The strangers' services. Each key is a firewall mark, or differs from a key
/// of ours in its port, protocol or address.
const STRANGERS: [&str; 5] = [
    "-A -t 192.168.4.15:81 -s lc",
    "-a -t 192.168.4.15:81 -r 192.168.4.100:81 -g -w 7",
    "-A -u 192.168.4.15:80 -s rr",
    "-A -t 192.168.4.16:80 -s wlc",
    "-A -f 80 -s rr",
];

/// Replaces the director by a new host with the same address, an empty IPVS
/// table and none of the agent's VIPs.
fn reboot(course: &mut Course, name: &str) {
    drop(mem::replace(
        &mut course.director,
        Host::new("switched-off"),
    ));
    course.director = course.another_director(name, "192.168.4.5/24");
    assert_eq!(ipvsadm::saved(&course.director), "");
}

#[track_caller]
fn expect_vip(director: &Host) {
    eventually("the VIP to be on the director", PATIENCE, || {
        let addresses = director.run("ip -brief address show eth0");
        match addresses.contains("192.168.4.15/32") {
            true => Ok(()),
            false => Err(addresses),
        }
    });
}

#[track_caller]
fn expect_answers(course: &Course) {
    // The client's neighbor table is flushed, because it still has the MAC
    // address of the old host.
    course.client.run("ip neighbour flush all");
    let counts = course.browser().counts(10, DR_VIP);
    let expected: Vec<_> = DR_WEB.iter().map(|web| ((*web).to_owned(), 5)).collect();
    assert_eq!(counts, expected.into_iter().collect());
}
