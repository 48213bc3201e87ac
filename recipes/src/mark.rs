//! The mark by which a handle recognises its own transactions.
//!
//! An ephemeral child of the recipe's znode, whose data is the number of the last transaction of the
//! handle that sets it. What else the transaction does is done exactly if the mark has its number.

use quorate_client::{AclEntry, Error as ClientError, Reason, SessionId, Transaction};

/// What the name of a mark begins with, before 32 hexadecimal digits.
const PREFIX: &str = "own-";

/// Whether a child is somebody's mark.
pub(crate) fn is_mark(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// The name of a new mark.
pub(crate) fn new_name() -> String {
    format!("{PREFIX}{:032x}", rand::random::<u128>())
}

/// The mark of a handle.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) path: String,
    /// Whether it is believed to be there. The server tells if it is not so.
    pub(crate) exists: bool,
    /// The number of the last transaction.
    write: u64,
    /// Of the last transaction: the mark goes with it.
    session: Option<SessionId>,
}

impl Mark {
    /// Below this znode. Nothing is created.
    pub(crate) fn new(path: &str) -> Self {
        Self {
            path: format!("{path}/{}", new_name()),
            exists: false,
            write: 0,
            session: None,
        }
    }

    /// Begins a transaction, to be sent in this session.
    pub(crate) fn next(&mut self, session: Option<SessionId>) {
        self.write += 1;
        self.exists &= self.session == session;
        self.session = session;
    }

    /// Has the transaction set it to its number. `is_fresh`: the transaction creates the parent.
    pub(crate) fn add_to(
        &self,
        steps: Transaction,
        is_fresh: bool,
        acl: &[AclEntry],
    ) -> Transaction {
        let write = self.write.to_string();
        if self.exists && !is_fresh {
            return steps.set(&self.path, write);
        }
        steps.create(&self.path, write).ephemeral().acl(acl)
    }

    /// Takes note of why its own step was refused; answers whether the next attempt may pass.
    pub(crate) fn learn(&mut self, error: &ClientError) -> bool {
        match error.reason() {
            // Of a session that is over, or deleted with its parent.
            Some(Reason::NoNode) if self.exists => self.exists = false,
            // Made by a transaction whose answer nobody has heard.
            Some(Reason::NodeExists) if !self.exists => self.exists = true,
            _ => return false,
        }
        true
    }

    /// Whether the last transaction was applied, from the mark's data.
    pub(crate) fn is_of_last_write(&self, data: &[u8]) -> bool {
        *data == *self.write.to_string().as_bytes()
    }
}
