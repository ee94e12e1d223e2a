//! What the agent says on its own host, without an API server.

use std::fs;

use e2e::{
    cluster::{example, start_agent_with_manifests, state_dir},
    course::Course,
    layout,
};

use crate::screen::{expect_in_status, status};

#[test]
fn an_agent_without_an_api_server_says_on_its_host_what_it_sees() {
    let mut course = Course::nat();
    let folder = layout::file("manifests-seen");
    fs::create_dir_all(&folder).expect("the folder can be made");
    let manifests = example("health.yaml").replace("192.168.4.5", "192.168.4.16");
    fs::write(folder.join("health.yaml"), manifests).expect("the manifests are written");
    assert_eq!(
        status(&course.director, &[]).map_err(|error| error.contains("no agent runs")),
        Err(true)
    );

    let mut agent = start_agent_with_manifests(&course.director, "director1", &folder);
    expect_in_status(
        &course.director,
        "all is well",
        &[
            "Director director1 of group default",
            "  Programmed=True Programmed",
            "192.168.4.16 on eth0",
            "  ProbesWorking=True Probing",
        ],
    );
    course.stop_web(0);
    expect_in_status(
        &course.director,
        "a server is down",
        &["web1: Down", "connection refused"],
    );
    let json = status(&course.director, &["-o", "json"]).expect("an answer");
    assert!(json.contains("\"directorName\": \"director1\""), "{json}");

    agent.pause();
    let stopped = status(&course.director, &[]).expect_err("the process is stopped");
    assert!(stopped.contains("did not answer"), "{stopped}");
    agent.resume();
    expect_in_status(
        &course.director,
        "the agent goes on",
        &["  Programmed=True Programmed"],
    );
    agent.kill();
    let gone = status(&course.director, &[]).expect_err("the agent has ended");
    assert!(gone.contains("no agent runs"), "{gone}");
    // The next test's agent must not read the journal of this one.
    fs::remove_dir_all(state_dir("director1")).expect("the agent left a state folder");
}
