//! What a proof command prints, and appends to a file of figures: one line.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

/// A result.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: &'static str,
    /// What was run, so that it can be run again.
    pub command: String,
    pub count: f64,
    pub unit: &'static str,
    pub seeds: String,
    pub violations: u64,
    pub seconds: f64,
    pub note: String,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} {}, seeds {}, {} violations, {:.0} s ({})",
            self.name, self.count, self.unit, self.seeds, self.violations, self.seconds, self.note
        )
    }
}

impl Figure {
    /// Appends itself to a file, as a line of JSON.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn record(&self, file: &Path, date: &str, commit: &str) -> io::Result<()> {
        let line = json!({
            "name": self.name,
            "date": date,
            "commit": commit,
            "command": self.command,
            "count": self.count,
            "unit": self.unit,
            "seeds": self.seeds,
            "violations": self.violations,
            "seconds": self.seconds,
            "note": self.note,
        });
        let mut file = OpenOptions::new().append(true).create(true).open(file)?;
        writeln!(file, "{line}")
    }
}
