//! Checks the documentation without a lab: the test `e2e_docs` runs each block
//! of commands or the block says why not, and what the pages name exists.

mod pages;

use std::fs;

use agent::args::Args;
use clap::Parser;
use e2e::{
    cluster::{chart, workspace},
    values_page::values_page,
};

use self::pages::{Page, pages};

#[track_caller]
fn expect_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_block_of_commands_is_run_in_the_lab_or_says_why_not() {
    let mut wrong = Vec::new();
    for (at, block) in pages(&workspace()).iter().flat_map(|page| &page.blocks) {
        if !matches!(&*block.language, "console" | "yaml" | "text") {
            wrong.push(format!("{at}: call the block console, yaml or text"));
        }
        if block.not_run.as_deref() == Some("") {
            wrong.push(format!("{at}: say why the block is not run"));
        }
        let machines = ["", "client", "director", "server"];
        for step in block.steps() {
            if !machines.contains(&step.machine) {
                wrong.push(format!("{at}: the lab has no {}", step.machine));
            }
        }
    }
    expect_none(&wrong);
}

#[test]
fn the_chart_s_readme_has_its_values() {
    let read = |name| fs::read_to_string(chart().join(name)).expect("the chart has this file");
    let page = values_page(&read("values.yaml")).expect("the values are YAML");
    assert!(page == read("README.md"), "run `make generate`");
}

#[test]
fn commands_of_the_agent_and_targets_of_make_exist() {
    let makefile = fs::read_to_string(workspace().join("Makefile")).expect("there is a Makefile");
    let is_target = |word: &str| {
        let mut lines = makefile.lines();
        lines.any(|line| line.strip_prefix(".PHONY: ") == Some(word))
    };
    let mut wrong = Vec::new();
    let pages = pages(&workspace());
    let blocks = pages.iter().flat_map(|page| &page.blocks);
    let steps = blocks.flat_map(|(at, block)| {
        block
            .steps()
            .into_iter()
            .map(move |step| (at, step.command))
    });
    let sentences = pages.iter().flat_map(|page| &page.sentences);
    let sentences = sentences.map(|(at, command)| (at, &**command));
    for (at, command) in steps.chain(sentences) {
        let words = shlex::split(command).unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["make", ref targets @ ..] => {
                let targets = targets.iter().filter(|word| !word.contains('='));
                let unknown = targets.filter(|target| !is_target(target));
                wrong.extend(unknown.map(|target| format!("{at}: make has no target {target}")));
            }
            ["ipvs-agent", ..] => {
                // The options --help and --version end the parsing, too.
                let refused = Args::try_parse_from(&words).err();
                let refused = refused.filter(clap::Error::use_stderr);
                wrong.extend(refused.map(|error| format!("{at}: {command}: {error}")));
            }
            _ => {}
        }
    }
    expect_none(&wrong);
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let pages = pages(&workspace());
    let mut wrong = Vec::new();
    for page in &pages {
        let links = page.links.iter().filter(|(_, link)| !link.contains("://"));
        for (at, link) in links {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let here = workspace().join(&page.path);
            let target = match file {
                "" => here,
                file => here.with_file_name(file),
            };
            let target = target.canonicalize().unwrap_or_default();
            let leads_to = |page: &&Page| target.ends_with(&page.path);
            let has_anchor = |page: &Page| page.anchors.iter().any(|found| found == anchor);
            let is_good = match anchor {
                "" => target.exists(),
                _ => pages.iter().find(leads_to).is_some_and(has_anchor),
            };
            if !is_good {
                wrong.push(format!("{at}: {link} leads nowhere"));
            }
        }
    }
    expect_none(&wrong);
}

#[test]
fn a_page_is_read_as_a_reader_sees_it() {
    let text = "# A `b` (c)\n\n<!-- not run: slow -->\n```console\n$ make x\nclient$ curl a\nall\n\
                is well\n```\n\n    kubectl get ivs\n";
    let page = Page::parse("page.md".to_owned(), text);
    assert_eq!(page.anchors, ["a-b-c"]);
    let [(at, block), (_, bare)] = &page.blocks[..] else {
        panic!("two blocks: {page:?}");
    };
    assert_eq!(at, "page.md:4");
    assert_eq!(block.not_run.as_deref(), Some("slow"));
    let [make, curl] = &block.steps()[..] else {
        panic!("two commands: {block:?}");
    };
    assert_eq!((make.machine, make.command), ("", "make x"));
    assert_eq!((curl.machine, curl.command), ("client", "curl a"));
    assert_eq!(curl.output, ["all", "is well"]);
    assert_eq!(bare.not_run, None);
    assert_eq!(bare.steps()[0].command, "kubectl get ivs");
}
