//! What the servers' folders say once the servers have stopped, by the tools that operators have for it.

use std::io::{self, Cursor};
use std::process::Command;
use std::time::Duration;

use quorate_checker::History;
use quorate_checker::history::Log;
use quorate_tests::ensemble::Ensemble;
use quorate_tests::process::{Finished, run};
use quorate_tests::server::quorate_binary;

/// Far more than it takes to read what a run of seconds has written.
const LIMIT: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Default)]
pub(crate) struct Offline {
    /// All that was ever committed.
    pub(crate) log: Option<Log>,
    pub(crate) violations: Vec<String>,
}

/// Stops the servers in order and reads their folders.
pub(crate) fn read(ensemble: &mut Ensemble, keeps_log: bool) -> Offline {
    let mut found = Offline::default();
    for id in ensemble.ids() {
        match ensemble.stop(id) {
            Ok(status) if status.success() => {}
            Ok(status) => {
                let what = format!("server {id} was asked to stop and ended with {status}");
                found.violations.push(what);
            }
            Err(error) => {
                found
                    .violations
                    .push(format!("server {id} does not stop: {error}"));
                ensemble.kill(id);
            }
        }
    }
    for id in ensemble.ids() {
        let checked = quorate(&["check"], ensemble, &[id]);
        if let Err(error) = checked.and_then(succeeded) {
            found
                .violations
                .push(format!("quorate check of server {id}: {error}"));
        }
    }
    let ids = ensemble.ids();
    let merged = quorate(&["log", "merge", "--format", "json"], ensemble, &ids);
    match merged.and_then(succeeded) {
        Ok(done) if keeps_log => match History::read_from(Cursor::new(done.stdout)) {
            Ok(history) => found.log = history.log,
            Err(error) => found.violations.push(format!("the merged log: {error}")),
        },
        Ok(_) => {}
        Err(error) => found.violations.push(format!("quorate log merge: {error}")),
    }
    found
}

fn quorate(words: &[&str], ensemble: &Ensemble, ids: &[u64]) -> io::Result<Finished> {
    // An older server may have no such tools.
    let program = match std::env::var_os("QUORATE_TOOLS") {
        Some(path) => path.into(),
        None => quorate_binary()?,
    };
    let mut command = Command::new(program);
    command.args(words);
    command.args(ids.iter().map(|id| ensemble.data_dir(*id)));
    run(command, "", LIMIT)
}

fn succeeded(done: Finished) -> io::Result<Finished> {
    match done.success {
        true => Ok(done),
        false => Err(io::Error::other(format!(
            "exit code {:?}: {} {}",
            done.code,
            done.stdout.lines().take(20).collect::<Vec<_>>().join("; "),
            done.stderr
        ))),
    }
}
