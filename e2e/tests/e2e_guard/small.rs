//! Tests the removal guard with at most ten services. After an outdated or
//! suspiciously short listing, the agent removes no service. After the deletion
//! of an object, the agent removes the object's service.

use std::{collections::BTreeSet, fs, path::Path};

use e2e::{
    ApiServerAway, Host, Process,
    cluster::{
        Cluster, PATIENCE, agent, start_agent, start_agent_with_manifests, state_dir, wait_for,
        wait_for_words, wait_until_ready,
    },
    control,
    course::Course,
    eventually, ipvsadm, kubectl, kubectl_apply, layout,
};

use crate::scene::{DIRECTOR, servers};

/// Tests use one director with each of these numbers of services.
const COUNTS: [usize; 3] = [1, 3, 10];

/// A director with its own group and its own host.
struct Site {
    /// The name of the DirectorGroup and of the Director.
    name: String,
    host: Host,
    address: String,
    count: usize,
    agent: Process,
}

impl Site {
    fn start(course: &Course, count: usize) -> Self {
        let name = format!("of{count}");
        let address = format!("192.168.4.{}", 20 + count);
        let host = course.another_director(&name, &format!("{address}/24"));
        kubectl_apply(&format!(
            "apiVersion: ipvs.dev/v1alpha1
kind: DirectorGroup
metadata: {{name: {name}}}
spec: {{addressPools: [{{name: lab, cidrs: [0.0.0.0/0]}}]}}
"
        ));
        let agent = start_agent_in_group(&host, &name);
        Self {
            name,
            host,
            address,
            count,
            agent,
        }
    }

    /// Kills the agent, and starts a new agent. The Director is deleted, so
    /// that the test does not mistake the killed agent's reports for the new
    /// agent's reports.
    fn restart(&mut self) {
        self.agent.kill();
        kubectl(&["delete", &self.director()]);
        self.agent = start_agent_in_group(&self.host, &self.name);
    }

    fn director(&self) -> String {
        format!("idir/{}", self.name)
    }

    /// Returns the names of the director's VirtualServices.
    fn services(&self) -> Vec<String> {
        let numbers = 1..=self.count;
        numbers
            .map(|number| format!("{}-{number}", self.name))
            .collect()
    }

    /// Returns how many services exist at the time of the etcd backup.
    fn before(&self) -> usize {
        self.count - self.count.div_ceil(3)
    }

    /// Creates the first `services` of the director's VirtualServices.
    fn make(&self, services: usize) {
        let (group, address) = (&self.name, &self.address);
        let group = format!("\n  directorGroupName: {group}");
        let names = self.services().into_iter().take(services);
        let services = (1..)
            .zip(names)
            .map(|(number, name)| service(&name, address, number, &group));
        kubectl_apply(&services.collect::<String>());
    }

    #[track_caller]
    fn expect(&self, services: usize) {
        expect(&self.host, services);
    }

    /// Waits until each of the director's services has three servers.
    #[track_caller]
    fn expect_three_servers(&self) {
        expect_servers(&self.host, self.count, 3);
    }

    /// Checks that nothing was removed since [`Site::expect_three_servers`].
    #[track_caller]
    fn assert_nothing_was_cut(&self) {
        assert_eq!(found(&self.host), (self.count, self.count * 3));
    }
}

fn start_agent_in_group(host: &Host, name: &str) -> Process {
    let mut command = agent(name);
    command.env("IPVS_DIRECTOR_GROUP", name);
    Process::start(host, &format!("agent-{name}"), &mut command)
}

fn service(name: &str, address: &str, number: usize, more: &str) -> String {
    format!(
        "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: {name}, namespace: default}}
spec:
  vip: {{address: {address}, port: {port}}}
  removalGracePeriodSeconds: 10
  forwarding: {{method: NAT}}
  realServerSelector: {{matchLabels: {{app: web}}}}{more}
---
",
        port = 8000 + number
    )
}

/// Waits until the kernel has `services` services, and each service has both
/// web servers.
#[track_caller]
fn expect(host: &Host, services: usize) {
    expect_servers(host, services, 2);
}

