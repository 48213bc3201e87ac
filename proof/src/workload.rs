//! What a server's storage goes through in a long life, made up from a seed.
//!
//! The engine's rules are kept: a vote is waited for, a new term is voted for before its entries
//! come, entries are dropped only behind what is committed, and what is purged is in a snapshot that
//! counts. The requests are real ones, and the state they lead to is kept beside, for the oracle. Time
//! is virtual and everything runs on one thread: one seed is one life, to the last write.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_protocol::request::{Create, Delete, SetData};
use quorate_protocol::{AclEntry, Password, SessionId};
use quorate_server::consensus::types::StoredMembership;
use quorate_server::offline::{ZxidBase, replay};
use quorate_server::storage::file::Disk;
use quorate_server::storage::log::{Completion, EntryId, Log, LogEntry, SavedVote};
use quorate_server::storage::snapshots::{SnapshotInfo, SnapshotStore};
use quorate_server::storage::{DataDir, StorageError};
use quorate_state::{Action, Command, Connection, Origin, Rules, State, Write};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use crate::oracle::{Moment, Oracle, Window, link};
use crate::start::{IDENTITY, folder, judge, start};
use crate::tape::{Counts, Faults, Image, Note, Op, TapeDisk, place};

/// Snapshots that stay, as many as a server keeps at least.
const SNAPSHOTS_KEPT: usize = 3;
/// Kinds of entries in the log.
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
/// Few paths, so that the state stays small and snapshots quick.
const PATHS: u32 = 40;
/// How long the log must have nothing to do before it seals itself, and a bit.
const IDLE: Duration = Duration::from_millis(150);

/// A life that was lived.
pub struct Life {
    /// Everything that was done to the disk, with what was known when.
    pub ops: Vec<Op>,
    pub oracle: Oracle,
    /// What was done how often.
    pub tally: Tally,
    pub counts: Counts,
    /// What reads see in the end.
    pub image: Image,
    /// What is known in the end.
    pub window: Window,
    /// Whether the storage failed before the end, as with a failing disk it must.
    pub failure: Option<StorageError>,
}

/// How often each thing was done: a life without one of them proves nothing about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub appends: u64,
    pub entries: u64,
    pub votes: u64,
    pub truncations: u64,
    pub commits: u64,
    pub snapshots: u64,
    pub installs: u64,
    pub purges: u64,
    pub closes: u64,
    pub kills: u64,
    pub idles: u64,
}

impl Tally {
    /// What never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        [
            (self.appends, "appends"),
            (self.votes, "votes"),
            (self.truncations, "truncations"),
            (self.commits, "commits"),
            (self.snapshots, "snapshots"),
            (self.installs, "installed snapshots"),
            (self.purges, "purges"),
            (self.closes, "orderly stops"),
            (self.kills, "kills"),
            (self.idles, "idle times"),
        ]
        .into_iter()
        .filter_map(|(count, what)| (count == 0).then_some(what))
        .collect()
    }
}

/// What a life must not meet.
pub type Violation = String;

/// One entry of the current branch of the log.
struct Held {
    entry: LogEntry,
    /// Of all entries up to this one.
    chain: u64,
    /// How many commands of the session there are up to this one.
    commands: u64,
}

struct Worker {
    disk: TapeDisk,
    random: SmallRng,
    oracle: Oracle,
    tally: Tally,
    /// `None` while it is down.
    storage: Option<Storage>,
    /// The log as it was asked to be, from index 0 on. What was purged is there as well.
    branch: Vec<Held>,
    /// What the ensemble has committed: the log must come to hold it.
    canon: Vec<LogEntry>,
    /// The state after the last committed entry.
    state: State,
    term: u64,
    /// What was asked for and is not waited for yet.
    pending: Vec<oneshot::Receiver<Result<(), StorageError>>>,
}

struct Storage {
    log: Arc<Log>,
    snapshots: SnapshotStore,
    _folders: DataDir,
}

/// Why a life ends early.
enum End {
    Failed(StorageError),
    Wrong(Violation),
}

