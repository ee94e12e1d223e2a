//! A disk that is full, and definitions that are older than the agent.

use e2e::{
    Process, SmallDisk,
    cluster::{Cluster, OlderDefinition, agent, chart, example, wait_until_ready},
    course::{Course, another_service},
    kubectl_apply, layout,
};

use crate::screen::{
    expect_on_screen, expect_the_fleet_is_not_well, expect_the_fleet_is_well, run_from_screen,
};

#[test]
fn a_full_disk_and_older_definitions_are_on_the_screen_with_what_ends_them() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let folder = SmallDisk::mount(layout::file("state-seen"));
    folder.fill();
    let mut command = agent("director1");
    command.env("IPVS_STATE_DIR", folder.path());
    let _agent = Process::start(&course.director, "agent-director1", &mut command);
    kubectl_apply(&example("nat-cluster.yaml"));
    expect_on_screen(
        "the state folder is full",
        &[
            "director1",
            "StateFolderUnavailable",
            "No space left",
            "free space in it",
        ],
    );
    expect_the_fleet_is_not_well("the state folder is full");
    folder.free();
    wait_until_ready(&["web"]);
    expect_the_fleet_is_well("there is room again");

    let _older = OlderDefinition::begin();
    kubectl_apply(&another_service("while-older", 83));
    let screen = expect_on_screen(
        "the definitions are older",
        &[
            "director1",
            "FieldsLeftOut",
            "goes on without status.sysctls",
            "kubectl apply --server-side",
        ],
    );
    expect_the_fleet_is_not_well("the definitions are older");
    let chart = chart();
    let screen = screen.replace("charts/ipvs-operator", &chart.to_string_lossy());
    run_from_screen(&screen, "kubectl apply --server-side");
    wait_until_ready(&["web", "while-older"]);
    expect_the_fleet_is_well("the definitions are as new as the agent");
}
