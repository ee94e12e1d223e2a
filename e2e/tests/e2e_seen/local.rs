//! What the agent says on its own host, without an API server.

use std::fs;

use e2e::{
    Host,
    cluster::{PATIENCE, example, start_agent_with_manifests, state_dir},
    course::Course,
    eventually, layout,
    process::program,
};

/// Runs `ipvs-agent status` on the director, and returns its output, or its
/// error.
fn status(director: &Host, options: &[&str]) -> Result<String, String> {
    let mut command = program("ipvs-agent");
    command
        .env("IPVS_STATE_DIR", state_dir("director1"))
        .arg("status")
        .args(options);
    let said = director.try_command(&mut command);
    said.map_err(|failed| failed.stderr())
}

#[track_caller]
fn expect_status(director: &Host, words: &[&str]) {
    let said = eventually(&format!("{words:?} in the status"), PATIENCE, || {
        let said = status(director, &[]).unwrap_or_else(|error| error);
        match words.iter().all(|word| said.contains(word)) {
            true => Ok(said),
            false => Err(said),
        }
    });
    println!("{said}");
}

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
    expect_status(
        &course.director,
        &[
            "Director director1 of group default",
            "  Programmed=True Programmed",
            "192.168.4.16 on eth0",
            "  ProbesWorking=True Probing",
        ],
    );
    course.stop_web(0);
    expect_status(&course.director, &["web1: Down", "connection refused"]);
    let json = status(&course.director, &["-o", "json"]).expect("an answer");
    assert!(json.contains("\"directorName\": \"director1\""), "{json}");

    agent.pause();
    let stopped = status(&course.director, &[]).expect_err("the process is stopped");
    assert!(stopped.contains("did not answer"), "{stopped}");
    agent.resume();
    expect_status(&course.director, &["  Programmed=True Programmed"]);
    agent.kill();
    let gone = status(&course.director, &[]).expect_err("the agent has ended");
    assert!(gone.contains("no agent runs"), "{gone}");
}
