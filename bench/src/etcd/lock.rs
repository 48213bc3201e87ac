//! etcd's lock, call by call as its client library's `concurrency` package takes and releases it
//! (version 3.4, `mutex.go` and `key.go`): a key with a lease, the order of creation, and a watch on
//! the youngest key that is older.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::channel::{Channel, WatchStream};
use super::load::block_on;
use super::message::{self, Enqueued, First, Method, Range, RangeReply};
use crate::driver::Outcome;
use crate::error::BenchError;
use crate::lock::{self, Contest, Crowd};
use crate::run::Target;
use crate::session::SILENCE_MAX;
use crate::wire::Paths;

/// The package's default. It renews a lease after a third of that, which is longer than a run.
const LEASE_SECONDS: u64 = 60;

/// Lets a crowd contend, spread evenly over the target's servers.
pub(crate) fn contend(
    Target { servers, pids }: Target<'_>,
    crowd: Crowd,
    warmup: Duration,
    span: Duration,
) -> Result<(Outcome, Option<Duration>), BenchError> {
    let root = Paths::unique().root;
    let count = crowd.locks * crowd.contenders;
    block_on(warmup + span + SILENCE_MAX, async {
        let mut contenders = Vec::with_capacity(count);
        for (index, server) in servers.iter().cycle().take(count).enumerate() {
            let prefix = format!("{root}-{}/", index / crowd.contenders);
            contenders.push(Contender::new(*server, &prefix).await?);
        }
        lock::contend(contenders, crowd, pids, warmup, span, Contender::contend).await
    })
}

struct Contender {
    channel: Channel,
    watches: WatchStream,
    lease: u64,
    prefix: String,
    prefix_end: Vec<u8>,
    key: String,
}

impl Contender {
    async fn new(server: SocketAddr, prefix: &str) -> Result<Self, BenchError> {
        let channel = Channel::connect(server).await?;
        let grant = message::lease_grant(LEASE_SECONDS);
        let lease = channel
            .ask(Method::LeaseGrant, grant, message::lease_of)
            .await?;
        let watches = channel.watch().await?;
        Ok(Self {
            channel,
            watches,
            lease,
            prefix: prefix.to_owned(),
            prefix_end: message::prefix_end(prefix.as_bytes()),
            key: format!("{prefix}{lease:x}"),
        })
    }

    async fn contend(mut self, contest: Rc<RefCell<Contest>>) -> Result<(), BenchError> {
        while !contest.borrow().is_over() {
            self.lock().await?;
            contest.borrow_mut().acquire()?;
            contest.borrow_mut().release();
            let delete = message::delete_range(self.key.as_bytes(), &[]);
            self.channel
                .ask(Method::DeleteRange, delete, message::header)
                .await?;
        }
        let revoke = message::lease_revoke(self.lease);
        self.channel
            .ask(Method::LeaseRevoke, revoke, message::header)
            .await?;
        Ok(())
    }

    async fn lock(&mut self) -> Result<(), BenchError> {
        let prefix = self.prefix.as_bytes();
        let enqueue = message::enqueue(self.key.as_bytes(), self.lease, prefix, &self.prefix_end);
        let enqueued = self
            .channel
            .ask(Method::Txn, enqueue, Enqueued::decode)
            .await?;
        if enqueued.is_owner {
            return Ok(());
        }
        loop {
            let mut older = Range::key(self.prefix.as_bytes());
            older.end = &self.prefix_end;
            older.first = First::YoungestCreated;
            older.create_revision_max = enqueued.own_revision - 1;
            let older = older.encode();
            let found = self
                .channel
                .ask(Method::Range, older, RangeReply::decode)
                .await?;
            let Some(before) = found.first else {
                return Ok(());
            };
            self.wait_until_deleted(&before.key, found.header.revision)
                .await?;
        }
    }

    async fn wait_until_deleted(&mut self, key: &[u8], revision: u64) -> Result<(), BenchError> {
        self.watches.send(message::watch_create(key, revision))?;
        let mut watch = None;
        loop {
            let reply = self.watches.next().await?;
            if reply.created && watch.is_none() {
                watch = Some(reply.watch);
            }
            // The others' are late, of watches that were ended.
            if watch != Some(reply.watch) {
                continue;
            }
            if reply.canceled {
                let why = "it ends the watch";
                let doing = Method::Watch.path();
                return Err(BenchError::EtcdReply { doing, why });
            }
            if reply.deleted {
                return self.watches.send(message::watch_cancel(reply.watch));
            }
        }
    }
}
