//! Two ends of the peer port on one machine: who is refused, what waits for what, what is noticed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::listener::PeerPort;
use super::wire::{FrameReader, FrameWriter, Hello, Kind, Standing, VERSIONS, greet};
use super::*;
use crate::network::{Listener, Network, SystemNetwork};

/// Long enough for anything on one machine.
const PATIENCE: Duration = Duration::from_secs(10);
const BALLOT: Ballot = Ballot {
    term: 4,
    server: 1,
    won: true,
};

/// Refuses what it was told to refuse.
#[derive(Debug)]
struct TestDoor {
    me: Option<Caller>,
    refuses: Mutex<Option<Refusal>>,
}

impl TestDoor {
    fn of(server: u64) -> Arc<Self> {
        Arc::new(Self {
            me: Some(Caller {
                cluster: 1,
                server,
                incarnation: 10 + server,
                run: 0,
            }),
            refuses: Mutex::default(),
        })
    }
}

impl Door for TestDoor {
    fn me(&self) -> Option<Caller> {
        self.me
    }

    fn admit(&self, _: Caller) -> Result<(), Refusal> {
        self.refuses.lock().clone().map_or(Ok(()), Err)
    }

    fn probed(&self, probe: Probe) -> Probed {
        Probed {
            cluster: probe.cluster,
            server: 2,
            run: 0,
            standing: Standing::New,
            known: None,
            member: false,
        }
    }
}

/// Answers at once, but for what it is told to hold back.
#[derive(Debug)]
struct TestService {
    release: Notify,
    held: mpsc::UnboundedSender<()>,
    forwarded: mpsc::UnboundedSender<(u64, u64, Vec<BytesMut>)>,
}

struct TestSnapshot(Vec<u8>);

impl Incoming for TestSnapshot {
    async fn write(mut self, bytes: BytesMut) -> Result<Self, ServiceError> {
        self.0.extend_from_slice(&bytes);
        Ok(self)
    }

    async fn finish(self) -> Result<SnapshotTaken, ServiceError> {
        Ok(SnapshotTaken { ballot: BALLOT })
    }
}

impl Service for TestService {
    type Incoming = TestSnapshot;
    type Forwarded = TestForwarded;

    /// Holds back what has no previous entry.
    async fn append(&self, _: u64, append: Append) -> Result<Appended, ServiceError> {
        if append.previous.is_none() {
            self.held.send(()).ok();
            self.release.notified().await;
        }
        Ok(Appended::UpTo(append.previous))
    }

    async fn vote(&self, asked: VoteAsked) -> Result<Voted, ServiceError> {
        Ok(Voted {
            ballot: asked.candidate,
            granted: true,
            last: asked.last,
        })
    }

    async fn pre_vote(&self, _: VoteAsked) -> Result<Voted, ServiceError> {
        Err(ServiceError("no".to_owned()))
    }

    async fn transfer(&self, _: Transfer) -> Result<Transferred, ServiceError> {
        Ok(Transferred::Accepted)
    }

    async fn begin_snapshot(
        &self,
        _: Ballot,
        _: Option<Place>,
    ) -> Result<Result<TestSnapshot, SnapshotTaken>, ServiceError> {
        Ok(Ok(TestSnapshot(Vec::new())))
    }

    /// Holds back a question about session 0.
    async fn answer(&self, from: u64, question: Question) -> Answer {
        let Question::Round { touched } = question else {
            return Answer::NotLeader;
        };
        if touched == [0] {
            self.held.send(()).ok();
            self.release.notified().await;
        }
        Answer::Confirmed {
            index: from * 100 + touched.len() as u64,
        }
    }

    async fn rejoin(&self, rejoin: Rejoin) -> Answer {
        Answer::Confirmed {
            index: rejoin.incarnation,
        }
    }

    fn open_forwarded(self: &Arc<Self>, from: u64, term: u64) -> TestForwarded {
        TestForwarded {
            service: Arc::clone(self),
            from,
            term,
        }
    }
}

