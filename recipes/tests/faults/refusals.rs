//! What is refused or missing: it is told, costs no endless attempts, and loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_client::metrics::Metrics;
use quorate_client::{AclEntry, Client, Outcome, Perms, Reason};
use quorate_recipes::{
    Barrier, Decision, DelayQueue, DoubleBarrier, Error, Group, IdBlocks, Number, Queue,
    SharedValue, TwoPhaseCommit, Vote,
};
use quorate_testing::{OpCode, TestServer};

use crate::one_client::within;

const ALL_BUT_CREATE: Perms = Perms(Perms::ALL.0 & !Perms::CREATE.0);

fn anyone(perms: Perms) -> Vec<AclEntry> {
    vec![AclEntry::new(perms, "world", "anyone")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chroot_that_does_not_exist_is_an_error_of_every_recipe() {
    within(async {
        let server = TestServer::start().await.unwrap();
        let client = Client::connect(&server.connect_string()).await.unwrap();
        let client = client.with_chroot("/missing").unwrap();
        let is_told = |result: Result<(), Error>| {
            let error = result.unwrap_err();
            assert!(error.is(Reason::NoNode), "{error}");
        };
        is_told(Queue::new(&client, "/queue").put("a").await);
        is_told(Barrier::new(&client, "/barrier").set().await);
        is_told(Number::new(&client, "/number").add(1).await.map(drop));
        is_told(IdBlocks::new(&client, "/ids").next().await.map(drop));
        is_told(
            SharedValue::new(&client, "/v")
                .set(&"a".into())
                .await
                .map(drop),
        );
        is_told(Group::new(&client, "/group").join("a", "").await.map(drop));
        let barrier = DoubleBarrier::new(&client, "/double", 1);
        is_told(barrier.enter().await.map(drop));
        let commits = TwoPhaseCommit::new(&client, "/commits");
        is_told(commits.begin("1", ["a"], "").await.map(drop));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_read_is_told_and_not_taken_for_absent() {
    within(async {
        let server = TestServer::start().await.unwrap();
        let client = Client::connect(&server.connect_string()).await.unwrap();
        client.create("/barrier", b"").await.unwrap();
        let closed = anyone(Perms::ADMIN);
        let ready = client.create("/barrier/ready", b"").acl(closed.clone());
        ready.await.unwrap();
        let entered = DoubleBarrier::new(&client, "/barrier", 1).enter().await;
        assert!(entered.unwrap_err().is(Reason::NoAuth));

        let commits = TwoPhaseCommit::new(&client, "/commits");
        let proposal = commits.begin("1", ["a"], "").await.unwrap();
        let mut participant = commits.participant("a");
        let ballot = participant.next().await.unwrap();
        assert_eq!(ballot.vote(Vote::Commit).await.unwrap(), Decision::Commit);
        client.set_acl("/commits/1", closed).await.unwrap();
        assert!(ballot.done().await.unwrap_err().is(Reason::NoAuth));
        let open = vec![AclEntry::open()];
        client.set_acl("/commits/1", open).await.unwrap();
        ballot.done().await.unwrap();
        proposal.done().await.unwrap();
        let (left, _) = client.children("/commits").await.unwrap();
        assert_eq!(left, [""; 0]);
    })
    .await;
}

/// It was off the queue, and nobody has it: it may not be given up because of a refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_may_not_be_put_back_now_is_put_back_later() {
    within(async {
        let server = TestServer::start().await.unwrap();
        let client = Client::connect(&server.connect_string()).await.unwrap();
        let queue = Queue::new(&client, "/queue");
        queue.put("job").await.unwrap();
        let closed = anyone(ALL_BUT_CREATE);
        client.set_acl("/queue", closed).await.unwrap();
        let mut deleted = client.watch("/queue").recursive().await.unwrap();
        // The answer to its last step finds nobody.
        let mut taking = Box::pin(queue.take().into_future());
        loop {
            tokio::select! {
                biased;
                event = deleted.next() => match event.unwrap() {
                    quorate_client::watch::Item::Event(event)
                        if event.kind == quorate_client::EventType::NodeDeleted
                            && event.path.starts_with("/queue/qn-")
                            && event.path.matches('/').count() == 2 => break,
                    _ => {}
                },
                taken = &mut taking => panic!("it was to be dropped before: {taken:?}"),
            }
        }
        let refused = server.pass_next(OpCode::Multi);
        drop(taking);
        refused.happened().await.unwrap();
        client
            .set_acl("/queue", vec![AclEntry::open()])
            .await
            .unwrap();
        assert_eq!(queue.take().await.unwrap(), "job");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipes_record_is_no_value_to_replace_or_remove() {
    within(async {
        let server = TestServer::start().await.unwrap();
        let client = Client::connect(&server.connect_string()).await.unwrap();
        let ids = IdBlocks::new(&client, "/ids").block(1);
        assert_eq!(ids.next().await.unwrap(), 0);
        let value = SharedValue::new(&client, "/ids");
        for refused in [
            value.set(&"a".into()).await.map(drop),
            value.remove().await.map(drop),
            Number::new(&client, "/ids").set(0).await,
        ] {
            assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
        }
        assert_eq!(ids.next().await.unwrap(), 1);
    })
    .await;
}

/// Who may create or delete in a directory decides as much as who may change what is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acl_is_that_of_the_directory_as_well() {
    within(async {
        let server = TestServer::start().await.unwrap();
        let builder = Client::builder(&server.connect_string());
        let client = builder.authenticate("digest", b"me:secret").connect();
        let client = client.await.unwrap();
        let stranger = Client::connect(&server.connect_string()).await.unwrap();
        let mine = vec![AclEntry::new(Perms::ALL, "auth", "")];
        let queue = Queue::new(&client, "/queue").acl(mine.clone());
        queue.put("a").await.unwrap();
        let group = Group::new(&client, "/group").acl(mine.clone());
        let membership = group.join("a", "").await.unwrap();
        let commits = TwoPhaseCommit::new(&client, "/commits").acl(mine.clone());
        commits.begin("1", ["a"], "").await.unwrap();
        let barrier = DoubleBarrier::new(&client, "/barrier", 1).acl(mine.clone());
        let inside = barrier.enter().await.unwrap();
        let parts = quorate_recipes::Partitioner::new(&client, "/parts", ["p"]).acl(mine);
        let partitions = parts.join().await.unwrap();
        for directory in [
            "/queue",
            "/group",
            "/commits",
            "/barrier",
            "/parts",
            "/parts/owners",
            "/parts/members",
        ] {
            let path = format!("{directory}/stranger");
            let created = stranger.create(&path, b"").await;
            assert!(created.unwrap_err().is(Reason::NoAuth), "{directory}");
        }
        partitions.leave().await;
        inside.leave().await.unwrap();
        membership.leave().await.unwrap();
    })
    .await;
}

/// Each handle has a mark; a session that goes on for years is to have those of handles in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_that_are_gone_leave_nothing_in_the_session() {
    within(async {
        let server = TestServer::start().await.unwrap();
        let client = Client::connect(&server.connect_string()).await.unwrap();
        let kept = Number::new(&client, "/number");
        kept.add(1).await.unwrap();
        for _ in 0..5 {
            Number::new(&client, "/number").add(1).await.unwrap();
            IdBlocks::new(&client, "/ids").next().await.unwrap();
            Queue::new(&client, "/queue").put("a").await.unwrap();
            let queue = Queue::new(&client, "/queue");
            assert_eq!(queue.take().await.unwrap(), "a");
        }
        // Sent when the last was dropped, before this is.
        for (path, expected) in [("/number", 1), ("/ids", 0), ("/queue", 0)] {
            let left = client.children(path).await.unwrap().0;
            assert_eq!(left.len(), expected, "{left:?}");
        }
        assert_eq!(kept.add(1).await.unwrap(), 7);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_put_into_a_queue_with_a_bound_at_once_all_do() {
    within(async {
        let server = TestServer::start().await.unwrap();
        let client = Client::connect(&server.connect_string()).await.unwrap();
        let puts: Vec<_> = (0..32)
            .map(|number: u32| {
                // Each a handle of its own.
                let queue = Queue::new(&client, "/queue").bound(32);
                tokio::spawn(async move { queue.put(number.to_string()).await })
            })
            .collect();
        for put in puts {
            put.await.unwrap().unwrap();
        }
        let queue = Queue::new(&client, "/queue").bound(32);
        assert_eq!(queue.count().await.unwrap(), 32);
        assert!(!queue.try_put("one more").await.unwrap());
    })
    .await;
}

/// How often a client has listed children.
#[derive(Clone, Debug, Default)]
struct Listed(Arc<AtomicUsize>);

impl Metrics for Listed {
    fn on_request(&self, operation: &'static str, _: Outcome, _: Duration) {
        if operation == "children" {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taker_that_waits_looks_once_at_what_comes_together() {
    within(async {
        let server = TestServer::start().await.unwrap();
        let listed = Listed::default();
        let builder = Client::builder(&server.connect_string());
        let taker = builder.metrics(Arc::new(listed.clone())).connect();
        let taker = taker.await.unwrap();
        let other = Client::connect(&server.connect_string()).await.unwrap();
        let queue = DelayQueue::new(&other, "/queue");
        queue
            .put_in(Duration::from_secs(3600), "late")
            .await
            .unwrap();
        let watched = server.pass_next(OpCode::AddWatch);
        let taking = tokio::spawn(DelayQueue::new(&taker, "/queue").take().into_future());
        watched.happened().await.unwrap();
        let mut many = other.transaction();
        for _ in 0..200 {
            many = many.create("/queue/at-00ffffffffffffff-", b"").sequential();
        }
        many.await.unwrap();
        // Time enough for one look after another.
        let soon = Duration::from_millis(500);
        queue.put_in(soon, "due").await.unwrap();
        assert_eq!(taking.await.unwrap().unwrap(), "due");
        let count = listed.0.load(Ordering::SeqCst);
        assert!((2..20).contains(&count), "{count}");
    })
    .await;
}