/// Waits until the kernel has `services` services with `each` servers each.
#[track_caller]
fn expect_servers(host: &Host, services: usize, each: usize) {
    let what = format!(
        "{services} services with {each} servers each in the kernel of {}",
        host.name()
    );
    eventually(&what, PATIENCE, || {
        let found = found(host);
        match found == (services, services * each) {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    });
}

/// Returns the number of services and the number of servers in the host's
/// kernel.
fn found(host: &Host) -> (usize, usize) {
    let table = ipvsadm::saved(host);
    (table.matches("-A ").count(), table.matches("-a ").count())
}

fn in_an_hour(host: &Host) -> String {
    let until = host.run("date -u -d +1hour +%Y-%m-%dT%H:%M:%SZ");
    until.trim().to_owned()
}

/// Releases the held removals of a DirectorGroup, as the message of the
/// Director's condition explains.
fn release(host: &Host, group: &str) {
    let until = in_an_hour(host);
    let patch = format!(r#"{{"spec":{{"removals":{{"allowUntil":"{until}"}}}}}}"#);
    kubectl(&[
        "patch",
        &format!("idg/{group}"),
        "--type=merge",
        "-p",
        &patch,
    ]);
}

#[test]
fn an_etcd_restored_from_an_older_backup_cuts_nothing_until_it_is_released() {
    let cluster = Cluster::start();
    let course = Course::nat();
    kubectl_apply(&servers("default"));
    // The backup has a version of this server that no service selects.
    kubectl_apply(
        "apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {name: late, namespace: default, labels: {app: none}}
spec: {address: 192.168.2.77}
",
    );
    let mut sites = COUNTS.map(|count| Site::start(&course, count));
    for site in &sites {
        if site.before() > 0 {
            site.make(site.before());
        }
        site.expect(site.before());
        wait_for(&site.director(), "Programmed", "True");
    }
    control::back_up_etcd();

    // Many objects are created after the backup, so that the backup is clearly
    // outdated.
    let others = (0..200).map(|number| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: other{number}}}\n---\n")
    });
    kubectl_apply(&others.collect::<String>());
    kubectl(&["label", "irs/late", "app=web", "--overwrite"]);
    for site in &sites {
        site.make(site.count);
        site.expect_three_servers();
        let services = site.services();
        wait_until_ready(&services.iter().map(String::as_str).collect::<Vec<_>>());
    }

    drop(ApiServerAway::begin_and_restore_the_backup());
    for site in &sites {
        let patch = format!("kubectl patch idg {}", site.name);
        let words = [
            "ObjectsMissing",
            "went back to an older version",
            "older backup",
            "allowUntil",
            &patch,
        ];
        wait_for_words(&site.director(), "RemovalsHeld", &words);
        site.assert_nothing_was_cut();
    }
    for site in &mut sites {
        site.restart();
        wait_for_words(&site.director(), "RemovalsHeld", &["ObjectsMissing"]);
        site.assert_nothing_was_cut();
        release(&site.host, &site.name);
        site.expect(site.before());
        wait_for(&site.director(), "RemovalsHeld", "False");
    }
    drop(cluster);
    for count in COUNTS {
        kubectl(&["delete", &format!("idg/of{count}")]);
    }
}

#[test]
fn the_only_service_and_the_last_of_three_go_when_they_are_deleted_but_not_by_a_listing() {
    let _cluster = Cluster::start();
    let course = Course::nat();
    let director = &course.director;
    let mut agent = start_agent(director, "director1");
    kubectl_apply(&servers("default"));
    let make = |services: usize| {
        let services = (1..=services)
            .map(|number| service(&format!("web{number}"), "192.168.4.5", number, ""));
        kubectl_apply(&services.collect::<String>());
    };
    for count in [1, 3] {
        make(count);
        expect(director, count);
        for number in 1..=count {
            kubectl(&["delete", &format!("ivs/web{number}")]);
            expect(director, count - number);
        }
        wait_for(DIRECTOR, "RemovalsHeld", "False");
    }

    // The object is deleted while the agent is stopped, so the agent does not
    // see the deletion.
    make(1);
    expect(director, 1);
    wait_until_ready(&["web1"]);
    agent.terminate(PATIENCE);
    kubectl(&["delete", "ivs/web1"]);
    let _agent = start_agent(director, "director1");
    let words = ["ObjectsMissing", "more than half", "-D -t 192.168.4.5:8001"];
    wait_for_words(DIRECTOR, "RemovalsHeld", &words);
    expect(director, 1);
    release(director, "default");
    expect(director, 0);
    wait_for(DIRECTOR, "RemovalsHeld", "False");
}

