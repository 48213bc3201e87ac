//! Locks: one at a time, in order, and with tokens that grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_client::{Client, Reason};
use quorate_recipes::{Error, FencingToken, HeldBy, Kind, Mutex, Naming, StopReason, Timing};

use crate::against_both;

const SOON: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(what: &str, something: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(SOON, something.into_future())
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// Waits until so many stand in the line.
pub(crate) async fn contenders(lock: &Mutex, count: usize) {
    loop {
        let waiting = lock.contenders().await.unwrap().len();
        if waiting == count {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_lock_is_held_by_one_at_a_time_in_the_order_of_arrival_with_tokens_that_grow() {
    against_both("a lock in order", |scene| async move {
        let first = Mutex::new(&scene.client().await, "/locks/a").identity("p1");
        let guard = soon("the first", first.acquire()).await.unwrap();
        assert!(guard.is_held());

        let (order, mut came) = tokio::sync::mpsc::unbounded_channel();
        let inside = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for number in 2..=5_usize {
            let lock = Mutex::new(&scene.client().await, "/locks/a").identity(format!("p{number}"));
            let (order, inside) = (order.clone(), Arc::clone(&inside));
            tasks.push(tokio::spawn(async move {
                let work = async |token: FencingToken| {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    order.send((number, token)).unwrap();
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                };
                lock.run(|lease| work(lease.token())).await.unwrap();
            }));
            contenders(&first, number).await;
        }
        let view = first.contenders().await.unwrap();
        let names: Vec<_> = view.iter().map(|seen| seen.identity.as_str()).collect();
        assert_eq!(names, ["p1", "p2", "p3", "p4", "p5"]);
        let holder = first.holder().await.unwrap().unwrap();
        assert_eq!(holder.identity, "p1");
        assert_eq!(holder.token, Some(guard.token()));

        let mut last = guard.token();
        guard.release().await.unwrap();
        for number in 2..=5 {
            let (next, token) = soon("the next", came.recv()).await.unwrap();
            assert_eq!(next, number);
            assert!(token > last, "{token} after {last}");
            last = token;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(first.holder().await.unwrap(), None);
    });
}

#[test]
fn those_who_will_not_wait_are_told_who_holds_it_and_leave_nothing_behind() {
    against_both("try and wait", |scene| async move {
        let client = scene.client().await;
        let lock = Mutex::new(&client, "/locks/a").identity("holder");
        let guard = lock.acquire().try_now().await.unwrap();
        let other = Mutex::new(&scene.client().await, "/locks/a").identity("other");
        match other.acquire().try_now().await {
            Err(Error::WouldBlock { holder, .. }) => assert_eq!(holder, "holder"),
            unexpected => panic!("{unexpected:?}"),
        }
        let patience = Duration::from_millis(50);
        match other.acquire().wait_at_most(patience).await {
            Err(Error::HeldByAnother { holder, waited, .. }) => {
                assert_eq!((holder.as_str(), waited), ("holder", patience));
            }
            unexpected => panic!("{unexpected:?}"),
        }
        // Dropped in the line.
        let mut waiting = Box::pin(other.acquire().into_future());
        tokio::select! {
            biased;
            got = &mut waiting => panic!("{got:?}"),
            () = contenders(&lock, 2) => {}
        }
        drop(waiting);
        contenders(&lock, 1).await;
        guard.release().await.unwrap();
        soon("the lock is free", other.acquire())
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
        assert!(client.children("/locks/a").await.unwrap().0.is_empty());
    });
}

#[test]
fn a_transaction_of_a_former_holder_is_refused() {
    against_both("held by", |scene| async move {
        let client = scene.client().await;
        client.create("/report", b"").await.unwrap();
        let lock = Mutex::new(&client, "/locks/a");
        let guard = lock.acquire().await.unwrap();
        let lease = guard.lease().clone();
        guard.transaction().set("/report", b"mine").await.unwrap();
        guard.release().await.unwrap();
        let late = lease.transaction().set("/report", b"late").await;
        assert!(late.unwrap_err().is(Reason::NoNode));
        let late = client
            .transaction()
            .held_by(&lease)
            .set("/report", b"late")
            .await;
        assert!(late.unwrap_err().is(Reason::NoNode));
        assert_eq!(&client.get("/report").await.unwrap().0[..], b"mine");
    });
}

#[test]
fn each_thing_that_takes_a_lock_away_is_told_apart() {
    against_both("why a lock is lost", |scene| async move {
        let admin = scene.client().await;
        let client = scene.client().await;
        let soon_noticed = Timing::default().retry_period(Duration::from_millis(100));
        let lock = Mutex::new(&client, "/locks/a")
            .timing(soon_noticed)
            .unwrap();
        let line = Mutex::new(&admin, "/locks/a");

        let guard = lock.acquire().await.unwrap();
        assert!(line.revoke("the disk is full").await.unwrap());
        let reason = "the disk is full".to_owned();
        assert_eq!(
            soon("the news", guard.stopping()).await,
            StopReason::Revoked { reason }
        );
        assert!(guard.is_held(), "until it is given back");
        guard.release().await.unwrap();
        assert!(!line.revoke("nobody is there").await.unwrap());

        let guard = lock.acquire().await.unwrap();
        admin.delete(guard.lease().node()).await.unwrap();
        assert_eq!(
            soon("the loss", guard.lost()).await,
            StopReason::NodeDeleted
        );
        assert!(!guard.is_held());
        assert!(matches!(
            guard.release().await,
            Err(Error::Lost {
                reason: StopReason::NodeDeleted,
                ..
            })
        ));

        let guard = lock.acquire().await.unwrap();
        let nobody = quorate_client::AclEntry {
            perms: quorate_client::Perms::DELETE,
            ..quorate_client::AclEntry::open()
        };
        admin.set_acl(guard.lease().node(), [nobody]).await.unwrap();
        assert_eq!(
            soon("the news", guard.stopping()).await,
            StopReason::NoAccess
        );
        guard.release().await.unwrap();

        // Work that is told to stop ends in order; what it spawned is waited for.
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let running = tokio::spawn({
            let lock = lock.clone();
            async move {
                lock.run(|lease| async move {
                    let part = lease.spawn({
                        let lease = lease.clone();
                        async move { lease.stopping().await }
                    });
                    began.send(()).unwrap();
                    (lease.stopping().await, part.await.unwrap())
                })
                .await
            }
        });
        has_begun.await.unwrap();
        line.revoke("").await.unwrap();
        let revoked = StopReason::Revoked {
            reason: String::new(),
        };
        let done = soon("the work", running).await.unwrap().unwrap();
        assert_eq!(done, (revoked.clone(), Some(revoked)));

        client.clone().close().await;
        match lock.acquire().await {
            Err(Error::Client(error)) => assert!(error.needs_new_session(), "{error}"),
            unexpected => panic!("{unexpected:?}"),
        }
    });
}

#[test]
fn another_recipes_directory_and_foreign_data_are_refused_and_left_alone() {
    against_both("directories of others", |scene| async move {
        let client = scene.client().await;
        let refused = async |path: &str| Mutex::new(&client, path).acquire().await.unwrap_err();
        client
            .create("/election", br#"{"recipe":"election"}"#)
            .await
            .unwrap();
        client.create("/latch", b"").await.unwrap();
        client
            .create("/latch/_c_x-latch-", b"")
            .sequential()
            .await
            .unwrap();
        for path in ["/election", "/latch"] {
            match refused(path).await {
                Error::OtherRecipe { found, .. } => assert_eq!(found, Kind::Election),
                unexpected => panic!("{unexpected:?}"),
            }
        }
        client.create("/config", b"color=green").await.unwrap();
        assert!(matches!(refused("/config").await, Error::Foreign { .. }));
        assert_eq!(&client.get("/config").await.unwrap().0[..], b"color=green");
        assert!(client.children("/config").await.unwrap().0.is_empty());

        // Strangers in a directory of ours are ignored, and stay.
        client.create("/lock", b"").await.unwrap();
        client.create("/lock/notes", b"").await.unwrap();
        client.create("/lock/job-0000000000", b"").await.unwrap();
        let lock = Mutex::new(&client, "/lock");
        soon("it is free", lock.acquire())
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
        assert_eq!(client.children("/lock").await.unwrap().0.len(), 2);

        // It may vanish, and comes back with the next one.
        client.delete_recursive("/lock").await.unwrap();
        let guard = soon("it is back", lock.acquire()).await.unwrap();
        client.delete_recursive("/lock").await.unwrap();
        assert_eq!(
            soon("the loss", guard.lost()).await,
            StopReason::NodeDeleted
        );
        let again = soon("it is back again", lock.acquire()).await.unwrap();
        assert!(again.token() > guard.token());
    });
}

#[test]
fn all_ways_to_name_a_contender_exclude_each_other_among_us() {
    against_both("namings", |scene| async move {
        let namings = [Naming::Curator, Naming::Kazoo, Naming::JavaRecipe];
        for holder in namings {
            let client: Client = scene.client().await;
            let held = Mutex::new(&client, "/locks/n").naming(holder);
            let guard = soon("the holder", held.acquire()).await.unwrap();
            for other in namings {
                let lock = Mutex::new(&client, "/locks/n").naming(other);
                let tried = lock.acquire().try_now().await;
                assert!(
                    matches!(tried, Err(Error::WouldBlock { .. })),
                    "{holder:?} {other:?}"
                );
            }
            guard.release().await.unwrap();
        }
    });
}

#[test]
fn those_whose_numbers_have_wrapped_are_still_before_those_who_came_later() {
    against_both("wrapped numbers", |scene| async move {
        let client = scene.client().await;
        // As Apache ZooKeeper writes the last number before zero, and as Quorate does.
        for (lock, last) in [("/locks/a", "-000000001"), ("/locks/b", "4294967295")] {
            let lock_of = |identity: &str| Mutex::new(&client, lock).identity(identity);
            client.ensure_path(lock).await.unwrap();
            let early = format!("{lock}/_c_00112233445566778899aabbccddeeff-lock-{last}");
            client.create(&early, b"early").ephemeral().await.unwrap();
            let waiting = tokio::spawn(lock_of("first").acquire().into_future());
            contenders(&lock_of("view"), 2).await;
            let later = tokio::spawn(lock_of("second").acquire().into_future());
            contenders(&lock_of("view"), 3).await;
            let view = lock_of("view").contenders().await.unwrap();
            let names: Vec<_> = view.iter().map(|seen| seen.identity.as_str()).collect();
            assert_eq!(names, ["early", "first", "second"]);
            assert!(matches!(
                lock_of("third").acquire().try_now().await,
                Err(Error::WouldBlock { .. })
            ));
            client.delete(&early).await.unwrap();
            let first = soon("the first", waiting).await.unwrap().unwrap();
            let token = first.token();
            first.release().await.unwrap();
            let second = soon("the second", later).await.unwrap().unwrap();
            assert!(second.token() > token);
            second.release().await.unwrap();
        }
    });
}
