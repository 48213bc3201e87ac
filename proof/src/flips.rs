//! Every bit of a sample data directory flipped, one at a time; every file cut at every length; every
//! sector lost.
//!
//! A start must then do one of two things: refuse and name the file, or find exactly what it would have
//! found. It must not panic, nor take its time. There is one exception, which the log's format has and
//! names: a whole sector of the very last batch that turns to zeros, as if it had never been written,
//! where the log had no time to seal itself; then exactly that batch may be missing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_server::offline::Folders;
use quorate_server::storage::StorageError;
use quorate_server::storage::log::{EntryId, LogEntry};
use tokio::sync::oneshot;

use crate::oracle::{Window, link};
use crate::start::{Started, folder, judge, start};
use crate::tape::{Faults, Image, TapeDisk};
use crate::workload::{Violation, live};
use crate::wreck::SECTOR;

/// A start of so small a directory takes a fraction of a millisecond; this is for a machine that has
/// other things to do.
const PATIENCE: Duration = Duration::from_secs(5);
/// Files up to this length are cut at every byte, longer ones at every sector.
const SHORT: usize = 4096;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub files: u64,
    pub bytes: u64,
    pub flips: u64,
    pub cuts: u64,
    pub lost_sectors: u64,
    /// Starts that were refused, with the name of the file.
    pub refused: u64,
    /// Starts that found what was there before.
    pub harmless: u64,
    /// Starts without the last batch, after a lost sector of it.
    pub without_last_batch: u64,
    pub violations: Vec<Violation>,
}

/// Which bits and places are tried: one in so many of each.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub seed: u64,
    pub operations: u64,
    pub one_in: usize,
    /// So many violations are told before it gives up.
    pub violations_max: usize,
}

/// Everything that must be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    log: quorate_server::storage::log::LogState,
    entries: u64,
    /// After all that is known to be committed.
    digest: u64,
    identity: Option<quorate_server::storage::Identity>,
}

/// Must run on a simulated host.
pub async fn run(sample: Sample) -> Outcome {
    let mut outcome = Outcome::default();
    let life = match live(sample.seed, sample.operations, Faults::default()).await {
        Ok(life) => life,
        Err(what) => {
            outcome.violations.push(what);
            return outcome;
        }
    };
    let found = attempt(&life.image).map_err(|what| format!("{what:?}"));
    let judged = found.and_then(|(mut started, _)| judge(&life.oracle, &life.window, &mut started));
    if let Err(what) = judged {
        outcome.violations.push(format!("unchanged: {what}"));
        return outcome;
    }
    let (killed, closed) = match leave(&life.image).await {
        Ok(left) => left,
        Err(what) => {
            outcome.violations.push(format!("going on: {what}"));
            return outcome;
        }
    };
    for (what, image) in [("killed", killed), ("closed", closed)] {
        let mut flipper = Flipper {
            what,
            outcome: &mut outcome,
            expected: None,
            violations_max: sample.violations_max,
        };
        flipper.run(&image, sample.one_in).await;
    }
    outcome
}

/// Adds an entry that is mostly zeros, which must not pass for free space. Returns what is left of a
/// server that is killed after that, and of one that is stopped in order.
async fn leave(image: &Image) -> Result<(Image, Image), String> {
    let disk = TapeDisk::new(image, Window::default(), false);
    let started = start(Arc::new(disk.clone())).map_err(|error| error.to_string())?;
    let last = started.log.state().last.unwrap_or_default();
    let entry = LogEntry {
        id: EntryId {
            term: last.term,
            index: last.index + 1,
        },
        kind: 0,
        payload: Bytes::from(vec![0; 3 * SECTOR]),
    };
    let (done, durable) = oneshot::channel();
    let tell = move |outcome: Result<(), StorageError>| {
        // Whoever waited may have gone.
        let _ = done.send(outcome);
    };
    let appended = started.log.append([entry], Box::new(tell));
    appended.map_err(|error| error.to_string())?;
    match durable.await {
        Ok(Ok(())) => {}
        other => return Err(format!("{other:?}")),
    }
    let killed = disk.image();
    Arc::clone(&started.log)
        .finish()
        .await
        .map_err(|error| error.to_string())?;
    Ok((killed, disk.image()))
}

struct Flipper<'a> {
    what: &'static str,
    outcome: &'a mut Outcome,
    expected: Option<Found>,
    violations_max: usize,
}

