//! A lane whose requests are answered in order: entries, heartbeats.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::connection::{Connection, Target, dial, lost, read_answer};
use super::{RETRY_PAUSE, SILENCE_MAX};
use crate::network::{ReadHalf, WriteHalf};
use crate::peer_port::wire::{Frame, FrameReader, FrameWriter, Kind, Lane};
use crate::peer_port::{Door, PeerError};

/// A lane whose requests are answered in order.
///
/// Any call may be dropped at any time: what it has sent stays sent, its answer is skipped.
#[derive(Debug)]
pub struct RpcLane {
    door: Arc<dyn Door>,
    target: Arc<Target>,
    lane: Lane,
    state: LaneState,
    next_call: u64,
}

#[derive(Debug)]
enum LaneState {
    Closed { retry_at: Option<Instant> },
    Dialling(Dialling),
    Open(OpenLane),
}

/// Ends the attempt when it is dropped.
#[derive(Debug)]
struct Dialling(JoinHandle<Result<Connection, PeerError>>);

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct OpenLane {
    connection: Connection,
    /// Since when an answer has been due.
    waiting_since: Option<Instant>,
    last_answered: Option<u64>,
}

impl RpcLane {
    pub(super) fn new(door: Arc<dyn Door>, target: Arc<Target>, lane: Lane) -> Self {
        Self {
            door,
            target,
            lane,
            state: LaneState::Closed { retry_at: None },
            next_call: 0,
        }
    }

    /// Sends a request and waits for its answer, `patience` at most: for the bytes to be taken, and
    /// then for the answer. The connection is given up only when nothing at all was answered for so
    /// long, over however many calls.
    ///
    /// # Errors
    ///
    /// [`PeerError`].
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        kind: Kind,
        message: &Q,
        expected: Kind,
        patience: Duration,
    ) -> Result<A, PeerError> {
        let server = self.target.server;
        self.give_up_when_silent(patience);
        self.open().await?;
        self.next_call += 1;
        let call = self.next_call;
        let LaneState::Open(open) = &mut self.state else {
            return Err(lost(server, "it was closed"));
        };
        let answered = open.call(kind, call, message, patience).await;
        match answered {
            Ok(Some(frame)) => read_answer(server, &frame, expected),
            Ok(None) => {
                self.give_up_when_silent(patience);
                Err(PeerError::Late { server, patience })
            }
            Err(error) => {
                self.close();
                Err(lost(server, &error.to_string()))
            }
        }
    }

    /// Makes sure that there is a connection. Cancel safe: an attempt goes on.
    pub(crate) async fn open(&mut self) -> Result<(), PeerError> {
        if let LaneState::Closed { retry_at } = &self.state {
            if let Some(retry_at) = retry_at
                && *retry_at > Instant::now()
            {
                sleep_until(*retry_at).await;
            }
            let (door, target) = (Arc::clone(&self.door), Arc::clone(&self.target));
            let lane = self.lane;
            let dialling = crate::tasks::spawn(async move { dial(&door, &target, lane, 0).await });
            self.state = LaneState::Dialling(Dialling(dialling));
        }
        if let LaneState::Dialling(dialling) = &mut self.state {
            let dialled = (&mut dialling.0)
                .await
                .unwrap_or_else(|error| Err(lost(self.target.server, &error.to_string())));
            match dialled {
                Ok(connection) => {
                    self.state = LaneState::Open(OpenLane {
                        connection,
                        waiting_since: None,
                        last_answered: None,
                    });
                }
                Err(error) => {
                    self.state = LaneState::Closed {
                        retry_at: Some(Instant::now() + RETRY_PAUSE),
                    };
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Gives the connection up. The next call makes another one at once.
    pub(crate) fn close(&mut self) {
        self.state = LaneState::Closed { retry_at: None };
    }

    fn give_up_when_silent(&mut self, patience: Duration) {
        if let LaneState::Open(open) = &self.state
            && let Some(since) = open.waiting_since
            && since.elapsed() >= patience.max(SILENCE_MAX / 2)
        {
            self.close();
        }
    }

    /// The connection itself, for what is more than a call.
    pub(crate) fn halves(
        &mut self,
    ) -> Option<(&mut FrameReader<ReadHalf>, &mut FrameWriter<WriteHalf>)> {
        match &mut self.state {
            LaneState::Open(open) => {
                let connection = &mut open.connection;
                Some((&mut connection.reader, &mut connection.writer))
            }
            _ => None,
        }
    }

    pub(crate) fn server(&self) -> u64 {
        self.target.server
    }
}

impl OpenLane {
    /// `None` after `patience`.
    async fn call<Q: Serialize>(
        &mut self,
        kind: Kind,
        call: u64,
        message: &Q,
        patience: Duration,
    ) -> io::Result<Option<Frame>> {
        self.connection.writer.queue(kind, call, message)?;
        self.waiting_since.get_or_insert_with(Instant::now);
        // Any progress counts: a long batch takes its time on a slow network.
        while !self.connection.writer.is_empty() {
            match timeout(patience, self.connection.writer.write_some()).await {
                Ok(written) => written?,
                Err(_) => return Ok(None),
            }
        }
        let deadline = Instant::now() + patience;
        loop {
            let Ok(frame) = timeout_at(deadline, self.connection.reader.next()).await else {
                return Ok(None);
            };
            let frame = frame?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if frame.call > call || Some(frame.call) <= self.last_answered {
                let text = "an answer to a request that was never sent";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            self.last_answered = Some(frame.call);
            if frame.call == call {
                self.waiting_since = None;
                return Ok(Some(frame));
            }
            // Of a call that gave up: late, but a sign of life.
            self.waiting_since = Some(Instant::now());
        }
    }
}
