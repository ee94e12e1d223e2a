//! `make demo`: the course's three first cases, from `kubectl apply` to
//! packets, on a real kernel and a real API server. Runs inside the lab.

use std::{collections::BTreeMap, time::Instant};

use e2e::{
    Host, Process, Segment,
    cluster::{Cluster, example, start_agent, wait_until_ready},
    control,
    course::{Course, DR_VIP, NAT_VIP},
    eventually, ipvsadm, kubectl,
};

fn main() {
    let started = Instant::now();
    chapter("A real API server with the chart installed, and a controller");
    command(
        "helm upgrade --install ipvs-operator charts/ipvs-operator --namespace ipvs-operator --create-namespace",
    );
    let cluster = Cluster::start();
    show(&kubectl(&["api-resources", "--api-group=ipvs.dev"]));

    table_by_hand();
    nat_cluster();
    dr_cluster();
    drop(cluster);
    println!(
        "\nThat was it, in {} s; the lab is taken down now.",
        started.elapsed().as_secs()
    );
}

fn table_by_hand() {
    chapter("Case 1: the table by hand, without ipvsadm");
    let course = Course::nat();
    let intranet = Segment::new("intranet");
    intranet.attach(&course.director, "eth2", "10.10.10.5/24");
    println!("Somebody else has made a service by hand on this director:");
    on_director(&course.director, "ipvsadm -A -t 192.168.4.5:8080 -s rr");
    let agent = start_agent(&course.director, "director1");

    apply("table-by-hand.yaml");
    wait_until_ready(&["web", "mysql", "intranet"]);
    show_objects();
    show_table(&course.director);

    println!("Everything is deleted. What the operator did not make is still there:");
    run("kubectl delete ivs,irs --all");
    expect_services(&course.director, 1);
    show_table(&course.director);
    drop(agent);
    forget_director();
}

fn nat_cluster() {
    chapter("Case 2: the NAT cluster");
    println!(
        "client 192.168.4.10 ── 192.168.4.5 director 192.168.2.5 ── web servers 192.168.2.100, .200"
    );
    let course = Course::nat();
    let agent = start_agent(&course.director, "director1");
    apply("nat-cluster.yaml");
    wait_until_ready(&["web"]);
    show_objects();
    show_table(&course.director);
    ask(&course, NAT_VIP, 12);

    println!("A weight is changed live:");
    change(
        &course.director,
        "irs/web2",
        r#"{"spec":{"weight":2}}"#,
        "-w 2",
    );
    show_table(&course.director);
    ask(&course, NAT_VIP, 12);

    println!("And the scheduler, to source hashing: one client, one server:");
    change(
        &course.director,
        "ivs/web",
        r#"{"spec":{"scheduler":"sh"}}"#,
        "-s sh",
    );
    show_table(&course.director);
    ask(&course, NAT_VIP, 12);
    finish(&course, agent);
}

fn dr_cluster() {
    chapter("Case 3: the DR cluster");
    println!(
        "one segment: client 192.168.4.10, director .5 with the VIP .15, web servers .100 and .200"
    );
    let course = Course::dr();
    let agent = start_agent(&course.director, "director1");
    apply("dr-cluster.yaml");
    wait_until_ready(&["web"]);
    show_objects();
    show_table(&course.director);
    println!("The agent put the VIP on the interface whose subnet holds it:");
    on_director(&course.director, "ip -brief address show eth0");
    ask(&course, DR_VIP, 12);

    println!("Weights 1:2:");
    change(
        &course.director,
        "irs/web2",
        r#"{"spec":{"weight":2}}"#,
        "-w 2",
    );
    ask(&course, DR_VIP, 12);
    show_table(&course.director);
    finish(&course, agent);
}

/// The agent ends before the objects do: packets flow without it. Then
/// everything is deleted.
fn finish(course: &Course, agent: Process) {
    run("kubectl delete ivs,irs --all");
    expect_services(&course.director, 0);
    show_table(&course.director);
    drop(agent);
    forget_director();
}

fn chapter(title: &str) {
    println!(
        "\n=== {title} {}",
        "=".repeat(72_usize.saturating_sub(title.len()))
    );
}

fn command(line: &str) {
    println!("\n$ {line}");
}

fn show(output: &str) {
    for line in output.lines() {
        println!("  {}", line.trim_end());
    }
    println!();
}

fn run(line: &str) {
    command(line);
    let args: Vec<_> = line.split(' ').skip(1).collect();
    show(&kubectl(&args));
}

fn on_director(director: &Host, line: &str) {
    println!("\ndirector$ {line}");
    show(&director.run(line));
}

fn apply(name: &str) {
    command(&format!("kubectl apply -f examples/{name}"));
    show(&control::kubectl_apply(&example(name)));
}

fn show_objects() {
    run("kubectl get ivs");
    run("kubectl get irs");
}

fn show_table(director: &Host) {
    println!("director$ ipvsadm -Ln");
    show(&ipvsadm::listed(director));
}

/// Edits an object and waits until the kernel's table shows it.
fn change(director: &Host, object: &str, patch: &str, shows: &str) {
    command(&format!("kubectl patch {object} --type=merge -p '{patch}'"));
    show(&kubectl(&["patch", object, "--type=merge", "-p", patch]));
    eventually(shows, e2e::cluster::PATIENCE, || {
        let table = ipvsadm::saved(director);
        if table.contains(shows) {
            Ok(())
        } else {
            Err(table)
        }
    });
}

fn expect_services(director: &Host, count: usize) {
    eventually("the services to be gone", e2e::cluster::PATIENCE, || {
        let table = ipvsadm::saved(director);
        if table.matches("-A ").count() == count {
            Ok(())
        } else {
            Err(table)
        }
    });
}

fn ask(course: &Course, vip: &str, requests: usize) {
    println!(
        "client$ for i in $(seq {requests}); do curl http://{}; done | sort | uniq -c",
        vip.trim_end_matches(":80")
    );
    let counts: BTreeMap<String, usize> = course.browser().counts(requests, vip);
    for (page, count) in counts {
        println!("  {count:>4} {page}");
    }
    println!();
}

/// The next case's director is another machine of the same name.
fn forget_director() {
    kubectl(&["delete", "idir", "--all"]);
}
