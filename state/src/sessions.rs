//! The replicated session table: which sessions there are, and which connection each belongs to.
//!
//! A session follows its newest connection. Commands that an older one proposed are refused wherever
//! they stand in the log. Of the newest one's, only the next in order counts: one that comes again,
//! or after a gap, is void, and the server that proposed it may propose it in its turn. So a client's
//! writes take effect in the order sent, and each once.

use hashbrown::HashTable;
use quorate_protocol::{Password, SessionId, Zxid};

use crate::canary::{Canary, planted};
use crate::command::{Connection, Origin};
use crate::digest::{Fact, Fingerprint};
use crate::error::OpError;
use crate::pages::{Indexes, Pages};

/// One session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    id: SessionId,
    password: Password,
    /// As negotiated with the connection it is attached to.
    pub timeout_ms: i32,
    connection: Connection,
    /// The command that attached it to its connection.
    pub attached_at: Zxid,
    next_sequence: u64,
}

/// Why a command of a session has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inadmissible {
    /// It has come before, or one before it is missing. Nobody is told.
    OutOfOrder,
    /// The connection is told.
    Refused(OpError),
}

/// All sessions. A view is a clone of `slots`.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots: Pages<Option<Session>>,
    indexes: Indexes,
    by_id: HashTable<u32>,
    /// The sum of the sessions' hashes.
    digest: u64,
}

impl Session {
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The connection whose commands count.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    pub(crate) fn password(&self) -> Password {
        self.password
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// A session that has just been attached to the origin's connection.
    pub(crate) fn new(
        id: SessionId,
        password: Password,
        timeout_ms: i32,
        origin: Origin,
        attached_at: Zxid,
    ) -> Self {
        Self {
            id,
            password,
            timeout_ms,
            connection: origin.connection,
            attached_at,
            next_sequence: origin.sequence.wrapping_add(1),
        }
    }

    /// The id of a session that is opened by `zxid`: never given twice, positive, the server's
    /// number on top. Seven bits of it, because clients take the eighth for a sign.
    pub(crate) fn id_of(server: u64, zxid: Zxid) -> Option<SessionId> {
        let id = ((server & 0x7f) << 56) | (zxid.0.cast_unsigned() & 0x00ff_ffff_ffff_ffff);
        SessionId::new(id.cast_signed())
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        Fingerprint::of(Fact::Session, self.id.get().cast_unsigned())
            .bytes(self.password.as_bytes())
            .number(self.timeout_ms.into())
            .word(self.connection.server)
            .word(self.connection.number)
            .number(self.attached_at.0)
            .word(self.next_sequence)
            .finish()
    }
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            slots: Pages::new(),
            indexes: Indexes::default(),
            by_id: HashTable::new(),
            digest: 0,
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn slots(&self) -> &Pages<Option<Session>> {
        &self.slots
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.slots.get(self.find(id)?).as_ref()
    }

    /// In no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().flatten()
    }

    /// Adds a session, or puts it in place of the one with its id.
    pub(crate) fn put(&mut self, session: Session) {
        let index = self.find(session.id).unwrap_or_else(|| {
            let index = self.indexes.take();
            self.slots.set(index, Some(session));
            let hash = hash(session.id);
            let slots = &self.slots;
            self.by_id.insert_unique(hash, index, |index| {
                slots.get(*index).as_ref().map_or(0, hash_of)
            });
            self.digest = self.digest.wrapping_add(session.fingerprint());
            index
        });
        let slot = self.slots.get_mut(index);
        let before = slot.replace(session).map_or(0, |old| old.fingerprint());
        self.digest = self
            .digest
            .wrapping_sub(before)
            .wrapping_add(session.fingerprint());
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let slots = &self.slots;
        let entry = self
            .by_id
            .find_entry(hash(id), |index| is(slots.get(*index).as_ref(), id))
            .ok()?;
        let (index, _) = entry.remove();
        let session = self.slots.get_mut(index).take()?;
        self.indexes.give_back(index);
        self.digest = self.digest.wrapping_sub(session.fingerprint());
        Some(session)
    }

    /// Accepts the next command of a session's connection, whatever will become of it.
    pub(crate) fn admit(&mut self, id: SessionId, origin: Origin) -> Result<(), Inadmissible> {
        let found = self
            .find(id)
            .and_then(|index| Some((index, (*self.slots.get(index))?)));
        let Some((index, mut session)) = found else {
            return Err(Inadmissible::Refused(OpError::SessionExpired));
        };
        if session.connection != origin.connection {
            if planted(Canary::MovedSessionMayWrite) {
                return Ok(());
            }
            return Err(Inadmissible::Refused(OpError::SessionMoved));
        }
        if session.next_sequence != origin.sequence && !planted(Canary::RetriedWriteDoneTwice) {
            return Err(Inadmissible::OutOfOrder);
        }
        let before = session.fingerprint();
        session.next_sequence = session.next_sequence.wrapping_add(1);
        self.digest = self
            .digest
            .wrapping_sub(before)
            .wrapping_add(session.fingerprint());
        *self.slots.get_mut(index) = Some(session);
        Ok(())
    }

    fn find(&self, id: SessionId) -> Option<u32> {
        self.by_id
            .find(hash(id), |index| is(self.slots.get(*index).as_ref(), id))
            .copied()
    }
}

fn is(session: Option<&Session>, id: SessionId) -> bool {
    session.is_some_and(|session| session.id == id)
}

fn hash_of(session: &Session) -> u64 {
    hash(session.id)
}

fn hash(id: SessionId) -> u64 {
    Fingerprint::of(Fact::Session, id.get().cast_unsigned()).finish()
}