impl From<StorageError> for End {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

/// Lives a life of so many operations. Must run on a simulated host.
///
/// # Errors
///
/// [`Violation`]: what was found after a restart, or a failure that nobody has injected.
pub async fn live(seed: u64, operations: u64, faults: Faults) -> Result<Life, Violation> {
    let disk = TapeDisk::new(&Image::new(), Window::default(), true);
    disk.set_faults(faults);
    let may_fail = faults.any();
    let mut worker = Worker::new(disk, seed);
    let mut ended = worker.start();
    for _ in 0..operations {
        if ended.is_err() {
            break;
        }
        ended = worker.step().await;
    }
    if ended.is_ok() {
        ended = worker.wait_for_all().await;
    }
    let failure = match ended {
        Ok(()) => None,
        Err(End::Failed(error)) if may_fail => Some(error),
        Err(End::Failed(error)) => return Err(format!("storage fails: {error}")),
        Err(End::Wrong(what)) => return Err(what),
    };
    worker.stop().await;
    Ok(Life {
        ops: worker.disk.take_ops(),
        oracle: worker.oracle,
        tally: worker.tally,
        counts: worker.disk.counts(),
        image: worker.disk.image(),
        window: worker.disk.window(),
        failure,
    })
}

impl Worker {
    fn new(disk: TapeDisk, seed: u64) -> Self {
        Self {
            disk,
            random: SmallRng::seed_from_u64(seed),
            oracle: Oracle {
                moments: vec![Moment::default()],
                ..Oracle::default()
            },
            tally: Tally::default(),
            storage: None,
            branch: Vec::new(),
            canon: Vec::new(),
            state: State::new(),
            term: 0,
            pending: Vec::new(),
        }
    }

    async fn step(&mut self) -> Result<(), End> {
        // Now and then the log's workers get on with what they have to do.
        for _ in 0..self.random.random_range(0..4) {
            tokio::task::yield_now().await;
        }
        match self.random.random_range(0..1000) {
            0..600 => self.append().await,
            600..680 => self.burst().await,
            680..740 => self.vote().await,
            740..870 => self.commit(),
            870..920 => self.overrule().await,
            920..950 => self.take_snapshot().await,
            950..960 => self.install_snapshot().await,
            960..970 => self.close().await,
            970..980 => self.kill().await,
            _ => self.rest().await,
        }
    }

    // What is asked of the log, and what it is after that.

    fn log(&self) -> &Arc<Log> {
        &self.storage.as_ref().expect("it was started").log
    }

    fn snapshots(&self) -> &SnapshotStore {
        &self.storage.as_ref().expect("it was started").snapshots
    }

    fn now(&self) -> Moment {
        *self.oracle.moments.last().expect("there is a first moment")
    }

    /// The log is about to be asked for a change, after which it is like this.
    fn ask(&mut self, moment: Moment) -> usize {
        self.oracle.moments.push(moment);
        let number = self.oracle.moments.len() - 1;
        self.disk.note(Note::Asked(number));
        number
    }

    fn committed(&self) -> Option<u64> {
        self.canon.last().map(|entry| entry.id.index)
    }

    fn last(&self) -> Option<u64> {
        self.branch.last().map(|held| held.entry.id.index)
    }

    /// A completion that notes on the tape, at once, that all up to now is durable.
    fn completion(&mut self) -> Box<dyn Completion> {
        let number = self.oracle.moments.len() - 1;
        let disk = self.disk.clone();
        let (done, receiver) = oneshot::channel();
        self.pending.push(receiver);
        Box::new(move |outcome: Result<(), StorageError>| {
            if outcome.is_ok() {
                disk.note(Note::Durable(number));
            }
            // Whoever waited may have gone.
            let _ = done.send(outcome);
        })
    }

    fn append_entries(&mut self, entries: Vec<LogEntry>) -> Result<(), End> {
        for entry in &entries {
            let before = self.branch.last();
            let chain = link(before.map_or(0, |held| held.chain), entry);
            let commands = before.map_or(0, |held| held.commands) + u64::from(entry.kind == NORMAL);
            self.branch.push(Held {
                entry: entry.clone(),
                chain,
                commands,
            });
            let moment = Moment {
                last: Some(entry.id),
                chain,
                ..self.now()
            };
            self.ask(moment);
        }
        self.tally.appends += 1;
        self.tally.entries += entries.len() as u64;
        let done = self.completion();
        Ok(self.log().append(entries, done)?)
    }

