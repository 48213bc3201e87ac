//! Following who leads, without standing for election.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_core::Stream;
use quorate_client::watch::Watcher;
use quorate_client::{Reason, SessionState};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::contenders::Contenders;
use crate::directory::refuse_strangers;
use crate::lease::FencingToken;
use crate::record::Record;
use crate::{Error, revocation};

/// Events that wait for a reader. Beyond, nothing is read from the server until the reader has caught
/// up; then it is told what is so by then.
const EVENTS_MAX: usize = 16;
/// The pause before what has failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// What it calls itself.
    pub identity: String,
    /// What it has proclaimed.
    pub value: Option<String>,
    /// Its term's token; `None` for a leader of another library, which has none.
    pub token: Option<FencingToken>,
    /// Since when, by its own wall clock.
    pub since: Option<SystemTime>,
    /// How often leadership has gone from one identity to another.
    pub transitions: u64,
    /// The name of its znode.
    pub node: String,
}

/// What becomes of the leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaderEvent {
    /// This one leads now.
    Elected(Leader),
    /// The same leader has proclaimed something else.
    Proclaimed(Leader),
    /// Nobody leads.
    Vacant,
    /// There is no connection to a server: the last that was known may be no longer so.
    Unknown,
}

/// Follows who leads: first what is so now, then every change. What changes while the reader is busy may
/// be told as one; the last is never missed. Ends with the session, if there will be no other.
#[derive(Debug)]
pub struct LeaderEvents {
    events: mpsc::Receiver<Result<LeaderEvent, Error>>,
    _task: DropGuard,
}

impl LeaderEvents {
    pub(super) fn new(line: &Contenders, is_mixed: bool) -> Self {
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let ended = tokio_util::sync::CancellationToken::new();
        let observer = Observer {
            line: line.clone(),
            is_mixed,
            tell,
            last: None,
        };
        let is_ended = ended.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = is_ended.cancelled() => {}
                () = observer.run() => {}
            }
        });
        Self {
            events,
            _task: ended.drop_guard(),
        }
    }

    /// The next event; `None` when there will be none. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`]; those of a server that refuses. They are the last.
    pub async fn next(&mut self) -> Option<Result<LeaderEvent, Error>> {
        self.events.recv().await
    }
}

impl Stream for LeaderEvents {
    type Item = Result<LeaderEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(context)
    }
}

struct Observer {
    line: Contenders,
    is_mixed: bool,
    tell: mpsc::Sender<Result<LeaderEvent, Error>>,
    last: Option<LeaderEvent>,
}

/// Who leads, and what tells that this may have changed.
struct Seen {
    leader: Option<Leader>,
    changes: Vec<Watcher>,
}

impl Observer {
    async fn run(mut self) {
        let mut states = self.line.client.states();
        let mut state = states.current();
        loop {
            if state.is_connected() {
                let seen = tokio::select! {
                    seen = self.look() => seen,
                    next = states.next() => match next {
                        Some(next) => {
                            state = next;
                            continue;
                        }
                        None => return,
                    },
                };
                match seen {
                    Ok(seen) => {
                        self.say(seen.leader).await;
                        tokio::select! {
                            () = any(seen.changes) => {}
                            next = states.next() => match next {
                                Some(next) => state = next,
                                None => return,
                            },
                        }
                    }
                    // The directory may vanish between two reads.
                    Err(Error::Client(error))
                        if error.is_retryable()
                            || error.needs_new_session()
                            || error.is(Reason::NoNode) =>
                    {
                        tokio::time::sleep(PAUSE).await;
                        state = states.current();
                        if state.is_over() {
                            match states.next().await {
                                Some(next) => state = next,
                                None => return,
                            }
                        }
                    }
                    Err(error) => {
                        self.tell.send(Err(error)).await.ok();
                        return;
                    }
                }
            } else {
                if self.last != Some(LeaderEvent::Unknown) && state != SessionState::Connecting {
                    self.send(LeaderEvent::Unknown).await;
                }
                match states.next().await {
                    Some(next) => state = next,
                    None => return,
                }
            }
        }
    }

