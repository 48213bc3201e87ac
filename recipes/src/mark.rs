//! The mark by which a handle recognises its own transactions.
//!
//! An ephemeral child of the recipe's znode, whose data is the number of the last transaction of the
//! handle that sets it. What else the transaction does is done exactly if the mark has its number.

use quorate_client::{AclEntry, Client, Error as ClientError, Reason, SessionId, Transaction};
use tokio::runtime::Handle;

/// What the name of a mark begins with, before 32 hexadecimal digits.
const PREFIX: &str = "own-";

/// Whether a child is somebody's mark.
pub(crate) fn is_mark(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// The name of a new mark.
pub(crate) fn new_name(client: &Client) -> String {
    format!("{PREFIX}{:032x}", client.randomness().number())
}

/// The mark of a handle: deleted when this is dropped, so that handles that come and go in one session
/// leave nothing.
#[derive(Debug)]
pub(crate) struct Mark {
    client: Client,
    /// Where the last transaction was sent from.
    runtime: Option<Handle>,
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
    pub(crate) fn new(client: &Client, path: &str) -> Self {
        Self {
            client: client.clone(),
            runtime: None,
            path: format!("{path}/{}", new_name(client)),
            exists: false,
            write: 0,
            session: None,
        }
    }

    /// Begins a transaction, to be sent in this session.
    pub(crate) fn next(&mut self, session: Option<SessionId>) {
        self.write += 1;
        self.runtime = Handle::try_current().ok();
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

impl Drop for Mark {
    fn drop(&mut self) {
        // Nothing was sent, or it went with its session.
        let Some(runtime) = &self.runtime else {
            return;
        };
        if self.client.session() != self.session {
            return;
        }
        // Whoever drops it may be outside of the runtime. Sent behind all transactions that make it.
        let _runtime = runtime.enter();
        drop(self.client.delete(&self.path).guaranteed().send());
    }
}
