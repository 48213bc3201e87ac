//! A kept znode and a group while connections break at every request, and sessions expire.

use quorate_client::{Client, OnExpiry};
use quorate_recipes::{Group, GroupChange, NodeState, PersistentNode};
use quorate_testing::{Ensemble, TestServer};

use crate::one_client::{at_every_request, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_znode_is_there_once_and_then_gone_wherever_the_connection_breaks() {
    let play = async |client: Client| {
        let node = PersistentNode::new(&client, "/a/node").data("1").keep();
        node.present().await.unwrap();
        node.set("2").await.unwrap();
        let set = client.get("/a/node").await.unwrap();
        node.close().await.unwrap();
        let left = client.exists("/a/node").await.unwrap();
        (client, set, left)
    };
    at_every_request(
        play,
        async |observer, (client, (data, stat), left), context| {
            assert_eq!(&data[..], b"2", "{context}");
            // Created once, and set once: a second znode would begin again.
            assert_eq!(stat.version, 1, "{context}");
            assert!(left.is_none(), "{context}");
            observer.sync("/").await.unwrap();
            let (names, _) = observer.children("/a").await.unwrap();
            assert_eq!(names, [""; 0], "{context}");
            client.close().await;
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_handle_leaves_no_znode_wherever_the_connection_breaks() {
    let play = async |client: Client| {
        let node = PersistentNode::new(&client, "/a/node").keep();
        // As far as it comes.
        let (_, watch) = client.exists("/a/node").watch().await.unwrap();
        watch.changed().await.unwrap();
        drop(node);
        client
    };
    at_every_request(play, async |observer, client, context| {
        loop {
            let (stat, watch) = observer.exists("/a/node").watch().await.unwrap();
            if stat.is_none() {
                break;
            }
            watch.changed().await.unwrap();
        }
        // The session is alive: it has not gone with that.
        assert!(client.exists("/a").await.unwrap().is_some(), "{context}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_joins_once_and_leaves_wherever_the_connection_breaks() {
    let play = async |client: Client| {
        let group = Group::new(&client, "/g");
        let member = group.join("a", "1").await.unwrap();
        let seen = group.members().await.unwrap();
        member.leave().await.unwrap();
        (client, seen)
    };
    at_every_request(play, async |observer, (client, seen), context| {
        assert_eq!(seen.len(), 1, "{context}");
        assert_eq!(&seen[0].data[..], b"1", "{context}");
        observer.sync("/").await.unwrap();
        let left = Group::new(&observer, "/g").members().await.unwrap();
        assert_eq!(left, [], "{context}");
        client.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_znode_outlives_sessions_and_servers() {
    within(async {
        let ensemble = Ensemble::start(3).await.unwrap();
        let builder = Client::builder(&ensemble.connect_string());
        let client = builder.on_expiry(OnExpiry::NewSession).connect().await;
        let client = client.unwrap();
        let node = PersistentNode::new(&client, "/node").data("1").keep();
        let mut last = node.present().await.unwrap();
        for _ in 0..3 {
            let mut states = node.states();
            ensemble.expire(client.session().unwrap()).await.unwrap();
            loop {
                if let NodeState::Present { created, session } = states.current()
                    && created > last
                {
                    assert_eq!(client.session(), Some(session));
                    last = created;
                    break;
                }
                states.next().await.unwrap();
            }
        }
        // A server that dies takes nothing along but the connection.
        let id = client.session().unwrap();
        let serving = ensemble.server_of(id).unwrap().id();
        ensemble.server(serving).kill().await.unwrap();
        node.set("2").await.unwrap();
        assert_eq!(node.present().await.unwrap(), last);
        assert_eq!(&client.get("/node").await.unwrap().0[..], b"2");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_is_told_in_one_change_after_a_gap() {
    within(async {
        let server = TestServer::start().await.unwrap();
        let watcher = Client::builder(&server.connect_string());
        let watcher = watcher.on_expiry(OnExpiry::NewSession).connect().await;
        let watcher = watcher.unwrap();
        let client = Client::connect(&server.connect_string()).await.unwrap();
        let group = Group::new(&client, "/g");
        let stays = group.join("stays", "1").await.unwrap();
        let goes = group.join("goes", "").await.unwrap();
        let mut changes = Group::new(&watcher, "/g").changes().await.unwrap();

        // Nobody tells the watcher anything.
        let mut states = watcher.states();
        server.refuse_connections(true).await;
        server.cut_connections();
        while states.current().is_connected() {
            states.next().await;
        }
        server.refuse_connections(false).await;
        stays.set("2").await.unwrap();
        goes.leave().await.unwrap();
        let _comes = group.join("comes", "").await.unwrap();
        let mut told = Vec::new();
        while told.len() < 3 {
            match changes.next().await.unwrap() {
                Ok(GroupChange::Resynced(changes)) => told.extend(changes),
                Ok(change) => told.push(change),
                Err(error) => assert!(!error.is(quorate_client::Reason::NoNode), "{error}"),
            }
        }
        let told: Vec<String> = told
            .iter()
            .map(|change| match change {
                GroupChange::Joined(member) => format!("+{}", member.id),
                GroupChange::Left(member) => format!("-{}", member.id),
                GroupChange::Updated { new, .. } => format!("={}", new.id),
                other => panic!("{other:?}"),
            })
            .collect();
        for change in ["+comes", "-goes", "=stays"] {
            assert!(told.iter().any(|told| told == change), "{told:?}");
        }
        let seen: Vec<_> = changes.members().keys().collect();
        assert_eq!(seen, ["comes", "stays"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_a_group_goes_on_with_the_next_session_whatever_was_under_way() {
    within(async {
        let server = TestServer::start().await.unwrap();
        let builder = Client::builder(&server.connect_string());
        let watcher = builder.on_expiry(OnExpiry::NewSession).connect().await;
        let watcher = watcher.unwrap();
        let client = Client::connect(&server.connect_string()).await.unwrap();
        // By hand: a membership would read its znode, too.
        client.create("/g", "").await.unwrap();
        client.create("/g/a", "0").ephemeral().await.unwrap();
        let mut changes = Group::new(&watcher, "/g").changes().await.unwrap();
        for round in 1..=5 {
            // The read that follows the event is never answered, and its session ends.
            let fault = server.withhold_reply(quorate_testing::OpCode::GetData);
            let session = watcher.session().unwrap();
            let data = format!("{round}");
            let mut told = Vec::new();
            let follow = async {
                while changes.members()["a"].data != data {
                    told.push(changes.next().await.unwrap());
                }
            };
            let expire = async {
                // Reads nothing itself: the znode is known.
                client.set("/g/a", &data).await.unwrap();
                fault.happened().await.unwrap();
                server.expire(session).await.unwrap();
            };
            tokio::join!(follow, expire);
            assert!(!told.is_empty(), "round {round}");
        }
    })
    .await;
}

/// A session lives on while all servers stand still, longer than its timeout, and its znodes with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_znode_that_is_closed_without_a_server_goes_when_there_is_one_again() {
    within(async {
        let ensemble = Ensemble::start(1).await.unwrap();
        let server = ensemble.server(1);
        let builder = Client::builder(&server.connect_string());
        let timeout = std::time::Duration::from_secs(1);
        let client = builder.session_timeout(timeout).connect().await.unwrap();
        let observer = Client::connect(&server.connect_string()).await.unwrap();
        let node = PersistentNode::new(&client, "/node").keep();
        node.present().await.unwrap();
        let session = client.session();
        server.kill().await.unwrap();
        // No longer than that.
        node.close().await.unwrap();
        server.start().await.unwrap();
        while let (Some(_), gone) = observer.exists("/node").watch().await.unwrap() {
            gone.changed().await.ok();
        }
        client.sync("/").await.unwrap();
        assert_eq!(client.session(), session, "it did not go with its session");
    })
    .await;
}
