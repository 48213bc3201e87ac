//! What can go wrong with a test's ensemble, as opposed to what the test does to it.

use std::io;
use std::time::Duration;

use quorate_server::StartError;
use quorate_server::config::ConfigError;

/// Why an ensemble did not do what a test asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine has no port to give.
    #[error("no port can be had on 127.0.0.1 ({0}): close some sockets of this machine")]
    Port(#[source] io::Error),
    /// The machine has no room for the servers' files.
    #[error("no folder for the servers' data can be made ({0}): check TMPDIR")]
    Folder(#[source] io::Error),
    /// The machine has no thread to give.
    #[error("no thread for a server can be had ({0})")]
    Thread(#[source] io::Error),
    /// An ensemble cannot be of this size.
    #[error("an ensemble has 1 to {max} servers, not {asked}", max = crate::builder::SERVERS_MAX)]
    Size {
        /// What was asked for.
        asked: usize,
    },
    /// A setting that the ensemble makes for each server itself.
    #[error("{key} is set by the ensemble itself: remove it")]
    OwnKey {
        /// The key, as it was given.
        key: String,
    },
    /// A setting that no server knows.
    #[error("no server knows the setting {key}: correct its name, or remove it")]
    UnknownKey {
        /// The key, as it was given.
        key: String,
    },
    /// A setting that no server takes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A server did not come up.
    #[error("server {server} does not start: {source}")]
    Start {
        /// Which.
        server: u64,
        /// Why.
        source: StartError,
    },
    /// A server ended where it should not have: by a panic, or because its disk has failed.
    #[error("server {server} has ended by itself; its log says why")]
    Ended {
        /// Which.
        server: u64,
    },
    /// A server was to be started that is up.
    #[error("server {server} is running already: stop or kill it first")]
    Running {
        /// Which.
        server: u64,
    },
    /// A server was to be stopped that is down.
    #[error("server {server} is not running: start it first")]
    NotRunning {
        /// Which.
        server: u64,
    },
    /// 0 stands for no session.
    #[error("0 is no session id: open a session first")]
    NoSession,
    /// It did not come about in time.
    #[error("waited {patience:?} for {what}")]
    Late {
        /// What did not come about.
        what: String,
        /// How long it was waited for.
        patience: Duration,
    },
}
