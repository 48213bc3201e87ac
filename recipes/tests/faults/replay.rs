//! A run of several clients with their recipes is repeated exactly: from the same seed they send the
//! same bytes at the same moments, through lost connections and all.
//!
//! The server is the replicated state, and what it takes to ask it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex as Shared;
use quorate_client::environment::{Clock, Connection, Connector, Pending};
use quorate_client::{Client, Host};
use quorate_protocol::frame::{FrameCodec, write_frame};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::request::SetWatches2;
use quorate_protocol::{
    ErrorCode, EventType, OpCode, Password, ReplyHeader, Request, RequestHeader, Response,
    SessionId, WatcherEvent, Xid, Zxid, jute,
};
use quorate_recipes::{Counter, DelayQueue, Election, Mutex};
use quorate_state::{
    Action, Command, Connection as Socket, Origin, Query, Reader, Reply, Rules, State, WatchKind,
    WatchTable, Write, rearm,
};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::runtime::{Builder, RngSeed};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// After so many requests a connection is closed, in turn: before the request is looked at, or after
/// it was done.
const REQUESTS: [usize; 4] = [17, 60, 31, 90];
const CLIENTS: u64 = 3;
const ROUNDS: i64 = 4;

/// What was done, by which client, and when since the beginning.
type Trace = Vec<(Duration, u64, String)>;

struct World {
    began: Instant,
    trace: Trace,
    state: State,
    watches: WatchTable,
    /// Of all connections there ever were.
    outboxes: BTreeMap<u64, mpsc::UnboundedSender<BytesMut>>,
}

/// One connection, as the server sees it.
struct Peer {
    number: u64,
    session: Option<SessionId>,
    sequence: u64,
}

impl World {
    fn apply(&mut self, peer: &mut Peer, action: Action) -> Reply {
        let zxid = Zxid(self.state.last_zxid().0 + 1);
        let origin = Origin {
            connection: Socket {
                server: 1,
                number: peer.number,
            },
            sequence: peer.sequence,
        };
        peer.sequence += 1;
        let command = Command {
            time_ms: 0,
            origin,
            rules: Rules::default(),
            action,
        };
        let applied = self.state.apply(zxid, command);
        let outboxes = &self.outboxes;
        self.watches.trigger(&applied.changes, &mut |event| {
            tell(&outboxes[&event.connection], zxid, event.kind, event.path);
        });
        applied.reply
    }

    fn connect(&mut self, peer: &mut Peer, request: &ConnectRequest) -> ConnectResponse {
        let action = match request.session_id {
            None => Action::OpenSession {
                timeout_ms: request.timeout_ms,
                password: Password::default(),
            },
            Some(session) => Action::AttachSession {
                session,
                password: request.password.clone().unwrap_or_default().into(),
                timeout_ms: request.timeout_ms,
            },
        };
        let Reply::Session(Some(grant)) = self.apply(peer, action) else {
            panic!("no session expires here");
        };
        peer.session = Some(grant.session);
        ConnectResponse {
            protocol_version: 0,
            timeout_ms: grant.timeout_ms,
            session_id: peer.session,
            password: grant.password,
            read_only: Some(false),
        }
    }

    fn write(&mut self, peer: &mut Peer, xid: Xid, write: Write) -> BytesMut {
        let action = Action::Write {
            session: peer.session.unwrap(),
            identities: Arc::new([]),
            write,
        };
        let Reply::Write(result) = self.apply(peer, action) else {
            panic!("each write is the next of its connection");
        };
        reply(
            xid,
            self.state.last_zxid(),
            result.as_ref().map_err(|error| error.code()),
        )
    }

    fn read(&mut self, peer: &Peer, xid: Xid, query: &Query) -> BytesMut {
        let reader = Reader {
            identities: &[],
            session: peer.session.unwrap(),
            skip_acl: true,
        };
        let read = self.state.read(query, &reader);
        reply(
            xid,
            self.state.last_zxid(),
            read.as_ref().map_err(|error| error.code()),
        )
    }

    fn watch(&mut self, peer: &Peer, path: &str, watch: bool, kind: WatchKind) {
        if watch {
            self.watches.add(peer.number, path, kind);
        }
    }

    fn set_watches(&mut self, peer: &Peer, xid: Xid, request: &SetWatches2) -> BytesMut {
        let reader = Reader {
            identities: &[],
            session: peer.session.unwrap(),
            skip_acl: true,
        };
        let (state, zxid) = (&self.state, self.state.last_zxid());
        let lookup = |path: &str| {
            let path = path.to_owned();
            match state.read(&Query::Exists { path }, &reader) {
                Ok(Response::Stat(stat)) => Some(stat),
                _ => None,
            }
        };
        let outbox = &self.outboxes[&peer.number];
        let deliver = |kind, path: &str| tell(outbox, Zxid::ZERO, kind, path);
        rearm(&mut self.watches, peer.number, request, lookup, deliver);
        reply(xid, zxid, Ok(&Response::Empty))
    }

