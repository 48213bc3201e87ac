//! Sessions: their beginning, their states, their end.

use std::time::Duration;

use quorate_client::{Client, ConnectError, Error, OnExpiry, SessionState, SessionTicket};
use quorate_tests::server::{Product, Settings};

use crate::{against_both, against_both_with};

#[test]
fn closing_a_client_ends_its_session_and_ephemerals() {
    against_both(
        "closing_a_client_ends_its_session_and_ephemerals",
        |scene| async move {
            let (one, other) = (scene.client().await, scene.client().await);
            one.create("/e", b"").ephemeral().await.unwrap();
            other.sync("/").await.unwrap();
            assert!(other.exists("/e").await.unwrap().is_some());
            let clone = one.clone();
            one.close().await;
            assert_eq!(clone.state(), SessionState::Closed);
            assert!(matches!(
                clone.get("/").await,
                Err(Error::Closed { sent: false, .. })
            ));
            other.sync("/").await.unwrap();
            assert!(other.exists("/e").await.unwrap().is_none());
        },
    );
}

#[test]
fn dropping_the_last_clone_ends_the_session() {
    against_both(
        "dropping_the_last_clone_ends_the_session",
        |scene| async move {
            let (one, other) = (scene.client().await, scene.client().await);
            one.create("/e", b"").ephemeral().await.unwrap();
            other.sync("/").await.unwrap();
            let (stat, watcher) = other.exists("/e").watch().await.unwrap();
            assert!(stat.is_some());
            drop(one);
            watcher.await.unwrap();
        },
    );
}

#[test]
fn a_session_goes_on_with_its_ticket() {
    against_both("a_session_goes_on_with_its_ticket", |scene| async move {
        let one = scene.client().await;
        one.create("/e", b"").ephemeral().await.unwrap();
        let session = one.session();
        let ticket = one.detach().await.unwrap();
        let ticket: SessionTicket = ticket.export().parse().unwrap();
        let again = scene
            .builder()
            .ticket(ticket.clone())
            .connect()
            .await
            .unwrap();
        assert_eq!(again.session(), session);
        assert!(matches!(again.state(), SessionState::Reconnected { .. }));
        assert_eq!(again.ephemerals("/").await.unwrap(), ["/e"]);
        again.close().await;
        let late = scene.builder().ticket(ticket).connect().await;
        assert!(matches!(late, Err(ConnectError::TicketExpired)), "{late:?}");
    });
}

#[test]
fn a_client_survives_the_restart_of_its_server() {
    against_both(
        "a_client_survives_the_restart_of_its_server",
        |mut scene| async move {
            let client = scene.client().await;
            let mut states = client.states();
            client.create("/kept", b"1").await.unwrap();
            client.create("/e", b"").ephemeral().await.unwrap();
            let session = client.session();
            scene.server.restart().unwrap();
            // Reads wait for the connection.
            assert_eq!(&client.get("/kept").await.unwrap().0[..], b"1");
            assert_eq!(client.session(), session);
            assert_eq!(client.ephemerals("/").await.unwrap(), ["/e"]);
            while !matches!(states.current(), SessionState::Reconnected { .. }) {
                states.next().await.unwrap();
            }
            let failed = client.get("/kept").fail_fast().await;
            assert!(failed.is_ok(), "{failed:?}");
        },
    );
}

#[test]
fn an_idle_session_stays_alive_and_its_lease_moves_on() {
    let settings = Settings {
        tick_ms: 500,
        ..Settings::default()
    };
    against_both_with(
        "an_idle_session_stays_alive_and_its_lease_moves_on",
        &settings,
        |scene| async move {
            // A JVM that has just begun may need a second for an answer.
            let timeout = Duration::from_secs(4);
            // From Quorate the answers to pings are proof enough.
            let builder = scene
                .builder()
                .session_timeout(timeout)
                .keep_lease(scene.server.product() == Product::ApacheZookeeper);
            let client = builder.connect().await.unwrap();
            client.create("/e", b"").ephemeral().await.unwrap();
            let first = client.lease_deadline().unwrap();
            assert!(first.remaining() <= timeout);
            let mut last = first;
            let mut moves = 0;
            while moves < 4 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let now = client.lease_deadline().unwrap();
                assert!(now >= last);
                assert!(
                    !now.remaining().is_zero(),
                    "the lease ran out after {moves} moves"
                );
                moves += u32::from(now > last);
                last = now;
            }
            assert_eq!(client.ephemerals("/").await.unwrap(), ["/e"]);
        },
    );
}

#[test]
fn an_expired_session_is_seen_and_the_policy_decides() {
    let settings = Settings {
        tick_ms: 100,
        ..Settings::default()
    };
    against_both_with(
        "an_expired_session_is_seen_and_the_policy_decides",
        &settings,
        |scene| async move {
            for policy in [OnExpiry::Stay, OnExpiry::NewSession] {
                let builder = scene.builder().session_timeout(Duration::from_secs(2));
                let client = builder.on_expiry(policy).connect().await.unwrap();
                let mut states = client.states();
                let session = client.session();
                let other = scene.builder().ticket(client.ticket().unwrap());
                let watching = client.exists("/never").watch().await.unwrap().1;
                // Somebody else ends it.
                other.connect().await.unwrap().close().await;
                while states.next().await.unwrap() != SessionState::Expired {}
                assert!(watching.await.is_err());
                match policy {
                    OnExpiry::Stay => {
                        let error = client.get("/").await.unwrap_err();
                        assert!(error.needs_new_session(), "{error}");
                        assert_eq!(states.next().await, None);
                    }
                    OnExpiry::NewSession => {
                        client.get("/").await.unwrap();
                        assert_ne!(client.session(), session);
                    }
                }
            }
        },
    );
}

#[test]
fn options_that_contradict_each_other_make_no_client() {
    let builder = || Client::builder("localhost:1");
    let errors = [
        builder().session_timeout(Duration::from_millis(1)).start(),
        builder()
            .session_timeout(Duration::from_secs(1 << 40))
            .start(),
        builder().connect_timeout(Duration::ZERO).start(),
        builder()
            .session_timeout(Duration::from_secs(2))
            .attempt_timeout(Duration::from_secs(3))
            .start(),
        builder().frame_bytes_max(10).start(),
        Client::builder("").start(),
        Client::builder("a,,b/c/").start(),
    ];
    for error in errors {
        let error = error.unwrap_err().to_string();
        assert!(error.len() > 20, "{error}");
    }
}

#[tokio::test]
async fn nobody_there_is_said_within_the_limit() {
    let port = quorate_tests::server::free_port().unwrap();
    let limit = Duration::from_millis(400);
    let client = Client::builder(&format!("127.0.0.1:{port}")).connect_timeout(limit);
    let error = client.connect().await.unwrap_err();
    assert!(matches!(&error, ConnectError::NoServer { failures, .. } if failures.len() == 1));
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}