/// Writes a manifest file for each of `services` services, and one file for
/// their servers.
fn write_manifests(folder: &Path, services: usize) {
    fs::create_dir_all(folder).expect("the lab's folder can be written");
    for number in 1..=services {
        let text = service(&format!("web{number}"), "192.168.4.5", number, "");
        fs::write(folder.join(format!("web{number}.yaml")), text)
            .expect("the test can write its own file");
    }
    if services > 0 {
        fs::write(folder.join("servers.yaml"), servers("default"))
            .expect("the test can write its own file");
    }
}

fn mv(from: &Path, to: &Path) {
    fs::rename(from, to).expect("both paths are in the test's own folder");
}

/// Removes a folder if it exists.
fn clear(folder: &Path) {
    if folder.exists() {
        fs::remove_dir_all(folder).expect("the test can remove its own folder");
    }
}

/// Waits until a director's checkpoint records a folder that contains
/// manifests. The agent writes the checkpoint seconds after it has programmed
/// the kernel's table. If the agent is killed earlier, the next agent cannot
/// notice that the folder was swapped.
#[track_caller]
fn wait_for_checkpoint(director: &str) {
    let path = state_dir(director).join("checkpoint.redb");
    let what = format!("the folder of manifests in {}", path.display());
    eventually(&what, PATIENCE, || {
        let content = fs::read(&path).expect("the agent has made its checkpoint");
        match String::from_utf8_lossy(&content).contains(r#""isEmpty":false"#) {
            true => Ok(()),
            false => Err("no such row".to_owned()),
        }
    });
}

#[test]
fn a_folder_of_manifests_that_was_swapped_cuts_nothing_until_it_is_released() {
    let course = Course::nat();
    let director = &course.director;
    let path = |name: &str| layout::file("swapped").join(name);
    for count in COUNTS {
        // The folder is swapped for a folder with fewer services, or without
        // any file.
        for left in BTreeSet::from([count - count.div_ceil(3), 0]) {
            let words = match left {
                0 => "has no file",
                _ => "is another one than before",
            };
            clear(&layout::file("swapped"));
            write_manifests(&path("manifests"), count);
            write_manifests(&path("other"), left);
            let name = format!("standalone-{count}-{left}");
            let mut agent = start_agent_with_manifests(director, &name, &path("manifests"));
            expect(director, count);
            wait_for_checkpoint(&name);

            mv(&path("manifests"), &path("old"));
            mv(&path("other"), &path("manifests"));
            let line = agent.wait_for_log(words, PATIENCE);
            assert!(line.contains("allowUntil"), "{line}");
            assert_eq!(found(director), (count, count * 2));
            agent.kill();
            let agent = start_agent_with_manifests(director, &name, &path("manifests"));
            let line = agent.wait_for_log("held, and still served", PATIENCE);
            assert!(line.contains(words), "{line}");
            assert_eq!(found(director), (count, count * 2));

            // The command in docs/removal-guard.md that releases removals
            // writes the same manifest.
            let until = in_an_hour(director);
            let group = format!(
                "apiVersion: ipvs.dev/v1alpha1
kind: DirectorGroup
metadata: {{name: default}}
spec: {{removals: {{allowUntil: \"{until}\"}}}}
"
            );
            fs::write(path("manifests").join("group.yaml"), group)
                .expect("the test can write its own file");
            expect(director, left);
            drop(agent);
            director.run("ipvsadm -C");
        }
    }
    clear(&layout::file("swapped"));
}
