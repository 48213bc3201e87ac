//! Which servers of one process can reach each other.
//!
//! For ensembles inside a test process, where no firewall could part two servers. Whoever starts a
//! server by itself gives it [`Links::default`], which parts nobody and costs nothing. A cut is
//! enforced by the side that listens: it ends the connections that are there, and takes no new one.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

/// Pairs of servers that cannot reach each other, the lower id first.
type Cuts = BTreeSet<(u64, u64)>;

/// The ways between servers. Clones are the same ways.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// `None`: they cannot be cut.
    cuts: Option<Arc<watch::Sender<Cuts>>>,
}

impl Links {
    /// Ways that can be cut, all of them open.
    pub fn severable() -> Self {
        Self {
            cuts: Some(Arc::new(watch::Sender::new(Cuts::new()))),
        }
    }

    /// Cuts all ways between a server of `some` and one of `others`.
    pub fn part(&self, some: &[u64], others: &[u64]) {
        let Some(cuts) = &self.cuts else {
            return;
        };
        cuts.send_modify(|cuts| {
            for one in some {
                cuts.extend(others.iter().map(|other| pair(*one, *other)));
            }
        });
    }

    /// Opens all ways again.
    pub fn heal(&self) {
        if let Some(cuts) = &self.cuts {
            cuts.send_modify(Cuts::clear);
        }
    }

    pub fn are_open(&self, one: u64, other: u64) -> bool {
        let pair = pair(one, other);
        let is_cut = |cuts: &Arc<watch::Sender<Cuts>>| cuts.borrow().contains(&pair);
        !self.cuts.as_ref().is_some_and(is_cut)
    }

    /// Resolves when the way between the two is cut. Cancel safe.
    pub(super) async fn cut(&self, one: u64, other: u64) {
        let Some(cuts) = &self.cuts else {
            return std::future::pending().await;
        };
        let pair = pair(one, other);
        // The sender is ours.
        cuts.subscribe()
            .wait_for(|cuts| cuts.contains(&pair))
            .await
            .ok();
    }
}

fn pair(one: u64, other: u64) -> (u64, u64) {
    (one.min(other), one.max(other))
}
