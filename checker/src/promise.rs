//! The promises by name. `docs/guarantees.md` has the same names, and what each means for a user.
//!
//! A [`Violation`] names the promise that was broken, so that a failing run says at once what is at
//! stake. Each promise has at least one spoilt history among the tests that must break it.

use std::fmt;

macro_rules! promises {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $invariants:literal;)*) => {
        /// What a server promises, as far as its clients, its log and its replicas can show it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Promise {
            $($(#[$doc])* $variant,)*
        }

        impl Promise {
            /// Every promise.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As `docs/guarantees.md` has it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The numbers of the invariants behind it.
            #[must_use]
            pub fn invariants(self) -> &'static str {
                match self {
                    $(Self::$variant => $invariants,)*
                }
            }
        }
    };
}

promises! {
    /// A write that was acknowledged is in the log, at the zxid of the reply, and in the end.
    AcknowledgedWritesSurvive = "durability.acknowledged-writes-survive", "I1 I3";
    /// A write is done at most once, and not at all if it was refused or never asked for.
    NothingIsDoneTwice = "durability.nothing-is-done-twice", "I2";
    /// What was committed has one order: zxids and terms never go back.
    OneOrder = "durability.one-order", "I4";
    /// A multi is done whole or not at all, at one zxid.
    MultiIsAtomic = "consistency.multi-is-atomic", "I5";
    /// Writes take effect at one moment between question and answer.
    WritesAreLinearizable = "consistency.writes-are-linearizable", "I6";
    /// What is read after a sync is not older than anything that was answered before the sync.
    SyncIsABarrier = "consistency.sync-is-a-barrier", "I7";
    /// The answer to a write is what its place in the log makes of it.
    WritesAnswerTruly = "consistency.writes-answer-truly", "I2 I11";
    /// A read shows the committed state of exactly the zxid in its reply.
    ReadsShowTheirZxid = "consistency.reads-show-their-zxid", "I10 I11";
    /// Requests of a session are answered and done in the order in which they were sent.
    SessionOrder = "order.session-order", "I8";
    /// No session sees the past after it saw the present, on any server.
    NoGoingBack = "order.no-going-back", "I9";
    /// Numbers of sequential znodes under one parent never repeat and never go back.
    NumbersNeverRepeat = "numbers.never-repeat", "I12";
    /// An ephemeral is there as long as its session, no longer and no shorter.
    EphemeralsLiveWithTheirSession = "ephemerals.live-with-their-session", "I13";
    /// No session expires within its timeout after a touch that was acknowledged.
    NoEarlyExpiry = "sessions.no-early-expiry", "I14 I18";
    /// A session that is silent for long enough ends.
    NoImmortals = "sessions.no-immortals", "I15";
    /// Nothing is done for a session that has ended, and it cannot be resumed.
    EndedIsEnded = "sessions.ended-is-ended", "I16";
    /// Session ids never repeat, and resuming takes a log entry with the right password.
    IdsAreUnique = "sessions.ids-are-unique", "I17";
    /// Fencing tokens of one lock never repeat, and never go back for one client.
    TokensIncrease = "fencing.tokens-increase", "I19";
    /// A write guarded by a token is refused once a later one was let through.
    OldTokensAreRefused = "fencing.old-tokens-are-refused", "I19";
    /// A change fires a one-shot watch exactly once, and every change a persistent one.
    WatchesFire = "watches.every-change-once", "I20 I23 I25";
    /// No event comes for what did not happen, or was not watched.
    NoFalseEvents = "watches.nothing-else", "I20 I22";
    /// The event comes before any reply that shows the change or a later state.
    EventsComeFirst = "watches.before-the-data", "I21";
    /// Events come in the order of their changes.
    EventsInOrder = "watches.in-order", "I22";
    /// No event shows a path to somebody who may not read it.
    EventsRespectAcls = "watches.respect-acls", "I24";
    /// A watch set again after a reconnect makes up for what happened meanwhile.
    WatchesSurviveReconnects = "watches.survive-reconnects", "I20 I25";
    /// Servers that have applied the same have the same.
    ReplicasAgree = "replicas.agree", "I26 I27";
    /// Nobody loses a connection to a server that nothing happened to.
    SurvivorsKeepTheirClients = "connections.survivors-keep-their-clients", "decision 5";
    /// Answers come, and make sense.
    AnswersMakeSense = "connections.answers-make-sense", "I8 I34";
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A promise that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub promise: Promise,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}
