//! The one task that sends this server's proposals to the leader, whoever that is.
//!
//! It begins an epoch whenever the leader changes or the way to it breaks; what that means is
//! explained in [`super::proposals`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{OptionalSend, ServerState};
use quorate_state::Action;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::proposals::{Next, Proposals};
use super::types::{Proposal, TypeConfig};
use super::{Author, Raft};
use crate::peer_port::{ForwardStream, Peers};

/// Between attempts to reach the leader, and after a refusal: a new leader refuses for as long as it
/// has not heard of its majority, which takes about a round trip.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The pause grows up to this while the same leader does not take what it is sent.
const PAUSE_MAX: Duration = Duration::from_millis(160);
/// How long the leader may take to accept a stream of writes.
const OPEN_PATIENCE: Duration = Duration::from_millis(500);
/// When nothing of what was sent has been applied for so long, the way is taken for broken. Well
/// beyond what a busy disk takes; to be wrong costs one marker.
const STALL: Duration = Duration::from_secs(3);

/// Who leads, as far as this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This server does, in this term.
    Mine { term: u64 },
    /// Another server does.
    Other { leader: u64, term: u64 },
    /// Nobody is known to.
    Unknown,
}

/// Who leads, as the engine sees it now.
pub(super) fn leadership(raft: &Raft, server: u64) -> Leadership {
    let metrics = raft.server_metrics();
    let now = metrics.borrow_watched();
    let term = now.vote.leader_id.term;
    match (now.state, now.current_leader) {
        (ServerState::Leader, _) => Leadership::Mine { term },
        (_, Some(leader)) if leader != server => Leadership::Other { leader, term },
        _ => Leadership::Unknown,
    }
}

/// Waits until somebody else leads than `known`. Returns `None` when the engine has ended. Cancel
/// safe.
pub(super) async fn leadership_after(
    raft: &Raft,
    server: u64,
    known: Leadership,
) -> Option<Leadership> {
    // Before the first look, so that no change is missed.
    let mut metrics = raft.server_metrics();
    loop {
        let now = leadership(raft, server);
        if now != known {
            return Some(now);
        }
        metrics.changed().await.ok()?;
    }
}

/// Tells that something sent on a way was refused.
#[derive(Debug, Default)]
pub struct Refusals {
    any: AtomicBool,
    told: Notify,
}

impl Refusals {
    fn note(&self) {
        self.any.store(true, Relaxed);
        self.told.notify_one();
    }

    /// Whether there was one.
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Resolves once there was one. Cancel safe.
    pub async fn first(&self) {
        while !self.any() {
            self.told.notified().await;
        }
    }
}

/// What the engine tells about a write when it is done with it. Success is of no interest: whoever
/// proposed it sees it applied.
pub struct OnRefusal<T> {
    refusals: Arc<Refusals>,
    is_refusal: fn(&T) -> bool,
}

impl<T: OptionalSend + 'static> openraft::raft::responder::Responder<TypeConfig, T>
    for OnRefusal<T>
{
    fn on_complete(self, result: T) {
        if (self.is_refusal)(&result) {
            self.refusals.note();
        }
    }
}

/// Hands a command to the engine, to be appended by the leader of `term` or by nobody.
///
/// # Errors
///
/// The engine has ended.
pub(super) async fn write(
    raft: &Raft,
    term: u64,
    command: Bytes,
    refusals: Option<&Arc<Refusals>>,
) -> Result<(), super::Stopped> {
    let request = raft.write(Proposal(command)).with_leader(term);
    let request = match refusals {
        Some(refusals) => request.responder(OnRefusal {
            refusals: Arc::clone(refusals),
            is_refusal: Result::is_err,
        }),
        None => request,
    };
    request.await.map_err(|_| super::Stopped)
}

/// Notices that nothing of what was sent comes to be applied.
struct Stall<'a> {
    proposals: &'a Proposals,
    looks: tokio::time::Interval,
    front: Option<(u64, u64)>,
}

impl<'a> Stall<'a> {
    fn begin(proposals: &'a Proposals) -> Self {
        Self {
            proposals,
            looks: tokio::time::interval(STALL),
            front: None,
        }
    }

    /// Resolves when the first of those under way was the same at two looks in a row. Cancel safe.
    async fn noticed(&mut self) {
        loop {
            self.looks.tick().await;
            let front = self.proposals.front();
            if front.is_some() && front == self.front {
                return;
            }
            self.front = front;
        }
    }
}

