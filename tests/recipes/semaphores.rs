//! Semaphores: so many at a time, in the order of arrival.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_recipes::{Error, Kind, Mutex, Semaphore, StopReason};

use crate::against_both;
use crate::locks::soon;

async fn contenders(semaphore: &Semaphore, count: usize) {
    while semaphore.contenders().await.unwrap().len() != count {
        tokio::task::yield_now().await;
    }
}

#[test]
fn so_many_hold_a_permit_at_a_time_in_the_order_of_arrival() {
    against_both("permits", |scene| async move {
        let client = scene.client().await;
        let semaphore = |name: &str| Semaphore::new(&client, "/limits/a", 2).identity(name);
        let first = soon("a permit", semaphore("p1").acquire()).await.unwrap();
        let second = soon("another", semaphore("p2").acquire().try_now())
            .await
            .unwrap();
        assert!(second.token() > first.token());
        assert_eq!(first.lease().path(), "/limits/a");
        let holders = semaphore("").holders().await.unwrap();
        let seen: Vec<_> = holders
            .iter()
            .map(|holder| (holder.identity.as_str(), holder.token))
            .collect();
        let tokens = (Some(first.token()), Some(second.token()));
        assert_eq!(seen, [("p1", tokens.0), ("p2", tokens.1)]);
        contenders(&semaphore(""), 2).await;

        match semaphore("late").acquire().try_now().await {
            Err(Error::WouldBlock { path, holder }) => {
                assert_eq!((path.as_str(), holder.as_str()), ("/limits/a", "p1"));
            }
            unexpected => panic!("{unexpected:?}"),
        }
        let patience = Duration::from_millis(30);
        let late = semaphore("late").acquire().wait_at_most(patience).await;
        assert!(matches!(late, Err(Error::HeldByAnother { .. })), "{late:?}");

        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (count, name) in ["p3", "p4", "p5"].into_iter().enumerate() {
            let (waiting, told) = (semaphore(name), told.clone());
            tokio::spawn(async move {
                let guard = waiting.acquire().await.unwrap();
                told.send((name, guard)).unwrap();
            });
            contenders(&semaphore(""), count + 3).await;
        }
        let mut last = second.token();
        let mut held = std::collections::VecDeque::from([second, first]);
        for expected in ["p3", "p4", "p5"] {
            assert!(order.try_recv().is_err(), "one too many");
            held.pop_front().unwrap().release().await.unwrap();
            let (name, guard) = soon("the next", order.recv()).await.unwrap();
            assert_eq!(name, expected);
            assert!(guard.token() > last);
            last = guard.token();
            held.push_back(guard);
        }
        // One of them is asked to go.
        let holders = semaphore("").holders().await.unwrap();
        let asked = holders.iter().find(|holder| holder.identity == "p5");
        let node = &asked.unwrap().node;
        assert!(semaphore("").revoke(node, "too slow").await.unwrap());
        assert!(!semaphore("").revoke("nobody", "").await.unwrap());
        let reason = "too slow".to_owned();
        let last = held.pop_back().unwrap();
        assert_eq!(
            soon("the news", last.stopping()).await,
            StopReason::Revoked { reason }
        );
        assert_eq!(held[0].lease().stop_reason(), None);
        last.release().await.unwrap();
        held.pop_back().unwrap().release().await.unwrap();
        contenders(&semaphore(""), 0).await;
        for below in ["locks", "leases"] {
            let (left, _) = client
                .children(&format!("/limits/a/{below}"))
                .await
                .unwrap();
            assert!(left.is_empty(), "{below}: {left:?}");
        }
    });
}

#[test]
fn never_more_than_so_many_are_inside() {
    against_both("a crowd", |scene| async move {
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let semaphore = Semaphore::new(&scene.client().await, "/limits/a", 3);
            for _ in 0..10 {
                let (semaphore, inside) = (semaphore.clone(), Arc::clone(&inside));
                let most = Arc::clone(&most);
                tasks.push(tokio::spawn(async move {
                    let work = |_| async move {
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                    };
                    semaphore.run(work).await.unwrap();
                }));
            }
        }
        for task in tasks {
            soon("a task", task).await.unwrap();
        }
        let most = most.load(Ordering::SeqCst);
        assert!((1..=3).contains(&most), "{most}");
    });
}

#[test]
fn all_agree_on_the_number_of_permits() {
    against_both("limits", |scene| async move {
        let client = scene.client().await;
        let guard = Semaphore::new(&client, "/limits/a", 2)
            .acquire()
            .await
            .unwrap();
        match Semaphore::new(&client, "/limits/a", 3).acquire().await {
            Err(Error::LimitMismatch { ours, theirs, .. }) => assert_eq!((ours, theirs), (3, 2)),
            unexpected => panic!("{unexpected:?}"),
        }
        let none = Semaphore::new(&client, "/limits/a", 0).acquire().await;
        assert!(matches!(none, Err(Error::InvalidArgument(_))));
        match Mutex::new(&client, "/limits/a").acquire().await {
            Err(Error::OtherRecipe { found, .. }) => assert_eq!(found, Kind::Semaphore),
            unexpected => panic!("{unexpected:?}"),
        }
        // What an operator has written beside it stays.
        let noted = br#"{"recipe":"semaphore","note":"ask Ann"}"#;
        client.set("/limits/a", noted).await.unwrap();
        let again = Semaphore::new(&client, "/limits/a", 4);
        let other = soon("it is agreed anew", again.acquire()).await.unwrap();
        let (data, _) = client.get("/limits/a").await.unwrap();
        let text = String::from_utf8_lossy(&data).into_owned();
        assert!(
            text.contains("ask Ann") && text.contains("\"limit\":4"),
            "{text}"
        );
        guard.release().await.unwrap();
        other.release().await.unwrap();
    });
}
