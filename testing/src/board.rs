//! What each server last said about itself, and who can reach whom.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use quorate_server::peer_port::Links;
use tokio::sync::watch;

use crate::Error;

/// How a server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Where its client port is; `None` while it is down.
    pub(crate) client_address: Option<SocketAddr>,
    /// It was told to stand still.
    pub(crate) frozen: bool,
    /// It has caught up since it was started.
    pub(crate) ready: bool,
    /// The term in which it leads.
    pub(crate) leads: Option<u64>,
}

impl Status {
    pub(crate) fn is_up(&self) -> bool {
        self.client_address.is_some()
    }

    /// Whether the others hear it.
    fn takes_part(&self) -> bool {
        self.is_up() && !self.frozen
    }
}

/// Clones are the same board.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    statuses: Arc<watch::Sender<BTreeMap<u64, Status>>>,
    links: Links,
}

impl Board {
    pub(crate) fn new(servers: impl Iterator<Item = u64>) -> Self {
        let statuses = servers.map(|server| (server, Status::default())).collect();
        Self {
            statuses: Arc::new(watch::Sender::new(statuses)),
            links: Links::severable(),
        }
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    pub(crate) fn part(&self, some: &[u64], others: &[u64]) {
        self.links.part(some, others);
        self.statuses.send_modify(|_| {});
    }

    pub(crate) fn heal(&self) {
        self.links.heal();
        self.statuses.send_modify(|_| {});
    }

    pub(crate) fn note(&self, server: u64, note: impl FnOnce(&mut Status)) {
        self.statuses
            .send_modify(|statuses| note(statuses.entry(server).or_default()));
    }

    pub(crate) fn status(&self, server: u64) -> Status {
        let statuses = self.statuses.borrow();
        statuses.get(&server).copied().unwrap_or_default()
    }

    /// The server that leads a majority.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.leader_of(&self.statuses.borrow())
    }

    /// Whether `server` is up, and can reach so many that they could serve.
    pub(crate) fn has_majority(&self, server: u64) -> bool {
        self.majority_of(&self.statuses.borrow(), server)
    }

    /// The servers that are up and that `server` reaches, itself left out.
    pub(crate) fn reached_from(&self, server: u64) -> Vec<u64> {
        let statuses = self.statuses.borrow();
        let reached = self.reached(&statuses, server);
        reached.filter(|other| *other != server).collect()
    }

    fn reached(
        &self,
        statuses: &BTreeMap<u64, Status>,
        server: u64,
    ) -> impl Iterator<Item = u64> + use<'_> {
        let up = statuses.iter().filter(|(_, status)| status.takes_part());
        let up: Vec<u64> = up.map(|(other, _)| *other).collect();
        up.into_iter()
            .filter(move |other| *other == server || self.links.are_open(server, *other))
    }

    fn majority_of(&self, statuses: &BTreeMap<u64, Status>, server: u64) -> bool {
        let takes_part = statuses.get(&server).is_some_and(Status::takes_part);
        takes_part && self.reached(statuses, server).count() > statuses.len() / 2
    }

    /// One that was cut off may believe for a while that it still leads: the highest term counts.
    fn leader_of(&self, statuses: &BTreeMap<u64, Status>) -> Option<u64> {
        let leaders = statuses
            .iter()
            .filter_map(|(server, status)| Some((status.leads?, *server)));
        let leaders = leaders.filter(|(_, server)| self.majority_of(statuses, *server));
        leaders.max().map(|(_, server)| server)
    }

    /// Resolves when some server leads a majority. Cancel safe.
    pub(crate) async fn led(&self) -> u64 {
        let mut statuses = self.statuses.subscribe();
        loop {
            let leader = self.leader_of(&statuses.borrow_and_update());
            match leader {
                Some(leader) => return leader,
                // The sender is ours.
                None => drop(statuses.changed().await),
            }
        }
    }

    /// Resolves when `server` is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`]: it went down.
    pub(crate) async fn ready(&self, server: u64) -> Result<(), Error> {
        let mut statuses = self.statuses.subscribe();
        let status =
            |statuses: &BTreeMap<u64, Status>| statuses.get(&server).copied().unwrap_or_default();
        let decided = |statuses: &BTreeMap<u64, Status>| {
            let status = status(statuses);
            status.ready || !status.is_up()
        };
        match statuses.wait_for(decided).await {
            Ok(statuses) if status(&statuses).ready => Ok(()),
            _ => Err(Error::Ended { server }),
        }
    }

    /// Resolves when another server leads than `leader`, or none. Cancel safe.
    pub(crate) async fn led_otherwise(&self, leader: u64) {
        let mut statuses = self.statuses.subscribe();
        let otherwise = |statuses: &BTreeMap<u64, Status>| self.leader_of(statuses) != Some(leader);
        // The sender is ours.
        statuses.wait_for(otherwise).await.ok();
    }
}