impl Flipper<'_> {
    async fn run(&mut self, image: &Image, one_in: usize) {
        self.expected = match attempt(image) {
            Ok((mut started, _)) => match replay(&mut started) {
                Ok(()) => Some(describe(&started)),
                Err(what) => {
                    return self.violation(format!("{}, unchanged: {what}", self.what));
                }
            },
            Err(what) => return self.violation(format!("{}, unchanged: {what:?}", self.what)),
        };
        let last = match last_batch(image) {
            Ok(last) => last,
            Err(error) => return self.violation(format!("{}: {error}", self.what)),
        };
        for (path, contents) in image {
            if self.outcome.violations.len() >= self.violations_max {
                return;
            }
            self.outcome.files += 1;
            self.outcome.bytes += contents.len() as u64;
            for place in (0..contents.len() * 8).step_by(one_in) {
                let mut changed = contents.to_vec();
                changed[place / 8] ^= 1 << (place % 8);
                let what = || format!("bit {} of byte {}", place % 8, place / 8);
                self.outcome.flips += 1;
                self.try_start(image, path, changed, what, None).await;
            }
            let step = if contents.len() <= SHORT { 1 } else { SECTOR };
            for length in (0..contents.len()).step_by(step).step_by(one_in.min(7)) {
                let changed = contents[..length].to_vec();
                self.outcome.cuts += 1;
                let what = || format!("cut at byte {length}");
                self.try_start(image, path, changed, what, None).await;
            }
            for sector in (0..contents.len() / SECTOR).step_by(one_in.min(7)) {
                let (start, end) = (sector * SECTOR, (sector + 1) * SECTOR);
                if contents[start..end].iter().all(|byte| *byte == 0) {
                    continue;
                }
                let mut changed = contents.to_vec();
                changed[start..end].fill(0);
                self.outcome.lost_sectors += 1;
                let is_of_last = last.path == *path && (last.start..last.end).contains(&start);
                let without = is_of_last.then_some(&last);
                let what = || format!("sector {sector} lost");
                self.try_start(image, path, changed, what, without).await;
            }
        }
    }

    async fn try_start(
        &mut self,
        image: &Image,
        path: &Path,
        changed: Vec<u8>,
        what: impl Fn() -> String,
        last: Option<&LastBatch>,
    ) {
        if self.outcome.violations.len() >= self.violations_max {
            return;
        }
        let mut damaged = image.clone();
        damaged.insert(path.to_owned(), Arc::new(changed));
        let place = || format!("{}, {}: {}", self.what, path.display(), what());
        match attempt(&damaged) {
            Ok((mut started, took)) => {
                let committed = replay(&mut started);
                let found = describe(&started);
                drop(started);
                if took > PATIENCE {
                    let place = place();
                    self.violation(format!("{place}: the start took {took:?}"));
                } else if let Err(what) = committed {
                    let place = place();
                    self.violation(format!("{place}: {what}"));
                } else if Some(&found) == self.expected.as_ref() {
                    self.outcome.harmless += 1;
                } else if last.is_some_and(|last| is_without(image, last, &found)) {
                    self.outcome.without_last_batch += 1;
                } else {
                    let place = place();
                    let expected = &self.expected;
                    self.violation(format!("{place}: found {found:?} instead of {expected:?}"));
                }
            }
            Err(Attempt::Refused(StorageError::Damaged { path: named, .. })) if named == path => {
                self.outcome.refused += 1;
            }
            Err(refused) => {
                let place = place();
                self.violation(format!("{place}: {refused:?}"));
            }
        }
        // The log's workers end.
        tokio::task::yield_now().await;
    }

    fn violation(&mut self, what: Violation) {
        if self.outcome.violations.len() < self.violations_max {
            self.outcome.violations.push(what);
        }
    }
}

#[derive(Debug)]
enum Attempt {
    Refused(StorageError),
    Panicked,
}

fn attempt(image: &Image) -> Result<(Started, Duration), Attempt> {
    let disk = TapeDisk::new(image, Window::default(), false);
    let began = Instant::now();
    let started = catch_unwind(AssertUnwindSafe(|| start(Arc::new(disk))));
    match started {
        Ok(Ok(started)) => Ok((started, began.elapsed())),
        Ok(Err(error)) => Err(Attempt::Refused(error)),
        Err(_) => Err(Attempt::Panicked),
    }
}

/// Applies what is known to be committed, from wherever the snapshot ends.
fn replay(started: &mut Started) -> Result<(), Violation> {
    crate::start::replay_committed(started)
}

fn describe(started: &Started) -> Found {
    let mut hasher = DefaultHasher::new();
    started.entries.iter().fold(0, link).hash(&mut hasher);
    Found {
        log: started.found,
        entries: hasher.finish(),
        digest: started.state.digest(),
        identity: started.folders.identity(),
    }
}

/// Where the batch is that was written last.
struct LastBatch {
    path: PathBuf,
    start: usize,
    end: usize,
}

fn last_batch(image: &Image) -> Result<LastBatch, StorageError> {
    let disk = TapeDisk::new(image, Window::default(), false);
    let mut last = LastBatch {
        path: PathBuf::new(),
        start: 0,
        end: 0,
    };
    Folders::on(Arc::new(disk), folder(), folder())?.scan(|batch| {
        let start = crate::tape::place(batch.offset);
        last = LastBatch {
            path: batch.path.clone(),
            start,
            end: start + crate::tape::place(batch.length),
        };
    })?;
    Ok(last)
}

/// Whether that was found which there is without the last batch.
fn is_without(image: &Image, last: &LastBatch, found: &Found) -> bool {
    let mut without = image.clone();
    if let Some(contents) = without.get_mut(&last.path) {
        Arc::make_mut(contents)[last.start..last.end].fill(0);
    }
    let Ok((mut started, _)) = attempt(&without) else {
        return false;
    };
    replay(&mut started).is_ok() && describe(&started) == *found
}
