//! Other programs that undo the agent's work, and an API server that is away.

use std::process::Command;

use e2e::{
    ApiServerAway, Host, Process,
    cluster::{Cluster, example, start_agent, wait_until_ready},
    course::{Course, NAT_VIP},
    kubectl_apply,
};

use crate::screen::{
    expect_in_status, expect_on_screen, expect_the_fleet_is_not_well, expect_the_fleet_is_well,
    status,
};

const FORWARDING: &str = "net.ipv4.conf.eth1.forwarding";
/// The command with which the agent repairs what the other program did.
const REPAIR: &str = "-e -t 192.168.4.5:80 -r 192.168.2.100:80 -m -w 1";

/// Starts a program that runs a shell command once a second.
fn start_stranger(host: &Host, name: &str, line: &str) -> Process {
    let script = format!("while :; do {line}; sleep 1; done");
    Process::start(host, name, Command::new("sh").args(["-euc", &script]))
}

/// Returns the command that begins with `start` on the screen, up to `end`.
#[track_caller]
fn command_on(screen: &str, start: &str, end: &str) -> String {
    let rest = screen.split_once(start).map(|(_, rest)| rest);
    let command = rest.and_then(|rest| rest.split_once(end));
    let (command, _) = command.unwrap_or_else(|| panic!("{start} … {end} on the screen: {screen}"));
    format!("{start}{command}").replace('\'', "")
}

#[test]
fn what_other_programs_undo_and_an_api_server_that_is_away_are_seen_with_what_to_do() {
    let _cluster = Cluster::start();
    let course = Course::nat_as_installed();
    let director = &course.director;
    let _agent = start_agent(director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    expect_the_fleet_is_well("nobody undoes anything");

    let mut tuner = start_stranger(director, "tuner", &format!("sysctl -qw {FORWARDING}=0"));
    let screen = expect_on_screen(
        "a sysctl is fought over",
        &[
            "director1",
            "NotAsNeeded",
            FORWARDING,
            "another program sets it to 0 again and again",
            "sysctl -w",
        ],
    );
    expect_the_fleet_is_not_well("a sysctl is fought over");
    tuner.kill();
    director.run(&command_on(&screen, "sysctl -w", ";"));
    expect_the_fleet_is_well("the other program was stopped, and the command ran");

    let line = REPAIR.replace("-w 1", "-w 9");
    let mut writer = start_stranger(director, "writer", &format!("ipvsadm {line}"));
    expect_on_screen(
        "another program writes the table",
        &["director1", "ForeignWriter", "Stop that program", REPAIR],
    );
    expect_the_fleet_is_not_well("another program writes the table");
    writer.kill();

    let away = ApiServerAway::begin();
    let screen = expect_in_status(
        director,
        "the API server is away",
        &[
            "Director director1 of group default",
            "THE API SERVER at https://",
            "HAS NOT ANSWERED FOR",
            "keeps serving what it last knew",
            "curl -k https://",
        ],
    );
    let look = format!(
        "{}/readyz",
        command_on(&screen, "curl -k https://", "/readyz")
    );
    director.try_run(&look).expect_err("nothing answers");
    let page = course.browser().get(NAT_VIP, "/");
    page.expect("the director keeps serving");
    drop(away);
    assert_eq!(director.run(&look), "ok");
    expect_the_fleet_is_well("the other program was stopped a while ago");
    let said = status(director, &["-o", "json"]).expect("an answer");
    assert!(!said.contains("apiServerAway"), "it answers: {said}");
}
