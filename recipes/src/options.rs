//! What all recipes that grant something can be told.

use std::sync::Arc;
use std::time::Duration;

use quorate_client::{Client, LeaseKeeper};

use crate::contenders::Contenders;
use crate::directory::Kind;
use crate::metrics::Metrics;
use crate::naming::Naming;
use crate::timing::{Schedule, Timing, TimingError};

/// What becomes of those who wait when their session is over, or their place is taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnSessionLoss {
    /// They join again, at the end of the line, as soon as there is a new session. With
    /// [`quorate_client::OnExpiry::Stay`] there will be none, and they fail.
    #[default]
    Requeue,
    /// They fail.
    Fail,
}

/// What happens if the work still runs when the session may end. Work that awaits is dropped before;
/// this is about work that does not, and so cannot be dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overrun {
    /// It goes on. Its writes are refused where they carry the token.
    #[default]
    Tolerate,
    /// The process is aborted, by a thread of its own, before the session can end; half a margin
    /// after the loss if the znode was deleted. A [`Guard`](crate::Guard) that is not dropped counts
    /// as work.
    Abort,
}

/// See [`options`].
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) line: Contenders,
    pub(crate) identity: Option<String>,
    pub(crate) naming: Naming,
    pub(crate) lock_delay: Duration,
    pub(crate) on_session_loss: OnSessionLoss,
    pub(crate) overrun: Overrun,
    pub(crate) timing: Timing,
    pub(crate) metrics: Option<Arc<dyn Metrics>>,
    /// A lease that is not kept runs out at its first deadline.
    _keeper: Arc<LeaseKeeper>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("path", &self.line.path)
            .field("identity", &self.identity)
            .field("naming", &self.naming)
            .finish_non_exhaustive()
    }
}

impl Options {
    pub(crate) fn new(client: &Client, path: &str, kind: Kind) -> Self {
        Self {
            line: Contenders::new(client, path, kind),
            identity: None,
            naming: Naming::default(),
            lock_delay: Duration::ZERO,
            on_session_loss: OnSessionLoss::default(),
            overrun: Overrun::default(),
            timing: Timing::default(),
            metrics: None,
            _keeper: Arc::new(client.keep_lease()),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.line.client
    }

    /// # Errors
    ///
    /// The timings do not fit the session that there is now.
    pub(crate) fn schedule(&self) -> Result<Schedule, TimingError> {
        self.timing.of(self.client().session_timeout())
    }
}

/// The methods that set what `self.options` holds.
macro_rules! options {
    ($name:ident) => {
        impl $name {
            /// What others see of us. The session's id unless told otherwise.
            #[must_use]
            pub fn identity(mut self, identity: impl Into<String>) -> Self {
                self.options.identity = Some(identity.into());
                self
            }

            /// Who may do what with our znodes. Everybody everything, by default.
            #[must_use]
            pub fn acl(mut self, acl: impl Into<Vec<quorate_client::AclEntry>>) -> Self {
                self.options.line.acl = acl.into();
                self
            }

            /// What happens to us while we wait and our session ends.
            #[must_use]
            pub fn on_session_loss(mut self, policy: $crate::OnSessionLoss) -> Self {
                self.options.on_session_loss = policy;
                self
            }

            /// What happens to work that does not let itself be stopped.
            #[must_use]
            pub fn overrun(mut self, overrun: $crate::Overrun) -> Self {
                self.options.overrun = overrun;
                self
            }

            /// How the session's timeout is divided.
            ///
            /// # Errors
            ///
            /// [`Error::Timing`](crate::Error::Timing): they contradict each other, or do not fit the
            /// session.
            pub fn timing(mut self, timing: $crate::Timing) -> Result<Self, $crate::Error> {
                self.options.timing = timing;
                self.options.schedule()?;
                Ok(self)
            }

            /// Whom to tell of grants and losses.
            #[must_use]
            pub fn metrics(mut self, metrics: std::sync::Arc<dyn $crate::Metrics>) -> Self {
                self.options.metrics = Some(metrics);
                self
            }
        }
    };
}

pub(crate) use options;
