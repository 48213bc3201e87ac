//! Writes `docs/trust.md` from `docs/trust/figures.jsonl` and `docs/trust/track-record.md`.
//!
//! `trust [DOCS]`, where DOCS is the folder, `docs` if none is given.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs, io};

use quorate_checker::{Figure, trust};

fn main() -> Result<(), Box<dyn Error>> {
    let docs = PathBuf::from(env::args().nth(1).unwrap_or_else(|| "docs".to_owned()));
    let figures = text_of(&docs.join("trust/figures.jsonl"))?;
    let track_record = text_of(&docs.join("trust/track-record.md"))?;
    let page = trust::page(&Figure::parse(&figures)?, &track_record);
    fs::write(docs.join("trust.md"), page)?;
    Ok(())
}

/// A file's text; none if there is no file yet.
fn text_of(file: &std::path::Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
    }
}
