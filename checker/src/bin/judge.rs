//! Judges histories that were kept as files, and says what promise each breaks.
//!
//! `judge FILE...`; exits with 1 if a promise was broken or something could not be judged.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::process::ExitCode;

use quorate_checker::{History, check};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut stdout = io::stdout().lock();
    let mut is_clean = true;
    let mut count = 0;
    for file in std::env::args().skip(1) {
        let history = History::read_from(BufReader::new(File::open(&file)?))
            .map_err(|error| format!("{file}: {error}"))?;
        let report = check(&history);
        for violation in &report.violations {
            writeln!(stdout, "{file}: {violation}")?;
        }
        for undecided in &report.undecided {
            writeln!(stdout, "{file}: undecided: {undecided}")?;
        }
        let tally = &report.tally;
        writeln!(
            stdout,
            "{file}: {} operations ({} done, {} refused, {} unknown), {} linearized, {} reads and {} \
             events checked, {} violations",
            tally.operations,
            tally.done,
            tally.refused,
            tally.unknown,
            tally.linearized,
            tally.reads_checked,
            tally.events_checked,
            report.broken.values().sum::<u64>()
        )?;
        is_clean &= report.is_clean();
        count += 1;
    }
    if count == 0 {
        return Err("which histories? Give their files".into());
    }
    Ok(match is_clean {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
