//! Stands in for what is not there yet: forwarded writes, touches, replicated incarnations.

use bytes::{Bytes, BytesMut};
use openraft::raft::ReadPolicy;
use quorate_state::Command;

use super::Consensus;
use crate::peer_port::{Answer, Question};

impl Consensus {
    pub(super) async fn answer(&self, _from: u64, question: Question) -> Answer {
        let Question::Round { .. } = question;
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Answer::Confirmed {
                index: linearizer.read_log_id().index(),
            },
            Err(_) => Answer::NotLeader,
        }
    }

    pub(super) async fn take_forwarded(
        &self,
        _from: u64,
        _term: u64,
        commands: Vec<BytesMut>,
    ) -> Result<(), String> {
        for command in commands {
            let mut command = Command::decode(&command).map_err(|error| error.to_string())?;
            command.time_ms = self.clock.wall_ms();
            let command: Bytes = command.encode(0).map_err(|error| error.to_string())?;
            self.propose(command)
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The incarnation the ensemble has agreed on for `server`.
    pub(super) fn known_incarnation(&self, server: u64) -> Option<u64> {
        self.admitted.lock().get(&server).copied()
    }

    /// Has the ensemble agree on it; whether it has.
    pub(super) async fn admit_incarnation(&self, server: u64, incarnation: u64) -> bool {
        self.admitted.lock().insert(server, incarnation);
        true
    }
}
