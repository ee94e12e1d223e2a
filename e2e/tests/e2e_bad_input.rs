//! Tests that bad objects are refused with a helpful message, and that good
//! objects stay in force.

use std::{fs, path::Path};

use e2e::{
    Host, Segment,
    cluster::{
        Cluster, PATIENCE, condition, example, expect_table, start_agent,
        start_agent_with_manifests, value, wait_for, wait_for_words, wait_until_ready, workspace,
    },
    control::{try_kubectl, try_kubectl_apply},
    course::Course,
    eventually, ipvsadm, kubectl, kubectl_apply, layout,
};

const TABLE: [&str; 3] = [
    "-A -t 192.168.4.5:80 -s wrr",
    "-a -t 192.168.4.5:80 -r 192.168.2.100:80 -m -w 1",
    "-a -t 192.168.4.5:80 -r 192.168.2.200:80 -m -w 1",
];

#[test]
fn the_api_server_refuses_what_one_object_shows_and_names_the_field() {
    let _cluster = Cluster::start();
    let mut wrong = Vec::new();
    let cases = bad_manifests();
    for (name, text) in &cases {
        let field = expectation(text);
        let documents: Vec<_> = text.split("\n---\n").collect();
        let (last, before) = documents.split_last().expect("a manifest has a document");
        for document in before {
            kubectl_apply(document);
        }
        let answer = try_kubectl_apply(last);
        if answer.is_success() || !answer.stderr.contains(field) {
            wrong.push(format!(
                "{name}: expected a refusal that names {field}: {answer:?}"
            ));
        }
        if !before.is_empty() {
            kubectl(&["delete", "ivs,irs", "--all"]);
        }
    }
    assert!(cases.len() > 50, "the cases were found: {}", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_api_server_lets_pass_what_is_good() {
    let _cluster = Cluster::start();
    let cases = manifests("crds/tests/good");
    assert!(!cases.is_empty(), "the cases were found");
    let refused: Vec<_> = cases
        .iter()
        .filter_map(|(name, text)| {
            let answer = try_kubectl_apply(text);
            // The test deletes each object before it creates the next object.
            // Two objects may have the same name but different immutable
            // fields.
            kubectl(&["delete", "ivs", "--all"]);
            (!answer.is_success()).then(|| format!("{name}: {answer:?}"))
        })
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn what_only_several_objects_show_is_told_in_their_conditions() {
    let _cluster = Cluster::start();
    let cases = manifests("crds/tests/unfit");
    assert!(!cases.is_empty(), "the cases were found");
    for (name, text) in cases {
        let expected = expectation(&text);
        let (object, words) = expected.split_once(": | ").unwrap_or((expected, ""));
        let [kind, object, condition_type, reason, ..] =
            *object.split(' ').collect::<Vec<_>>().as_slice()
        else {
            panic!("{name} must name an object and what to expect: {expected}");
        };
        let object = format!(
            "{}/{object}",
            if kind == "VirtualService" {
                "ivs"
            } else {
                "irs"
            }
        );
        kubectl_apply(&text);
        wait_for_words(&object, condition_type, &[&format!("{reason}: "), words]);
        kubectl(&["delete", "ivs,irs", "--all"]);
    }
}

#[test]
fn the_second_of_two_services_with_one_vip_and_port_is_not_accepted() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    // Of two VirtualServices with the same VIP and port, the older
    // VirtualService is accepted. Creation times are whole seconds. Of two
    // VirtualServices with the same creation time, the VirtualService whose
    // name is first in alphabetical order is accepted.
    let created = value("ivs/web", ".metadata.creationTimestamp");
    eventually(
        "the clock to pass the second in which web was created",
        PATIENCE,
        || {
            let now = course.client.run("date -u +%Y-%m-%dT%H:%M:%SZ");
            if now.trim() > created.as_str() {
                Ok(())
            } else {
                Err(now)
            }
        },
    );
    kubectl_apply(
        "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: a-rival}
spec:
  vip: {address: 192.168.4.5, port: 80}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: web}}
",
    );
    wait_for("ivs/a-rival", "Accepted", "False");
    // The message of the condition names the service that already has the VIP
    // and port.
    wait_for_words("ivs/a-rival", "Accepted", &["default/web"]);
    wait_for_words("ivs/a-rival", "Ready", &["Conflict: "]);
    assert_eq!(
        condition("ivs/web", "Ready", "status"),
        "True",
        "the older service stays Ready"
    );
    expect_table(&course.director, &TABLE);

    // After the VirtualService `web` is deleted, `a-rival` with the same VIP
    // and port is accepted.
    kubectl(&["delete", "ivs/web"]);
    wait_until_ready(&["a-rival"]);
}

