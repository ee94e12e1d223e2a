//! Measured figures with their targets, printed as lines for scripts and as a
//! table for people.

use std::{fmt, str::FromStr};

/// The target that a measured figure should meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// The measured figure should be at most the given number.
    AtMost(f64),
    /// The measured figure should be at least the given number.
    AtLeast(f64),
    /// The figure has no target.
    Reported,
}

/// A measured number with its name, unit and target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: String,
    target: Target,
}

impl Figure {
    /// Creates a figure from a measured value. `name` and `unit` must not
    /// contain spaces.
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &str, target: Target) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.to_owned(),
            target,
        }
    }

    pub(crate) fn is_short(&self) -> bool {
        // The printed value is rounded, so the rounded value is compared with
        // the target. With the exact value, a printed line could read
        // "1.3 <= 1.3 short".
        let value = shown(self.value).parse().unwrap_or(self.value);
        match self.target {
            Target::AtMost(limit) => value > limit,
            Target::AtLeast(limit) => value < limit,
            Target::Reported => false,
        }
    }

    fn verdict(&self) -> &'static str {
        match self.target {
            Target::Reported => "reported",
            _ if self.is_short() => "short",
            _ => "ok",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "<= {limit}"),
            Self::AtLeast(limit) => write!(f, ">= {limit}"),
            Self::Reported => f.write_str("no target"),
        }
    }
}

/// Writes the figure as `BENCH <name> <value> <unit> <= or >= <target>
/// ok|short`, or as `BENCH <name> <value> <unit> no target reported`.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "BENCH {} {} {} {} {}",
            self.name,
            shown(self.value),
            self.unit,
            self.target,
            self.verdict()
        )
    }
}

/// Parses a figure from the line that [`Display`](fmt::Display) writes.
impl FromStr for Figure {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &["BENCH", name, value, unit, relation, limit, _] = words.as_slice() else {
            return Err(());
        };
        let number = || limit.parse().map_err(|_| ());
        let target = match relation {
            "<=" => Target::AtMost(number()?),
            ">=" => Target::AtLeast(number()?),
            "no" => Target::Reported,
            _ => return Err(()),
        };
        let value = value.parse().map_err(|_| ())?;
        Ok(Self::new(name, value, unit, target))
    }
}

/// Formats all figures as a table for people.
pub(crate) fn table(figures: &[Figure]) -> String {
    let rows: Vec<[String; 4]> = figures
        .iter()
        .map(|figure| {
            [
                figure.name.replace('_', " "),
                format!("{} {}", shown(figure.value), figure.unit),
                figure.target.to_string(),
                figure.verdict().to_owned(),
            ]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    rows.iter()
        .map(|[name, value, target, verdict]| {
            format!(
                "  {name:0$}  {value:>1$}  {target:>2$}  {verdict}\n",
                widths[0], widths[1], widths[2]
            )
        })
        .collect()
}

/// Formats a number with about three significant digits. A whole number keeps
/// all its digits.
fn shown(value: f64) -> String {
    let decimals = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_one_line_that_reads_back() {
        for (figure, line) in [
            (
                Figure::new("load", 1.254, "x", Target::AtMost(1.3)),
                "BENCH load 1.25 x <= 1.3 ok",
            ),
            (
                Figure::new("load", 1.312, "x", Target::AtMost(1.3)),
                "BENCH load 1.31 x <= 1.3 short",
            ),
            (
                Figure::new("writes", 1.0, "operations", Target::AtMost(1.0)),
                "BENCH writes 1 operations <= 1 ok",
            ),
            (
                Figure::new("faster", 399.6, "x", Target::AtLeast(400.0)),
                "BENCH faster 400 x >= 400 ok",
            ),
            (
                Figure::new("faster", 12.34, "x", Target::AtLeast(100.0)),
                "BENCH faster 12.3 x >= 100 short",
            ),
            (
                Figure::new("calls", 0.01234, "calls/op", Target::AtMost(0.02)),
                "BENCH calls 0.0123 calls/op <= 0.02 ok",
            ),
            (
                Figure::new("bytes", 62.5, "MB", Target::Reported),
                "BENCH bytes 62.5 MB no target reported",
            ),
        ] {
            assert_eq!(figure.to_string(), line);
            let read: Figure = line.parse().unwrap_or_else(|()| panic!("{line:?} reads"));
            assert_eq!(read.to_string(), line, "the line reads back");
        }
    }

    #[test]
    fn what_is_no_figure_is_told_apart() {
        for line in ["", "BENCH", "a line of a log", "BENCH a 1 x == 2 ok"] {
            assert_eq!(line.parse::<Figure>(), Err(()), "{line:?}");
        }
    }
}
