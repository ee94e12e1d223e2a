//! Tests services that would take the director's own traffic. Each of these
//! services must be refused with a helpful message. Open ssh sessions on the
//! director must continue.

mod api_server;

use std::{fs, path::Path};

use e2e::{
    Host, Process,
    cluster::{
        Cluster, PATIENCE, example, expect_table, forget_director, name_holder, start_agent,
        start_agent_with_manifests, state_dir, value, wait_for, wait_for_words, wait_until_ready,
    },
    course::{Course, DR_VIP, another_service},
    eventually, ipvsadm, kubectl, kubectl_apply, layout,
    process::program,
    shell::{Session, Shell},
};

/// The director's own address, with ssh's port.
const SSH: &str = "192.168.4.5:22";

/// The manifests of the course's web servers as RealServers with NAT. The web
/// servers listen on port 80, whichever port a service has.
const WEB_SERVERS: &str = "
---
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: web1, labels: {app: web}}
spec: {address: 192.168.2.100, port: 80}
---
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: web2, labels: {app: web}}
spec: {address: 192.168.2.200, port: 80}
";

fn service(name: &str, vip: &str, more: &str) -> String {
    format!(
        "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  vip: {vip}
  forwarding: {{method: NAT}}
  realServerSelector: {{matchLabels: {{app: web}}}}
  {more}
"
    )
}

/// Returns the manifest of a VirtualService that would take the director's ssh
/// traffic.
fn ssh_service() -> String {
    service("rival", "{address: 192.168.4.5, port: 22}", "")
}

/// The NAT cluster with an open ssh session on its director.
struct Office {
    course: Course,
    shell: Option<Shell>,
    session: Session,
    proofs: u16,
}

impl Office {
    fn open() -> Self {
        let course = Course::nat();
        let shell = Some(Shell::start(&course.director, "0.0.0.0:22"));
        let session = log_in(&course);
        Self {
            course,
            shell,
            session,
            proofs: 0,
        }
    }

    /// Asserts that the ssh session continues and that a client can open
    /// another session. Creates a service and waits until it is Ready, to check
    /// that the agent still reaches its API server.
    #[track_caller]
    fn expect_alive(&mut self, after: &str) {
        self.session
            .say(after)
            .unwrap_or_else(|error| panic!("the ssh session must continue {after}: {error}"));
        log_in(&self.course);
        self.proofs += 1;
        let (name, port) = (format!("proof{}", self.proofs), 8000 + self.proofs);
        kubectl_apply(&another_service(&name, port));
        wait_until_ready(&[&name]);
        self.session
            .say("and still")
            .unwrap_or_else(|error| panic!("the ssh session must continue beside {name}: {error}"));
    }
}

fn log_in(course: &Course) -> Session {
    Session::open(&course.client, SSH)
        .unwrap_or_else(|error| panic!("ssh on the director was expected to answer: {error}"))
}

/// Waits until the conditions of the service and of the Director report that
/// the service is refused. The message must contain `words`.
#[track_caller]
fn expect_refused(name: &str, director: &str, words: &[&str]) {
    let object = format!("ivs/{name}");
    let refused = [&["WouldHijackDirector: "], words].concat();
    let message = wait_for_words(&object, "Ready", &refused);
    let row = kubectl(&["get", &object]);
    assert!(
        row.contains("WouldHijackDirector"),
        "kubectl get ivs: {row}"
    );
    wait_for(&object, "Programmed", "False");
    let director = format!("idir/{director}");
    // Each director reports at most once a second. The service may therefore
    // show another director's refusal before `director` reports its own.
    wait_for_words(&director, "Programmed", words);
    wait_for(&director, "Programmed", "False");
    let reasons = value(&director, ".status.exceptions[*].reason");
    assert!(reasons.contains("WouldHijackDirector"), "{reasons}");
    println!("{name}: {message}");
}

