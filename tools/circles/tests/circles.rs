//! Tests that look for circles in whole crates, each given as a list of files.

#![allow(clippy::unwrap_used, reason = "the whole file is test code")]

use std::fs;

use circles::{Circle, Error, circles};

/// Returns the circles in a crate that consists of `files`. The first file is
/// the crate's root. The paths in the result are relative to the crate's
/// folder.
fn try_in(files: &[(&str, &str)]) -> Result<Vec<Circle>, Error> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut found = circles(&folder.path().join(files[0].0))?;
    for import in found.iter_mut().flat_map(|circle| &mut circle.imports) {
        import.file = import.file.strip_prefix(folder.path()).unwrap().to_owned();
    }
    Ok(found)
}

/// Returns the printed text of each circle in a crate that consists of `files`.
fn told(files: &[(&str, &str)]) -> Vec<String> {
    let found = try_in(files).unwrap();
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn modules_that_import_one_way_are_no_circle() {
    let found = told(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        (
            "a.rs",
            "use crate::b::B; use crate::c::C; pub struct A(B, C);",
        ),
        ("b.rs", "use super::c; pub struct B(c::C);"),
        ("c.rs", "pub struct C;"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn two_modules_that_import_each_other_are_told_with_both_lines() {
    let found = told(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use std::fmt;\nuse crate::b::{self, B};"),
        ("b.rs", "\n\nuse super::a::A;"),
    ]);
    assert_eq!(
        found,
        ["in crate, these import each other: a, b\n  \
          a.rs:2: a → b (crate::b)\n  \
          a.rs:2: a → b (crate::b::B)\n  \
          b.rs:3: b → a (super::a::A)"]
    );
}

#[test]
fn a_circle_by_way_of_a_third_is_told_without_those_outside() {
    let found = told(&[
        ("main.rs", "mod a; mod b; mod c; mod user; mod used;"),
        ("a.rs", "use crate::b::B; use crate::used::Used;"),
        ("b.rs", "use crate::c::C;"),
        ("c.rs", "use crate::a::A;"),
        ("user.rs", "use crate::a::A;"),
        ("used.rs", ""),
    ]);
    assert_eq!(
        found,
        ["in crate, these import each other: a, b, c\n  \
          a.rs:1: a → b (crate::b::B)\n  \
          b.rs:1: b → c (crate::c::C)\n  \
          c.rs:1: c → a (crate::a::A)"]
    );
}

#[test]
fn a_path_in_code_imports_as_a_use_does() {
    for path in [
        "fn f() { crate::b::g(); }",
        "fn f() { super::b::g(); }",
        "fn f() { use crate::b::g; g(); }",
        "struct A { b: Option<crate::b::B> }",
        "fn f() { println!(\"{}\", crate::b::g()); }",
        "fn f() { outer!({ inner(name: super::b::g()) }); }",
        "#[check(rule = crate::b::g())] struct A;",
        "impl crate::b::T for A {}",
        "mod deep { pub mod er { fn f() { super::super::super::b::g(); } } }",
        "use crate as root; fn f() { root::b::g(); }",
    ] {
        let found = told(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", path),
            ("b.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found.len(), 1, "a circle is expected with {path}");
    }
}

#[test]
fn what_is_no_path_in_the_crate_imports_nothing() {
    for path in [
        "use b::B;",
        "use ::b::B;",
        "fn f() { ::b::g(); std::fs::read(b).ok(); }",
        "fn f() { println!(\"{b}\", b = 1); }",
        "/// See [`crate::b::B`].\nstruct A;",
        "fn f() { let text = \"crate::b::B\"; }",
    ] {
        let found = told(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", path),
            ("b.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found, [""; 0], "{path}");
    }
}

#[test]
fn a_circle_behind_re_exports_is_found() {
    for (root, import) in [
        ("mod a; mod b; pub use b::B;", "use crate::B;"),
        ("mod a; mod b; pub use self::b::B as C;", "use super::C;"),
        ("mod a; mod b; pub use b::*;", "use super::B;"),
        ("mod a; mod b; pub use b::*;", "use super::*; struct A(B);"),
        ("mod a; mod b; use b::B;", "fn f() { crate::B::new(); }"),
        (
            "mod a; mod b; pub mod api { pub use crate::b::B; }",
            "use crate::api::B;",
        ),
        (
            "mod a; mod b; pub mod api { mod all { pub use crate::b::*; } pub use all::B; }",
            "use crate::api; struct A(api::B);",
        ),
    ] {
        let found = told(&[
            ("lib.rs", root),
            ("a.rs", import),
            ("b.rs", "use crate::a::A; pub struct B;"),
        ]);
        assert_eq!(found.len(), 1, "a circle is expected: {root} {import}");
        assert!(found[0].contains("a → b"), "{}", found[0]);
    }
}

#[test]
fn a_re_export_in_a_folders_mod_rs_is_followed() {
    let found = told(&[
        ("lib.rs", "mod m;"),
        ("m/mod.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
        ("m/a.rs", "use super::B; pub struct A;"),
        ("m/b/mod.rs", "mod c; pub struct B;"),
        ("m/b/c.rs", "use crate::m::A;"),
    ]);
    assert_eq!(
        found,
        ["in crate::m, these import each other: a, b\n  \
          m/a.rs:1: a → b (super::B)\n  \
          m/b/c.rs:1: b → a (crate::m::A)"]
    );
}

#[test]
fn a_child_may_import_from_its_parent_and_the_parent_from_it() {
    let found = told(&[
        (
            "lib.rs",
            "mod a; use a::A; pub struct Own; pub fn own() { a::f(); }",
        ),
        (
            "a.rs",
            "mod b; use super::{Own, own}; use b::B; pub struct A;",
        ),
        ("a/b.rs", "use super::A; use crate::own; pub struct B;"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn what_is_for_tests_only_does_not_count_and_needs_no_file() {
    let imports_b = "use crate::b::B;";
    for a in [
        format!("#[cfg(test)] {imports_b}"),
        format!("#[cfg(test)] mod tests {{ {imports_b} }}"),
        format!("#[cfg(all(test, unix))] mod tests {{ {imports_b} }}"),
        format!("#[cfg(test)] fn f() {{ {imports_b} }}"),
        format!("#[test] fn f() {{ {imports_b} }}"),
        format!("impl A {{ #[cfg(test)] fn f() {{ {imports_b} }} }}"),
        "struct A { #[cfg(test)] b: crate::b::B }".to_owned(),
        "#[cfg(test)] mod is_not_there;".to_owned(),
    ] {
        let found = told(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", &a),
            ("b.rs", "use crate::a::A;"),
        ]);
        assert_eq!(found, [""; 0], "{a}");
    }
    let found = told(&[
        ("lib.rs", "mod a; mod b;"),
        (
            "a.rs",
            "#[cfg(any(test, feature = \"x\"))] use crate::b::B;",
        ),
        ("b.rs", "use crate::a::A;"),
    ]);
    assert_eq!(
        found.len(),
        1,
        "a feature turns the import on without tests"
    );
}

#[test]
fn a_crate_that_cannot_be_read_is_an_error_with_the_place() {
    for (files, expected) in [
        (
            vec![("lib.rs", "mod a;")],
            "lib.rs: there is no file for `mod a;`",
        ),
        (vec![("lib.rs", "mod a;"), ("a.rs", "\nfn 7")], "a.rs:2: "),
    ] {
        let error = try_in(&files).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected} is expected: {error}");
    }
}
