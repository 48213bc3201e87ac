//! What happens between clients and one server.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quorate_protocol::{OpCode, Request};
use quorate_testing::{Corruption, Server, TestServer, Which};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::SESSION_TIMEOUT;
use crate::conversation::{Conversation, PERSISTENT, auth, create, set_watches, watch};

async fn start() -> TestServer {
    TestServer::start().await.expect("it starts")
}

async fn open(server: &Server) -> Conversation {
    Conversation::open(server.address(), SESSION_TIMEOUT)
        .await
        .expect("a session")
}

/// Four letters, and all that is answered.
async fn word(address: SocketAddr, word: &[u8; 4]) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(word).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn a_request_that_is_cut_off_before_the_server_has_no_effect() {
    let server = start().await;
    let mut client = open(&server).await;
    let fault = server.cut_before_next(OpCode::Create);
    client.ping().await.expect("another request is not struck");
    assert!(!fault.has_happened());
    // Those before it are answered, though they came in one piece with it.
    let first = client.send(&Request::WhoAmI).await.expect("it is sent");
    client.send(&create("/a", PERSISTENT)).await.expect("sent");
    assert_eq!(client.receive().await.expect("an answer").xid, first);
    client.assert_cut().await;
    fault.happened().await.expect("it has");

    let mut again = Conversation::resume(server.address(), client.session)
        .await
        .expect("the session goes on");
    assert!(!again.has("/a").await.expect("an answer"));
    again.create("/a").await.expect("a fault strikes once");
}

#[tokio::test]
async fn a_request_whose_answer_is_cut_off_has_its_effect() {
    let server = start().await;
    let mut client = open(&server).await;
    let fault = server.cut_after_commit(Which::Write);
    assert!(!client.has("/a").await.expect("no write, no fault"));
    client.send(&create("/a", PERSISTENT)).await.expect("sent");
    client.assert_cut().await;
    fault.happened().await.expect("it has");
    let mut again = Conversation::resume(server.address(), client.session)
        .await
        .expect("the session goes on");
    assert!(again.has("/a").await.expect("an answer"));
}

#[tokio::test]
async fn a_handshake_can_be_cut_off_on_either_side() {
    let server = start().await;
    for fault in [
        server.cut_before_next(Which::Handshake),
        server.cut_after_commit(Which::Handshake),
    ] {
        Conversation::open(server.address(), SESSION_TIMEOUT)
            .await
            .expect_err("it is cut");
        fault.happened().await.expect("it has");
    }
    open(&server).await;
}

#[tokio::test]
async fn a_reply_that_is_withheld_never_comes_and_all_else_does() {
    let server = start().await;
    let mut client = open(&server).await;
    let fault = server.withhold_reply(Which::Any);
    // A ping is none of them.
    client.ping().await.expect("an answer");
    client.send(&create("/a", PERSISTENT)).await.expect("sent");
    assert!(client.has("/a").await.expect("the next answers come"));
    assert!(fault.has_happened());
}

#[tokio::test]
async fn a_reply_is_spoiled_as_it_was_asked_for() {
    let server = start().await;
    let mut client = open(&server).await;
    let fault = server.corrupt_reply(OpCode::Create, Corruption::WrongXid);
    let xid = client.send(&create("/a", PERSISTENT)).await.expect("sent");
    let reply = client.receive().await.expect("a reply");
    assert_ne!(reply.xid, xid);
    assert!(fault.has_happened());

    let fault = server.corrupt_reply(OpCode::Create, Corruption::Truncated);
    client.send(&create("/b", PERSISTENT)).await.expect("sent");
    let error = client.receive().await.expect_err("half a reply");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(fault.has_happened());
    client.ping().await.expect("the next reply is whole");

    server.corrupt_reply(OpCode::Create, Corruption::BadLength);
    client.send(&create("/c", PERSISTENT)).await.expect("sent");
    let error = client.receive().await.expect_err("no frame");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);

    let mut client = open(&server).await;
    for path in ["/a", "/b", "/c"] {
        assert!(client.has(path).await.expect("an answer"), "{path}");
    }
}

#[tokio::test]
async fn faults_strike_in_their_order_and_one_that_is_taken_back_does_not() {
    let server = start().await;
    let mut client = open(&server).await;
    let cut = server.cut_before_next(OpCode::Create);
    let withheld = server.withhold_reply(OpCode::Create);
    let never = server.cut_after_commit(OpCode::Create);
    assert!(cut.disarm());
    client.send(&create("/a", PERSISTENT)).await.expect("sent");
    assert!(client.has("/a").await.expect("an answer"));
    assert!(withheld.has_happened());
    server.heal_connections().await;
    client.create("/b").await.expect("no fault is left");
    assert!(!never.has_happened());
    assert!(!never.disarm());
}

#[tokio::test]
async fn connections_are_cut_in_the_middle_and_may_be_made_again() {
    let server = start().await;
    let mut client = open(&server).await;
    server.cut_connections();
    client.assert_cut().await;
    let mut again = Conversation::resume(server.address(), client.session)
        .await
        .expect("the session goes on");
    again.create("/a").await.expect("it is served");
}

