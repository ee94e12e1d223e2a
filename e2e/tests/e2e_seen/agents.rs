//! Agents that hang or die.

use e2e::{
    cluster::{Cluster, example, name_holder, start_agent, wait_for, wait_until_ready},
    course::{Course, DR_VIP},
    kubectl_apply,
};

use crate::screen::{
    expect_on_screen, expect_the_fleet_is_not_well, expect_the_fleet_is_well, run_from_screen,
};

#[test]
fn a_stuck_agent_and_a_dead_holder_are_on_the_screen_with_the_command_that_names_a_standby() {
    let _cluster = Cluster::start();
    let course = Course::dr();
    name_holder("director1");
    let mut holder = start_agent(&course.director, "director1");
    let other = course.another_director("director2", "192.168.4.6/24");
    let mut standby = start_agent(&other, "director2");
    wait_for("idir/director2", "Alive", "True");
    kubectl_apply(&example("dr-cluster.yaml"));
    wait_until_ready(&["web"]);
    expect_the_fleet_is_well("both directors work");

    standby.pause();
    let screen = expect_on_screen(
        "the standby's agent is stuck",
        &[
            "director2",
            "LeaseExpired",
            "Restart the agent",
            "kubectl get pods -A",
        ],
    );
    expect_the_fleet_is_not_well("the standby's agent is stuck");
    run_from_screen(&screen, "kubectl get pods -A");
    standby.resume();
    expect_the_fleet_is_well("the standby's agent goes on");

    holder.kill();
    course.director.ip("link set eth0 down");
    let screen = expect_on_screen(
        "the holder is dead",
        &[
            "web",
            "VipNotHeld",
            "director1, the named holder",
            "kubectl patch idg default",
            "\"holder\":\"director2\"",
        ],
    );
    expect_the_fleet_is_not_well("the holder is dead");
    run_from_screen(&screen, "kubectl patch idg default");
    wait_until_ready(&["web"]);
    let page = course.browser().get(DR_VIP, "/");
    page.expect("the standby serves the VIP");
    expect_on_screen("the standby holds the VIP", &["director2", "True"]);

    course.director.ip("link set eth0 up");
    let _again = start_agent(&course.director, "director1");
    expect_the_fleet_is_well("the former holder is back");
}
