//! Faults that wait for a request to strike.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_protocol::OpCode;
use tokio::sync::watch;

use crate::Error;
use crate::stage::Director;

/// The requests that a fault may strike. It strikes the first of them that comes, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Which {
    /// Any request but pings, which come at any time.
    Any,
    /// Those that ask for this. A ping has to be meant to be struck.
    Op(OpCode),
    /// Those that change znodes: creates, deletes, `setData`, `setACL`, `multi`.
    Write,
    /// The request that opens or resumes a session, the first on each connection.
    Handshake,
}

impl From<OpCode> for Which {
    fn from(op: OpCode) -> Self {
        Self::Op(op)
    }
}

/// A request, as far as faults are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Handshake,
    /// `None`: an operation that the protocol does not know.
    Request(Option<OpCode>),
}

impl Which {
    fn strikes(self, kind: Kind) -> bool {
        match (self, kind) {
            (Self::Handshake, kind) => kind == Kind::Handshake,
            (_, Kind::Handshake) => false,
            (Self::Any, Kind::Request(op)) => op != Some(OpCode::Ping),
            (Self::Op(meant), Kind::Request(op)) => op == Some(meant),
            (Self::Write, Kind::Request(op)) => op.is_some_and(is_write),
        }
    }
}

fn is_write(op: OpCode) -> bool {
    matches!(
        op,
        OpCode::Create
            | OpCode::Create2
            | OpCode::CreateContainer
            | OpCode::CreateTtl
            | OpCode::Delete
            | OpCode::SetData
            | OpCode::SetAcl
            | OpCode::Multi
    )
}

/// How a reply is spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Corruption {
    /// It answers a request that was never sent.
    WrongXid,
    /// Its frame is whole, and ends in the middle of the reply.
    Truncated,
    /// Its frame announces a length that cannot be.
    BadLength,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Counts the request, and does nothing to it.
    Pass,
    CutBefore,
    CutAfter,
    Withhold,
    Corrupt(Corruption),
}

/// A fault that was asked for. It strikes once, also when this handle is gone.
#[derive(Debug)]
pub struct Fault {
    id: u64,
    faults: Faults,
    which: Which,
    happened: watch::Receiver<bool>,
    director: Director,
}

impl Fault {
    /// Waits until the fault has struck: until then, the test that asked for it has tested nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Late`]: no request came that it could strike.
    pub async fn happened(&self) -> Result<(), Error> {
        let mut happened = self.happened.clone();
        let what = format!("a fault to strike {:?}", self.which);
        let struck = async move {
            // An end of the proxy is an end of the test.
            happened.wait_for(|happened| *happened).await.ok();
            Ok(())
        };
        self.director.run(what, struck).await
    }

    /// Whether the fault has struck.
    pub fn has_happened(&self) -> bool {
        *self.happened.borrow()
    }

    /// Takes the fault back. Returns whether it was in time.
    pub fn disarm(self) -> bool {
        self.faults.remove(self.id)
    }
}

/// A fault on its way to strike.
#[derive(Debug)]
pub(super) struct Armed {
    id: u64,
    which: Which,
    pub(super) action: Action,
    told: watch::Sender<bool>,
}

impl Armed {
    /// It has struck.
    pub(super) fn happened(&self) {
        self.told.send_replace(true);
    }
}

/// The faults of one server's proxy, in the order in which they were asked for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_id: u64,
    armed: VecDeque<Armed>,
}

impl Faults {
    pub(super) fn arm(&self, which: Which, action: Action, director: Director) -> Fault {
        let (told, happened) = watch::channel(false);
        let mut waiting = self.waiting.lock();
        let id = waiting.next_id;
        waiting.next_id += 1;
        waiting.armed.push_back(Armed {
            id,
            which,
            action,
            told,
        });
        Fault {
            id,
            faults: self.clone(),
            which,
            happened,
            director,
        }
    }

    /// Takes the fault that is to strike this request.
    pub(super) fn take(&self, kind: Kind) -> Option<Armed> {
        let mut waiting = self.waiting.lock();
        let strikes = |armed: &Armed| armed.which.strikes(kind);
        let at = waiting.armed.iter().position(strikes)?;
        waiting.armed.remove(at)
    }

    pub(super) fn clear(&self) {
        self.waiting.lock().armed.clear();
    }

    fn remove(&self, id: u64) -> bool {
        let mut waiting = self.waiting.lock();
        let at = waiting.armed.iter().position(|armed| armed.id == id);
        at.and_then(|at| waiting.armed.remove(at)).is_some()
    }
}
