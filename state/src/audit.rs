//! What must be true of every state, whatever commands made it.
//!
//! [`State::audit`] walks through all of a state and recomputes what each apply keeps in step: sums,
//! digest, indexes, lists. For tools that look at a server's files and for tests: it takes time that
//! grows with the state, so a server does not do it while it serves. It changes nothing.

use std::fmt;

use crate::sessions::Session;
use crate::state::{State, digest_of_incarnations};

/// Something that cannot be, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The znode, or what else it is about.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What was found so far, up to a number.
pub(crate) struct Flaws {
    found: Vec<Flaw>,
    max: usize,
}

impl Flaws {
    pub(crate) fn add(&mut self, place: &str, what: impl Into<String>) {
        if !self.is_full() {
            self.found.push(Flaw {
                place: place.to_owned(),
                what: what.into(),
            });
        }
    }

    /// Notes `what` unless it `holds`.
    pub(crate) fn check(&mut self, holds: bool, place: &str, what: &str) {
        if !holds {
            self.add(place, what);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= self.max
    }
}

impl State {
    /// Finds up to `max` contradictions; none in a state that is sound:
    ///
    /// - every ephemeral has its session, and no children; every session lists its ephemerals;
    /// - a znode has one parent, which lists it once; names are unique and lead to their znodes;
    /// - a parent has seen at least as many children as it has, and a change as late as any of them:
    ///   its sequential numbers never repeat;
    /// - a quota is counted where a client has set one, and nowhere else;
    /// - nothing comes from after the last command;
    /// - the sums and the digest are those of what is there.
    pub fn audit(&self, max: usize) -> Vec<Flaw> {
        let mut flaws = Flaws {
            found: Vec::new(),
            max,
        };
        let tree = self.tree.audit(&self.sessions, self.last_zxid, &mut flaws);
        let mut sessions = 0_u64;
        for session in self.sessions.iter() {
            sessions = sessions.wrapping_add(session.fingerprint());
            let place = format!("session {:#x}", session.id().get());
            let found = self.sessions.get(session.id()).map(Session::id);
            flaws.check(
                found == Some(session.id()),
                &place,
                "its id does not lead to it",
            );
            flaws.check(
                session.attached_at <= self.last_zxid,
                &place,
                "it was attached by a command that is yet to come",
            );
        }
        let count = self.sessions.iter().count();
        flaws.check(
            count == self.sessions.len(),
            "sessions",
            "some are there twice",
        );
        flaws.check(
            sessions == self.sessions.digest(),
            "sessions",
            "they do not add up to their part of the digest",
        );
        let digest = tree
            .wrapping_add(sessions)
            .wrapping_add(digest_of_incarnations(&self.incarnations));
        flaws.check(
            digest == self.digest(),
            "digest",
            &format!(
                "it says {:#018x}, and what is there adds up to {digest:#018x}",
                self.digest()
            ),
        );
        flaws.found
    }
}
