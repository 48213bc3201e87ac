//! What can be wrong with a configuration, and what is only worth a line in the log.
//!
//! Every text is one line: where (`zoo.cfg:7: tickTime`, `--tick-ms`), what is wrong, what to do.
//! No text holds a secret: values are quoted only by those who know that theirs is none.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nobody set it.
    Default { key: &'static str },
    /// A line of a properties file; lines count from 1.
    Line {
        file: Arc<Path>,
        line: usize,
        key: String,
    },
    /// A flag or an environment variable, by name.
    Setting { name: String },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { key } => write!(f, "{key} (default)"),
            // A key may hold anything, a newline too: `\n` is an escape in properties files.
            Self::Line { file, line, key } => {
                write!(f, "{}:{line}: {}", file.display(), quotable(key))
            }
            Self::Setting { name } => f.write_str(name),
        }
    }
}

/// Why the server does not start. The exit code is the same for all: a configuration error.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read ({source}): check path and permissions", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: is a directory: name the configuration file in it, such as {}",
            path.display(), path.join("zoo.cfg").display())]
    IsDirectory { path: PathBuf },
    #[error("{}: longer than {limit_bytes} bytes: is it a configuration file?", path.display())]
    TooLong { path: PathBuf, limit_bytes: u64 },
    #[error("{}:{line}: {reason}", path.display())]
    Malformed {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    #[error("{place}: {reason}")]
    Invalid { place: Place, reason: String },
    #[error("{place}: {what} not supported yet: {remedy}")]
    NotSupported {
        place: Place,
        what: &'static str,
        remedy: &'static str,
    },
    #[error(
        "{place}: refused, as quorate never acknowledges what is not on disk: remove the line \
         (writes that wait together share one disk sync)"
    )]
    UnsafeSync { place: Place },
    #[error("{}: {key} is not set: {remedy}", path.display())]
    Missing {
        path: PathBuf,
        key: &'static str,
        remedy: &'static str,
    },
    #[error(
        "the lowest session timeout, {min_ms} ms ({min_place}), is above the highest, {max_ms} ms \
         ({max_place}): change one of them"
    )]
    SessionTimeouts {
        min_ms: u32,
        min_place: Place,
        max_ms: u32,
        max_place: Place,
    },
    #[error(
        "{place}: {bytes} bytes is less than the longest frame, {frame_bytes} bytes \
             ({frame_place}), so such a request could never be served: raise the one or lower the \
             other"
    )]
    BelowFrame {
        place: Place,
        bytes: u64,
        frame_bytes: u32,
        frame_place: Place,
    },
    #[error("{}: {reason}", path.display())]
    MyId { path: PathBuf, reason: String },
}

/// Something in a configuration that has no effect, or not the one it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    pub place: Place,
    pub note: Note,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Neither ZooKeeper's nor ours, as far as we know.
    UnknownKey,
    /// A key of ZooKeeper's that changes nothing here, and why.
    NoEffect(&'static str),
    /// Set again further down, which counts.
    Duplicate { later_line: usize },
    /// Out of bounds, in a way that ZooKeeper mends as well.
    Adjusted { to: u64, why: &'static str },
    /// It works, and something else would be better.
    Advice(String),
    /// Two places disagree, and ZooKeeper goes on.
    Disagreement(String),
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        match &self.note {
            Note::UnknownKey => write!(f, "{place}: unknown key, ignored"),
            Note::NoEffect(why) => write!(f, "{place}: no effect: {why}"),
            Note::Duplicate { later_line } => {
                write!(f, "{place}: ignored, set again on line {later_line}")
            }
            Note::Adjusted { to, why } => write!(f, "{place}: using {to}: {why}"),
            Note::Advice(what) | Note::Disagreement(what) => write!(f, "{place}: {what}"),
        }
    }
}

/// Text from a file, fit for one line of a message: escaped and cut to a readable length.
pub(super) fn quotable(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut quoted: String = text
        .chars()
        .take(CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        quoted.push_str("...");
    }
    quoted
}
