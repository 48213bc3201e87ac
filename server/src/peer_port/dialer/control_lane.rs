//! The lane for votes, questions and answers, which come in any order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::connection::{Connection, Target, dial, lost};
use super::{RETRY_PAUSE, SILENCE_MAX};
use crate::peer_port::wire::{Frame, Kind, Lane};
use crate::peer_port::{Door, PeerError};

/// Requests on their way on one control lane; beyond it, askers wait.
pub(super) const ASKS_MAX: usize = 256;

/// A request on the control lane.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    pub(super) answer: oneshot::Sender<Result<Frame, PeerError>>,
}

/// Serves one peer's control lane until nobody can ask any more.
pub(super) async fn control_lane(
    door: Arc<dyn Door>,
    target: Arc<Target>,
    mut asks: mpsc::Receiver<Ask>,
) {
    let mut retry_at = Instant::now();
    while let Some(first) = asks.recv().await {
        if first.answer.is_closed() {
            continue;
        }
        sleep_until(retry_at).await;
        match dial(&door, &target, Lane::Control, 0).await {
            Ok(connection) => {
                let mut open = BTreeMap::new();
                let reason = control_connection(connection, first, &mut asks, &mut open).await;
                tracing::debug!(server = target.server, reason, "a control lane has ended");
                for (_, answer) in open {
                    answer.send(Err(lost(target.server, &reason))).ok();
                }
            }
            Err(error) => {
                retry_at = Instant::now() + RETRY_PAUSE;
                first.answer.send(Err(error.clone())).ok();
                // They have waited for the same attempt.
                while let Ok(ask) = asks.try_recv() {
                    ask.answer.send(Err(error.clone())).ok();
                }
            }
        }
    }
}

/// Questions out, answers in, on one connection; returns why it ended.
async fn control_connection(
    connection: Connection,
    first: Ask,
    asks: &mut mpsc::Receiver<Ask>,
    open: &mut BTreeMap<u64, oneshot::Sender<Result<Frame, PeerError>>>,
) -> String {
    let Connection {
        mut reader,
        mut writer,
    } = connection;
    let mut calls = 0;
    let mut next = Some(first);
    let mut last_sign = Instant::now();
    let mut check = interval(SILENCE_MAX / 4);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some(ask) = next.take() {
            calls += 1;
            if open.is_empty() {
                last_sign = Instant::now();
            }
            match writer.queue_encoded(ask.kind, calls, &ask.body) {
                Ok(()) => drop(open.insert(calls, ask.answer)),
                Err(error) => return error.to_string(),
            }
        }
        tokio::select! {
            ask = asks.recv(), if open.len() < ASKS_MAX => match ask {
                Some(ask) => next = Some(ask),
                None => return "nobody asks any more".to_owned(),
            },
            frame = reader.next() => match frame {
                Ok(Some(frame)) => {
                    last_sign = Instant::now();
                    if frame.kind != Kind::Busy
                        && let Some(answer) = open.remove(&frame.call)
                    {
                        answer.send(Ok(frame)).ok();
                    }
                }
                Ok(None) => return "it was closed".to_owned(),
                Err(error) => return error.to_string(),
            },
            written = writer.write_some(), if !writer.is_empty() => if let Err(error) = written {
                return error.to_string();
            },
            // Who has given up waiting counts as well: the silence is the same.
            _ = check.tick(), if !open.is_empty() => {
                if last_sign.elapsed() > SILENCE_MAX {
                    return "nothing was heard on it".to_owned();
                }
            }
        }
    }
}