#[test]
fn what_would_take_the_hosts_own_traffic_is_refused_and_the_host_stays_reachable() {
    let _cluster = Cluster::start();
    let mut office = Office::open();
    let agent = start_agent(&office.course.director, "director1");
    kubectl_apply(WEB_SERVERS);
    office.expect_alive("before anything is refused");
    let api_server = layout::HOST_SIDE;
    let (persistent, every) = ("persistence: {timeoutSeconds: 60}", "every port");
    for (name, vip, more, words) in [
        (
            "api",
            format!("{{address: {api_server}, port: 6443}}"),
            "",
            [
                "connections to the API server, 10.77.0.1:6443",
                "--manifests",
            ],
        ),
        (
            "api-whole",
            format!("{{address: {api_server}, port: 0}}"),
            persistent,
            [
                "connections to the API server, 10.77.0.1:6443",
                "--manifests",
            ],
        ),
        (
            "whole",
            "{address: 192.168.4.5, port: 0}".to_owned(),
            persistent,
            [every, "firewallMark"],
        ),
        (
            "rival",
            "{address: 192.168.4.5, port: 22}".to_owned(),
            "",
            ["listens on 0.0.0.0:22 (TCP)", "ss -lntp 'sport = :22'"],
        ),
    ] {
        kubectl_apply(&service(name, &vip, more));
        expect_refused(name, "director1", &words);
        office.expect_alive(&format!("while {name} is refused"));
        let table = ipvsadm::saved(&office.course.director);
        assert!(
            !table.contains(":22 ") && !table.contains(":0 ") && !table.contains(":6443"),
            "{name} is not in the table:\n{table}"
        );
        let addresses = office.course.director.run("ip -brief address");
        assert!(
            !addresses.contains("10.77.0.1/"),
            "the agent must not add the API server's address: {addresses}"
        );
        kubectl(&["delete", "ivs", name]);
        wait_for("idir/director1", "Programmed", "True");
    }
    let line = agent.wait_for_log("VirtualService default/rival is refused", PATIENCE);
    println!("{line}");
}

#[test]
fn what_a_program_of_the_director_talks_to_is_refused_and_the_program_goes_on() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let registry = course.another_server("registry", "192.168.2.201");
    let _registry = Shell::start(&registry, "0.0.0.0:5000");
    let mut session = Session::open(&course.director, "192.168.2.201:5000")
        .expect("the registry answers the director");
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(WEB_SERVERS);
    let vip = "{address: 192.168.2.201, port: 5000}";
    kubectl_apply(&service("mine", vip, ""));
    let words = ["a program of this host has to 192.168.2.201:5000 (TCP"];
    expect_refused("mine", "director1", &words);
    session
        .say("after the refusal")
        .unwrap_or_else(|error| panic!("the registry must go on answering: {error}"));
    let table = ipvsadm::saved(&course.director);
    assert!(!table.contains("192.168.2.201:5000"), "{table}");
}

#[test]
fn a_refused_service_comes_by_a_grant_of_its_address_and_stays_when_something_listens_again() {
    let _cluster = Cluster::start();
    let mut office = Office::open();
    let mut agent = start_agent(&office.course.director, "director1");
    kubectl_apply(&format!("{}{WEB_SERVERS}", ssh_service()));
    expect_refused("rival", "director1", &["listens on 0.0.0.0:22"]);
    office.expect_alive("while ssh listens");

    office.shell = None;
    let waits = ["10 minutes", "192.168.4.5/32", "listens on 0.0.0.0:22"];
    expect_refused("rival", "director1", &waits);
    agent.kill();
    forget_director("director1", &["rival"]);
    let mut agent = start_agent(&office.course.director, "director1");
    expect_refused("rival", "director1", &waits);
    kubectl(&["delete", "ivs/rival"]);
    kubectl_apply(&ssh_service());
    expect_refused("rival", "director1", &waits);
    let own = r#"[{"op": "add", "path": "/spec/addressPools/-", "value": {"name": "own", "cidrs": ["192.168.4.5/32"]}}]"#;
    kubectl(&["patch", "idg/default", "--type=json", "-p", own]);
    wait_until_ready(&["rival"]);
    wait_for("idir/director1", "Programmed", "True");
    let page = office.course.browser().get(SSH, "/");
    let page =
        page.unwrap_or_else(|error| panic!("a web server must answer behind the service: {error}"));
    assert!(page.starts_with("192.168.2."), "{page}");

    // If a program starts to listen on the port later, the agent keeps the
    // service, and the program gets no traffic.
    let _late = Shell::start(&office.course.director, "0.0.0.0:22");
    let table = ipvsadm::sorted(&office.course.director);
    agent.kill();
    forget_director("director1", &["rival"]);
    let _agent = start_agent(&office.course.director, "director1");
    wait_until_ready(&["rival"]);
    eventually(
        "the Director's notices to say that the service stays",
        PATIENCE,
        || {
            let notices = value("idir/director1", ".status.notices");
            let words = ["default/rival", "stays so", "listens on 0.0.0.0:22"];
            match words.iter().all(|word| notices.contains(word)) {
                true => Ok(()),
                false => Err(notices),
            }
        },
    );
    assert_eq!(ipvsadm::sorted(&office.course.director), table);
    wait_until_ready(&["rival"]);
}

