//! Measures the longest time that a health check's regular expression can take.
//! The benchmark uses the largest patterns that the API accepts, and the
//! longest text that the agent matches.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crds::body_pattern;

use crate::figure::{Figure, Target};

/// The length in bytes of the longest text that the agent matches against a
/// regular expression.
const TEXT: usize = 16 << 10;
/// How many times each pattern is matched. The benchmark uses the shortest of
/// the measured times, because other processes may delay a match.
const TIMES: u32 = 5;

/// A pattern of the benchmark: its name and two functions. The first function
/// builds the pattern in a given size. The second function builds a text on
/// which the pattern is slow.
type Candidate = (&'static str, fn(usize) -> String, fn() -> Vec<u8>);

/// Patterns that the regex crate matches slowly. While the crate matches such a
/// pattern, the pattern's automaton has many active states at once. So the
/// crate's cache of states does not help. For a Unicode word boundary and a
/// non-ASCII text, the regex crate does not use the cache at all.
const CANDIDATES: [Candidate; 6] = [
    (
        "alternatives",
        |size| format!("(?-u)(?:a.{{{size}}}|b.{{{size}}}|aa.{{{size}}}|ab.{{{size}}})c"),
        random,
    ),
    (
        "alternatives_word",
        |size| format!("(?s)(?:(?-u:a.{{{size}}}|b.{{{size}}}|aa.{{{size}}}|ab.{{{size}}}))\\bc"),
        not_ascii,
    ),
    (
        "class",
        |size| format!("(?s-u)[ab]*a[ab]{{{size}}}c"),
        random,
    ),
    (
        "class_word",
        |size| format!("[ab]*a[ab]{{{size}}}\\bc"),
        not_ascii,
    ),
    (
        "optional",
        |size| format!("(?-u)(?:a?){{{size}}}a{{{size}}}c"),
        all_alike,
    ),
    (
        "optional_word",
        |size| format!("(?:a?){{{size}}}a{{{size}}}\\bc"),
        not_ascii_and_all_alike,
    ),
];

pub(crate) fn measure() -> Result<()> {
    println!("Regular expressions of at most 16 KiB, matched against {TEXT} bytes:");
    let mut longest = Duration::ZERO;
    for (name, pattern, text) in CANDIDATES {
        let size = (1..2000).take_while(|size| body_pattern(&pattern(*size)).is_ok());
        let size = size.last().context("no size of the pattern is accepted")?;
        let pattern = pattern(size);
        let began = Instant::now();
        let regex = body_pattern(&pattern)?;
        let compiled = began.elapsed();
        let text = text();
        let mut shortest = Duration::MAX;
        for _ in 0..TIMES {
            let began = Instant::now();
            anyhow::ensure!(!regex.is_match(&text), "{name}: it matches");
            shortest = shortest.min(began.elapsed());
        }
        println!(
            "  {name}: {} us, compiled in {} us: {pattern}",
            shortest.as_micros(),
            compiled.as_micros()
        );
        longest = longest.max(shortest);
    }
    let figure = Figure::new(
        "pattern_longest_match",
        longest.as_secs_f64() * 1e3,
        "ms",
        Target::AtMost(250.0),
    );
    println!("{figure}");
    Ok(())
}

/// Returns a pseudorandom text of `a` and `b`, from Knuth's MMIX generator.
fn random() -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if state >> 63 == 0 { b'a' } else { b'b' }
    };
    std::iter::repeat_with(next).take(TEXT).collect()
}

fn not_ascii() -> Vec<u8> {
    with_umlaut(random())
}

fn all_alike() -> Vec<u8> {
    vec![b'a'; TEXT]
}

fn not_ascii_and_all_alike() -> Vec<u8> {
    with_umlaut(all_alike())
}

fn with_umlaut(mut text: Vec<u8>) -> Vec<u8> {
    text[..2].copy_from_slice("ü".as_bytes());
    text
}
