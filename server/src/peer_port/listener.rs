//! The side that is dialled: shakes hands, then serves what comes.
//!
//! One task a connection. Requests of a lane are served in order, but for the control lane, where a
//! long answer must not hold up a vote. Of each server's forwarded writes only one stream is served
//! at a time: a new one first ends the old one. Bounded: connections, the bytes of a frame, and the
//! answers under way; beyond that a peer is not read from.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dialer::BUSY_INTERVAL;
use super::wire::{
    self, Append, Caller, Frame, FrameReader, FrameWriter, Hello, Kind, Lane, Probe, Refusal,
    RefusalCode, Rejoin, SnapshotBegin, SnapshotChunk, Transfer, VERSIONS, VoteAsked, Welcome,
    WireError,
};
use super::{Door, Forwarded, Incoming, Links, Service, ServiceError};
use crate::network::{Listener, ReadHalf, Stream, WriteHalf};
use crate::tasks::on_this_host;

/// How long a connection may take to say who it is.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// Connections at once. Six other servers with five lanes each need 30; the rest is for those that
/// are given up on one side only, and for strangers.
const CONNECTIONS_MAX: usize = 512;
/// Answers under way on one control lane. As many as the other side lets be open.
const ANSWERS_MAX: usize = 256;
/// Connections waiting to be accepted.
pub const BACKLOG: u32 = 128;
/// How long accepting pauses when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Reader = FrameReader<ReadHalf>;
type Writer = FrameWriter<WriteHalf>;

/// What the connections of the peer port share.
#[derive(Debug)]
pub struct PeerPort<S> {
    door: Arc<dyn Door>,
    server: u64,
    links: Links,
    /// Set once there is something to serve with.
    service: OnceLock<Arc<S>>,
    forwards: Mutex<BTreeMap<u64, ForwardSlot>>,
    /// Why a server was refused last, so that it is logged once.
    refused: Mutex<BTreeMap<u64, String>>,
}

/// A server's one stream of forwarded writes.
#[derive(Clone, Debug, Default)]
struct ForwardSlot {
    stop: CancellationToken,
    /// Held by the handler while it runs.
    running: Arc<tokio::sync::Mutex<()>>,
}

/// Ends a connection.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connection(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("it was refused: {0}")]
    Refused(Refusal),
    #[error("the way to server {0} is cut")]
    Cut(u64),
}