/// Sends proposals until stopped.
pub(super) struct Pump {
    pub(super) raft: Raft,
    pub(super) author: Author,
    pub(super) proposals: Arc<Proposals>,
    pub(super) peers: Peers,
}

/// How proposals get to the leader.
enum Way {
    /// This server leads.
    Here { term: u64, refusals: Arc<Refusals> },
    /// Another one does.
    There(ForwardStream),
}

impl Way {
    async fn send(&mut self, raft: &Raft, batch: Vec<Bytes>) -> Result<(), Left> {
        match self {
            Self::Here { term, refusals } => {
                let last = batch.len().saturating_sub(1);
                for (index, command) in batch.into_iter().enumerate() {
                    // One tells for all: what comes after a refusal in the same instant is refused
                    // too, or void.
                    let told = (index == last).then_some(&*refusals);
                    write(raft, *term, command, told)
                        .await
                        .map_err(|_| Left::Everything)?;
                }
                Ok(())
            }
            Self::There(stream) => stream.send(&batch).await.map_err(|_| Left::Way),
        }
    }

    /// Resolves when something sent was refused, or the stream has ended. Cancel safe.
    async fn broken(&mut self) {
        match self {
            Self::Here { refusals, .. } => refusals.first().await,
            Self::There(stream) => {
                let error = stream.ended().await;
                tracing::debug!(%error, "the leader has ended the stream");
            }
        }
    }
}

/// Why a way is not used any longer.
enum Left {
    /// Another has to be looked for.
    Way,
    /// The server is stopping.
    Everything,
}

impl Pump {
    pub(super) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.send_on() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn send_on(&self) {
        let mut pause = PAUSE_MIN;
        let mut before = Leadership::Unknown;
        loop {
            let now = leadership(&self.raft, self.author.server);
            if now != before {
                pause = PAUSE_MIN;
                before = now;
            }
            if let Some(way) = self.find_way(now).await {
                let begun = Instant::now();
                if matches!(self.send_by(now, way).await, Left::Everything) {
                    return;
                }
                // It was of use: what has broken it is something new.
                if begun.elapsed() > PAUSE_MAX {
                    pause = PAUSE_MIN;
                }
            }
            let changed = leadership_after(&self.raft, self.author.server, now);
            match now {
                // Nothing can be done before somebody leads.
                Leadership::Unknown => {
                    if changed.await.is_none() {
                        return;
                    }
                }
                // Not at once, unless it is another: a leader that is cut off refuses for long.
                _ => {
                    if let Ok(None) = tokio::time::timeout(pause, changed).await {
                        return;
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn find_way(&self, now: Leadership) -> Option<Way> {
        match now {
            Leadership::Mine { term } => Some(Way::Here {
                term,
                refusals: Arc::default(),
            }),
            Leadership::Other { leader, term } => {
                match self.peers.open_forward(leader, term, OPEN_PATIENCE).await {
                    Ok(stream) => Some(Way::There(stream)),
                    Err(error) => {
                        tracing::debug!(%error, leader, term, "the leader takes no writes yet");
                        None
                    }
                }
            }
            Leadership::Unknown => None,
        }
    }

    /// An epoch: sends by this way until it is of no use any longer.
    async fn send_by(&self, now: Leadership, mut way: Way) -> Left {
        if let Some(marker) = self.begin()
            && let Err(left) = way.send(&self.raft, vec![marker]).await
        {
            return left;
        }
        let after = leadership_after(&self.raft, self.author.server, now);
        tokio::pin!(after);
        let mut stall = Stall::begin(&self.proposals);
        loop {
            match self.proposals.next() {
                Next::Send(batch) => {
                    if let Err(left) = way.send(&self.raft, batch).await {
                        return left;
                    }
                }
                Next::Renew => return Left::Way,
                Next::Wait => tokio::select! {
                    () = self.proposals.work() => {}
                    () = way.broken() => return Left::Way,
                    after = &mut after => {
                        return if after.is_some() { Left::Way } else { Left::Everything };
                    }
                    () = stall.noticed() => return Left::Way,
                },
            }
        }
    }

    /// Begins an epoch, with a marker where one is needed.
    fn begin(&self) -> Option<Bytes> {
        let (epoch, needs_marker) = self.proposals.begin_epoch();
        if !needs_marker {
            return None;
        }
        let run = self.author.incarnation.run;
        self.author.own(Action::Marker { run, epoch })
    }
}
