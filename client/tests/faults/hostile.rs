//! Servers that no specification describes: they say nothing, or too much, or something else than was
//! asked, or they go. The client must not hang, not ask without end, and not say of a request what is
//! not so.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_client::{Client, ConnectError, Error, OnExpiry, Outcome, SessionState};
use quorate_protocol::frame::{FrameCodec, write_frame};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::{
    ErrorCode, OpCode, Password, ReplyHeader, RequestHeader, SessionId, Stat, Xid, Zxid, jute,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// What servers grant, unless a test says otherwise.
const TIMEOUT: Duration = Duration::from_millis(900);
/// More than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);
const SESSION: i64 = 7;

/// Behaves as its script says, on each connection anew; the script is told which one it is, from 1.
struct Fake {
    address: String,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    async fn start<F: Future<Output = Option<()>> + Send + 'static>(
        script: impl Fn(usize, Peer) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut scripts = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let input = BytesMut::new();
                scripts.spawn(script(number, Peer { stream, input }));
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }

    fn builder(&self) -> quorate_client::ClientBuilder {
        Client::builder(&self.address).session_timeout(TIMEOUT)
    }
}

/// A client's connection, seen from the server. Everything is `None` once the client is gone.
struct Peer {
    stream: TcpStream,
    input: BytesMut,
}

#[derive(Debug)]
struct Asked {
    xid: Xid,
    op: Option<OpCode>,
    body: Bytes,
}

impl Asked {
    fn path(&self) -> String {
        let length = i32::from_be_bytes(*self.body.first_chunk().unwrap());
        let end = 4 + usize::try_from(length).unwrap();
        String::from_utf8(self.body[4..end].to_vec()).unwrap()
    }
}

impl Peer {
    async fn frame(&mut self) -> Option<Bytes> {
        let codec = FrameCodec::new(1 << 20);
        loop {
            if let Some(frame) = codec.next_frame(&mut self.input).ok()? {
                return Some(frame.freeze());
            }
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).await.ok()
    }

    /// What comes first, which is left where it is.
    async fn first_word(&mut self) -> Option<[u8; 4]> {
        while self.input.len() < 4 {
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
        self.input.first_chunk().copied()
    }

    async fn grant(&mut self, session: i64, timeout_ms: i32) -> Option<ConnectRequest> {
        self.grant_as(session, timeout_ms, false).await
    }

    async fn grant_as(
        &mut self,
        session: i64,
        timeout_ms: i32,
        read_only: bool,
    ) -> Option<ConnectRequest> {
        let request = ConnectRequest::decode(&self.frame().await?).ok()?;
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms,
            session_id: SessionId::new(session),
            password: Password::default(),
            read_only: Some(read_only),
        };
        let mut out = BytesMut::new();
        write_frame(&mut out, |out| response.encode(out)).unwrap();
        self.write(&out).await?;
        Some(request)
    }

    async fn greet(&mut self) -> Option<ConnectRequest> {
        let timeout_ms = i32::try_from(TIMEOUT.as_millis()).unwrap();
        self.grant(SESSION, timeout_ms).await
    }

    /// The next request that is no ping. Pings are answered.
    async fn asked(&mut self) -> Option<Asked> {
        loop {
            let mut frame = self.frame().await?;
            let header: RequestHeader = jute::decode(frame.get(..8)?).ok()?;
            let body = frame.split_off(8);
            if header.xid == Xid::PING {
                self.write(&reply(Xid::PING, 0, b"")).await?;
                continue;
            }
            return Some(Asked {
                xid: header.xid,
                op: OpCode::from_code(header.op),
                body,
            });
        }
    }

    async fn answer(&mut self, asked: &Asked) -> Option<()> {
        self.write(&good_reply(asked)).await
    }

    async fn serve_well(mut self) -> Option<()> {
        loop {
            let asked = self.asked().await?;
            self.answer(&asked).await?;
        }
    }

    /// Keeps the connection, and says nothing.
    async fn fall_silent(mut self) -> Option<()> {
        while self.frame().await.is_some() {}
        None
    }
}

fn reply(xid: Xid, err: i32, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let zxid = Zxid(if xid == Xid::PING { 0 } else { 100 });
    write_frame(&mut out, |out| {
        jute::encode(&ReplyHeader { xid, zxid, err }, out)?;
        out.put_slice(body);
        Ok(())
    })
    .unwrap();
    out
}