    fn truncate_after(&mut self, keep: Option<u64>) -> Result<(), End> {
        let now = self.now();
        let keep = keep.max(now.purged.map(|purged| purged.index));
        if self.last() <= keep {
            return Ok(());
        }
        self.branch.truncate(keep.map_or(0, |keep| place(keep) + 1));
        let held = self.branch.last();
        let moment = Moment {
            last: held.map(|held| held.entry.id),
            chain: held.map_or(0, |held| held.chain),
            ..now
        };
        self.ask(moment);
        self.tally.truncations += 1;
        Ok(self.log().truncate_after(moment.last)?)
    }

    /// `upto` is committed.
    fn purge(&mut self, upto: u64) -> Result<(), End> {
        let now = self.now();
        if now.purged.is_some_and(|purged| purged.index >= upto) {
            return Ok(());
        }
        self.follow_canon(upto);
        let held = &self.branch[place(upto)];
        let id = held.entry.id;
        let purged = Some(id);
        let (chain_purged, mut moment) = (held.chain, now);
        moment.purged = purged;
        moment.chain_purged = chain_purged;
        if now.last.is_none_or(|last| last.index <= upto) {
            moment.last = purged;
            moment.chain = chain_purged;
        }
        self.ask(moment);
        self.tally.purges += 1;
        Ok(self.log().purge(id)?)
    }

    /// Up to `upto`, what was purged counts as what the ensemble has committed.
    fn follow_canon(&mut self, upto: u64) {
        while self.last() < Some(upto) {
            let entry = self.canon[self.branch.len()].clone();
            let before = self.branch.last();
            let chain = link(before.map_or(0, |held| held.chain), &entry);
            let commands = before.map_or(0, |held| held.commands) + u64::from(entry.kind == NORMAL);
            self.branch.push(Held {
                entry,
                chain,
                commands,
            });
        }
    }

    /// The ensemble has committed the next entry.
    fn commit_entry(&mut self, entry: LogEntry) {
        let index = entry.id.index;
        replay::apply(&mut self.state, ZxidBase::new(0), &entry).expect("it was encoded here");
        self.oracle.digests.insert(index, self.state.digest());
        self.oracle.terms.insert(index, entry.id.term);
        self.canon.push(entry);
    }

    async fn wait_for_all(&mut self) -> Result<(), End> {
        for pending in std::mem::take(&mut self.pending) {
            match pending.await {
                Ok(outcome) => outcome?,
                Err(_) => return Err(End::Wrong("a completion was never called".to_owned())),
            }
        }
        Ok(())
    }

    /// Sometimes at once, sometimes later.
    async fn wait_perhaps(&mut self) -> Result<(), End> {
        if self.random.random_range(0..10) < 6 || self.pending.len() > 8 {
            self.wait_for_all().await?;
        }
        Ok(())
    }

    // What the engine does.

    async fn append(&mut self) -> Result<(), End> {
        if self.term == 0 {
            self.vote().await?;
        }
        let count = self.random.random_range(1..6);
        let entries = self.make_entries(count);
        self.append_entries(entries)?;
        self.wait_perhaps().await
    }

    /// More than one batch takes, in one go.
    async fn burst(&mut self) -> Result<(), End> {
        if self.term == 0 {
            return self.vote().await;
        }
        for _ in 0..self.random.random_range(2..6) {
            let count = self.random.random_range(1..4);
            let entries = self.make_entries(count);
            self.append_entries(entries)?;
            if self.random.random_range(0..4) == 0 {
                self.commit()?;
            }
        }
        self.wait_perhaps().await
    }

    async fn vote(&mut self) -> Result<(), End> {
        let vote = if self.random.random_range(0..3) == 0 && self.term > 0 {
            // The same one again, won.
            SavedVote {
                committed: true,
                ..self.now().vote.expect("a term was voted in")
            }
        } else {
            self.term += self.random.random_range(1..3);
            SavedVote {
                term: self.term,
                server: self.random.random_range(1..4),
                committed: self.random.random(),
            }
        };
        self.save_vote(vote).await
    }