impl<S: Service> PeerPort<S> {
    pub fn new(door: Arc<dyn Door>, server: u64, links: Links) -> Self {
        Self {
            door,
            server,
            links,
            service: OnceLock::new(),
            forwards: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// Begins to serve more than probes.
    pub fn open(&self, service: Arc<S>) {
        if self.service.set(service).is_err() {
            tracing::error!("the peer port was opened twice; report this bug");
        }
    }

    /// Accepts and serves connections until `stop`.
    pub async fn serve(self: Arc<Self>, listener: Listener, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a peer's connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let permit = match Arc::clone(&room).try_acquire_owned() {
                Ok(permit) => permit,
                Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                    tracing::warn!(%address, "too many connections from peers: one was closed");
                    continue;
                }
            };
            let (port, stop) = (Arc::clone(&self), stop.clone());
            tasks.spawn(on_this_host(async move {
                let _permit = permit;
                tokio::select! {
                    ended = port.connection(stream, address) => if let Err(error) = ended {
                        tracing::debug!(%address, %error, "a peer's connection has ended");
                    },
                    () = stop.cancelled() => {}
                }
            }));
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn connection(&self, stream: Stream, address: SocketAddr) -> Result<(), Ended> {
        stream.prepare_for_peer()?;
        let (reader, writer) = stream.into_split();
        let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
        let frame = timeout(HELLO_PATIENCE, wire::greeted(&mut reader))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match frame.kind {
            Kind::Hello => {
                let hello: Hello = frame.decode()?;
                let from = hello.from.server;
                let lane = self.greeted(hello, reader, writer, address);
                self.while_linked(from, lane).await
            }
            Kind::Probe => {
                let probe: Probe = frame.decode()?;
                let answered = async {
                    writer.queue(Kind::Probed, 0, &self.door.probed(probe))?;
                    Ok(writer.flush().await?)
                };
                self.while_linked(probe.server, answered).await
            }
            Kind::Rejoin => {
                let rejoin: Rejoin = frame.decode()?;
                let answered = async {
                    let answer = match self.service.get() {
                        Some(service) => while_busy(&mut writer, 0, service.rejoin(rejoin)).await?,
                        None => wire::Answer::NotLeader,
                    };
                    writer.queue(Kind::Answer, 0, &answer)?;
                    Ok(writer.flush().await?)
                };
                self.while_linked(rejoin.server, answered).await
            }
            _ => Err(frame.unexpected().into()),
        }
    }

    /// Serves `from`, until the way to it is cut.
    async fn while_linked(
        &self,
        from: u64,
        serving: impl Future<Output = Result<(), Ended>>,
    ) -> Result<(), Ended> {
        tokio::select! {
            biased;
            () = self.links.cut(self.server, from) => Err(Ended::Cut(from)),
            served = serving => served,
        }
    }

    async fn greeted(
        &self,
        hello: Hello,
        mut reader: Reader,
        mut writer: Writer,
        address: SocketAddr,
    ) -> Result<(), Ended> {
        if let Err(ended) = self.shake_hands(&hello, &mut writer, address).await {
            if let Ended::Refused(refusal) = &ended {
                writer.queue(Kind::Refused, 0, refusal)?;
                writer.flush().await?;
            }
            return Err(ended);
        }
        reader.handshake_done();
        self.lane(hello, reader, writer).await
    }

    async fn shake_hands(
        &self,
        hello: &Hello,
        writer: &mut Writer,
        address: SocketAddr,
    ) -> Result<(), Ended> {
        let host = match self.admit(hello) {
            Ok(host) => {
                self.refused.lock().remove(&hello.from.server);
                host
            }
            Err(refusal) => {
                self.on_refused(hello.from, address, &refusal);
                return Err(Ended::Refused(refusal));
            }
        };
        let version = VERSIONS.1.min(hello.versions.1);
        writer.queue(Kind::Welcome, 0, &Welcome { version, host })?;
        Ok(writer.flush().await?)
    }

    fn admit(&self, hello: &Hello) -> Result<Caller, Refusal> {
        let (oldest, newest) = hello.versions;
        if newest < VERSIONS.0 || oldest > VERSIONS.1 {
            let reason = format!(
                "server {} speaks versions {oldest} to {newest} of the peer protocol, this one \
                 {} to {}: update the older one",
                hello.from.server, VERSIONS.0, VERSIONS.1
            );
            return Err(Refusal::new(RefusalCode::Version, reason));
        }
        let starting = || Refusal::new(RefusalCode::Starting, "the server is still starting");
        let me = self.door.me().ok_or_else(starting)?;
        if hello.to != me.server {
            let reason = format!(
                "server {} looks for server {} here, but this is server {}: check the addresses",
                hello.from.server, hello.to, me.server
            );
            return Err(Refusal::new(RefusalCode::WrongServer, reason));
        }
        self.door.admit(hello.from)?;
        if self.service.get().is_none() {
            return Err(starting());
        }
        Ok(me)
    }

    /// Logs a refusal, if it is not the same as the last one of that server.
    fn on_refused(&self, from: Caller, address: SocketAddr, refusal: &Refusal) {
        /// Servers that were refused for one thing or another; ids are the caller's say.
        const REMEMBERED_MAX: usize = 256;
        let mut refused = self.refused.lock();
        if refused.get(&from.server) == Some(&refusal.reason) {
            return;
        }
        if refused.len() >= REMEMBERED_MAX {
            refused.clear();
        }
        refused.insert(from.server, refusal.reason.clone());
        drop(refused);
        if refusal.code == RefusalCode::Starting {
            tracing::debug!(server = from.server, %address, "a server came too early");
        } else {
            tracing::warn!(server = from.server, %address, "a server was refused: {refusal}");
        }
    }

    async fn lane(&self, hello: Hello, reader: Reader, writer: Writer) -> Result<(), Ended> {
        let Some(service) = self.service.get() else {
            return Ok(());
        };
        match hello.lane {
            Lane::Replication | Lane::Heartbeat => {
                serve_appends(service, hello.from.server, reader, writer).await
            }
            Lane::Snapshot => serve_snapshots(service, reader, writer).await,
            Lane::Control => serve_control(service, hello.from, reader, writer).await,
            Lane::Forward => self.serve_forwards(service, &hello, reader, writer).await,
        }
    }

    async fn serve_forwards(
        &self,
        service: &Arc<S>,
        hello: &Hello,
        mut reader: Reader,
        mut writer: Writer,
    ) -> Result<(), Ended> {
        let from = hello.from.server;
        let (stop, running) = self.take_forward_slot(from);
        // The one before ends between two frames, so nothing of it follows what comes now.
        let _running = running.lock().await;
        let mut forwarded = service.open_forwarded(from, hello.term);
        let reason = loop {
            let frame = tokio::select! {
                biased;
                () = stop.cancelled() => break "a newer stream of the same server".to_owned(),
                () = forwarded.refused() => break "a write was refused".to_owned(),
                frame = reader.next() => frame?,
            };
            let Some(frame) = frame else {
                return Ok(());
            };
            if frame.kind != Kind::Forward {
                return Err(frame.unexpected().into());
            }
            let commands = wire::decode_forward(frame.body)?;
            if let Err(reason) = forwarded.take(commands).await {
                break reason;
            }
        };
        writer.queue(Kind::ForwardEnded, 0, &reason)?;
        writer.flush().await?;
        linger(&mut reader).await;
        Ok(())
    }

    fn take_forward_slot(&self, from: u64) -> (CancellationToken, Arc<tokio::sync::Mutex<()>>) {
        let mut forwards = self.forwards.lock();
        let slot = forwards.entry(from).or_default();
        slot.stop.cancel();
        slot.stop = CancellationToken::new();
        (slot.stop.clone(), Arc::clone(&slot.running))
    }
}

/// Reads what is still under way, so that closing does not destroy our last word on its way.
async fn linger(reader: &mut Reader) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let read = async { while let Ok(Some(_)) = reader.next().await {} };
    timeout(PATIENCE, read).await.ok();
}

