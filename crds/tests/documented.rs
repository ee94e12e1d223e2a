//! Compares `docs/conditions.md` with the consts of the conditions' types and
//! reasons.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Returns the values of the string consts in a Rust module of
/// `src/condition.rs`.
fn consts_of(module: &str) -> BTreeSet<String> {
    let source = include_str!("../src/condition.rs");
    let (_, rest) = source
        .split_once(&format!("pub mod {module} {{"))
        .expect("the module is in the source");
    let (body, _) = rest.split_once("\n}").expect("the module ends");
    let values = body.lines().filter_map(|line| {
        let (_, value) = line.trim().split_once(": &str = \"")?;
        Some(value.trim_end_matches("\";").to_owned())
    });
    let values: BTreeSet<_> = values.collect();
    assert!(values.len() > 5, "the consts of `{module}` are found");
    values
}

/// Returns the words in the first column of the page's tables whose header
/// begins with `header`.
fn documented(header: &str) -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conditions.md");
    let page = fs::read_to_string(page).expect("the page is in docs/");
    let mut is_wanted = false;
    let mut words = BTreeSet::new();
    for line in page.lines() {
        if let Some(row) = line.strip_prefix("| ") {
            if row.starts_with(header) {
                is_wanted = true;
            } else if is_wanted {
                let cell = row.split('|').next().unwrap_or_default();
                words.insert(cell.trim().trim_matches('`').to_owned());
            }
        } else if !line.starts_with('|') {
            is_wanted = false;
        }
    }
    words
}

#[test]
fn every_type_of_condition_is_documented_and_no_other() {
    assert_eq!(documented("type |"), consts_of("kind"));
}

#[test]
fn every_reason_is_documented_and_no_other() {
    assert_eq!(documented("reason |"), consts_of("reason"));
}
