//! Reads README.md and the pages in docs/ as a reader sees them.
//!
//! A block ```` ```console ```` has commands after a prompt, `$ ` or the name of
//! a machine and `$ `, and below a command the output that the page shows. In a
//! block ```` ```sh ```` and in a block without a fence, each line is a command.
//! The comment `<!-- not run: WHY -->` before a block says why the lab cannot
//! run it.

use std::{fs, path::Path};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A page. Blocks, code in sentences, and links have their place in front, such
/// as `docs/grants.md:7`.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The path in the repository.
    pub(crate) path: String,
    pub(crate) blocks: Vec<(String, Block)>,
    pub(crate) sentences: Vec<(String, String)>,
    #[allow(dead_code, reason = "only one of the two tests looks at links")]
    pub(crate) links: Vec<(String, String)>,
    /// The headings, as links name them.
    #[allow(dead_code, reason = "only one of the two tests looks at links")]
    pub(crate) anchors: Vec<String>,
}

/// A block of code.
#[derive(Debug)]
pub(crate) struct Block {
    /// `console` for commands, otherwise the word after the fence.
    pub(crate) language: String,
    pub(crate) text: String,
    /// Why the lab does not run the block.
    pub(crate) not_run: Option<String>,
}

/// A command of a block.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    /// The machine that the prompt names, or "" for one that has kubectl.
    pub(crate) machine: &'a str,
    pub(crate) command: &'a str,
    pub(crate) output: Vec<&'a str>,
}

pub(crate) fn pages(repository: &Path) -> Vec<Page> {
    let docs = fs::read_dir(repository.join("docs")).expect("the repository has docs");
    let docs = docs.map(|entry| entry.expect("a file").file_name());
    let docs = docs.map(|name| format!("docs/{}", name.to_string_lossy()));
    let mut paths: Vec<_> = docs.chain(["README.md".to_owned()]).collect();
    paths.sort();
    let read = |path: String| {
        let text = fs::read_to_string(repository.join(&path)).expect("a page can be read");
        Page::parse(path, &text)
    };
    paths.into_iter().map(read).collect()
}

impl Page {
    pub(crate) fn parse(path: String, text: &str) -> Self {
        let mut page = Self {
            path,
            ..Self::default()
        };
        let mut not_run = None;
        let mut block: Option<Block> = None;
        let mut heading: Option<String> = None;
        let events = Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter();
        for (event, range) in events {
            let line = 1 + text[..range.start].matches('\n').count();
            let at = format!("{}:{line}", page.path);
            match event {
                Event::Html(html) => {
                    let why = html.trim().strip_prefix("<!-- not run:");
                    not_run = why.map(|why| why.trim_end_matches("-->").trim().to_owned());
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(language) if &*language != "sh" => {
                            language.into_string()
                        }
                        _ => "console".to_owned(),
                    };
                    block = Some(Block {
                        language,
                        text: String::new(),
                        not_run: not_run.take(),
                    });
                }
                Event::End(TagEnd::CodeBlock) => {
                    page.blocks.extend(block.take().map(|block| (at, block)));
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.anchors.extend(heading.take()),
                Event::Start(Tag::Link { dest_url, .. }) => {
                    page.links.push((at, dest_url.to_string()));
                }
                Event::Start(Tag::Paragraph) => not_run = None,
                Event::Text(words) | Event::Code(words) if heading.is_some() => {
                    heading.iter_mut().for_each(|all| *all += &anchor(&words));
                }
                Event::Text(words) => {
                    block.iter_mut().for_each(|block| block.text += &words);
                }
                Event::Code(words) => page.sentences.push((at, words.to_string())),
                _ => {}
            }
        }
        page
    }
}

/// Returns how a link writes the words of a heading.
fn anchor(words: &str) -> String {
    let words = words.to_lowercase().replace(' ', "-");
    words.replace(
        |letter: char| !letter.is_alphanumeric() && letter != '-',
        "",
    )
}

impl Block {
    /// Returns the commands of a block `console`.
    pub(crate) fn steps(&self) -> Vec<Step<'_>> {
        let mut steps: Vec<Step<'_>> = Vec::new();
        let has_prompts = self.text.lines().any(|line| prompt(line).is_some());
        for line in self.text.lines().filter(|_| self.language == "console") {
            let step = prompt(line).or((!has_prompts).then_some(("", line)));
            match step {
                Some((machine, command)) => steps.push(Step {
                    machine,
                    command,
                    output: Vec::new(),
                }),
                None => steps
                    .iter_mut()
                    .last()
                    .into_iter()
                    .for_each(|step| step.output.push(line)),
            }
        }
        steps
    }
}

fn prompt(line: &str) -> Option<(&str, &str)> {
    let (machine, command) = line.split_once("$ ")?;
    let is_machine = machine.chars().all(|letter| letter.is_ascii_lowercase());
    is_machine.then_some((machine, command))
}