#[test]
fn a_director_is_no_dr_server_of_its_group_and_the_service_goes_on_without_it() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    let _shell = Shell::start(&course.director, "0.0.0.0:22");
    let mut session = log_in(&course);
    let other = course.another_director("director-2", "192.168.4.6/24");
    name_holder("director1");
    let _one = start_agent(&course.director, "director1");
    let _two = start_agent(&other, "director2");
    for (director, address) in [("director1", "192.168.4.5"), ("director2", "192.168.4.6")] {
        eventually(
            &format!("{director} to write its addresses"),
            PATIENCE,
            || {
                let object = format!("idgm/{director}");
                let made = e2e::control::try_kubectl(&["get", &object, "-o", "yaml"]);
                match made.stdout.contains(&format!("- {address}\n")) {
                    true => Ok(()),
                    false => Err(made.stdout),
                }
            },
        );
    }
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    for (name, address, director) in [
        ("web3", "192.168.4.6", "director2"),
        ("web4", "192.168.4.5", "director1"),
    ] {
        kubectl_apply(&format!(
            "{{apiVersion: ipvs.dev/v1alpha1, kind: RealServer, metadata: {{name: {name}, labels: {{app: web}}}}, spec: {{address: {address}}}}}"
        ));
        let server = format!("RealServer default/{name}: refused");
        let whose = format!("{address}:80 is Director {director} of the same group");
        expect_refused("web", "director1", &[&whose, "NAT"]);
        wait_for_words("ivs/web", "Ready", &[&server]);
        for host in [&course.director, &other] {
            expect_table(host, &DR_TABLE);
        }
        let counts = course.browser().counts(10, DR_VIP);
        assert!(
            counts.keys().all(|page| page.starts_with("192.168.4.")) && counts.len() == 2,
            "the other two servers must answer: {counts:?}"
        );
        session
            .say("while a server is refused")
            .expect("the ssh session continues");
        kubectl(&["delete", "irs", name]);
        wait_until_ready(&["web"]);
    }
    // A director may be a real server in a service of its own group, if the
    // forwarding method is NAT.
    kubectl_apply(
        "{apiVersion: ipvs.dev/v1alpha1, kind: RealServer, metadata: {name: web3, labels: {app: web}}, spec: {address: 192.168.4.6, forwarding: {method: NAT}}}",
    );
    let by_nat = "-a -t 192.168.4.15:80 -r 192.168.4.6:80 -m -w 1";
    let [service, one, two] = DR_TABLE;
    expect_table(&course.director, &[service, one, two, by_nat]);
    wait_until_ready(&["web"]);
    session
        .say("to the end")
        .expect("the ssh session continues");
}

const DR_TABLE: [&str; 3] = [
    "-A -t 192.168.4.15:80 -s wrr",
    "-a -t 192.168.4.15:80 -r 192.168.4.100:80 -g -w 1",
    "-a -t 192.168.4.15:80 -r 192.168.4.200:80 -g -w 1",
];

#[test]
fn with_manifests_it_is_refused_in_the_log_and_done_if_the_flag_says_so() {
    let mut office = Office::open();
    let director = &office.course.director;
    let folder = layout::file("manifests-hijack");
    fs::create_dir_all(&folder).expect("the lab's folder can be written");
    let objects = format!(
        "{}---\n{}{WEB_SERVERS}",
        ssh_service(),
        another_service("web", 80)
    );
    fs::write(folder.join("all.yaml"), objects).expect("the folder is the test's own");
    let web = [
        "-A -t 192.168.4.5:80 -s wlc",
        "-a -t 192.168.4.5:80 -r 192.168.2.100:80 -m -w 1",
        "-a -t 192.168.4.5:80 -r 192.168.2.200:80 -m -w 1",
    ];
    let mut agent = start_agent_with_manifests(director, "standalone", &folder);
    let line = agent.wait_for_log("VirtualService default/rival is refused", PATIENCE);
    assert!(line.contains("listens on 0.0.0.0:22 (TCP)"), "{line}");
    expect_table(director, &web);
    office
        .session
        .say("without the flag")
        .expect("the ssh session continues");
    drop(log_in(&office.course));

    agent.kill();
    let agent = start_agent_that_may_hijack(director, &folder);
    let line = agent.wait_for_log("as --allow-hijack says", PATIENCE);
    assert!(line.contains("default/rival"), "{line}");
    let rival: Vec<_> = web
        .iter()
        .map(|line| line.replace(":80 -s", ":22 -s"))
        .collect();
    let rival: Vec<_> = rival
        .iter()
        .map(|line| line.replace("192.168.4.5:80", "192.168.4.5:22"))
        .collect();
    let both: Vec<_> = web
        .into_iter()
        .chain(rival.iter().map(String::as_str))
        .collect();
    expect_table(director, &both);
    let page = office.course.browser().get(SSH, "/");
    let page = page.expect("a web server answers in place of ssh");
    assert!(page.starts_with("192.168.2."), "{page}");
    fs::remove_dir_all(&folder).expect("the folder is the test's own");
    fs::remove_dir_all(state_dir("standalone")).expect("the agent had a state folder");
}

