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
use tokio_util::sync::CancellationToken;

use super::proposals::{Next, Proposals};
use super::types::{Proposal, TypeConfig};
use super::{Author, Raft};
use crate::peer_port::Peers;

/// Between attempts to reach the leader, and after a refusal: a new leader refuses for as long as it
/// has not heard of its majority, which takes about a round trip.
const PAUSE: Duration = Duration::from_millis(5);
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
        loop {
            let now = leadership(&self.raft, self.author.server);
            let left = match now {
                Leadership::Mine { term } => self.send_here(now, term).await,
                Leadership::Other { leader, term } => self.send_to(now, leader, term).await,
                Leadership::Unknown => {
                    match leadership_after(&self.raft, self.author.server, now).await {
                        Some(_) => continue,
                        None => Left::Everything,
                    }
                }
            };
            if matches!(left, Left::Everything) {
                return;
            }
            if leadership(&self.raft, self.author.server) == now {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// An epoch with this server as leader.
    async fn send_here(&self, now: Leadership, term: u64) -> Left {
        let refusals = Arc::new(Refusals::default());
        let (epoch, marker) = self.begin();
        if let Some(marker) = marker
            && write(&self.raft, term, marker, Some(&refusals))
                .await
                .is_err()
        {
            return Left::Everything;
        }
        let after = leadership_after(&self.raft, self.author.server, now);
        tokio::pin!(after);
        let mut stall = Stall::begin(&self.proposals);
        loop {
            match self.proposals.next() {
                Next::Send(batch) => {
                    let last = batch.len() - 1;
                    for (index, command) in batch.into_iter().enumerate() {
                        // One tells for all: what comes after a refusal in the same instant is
                        // refused too, or void.
                        let told = (index == last).then_some(&refusals);
                        if write(&self.raft, term, command, told).await.is_err() {
                            return Left::Everything;
                        }
                    }
                }
                Next::Renew => return Left::Way,
                Next::Wait => tokio::select! {
                    () = self.proposals.work() => {}
                    () = refusals.first() => self.proposals.on_broken(epoch),
                    after = &mut after => {
                        return if after.is_some() { Left::Way } else { Left::Everything };
                    }
                    () = stall.noticed() => return Left::Way,
                },
            }
        }
    }

    /// An epoch with another server as leader.
    async fn send_to(&self, now: Leadership, leader: u64, term: u64) -> Left {
        let mut stream = match self.peers.open_forward(leader, term, OPEN_PATIENCE).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, leader, term, "the leader takes no writes yet");
                return Left::Way;
            }
        };
        let (_, marker) = self.begin();
        if let Some(marker) = marker
            && stream.send(&[marker]).await.is_err()
        {
            return Left::Way;
        }
        let after = leadership_after(&self.raft, self.author.server, now);
        tokio::pin!(after);
        let mut stall = Stall::begin(&self.proposals);
        loop {
            match self.proposals.next() {
                Next::Send(batch) => {
                    if stream.send(&batch).await.is_err() {
                        return Left::Way;
                    }
                }
                Next::Renew => return Left::Way,
                Next::Wait => tokio::select! {
                    () = self.proposals.work() => {}
                    error = stream.ended() => {
                        tracing::debug!(%error, leader, term, "the leader has ended the stream");
                        return Left::Way;
                    }
                    after = &mut after => {
                        return if after.is_some() { Left::Way } else { Left::Everything };
                    }
                    () = stall.noticed() => return Left::Way,
                },
            }
        }
    }

    /// Begins an epoch, with a marker where one is needed.
    fn begin(&self) -> (u64, Option<Bytes>) {
        let (epoch, needs_marker) = self.proposals.begin_epoch();
        let marker = needs_marker.then(|| {
            let run = self.author.incarnation.run;
            self.author.own(Action::Marker { run, epoch })
        });
        (epoch, marker.flatten())
    }
}
