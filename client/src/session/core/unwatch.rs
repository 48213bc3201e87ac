//! Taking watches away that nobody waits for any more.

use bytes::BytesMut;
use quorate_protocol::request::WatchesOfType;
use quorate_protocol::{OpCode, Request};

use super::Core;
use crate::error::Target;
use crate::session::line::Call;
use crate::watch::registry::{Kind, WatcherId};

impl Core {
    /// Nobody watches any more. The server is told if that is all there was on the path, or if it
    /// can tell the kinds apart.
    pub(super) fn unwatch(&mut self, watcher: &WatcherId) {
        let flights = self.in_flight.iter_mut().map(|flight| &mut flight.call);
        let mut under_way = self.waiting.iter_mut().chain(flights);
        // It may go before its request is answered.
        let its_own = under_way.find_map(|call| {
            let interest = call.interest.as_mut();
            interest.filter(|interest| interest.watcher.number == watcher.number)
        });
        if let Some(interest) = its_own {
            interest.is_cancelled = true;
            return;
        }
        if self.registry.remove(watcher) {
            self.unwatch_on_server(watcher);
        }
    }

    /// Tells the server what could not be told while another watch of the path was under way.
    pub(super) fn unwatch_stale(&mut self, path: &str) {
        if self.stale.iter().all(|watcher| *watcher.path != *path) {
            return;
        }
        let stale = std::mem::take(&mut self.stale);
        let (ready, rest) = stale.into_iter().partition(|w| *w.path == *path);
        self.stale = rest;
        let ready: Vec<WatcherId> = ready;
        for watcher in ready {
            if !self.registry.watches_as(watcher.kind, path) {
                self.unwatch_on_server(&watcher);
            }
        }
    }

    fn unwatch_on_server(&mut self, watcher: &WatcherId) {
        if self.up.is_none() || self.close_xid.is_some() {
            return;
        }
        // A watch of the same path may be under way, and would be removed as well.
        let path = &*watcher.path;
        let is_wanted = |call: &Call| {
            call.interest
                .as_ref()
                .is_some_and(|i| *i.watcher.path == *path)
        };
        if self.waiting.iter().any(is_wanted)
            || self.in_flight.iter().any(|flight| is_wanted(&flight.call))
        {
            self.stale.push(watcher.clone());
            return;
        }
        const ANY: i32 = 3;
        let goes_on = self.registry.watches_as(Kind::Persistent, path)
            || self.registry.watches_as(Kind::Recursive, path);
        let watcher_type = match watcher.kind {
            _ if !self.registry.watches(path) => ANY,
            // Servers before 3.9 would take the lasting watch away with it.
            Kind::Children | Kind::Data | Kind::Exist if goes_on => return,
            Kind::Children => 1,
            Kind::Data | Kind::Exist => 2,
            // Servers before 3.9 do not know these two, and leave the watch where it is.
            Kind::Persistent => 4,
            Kind::Recursive => 5,
        };
        let request = WatchesOfType {
            path: path.to_owned(),
            watcher_type,
        };
        let mut body = BytesMut::new();
        if Request::RemoveWatches(request).encode(&mut body).is_err() {
            return;
        }
        let target = Target::read("stop watching", path);
        let call = Call::in_background(target, OpCode::RemoveWatches, body.freeze());
        self.line.count(&call);
        self.waiting.push_back(call);
    }
}
