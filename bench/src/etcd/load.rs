//! etcd's side of the measuring: the keys a run works on, and a closed loop over them.
//!
//! As with ZooKeeper's protocol: every client is a connection that keeps a fixed number of calls
//! outstanding, each on a stream of its own; each reply is checked and followed by a new call; all
//! of it on one thread.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::{JoinSet, LocalSet};

use super::channel::Channel;
use super::message::{self, Method, Range, RangeReply};
use crate::driver::Outcome;
use crate::error::BenchError;
use crate::process;
use crate::run::Target;
use crate::session::SILENCE_MAX;
use crate::tally::Tally;
use crate::wire::Paths;
use crate::workload::{Random, Shape, place};

/// Calls outstanding while filling and cleaning up.
const FILL_OUTSTANDING: usize = 100;

/// More than the 100 ms between etcd's commits.
const COMMIT_INTERVAL: Duration = Duration::from_millis(150);

/// An operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyOp {
    /// Of a new key.
    Create,
    /// Of a key that exists.
    Set,
    Get,
    /// The key's versions without its value.
    Exists,
    LinearizableGet,
}

/// Keys of a run's own.
#[derive(Debug)]
pub(crate) struct Keys {
    servers: Vec<SocketAddr>,
    paths: Paths,
    shape: Shape,
    created_until: u32,
}

/// Runs `work` on this thread. Whatever tasks it leaves end with it.
pub(crate) fn block_on<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::io("starting a runtime"))?;
    let bounded = async { tokio::time::timeout(patience, work).await };
    let stalled = |_| BenchError::Stalled {
        seconds: patience.as_secs(),
    };
    LocalSet::new()
        .block_on(&runtime, bounded)
        .map_err(stalled)?
}

impl Keys {
    /// Puts the keys. Every server has them afterwards.
    pub(crate) fn make(servers: &[SocketAddr], shape: Shape) -> Result<Self, BenchError> {
        let keys = Self {
            servers: servers.to_vec(),
            paths: Paths::unique(),
            shape,
            created_until: shape.keys,
        };
        let value = vec![b'd'; shape.data_bytes];
        let puts = (0..shape.keys).map(|key| (Method::Put, message::put(&keys.key(key), &value)));
        keys.call_all(puts.collect())?;
        keys.settle()?;
        Ok(keys)
    }

    fn first_server(&self) -> Result<SocketAddr, BenchError> {
        let server = self.servers.first();
        server
            .copied()
            .ok_or(BenchError::Usage("at least one server"))
    }

    fn key(&self, number: u32) -> Vec<u8> {
        let (parent, child) = place(number, self.shape.parents);
        self.paths.child(parent, child).into_bytes()
    }

    /// Deletes what runs created beyond the keys.
    pub(crate) fn remove_created(&mut self) -> Result<(), BenchError> {
        let deletes = (0..self.shape.parents).map(|parent| {
            let from = self.paths.child(parent, self.shape.keys);
            let end = message::prefix_end(format!("{}/", self.paths.parent(parent)).as_bytes());
            (
                Method::DeleteRange,
                message::delete_range(from.as_bytes(), &end),
            )
        });
        self.call_all(deletes.collect())?;
        self.created_until = self.shape.keys;
        self.settle()
    }

    /// Makes all calls, many at a time, with one of the servers.
    fn call_all(&self, calls: Vec<(Method, Bytes)>) -> Result<(), BenchError> {
        let server = self.first_server()?;
        block_on(SILENCE_MAX, async {
            let channel = Rc::new(Channel::connect(server).await?);
            let calls = Rc::new(RefCell::new(calls.into_iter()));
            let mut clients = JoinSet::new();
            for _ in 0..FILL_OUTSTANDING {
                let (channel, calls) = (channel.clone(), calls.clone());
                clients.spawn_local(async move {
                    loop {
                        let call = calls.borrow_mut().next();
                        let Some((method, message)) = call else {
                            return Ok(());
                        };
                        channel.ask(method, message, message::header).await?;
                    }
                });
            }
            join(clients).await
        })
    }

    /// Has etcd let go of what it keeps of the last writes.
    ///
    /// In version 3.4 every read copies a buffer as long as the last burst of writes, until a
    /// commit, of which there is one every 100 ms if there is something to commit, that has no key
    /// in it. Granting a lease makes for one. Without this a read costs some multiple, and how much
    /// depends on what was measured before.
    pub(crate) fn let_go_of_writes(&self) -> Result<(), BenchError> {
        block_on(SILENCE_MAX, async {
            let channel = Channel::connect(self.first_server()?).await?;
            // What is pending goes first; and all servers grant it.
            tokio::time::sleep(COMMIT_INTERVAL).await;
            let grant = message::lease_grant(60);
            let lease = channel
                .ask(Method::LeaseGrant, grant, message::lease_of)
                .await?;
            tokio::time::sleep(COMMIT_INTERVAL).await;
            let revoke = message::lease_revoke(lease);
            channel
                .ask(Method::LeaseRevoke, revoke, message::header)
                .await?;
            tokio::time::sleep(COMMIT_INTERVAL).await;
            Ok(())
        })
    }