struct TestForwarded {
    service: Arc<TestService>,
    from: u64,
    term: u64,
}

impl Forwarded for TestForwarded {
    async fn take(&mut self, commands: Vec<BytesMut>) -> Result<(), String> {
        if commands.is_empty() {
            return Err("enough".to_owned());
        }
        let taken = (self.from, self.term, commands);
        self.service.forwarded.send(taken).ok();
        Ok(())
    }

    async fn refused(&self) {
        std::future::pending::<()>().await;
    }
}

/// Server 2, listening.
struct Host {
    door: Arc<TestDoor>,
    service: Arc<TestService>,
    port: Arc<PeerPort<TestService>>,
    address: String,
    held: mpsc::UnboundedReceiver<()>,
    forwarded: mpsc::UnboundedReceiver<(u64, u64, Vec<BytesMut>)>,
    _stop: DropGuard,
}

async fn host() -> Host {
    let host = host_not_open().await;
    host.port.open(Arc::clone(&host.service));
    host
}

async fn host_not_open() -> Host {
    host_linked(Links::default()).await
}

async fn host_linked(links: Links) -> Host {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let door = TestDoor::of(2);
    let (held_sender, held) = mpsc::unbounded_channel();
    let (forwarded_sender, forwarded) = mpsc::unbounded_channel();
    let service = Arc::new(TestService {
        release: Notify::new(),
        held: held_sender,
        forwarded: forwarded_sender,
    });
    let port = Arc::new(PeerPort::new(Arc::<TestDoor>::clone(&door), 2, links));
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&port).serve(Listener::Tcp(listener), stop.clone()));
    Host {
        door,
        service,
        port,
        address,
        held,
        forwarded,
        _stop: stop.drop_guard(),
    }
}

/// Server 1, dialling server 2 at `address`.
fn peers(door: &Arc<TestDoor>, address: &str) -> Peers {
    let peers = Peers::new(Arc::<TestDoor>::clone(door), network());
    peers.set_members(BTreeMap::from([(2, address.to_owned())]));
    peers
}

fn round(touched: &[i64]) -> Question {
    Question::Round {
        touched: touched.to_vec(),
    }
}

fn append(index: u64) -> Append {
    Append {
        leader: BALLOT,
        previous: (index > 0).then_some(Place { term: 1, index }),
        committed: None,
        entries: Vec::new(),
    }
}

async fn call(lane: &mut RpcLane, index: u64, patience: Duration) -> Result<Appended, PeerError> {
    let message = append(index);
    lane.call(Kind::Append, &message, Kind::Appended, patience)
        .await
}

fn up_to(index: u64) -> Appended {
    Appended::UpTo(Some(Place { term: 1, index }))
}

