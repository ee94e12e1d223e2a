//! `make demo` runs this program inside the lab. The program shows the first
//! three cases of the LVS course, from `kubectl apply` to packets, on a real
//! kernel and a real API server.

use std::{collections::BTreeMap, time::Instant};

use e2e::{
    Process, Segment,
    cluster::{Cluster, PATIENCE, drain_nothing, example, start_agent},
    control,
    course::{Course, DR_VIP, NAT_VIP},
    eventually, ipvsadm, kubectl,
};

/// The address pool with the virtual addresses of the demo's three cases.
const POOL: &str =
    r#"{"spec":{"addressPools":[{"name":"course","cidrs":["192.168.4.0/24","10.10.10.0/24"]}]}}"#;

fn main() {
    let started = Instant::now();
    chapter("A real API server with the chart installed, and a controller");
    command(
        "helm upgrade --install ipvs-operator charts/ipvs-operator --namespace ipvs-operator --create-namespace",
    );
    let cluster = Cluster::start();
    run("kubectl api-resources --api-group=ipvs.dev");
    say("A DirectorGroup grants the virtual addresses that VirtualServices may use:");
    command(&format!(
        "kubectl patch directorgroup default --type=merge -p '{POOL}'"
    ));
    let patch = [
        "patch",
        "directorgroup",
        "default",
        "--type=merge",
        "-p",
        POOL,
    ];
    show(&kubectl(&patch));

    table_by_hand();
    nat_cluster();
    dr_cluster();
    drop(cluster);
    println!(
        "\nThat was it, in {} s. The lab is taken down now; nothing of it stays.",
        started.elapsed().as_secs()
    );
}