/// A read answers with the path that was asked for, so that answers cannot be mixed up unseen.
fn good_reply(asked: &Asked) -> BytesMut {
    let mut body = BytesMut::new();
    match asked.op {
        Some(OpCode::GetData) => {
            jute::encode(&(asked.path(), Stat::default()), &mut body).unwrap();
        }
        Some(OpCode::Create2) => {
            jute::encode(&(asked.path(), Stat::default()), &mut body).unwrap();
        }
        Some(OpCode::SetData | OpCode::Exists) => {
            jute::encode(&Stat::default(), &mut body).unwrap();
        }
        _ => {}
    }
    reply(asked.xid, 0, &body)
}

async fn within<T>(future: impl IntoFuture<Output = T>) -> T {
    let done = timeout(LIMIT, future.into_future()).await;
    done.expect("the client hangs")
}

/// The client is well: it is told of the right znode.
async fn check(client: &Client) {
    let (data, _) = within(client.get("/check")).await.unwrap();
    assert_eq!(&data[..], b"/check");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_for_another_one_after_two_thirds_of_the_timeout() {
    let struck = Arc::new(Notify::new());
    let tell = Arc::clone(&struck);
    let silent = Fake::start(move |_, mut peer| {
        let tell = Arc::clone(&tell);
        async move {
            peer.greet().await?;
            tell.notify_one();
            peer.fall_silent().await
        }
    })
    .await;
    let is_open = Arc::new(AtomicUsize::new(0));
    let open = Arc::clone(&is_open);
    let good = Fake::start(move |_, mut peer| {
        let open = Arc::clone(&open);
        async move {
            if open.load(Ordering::SeqCst) == 0 {
                return None;
            }
            let request = peer.greet().await?;
            assert_eq!(request.session_id, SessionId::new(SESSION));
            peer.serve_well().await
        }
    })
    .await;
    let hosts = format!("{},{}", silent.address, good.address);
    let builder = Client::builder(&hosts).session_timeout(TIMEOUT);
    let client = builder.connect().await.unwrap();
    struck.notified().await;
    let mut states = client.states();
    is_open.store(1, Ordering::SeqCst);
    let began = Instant::now();
    let (set, get) = (client.set("/a", b"x").send(), client.get("/a").send());
    let error = within(set).await.unwrap_err();
    let took = began.elapsed();
    assert!(
        took > TIMEOUT / 3 && took < TIMEOUT + TIMEOUT / 3,
        "given up after {took:?}"
    );
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!(&within(get).await.unwrap().0[..], b"/a");
    let session = SessionId::new(SESSION).unwrap();
    let mut last = states.current();
    while last != (SessionState::Reconnected { session }) {
        last = within(states.next()).await.unwrap();
    }
    check(&client).await;
}

#[tokio::test]
async fn a_server_that_lets_in_and_then_says_nothing_for_ever_is_not_waited_for_for_ever() {
    let fake = Fake::start(async |_, mut peer: Peer| {
        peer.greet().await?;
        peer.fall_silent().await
    })
    .await;
    let client = fake.client().await;
    let (get, set) = (client.get("/a").send(), client.set("/a", b"").send());
    let error = within(get).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    let error = within(set).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");

    // What has to be asked while connecting is bounded as well.
    let builder = fake.builder().connect_timeout(TIMEOUT);
    let connected = within(builder.authenticate("digest", b"a:b").connect()).await;
    assert!(matches!(connected, Err(ConnectError::NoServer { .. })));
}

#[tokio::test]
async fn an_answer_that_is_late_but_in_time_is_taken() {
    let fake = Fake::start(async |_, mut peer: Peer| {
        peer.greet().await?;
        let asked = peer.asked().await?;
        // Pings go on meanwhile, and are answered before: they were sent after.
        sleep(TIMEOUT / 4).await;
        peer.answer(&asked).await?;
        peer.serve_well().await
    })
    .await;
    let client = fake.client().await;
    within(client.set("/a", b"x")).await.unwrap();
    check(&client).await;
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn an_answer_to_a_connection_that_was_given_up_reaches_nobody() {
    let fake = Fake::start(async |number, mut peer: Peer| {
        peer.greet().await?;
        if number > 1 {
            return peer.serve_well().await;
        }
        let asked = peer.asked().await?;
        sleep(TIMEOUT).await;
        peer.answer(&asked).await
    })
    .await;
    let client = fake.client().await;
    let set = client.set("/a", b"x").send();
    let get = client.get("/b").send();
    let error = within(set).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    assert_eq!(&within(get).await.unwrap().0[..], b"/b");
    sleep(TIMEOUT / 2).await;
    check(&client).await;
    assert_eq!(fake.connections(), 2);
}

/// How an answer is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoilt {
    /// Half of it comes, and then the end.
    CutOff,
    Twice,
    /// A length beyond any limit.
    TooLong,
    NegativeLength,
    WithoutHeader,
    /// Of a request that was never made.
    OtherXid,
    SessionMoved,
}

impl Spoilt {
    fn bytes(self, asked: &Asked) -> BytesMut {
        let good = good_reply(asked);
        match self {
            Self::CutOff => BytesMut::from(&good[..good.len() / 2]),
            Self::Twice => BytesMut::from(&[&good[..], &good[..]].concat()[..]),
            Self::TooLong => BytesMut::from(&i32::MAX.to_be_bytes()[..]),
            Self::NegativeLength => BytesMut::from(&(-5_i32).to_be_bytes()[..]),
            Self::WithoutHeader => BytesMut::from(&[0, 0, 0, 2, 1, 1][..]),
            Self::OtherXid => reply(Xid(asked.xid.0 + 1000), 0, b""),
            Self::SessionMoved => reply(asked.xid, ErrorCode::SessionMoved.code(), b""),
        }
    }
}

#[tokio::test]
async fn a_spoilt_answer_ends_the_connection_and_no_request_is_told_what_is_not_so() {
    for spoilt in [
        Spoilt::CutOff,
        Spoilt::Twice,
        Spoilt::TooLong,
        Spoilt::NegativeLength,
        Spoilt::WithoutHeader,
        Spoilt::OtherXid,
        Spoilt::SessionMoved,
    ] {
        let fake = Fake::start(move |number, mut peer: Peer| async move {
            peer.greet().await?;
            if number > 1 {
                return peer.serve_well().await;
            }
            let asked = peer.asked().await?;
            // All are under way.
            peer.asked().await?;
            peer.asked().await?;
            peer.write(&spoilt.bytes(&asked)).await?;
            if spoilt == Spoilt::CutOff {
                return None;
            }
            peer.fall_silent().await
        })
        .await;
        let client = fake.client().await;
        let set = client.set("/a", b"x").send();
        let second = client.set("/b", b"x").send();
        let get = client.get("/c").send();
        let began = Instant::now();
        let set = within(set).await;
        if spoilt == Spoilt::Twice {
            set.unwrap();
        } else {
            assert_eq!(set.unwrap_err().outcome(), Outcome::Unknown, "{spoilt:?}");
        }
        let error = within(second).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{spoilt:?}: {error}");
        assert!(began.elapsed() < TIMEOUT / 2, "{spoilt:?}: at once");
        assert_eq!(&within(get).await.unwrap().0[..], b"/c", "{spoilt:?}");
        check(&client).await;
        assert_eq!(fake.connections(), 2, "{spoilt:?}");
    }
}

#[tokio::test]
async fn an_event_of_an_unknown_type_is_passed_over() {
    let fake = Fake::start(async |_, mut peer: Peer| {
        peer.greet().await?;
        let mut body = BytesMut::new();
        jute::encode(&(77_i32, 3_i32, "/a"), &mut body).unwrap();
        peer.write(&reply(Xid::NOTIFICATION, 0, &body)).await?;
        peer.serve_well().await
    })
    .await;
    let client = fake.client().await;
    check(&client).await;
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn a_server_that_sends_without_end_does_not_hold_up_requests() {
    let fake = Fake::start(async |_, mut peer: Peer| {
        peer.greet().await?;
        let mut event = BytesMut::new();
        jute::encode(&(3_i32, 3_i32, "/nobody-asked"), &mut event).unwrap();
        let flood = reply(Xid::NOTIFICATION, 0, &event).repeat(1000);
        let (mut reader, mut writer) = peer.stream.into_split();
        let (replies, mut waiting) = tokio::sync::mpsc::channel::<BytesMut>(10);
        let reading = async {
            let codec = FrameCodec::new(1 << 20);
            let mut input = peer.input;
            loop {
                while let Some(mut frame) = codec.next_frame(&mut input).ok()? {
                    let header: RequestHeader = jute::decode(frame.get(..8)?).ok()?;
                    let asked = Asked {
                        xid: header.xid,
                        op: OpCode::from_code(header.op),
                        body: frame.split_off(8).freeze(),
                    };
                    replies.send(good_reply(&asked)).await.ok()?;
                }
                if reader.read_buf(&mut input).await.ok()? == 0 {
                    return None::<()>;
                }
            }
        };
        let writing = async {
            loop {
                while let Ok(reply) = waiting.try_recv() {
                    writer.write_all(&reply).await.ok()?;
                }
                writer.write_all(&flood).await.ok()?;
            }
        };
        tokio::select! { done = reading => done, done = writing => done }
    })
    .await;
    let client = fake.client().await;
    let until = Instant::now() + TIMEOUT * 3;
    while Instant::now() < until {
        check(&client).await;
        // Whatever is longer than the timeout needs pings.
        sleep(TIMEOUT / 2).await;
    }
    assert_eq!(fake.connections(), 1);
    within(client.close()).await;
}

#[tokio::test]
async fn another_session_than_the_one_asked_for_is_not_taken() {
    let fake = Fake::start(async |number, mut peer: Peer| match number {
        1 => {
            peer.greet().await?;
            peer.asked().await?;
            None
        }
        2 => {
            peer.grant(99, 3000).await?;
            peer.serve_well().await
        }
        _ => {
            let request = peer.greet().await?;
            assert_eq!(request.session_id, SessionId::new(SESSION));
            peer.serve_well().await
        }
    })
    .await;
    let client = fake.client().await;
    check(&client).await;
    assert_eq!(fake.connections(), 3);
    let session = SessionId::new(SESSION).unwrap();
    assert_eq!(client.state(), SessionState::Reconnected { session });
}

#[tokio::test]
async fn any_timeout_that_is_granted_is_lived_with() {
    for timeout_ms in [1, 5, 40, i32::MAX] {
        let fake = Fake::start(move |_, mut peer: Peer| async move {
            peer.grant(SESSION, timeout_ms).await?;
            peer.serve_well().await
        })
        .await;
        let client = fake.client().await;
        let granted = Duration::from_millis(u64::try_from(timeout_ms).unwrap());
        assert_eq!(client.session_timeout(), granted);
        if timeout_ms > 10 {
            check(&client).await;
        }
        sleep(Duration::from_secs(1)).await;
        // Too short to be kept, it costs no more than a server that is away.
        let connections = fake.connections();
        assert!(connections < 45, "{timeout_ms} ms: {connections}");
        within(client.close()).await;
    }
}

/// Attempts in three seconds, of a client that waits 50 ms at first and 150 ms (a sixth of the
/// timeout) later, cut by up to a half.
const ATTEMPTS: std::ops::RangeInclusive<usize> = 8..=45;

#[tokio::test]
async fn a_server_that_closes_at_once_is_asked_again_after_a_pause() {
    for lets_in in [false, true] {
        let fake = Fake::start(move |_, mut peer: Peer| async move {
            if lets_in {
                peer.greet().await?;
            }
            None
        })
        .await;
        let client = fake.builder().start().unwrap();
        let get = client.get("/a").wait_for_reconnect(TIMEOUT).send();
        let began = Instant::now();
        let error = within(get).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        sleep(Duration::from_secs(3).saturating_sub(began.elapsed())).await;
        let attempts = fake.connections();
        assert!(ATTEMPTS.contains(&attempts), "{lets_in}: {attempts}");
    }
}

#[tokio::test]
async fn a_server_that_grants_no_session_is_asked_again_after_a_pause() {
    for policy in [OnExpiry::Stay, OnExpiry::NewSession] {
        let fake = Fake::start(async |_, mut peer: Peer| {
            peer.grant(0, 0).await?;
            None
        })
        .await;
        let builder = fake.builder().on_expiry(policy);
        let connected = builder.connect_timeout(Duration::from_secs(3)).connect();
        match within(connected).await {
            Err(ConnectError::NoServer { failures, .. }) => {
                let text = failures[0].1.to_string();
                assert!(text.contains("grants no session"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        let attempts = fake.connections();
        assert!(ATTEMPTS.contains(&attempts), "{attempts}");
    }
}

#[tokio::test]
async fn a_server_that_ends_every_session_is_asked_again_after_a_pause() {
    let fake = Fake::start(async |number, mut peer: Peer| {
        let id = i64::try_from(number).unwrap();
        let request = peer.grant(id, 900).await?;
        assert_eq!(request.session_id, None, "the last one has expired");
        let asked = peer.asked().await?;
        peer.write(&reply(asked.xid, ErrorCode::SessionExpired.code(), b""))
            .await?;
        peer.fall_silent().await
    })
    .await;
    let client = fake.builder().on_expiry(OnExpiry::NewSession);
    let client = client.connect().await.unwrap();
    let until = Instant::now() + Duration::from_secs(3);
    let mut failed = 0;
    while Instant::now() < until {
        let error = within(client.set("/a", b"")).await.unwrap_err();
        assert!(matches!(error, Error::SessionExpired { .. }), "{error}");
        failed += 1;
    }
    assert!(failed > 5, "{failed}");
    let attempts = fake.connections();
    assert!(ATTEMPTS.contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn an_expired_session_is_the_end_unless_another_one_is_asked_for() {
    for policy in [OnExpiry::Stay, OnExpiry::NewSession] {
        let fake = Fake::start(async |number, mut peer: Peer| match number {
            1 => {
                peer.greet().await?;
                peer.asked().await?;
                None
            }
            2 => {
                peer.grant(0, 0).await?;
                None
            }
            _ => {
                let request = peer.grant(8, 3000).await?;
                assert_eq!(request.session_id, None);
                peer.serve_well().await
            }
        })
        .await;
        let client = fake.builder().on_expiry(policy).connect().await.unwrap();
        let mut states = client.states();
        let set = client.set("/a", b"").send();
        let get = client.get("/a").send();
        let error = within(set).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        let error = within(get).await.unwrap_err();
        assert!(matches!(error, Error::SessionExpired { .. }), "{error}");
        if policy == OnExpiry::Stay {
            let mut last = None;
            while let Some(state) = within(states.next()).await {
                last = Some(state);
            }
            assert_eq!(last, Some(SessionState::Expired));
            assert_eq!(client.session(), None);
            assert_eq!(fake.connections(), 2);
        } else {
            check(&client).await;
            let session = SessionId::new(8).unwrap();
            assert_eq!(client.state(), SessionState::Connected { session });
        }
    }
}

#[tokio::test]
async fn hosts_that_cannot_be_reached_are_named_with_what_is_wrong_with_them() {
    let mut hosts = Vec::new();
    for _ in 0..3 {
        // Free again as soon as it is dropped.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        hosts.push(listener.local_addr().unwrap().to_string());
    }
    let builder = Client::builder(&hosts.join(",")).session_timeout(TIMEOUT);
    let limit = Duration::from_millis(700);
    let began = Instant::now();
    let connected = within(builder.connect_timeout(limit).connect()).await;
    assert!(began.elapsed() < limit * 3);
    match connected {
        Err(ConnectError::NoServer { failures, .. }) => assert_eq!(failures.len(), 3),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_identity_that_is_refused_on_a_later_connection_ends_the_session() {
    let fake = Fake::start(async |number, mut peer: Peer| {
        peer.greet().await?;
        loop {
            let asked = peer.asked().await?;
            match (number, asked.op) {
                (1, Some(OpCode::GetData)) => return None,
                (1, _) => peer.answer(&asked).await?,
                (_, Some(OpCode::Auth)) => {
                    let refused = reply(Xid::AUTH, ErrorCode::AuthFailed.code(), b"");
                    peer.write(&refused).await?;
                    return None;
                }
                _ => {}
            }
        }
    })
    .await;
    let builder = fake.builder().authenticate("digest", b"a:b");
    let client = within(builder.connect()).await.unwrap();
    let mut states = client.states();
    let error = within(client.get("/a")).await.unwrap_err();
    assert!(matches!(error, Error::AuthFailed { .. }), "{error}");
    let error = within(client.set("/a", b"")).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    let mut last = None;
    while let Some(state) = within(states.next()).await {
        last = Some(state);
    }
    assert_eq!(last, Some(SessionState::AuthFailed));
    within(client.close()).await;
}

#[tokio::test]
async fn a_request_that_servers_do_not_survive_fails_in_the_end_and_others_go_on() {
    let fake = Fake::start(async |_, mut peer: Peer| {
        peer.greet().await?;
        loop {
            let asked = peer.asked().await?;
            if asked.op == Some(OpCode::SetData) {
                return None;
            }
            peer.answer(&asked).await?;
        }
    })
    .await;
    let client = fake.client().await;
    let error = within(client.set("/a", b"").idempotent())
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    check(&client).await;
}

#[tokio::test]
async fn what_was_applied_at_the_first_attempt_is_not_denied_at_the_second() {
    for fails_by in ["refusal", "time"] {
        let fake = Fake::start(move |number, mut peer: Peer| async move {
            if number > 1 && fails_by == "time" {
                return None;
            }
            peer.greet().await?;
            let asked = peer.asked().await?;
            if number == 1 {
                return None;
            }
            let exists = ErrorCode::NodeExists.code();
            peer.write(&reply(asked.xid, exists, b"")).await?;
            peer.serve_well().await
        })
        .await;
        let client = fake.client().await;
        let retry = quorate_client::operation::Retry {
            attempts: 2,
            ..quorate_client::operation::Retry::default()
        };
        let create = client.create("/a", b"").idempotent().retry(retry);
        let create = create.wait_for_reconnect(Duration::from_millis(300));
        let error = within(create).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{fails_by}: {error}");
    }
}

#[tokio::test]
async fn a_client_is_closed_in_time_whatever_the_server_does() {
    // As documented: the session's timeout, or five seconds.
    let limit = Duration::from_secs(7);
    let silent = Fake::start(async |_, mut peer: Peer| {
        peer.greet().await?;
        peer.fall_silent().await
    })
    .await;
    let gone = Fake::start(async |number, mut peer: Peer| {
        if number == 1 {
            peer.greet().await?;
        }
        None
    })
    .await;
    let clients = [silent.client().await, gone.client().await];
    let closing = clients.map(|client| {
        tokio::spawn(async move {
            let clone = client.clone();
            let began = Instant::now();
            client.close().await;
            (began.elapsed(), clone.set("/a", b"").await)
        })
    });
    for closed in closing {
        let (took, set) = within(closed).await.unwrap();
        assert!(took < limit, "{took:?}");
        assert_eq!(set.unwrap_err().outcome(), Outcome::NotApplied);
    }
}

#[tokio::test]
async fn a_close_is_not_put_off_by_what_others_go_on_to_ask() {
    let fake = Fake::start(async |_, mut peer: Peer| {
        peer.greet().await?;
        loop {
            let asked = peer.asked().await?;
            peer.answer(&asked).await?;
            if asked.op == Some(OpCode::CloseSession) {
                return None;
            }
        }
    })
    .await;
    let client = fake.client().await;
    let busy = client.clone();
    let asking = tokio::spawn(async move {
        loop {
            let asked = [busy.set("/a", b"").send(), busy.set("/b", b"").send()];
            for set in asked {
                if let Err(error) = set.await {
                    return error;
                }
            }
        }
    });
    sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    within(client.close()).await;
    assert!(began.elapsed() < TIMEOUT, "{:?}", began.elapsed());
    let error = within(asking).await.unwrap();
    assert!(
        matches!(error, Error::Closed { sent: false, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn states_of_a_storm_of_reconnects_never_hide_the_latest() {
    let fake = Fake::start(async |number, mut peer: Peer| {
        peer.greet().await?;
        if number <= 10 {
            return None;
        }
        loop {
            let asked = peer.asked().await?;
            peer.answer(&asked).await?;
            if asked.op == Some(OpCode::CloseSession) {
                return None;
            }
        }
    })
    .await;
    let client = fake.client().await;
    let mut slow = client.states();
    let mut quick = client.states();
    let quick = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(state) = quick.next().await {
            seen.push(state);
        }
        (seen, quick.current(), quick.next().await)
    });
    // It is cut off more often than a read is repeated by default.
    within(client.get("/a").wait_for_reconnect(LIMIT))
        .await
        .unwrap();
    let session = SessionId::new(SESSION).unwrap();
    let latest = SessionState::Reconnected { session };
    assert_eq!(slow.current(), latest);
    assert_eq!(within(slow.next()).await, Some(latest));
    within(client.close()).await;
    assert_eq!(within(slow.next()).await, Some(SessionState::Closed));
    assert_eq!(within(slow.next()).await, None);
    let (seen, current, after) = within(quick).await.unwrap();
    assert!(seen.contains(&SessionState::Suspended), "{seen:?}");
    assert_eq!(seen.last(), Some(&SessionState::Closed));
    assert_eq!((current, after), (SessionState::Closed, None));
}

#[test]
fn a_client_whose_runtime_has_gone_fails_and_does_not_wait() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let servers = runtime();
    let fake = servers.block_on(Fake::start(async |_, mut peer: Peer| {
        peer.greet().await?;
        peer.asked().await?;
        peer.fall_silent().await
    }));
    let first = runtime();
    let client = first.block_on(fake.client());
    let mut states = client.states();
    let sent = client.set("/a", b"").send();
    // Where it is known to have been sent.
    first.block_on(async { sleep(Duration::from_millis(100)).await });
    first.shutdown_timeout(LIMIT);
    let second = runtime();
    let error = second.block_on(within(sent)).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    let error = second.block_on(async { within(client.set("/a", b"")).await });
    assert_eq!(error.unwrap_err().outcome(), Outcome::NotApplied);
    let last = second.block_on(within(states.next()));
    assert_eq!(last, Some(SessionState::Closed));
    second.block_on(within(client.close()));
    // Outside of any runtime.
    drop(fake);
}

#[tokio::test]
async fn a_read_only_server_is_left_for_one_that_takes_writes_whether_or_not_it_says_so() {
    for says in [
        "rw",
        "isro is not executed because it is not in the whitelist.\n",
    ] {
        let is_found = Arc::new(AtomicUsize::new(0));
        let found = Arc::clone(&is_found);
        let read_only = Fake::start(move |_, mut peer: Peer| {
            let found = Arc::clone(&found);
            async move {
                let first = peer.first_word().await?;
                if first == *b"isro" {
                    return peer.write(b"ro").await;
                }
                peer.grant_as(99, 300, true).await?;
                found.store(1, Ordering::SeqCst);
                peer.serve_well().await
            }
        })
        .await;
        let found = Arc::clone(&is_found);
        let better = Fake::start(move |_, mut peer: Peer| {
            let found = Arc::clone(&found);
            async move {
                if found.load(Ordering::SeqCst) == 0 {
                    return None;
                }
                let first = peer.first_word().await?;
                if first == *b"isro" {
                    return peer.write(says.as_bytes()).await;
                }
                let request = peer.grant_as(SESSION, 300, false).await?;
                assert_eq!(
                    request.session_id, None,
                    "the read-only one counts for nothing"
                );
                peer.serve_well().await
            }
        })
        .await;
        let hosts = format!("{},{}", read_only.address, better.address);
        let client = Client::builder(&hosts).allow_read_only(true);
        let client = client.session_timeout(Duration::from_millis(300));
        let client = client.connect().await.unwrap();
        let mut states = client.states();
        assert_eq!(client.state(), SessionState::ReadOnly);
        check(&client).await;
        let session = SessionId::new(SESSION).unwrap();
        while client.state() != (SessionState::Connected { session }) {
            within(states.next()).await.unwrap();
        }
        check(&client).await;
        assert_eq!(client.session(), Some(session));
    }
}

#[tokio::test]
async fn an_identity_that_no_server_would_take_is_refused_here() {
    let fake = Fake::start(async |_, mut peer: Peer| {
        peer.greet().await?;
        peer.serve_well().await
    })
    .await;
    let large = vec![b'x'; 2 << 20];
    let refused = fake.builder().authenticate("digest", &large).start();
    assert!(matches!(refused, Err(ConnectError::InvalidOption { .. })));
    let client = fake.client().await;
    let error = within(client.authenticate("digest", &large)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    check(&client).await;
    assert_eq!(fake.connections(), 1);
}