    async fn say(&mut self, leader: Option<Leader>) {
        let event = match (leader, &self.last) {
            (None, Some(LeaderEvent::Vacant)) => return,
            (None, _) => LeaderEvent::Vacant,
            (Some(leader), Some(LeaderEvent::Elected(known) | LeaderEvent::Proclaimed(known)))
                if known.node == leader.node && known.token == leader.token =>
            {
                if known.value == leader.value {
                    return;
                }
                LeaderEvent::Proclaimed(leader)
            }
            (Some(leader), _) => LeaderEvent::Elected(leader),
        };
        self.send(event).await;
    }

    async fn send(&mut self, event: LeaderEvent) {
        self.last = Some(event.clone());
        self.tell.send(Ok(event)).await.ok();
    }

    /// Reads who leads. The record's znode and the leader's are watched, and nothing that the other
    /// candidates do wakes an observer; only where a leader may write no record, they all do.
    async fn look(&self) -> Result<Seen, Error> {
        let client = &self.line.client;
        let mut changes = Vec::new();
        // It may not exist yet: its creation is a change as well.
        let (exists, created) = client.exists(&self.line.path).watch().await?;
        if exists.is_none() {
            return Ok(Seen {
                leader: None,
                changes: vec![created],
            });
        }
        let ((data, stat), changed) = client.get(&self.line.path).watch().await?;
        changes.push(changed);
        refuse_strangers(&self.line.path, &data, self.line.kind)?;
        let record = Record::parse(self.line.kind, &data);
        if record.is_taken() {
            let (found, gone) = client
                .exists(&self.line.child(&record.node))
                .watch()
                .await?;
            if found.is_some() {
                changes.push(gone);
                let token = FencingToken(record.token(stat.mzxid.0));
                return Ok(Seen {
                    leader: Some(recorded(record, token)),
                    changes,
                });
            }
        }
        if self.is_mixed {
            let (_, joined) = client.children(&self.line.path).watch().await?;
            changes.push(joined);
            return Ok(Seen {
                leader: unrecorded(&self.line, &record).await?,
                changes,
            });
        }
        Ok(Seen {
            leader: None,
            changes,
        })
    }
}

fn recorded(record: Record, token: FencingToken) -> Leader {
    let since = record.acquire_time.as_deref();
    Leader {
        identity: record.holder_identity,
        value: record.value,
        token: Some(token),
        since: since.and_then(|since| humantime::parse_rfc3339(since).ok()),
        transitions: record.leader_transitions,
        node: record.node,
    }
}

/// The first in line, if it is of another library. Of ours, who leads is on record.
async fn unrecorded(line: &Contenders, record: &Record) -> Result<Option<Leader>, Error> {
    let holder = line.holder().await?;
    let holder = holder.filter(|holder| !revocation::is_ours(&holder.node));
    Ok(holder.map(|holder| Leader {
        identity: holder.identity,
        value: None,
        token: holder.token,
        since: None,
        transitions: record.leader_transitions,
        node: holder.node,
    }))
}

/// See [`super::Election::leader`].
pub(super) async fn leader(line: &Contenders, is_mixed: bool) -> Result<Option<Leader>, Error> {
    let Some(seen) = line.read_record().await? else {
        return Ok(None);
    };
    let names = line.read().await?;
    if seen.record.is_taken() && names.iter().any(|other| other.name == seen.record.node) {
        let token = seen.token();
        return Ok(Some(recorded(seen.record, token)));
    }
    match is_mixed {
        true => unrecorded(line, &seen.record).await,
        false => Ok(None),
    }
}

/// Resolves when the first of them does.
async fn any(mut watchers: Vec<Watcher>) {
    std::future::poll_fn(|context| {
        let mut polled = watchers
            .iter_mut()
            .map(|watcher| Pin::new(watcher).poll(context));
        match polled.any(|polled| polled.is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}