    async fn save_vote(&mut self, vote: SavedVote) -> Result<(), End> {
        let moment = Moment {
            vote: Some(vote),
            ..self.now()
        };
        self.ask(moment);
        let done = self.completion();
        self.log().save_vote(vote, done)?;
        self.tally.votes += 1;
        // The engine waits for each vote.
        self.wait_for_all().await
    }

    fn commit(&mut self) -> Result<(), End> {
        let Some(last) = self.last() else {
            return Ok(());
        };
        let next = self.committed().map_or(0, |committed| committed + 1);
        if next > last {
            return Ok(());
        }
        let upto = self.random.random_range(next..=last);
        for index in next..=upto {
            let entry = self.branch[place(index)].entry.clone();
            self.commit_entry(entry);
        }
        self.disk.note(Note::Committed(upto));
        let id = self.branch[place(upto)].entry.id;
        self.tally.commits += 1;
        Ok(self.log().save_committed(Some(id))?)
    }

    /// Another leader, which has not all that this log has.
    async fn overrule(&mut self) -> Result<(), End> {
        let (Some(last), committed) = (self.last(), self.committed()) else {
            return Ok(());
        };
        if Some(last) <= committed {
            return Ok(());
        }
        self.term += 1;
        let vote = SavedVote {
            term: self.term,
            server: 2,
            committed: true,
        };
        self.save_vote(vote).await?;
        let from = committed.map_or(0, |committed| committed + 1);
        let first = self.random.random_range(from..=last);
        self.truncate_after(first.checked_sub(1))?;
        let count = self.random.random_range(1..4);
        let entries = self.make_entries(count);
        self.append_entries(entries)?;
        self.wait_perhaps().await
    }

    async fn take_snapshot(&mut self) -> Result<(), End> {
        let Some(committed) = self.committed() else {
            return Ok(());
        };
        if self.disk.window().snapshot >= Some(committed) {
            return Ok(());
        }
        let contents = self.snapshot_contents();
        let mut writer = self.snapshots().begin(self.snapshot_info())?;
        for piece in contents.chunks(1500) {
            if let Err(error) = writer.write_all(piece) {
                let failure = writer.failure().cloned();
                return Err(failure.map_or(End::Wrong(error.to_string()), End::Failed));
            }
            tokio::task::yield_now().await;
        }
        writer.finish()?;
        self.disk.note(Note::Snapshot(committed));
        self.tally.snapshots += 1;
        tokio::task::yield_now().await;
        if let Some(oldest) = self.snapshots().purge(SNAPSHOTS_KEPT)? {
            self.purge(oldest.index)?;
        }
        Ok(())
    }

    fn snapshot_info(&self) -> SnapshotInfo {
        let membership = rmp_serde::to_vec(&StoredMembership::default());
        SnapshotInfo {
            last: self.canon.last().map(|entry| entry.id),
            membership: membership.expect("a membership encodes"),
        }
    }

    fn snapshot_contents(&self) -> Vec<u8> {
        let mut contents = Vec::new();
        let written = self.state.view().write(&mut contents);
        written.expect("writing to memory does not fail");
        contents
    }