fn start_agent_that_may_hijack(host: &Host, folder: &Path) -> Process {
    let mut command = program("ipvs-agent");
    command
        .env("IPVS_NODE_NAME", "standalone")
        .env("IPVS_STATE_DIR", state_dir("standalone"))
        .arg("--allow-hijack")
        .arg("--manifests")
        .arg(folder);
    Process::start(host, "agent-standalone", &mut command)
}

/// Tests listening sockets of several kinds. A VirtualService is refused only
/// if a socket serves its address, port and protocol.
#[test]
fn each_kind_of_listener_is_seen_on_the_addresses_that_it_serves_and_on_no_others() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let director = &course.director;
    director.ip("address add 2001:db8::5/64 dev eth0 nodad");
    e2e::host::run_here(std::process::Command::new("modprobe").arg("sctp"))
        .expect("the lab's kernel has SCTP");
    let both = listen(director, "[::]:1001");
    director.sysctl("net.ipv6.bindv6only", "1");
    let v6_only = listen(director, "[::]:1002");
    let elsewhere = listen(director, "192.168.2.5:1003");
    let datagrams = director
        .enter(|| std::net::UdpSocket::bind("192.168.4.5:1004"))
        .expect("a free port");
    let sctp = listen_sctp(director, 1005);
    let _agent = start_agent(director, "director1");
    kubectl_apply(WEB_SERVERS);
    let (v4, v6) = ("192.168.4.5", "\"2001:db8::5\"");
    let cases = [
        (v4, 1001, "TCP", true),
        (v6, 1001, "TCP", true),
        (v4, 1002, "TCP", false),
        (v6, 1002, "TCP", true),
        (v4, 1003, "TCP", false),
        (v6, 1003, "TCP", false),
        (v4, 1004, "UDP", true),
        (v4, 1004, "TCP", false),
        (v4, 1005, "SCTP", true),
        (v4, 1005, "TCP", false),
    ];
    let manifests: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(number, (address, port, protocol, _))| {
            let vip = format!("{{address: {address}, port: {port}, protocol: {protocol}}}");
            service(&format!("case{number}"), &vip, "")
        })
        .collect();
    kubectl_apply(&manifests.join("---\n"));
    for (number, (address, port, protocol, is_refused)) in cases.iter().enumerate() {
        let object = format!("ivs/case{number}");
        let what = format!("{protocol} {address} port {port} to be refused: {is_refused}");
        println!("{what}");
        let reason = match is_refused {
            true => "WouldHijackDirector: ",
            false => "Programmed: ",
        };
        wait_for_words(&object, "Programmed", &[reason]);
    }
    drop((both, v6_only, elsewhere, datagrams, sctp));
}

fn listen(host: &Host, address: &str) -> std::net::TcpListener {
    host.enter(|| std::net::TcpListener::bind(address))
        .unwrap_or_else(|error| panic!("{address} is free: {error}"))
}

fn listen_sctp(host: &Host, port: u16) -> std::os::fd::OwnedFd {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, bind, listen, socket,
    };
    use std::os::fd::AsRawFd;
    host.enter(|| {
        let kind = SockType::Stream;
        let protocol = SockProtocol::Sctp;
        let made = socket(AddressFamily::Inet, kind, SockFlag::empty(), protocol)?;
        bind(made.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
        listen(&made, Backlog::new(1)?)?;
        nix::Result::Ok(made)
    })
    .unwrap_or_else(|error| panic!("SCTP listens on port {port}: {error}"))
}