#[tokio::test]
async fn refused_connections_are_refused_and_those_there_are_stay() {
    let server = start().await;
    let mut client = open(&server).await;
    server.refuse_connections(true).await;
    let refused = TcpStream::connect(server.address()).await;
    let refused = refused.expect_err("nobody listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    client.create("/a").await.expect("it is served");
    server.refuse_connections(false).await;
    assert!(open(&server).await.has("/a").await.expect("an answer"));
}

#[tokio::test]
async fn a_hanging_server_says_nothing_until_it_hangs_no_longer() {
    let server = start().await;
    let mut client = open(&server).await;
    let mut other = open(&server).await;
    server.hang(true);
    let late = TcpStream::connect(server.address()).await;
    late.expect("a connection is accepted");
    let xid = client.send(&create("/a", PERSISTENT)).await.expect("sent");
    {
        // Longer than a hundred answers take.
        let silent = client.receive();
        tokio::pin!(silent);
        let hanging = tokio::time::timeout(Duration::from_millis(300), &mut silent);
        assert!(hanging.await.is_err(), "it hangs");
    }
    server.hang(false);
    let reply = client.receive().await.expect("an answer");
    assert_eq!((reply.xid, reply.err), (xid, 0));
    assert!(other.has("/a").await.expect("an answer"));
}

#[tokio::test]
async fn a_delay_is_added_each_way_and_does_not_add_up() {
    const DELAY: Duration = Duration::from_millis(150);
    let server = start().await;
    let mut client = open(&server).await;
    server.delay(DELAY);
    let begun = Instant::now();
    client.ping().await.expect("an answer");
    assert!(begun.elapsed() >= 2 * DELAY);
    // Sent one after the other, on their way together.
    let begun = Instant::now();
    const REQUESTS: u32 = 50;
    for number in 0..REQUESTS {
        let request = create(&format!("/{number}"), PERSISTENT);
        client.send(&request).await.expect("it is sent");
        tokio::task::yield_now().await;
    }
    for _ in 0..REQUESTS {
        client.receive().await.expect("an answer");
    }
    let taken = begun.elapsed();
    assert!(taken >= 2 * DELAY && taken < REQUESTS * DELAY, "{taken:?}");
    server.delay(Duration::ZERO);
    client.ping().await.expect("an answer");
}

#[tokio::test]
async fn words_pings_auth_watches_and_events_pass_as_they_are() {
    let server = start().await;
    assert_eq!(
        word(server.address(), b"ruok").await.expect("a word"),
        "imok"
    );
    let mut client = open(&server).await;
    assert_eq!(client.call(&auth()).await.expect("an answer"), 0);
    assert_eq!(client.call(&set_watches()).await.expect("an answer"), 0);
    client.create("/a").await.expect("it is created");
    assert_eq!(client.call(&watch("/a")).await.expect("an answer"), 0);
    // An event comes before the answer that is withheld, and is none itself.
    let fault = server.withhold_reply(OpCode::Delete);
    let delete = Request::Delete(quorate_protocol::request::Delete {
        path: "/a".to_owned(),
        version: -1,
    });
    client.send(&delete).await.expect("it is sent");
    assert_eq!(client.receive().await.expect("an event").xid, -1);
    client.ping().await.expect("an answer");
    assert!(fault.has_happened());
    let close = client.call(&Request::CloseSession).await;
    assert_eq!(close.expect("an answer"), 0);
    client.assert_cut().await;
}

#[tokio::test]
async fn a_fault_that_never_strikes_is_an_error_after_a_while() {
    let ensemble = quorate_testing::Ensemble::builder()
        .patience(Duration::from_secs(20))
        .start()
        .await
        .expect("it starts");
    let fault = ensemble.server(1).cut_before_next(OpCode::Reconfig);
    drop(ensemble);
    assert!(!fault.has_happened());
    fault.happened().await.expect_err("nothing can happen now");
}

#[tokio::test]
async fn where_a_session_is_served_is_known_at_once() {
    let ensemble = quorate_testing::Ensemble::start(3)
        .await
        .expect("it starts");
    let id = |server: Option<&Server>| server.map(Server::id);
    let first = Conversation::open(ensemble.server(2).address(), SESSION_TIMEOUT).await;
    let mut first = first.expect("a session");
    assert_eq!(id(ensemble.server_of(first.session.id)), Some(2));
    // Not by one who only tries.
    let fault = ensemble.server(3).cut_after_commit(Which::Handshake);
    Conversation::resume(ensemble.server(3).address(), first.session)
        .await
        .expect_err("it is cut");
    assert!(fault.has_happened());
    assert!(!ensemble.server(3).serves(first.session.id));

    first.assert_cut().await;
    let coming = ensemble.server(1).wait_until_it_serves(first.session.id);
    let address = ensemble.server(1).address();
    let resuming = Conversation::resume(address, first.session);
    let (resumed, came) = futures_util::future::join(resuming, coming).await;
    came.expect("it came");
    let resumed = resumed.expect("the session goes on");
    assert!(ensemble.server(1).serves(resumed.session.id));
}