    /// A leader sends a snapshot that goes further than what is committed here.
    async fn install_snapshot(&mut self) -> Result<(), End> {
        self.wait_for_all().await?;
        let committed = self.committed();
        let next = committed.map_or(0, |committed| committed + 1);
        let ours = self.last().filter(|last| *last >= next);
        if let Some(last) = ours.filter(|_| self.random.random_range(0..3) == 0) {
            // It has what this log has, up to somewhere.
            for index in next..=self.random.random_range(next..=last) {
                let entry = self.branch[place(index)].entry.clone();
                self.commit_entry(entry);
            }
        } else {
            self.term += 1;
            let vote = SavedVote {
                term: self.term,
                server: 3,
                committed: true,
            };
            self.save_vote(vote).await?;
            // As the leader has it, behind what is committed.
            let ours = self.branch.split_off(place(next).min(self.branch.len()));
            let count = self.random.random_range(1..20);
            for entry in self.make_entries(count) {
                self.commit_entry(entry);
            }
            self.branch.extend(ours);
        }
        let bytes = self.sent_snapshot()?;
        let mut receiver = self.snapshots().receive()?;
        for piece in bytes.chunks(1000) {
            receiver.write(piece)?;
            tokio::task::yield_now().await;
        }
        receiver.finish()?;
        let last = self.canon.last().expect("it has an entry").id;
        self.disk.note(Note::Snapshot(last.index));
        self.tally.installs += 1;
        let found = self.branch.get(place(last.index));
        if found.is_some_and(|held| held.entry.id != last) {
            self.truncate_after(committed)?;
        }
        // The engine loads the state in between.
        tokio::task::yield_now().await;
        let held = self.branch.get(place(last.index));
        if held.is_none() {
            // What is left of another branch goes with the purge.
            self.branch.truncate(place(next));
        }
        self.purge(last.index)
    }

    /// A snapshot file as another server has it.
    fn sent_snapshot(&self) -> Result<Vec<u8>, End> {
        let disk = TapeDisk::new(&Image::new(), Window::default(), false);
        let there: Arc<dyn Disk> = Arc::new(disk);
        there
            .create_folder(folder())
            .map_err(|error| End::Wrong(error.to_string()))?;
        let store = SnapshotStore::open(there, folder(), IDENTITY.cluster)?;
        let mut writer = store.begin(self.snapshot_info())?;
        let written = writer.write_all(&self.snapshot_contents());
        written.map_err(|error| End::Wrong(error.to_string()))?;
        let file = writer.finish()?;
        let mut bytes = vec![0; place(file.length())];
        let mut at = 0;
        while at < bytes.len() {
            at += file.read_at(&mut bytes[at..], at as u64)?;
        }
        Ok(bytes)
    }

    async fn close(&mut self) -> Result<(), End> {
        self.wait_for_all().await?;
        Arc::clone(self.log()).finish().await?;
        self.tally.closes += 1;
        self.stop().await;
        self.start()
    }

    /// The process ends where it is; what it has written stays, synced or not.
    async fn kill(&mut self) -> Result<(), End> {
        self.tally.kills += 1;
        self.stop().await;
        self.start()
    }

    async fn rest(&mut self) -> Result<(), End> {
        self.wait_for_all().await?;
        self.tally.idles += 1;
        tokio::time::sleep(IDLE).await;
        Ok(())
    }

    async fn stop(&mut self) {
        self.storage = None;
        // The log's workers notice, and end.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.pending.clear();
    }

    /// Starts, checks what is found, and goes on as the engine would.
    fn start(&mut self) -> Result<(), End> {
        let mut started = start(Arc::new(self.disk.clone()))?;
        let window = self.disk.window();
        let number = judge(&self.oracle, &window, &mut started).map_err(End::Wrong)?;
        let mut moment = self.oracle.moments[number];
        self.oracle.moments.push(moment);
        self.disk.note(Note::Initialized);
        self.disk.note(Note::Found(self.oracle.moments.len() - 1));
        let keep = moment.last.map_or(0, |last| place(last.index) + 1);
        self.rebuild(keep, &started.entries);
        let (overruled, applied) = (started.overruled, started.applied);
        self.storage = Some(Storage {
            log: started.log,
            snapshots: started.snapshots,
            _folders: started.folders,
        });
        if let Some(keep) = overruled {
            // `start` has asked for it.
            self.branch
                .truncate(keep.map_or(0, |keep| place(keep.index) + 1));
            let held = self.branch.last();
            moment.last = held.map(|held| held.entry.id);
            moment.chain = held.map_or(0, |held| held.chain);
            self.ask(moment);
        }
        if let Some(applied) = applied
            && self.last() < Some(applied.index)
        {
            let agreed = self.agreed();
            self.branch.truncate(agreed);
            self.purge(applied.index)?;
        }
        self.catch_up()
    }

