//! Runs the commands of README.md and docs/ in a cluster with a director, page
//! by page and in their order, and shows each manifest to the API server.

mod pages;

use std::{collections::BTreeSet, path::Path, process::Command};

use e2e::{
    Host, Process, WebServer,
    cluster::{
        Cluster, example, start_agent, state_dir, wait_for_words, wait_until_ready, workspace,
    },
    control::{Response, try_helm, try_kubectl, try_kubectl_with_input},
    course::Course,
    kubectl, kubectl_apply,
    process::program,
    shell::Shell,
};

use self::pages::{Page, Step, pages};

/// The words that a reader replaces, and what the test writes instead.
const PLACEHOLDERS: [(&str, &str); 2] = [("NODE", "director1"), ("NAME", "director1")];

/// A VirtualService on the port of the director's own ssh.
const RIVAL: &str = "
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: rival}
spec:
  vip: {address: 192.168.4.5, port: 22}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: web}}
";
/// A VirtualService whose VIP is not granted to its namespace.
const CART: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec:
  vip: {address: 203.0.113.10, port: 80}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: cart}}
";
/// What a part of a VirtualService's spec on a page lacks.
const REST: &str = "
apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {name: part}
spec:
  vip: {address: 192.0.2.10, port: 80}
  forwarding: {method: NAT}
  realServerSelector: {matchLabels: {app: web}}
";

/// The cluster of the pages: the services of `examples/health.yaml` on
/// director1, with two web servers behind it, and a client.
struct Scene {
    course: Course,
    _agent: Process,
    /// Programs on the director: its ssh, and the server of docs/network.md.
    _programs: (Shell, WebServer),
    /// The spec of the DirectorGroup before the first page.
    group: String,
}

