//! What a client saw, with everything removed that may differ between two correct servers.
//!
//! A transcript is a list of lines. Programs mark what only its order or identity matters of, as in
//! `{zxid:17}`, `{session:0x10001}`, `{time:1700000000000}`: [`normalise`] turns zxids into their
//! ranks among those printed, sessions into numbers in order of appearance, and times into `now` or
//! the raw value. [`expect_equal`] compares the subject's transcript to the reference's, after
//! replacing in the latter the lines that a listed [`Difference`] accounts for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// A line on which Quorate is meant to differ from the Apache ZooKeeper it is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// The script it shows in.
    pub script: &'static str,
    /// The whole line of the reference. It has to occur, or the list is out of date.
    pub reference: &'static str,
    /// What Quorate prints instead: any number of lines.
    pub quorate: &'static [&'static str],
    /// Why the difference is wanted.
    pub reason: &'static str,
}

/// Far more than a run takes, far less than any mistake in the unit.
const NOW_TOLERANCE_MS: u64 = 10 * 60 * 1000;

/// Replaces the marked values in a program's output by what can be compared.
#[must_use]
pub fn normalise(text: &str) -> Vec<String> {
    let ranks: BTreeMap<i64, usize> = marked(text, "zxid")
        .into_iter()
        .filter_map(parse_number)
        .filter(|&zxid| zxid > 0)
        .collect::<BTreeSet<i64>>()
        .into_iter()
        .enumerate()
        .map(|(rank, zxid)| (zxid, rank + 1))
        .collect();
    let mut sessions: Vec<String> = Vec::new();
    for session in marked(text, "session") {
        if !is_no_session(session) && !sessions.iter().any(|known| known == session) {
            sessions.push(session.to_owned());
        }
    }
    text.lines()
        .map(|line| {
            replace_marks(line, |kind, value| match kind {
                "zxid" => match parse_number(value) {
                    Some(zxid @ ..=0) => format!("{zxid}"),
                    Some(zxid) => format!("z{}", ranks[&zxid]),
                    None => format!("not a zxid: {value}"),
                },
                "session" if is_no_session(value) => "0".to_owned(),
                "session" => {
                    let place = sessions.iter().position(|known| known == value);
                    format!("s{}", place.map_or(0, |place| place + 1))
                }
                "time" => plausible_time(value),
                _ => format!("{{{kind}:{value}}}"),
            })
        })
        .collect()
}

fn is_no_session(value: &str) -> bool {
    matches!(value, "0" | "0x0")
}

/// `now` for a time of this run in milliseconds, else the value.
fn plausible_time(value: &str) -> String {
    match value.parse::<u64>() {
        Ok(ms) if ms.abs_diff(now_ms()) < NOW_TOLERANCE_MS => "now".to_owned(),
        _ => value.to_owned(),
    }
}

/// The wall clock in milliseconds.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn parse_number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

const KINDS: [&str; 3] = ["zxid", "session", "time"];

fn marked<'a>(text: &'a str, wanted: &str) -> Vec<&'a str> {
    let opening = format!("{{{wanted}:");
    text.match_indices(&opening)
        .filter_map(|(at, _)| text[at + opening.len()..].split_once('}'))
        .map(|(value, _)| value)
        .collect()
}

fn replace_marks(line: &str, mut value_of: impl FnMut(&str, &str) -> String) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let mark = rest[1..].split_once('}').and_then(|(inside, after)| {
            let (kind, value) = inside.split_once(':')?;
            KINDS.contains(&kind).then_some((kind, value, after))
        });
        match mark {
            Some((kind, value, after)) => {
                out.push_str(&value_of(kind, value));
                rest = after;
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The reference's transcript as Quorate is meant to produce it.
///
/// # Errors
/// A listed difference does not show in the reference: the list is out of date.
pub fn expected_of_quorate(
    script: &str,
    reference: &[String],
    differences: &[Difference],
) -> Result<Vec<String>, String> {
    let mine: Vec<&Difference> = differences
        .iter()
        .filter(|known| known.script == script)
        .collect();
    for known in &mine {
        if !reference.iter().any(|line| line == known.reference) {
            return Err(format!(
                "the listed difference {:?} of {script} does not show in the reference:\n{}",
                known.reference,
                reference.join("\n")
            ));
        }
    }
    let mut expected = Vec::with_capacity(reference.len());
    for line in reference {
        match mine.iter().find(|known| known.reference == line) {
            Some(known) => expected.extend(known.quorate.iter().map(|&line| line.to_owned())),
            None => expected.push(line.clone()),
        }
    }
    Ok(expected)
}

/// Fails, showing the lines that differ, unless the two transcripts are equal.
///
/// # Panics
/// If they differ.
pub fn expect_equal(script: &str, expected: &[String], actual: &[String]) {
    assert!(
        expected == actual,
        "{script}: the transcripts differ (- Apache ZooKeeper, + the server under test):\n{}",
        difference_text(expected, actual)
    );
}

/// Lines of context around each difference.
const CONTEXT: usize = 2;

/// A line diff by longest common subsequence: transcripts are at most some hundred lines long.
fn difference_text(expected: &[String], actual: &[String]) -> String {
    let (rows, columns) = (expected.len(), actual.len());
    let mut common = vec![vec![0_usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = if expected[row] == actual[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    let mut lines: Vec<(char, &str)> = Vec::new();
    let (mut row, mut column) = (0, 0);
    while row < rows || column < columns {
        if row < rows && column < columns && expected[row] == actual[column] {
            lines.push((' ', &expected[row]));
            row += 1;
            column += 1;
        } else if row < rows
            && (column == columns || common[row + 1][column] >= common[row][column + 1])
        {
            lines.push(('-', &expected[row]));
            row += 1;
        } else {
            lines.push(('+', &actual[column]));
            column += 1;
        }
    }
    let shown = |at: usize| {
        let from = at.saturating_sub(CONTEXT);
        let to = (at + CONTEXT + 1).min(lines.len());
        lines[from..to].iter().any(|(sign, _)| *sign != ' ')
    };
    let mut text = String::new();
    for (at, (sign, line)) in lines.iter().enumerate() {
        if shown(at) {
            let _ = writeln!(text, "{sign} {line}");
        } else if at > 0 && shown(at - 1) {
            text.push_str("  ...\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxids_become_ranks_and_sessions_become_numbers() {
        let lines = normalise("a {zxid:50} {zxid:7} {session:0xff}\nb {zxid:50} {session:0} {x}");
        assert_eq!(lines, ["a z2 z1 s1", "b z2 0 {x}"]);
    }

    #[test]
    fn a_time_of_this_run_becomes_now_and_any_other_stays() {
        let lines = normalise(&format!("{{time:{}}} {{time:0}}", now_ms()));
        assert_eq!(lines, ["now 0"]);
    }

    #[test]
    fn a_difference_shows_both_lines_with_their_neighbours_only() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let text = difference_text(&lines("1\n2\n3\n4\n5\n6"), &lines("1\n2\n3\n4\nfive\n6"));
        assert_eq!(text, "  3\n  4\n- 5\n+ five\n  6\n");
    }

    #[test]
    fn a_listed_difference_that_no_longer_shows_is_refused() {
        let known = Difference {
            script: "s",
            reference: "old",
            quorate: &["new"],
            reason: "a test",
        };
        let seen = ["old".to_owned(), "same".to_owned()];
        assert_eq!(
            expected_of_quorate("s", &seen, &[known]),
            Ok(vec!["new".into(), "same".into()])
        );
        assert!(expected_of_quorate("s", &seen[1..], &[known]).is_err());
    }
}