    /// The log as it was found: up to what is purged it is what was committed.
    fn rebuild(&mut self, length: usize, entries: &[LogEntry]) {
        let first = entries
            .first()
            .map_or(length, |entry| place(entry.id.index));
        self.branch.clear();
        for index in 0..length {
            let entry = match index.checked_sub(first) {
                Some(at) => entries[at].clone(),
                None => self.canon[index].clone(),
            };
            let before = self.branch.last();
            let chain = link(before.map_or(0, |held| held.chain), &entry);
            let commands = before.map_or(0, |held| held.commands) + u64::from(entry.kind == NORMAL);
            self.branch.push(Held {
                entry,
                chain,
                commands,
            });
        }
    }

    /// What the ensemble has committed and this log has not comes again from the leader, in place of
    /// what else is there.
    fn catch_up(&mut self) -> Result<(), End> {
        let agreed = self.agreed();
        if agreed >= self.canon.len() {
            return Ok(());
        }
        self.truncate_after(agreed.checked_sub(1).map(|last| last as u64))?;
        let missing = self.canon[agreed..].to_vec();
        self.append_entries(missing)
    }

    /// How many entries are as the ensemble has committed them.
    fn agreed(&self) -> usize {
        let both = self.branch.iter().zip(&self.canon);
        both.take_while(|(held, entry)| held.entry.id == entry.id)
            .count()
    }

    // What clients ask for.

    fn make_entries(&mut self, count: u64) -> Vec<LogEntry> {
        let first = self.branch.len() as u64;
        let mut commands = self.branch.last().map_or(0, |held| held.commands);
        let mut session = self
            .branch
            .iter()
            .find(|held| held.entry.kind == NORMAL)
            .map(|held| held.entry.id.index);
        (first..first + count)
            .map(|index| {
                let id = EntryId {
                    term: self.term.max(1),
                    index,
                };
                if self.random.random_range(0..12) == 0 {
                    return LogEntry {
                        id,
                        kind: BLANK,
                        payload: Bytes::new(),
                    };
                }
                let action = match session {
                    None => {
                        session = Some(index);
                        Action::OpenSession {
                            timeout_ms: 4000,
                            password: Password::default(),
                        }
                    }
                    Some(opened) => self.make_write(opened),
                };
                let command = Command {
                    time_ms: i64::try_from(index).unwrap_or(0),
                    origin: Origin {
                        connection: Connection {
                            server: 1,
                            number: 1,
                        },
                        sequence: commands,
                    },
                    rules: Rules::default(),
                    action,
                };
                commands += 1;
                LogEntry {
                    id,
                    kind: NORMAL,
                    payload: command.encode(0).expect("a command encodes"),
                }
            })
            .collect()
    }

    fn make_write(&mut self, opened: u64) -> Action {
        // As the state makes ids: the server, and the zxid that opened the session.
        let zxid = i64::try_from(opened).unwrap_or(0);
        let session = SessionId::new((1 << 56) | zxid).expect("it is not zero");
        let path = format!("/n{}", self.random.random_range(0..PATHS));
        let data = Some(self.make_data());
        let version = -1;
        let write = match self.random.random_range(0..10) {
            0..4 => Write::Create(Create {
                path,
                data,
                acl: vec![AclEntry::open()],
                flags: self.random.random_range(0..3),
            }),
            4..8 => Write::SetData(SetData {
                path,
                data,
                version,
            }),
            _ => Write::Delete(Delete { path, version }),
        };
        Action::Write {
            session,
            identities: Arc::new([]),
            write,
        }
    }

    /// Short most of the time; and what could be taken for free space or for a batch.
    fn make_data(&mut self) -> Bytes {
        let length = match self.random.random_range(0..100) {
            0..70 => self.random.random_range(0..60),
            70..95 => self.random.random_range(60..700),
            95..99 => self.random.random_range(700..3000),
            _ => 10_000,
        };
        match self.random.random_range(0..6) {
            0 => vec![0; length],
            1 => b"QrBa"
                .iter()
                .copied()
                .cycle()
                .take(length)
                .collect::<Vec<u8>>(),
            _ => (0..length).map(|_| self.random.random()).collect(),
        }
        .into()
    }
}