fn refusal_of<T: Debug>(result: Result<T, PeerError>) -> Refusal {
    match result {
        Err(PeerError::Refused { server: 2, refusal }) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn questions_votes_and_entries_are_answered() {
    let host = host().await;
    let door = TestDoor::of(1);
    let peers = peers(&door, &host.address);
    let answer = peers.ask(2, round(&[7, 8]), PATIENCE).await.unwrap();
    assert_eq!(answer, Answer::Confirmed { index: 102 });
    let asked = VoteAsked {
        candidate: BALLOT,
        last: None,
        transfer: false,
    };
    let voted: Voted = peers
        .request(2, Kind::Vote, &asked, Kind::Voted, PATIENCE)
        .await
        .unwrap();
    assert!(voted.granted);
    let mut lane = peers.lane(2, &host.address, Lane::Replication);
    assert_eq!(call(&mut lane, 5, PATIENCE).await.unwrap(), up_to(5));
    assert_eq!(call(&mut lane, 6, PATIENCE).await.unwrap(), up_to(6));
}

#[tokio::test]
async fn what_the_service_cannot_do_is_an_error_and_not_an_answer() {
    let host = host().await;
    let peers = peers(&TestDoor::of(1), &host.address);
    let asked = VoteAsked {
        candidate: BALLOT,
        last: None,
        transfer: false,
    };
    let voted: Result<Voted, PeerError> = peers
        .request(2, Kind::PreVote, &asked, Kind::Voted, PATIENCE)
        .await;
    let failed = PeerError::Failed {
        server: 2,
        reason: "no".to_owned(),
    };
    assert_eq!(voted, Err(failed));
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_with_its_reason() {
    let host = host().await;
    for code in [
        RefusalCode::Cluster,
        RefusalCode::ReusedId,
        RefusalCode::Stranger,
    ] {
        let refusal = Refusal::new(code, "a reason");
        *host.door.refuses.lock() = Some(refusal.clone());
        let peers = peers(&TestDoor::of(1), &host.address);
        assert_eq!(
            refusal_of(peers.ask(2, round(&[]), PATIENCE).await),
            refusal
        );
        let mut lane = peers.lane(2, &host.address, Lane::Heartbeat);
        assert_eq!(refusal_of(call(&mut lane, 1, PATIENCE).await), refusal);
        assert_eq!(
            refusal_of(peers.open_forward(2, 1, PATIENCE).await),
            refusal
        );
    }
    // It is looked at again each time.
    *host.door.refuses.lock() = None;
    let peers = peers(&TestDoor::of(1), &host.address);
    peers.ask(2, round(&[]), PATIENCE).await.unwrap();
}

/// The other way round: whoever answers may not be who he should.
#[tokio::test]
async fn the_caller_refuses_as_well() {
    let host = host().await;
    let door = TestDoor::of(1);
    let refusal = Refusal::new(RefusalCode::ReusedId, "not that one");
    *door.refuses.lock() = Some(refusal.clone());
    let peers = peers(&door, &host.address);
    assert_eq!(
        refusal_of(peers.ask(2, round(&[]), PATIENCE).await),
        refusal
    );
}

#[tokio::test]
async fn a_server_that_is_looked_for_elsewhere_refuses() {
    let host = host().await;
    let peers = Peers::new(TestDoor::of(1), network());
    peers.set_members(BTreeMap::from([(3, host.address.clone())]));
    let error = peers.ask(3, round(&[]), PATIENCE).await.unwrap_err();
    let PeerError::Refused { server: 3, refusal } = error else {
        panic!("{error:?}");
    };
    assert_eq!(refusal.code, RefusalCode::WrongServer);
    assert_eq!(
        refusal.reason,
        "server 1 looks for server 3 here, but this is server 2: check the addresses"
    );
}

#[tokio::test]
async fn a_server_that_is_still_starting_says_so_and_answers_probes() {
    let host = host_not_open().await;
    let peers = peers(&TestDoor::of(1), &host.address);
    let refusal = refusal_of(peers.ask(2, round(&[]), PATIENCE).await);
    assert_eq!(refusal.code, RefusalCode::Starting);
    let probe = Probe {
        cluster: 77,
        server: 1,
    };
    let probed = dialer::probe(&network(), 2, &host.address, probe)
        .await
        .unwrap();
    assert_eq!((probed.server, probed.cluster), (2, 77));
    host.port.open(Arc::clone(&host.service));
    peers.ask(2, round(&[]), PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_server_that_was_not_admitted_may_still_ask_to_be_taken_in_again() {
    let host = host().await;
    *host.door.refuses.lock() = Some(Refusal::new(RefusalCode::ReusedId, "no"));
    let rejoin = Rejoin {
        cluster: 1,
        server: 1,
        incarnation: 99,
    };
    let answer = dialer::rejoin(&network(), 2, &host.address, rejoin)
        .await
        .unwrap();
    assert_eq!(answer, Answer::Confirmed { index: 99 });
}

async fn say_hello(address: &str, hello: Hello) -> wire::Frame {
    let (reader, writer) = TcpStream::connect(address).await.unwrap().into_split();
    let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
    greet(&mut writer, Kind::Hello, &hello).await.unwrap();
    reader.next().await.unwrap().unwrap()
}

#[tokio::test]
async fn versions_without_a_common_one_are_refused_and_others_agree_on_the_newest_of_both() {
    let host = host().await;
    let hello = |versions| Hello {
        versions,
        lane: Lane::Control,
        from: TestDoor::of(1).me.unwrap(),
        to: 2,
        term: 0,
    };
    let answer = say_hello(&host.address, hello((VERSIONS.1 + 1, VERSIONS.1 + 2))).await;
    assert_eq!(answer.kind, Kind::Refused);
    let refusal: Refusal = answer.decode().unwrap();
    assert_eq!(refusal.code, RefusalCode::Version);
    assert!(
        refusal.reason.ends_with("update the older one"),
        "{refusal}"
    );

    let answer = say_hello(&host.address, hello((VERSIONS.0, VERSIONS.1 + 5))).await;
    assert_eq!(answer.kind, Kind::Welcome);
    let welcome: wire::Welcome = answer.decode().unwrap();
    assert_eq!(welcome.version, VERSIONS.1);
    assert_eq!(Some(welcome.host), host.door.me);
}

/// A long answer on the control lane holds up no other.
#[tokio::test]
async fn questions_do_not_wait_for_each_other() {
    let mut host = host().await;
    let peers = peers(&TestDoor::of(1), &host.address);
    let slow = tokio::spawn({
        let peers = peers.clone();
        async move { peers.ask(2, round(&[0]), PATIENCE).await }
    });
    host.held.recv().await.unwrap();
    peers.ask(2, round(&[1]), PATIENCE).await.unwrap();
    assert!(!slow.is_finished());
    host.service.release.notify_one();
    slow.await.unwrap().unwrap();
}

/// A question may take longer than a connection may be silent: the other side says it is still at
/// it.
#[tokio::test]
async fn a_question_may_take_long() {
    let mut host = host().await;
    let peers = peers(&TestDoor::of(1), &host.address);
    let begun = Instant::now();
    let asking = tokio::spawn(async move { peers.ask(2, round(&[0]), PATIENCE).await });
    host.held.recv().await.unwrap();
    tokio::time::sleep_until(begun + dialer::SILENCE_MAX * 2).await;
    host.service.release.notify_one();
    asking.await.unwrap().unwrap();
}

/// The engine drops a heartbeat that takes too long; the next one must go through.
#[tokio::test]
async fn a_call_that_was_given_up_neither_breaks_its_lane_nor_answers_the_next_one() {
    let mut host = host().await;
    let peers = peers(&TestDoor::of(1), &host.address);
    let mut lane = peers.lane(2, &host.address, Lane::Heartbeat);
    call(&mut lane, 1, PATIENCE).await.unwrap();
    tokio::select! {
        biased;
        _ = host.held.recv() => {}
        answered = call(&mut lane, 0, PATIENCE) => panic!("{answered:?}"),
    }
    host.service.release.notify_one();
    assert_eq!(call(&mut lane, 9, PATIENCE).await.unwrap(), up_to(9));
}

/// Accepts, and never says a word: a stopped process.
fn network() -> Arc<dyn Network> {
    Arc::new(SystemNetwork)
}

async fn mute() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[tokio::test]
async fn a_hung_server_costs_a_deadline_and_no_more() {
    let (_listener, address) = mute().await;
    let peers = peers(&TestDoor::of(1), &address);
    let begun = Instant::now();
    let patience = Duration::from_millis(200);
    let error = peers.ask(2, round(&[]), patience).await.unwrap_err();
    assert_eq!(
        error,
        PeerError::Late {
            server: 2,
            patience
        }
    );
    let mut lane = peers.lane(2, &address, Lane::Replication);
    let error = call(&mut lane, 1, PATIENCE).await.unwrap_err();
    assert!(error.is_unsent(), "{error}");
    let forward = peers.open_forward(2, 1, patience).await;
    assert!(
        matches!(forward, Err(PeerError::Late { .. })),
        "{forward:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(3));
}

/// Shakes hands, then falls silent: a server that is stopped, or a link that is cut, while in use.
#[tokio::test]
async fn a_server_that_falls_silent_is_dialled_again() {
    let mut host = host().await;
    let peers = peers(&TestDoor::of(1), &host.address);
    let mut lane = peers.lane(2, &host.address, Lane::Heartbeat);
    let patience = Duration::from_millis(50);
    let begun = Instant::now();
    // None of these is answered; after a while they go out on a new connection.
    loop {
        let late = call(&mut lane, 0, patience).await;
        assert_eq!(
            late,
            Err(PeerError::Late {
                server: 2,
                patience
            })
        );
        if begun.elapsed() > dialer::SILENCE_MAX {
            break;
        }
    }
    let mut sent = 0;
    while host.held.try_recv().is_ok() {
        sent += 1;
    }
    // One on each connection: the others wait behind it.
    assert!((2..6).contains(&sent), "{sent} connections");
}

#[tokio::test]
async fn a_server_that_was_down_is_found_soon_after_it_is_back() {
    let (listener, address) = mute().await;
    drop(listener);
    let door = TestDoor::of(1);
    let peers = peers(&door, &address);
    let mut lane = peers.lane(2, &address, Lane::Replication);
    let error = call(&mut lane, 1, PATIENCE).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error:?}");

    let listener = TcpListener::bind(&address).await.unwrap();
    let host = host_not_open().await;
    host.port.open(Arc::clone(&host.service));
    let port = Arc::clone(&host.port);
    tokio::spawn(port.serve(Listener::Tcp(listener), CancellationToken::new()));
    let begun = Instant::now();
    while call(&mut lane, 1, PATIENCE).await.is_err() {}
    peers.ask(2, round(&[]), PATIENCE).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(200));
}

#[tokio::test]
async fn a_server_that_is_no_member_is_not_asked() {
    let peers = Peers::new(TestDoor::of(1), network());
    let error = peers.ask(2, round(&[]), PATIENCE).await.unwrap_err();
    assert_eq!(error, PeerError::Unknown(2));
    let host = host().await;
    peers.set_members(BTreeMap::from([(2, host.address.clone())]));
    peers.ask(2, round(&[]), PATIENCE).await.unwrap();
    peers.set_members(BTreeMap::new());
    let error = peers.ask(2, round(&[]), PATIENCE).await.unwrap_err();
    assert_eq!(error, PeerError::Unknown(2));
}

#[tokio::test]
async fn a_member_that_has_moved_is_found_at_its_new_address() {
    let (_listener, address) = mute().await;
    let host = host().await;
    let peers = peers(&TestDoor::of(1), &address);
    peers.set_members(BTreeMap::from([(2, host.address.clone())]));
    peers.ask(2, round(&[]), PATIENCE).await.unwrap();
}

#[tokio::test]
async fn forwarded_writes_arrive_in_order_with_their_term() {
    let mut host = host().await;
    let peers = peers(&TestDoor::of(1), &host.address);
    let mut stream = peers.open_forward(2, 8, PATIENCE).await.unwrap();
    for number in 0..100_u32 {
        let commands = [Bytes::from(number.to_string()), Bytes::from_static(b"x")];
        stream.send(&commands).await.unwrap();
    }
    for number in 0..100_u32 {
        let (from, term, commands) = host.forwarded.recv().await.unwrap();
        assert_eq!((from, term), (1, 8));
        assert_eq!(commands, [number.to_string().as_bytes(), b"x"]);
    }
}

#[tokio::test]
async fn the_leader_says_why_it_takes_no_more_writes() {
    let host = host().await;
    let peers = peers(&TestDoor::of(1), &host.address);
    let mut stream = peers.open_forward(2, 8, PATIENCE).await.unwrap();
    stream.send(&[]).await.unwrap();
    let ended = timeout(PATIENCE, stream.ended()).await.unwrap();
    let reason = "enough".to_owned();
    assert_eq!(ended, PeerError::Failed { server: 2, reason });
}

/// What a server sends on a new stream follows what it has sent on the old one, or the old one is
/// gone.
#[tokio::test]
async fn a_new_stream_of_writes_ends_the_old_one() {
    let mut host = host().await;
    let peers = peers(&TestDoor::of(1), &host.address);
    let mut old = peers.open_forward(2, 8, PATIENCE).await.unwrap();
    old.send(&[Bytes::from_static(b"old")]).await.unwrap();
    host.forwarded.recv().await.unwrap();
    let mut new = peers.open_forward(2, 9, PATIENCE).await.unwrap();
    new.send(&[Bytes::from_static(b"new")]).await.unwrap();
    let (_, term, _) = host.forwarded.recv().await.unwrap();
    assert_eq!(term, 9);
    let ended = timeout(PATIENCE, old.ended()).await.unwrap();
    assert!(matches!(ended, PeerError::Failed { .. }), "{ended:?}");
    old.send(&[Bytes::from_static(b"late")]).await.ok();
    new.send(&[Bytes::from_static(b"newer")]).await.unwrap();
    let (_, _, commands) = host.forwarded.recv().await.unwrap();
    assert_eq!(commands, [b"newer".as_slice()]);
}

#[tokio::test]
async fn an_open_stream_of_writes_ends_with_the_other_server() {
    let host = host().await;
    let peers = peers(&TestDoor::of(1), &host.address);
    let mut stream = peers.open_forward(2, 8, PATIENCE).await.unwrap();
    drop(host);
    let ended = timeout(PATIENCE, stream.ended()).await.unwrap();
    assert!(matches!(ended, PeerError::Lost { .. }), "{ended:?}");
}

#[tokio::test]
async fn bytes_of_something_else_end_the_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let host = host().await;
    let mut stream = TcpStream::connect(&host.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // Closed or reset: our bytes may lie unread.
    ended.expect("the connection has an end").ok();
    assert!(answer.is_empty());
}

#[tokio::test]
async fn a_cut_way_ends_what_is_open_and_takes_nothing_until_it_is_healed() {
    let links = Links::severable();
    let host = host_linked(links.clone()).await;
    host.port.open(Arc::clone(&host.service));
    let door = TestDoor::of(1);
    let peers = peers(&door, &host.address);
    let mut lane = peers.lane(2, &host.address, Lane::Heartbeat);
    peers.ask(2, round(&[]), PATIENCE).await.unwrap();
    call(&mut lane, 1, PATIENCE).await.unwrap();
    let probe = Probe {
        cluster: 1,
        server: 1,
    };

    links.part(&[3], &[1, 2]);
    call(&mut lane, 2, PATIENCE).await.unwrap();
    links.part(&[2], &[1]);
    assert!(!links.are_open(1, 2));
    let lost = call(&mut lane, 3, PATIENCE).await.unwrap_err();
    assert!(matches!(lost, PeerError::Lost { server: 2, .. }), "{lost}");
    call(&mut lane, 3, PATIENCE).await.unwrap_err();
    peers.ask(2, round(&[]), PATIENCE).await.unwrap_err();
    dialer::probe(&network(), 2, &host.address, probe)
        .await
        .unwrap_err();

    links.heal();
    call(&mut lane, 3, PATIENCE).await.unwrap();
    peers.ask(2, round(&[]), PATIENCE).await.unwrap();
    dialer::probe(&network(), 2, &host.address, probe)
        .await
        .unwrap();
}
