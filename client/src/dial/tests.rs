//! Servers of every kind, good and bad, each in this process.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, BufMut as _, Bytes};
use proptest::prelude::*;
use quorate_protocol::types::{Password, SessionId, Zxid};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use super::*;
use crate::connect_string::ConnectString;

/// More than any test takes that does not wait for it.
const PATIENT: Duration = Duration::from_secs(20);
/// For tests that wait until it is over.
const IMPATIENT: Duration = Duration::from_millis(400);

fn request() -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::default(),
        timeout_ms: 10_000,
        session_id: SessionId::new(7),
        password: Some(Bytes::from_static(b"0123456789abcdef")),
        read_only: Some(false),
    }
}

fn response(read_only: Option<bool>) -> ConnectResponse {
    ConnectResponse {
        protocol_version: 0,
        timeout_ms: 4_000,
        session_id: SessionId::new(7),
        password: Password::default(),
        read_only,
    }
}

fn frame_of(response: &ConnectResponse) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_frame(&mut out, |out| response.encode(out)).expect("a response has a fixed length");
    out.to_vec()
}

fn host(address: SocketAddr) -> Host {
    let parsed: ConnectString = address.to_string().parse().expect("an address is a host");
    parsed.hosts()[0].clone()
}

fn dialer() -> Dialer {
    Dialer::new(Vec::new(), &mut SmallRng::seed_from_u64(1))
}

/// Serves one connection and tells what it made of it.
async fn serve<T: Send + 'static, F: Future<Output = T> + Send>(
    behave: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        behave(stream).await
    });
    (address, served)
}

async fn read_request(stream: &mut TcpStream) -> ConnectRequest {
    let codec = FrameCodec::new(ANSWER_BYTES_MAX);
    let mut input = BytesMut::new();
    loop {
        if let Some(body) = codec.next_frame(&mut input).expect("a frame") {
            return ConnectRequest::decode(&body).expect("a request");
        }
        assert_ne!(stream.read_buf(&mut input).await.expect("bytes"), 0);
    }
}

