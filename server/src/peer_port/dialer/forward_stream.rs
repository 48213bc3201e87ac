//! This server's writes, on their way to the leader.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::connection::Connection;
use crate::peer_port::PeerError;
use crate::peer_port::wire::{Forward, Kind};

/// How long writes may wait for a leader that takes nothing.
const FORWARD_STALL_MAX: Duration = Duration::from_secs(5);

/// This server's writes on their way to a leader, in order.
#[derive(Debug)]
pub struct ForwardStream {
    pub(super) server: u64,
    pub(super) connection: Connection,
}

impl ForwardStream {
    /// Sends commands, as one frame. Cancel safe only in that the stream must be dropped then.
    ///
    /// # Errors
    ///
    /// [`PeerError`]: whether the leader has taken any of them is unknown.
    pub async fn send(&mut self, commands: &[Bytes]) -> Result<(), PeerError> {
        let server = self.server;
        let lost = |reason: String| PeerError::Lost { server, reason };
        let writer = &mut self.connection.writer;
        writer
            .queue(Kind::Forward, 0, &Forward(commands))
            .map_err(|error| lost(error.to_string()))?;
        while !writer.is_empty() {
            timeout(FORWARD_STALL_MAX, writer.write_some())
                .await
                .map_err(|_| PeerError::Late {
                    server,
                    patience: FORWARD_STALL_MAX,
                })?
                .map_err(|error| lost(error.to_string()))?;
        }
        Ok(())
    }

    /// Resolves when the leader takes no more, and says why. Cancel safe.
    pub async fn ended(&mut self) -> PeerError {
        let server = self.server;
        let lost = |reason: String| PeerError::Lost { server, reason };
        match self.connection.reader.next().await {
            Ok(Some(frame)) if frame.kind == Kind::ForwardEnded => match frame.decode() {
                Ok(reason) => PeerError::Failed { server, reason },
                Err(error) => lost(error.to_string()),
            },
            Ok(Some(frame)) => lost(frame.unexpected().to_string()),
            Ok(None) => lost("it was closed".to_owned()),
            Err(error) => lost(error.to_string()),
        }
    }
}
