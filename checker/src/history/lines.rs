//! A history as lines of JSON, one record each, so that a long run can write it as it goes and a
//! person can search it.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::{
    DigestAt, Fault, FinalTree, Grant, GuardedWrite, Header, History, Log, LogEntry, Operation,
    SessionRecord, WatchEvent,
};

/// One line, as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Header(Header),
    Operation(Operation),
    Event(WatchEvent),
    Session(SessionRecord),
    Fault(Fault),
    Mark(String, u64),
    Grant(Grant),
    Guarded(GuardedWrite),
    Digest(DigestAt),
    Tree(FinalTree),
    /// The log begins, even if it has no entry.
    Log,
    Entry(LogEntry),
}

/// The same as it is written, without copies.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LineRef<'a> {
    Header(&'a Header),
    Operation(&'a Operation),
    Event(&'a WatchEvent),
    Session(&'a SessionRecord),
    Fault(&'a Fault),
    Mark(&'a str, u64),
    Grant(&'a Grant),
    Guarded(&'a GuardedWrite),
    Digest(&'a DigestAt),
    Tree(&'a FinalTree),
    Log,
    Entry(&'a LogEntry),
}

/// A history that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("line {line} is no record of a history ({source}): record it again with this version")]
    Line {
        line: usize,
        source: serde_json::Error,
    },
    #[error("the history cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl History {
    /// Reads lines of JSON; empty lines are passed over.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: which line is wrong.
    pub fn read_from(from: impl BufRead) -> Result<Self, ReadError> {
        let mut history = Self::default();
        for (index, line) in from.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let record = serde_json::from_str(&line).map_err(|source| ReadError::Line {
                line: index + 1,
                source,
            })?;
            history.take(record);
        }
        Ok(history)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Header(header) => self.header = header,
            Line::Operation(operation) => self.operations.push(operation),
            Line::Event(event) => self.events.push(event),
            Line::Session(session) => self.sessions.push(session),
            Line::Fault(fault) => self.faults.push(fault),
            Line::Mark(name, count) => *self.marks.entry(name).or_default() += count,
            Line::Grant(grant) => self.grants.push(grant),
            Line::Guarded(write) => self.guarded.push(write),
            Line::Digest(digest) => self.digests.push(digest),
            Line::Tree(tree) => self.trees.push(tree),
            Line::Log => {
                self.log.get_or_insert_default();
            }
            Line::Entry(entry) => self.log.get_or_insert_default().entries.push(entry),
        }
    }

    /// Writes what [`History::read_from`] reads.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write_to(&self, mut to: impl Write) -> io::Result<()> {
        let mut write = |line: LineRef<'_>| -> io::Result<()> {
            serde_json::to_writer(&mut to, &line)?;
            to.write_all(b"\n")
        };
        write(LineRef::Header(&self.header))?;
        self.operations
            .iter()
            .try_for_each(|it| write(LineRef::Operation(it)))?;
        self.events
            .iter()
            .try_for_each(|it| write(LineRef::Event(it)))?;
        self.sessions
            .iter()
            .try_for_each(|it| write(LineRef::Session(it)))?;
        self.faults
            .iter()
            .try_for_each(|it| write(LineRef::Fault(it)))?;
        for (name, count) in &self.marks {
            write(LineRef::Mark(name, *count))?;
        }
        self.grants
            .iter()
            .try_for_each(|it| write(LineRef::Grant(it)))?;
        self.guarded
            .iter()
            .try_for_each(|it| write(LineRef::Guarded(it)))?;
        self.digests
            .iter()
            .try_for_each(|it| write(LineRef::Digest(it)))?;
        self.trees
            .iter()
            .try_for_each(|it| write(LineRef::Tree(it)))?;
        if let Some(Log { entries }) = &self.log {
            write(LineRef::Log)?;
            entries
                .iter()
                .try_for_each(|it| write(LineRef::Entry(it)))?;
        }
        to.flush()
    }

    /// How often a rare state was reached counts one more.
    pub fn mark(&mut self, name: &str) {
        match self.marks.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.marks.insert(name.to_owned(), 1);
            }
        }
    }
}
