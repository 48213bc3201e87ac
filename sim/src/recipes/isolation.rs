//! Cuts a service off from all servers, for longer than its session lives or shorter.

use std::ops::Range;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use crate::network::{Node, SimNetwork};

/// Between two of them.
const PAUSE_MS: (u64, u64) = (500, 8_000);
const SPAN_MIN_MS: u64 = 200;

pub(super) struct Isolation {
    pub(super) network: SimNetwork,
    pub(super) nodes: Range<Node>,
    pub(super) servers: Vec<Node>,
    pub(super) span_max_ms: u64,
    pub(super) random: SmallRng,
    pub(super) ledger: Ledger,
    pub(super) stop: CancellationToken,
}

impl Isolation {
    /// Until it is told to stop. Then nobody is cut off.
    pub(super) async fn run(mut self) {
        while !self.stop.is_cancelled() {
            let ms = self.random.random_range(PAUSE_MS.0..=PAUSE_MS.1);
            self.pause(ms).await;
            let node = self.random.random_range(self.nodes.clone());
            self.ledger.mark("service cut off");
            for server in &self.servers {
                self.network.block(node, *server);
                self.network.block(*server, node);
            }
            let ms = self.random.random_range(SPAN_MIN_MS..=self.span_max_ms);
            self.pause(ms).await;
            for server in &self.servers {
                self.network.unblock(node, *server);
                self.network.unblock(*server, node);
            }
        }
    }

    async fn pause(&self, ms: u64) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(ms)) => {}
        }
    }
}