fn table_by_hand() {
    chapter("Case 1: the table by hand, without ipvsadm");
    let course = Course::nat();
    let intranet = Segment::new("intranet");
    intranet.attach(&course.director, "eth2", "10.10.10.5/24");
    let scene = Scene::open(course);

    scene.apply("table-by-hand.yaml");
    scene.table();
    say("Live edits: another scheduler, and another forwarding method for one server.");
    scene.change("ivs/web", r#"{"spec":{"scheduler":"rr"}}"#, "-s rr");
    scene.change(
        "irs/web-202",
        r#"{"spec":{"forwarding":{"method":"DR"}}}"#,
        "192.168.2.202:80 -g -w 4",
    );
    scene.table();
    scene.close();
}

fn nat_cluster() {
    chapter("Case 2: the NAT cluster");
    say(
        "client 192.168.4.10 ── 192.168.4.5 director 192.168.2.5 ── web servers 192.168.2.100, .200",
    );
    let scene = Scene::open(Course::nat());
    scene.apply("nat-cluster.yaml");
    scene.table();
    scene.ask(NAT_VIP);
    say("A weight is changed live, from 1:1 to 1:2.");
    scene.change("irs/web2", r#"{"spec":{"weight":2}}"#, "-w 2");
    scene.ask(NAT_VIP);
    say("And the scheduler, to source hashing: one client, one server.");
    scene.change("ivs/web", r#"{"spec":{"scheduler":"sh"}}"#, "-s sh");
    scene.ask(NAT_VIP);
    scene.table();
    scene.close();
}

fn dr_cluster() {
    chapter("Case 3: the DR cluster");
    say(
        "One segment: client 192.168.4.10, director .5 with the VIP .15, web servers .100 and .200.",
    );
    let scene = Scene::open(Course::dr());
    scene.apply("dr-cluster.yaml");
    scene.table();
    say("The agent put the VIP on the interface whose subnet holds it:");
    scene.on_director("ip -brief address show eth0");
    scene.ask(DR_VIP);
    say("A weight is changed live, from 1:1 to 1:2.");
    scene.change("irs/web2", r#"{"spec":{"weight":2}}"#, "-w 2");
    scene.ask(DR_VIP);
    say("And the scheduler, to plain round robin, which knows no weights.");
    scene.change("ivs/web", r#"{"spec":{"scheduler":"rr"}}"#, "-s rr");
    scene.ask(DR_VIP);
    scene.table();
    scene.close();
}

/// The network, agent and API objects of one case of the demo. The director of
/// each case runs an agent and has an IPVS service that was created by hand.
struct Scene {
    course: Course,
    _agent: Process,
}

impl Scene {
    fn open(course: Course) -> Self {
        say("A service was made by hand on this director:");
        let line = "ipvsadm -A -t 192.168.4.5:8080 -s rr";
        command_on("director", line);
        course.director.run(line);
        let agent = start_agent(&course.director, "director1");
        Self {
            course,
            _agent: agent,
        }
    }

    /// Applies an example manifest, waits until its objects are Ready, and
    /// prints them.
    fn apply(&self, name: &str) {
        let manifest = example(name);
        command(&format!("cat examples/{name}"));
        show(&manifest);
        command(&format!("kubectl apply -f examples/{name}"));
        show(&control::kubectl_apply(&manifest));
        run("kubectl wait ivs,irs --all --for=condition=Ready --timeout=60s");
        run("kubectl get ivs");
        run("kubectl get irs");
    }

    fn table(&self) {
        command_on("director", "ipvsadm -Ln");
        show(&ipvsadm::listed(&self.course.director));
    }

    fn on_director(&self, line: &str) {
        command_on("director", line);
        show(&self.course.director.run(line));
    }

    /// Patches a Kubernetes object and waits until the kernel's IPVS table
    /// contains the text `shows`.
    fn change(&self, object: &str, patch: &str, shows: &str) {
        command(&format!("kubectl patch {object} --type=merge -p '{patch}'"));
        show(&kubectl(&["patch", object, "--type=merge", "-p", patch]));
        eventually(shows, PATIENCE, || {
            let table = ipvsadm::saved(&self.course.director);
            if table.contains(shows) {
                Ok(())
            } else {
                Err(table)
            }
        });
    }

    /// Sends requests from the client and prints how many requests each server
    /// answered.
    fn ask(&self, vip: &str) {
        const REQUESTS: usize = 12;
        let url = vip.trim_end_matches(":80");
        command_on(
            "client",
            &format!("for i in $(seq {REQUESTS}); do curl http://{url}; done | sort | uniq -c"),
        );
        let counts: BTreeMap<String, usize> = self.course.browser().counts(REQUESTS, vip);
        for (page, count) in counts {
            println!("  {count:>4} {page}");
        }
    }

    /// Deletes the Kubernetes objects of the case, and shows that the IPVS
    /// service created by hand remains.
    fn close(self) {
        say("Everything is deleted; what the operator did not make is still there.");
        // The demo does not wait until the kernel has forgotten closed
        // connections.
        drain_nothing();
        run("kubectl delete ivs,irs --all");
        eventually("the stranger's service alone", PATIENCE, || {
            let table = ipvsadm::saved(&self.course.director);
            if table.lines().count() == 1 {
                Ok(())
            } else {
                Err(table)
            }
        });
        self.table();
        // Each case has its own director, but all directors have the same name.
        // So the network of a finished case must be gone before the next case
        // begins.
        drop(self);
        kubectl(&["delete", "idir,idgm", "--all"]);
    }
}

fn chapter(title: &str) {
    println!(
        "\n=== {title} {}",
        "=".repeat(72_usize.saturating_sub(title.chars().count()))
    );
}

fn say(text: &str) {
    println!("\n{text}");
}

fn command(line: &str) {
    println!("\n$ {line}");
}

fn command_on(host: &str, line: &str) {
    println!("\n{host}$ {line}");
}

fn show(output: &str) {
    for line in output.lines() {
        println!("  {}", line.trim_end());
    }
}

/// Prints and runs a kubectl command line, which must not contain quotes.
fn run(line: &str) {
    command(line);
    let args: Vec<_> = line.split(' ').skip(1).collect();
    show(&kubectl(&args));
}
