//! A lock for readers and writers: readers together, a writer alone, in the order of arrival.

use std::time::Duration;

use quorate_client::Reason;
use quorate_recipes::{Error, Kind, Mutex, Naming, ReadWriteLock, StopReason};

use crate::against_both;
use crate::locks::soon;

/// Waits until so many stand in the line.
async fn contenders(lock: &ReadWriteLock, count: usize) {
    while lock.contenders().await.unwrap().len() != count {
        tokio::task::yield_now().await;
    }
}

#[test]
fn readers_share_and_a_writer_is_alone_in_the_order_of_arrival() {
    against_both("readers and writers", |scene| async move {
        for naming in [Naming::Curator, Naming::Kazoo] {
            let path = format!("/locks/{naming:?}");
            let client = scene.client().await;
            let lock = |name: &str| {
                let lock = ReadWriteLock::new(&client, &path);
                lock.naming(naming).identity(name)
            };
            let first = soon("a reader", lock("r1").read()).await.unwrap();
            let second = soon("another", lock("r2").read()).await.unwrap();
            assert!(second.token() > first.token());
            let holders = lock("").holders().await.unwrap();
            let seen: Vec<_> = holders
                .iter()
                .map(|holder| (holder.identity.as_str(), holder.token))
                .collect();
            let tokens = (Some(first.token()), Some(second.token()));
            assert_eq!(seen, [("r1", tokens.0), ("r2", tokens.1)]);

            // A writer waits for the readers before it, and the readers behind it for the writer.
            let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
            let mut waiting = Vec::new();
            for (count, (name, is_writer)) in [
                ("w1", true),
                ("r3", false),
                ("r4", false),
                ("w2", true),
                ("r5", false),
            ]
            .into_iter()
            .enumerate()
            {
                let (lock, told) = (lock(name), told.clone());
                waiting.push(tokio::spawn(async move {
                    let acquire = if is_writer { lock.write() } else { lock.read() };
                    let guard = acquire.await.unwrap();
                    told.send((name, guard)).unwrap();
                }));
                contenders(&lock_of(&client, &path), count + 3).await;
            }
            let view = lock("").contenders().await.unwrap();
            let readers: Vec<_> = view.iter().map(|seen| seen.is_reader).collect();
            assert_eq!(readers, [true, true, false, true, true, false, true]);
            match lock("late").read().try_now().await {
                Err(Error::WouldBlock { holder, .. }) => assert_eq!(holder, "r1"),
                unexpected => panic!("{unexpected:?}"),
            }
            let patience = Duration::from_millis(30);
            let late = lock("late").read().wait_at_most(patience).await;
            assert!(matches!(late, Err(Error::HeldByAnother { .. })), "{late:?}");

            let mut last = second.token();
            first.release().await.unwrap();
            second.release().await.unwrap();
            let (name, writer) = soon("the writer", order.recv()).await.unwrap();
            assert_eq!(name, "w1");
            assert!(writer.token() > last);
            last = writer.token();
            assert_eq!(
                lock("").holders().await.unwrap()[0].token,
                Some(writer.token())
            );
            let late = writer.transaction();
            writer.release().await.unwrap();
            assert!(late.set(&path, b"").await.unwrap_err().is(Reason::NoNode));
            // Both readers at once, and not the one behind the next writer.
            let mut readers = Vec::new();
            for _ in 0..2 {
                let (name, reader) = soon("a reader", order.recv()).await.unwrap();
                assert!(reader.token() > last);
                readers.push((name, reader));
            }
            readers.sort_by_key(|(name, _)| *name);
            assert_eq!([readers[0].0, readers[1].0], ["r3", "r4"]);
            assert!(order.try_recv().is_err());
            last = readers[0].1.token().max(readers[1].1.token());

            // Whoever holds it is asked, all of them.
            assert!(lock("").revoke("maintenance").await.unwrap());
            let revoked = StopReason::Revoked {
                reason: "maintenance".to_owned(),
            };
            for (_, reader) in readers {
                assert_eq!(soon("the news", reader.stopping()).await, revoked);
                reader.release().await.unwrap();
            }
            let (name, writer) = soon("the writer", order.recv()).await.unwrap();
            assert_eq!(name, "w2");
            assert!(writer.token() > last);
            assert!(lock("").revoke("").await.unwrap());
            soon("the news", writer.stopping()).await;
            last = writer.token();
            drop(writer);
            let (name, reader) = soon("the reader", order.recv()).await.unwrap();
            assert_eq!(name, "r5");
            assert!(reader.token() > last);
            reader.release().await.unwrap();
            assert!(!lock("").revoke("nobody is there").await.unwrap());
            for task in waiting {
                task.await.unwrap();
            }
            let (left, _) = client.children(&path).await.unwrap();
            assert!(left.is_empty(), "{left:?}");
        }
    });
}

fn lock_of(client: &quorate_client::Client, path: &str) -> ReadWriteLock {
    ReadWriteLock::new(client, path)
}

#[test]
fn many_readers_that_come_at_once_do_not_wait_for_each_other() {
    against_both("many readers", |scene| async move {
        let mut reading = Vec::new();
        for _ in 0..4 {
            let lock = ReadWriteLock::new(&scene.client().await, "/locks/a");
            for _ in 0..50 {
                reading.push(tokio::spawn(lock.read().into_future()));
            }
        }
        let mut guards = Vec::new();
        for reader in reading {
            guards.push(soon("a reader", reader).await.unwrap().unwrap());
        }
        let mut tokens: Vec<_> = guards.iter().map(|guard| guard.token()).collect();
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), 200, "each its own");
        let newest = tokens[199];
        let lock = ReadWriteLock::new(&scene.client().await, "/locks/a");
        let writer = tokio::spawn(lock.write().into_future());
        contenders(&lock, 201).await;
        drop(guards);
        let writer = soon("the writer", writer).await.unwrap().unwrap();
        assert!(writer.token() > newest);
    });
}

#[test]
fn a_lock_for_readers_is_told_from_others() {
    against_both("kinds", |scene| async move {
        let client = scene.client().await;
        let lock = ReadWriteLock::new(&client, "/locks/a");
        let guard = lock.read().await.unwrap();
        match Mutex::new(&client, "/locks/a").acquire().await {
            Err(Error::OtherRecipe { found, .. }) => assert_eq!(found, Kind::ReadWriteLock),
            unexpected => panic!("{unexpected:?}"),
        }
        guard.release().await.unwrap();
        let java = lock.clone().naming(Naming::JavaRecipe);
        let refused = java.read().await;
        assert!(matches!(refused, Err(Error::InvalidArgument(_))));
        java.write().await.unwrap().release().await.unwrap();
    });
}
