//! Reading a Java properties file into entries that know their lines.
//!
//! The format is `java.util.Properties`; the crate java-properties splits and unescapes. What it
//! leaves to us: the encoding, a bound on the size, keys and values without outer blanks (as
//! ZooKeeper trims them), and three spots where it and Java part (see [`prepare`]). No meaning is
//! attached to any key here.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use java_properties::{LineContent, PropertiesIter};

use super::error::{ConfigError, Place};

/// No `zoo.cfg` comes near it: even a hundred server lines are some 10 KiB.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// One `key=value`, outer blanks removed from both.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) value: String,
}

/// All entries in the order of the file, duplicates included.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let text = decode(&read_bytes(path)?);
    let prepared = prepare(&text);
    let file: Arc<Path> = Arc::from(path);
    let mut entries = Vec::new();
    for line in PropertiesIter::new(prepared.as_bytes()) {
        let line = line.map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            line: error.line_number().unwrap_or(0),
            // Its text repeats the line number in words of its own.
            reason: error
                .to_string()
                .split(" (line_number")
                .next()
                .unwrap_or("malformed")
                .to_owned(),
        })?;
        let number = line.line_number();
        if let LineContent::KVPair(key, value) = line.consume_content() {
            let key = key.trim().to_owned();
            entries.push(Entry {
                place: Place::Line {
                    file: Arc::clone(&file),
                    line: number,
                    key: key.clone(),
                },
                line: number,
                key,
                value: value.trim().to_owned(),
            });
        }
    }
    Ok(entries)
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(ConfigError::IsDirectory {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLong {
            path: path.to_owned(),
            limit_bytes: FILE_BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// Java reads these files as Latin-1, which turns a path in UTF-8 into another path. So: UTF-8
/// where the bytes are UTF-8 (ASCII reads the same in both), Latin-1 otherwise. A byte order mark,
/// as some editors write, is no part of the first key.
fn decode(bytes: &[u8]) -> String {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

/// Makes up for three differences between the parser and Java, keeping every line's number:
/// it reads windows-1252 unless a byte order mark says otherwise; it unescapes comments, so that
/// `# C:\users` is an error; and it drops a last line that ends in a backslash.
fn prepare(text: &str) -> String {
    let mut prepared = String::with_capacity(text.len() + 4);
    prepared.push('\u{feff}');
    let mut continued = false;
    for piece in text.split_inclusive(['\n', '\r']) {
        let line = piece.trim_end_matches(['\n', '\r']);
        // The second half of a CR LF is no line of its own.
        if line.is_empty() && piece == "\n" && prepared.ends_with('\r') {
            prepared.push('\n');
            continue;
        }
        let is_comment = !continued
            && line
                .trim_start_matches([' ', '\t', '\x0c'])
                .starts_with(['#', '!']);
        if is_comment {
            prepared.push_str(&piece[line.len()..]);
            continue;
        }
        prepared.push_str(piece);
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        continued = backslashes % 2 == 1;
    }
    prepared.push('\n');
    prepared
}