#[test]
fn the_commands_of_the_docs_work_and_their_manifests_are_accepted() {
    let _cluster = Cluster::start();
    let scene = Scene::open();
    let (mut run, mut marked, mut manifests) = (0, 0, 0);
    let mut wrong = Vec::new();
    for page in pages(&workspace()) {
        scene.prepare(&page);
        for (at, block) in &page.blocks {
            if block.language == "yaml" {
                manifests += 1;
                let refused = dry_run(&block.text);
                wrong.extend(refused.err().map(|error| format!("{at}: {error}")));
            }
            let steps = block.steps();
            if block.not_run.is_some() {
                marked += steps.len();
                continue;
            }
            run += steps.len();
            for step in steps {
                let failed = scene.run(&step).and_then(|said| compare(&step, &said));
                wrong.extend(
                    failed
                        .err()
                        .map(|error| format!("{at}: {}: {error}", step.command)),
                );
            }
        }
        scene.replace_group(&scene.group);
    }
    println!("{run} commands run, {marked} marked as not run, {manifests} manifests accepted");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_that_are_not_run_have_subcommands_and_options_that_exist() {
    let pages = pages(&workspace());
    let blocks = pages.iter().flat_map(|page| &page.blocks);
    let blocks = blocks.filter(|(_, block)| block.not_run.is_some());
    let steps = blocks.flat_map(|(_, block)| block.steps());
    let sentences = pages.iter().flat_map(|page| &page.sentences);
    let sentences = sentences.map(|(_, command)| &**command);
    let all: BTreeSet<_> = steps.map(|step| step.command).chain(sentences).collect();
    let ipvsadm = Host::new("reader").run("ipvsadm --help");
    let mut checked = 0;
    let mut wrong = Vec::new();
    for command in all {
        let words = shlex::split(command).unwrap_or_default();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        // With --help, kubectl and helm look at their subcommand and options,
        // and do nothing.
        let end = words.iter().position(|word| *word == "--");
        words.insert(end.unwrap_or(words.len()), "--help");
        let answer = match words[0] {
            "kubectl" => said(try_kubectl(&words[1..])),
            "helm" => said(try_helm(&words[1..])),
            "ipvsadm" => match words.iter().find(|word| !has_option(&ipvsadm, word)) {
                Some(word) => Err(format!("no option {word}")),
                None => Ok(String::new()),
            },
            _ => continue,
        };
        checked += 1;
        wrong.extend(answer.err().map(|error| format!("{command}: {error}")));
    }
    println!("{checked} commands exist");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the help of ipvsadm has a long option, or each letter of short ones.
fn has_option(help: &str, word: &str) -> bool {
    match word.strip_prefix('-') {
        Some(long) if long.starts_with('-') => help.contains(word),
        Some(letters) => letters
            .chars()
            .all(|letter| help.contains(&format!("-{letter}"))),
        None => true,
    }
}

/// Asks the API server whether it accepts a manifest, or a part of a
/// VirtualService's spec.
fn dry_run(yaml: &str) -> Result<String, String> {
    let manifest = match yaml.contains("apiVersion:") {
        true => yaml.to_owned(),
        false => format!("{REST}  {}", yaml.replace('\n', "\n  ")),
    };
    let args = ["apply", "--dry-run=server", "-f", "-"];
    said(try_kubectl_with_input(&args, &manifest))
}

fn said(response: Response) -> Result<String, String> {
    match response.is_success() {
        true => Ok(response.stdout),
        false => Err(response.stderr),
    }
}

impl Scene {
    fn open() -> Self {
        let course = Course::nat();
        let shell = Shell::start(&course.director, "0.0.0.0:22");
        let server = WebServer::start(&course.director, "0.0.0.0:8090", "the director");
        let agent = start_agent(&course.director, "director1");
        kubectl_apply(&example("health.yaml"));
        wait_until_ready(&["web", "web-alt"]);
        Self {
            group: kubectl(&["get", "idg", "default", "-o", "jsonpath={.spec}"]),
            course,
            _agent: agent,
            _programs: (shell, server),
        }
    }

    /// Makes what a page takes for granted.
    fn prepare(&self, page: &Page) {
        let apply_the_first_manifest = || {
            let mut manifests = page.blocks.iter().map(|(_, block)| block);
            let manifest = manifests.find(|block| block.text.starts_with("apiVersion"));
            kubectl_apply(&manifest.expect("the page has a manifest").text);
        };
        match &*page.path {
            "docs/director-host.md" => {
                kubectl_apply(RIVAL);
                wait_for_words("ivs/rival", "Ready", &["WouldHijackDirector"]);
            }
            "docs/grants.md" => {
                self.replace_group("{}");
                apply_the_first_manifest();
                kubectl_apply(CART);
                let refused = "--for=condition=Accepted=False";
                kubectl(&["wait", "-n", "shop", "ivs/cart", refused]);
            }
            "docs/network.md" => apply_the_first_manifest(),
            "docs/troubleshooting.md" => {
                // What earlier pages needed, on which the director is not Ready.
                kubectl(&["delete", "ivs", "rival", "local"]);
                kubectl(&["delete", "ivs", "cart", "-n", "shop"]);
                kubectl(&["delete", "irs", "local"]);
            }
            _ => {}
        }
    }

    /// Runs a command on its machine, and returns its output. Paths on a page
    /// are relative to the repository.
    fn run(&self, step: &Step<'_>) -> Result<String, String> {
        let mut command = step.command.to_owned();
        for (placeholder, name) in PLACEHOLDERS {
            command = command.replace(placeholder, name);
        }
        let host = match step.machine {
            "" => {
                let words = shlex::split(&command).ok_or("a quote has no end")?;
                let words = words.into_iter().map(|word| match workspace().join(&word) {
                    path if word.contains('/') && path.exists() => path.display().to_string(),
                    _ => word,
                });
                let words: Vec<String> = words.collect();
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                return match words[0] {
                    "kubectl" => said(try_kubectl(&words[1..])),
                    "helm" => said(try_helm(&words[1..])),
                    other => Err(format!("the lab does not run {other} here")),
                };
            }
            "director" => &self.course.director,
            "server" => &self.course.web[0],
            _ => &self.course.client,
        };
        let agent = program("ipvs-agent");
        let programs = Path::new(agent.get_program()).with_file_name("");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", &command])
            .env("PATH", path)
            .env("IPVS_STATE_DIR", state_dir("director1"));
        let output = host.try_command(&mut shell);
        output.map_err(|failed| failed.to_string())
    }

    fn replace_group(&self, spec: &str) {
        let patch = format!(r#"[{{"op":"replace","path":"/spec","value":{spec}}}]"#);
        kubectl(&["patch", "idg", "default", "--type=json", "-p", &patch]);
    }
}

/// Compares the output of a command with what the page shows of it: the same
/// words in the same order, with anything in place of an ellipsis.
fn compare(step: &Step<'_>, output: &str) -> Result<(), String> {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let output = one_line(output);
    let mut rest = &*output;
    for part in step.output.iter().flat_map(|line| line.split('…')) {
        let part = one_line(part);
        let found = rest.split_once(&*part);
        rest = found
            .ok_or_else(|| format!("{part:?} is not in {output:?}"))?
            .1;
    }
    Ok(())
}
