//! A run is repeated exactly: from the same seed the client sends the same bytes at the same moments,
//! through lost connections and all, in no time at all.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use quorate_client::environment::{Clock, Connection, Connector, Pending};
use quorate_client::{Client, Host};
use quorate_protocol::frame::{FrameCodec, write_frame};
use quorate_protocol::handshake::ConnectResponse;
use quorate_protocol::{
    ErrorCode, OpCode, Password, ReplyHeader, RequestHeader, SessionId, Stat, Xid, Zxid, jute,
};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::runtime::{Builder, RngSeed};
use tokio::time::Instant;

/// What was done, and when since the beginning.
type Trace = Vec<(Duration, String)>;

/// After so many a server closes the connection, in turn.
const REQUESTS: [usize; 3] = [4, 12, 40];

/// Servers in this process.
#[derive(Debug)]
struct InProcess {
    began: Instant,
    trace: Arc<Mutex<Trace>>,
    connections: AtomicUsize,
}

impl InProcess {
    fn note(&self, what: String) {
        self.trace.lock().push((self.began.elapsed(), what));
    }
}

impl Connector for InProcess {
    fn resolve<'a>(&'a self, host: &'a Host) -> Pending<'a, Vec<SocketAddr>> {
        Box::pin(async move { Ok(vec![SocketAddr::from(([10, 0, 0, 1], host.port()))]) })
    }

    fn connect<'a>(&'a self, host: &'a Host, _: SocketAddr) -> Pending<'a, Box<dyn Connection>> {
        Box::pin(async move {
            let number = self.connections.fetch_add(1, Ordering::Relaxed);
            self.note(format!("connects to {host}"));
            tokio::time::sleep(Duration::from_millis(3)).await;
            // The first rounds fail, so that there are pauses.
            if number < 6 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = duplex(1 << 16);
            tokio::spawn(serve(theirs, number));
            let (began, trace) = (self.began, Arc::clone(&self.trace));
            Ok(Box::new(Tapped { ours, began, trace }) as Box<dyn Connection>)
        })
    }
}

/// Notes what the client writes.
struct Tapped {
    ours: DuplexStream,
    began: Instant,
    trace: Arc<Mutex<Trace>>,
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
        let sent = format!("sends {:?}", bytes[..written].escape_ascii().to_string());
        self.trace.lock().push((self.began.elapsed(), sent));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_shutdown(context)
    }
}

/// A server on which no znode exists. `None` when the connection is over.
async fn serve(mut stream: DuplexStream, number: usize) -> Option<()> {
    let codec = FrameCodec::new(1 << 20);
    let mut input = BytesMut::new();
    let mut asked = 0;
    loop {
        let Some(frame) = codec.next_frame(&mut input).unwrap() else {
            if stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
            continue;
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut out = BytesMut::new();
        if asked == 0 {
            let response = ConnectResponse {
                protocol_version: 0,
                timeout_ms: 6000,
                session_id: SessionId::new(7),
                password: Password::default(),
                read_only: Some(false),
            };
            write_frame(&mut out, |out| response.encode(out)).unwrap();
        } else {
            let header: RequestHeader = jute::decode(&frame[..8]).unwrap();
            if asked > REQUESTS[number % 3] && header.xid != Xid::PING {
                return None;
            }
            answer(header, &frame[8..], &mut out);
        }
        asked += 1;
        stream.write_all(&out).await.ok()?;
    }
}

fn answer(asked: RequestHeader, body: &[u8], out: &mut BytesMut) {
    let op = OpCode::from_code(asked.op);
    let err = match op {
        Some(OpCode::Exists) => ErrorCode::NoNode.code(),
        _ => 0,
    };
    let zxid = Zxid(1);
    let header = ReplyHeader {
        xid: asked.xid,
        zxid,
        err,
    };
    write_frame(out, |out| {
        jute::encode(&header, out)?;
        match op {
            Some(OpCode::Create2) => {
                // The path, as it was asked for.
                let length = usize::try_from(i32::from_be_bytes(*body.first_chunk().unwrap()));
                out.put_slice(&body[..4 + length.unwrap()]);
                jute::encode(&Stat::default(), out)
            }
            Some(OpCode::GetChildren2) => {
                jute::encode(&(Vec::<String>::new(), Stat::default()), out)
            }
            // It proves that the session lives.
            Some(OpCode::Ping) => {
                out.put_i32(1);
                Ok(())
            }
            Some(OpCode::Sync) => {
                out.put_slice(body);
                Ok(())
            }
            _ => Ok(()),
        }
    })
    .unwrap();
}

fn run(seed: u64) -> Trace {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .unwrap();
    let trace = Arc::new(Mutex::new(Trace::new()));
    let connector = InProcess {
        began: runtime.block_on(async { Instant::now() }),
        trace: Arc::clone(&trace),
        connections: AtomicUsize::new(0),
    };
    runtime.block_on(async move {
        let builder = Client::builder("one:1,two:2,three:3")
            .connector(connector)
            .clock(Clock::tokio(UNIX_EPOCH))
            .seed(seed);
        let client = builder.connect().await.unwrap();
        // Brought back on the next connection, in one request.
        let mut watches = Vec::new();
        for number in 0..20 {
            let exists = client.exists(&format!("/{}", number * 7919 % 101));
            watches.push(exists.watch().await.unwrap().1);
        }
        for _ in 0..10 {
            client.create("/mine-", b"").protected().await.unwrap();
            let lease = client.lease_deadline().unwrap();
            assert!(lease.remaining() > Duration::from_secs(3));
            // Pings, of the session and of the lease.
            let keeper = client.keep_lease();
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(keeper);
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        drop(watches);
        client.close().await;
    });
    drop(runtime);
    Arc::into_inner(trace).unwrap().into_inner()
}

#[test]
fn a_seed_replays_what_is_sent_and_when_and_another_does_not() {
    let first = run(1);
    let connections = first
        .iter()
        .filter(|(_, what)| what.starts_with("connects"));
    assert!(connections.count() > 8, "connections were lost: {first:#?}");
    assert!(first.last().unwrap().0 > Duration::from_secs(100));
    let again = run(1);
    for (this, that) in first.iter().zip(&again) {
        assert_eq!(this, that);
    }
    assert_eq!(first.len(), again.len());
    assert_ne!(first, run(2));
}