#[test]
fn servers_that_do_not_fit_are_refused_and_the_others_serve() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);
    for (name, spec, reason) in [
        ("web3", "{address: 192.168.2.100}", "DuplicateServer"),
        (
            "web4",
            "{address: 192.168.2.44, port: 8080, forwarding: {method: DR}}",
            "PortMismatch",
        ),
        ("web5", "{address: \"2001:db8::5\"}", "FamilyMismatch"),
    ] {
        kubectl_apply(&format!(
            "{{apiVersion: ipvs.dev/v1alpha1, kind: RealServer, metadata: {{name: {name}, labels: {{app: web}}}}, spec: {spec}}}"
        ));
        wait_for_words("ivs/web", "ResolvedRefs", &[&format!("{reason}: "), name]);
        wait_for(&format!("irs/{name}"), "Ready", "False");
        expect_table(&course.director, &TABLE);
        kubectl(&["delete", &format!("irs/{name}")]);
        wait_until_ready(&["web"]);
    }

    // The VirtualService and its RealServer both lack a forwarding method.
    kubectl(&[
        "patch",
        "ivs/web",
        "--type=merge",
        "-p",
        r#"{"spec":{"forwarding":null}}"#,
    ]);
    wait_for("ivs/web", "ResolvedRefs", "False");
    wait_for_words("ivs/web", "ResolvedRefs", &["NoForwarding: ", "forwarding"]);
}

#[test]
fn an_object_of_a_newer_version_holds_up_no_other() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let _agent = start_agent(&course.director, "director1");
    kubectl_apply(&example("nat-cluster.yaml"));
    wait_until_ready(&["web"]);

    // The test adds a scheduler to the CRD, as a newer release might. This
    // build of the agent does not support the added scheduler.
    let schedulers =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/scheduler/enum/-";
    let crd = "crd/ipvsvirtualservices.ipvs.dev";
    let newer = format!(r#"[{{"op":"add","path":"{schedulers}","value":"quantum"}}]"#);
    let crd_file = workspace().join("charts/ipvs-operator/crds/ipvsvirtualservices.yaml");
    kubectl(&["patch", crd, "--type=json", "-p", &newer]);
    let edit = r#"{"spec":{"scheduler":"quantum"}}"#;
    eventually("the newer scheduler to be admitted", PATIENCE, || {
        let patched = try_kubectl(&["patch", "ivs/web", "--type=merge", "-p", edit]);
        if patched.is_success() {
            Ok(())
        } else {
            Err(patched.stderr)
        }
    });
    wait_for("ivs/web", "Accepted", "False");
    // The message of the condition names the field and the unknown value.
    let words = ["Unreadable: ", "spec.scheduler", "quantum"];
    wait_for_words("ivs/web", "Accepted", &words);

    kubectl_apply(
        &example("nat-cluster.yaml")
            .replace("name: web\n", "name: other\n")
            .replace("port: 80", "port: 81"),
    );
    wait_until_ready(&["other"]);
    eventually(
        "the table must have the other service and the last good version of the first",
        PATIENCE,
        || {
            let table = ipvsadm::saved(&course.director);
            let both = ["-A -t 192.168.4.5:81 -s wrr", TABLE[0], TABLE[1], TABLE[2]];
            if both.iter().all(|line| table.contains(line)) {
                Ok(())
            } else {
                Err(table)
            }
        },
    );
    kubectl(&["delete", "ivs", "--all"]);
    kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        &crd_file.to_string_lossy(),
    ]);
}