/// Queues the answer to a request.
fn reply<T: Serialize>(
    writer: &mut Writer,
    kind: Kind,
    call: u64,
    answer: Result<T, ServiceError>,
) -> Result<(), WireError> {
    match answer {
        Ok(answer) => writer.queue(kind, call, &answer),
        Err(ServiceError(reason)) => writer.queue(Kind::Failed, call, &reason),
    }
}

async fn serve_appends<S: Service>(
    service: &Arc<S>,
    from: u64,
    mut reader: Reader,
    mut writer: Writer,
) -> Result<(), Ended> {
    while let Some(frame) = reader.next().await? {
        if frame.kind != Kind::Append {
            return Err(frame.unexpected().into());
        }
        let call = frame.call;
        let append = Append::decode(frame.body)?;
        let answer = service.append(from, append).await;
        reply(&mut writer, Kind::Appended, call, answer)?;
        writer.flush().await?;
    }
    Ok(())
}

/// One snapshot after another. While the other side waits for an answer, it is told that there will
/// be one.
async fn serve_snapshots<S: Service>(
    service: &Arc<S>,
    mut reader: Reader,
    mut writer: Writer,
) -> Result<(), Ended> {
    while let Some(frame) = reader.next().await? {
        if frame.kind != Kind::SnapshotBegin {
            return Err(frame.unexpected().into());
        }
        let call = frame.call;
        let begin: SnapshotBegin = frame.decode()?;
        let begun = service.begin_snapshot(begin.leader, begin.last);
        let begun = while_busy(&mut writer, call, begun).await?;
        let taken = match begun {
            Ok(Ok(incoming)) => {
                take_snapshot(incoming, &begin, call, &mut reader, &mut writer).await?
            }
            Ok(Err(taken)) => Ok(taken),
            Err(error) => Err(error),
        };
        let failed = taken.is_err();
        reply(&mut writer, Kind::SnapshotTaken, call, taken)?;
        writer.flush().await?;
        if failed {
            // What is left of the file is of no use.
            linger(&mut reader).await;
            return Ok(());
        }
    }
    Ok(())
}

