//! Makes faults for real, and looks at what a person sees of them with
//! `kubectl get`: the object, the reason, and what to do. Where that is a
//! command, the test runs it, and the fault ends.

mod agents;
mod definitions;
mod history;
mod local;
mod screen;
mod strangers;
mod upkeep;

use e2e::{
    Process,
    cluster::{Cluster, agent, example, name_holder, start_agent, wait_for, wait_until_ready},
    course::{Course, another_service},
    kubectl, kubectl_apply,
};

use self::screen::{
    expect_on_screen, expect_the_fleet_is_not_well, expect_the_fleet_is_well, run_from_screen,
};

/// More services than a director may remove at once.
const SERVICES: u16 = 12;

fn many_services() -> String {
    let service = |number| another_service(&format!("web{number}"), 8000 + number);
    let all: Vec<String> = (0..SERVICES).map(service).collect();
    all.join("---\n")
}

#[test]
fn a_server_that_is_down_is_on_the_screen_with_the_words_of_its_probe() {
    let _cluster = Cluster::start();
    let mut course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("health.yaml"));
    wait_until_ready(&["web"]);
    course.stop_web(0);
    expect_on_screen(
        "a server is down",
        &["web1", "Unhealthy", "connection refused", "1/2"],
    );
    course.start_web(0);
    wait_for("irs/web1", "Ready", "True");
    expect_the_fleet_is_well("the server is back");
}

#[test]
fn held_removals_are_on_the_screen_with_the_command_that_releases_them() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    kubectl_apply(&many_services());
    let names: Vec<String> = (0..SERVICES).map(|number| format!("web{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    wait_until_ready(&names);
    expect_the_fleet_is_well("all services are made");
    kubectl(&[&["delete", "ivs"], &names[..]].concat());
    let screen = expect_on_screen(
        "removals are held",
        &["director1", "TooManyRemovals", "kubectl patch idg default"],
    );
    expect_the_fleet_is_not_well("removals are held");
    run_from_screen(&screen, "kubectl patch idg default");
    expect_the_fleet_is_well("the command ran");
}

#[test]
fn a_holder_that_is_no_director_is_on_the_screen_with_the_command_that_names_another() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    name_holder("director9");
    let _agent = start_agent(&course.director, "director1");
    let other = course.another_director("director2", "192.168.4.6/24");
    let _standby = start_agent(&other, "director2");
    wait_for("idir/director2", "Alive", "True");
    kubectl_apply(&example("dr-cluster.yaml"));
    let screen = expect_on_screen(
        "the holder is no director",
        &[
            "web",
            "VipNotHeld",
            "director9",
            "kubectl patch idg default",
            "\"holder\":\"director1\"",
        ],
    );
    run_from_screen(&screen, "kubectl patch idg default");
    wait_until_ready(&["web"]);
    expect_on_screen(
        "the holder is named",
        &["director1", "True", "On 2 directors"],
    );
    expect_the_fleet_is_well("the holder is named");
}

#[test]
fn a_vip_that_another_host_has_and_an_agent_that_died_are_on_the_screen() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    course.client.ip("address add 192.168.4.15/32 dev eth0");
    let mut agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("dr-cluster.yaml"));
    let mac = course.client.mac("eth0");
    expect_on_screen(
        "another host has the VIP",
        &["director1", "VipTaken", "192.168.4.15", &mac],
    );
    expect_the_fleet_is_not_well("another host has the VIP");
    course.client.ip("address del 192.168.4.15/32 dev eth0");
    wait_until_ready(&["web"]);
    expect_the_fleet_is_well("the other host released the VIP");

    agent.kill();
    let screen = expect_on_screen(
        "the agent died",
        &["director1", "LeaseExpired", "kubectl get pods -A"],
    );
    expect_the_fleet_is_not_well("the agent died");
    run_from_screen(&screen, "kubectl get pods -A");
    let _again = start_agent(&course.director, "director1");
    expect_the_fleet_is_well("the agent is back");
}

#[test]
fn a_group_that_does_not_exist_is_on_the_screen_with_what_to_do() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let mut command = agent("director1");
    command.args(["--director-group", "edge"]);
    let _agent = Process::start(&course.director, "agent-director1", &mut command);
    expect_on_screen(
        "the group does not exist",
        &["director1", "DirectorGroupNotFound", "edge", "create it"],
    );
    expect_the_fleet_is_not_well("the group does not exist");
    kubectl_apply(
        "{apiVersion: ipvs.dev/v1alpha1, kind: DirectorGroup, metadata: {name: edge}, spec: {}}",
    );
    expect_the_fleet_is_well("the group was made");
    kubectl(&["delete", "idg", "edge"]);
}
