//! What the commands on a director's host tell without an API server: the table
//! and the history, also while the agent's loop hangs, and after its end.

use std::fs;

use e2e::{
    FreezingDisk, Host,
    cluster::{PATIENCE, example, start_agent_with_manifests, state_dir},
    course::{Course, another_service},
    eventually, layout,
    process::program,
};

/// Runs a command of `ipvs-agent` on the director, and returns its output, or
/// its error.
fn say(director: &Host, command: &[&str]) -> Result<String, String> {
    let mut program = program("ipvs-agent");
    program.env("IPVS_STATE_DIR", state_dir("director1"));
    program.args(command);
    let said = director.try_command(&mut program);
    said.map_err(|failed| failed.stderr())
}

/// Waits until the command prints a line with all of `words`.
#[track_caller]
fn expect_line(director: &Host, command: &[&str], words: &[&str]) {
    let what = format!(
        "a line with {words:?} from ipvs-agent {}",
        command.join(" ")
    );
    eventually(&what, PATIENCE, || {
        let said = say(director, command)?;
        let is_one = |line: &str| words.iter().all(|word| line.contains(word));
        match said.lines().any(is_one) {
            true => Ok(()),
            false => Err(said),
        }
    });
}

#[test]
fn table_and_history_tell_what_happened_and_whose_each_entry_is() {
    let mut course = Course::nat();
    let disk = FreezingDisk::mount(state_dir("director1"));
    let folder = layout::file("manifests-history");
    fs::create_dir_all(&folder).expect("the folder can be made");
    let manifests = example("health.yaml").replace("192.168.4.5", "192.168.4.16");
    let file = folder.join("health.yaml");
    fs::write(&file, &manifests).expect("the manifests are written");
    let director = course.director.clone();
    director.run("ipvsadm -A -t 192.168.4.99:80 -s rr");

    let checked = say(&director, &["check", &folder.display().to_string()]);
    checked.expect("the manifests have no mistake");
    let mut agent = start_agent_with_manifests(&director, "director1", &folder);
    let history = ["history", "--since", "1h"];
    let web = "-t 192.168.4.16:80";
    expect_line(&director, &history, &["edit", "default/web", "-A", web]);
    expect_line(
        &director,
        &history,
        &["ip address add 192.168.4.16 dev eth0"],
    );
    let up = ["health", "default/web default/web1", "-w 10 (was -m -w 0)"];
    expect_line(&director, &history, &up);

    course.stop_web(0);
    let down = ["health", "default/web1", "-e", web, "-w 0 (was -m -w 10)"];
    let of_service = ["history", "--service", "default/web"];
    expect_line(&director, &of_service, &down);
    let down = ["default/web1", "-w 0", "Down since", "connection refused"];
    expect_line(&director, &["table"], &down);
    let strange = ["-t 192.168.4.99:80", "-s rr", "another program's"];
    expect_line(&director, &["table"], &strange);

    director.run(&format!("ipvsadm -E {web} -s lc"));
    expect_line(
        &director,
        &history,
        &["drift", "default/web", "(was -s lc)"],
    );
    director.run(&format!("ipvsadm -D {web}"));
    expect_line(&director, &history, &["drift", "default/web2", "-a", web]);

    disk.freeze();
    // Before the loop makes a new service, it writes to the disk.
    let late = another_service("late", 81).replace("192.168.4.5", "192.168.4.16");
    let misspelt = format!("{late}  schedular: rr\n");
    fs::write(folder.join("late.yaml"), misspelt).expect("the manifests are written");
    expect_line(&director, &["status"], &["THE LOOP HAS NOT ANSWERED FOR"]);
    expect_line(&director, &["table"], &["default/web", web]);
    expect_line(&director, &history, &["drift", "default/web2", "-a", web]);
    disk.thaw();
    expect_line(&director, &history, &["edit", "-A -t 192.168.4.16:81"]);
    let notice = ["late.yaml:", "spec.schedular: no such field"];
    expect_line(&director, &["status"], &notice);

    agent.kill();
    let ours = ["-t 192.168.4.16:81", "default/late"];
    expect_line(&director, &["table"], &ours);
    expect_line(&director, &["table"], &strange);
    director.run("ipvsadm -D -t 192.168.4.16:81");
    agent = start_agent_with_manifests(&director, "director1", &folder);
    let found = ["found", "default/late", "-A -t 192.168.4.16:81"];
    expect_line(&director, &history, &found);
    agent.terminate(PATIENCE);

    let mut undo = program("ipvs-agent");
    undo.env("IPVS_STATE_DIR", state_dir("director1"))
        .arg("undo");
    director
        .try_command(&mut undo)
        .expect("nothing is in the way");
    expect_line(&director, &history, &["undo", "-D -t 192.168.4.16:81"]);
    let left = say(&director, &["history", "--table"]).expect("there is a history");
    assert_eq!(left, "", "the history knows that nothing is left");
    println!("{}", say(&director, &["history"]).expect("a history"));
    println!("{}", say(&director, &["table"]).expect("a table"));
}