    fn answer(&mut self, peer: &mut Peer, xid: Xid, request: Request) -> BytesMut {
        let zxid = self.state.last_zxid();
        let done = |response: &Response<'_>| reply(xid, zxid, Ok(response));
        match request {
            Request::Create2(r) => self.write(peer, xid, Write::Create2(r)),
            Request::Delete(r) => self.write(peer, xid, Write::Delete(r)),
            Request::SetData(r) => self.write(peer, xid, Write::SetData(r)),
            Request::Multi(r) => self.write(peer, xid, Write::Multi(r)),
            Request::MultiRead(r) => self.read(peer, xid, &Query::MultiRead(r)),
            Request::Exists(r) => {
                self.watch(peer, &r.path, r.watch, WatchKind::Data);
                self.read(peer, xid, &Query::Exists { path: r.path })
            }
            Request::GetData(r) => {
                self.watch(peer, &r.path, r.watch, WatchKind::Data);
                self.read(peer, xid, &Query::GetData { path: r.path })
            }
            Request::GetChildren2(r) => {
                self.watch(peer, &r.path, r.watch, WatchKind::Child);
                self.read(peer, xid, &Query::GetChildren2 { path: r.path })
            }
            Request::AddWatch(r) => {
                let kind = WatchKind::from_add_watch_mode(r.mode).unwrap();
                self.watch(peer, &r.path, true, kind);
                done(&Response::Empty)
            }
            Request::SetWatches2(r) => self.set_watches(peer, xid, &r),
            Request::SetWatches(r) => {
                let request = SetWatches2 {
                    relative_zxid: r.relative_zxid,
                    data: r.data,
                    exist: r.exist,
                    child: r.child,
                    persistent: Vec::new(),
                    persistent_recursive: Vec::new(),
                };
                self.set_watches(peer, xid, &request)
            }
            Request::Sync(r) => done(&Response::Path(r.path.into())),
            Request::PingWithQuestion => done(&Response::Proof),
            Request::CloseSession => {
                let session = peer.session.unwrap();
                self.apply(peer, Action::CloseSession { session });
                reply(xid, self.state.last_zxid(), Ok(&Response::Empty))
            }
            // Watches that nobody waits for any more are told to nobody.
            Request::RemoveWatches(_) => done(&Response::Empty),
            other => panic!("no recipe here asks for {other:?}"),
        }
    }
}

fn reply(xid: Xid, zxid: Zxid, result: Result<&Response<'_>, ErrorCode>) -> BytesMut {
    let mut out = BytesMut::new();
    write_frame(&mut out, |out| {
        let err = result.err().map_or(0, ErrorCode::code);
        jute::encode(&ReplyHeader { xid, zxid, err }, out)?;
        result.map_or(Ok(()), |response| response.encode(out))
    })
    .unwrap();
    out
}

fn tell(outbox: &mpsc::UnboundedSender<BytesMut>, zxid: Zxid, kind: EventType, path: &str) {
    let mut out = BytesMut::new();
    write_frame(&mut out, |out| {
        let header = ReplyHeader {
            xid: Xid::NOTIFICATION,
            zxid,
            err: 0,
        };
        jute::encode(&header, out)?;
        jute::encode(&WatcherEvent::new(kind, path), out)
    })
    .unwrap();
    // Of a connection that is gone.
    outbox.send(out).ok();
}

/// `None` when the connection is over.
async fn serve(world: Arc<Shared<World>>, mut stream: DuplexStream, number: u64) -> Option<()> {
    let (outbox, mut out) = mpsc::unbounded_channel();
    world.lock().outboxes.insert(number, outbox.clone());
    let mut peer = Peer {
        number,
        session: None,
        sequence: 0,
    };
    let left = REQUESTS[usize::try_from(number).ok()? % REQUESTS.len()];
    let codec = FrameCodec::new(1 << 20);
    let mut input = BytesMut::new();
    let mut asked = 0;
    loop {
        while let Some(frame) = codec.next_frame(&mut input).unwrap() {
            tokio::time::sleep(Duration::from_micros(300)).await;
            asked += 1;
            if asked == left && number.is_multiple_of(2) {
                return None;
            }
            let frame: Bytes = frame.freeze();
            let answer = if asked == 1 {
                let request = ConnectRequest::decode(&frame).unwrap();
                let response = world.lock().connect(&mut peer, &request);
                let mut out = BytesMut::new();
                write_frame(&mut out, |out| response.encode(out)).unwrap();
                out
            } else {
                let header: RequestHeader = jute::decode(&frame[..8]).unwrap();
                let op = OpCode::from_code(header.op).unwrap();
                let request = Request::decode(op, &frame[8..]).unwrap();
                world.lock().answer(&mut peer, header.xid, request)
            };
            if asked == left {
                return None;
            }
            outbox.send(answer).ok()?;
        }
        tokio::select! {
            biased;
            bytes = out.recv() => stream.write_all(&bytes?).await.ok()?,
            read = stream.read_buf(&mut input) => if read.ok()? == 0 { return None },
        }
    }
}