/// A server that says `words` once it has been asked, and closes.
async fn says(words: impl Into<Vec<u8>>) -> SocketAddr {
    let words = words.into();
    let (address, _) = serve(async move |mut stream: TcpStream| {
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).await.expect("a question");
        stream.write_all(&words).await.expect("an open connection");
        // In order, with the input read: a reset could eat the words.
        stream.shutdown().await.expect("an open connection");
        while stream.read(&mut asked).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    address
}

async fn dial_at(address: SocketAddr) -> Result<Dialled, DialError> {
    let dialer = Dialer::new(vec![host(address)], &mut SmallRng::seed_from_u64(1));
    dialer.dial(&dialer.hosts()[0], &request(), PATIENT).await
}

async fn stranger_at(address: SocketAddr) -> Stranger {
    match dial_at(address).await {
        Err(DialError::NotZooKeeper { address: at, what }) => {
            assert_eq!(at, address);
            what
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_answers_is_connected_to() {
    let (address, served) = serve(async |mut stream: TcpStream| {
        let request = read_request(&mut stream).await;
        let mut answer = frame_of(&response(Some(true)));
        answer.extend_from_slice(b"more");
        stream.write_all(&answer).await.expect("an open connection");
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).await.expect("an echo");
        (request, echo)
    })
    .await;
    let mut dialled = dial_at(address).await.expect("a connection");
    assert_eq!(dialled.address, address);
    assert_eq!(dialled.response, response(Some(true)));
    assert_eq!(&dialled.rest[..], b"more");
    match &dialled.stream {
        Stream::Plain(tcp) => assert!(tcp.nodelay().expect("an option")),
        other => panic!("{other:?} without having been asked for"),
    }
    dialled.stream.write_all(b"ping").await.expect("a stream");
    assert_eq!(served.await.expect("no panic"), (request(), *b"ping"));
}

#[tokio::test]
async fn an_old_server_leaves_out_the_read_only_byte() {
    let address = says(frame_of(&response(None))).await;
    let dialled = dial_at(address).await.expect("a connection");
    assert_eq!(dialled.response.read_only, None);
}

#[tokio::test]
async fn an_expired_session_is_an_answer_like_any_other() {
    let address = says(frame_of(&ConnectResponse::expired(Some(false)))).await;
    let dialled = dial_at(address).await.expect("a connection");
    assert_eq!(dialled.response.session_id, None);
}

#[tokio::test]
async fn an_answer_may_come_in_pieces() {
    let (address, _) = serve(async |mut stream: TcpStream| {
        stream.set_nodelay(true).expect("an option");
        read_request(&mut stream).await;
        for byte in frame_of(&response(Some(false))) {
            stream.write_all(&[byte]).await.expect("a connection");
            tokio::task::yield_now().await;
        }
    })
    .await;
    let dialled = dial_at(address).await.expect("a connection");
    assert_eq!(dialled.response, response(Some(false)));
    assert!(dialled.rest.is_empty());
}

#[tokio::test]
async fn strangers_are_told_apart() {
    assert_eq!(
        stranger_at(says("HTTP/1.1 400 Bad Request\r\n\r\n").await).await,
        Stranger::Http
    );
    assert_eq!(
        stranger_at(says("SSH-2.0-OpenSSH_9.2\r\n").await).await,
        Stranger::Ssh
    );
    assert_eq!(
        stranger_at(says([0x15, 0x03, 0x03, 0, 2, 2, 10]).await).await,
        Stranger::Tls
    );
    assert!(matches!(
        stranger_at(says("-ERR unknown command\r\n").await).await,
        Stranger::Text { .. }
    ));
    assert!(matches!(
        stranger_at(says([0xff; 8]).await).await,
        Stranger::Bytes { .. }
    ));
    assert!(matches!(
        stranger_at(says("SSH").await).await,
        Stranger::Text { .. }
    ));
    assert!(matches!(
        stranger_at(says([0, 0, 0, 3, 1, 2, 3]).await).await,
        Stranger::OtherFrame { .. }
    ));
}

/// Nothing is waited for, and no room made, once the length says that it is no ConnectResponse.
#[tokio::test]
async fn a_frame_that_is_too_large_is_not_read() {
    let (address, _served) = serve(async |mut stream: TcpStream| {
        let announced = u32::try_from(ANSWER_BYTES_MAX + 1).expect("it is small");
        stream
            .write_all(&announced.to_be_bytes())
            .await
            .expect("an open connection");
        let mut end = [0; 64];
        while stream.read(&mut end).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    assert!(matches!(
        stranger_at(address).await,
        Stranger::Bytes { beginning } if beginning == "00 00 04 01"
    ));
}

#[tokio::test]
async fn a_server_that_closes_is_told_from_a_stranger() {
    for bytes in [0, 4, 20] {
        let address = says(&frame_of(&response(None))[..bytes]).await;
        match dial_at(address).await {
            Err(DialError::Closed {
                address: at,
                bytes: count,
            }) => assert_eq!((at, count), (address, bytes)),
            other => panic!("after {bytes}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_reset_counts_as_closed() {
    let (address, _) = serve(async |stream: TcpStream| {
        // Closed with bytes unread, TCP resets instead of finishing.
        stream.readable().await.expect("a request");
    })
    .await;
    assert!(matches!(
        dial_at(address).await,
        Err(DialError::Closed { bytes: 0, .. })
    ));
}

#[tokio::test]
async fn silence_is_waited_for_no_longer_than_allowed() {
    let (address, served) = serve(async |mut stream: TcpStream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("an end");
    })
    .await;
    let error = dialer()
        .dial(&host(address), &request(), IMPATIENT)
        .await
        .expect_err("nobody answers");
    assert!(matches!(
        error,
        DialError::Late {
            step: Step::Answer,
            patience: IMPATIENT,
            ..
        }
    ));
    // And the connection is closed.
    served.await.expect("no panic");
}

#[tokio::test]
async fn an_attempt_that_is_dropped_closes_its_connection() {
    let (asked, was_asked) = tokio::sync::oneshot::channel();
    let (address, served) = serve(async move |mut stream: TcpStream| {
        read_request(&mut stream).await;
        asked.send(()).expect("somebody waits for it");
        stream.read(&mut [0; 1]).await.expect("an end")
    })
    .await;
    tokio::select! {
        dialled = dial_at(address) => panic!("{dialled:?}"),
        asked = was_asked => asked.expect("a request"),
    }
    assert_eq!(served.await.expect("no panic"), 0);
}

#[tokio::test]
async fn a_connection_to_itself_is_recognised() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("a port");
    let own = socket.local_addr().expect("an address");
    let both_ends = socket.connect(own).await.expect("itself");
    assert!(is_connected_to_itself(&both_ends));

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let one_end = TcpStream::connect(address).await.expect("a connection");
    assert!(!is_connected_to_itself(&one_end));
}

/// The resolver may give every client the same order.
#[test]
fn at_each_attempt_another_address_of_a_name_begins() {
    let dialer = dialer();
    let first = || {
        let mut addresses: Vec<SocketAddr> = (1..=3)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            .collect();
        dialer.take_turns(&mut addresses);
        addresses[0].port()
    };
    let mut begun = [first(), first(), first()];
    let again = first();
    assert_eq!(again, begun[0]);
    begun.sort_unstable();
    assert_eq!(begun, [1, 2, 3]);
    dialer.take_turns(&mut []);
}

#[tokio::test]
async fn a_port_where_nobody_listens_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let free = listener.local_addr().expect("an address");
    drop(listener);
    match dial_at(free).await {
        Err(DialError::Connect { address, .. }) => assert_eq!(address, free),
        other => panic!("{other:?}"),
    }
}

/// No label of a name has more than 63 characters, so no resolver is asked.
#[tokio::test]
async fn a_name_that_does_not_exist_is_named() {
    let name = "a".repeat(64);
    let parsed: ConnectString = name.parse().expect("a host");
    let error = dialer()
        .dial(&parsed.hosts()[0], &request(), PATIENT)
        .await
        .expect_err("there is no such name");
    assert!(matches!(error, DialError::Resolve { .. }), "{error}");
    assert!(error.to_string().contains(&name));
}

#[tokio::test]
async fn no_patience_is_too_long() {
    let address = says(frame_of(&response(None))).await;
    let dialled = dialer()
        .dial(&host(address), &request(), Duration::MAX)
        .await;
    assert!(dialled.is_ok(), "{dialled:?}");
}

#[test]
fn an_attempt_may_be_made_by_any_thread() {
    fn is_send(_: &impl Send) {}
    let dialer = dialer();
    let parsed: ConnectString = "zk1".parse().expect("a host");
    let request = request();
    is_send(&dialer.dial(&parsed.hosts()[0], &request, PATIENT));
    is_send(&dialer.is_read_write(&parsed.hosts()[0], PATIENT));
}

/// What `try_each` makes of three servers that behave as their numbers say.
async fn try_ports<F: Future<Output = Result<u16, DialError>>>(
    ports: &[u16],
    patience: Duration,
    attempt: impl Fn(u16, Progress) -> F,
) -> Result<u16, Option<DialError>> {
    let addresses = ports
        .iter()
        .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
        .collect();
    let late = |step| DialError::Late {
        host: host(SocketAddr::from(([127, 0, 0, 1], 1))),
        step,
        patience,
    };
    try_each(
        addresses,
        Instant::now() + patience,
        late,
        |address, progress| attempt(address.port(), progress),
    )
    .await
}

fn closed(port: u16) -> DialError {
    DialError::Closed {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        bytes: 0,
    }
}

#[tokio::test]
async fn all_addresses_of_a_name_are_tried() {
    let done = try_ports(&[1, 2, 3], PATIENT, |port, _| async move {
        match port {
            3 => Ok(port),
            _ => Err(closed(port)),
        }
    });
    assert!(matches!(done.await, Ok(3)));
}

/// It gets its share and no more: on a busy machine a little may be lost as well, so the whole is
/// so long that the other half is still there.
#[tokio::test]
async fn an_address_that_swallows_everything_hides_no_other() {
    let whole = Duration::from_secs(4);
    let end = Instant::now() + whole;
    let done = try_ports(&[1, 2], whole, |port, _| async move {
        match port {
            2 if Instant::now() < end => Ok(port),
            _ => std::future::pending().await,
        }
    });
    assert!(matches!(done.await, Ok(2)));
}

#[tokio::test]
async fn of_several_failures_the_one_that_got_furthest_is_told() {
    let failed = try_ports(&[1, 2, 3, 4], PATIENT, |port, progress| async move {
        if (2..4).contains(&port) {
            progress.enter(Step::Answer);
        }
        Err(closed(port))
    });
    match failed.await {
        Err(Some(DialError::Closed { address, .. })) => assert_eq!(address.port(), 2),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_an_address_there_is_no_attempt() {
    let none = try_ports(&[], PATIENT, |port, _| async move { Ok(port) }).await;
    assert!(matches!(none, Err(None)));
}

async fn probe_at(address: SocketAddr) -> Result<bool, DialError> {
    dialer().is_read_write(&host(address), PATIENT).await
}

#[tokio::test]
async fn a_probe_tells_who_takes_writes() {
    let not_serving = "This ZooKeeper instance is not currently serving requests\n";
    assert!(probe_at(says("rw").await).await.expect("an answer"));
    for words in ["ro", "null", not_serving] {
        let answer = probe_at(says(words).await).await;
        assert!(!answer.expect("an answer"), "{words}");
    }
}

#[tokio::test]
async fn a_probe_sends_its_word_and_does_not_wait_for_the_end() {
    let (address, served) = serve(async |mut stream: TcpStream| {
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.expect("a word");
        for byte in b"rw" {
            stream.write_all(&[*byte]).await.expect("a connection");
            tokio::task::yield_now().await;
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("an end");
        (word, rest)
    })
    .await;
    assert!(probe_at(address).await.expect("an answer"));
    assert_eq!(served.await.expect("no panic"), (*b"isro", Vec::new()));
}

#[tokio::test]
async fn a_probe_that_is_not_allowed_proves_nothing() {
    let refusal = "isro is not executed because it is not in the whitelist.\n";
    match probe_at(says(refusal).await).await {
        Err(DialError::ProbeRefused { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_probe_takes_no_stranger_for_a_server() {
    assert!(matches!(
        probe_at(says("HTTP/1.1 400 Bad Request\r\n").await).await,
        Err(DialError::NotZooKeeper {
            what: Stranger::Http,
            ..
        })
    ));
    assert!(matches!(
        probe_at(says("r").await).await,
        Err(DialError::Closed { bytes: 1, .. })
    ));
    assert!(matches!(
        probe_at(says("").await).await,
        Err(DialError::Closed { bytes: 0, .. })
    ));
}

/// No secret of ours is in what a stranger makes us say.
#[tokio::test]
async fn errors_do_not_show_the_password() {
    let (address, _) = serve(async |mut stream: TcpStream| {
        let mut request = [0; 49];
        stream.read_exact(&mut request).await.expect("a request");
        stream.shutdown().await.expect("an open connection");
    })
    .await;
    let error = dial_at(address).await.expect_err("no answer");
    assert!(!format!("{error} {error:?}").contains("0123456789abcdef"));
}

/// A stream that gives the given bytes in pieces, then ends, and takes everything.
fn scripted(bytes: &[u8], piece: usize) -> Pieces {
    Pieces {
        bytes: Bytes::copy_from_slice(bytes),
        piece,
        end: None,
    }
}

struct Pieces {
    bytes: Bytes,
    piece: usize,
    /// What happens after the last byte, if it is not an orderly end.
    end: Option<io::ErrorKind>,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let (true, Some(kind)) = (self.bytes.is_empty(), self.end) {
            return Poll::Ready(Err(kind.into()));
        }
        let count = self.piece.min(self.bytes.len()).min(buffer.remaining());
        buffer.put_slice(&self.bytes[..count]);
        self.bytes.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The outcome of a future that never has to wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("it waits for what will never come"),
    }
}

#[test]
fn a_reset_in_the_midst_of_an_answer_tells_how_far_it_came() {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut peer = scripted(&frame_of(&response(None))[..20], 7);
    peer.end = Some(io::ErrorKind::ConnectionReset);
    let Err(broken) = at_once(exchange(&mut peer, b"frame", address)) else {
        panic!("a response out of half of one");
    };
    assert!(matches!(
        dialer().why(&host(address), address, broken),
        DialError::Closed { bytes: 20, .. }
    ));
}

proptest! {
    #[test]
    fn whatever_a_stranger_says_is_an_outcome(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        announced in proptest::option::of(0_u32..60),
        piece in 1_usize..80,
    ) {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut said = Vec::new();
        if let Some(announced) = announced {
            said.put_u32(announced);
        }
        said.extend_from_slice(&bytes);
        let exchanged = at_once(exchange(&mut scripted(&said, piece), b"frame", address));
        if let Ok((_, rest)) = exchanged {
            prop_assert!(said.ends_with(&rest));
        }
        let _ = at_once(probe(&mut scripted(&said, piece), address));
    }

    #[test]
    fn an_answer_is_understood_in_whatever_pieces_it_comes(
        piece in 1_usize..80,
        behind in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut said = frame_of(&response(Some(true)));
        said.extend_from_slice(&behind);
        let exchanged = at_once(exchange(&mut scripted(&said, piece), b"frame", address));
        let Ok((understood, rest)) = exchanged else {
            return Err(TestCaseError::fail("no response"));
        };
        prop_assert_eq!(understood, response(Some(true)));
        prop_assert!(behind.starts_with(&rest));
    }
}