async fn take_snapshot<I: Incoming>(
    mut incoming: I,
    begin: &SnapshotBegin,
    call: u64,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<Result<super::SnapshotTaken, ServiceError>, Ended> {
    let mut missing = begin.length;
    loop {
        let frame = reader
            .next()
            .await?
            .ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        match frame.kind {
            Kind::SnapshotChunk => {
                let chunk: SnapshotChunk = frame.decode()?;
                let length = chunk.0.len() as u64;
                let Some(left) = missing.checked_sub(length) else {
                    return Ok(Err(ServiceError(
                        "the file is longer than announced".to_owned(),
                    )));
                };
                missing = left;
                match while_busy(writer, call, incoming.write(chunk.0.into())).await? {
                    Ok(next) => incoming = next,
                    Err(error) => return Ok(Err(error)),
                }
            }
            Kind::SnapshotEnd if missing == 0 => {
                return while_busy(writer, call, incoming.finish()).await;
            }
            Kind::SnapshotEnd => {
                return Ok(Err(ServiceError(
                    "the file is shorter than announced".to_owned(),
                )));
            }
            _ => return Err(frame.unexpected().into()),
        }
    }
}

/// Awaits `work`, and says from time to time that it is under way.
async fn while_busy<T>(
    writer: &mut Writer,
    call: u64,
    work: impl Future<Output = T>,
) -> Result<T, Ended> {
    let mut work = pin!(work);
    loop {
        match timeout(BUSY_INTERVAL, work.as_mut()).await {
            Ok(done) => return Ok(done),
            Err(_) => {
                writer.queue(Kind::Busy, call, &())?;
                writer.flush().await?;
            }
        }
    }
}

/// Votes and questions. Answers go out as they come.
async fn serve_control<S: Service>(
    service: &Arc<S>,
    from: Caller,
    mut reader: Reader,
    mut writer: Writer,
) -> Result<(), Ended> {
    // Dropped with the connection, and the answers with it: nobody waits for them.
    let mut answers: JoinSet<Result<Vec<u8>, WireError>> = JoinSet::new();
    let mut busy = interval(BUSY_INTERVAL);
    busy.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            frame = reader.next(), if answers.len() < ANSWERS_MAX => match frame? {
                Some(frame) => {
                    let service = Arc::clone(service);
                    answers.spawn(on_this_host(async move {
                        answer_control(&*service, from, &frame).await
                    }));
                }
                None => return Ok(()),
            },
            Some(answer) = answers.join_next(), if !answers.is_empty() => {
                let frame = answer.map_err(io::Error::other)??;
                writer.queue_raw(&frame);
            }
            written = writer.write_some(), if !writer.is_empty() => written?,
            _ = busy.tick(), if !answers.is_empty() => writer.queue(Kind::Busy, 0, &())?,
        }
    }
}

/// The answer to one request, as a frame.
async fn answer_control<S: Service>(
    service: &S,
    from: Caller,
    frame: &Frame,
) -> Result<Vec<u8>, WireError> {
    let call = frame.call;
    match frame.kind {
        Kind::Vote => {
            let asked: VoteAsked = frame.decode()?;
            raw_reply(Kind::Voted, call, service.vote(asked).await)
        }
        Kind::PreVote => {
            let asked: VoteAsked = frame.decode()?;
            raw_reply(Kind::Voted, call, service.pre_vote(asked).await)
        }
        Kind::Transfer => {
            let transfer: Transfer = frame.decode()?;
            raw_reply(Kind::Transferred, call, service.transfer(transfer).await)
        }
        Kind::Question => {
            // One of a later version must not cost the connection.
            let answer = match frame.decode() {
                Ok(question) => Ok(service.answer(from.server, question).await),
                Err(error) => Err(ServiceError(error.to_string())),
            };
            raw_reply(Kind::Answer, call, answer)
        }
        _ => Err(frame.unexpected()),
    }
}

fn raw_reply<T: Serialize>(
    kind: Kind,
    call: u64,
    answer: Result<T, ServiceError>,
) -> Result<Vec<u8>, WireError> {
    let mut out = bytes::BytesMut::new();
    match answer {
        Ok(answer) => wire::encode(&mut out, kind, call, &answer)?,
        Err(ServiceError(reason)) => wire::encode(&mut out, Kind::Failed, call, &reason)?,
    }
    Ok(out.into())
}
