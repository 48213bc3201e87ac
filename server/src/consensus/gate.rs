//! With whom this server talks.
//!
//! Not with another ensemble, a stranger, or a server that does not have the data it is known by: a
//! server's incarnation says which data it has, and newer data has the higher number. A server that
//! lags must not refuse the one that could tell it more, so what it has not heard of it lets pass.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::RwLock;

use crate::peer_port::wire::{Probe, Probed, Standing};
use crate::peer_port::{Caller, Door, Refusal, RefusalCode};
use crate::storage::Identity;

/// What the engine knows that decides with whom to talk. None of it waits.
pub trait View: fmt::Debug + Send + Sync {
    fn standing(&self) -> Standing;

    /// The incarnation that the ensemble has agreed on for `server`.
    fn incarnation_of(&self, server: u64) -> Option<u64>;

    fn is_member(&self, server: u64) -> bool;

    /// Whether this server is up to date, so that what it does not know of `server` is not so.
    fn is_current(&self, server: u64) -> bool;

    /// `server`, of whom the ensemble knows nothing yet, has presented itself. Not if it was another
    /// one before.
    fn on_seen(&self, server: u64, incarnation: u64) -> bool;
}

/// The [`Door`] of this server.
#[derive(Debug)]
pub struct Gate {
    server: u64,
    run: u32,
    listed_cluster: u64,
    identity: RwLock<Option<Identity>>,
    /// As long as there is no view.
    standing: RwLock<Standing>,
    view: OnceLock<Weak<dyn View>>,
}

impl Gate {
    /// `cluster` is the ensemble that the server belongs to, or would found.
    pub fn new(server: u64, run: u32, cluster: u64, has_data: bool) -> Self {
        let standing = if has_data {
            Standing::Unsettled
        } else {
            Standing::New
        };
        Self {
            server,
            run,
            listed_cluster: cluster,
            standing: RwLock::new(standing),
            identity: RwLock::new(None),
            view: OnceLock::new(),
        }
    }

    /// Its log has turned out to be empty.
    pub fn set_new(&self) {
        *self.standing.write() = Standing::New;
    }

    /// From now on this server has a name to talk under.
    pub fn set_identity(&self, identity: Identity) {
        *self.identity.write() = Some(identity);
    }

    /// From now on there is something to be known.
    pub fn set_view(&self, view: Weak<dyn View>) {
        if self.view.set(view).is_err() {
            tracing::error!("the gate was given two views; report this bug");
        }
    }

    fn view(&self) -> Option<Arc<dyn View>> {
        self.view.get().and_then(Weak::upgrade)
    }
}

impl Door for Gate {
    fn me(&self) -> Option<Caller> {
        self.identity.read().map(|identity| Caller {
            cluster: identity.cluster,
            server: identity.server,
            incarnation: identity.incarnation,
            run: self.run,
        })
    }

    fn admit(&self, other: Caller) -> Result<(), Refusal> {
        let server = other.server;
        let refuse = |code, reason: String| Err(Refusal::new(code, reason));
        let (Some(me), Some(view)) = (self.me(), self.view()) else {
            return refuse(
                RefusalCode::Starting,
                "the server is still starting".to_owned(),
            );
        };
        if other.cluster != me.cluster {
            let reason = format!(
                "server {server} belongs to ensemble {:016x}, server {} to {:016x}: their server.N \
                 lines differ, or were different when they first started",
                other.cluster, me.server, me.cluster
            );
            return refuse(RefusalCode::Cluster, reason);
        }
        if server == me.server {
            let reason = format!("there are two servers with the id {server}: change one myid");
            return refuse(RefusalCode::ReusedId, reason);
        }
        let current = view.is_current(server);
        match view.incarnation_of(server) {
            Some(known) if other.incarnation < known || (other.incarnation != known && current) => {
                let reason = format!(
                    "server {server} does not have the data it is known by: put it back, or empty \
                     its dataDir and start it once with --rejoin"
                );
                return refuse(RefusalCode::ReusedId, reason);
            }
            // Newer than what is known here: this server has not heard of it yet.
            Some(_) => {}
            None if !view.on_seen(server, other.incarnation) => {
                let reason = format!(
                    "there are two servers with the id {server}, or it has lost its data since it \
                     was seen first: give each its own id"
                );
                return refuse(RefusalCode::ReusedId, reason);
            }
            None => {}
        }
        if current && !view.is_member(server) {
            let reason = format!("server {server} is no member of the ensemble: add it first");
            return refuse(RefusalCode::Stranger, reason);
        }
        Ok(())
    }

    fn probed(&self, probe: Probe) -> Probed {
        let me = self.me();
        let standing = match self.view() {
            // What it has not heard of may have happened all the same.
            Some(view)
                if view.standing() == Standing::Settled && !view.is_current(probe.server) =>
            {
                Standing::Unsettled
            }
            Some(view) => view.standing(),
            None => *self.standing.read(),
        };
        let view = self.view().filter(|_| standing == Standing::Settled);
        Probed {
            cluster: me.map_or(self.listed_cluster, |me| me.cluster),
            server: self.server,
            run: self.run,
            standing,
            known: view
                .as_ref()
                .and_then(|view| view.incarnation_of(probe.server)),
            member: view.is_some_and(|view| view.is_member(probe.server)),
        }
    }
}

#[cfg(test)]
mod tests;