#[test]
fn a_bad_manifest_file_is_told_with_file_and_line_and_its_last_good_version_stays() {
    let segment = Segment::new("segment");
    let inner = Segment::new("inner");
    let director = Host::new("director");
    segment.attach(&director, "eth0", "192.168.4.5/24");
    inner.attach(&director, "eth1", "192.168.2.5/24");
    let folder = layout::file("manifests");
    fs::create_dir_all(&folder).expect("the lab's folder can be written");
    let web = folder.join("web.yaml");
    write(&web, &example("nat-cluster.yaml"));
    let agent = start_agent_with_manifests(&director, "standalone", &folder);
    expect_table(&director, &TABLE);

    write(
        &web,
        &example("nat-cluster.yaml").replace("scheduler: wrr", "scheduler: wrrr"),
    );
    let line = agent.wait_for_log("last good version stays in force", PATIENCE);
    let good = example("nat-cluster.yaml");
    let number = good
        .lines()
        .position(|line| line.contains("scheduler: wrr"));
    let place = format!(
        "web.yaml:{}:",
        number.expect("the example sets a scheduler") + 1
    );
    assert!(
        line.contains(&place) && line.contains("wrrr"),
        "the log line must name file, line and reason: {line}"
    );
    expect_table(&director, &TABLE);

    // The test writes each bad manifest into its own file. The agent reports
    // every bad file. The objects of the good file, `web.yaml`, stay in force.
    let cases: Vec<_> = bad_manifests()
        .into_iter()
        .filter(|(_, text)| !text.contains("\n---\n"))
        .collect();
    for (name, text) in &cases {
        write(&folder.join(name), text);
    }
    write(
        &web,
        &example("nat-cluster.yaml").replace("scheduler: wrr", "scheduler: rr"),
    );
    eventually("every bad file to be reported", PATIENCE, || {
        let log = agent.log();
        let silent: Vec<_> = cases
            .iter()
            .filter(|(name, _)| !log.contains(&format!("{name}:")))
            .map(|(name, _)| name)
            .collect();
        if silent.is_empty() {
            Ok(())
        } else {
            Err(format!("the log does not mention {silent:?}"))
        }
    });
    expect_table(
        &director,
        &["-A -t 192.168.4.5:80 -s rr", TABLE[1], TABLE[2]],
    );

    // After the bad files are deleted, an edit of the good file takes effect.
    for (name, _) in &cases {
        fs::remove_file(folder.join(name)).expect("the test wrote the file above");
    }
    write(&web, &example("nat-cluster.yaml"));
    expect_table(&director, &TABLE);
    fs::remove_dir_all(&folder).expect("the folder is the test's own");
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Returns the file name and text of each manifest that must be refused.
fn bad_manifests() -> Vec<(String, String)> {
    manifests("crds/tests/bad")
}

fn manifests(folder: &str) -> Vec<(String, String)> {
    let folder = workspace().join(folder);
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .map(|path| {
            let name = path
                .file_name()
                .expect("a file has a name")
                .to_string_lossy()
                .into_owned();
            (name, fs::read_to_string(&path).expect("a manifest is text"))
        })
        .collect();
    found.sort();
    found
}

/// Returns the field that the error message must name. In the manifest's first
/// line, the field follows `# expect: `.
fn expectation(text: &str) -> &str {
    text.lines()
        .next()
        .and_then(|line| line.strip_prefix("# expect: "))
        .expect("the first line names the expected field")
}
