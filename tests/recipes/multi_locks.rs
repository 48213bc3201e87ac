//! Several locks at once: all or none, and no deadlock.

use std::time::Duration;

use quorate_client::{Client, Reason};
use quorate_recipes::{Error, MultiLock, Mutex, StopReason};

use crate::against_both;
use crate::locks::{contenders, soon};

fn all_of(client: &Client, names: &[&str]) -> MultiLock {
    MultiLock::new(
        names
            .iter()
            .map(|name| Mutex::new(client, &format!("/locks/{name}"))),
    )
}

#[test]
fn several_locks_are_held_together_or_not_at_all() {
    against_both("all or none", |scene| async move {
        let (client, other) = (scene.client().await, scene.client().await);
        let b = Mutex::new(&other, "/locks/b").identity("other");
        let all = all_of(&client, &["c", "a", "b"]);
        let guard = soon("all", all.acquire()).await.unwrap();
        let held: Vec<_> = guard.tokens().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(held, ["/locks/a", "/locks/b", "/locks/c"]);
        assert!(guard.lease().token("/locks/b").is_some());
        let tried = b.acquire().try_now().await;
        assert!(matches!(tried, Err(Error::WouldBlock { .. })));
        client.create("/done", b"").await.unwrap();
        guard.transaction().set("/done", b"1").await.unwrap();
        let late = guard.transaction().set("/done", b"late");
        guard.release().await.unwrap();
        assert!(late.await.unwrap_err().is(Reason::NoNode));

        let free = async |name: &str| {
            let path = format!("/locks/{name}");
            while !client.children(&path).await.unwrap().0.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let held = b.acquire().await.unwrap();
        let tried = all.acquire().try_now().await;
        match tried {
            Err(Error::WouldBlock { path, holder }) => {
                assert_eq!((path.as_str(), holder.as_str()), ("/locks/b", "other"));
            }
            unexpected => panic!("{unexpected:?}"),
        }
        soon("nothing is left", free("a")).await;
        let patience = Duration::from_millis(200);
        match all.acquire().wait_at_most(patience).await {
            // A machine may be so slow that it was still at the first.
            Err(Error::HeldByAnother { path, waited, .. }) => {
                assert!(["/locks/a", "/locks/b"].contains(&path.as_str()), "{path}");
                assert_eq!(waited, patience);
            }
            unexpected => panic!("{unexpected:?}"),
        }
        soon("nothing is left", free("a")).await;
        // Dropped while it waits for the second.
        let mut waiting = Box::pin(all.acquire().into_future());
        tokio::select! {
            biased;
            got = &mut waiting => panic!("{got:?}"),
            () = contenders(&b, 2) => {}
        }
        drop(waiting);
        soon("nothing is left", free("a")).await;
        contenders(&b, 1).await;
        held.release().await.unwrap();

        for (names, what) in [(&[][..], "none"), (&["a", "b", "a"][..], "twice")] {
            let refused = all_of(&client, names).acquire().await;
            assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{what}");
        }
    });
}

#[test]
fn those_who_want_some_of_the_same_never_wait_for_each_other() {
    against_both("philosophers", |scene| async move {
        let mut dining = Vec::new();
        for forks in [["a", "b"], ["b", "c"], ["c", "d"], ["d", "e"], ["e", "a"]] {
            let client = scene.client().await;
            dining.push(tokio::spawn(async move {
                for _ in 0..5 {
                    let both = all_of(&client, &forks);
                    let meal = both.run(|leases| async move {
                        tokio::task::yield_now().await;
                        assert!(leases.is_held());
                    });
                    meal.await.unwrap();
                }
            }));
        }
        for philosopher in dining {
            soon("a philosopher", philosopher).await.unwrap();
        }
    });
}

#[test]
fn work_under_several_locks_ends_when_any_of_them_is_asked_for_or_lost() {
    against_both("one of several", |scene| async move {
        let (client, admin) = (scene.client().await, scene.client().await);
        let all = all_of(&client, &["a", "b"]);
        let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
        let run = || {
            let (all, began) = (all.clone(), began.clone());
            tokio::spawn(async move {
                let work = |leases: quorate_recipes::MultiLease| async move {
                    let part = leases.spawn({
                        let leases = leases.clone();
                        async move { leases.stopping().await }
                    });
                    let nodes: Vec<_> = leases
                        .leases()
                        .iter()
                        .map(|lease| lease.node().to_owned())
                        .collect();
                    began.send(nodes).unwrap();
                    part.await.unwrap()
                };
                all.run(work).await
            })
        };
        let running = run();
        has_begun.recv().await.unwrap();
        Mutex::new(&admin, "/locks/b").revoke("mine").await.unwrap();
        let stopped = soon("the work", running).await.unwrap().unwrap();
        let reason = "mine".to_owned();
        assert_eq!(stopped, Some(StopReason::Revoked { reason }));

        let running = run();
        let nodes = has_begun.recv().await.unwrap();
        admin.delete(&nodes[1]).await.unwrap();
        match soon("the loss", running).await.unwrap() {
            Err(Error::Lost { path, reason }) => {
                assert_eq!(
                    (path.as_str(), reason),
                    ("/locks/b", StopReason::NodeDeleted)
                );
            }
            // The work may have seen that it had to stop before it was dropped.
            Ok(stopped) => assert_eq!(stopped, Some(StopReason::NodeDeleted)),
            Err(error) => panic!("{error}"),
        }
        let again = soon("both are free", all_of(&admin, &["a", "b"]).acquire());
        again.await.unwrap().release().await.unwrap();
    });
}