struct InProcess {
    world: Arc<Shared<World>>,
    client: u64,
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InProcess")
    }
}

impl Connector for InProcess {
    fn connect<'a>(&'a self, _: &'a Host, _: SocketAddr) -> Pending<'a, Box<dyn Connection>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let (ours, theirs) = duplex(1 << 16);
            let number = self.world.lock().outboxes.len() as u64 + 1;
            tokio::spawn(serve(Arc::clone(&self.world), theirs, number));
            let (world, client) = (Arc::clone(&self.world), self.client);
            Ok(Box::new(Tapped {
                ours,
                world,
                client,
            }) as Box<dyn Connection>)
        })
    }
}

/// Notes what a client writes.
struct Tapped {
    ours: DuplexStream,
    world: Arc<Shared<World>>,
    client: u64,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.ours).poll_write(context, bytes))?;
        let sent = bytes[..written].escape_ascii().to_string();
        let mut world = self.world.lock();
        let noted = (world.began.elapsed(), self.client, sent);
        world.trace.push(noted);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_shutdown(context)
    }
}

/// Locks, counts, queues and leads. The tokens of the locks, as they were granted.
async fn work(client: Client, tokens: Arc<Shared<Vec<u64>>>) {
    let mutex = Mutex::new(&client, "/lock");
    let counter = Counter::new(&client, "/counter").attempts(1000);
    let queue = DelayQueue::new(&client, "/queue");
    for _ in 0..ROUNDS {
        let guard = mutex.acquire().await.unwrap();
        tokens.lock().push(guard.token().get());
        tokio::time::sleep(Duration::from_millis(20)).await;
        guard.release().await.unwrap();
        counter.add(1).await.unwrap();
        queue.put_in(Duration::from_secs(3), "later").await.unwrap();
    }
    let election = Election::new(&client, "/election");
    let led = election.run_once(|_| async { Ok::<_, io::Error>(()) });
    led.await.unwrap();
    for _ in 0..ROUNDS {
        queue.take().await.unwrap();
    }
}

fn run(seed: u64) -> Trace {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .unwrap();
    let world = Arc::new(Shared::new(World {
        began: runtime.block_on(async { Instant::now() }),
        trace: Trace::new(),
        state: State::new(),
        watches: WatchTable::new(),
        outboxes: BTreeMap::new(),
    }));
    let tokens = Arc::new(Shared::new(Vec::new()));
    let counted = runtime.block_on(async {
        let clock = Clock::tokio(UNIX_EPOCH);
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let world = Arc::clone(&world);
            let builder = Client::builder("10.0.0.1:1")
                .connector(InProcess { world, client })
                .clock(clock)
                .seed(seed * CLIENTS + client);
            clients.push(builder.connect().await.unwrap());
        }
        let works: Vec<_> = clients
            .iter()
            .map(|client| tokio::spawn(work(client.clone(), Arc::clone(&tokens))))
            .collect();
        for work in works {
            work.await.unwrap();
        }
        let counted = Counter::new(&clients[0], "/counter").get().await.unwrap();
        for client in clients {
            client.close().await;
        }
        counted
    });
    drop(runtime);
    assert_eq!(counted, ROUNDS * CLIENTS.cast_signed());
    let tokens = tokens.lock();
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
    let mut world = world.lock();
    assert!(world.outboxes.len() > 6, "connections were lost");
    std::mem::take(&mut world.trace)
}

#[test]
fn a_seed_replays_what_recipes_send_and_when_and_another_does_not() {
    let first = run(1);
    assert!(
        first
            .iter()
            .any(|(when, ..)| *when > Duration::from_secs(3))
    );
    let again = run(1);
    for (this, that) in first.iter().zip(&again) {
        assert_eq!(this, that);
    }
    assert_eq!(first.len(), again.len());
    assert_ne!(first, run(2));
}
