//! A figure: what a proof command found, on one line for people and on one of JSON for the record.
//!
//! Not pure, unlike the rest: a figure names the day and the commit it is from.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// One result of one command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    /// As in 2026-01-31.
    pub date: String,
    pub commit: String,
    /// What to type to get it again.
    pub command: String,
    pub count: f64,
    pub unit: String,
    /// Which seeds, as in `1..20000`; empty if nothing was random.
    #[serde(default)]
    pub seeds: String,
    pub violations: u64,
    /// How long it took.
    #[serde(default)]
    pub seconds: f64,
    #[serde(default)]
    pub note: String,
}

impl Figure {
    /// A figure of today and of this commit.
    #[must_use]
    pub fn new(name: &str, count: f64, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            date: today(),
            commit: commit(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            count,
            unit: unit.to_owned(),
            ..Self::default()
        }
    }

    /// Appends it to a file, one line of JSON.
    ///
    /// # Errors
    ///
    /// Those of the file.
    pub fn record(&self, file: &Path) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        file.write_all(&line)
    }

    /// The figures in a file's text; empty lines are passed over.
    ///
    /// # Errors
    ///
    /// The first line that is no figure, by number.
    pub fn parse(text: &str) -> Result<Vec<Self>, ParseError> {
        let lines = text.lines().enumerate();
        lines
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(index, line)| {
                serde_json::from_str(line).map_err(|source| ParseError {
                    line: index + 1,
                    source,
                })
            })
            .collect()
    }
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is no figure ({source}): correct it or take it out")]
pub struct ParseError {
    line: usize,
    source: serde_json::Error,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.name, Grouped(self.count), self.unit)?;
        if !self.seeds.is_empty() {
            write!(f, ", seeds {}", self.seeds)?;
        }
        write!(f, ", violations {}", self.violations)?;
        if self.seconds > 0.0 {
            write!(f, ", {:.1} s", self.seconds)?;
        }
        if !self.note.is_empty() {
            write!(f, " ({})", self.note)?;
        }
        Ok(())
    }
}

/// A number with its thousands apart, and no more digits behind the point than it needs.
pub(crate) struct Grouped(pub(crate) f64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0.fract() == 0.0 {
            true => format!("{:.0}", self.0),
            false => format!("{:.1}", self.0),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let digits = whole.trim_start_matches('-');
        if whole.len() > digits.len() {
            f.write_str("-")?;
        }
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        if fraction.is_empty() {
            return Ok(());
        }
        write!(f, ".{fraction}")
    }
}

fn today() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    date_of(now.map_or(0, |now| now.as_secs() / 86_400))
}

/// The date so many days after 1970-01-01, in the Gregorian calendar.
fn date_of(days: u64) -> String {
    // Years begin in March, so that the day that some of them have more is the last of a year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = year_of_era + era * 400 + carry;
    format!("{year:04}-{month:02}-{day:02}")
}

/// The commit that is checked out; a `+` behind it says that there is more than that.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    match changed.is_none_or(|changed| changed.is_empty()) {
        true => commit,
        false => format!("{commit}+"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, date) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_778, "2026-11-21"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(date_of(days), date);
        }
    }

    #[test]
    fn a_figure_is_one_line_and_reads_back_from_its_record() {
        let figure = Figure {
            name: "sim-hours".to_owned(),
            count: 1_234_567.25,
            unit: "cluster-hours".to_owned(),
            seeds: "1..20000".to_owned(),
            seconds: 12.34,
            ..Figure::default()
        };
        assert_eq!(
            figure.to_string(),
            "sim-hours: 1,234,567.2 cluster-hours, seeds 1..20000, violations 0, 12.3 s"
        );
        let folder = std::env::temp_dir().join(format!("quorate-figure-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("figures.jsonl");
        figure.record(&file).unwrap();
        figure.record(&file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(Figure::parse(&text).unwrap(), [figure.clone(), figure]);
    }

    #[test]
    fn a_line_that_is_no_figure_is_named() {
        let error = Figure::parse("\n{}\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