    /// A linearizable read returns once the server has applied all that was acknowledged before.
    fn settle(&self) -> Result<(), BenchError> {
        let range = Range::key(self.paths.root.as_bytes()).encode();
        block_on(SILENCE_MAX, async {
            for server in &self.servers {
                let channel = Channel::connect(*server).await?;
                let call = channel.ask(Method::Range, range.clone(), message::header);
                call.await?;
            }
            Ok(())
        })
    }

    /// Drives the target, with the clients spread evenly over its servers. Returns also the
    /// processor time they used from the start of the warm-up until the last reply.
    pub(crate) fn drive(
        &mut self,
        target: Target<'_>,
        op: KeyOp,
        (clients, outstanding): (usize, usize),
        warmup: Duration,
        span: Duration,
    ) -> Result<(Outcome, Option<Duration>), BenchError> {
        let patience = warmup + span + SILENCE_MAX;
        block_on(patience, async {
            let mut channels = Vec::with_capacity(clients);
            for server in target.servers.iter().cycle().take(clients) {
                channels.push(Rc::new(Channel::connect(*server).await?));
            }
            let load = Rc::new(RefCell::new(Load {
                op,
                paths: self.paths.clone(),
                shape: self.shape,
                value: vec![b'd'; self.shape.data_bytes],
                next_created: self.created_until,
                random: Random::new(1),
            }));
            let cpu_from = process::cpu_of(target.pids)?;
            let tally = Tally::new(warmup, span).shared();
            let mut streams = JoinSet::new();
            // In turn, so that the first calls of all clients are spread as well.
            for _ in 0..outstanding {
                for channel in &channels {
                    let (channel, load, tally) = (channel.clone(), load.clone(), tally.clone());
                    streams.spawn_local(keep_calling(channel, load, tally));
                }
            }
            let ended = join(streams).await;
            self.created_until = load.borrow().next_created;
            ended?;
            let cpu = process::cpu_of(target.pids)?.zip(cpu_from);
            let tally = Rc::into_inner(tally).expect("the streams have ended");
            let outcome = tally.into_inner().into_outcome();
            Ok((outcome, cpu.map(|(to, from)| to - from)))
        })
    }
}

/// Waits for all; the first error ends the others.
pub(crate) async fn join(mut clients: JoinSet<Result<(), BenchError>>) -> Result<(), BenchError> {
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client returns its errors and does not panic")?;
    }
    Ok(())
}

#[derive(Debug)]
struct Load {
    op: KeyOp,
    paths: Paths,
    shape: Shape,
    value: Vec<u8>,
    next_created: u32,
    random: Random,
}

impl Load {
    fn next(&mut self) -> (Method, Bytes) {
        let number = if self.op == KeyOp::Create {
            let number = self.next_created;
            self.next_created = number.wrapping_add(1);
            number
        } else {
            self.random.below(self.shape.keys)
        };
        let (parent, child) = place(number, self.shape.parents);
        let key = self.paths.child(parent, child);
        let key = key.as_bytes();
        let mut range = Range::key(key);
        range.serializable = self.op != KeyOp::LinearizableGet;
        range.keys_only = self.op == KeyOp::Exists;
        match self.op {
            KeyOp::Create | KeyOp::Set => (Method::Put, message::put(key, &self.value)),
            _ => (Method::Range, range.encode()),
        }
    }

    /// Whether a reply can be right, so that a server cannot be fast by answering nonsense.
    fn check(&self, reply: &[u8]) -> Result<(), message::BadReply> {
        let value_bytes = match self.op {
            KeyOp::Create | KeyOp::Set => return message::header(reply).map(|_| ()),
            KeyOp::Exists => 0,
            KeyOp::Get | KeyOp::LinearizableGet => self.shape.data_bytes,
        };
        match RangeReply::decode(reply)?.first {
            Some(found) if found.value_bytes == value_bytes => Ok(()),
            Some(_) => Err(message::BadReply(
                "the value has not the length it was put with",
            )),
            None => Err(message::BadReply("it does not find a key that exists")),
        }
    }
}

async fn keep_calling(
    channel: Rc<Channel>,
    load: Rc<RefCell<Load>>,
    tally: Rc<RefCell<Tally>>,
) -> Result<(), BenchError> {
    while !tally.borrow().is_over() {
        let (method, message) = load.borrow_mut().next();
        let from = Instant::now();
        let check = |reply: &[u8]| load.borrow().check(reply);
        channel.ask(method, message, check).await?;
        tally.borrow_mut().record(from, Instant::now());
    }
    Ok(())
}
