//! Log entries as JSON, one a line, in the words of the checker's histories: what is printed can be
//! appended to a history as its log.

use std::io::{self, Write};

use quorate_checker::history;
use quorate_protocol::Zxid;
use quorate_server::offline::ZxidBase;
use quorate_server::offline::replay::{self, Contents};
use quorate_server::storage::log::LogEntry;
use serde::Serialize;

/// One line of a history.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Log,
    Entry(&'a history::LogEntry),
}

/// Says that entries follow, even if none does.
pub(super) fn begin(out: &mut dyn Write) -> io::Result<()> {
    write(&Line::Log, out)
}

pub(super) fn entry(entry: &LogEntry, zxids: ZxidBase, out: &mut dyn Write) -> io::Result<()> {
    let zxid: Zxid = zxids.zxid(entry.id.index);
    let term = entry.id.term;
    let entry = match replay::read(entry) {
        Ok(Contents::Command(command)) => history::LogEntry::of_command(zxid, term, *command),
        Ok(Contents::Membership {
            configuration: Some(configuration),
            ..
        }) => history::LogEntry::of_configuration(zxid, term, &configuration),
        Ok(Contents::Blank | Contents::Membership { .. }) => history::LogEntry::blank(zxid, term),
        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    };
    write(&Line::Entry(&entry), out)
}

/// Any record, as an object with its kind for a name.
pub(super) fn record(record: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    write(record, out)
}

fn write(record: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}
