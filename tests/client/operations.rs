//! Every operation, and what it answers.

use std::time::Duration;

use quorate_client::{
    AclEntry, Client, Done, Error, Outcome, Perms, Read, Reason, SessionState, digest_id,
};

use crate::{Scene, against_both};

async fn fresh(scene: &Scene) -> Client {
    let client = scene.client().await;
    client.ensure_path("/t").await.unwrap();
    client.with_chroot("/t").unwrap()
}

#[test]
fn a_znode_is_created_read_set_and_deleted() {
    against_both(
        "a_znode_is_created_read_set_and_deleted",
        |scene| async move {
            let client = fresh(&scene).await;
            let created = client.create("/a", b"one").await.unwrap();
            assert_eq!(created.path, "/a");
            assert_eq!(created.stat.version, 0);
            let (data, stat) = client.get("/a").await.unwrap();
            assert_eq!((&data[..], stat.czxid), (&b"one"[..], created.stat.czxid));
            let set = client.set("/a", b"two").if_version(0).await.unwrap();
            assert_eq!(set.version, 1);
            let error = client.set("/a", b"x").if_version(0).await.unwrap_err();
            assert!(error.is(Reason::BadVersion), "{error}");
            assert_eq!(error.outcome(), Outcome::NotApplied);
            assert_eq!(client.children("/").await.unwrap().0, ["a"]);
            client.delete("/a").if_version(1).await.unwrap();
            assert_eq!(client.exists("/a").await.unwrap(), None);
            let error = client.get("/a").await.unwrap_err();
            assert_eq!(error.to_string(), "get /a: no such znode");
        },
    );
}

#[test]
fn every_mode_creates_what_it_says() {
    against_both("every_mode_creates_what_it_says", |scene| async move {
        let client = fresh(&scene).await;
        let session = client.session().unwrap().get();
        let ephemeral = client.create("/e", b"").ephemeral().await.unwrap();
        assert_eq!(ephemeral.stat.ephemeral_owner, session);
        let first = client.create("/s-", b"").sequential().await.unwrap();
        let second = client
            .create("/s-", b"")
            .ephemeral()
            .sequential()
            .await
            .unwrap();
        assert_eq!(first.path.len(), "/s-0000000000".len());
        assert!(second.path > first.path);
        let below = client.create("/", b"").sequential().await.unwrap();
        assert!(below.path.starts_with("/0000"), "{below:?}");
        client.create("/c", b"").container().await.unwrap();
        let ttl = client
            .create("/ttl", b"")
            .ttl(Duration::from_secs(3600))
            .await
            .unwrap();
        assert_ne!(ttl.stat.ephemeral_owner, session);
        let named = client.ephemerals("/").await.unwrap();
        assert_eq!(named.len(), 2);
        assert!(named.contains(&"/e".to_owned()) && named.contains(&second.path));
        for contradiction in [
            client.create("/x", b"").ephemeral().container(),
            client
                .create("/x", b"")
                .ephemeral()
                .ttl(Duration::from_secs(1)),
            client.create("/x", b"").ttl(Duration::ZERO),
        ] {
            let error = contradiction.await.unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
        }
        let error = client.create("/e/child", b"").await.unwrap_err();
        assert!(error.is(Reason::NoChildrenForEphemerals), "{error}");
    });
}

#[test]
fn invalid_paths_and_large_requests_are_refused_without_asking() {
    against_both(
        "invalid_paths_and_large_requests_are_refused_without_asking",
        |scene| async move {
            let client = fresh(&scene).await;
            for path in ["", "a", "/a/", "//", "/a/../b", "/\0"] {
                let error = client.get(path).await.unwrap_err();
                assert!(
                    matches!(error, Error::InvalidPath { .. }),
                    "{path:?}: {error}"
                );
                let error = client
                    .transaction()
                    .delete("/ok")
                    .delete(path)
                    .await
                    .unwrap_err();
                assert_eq!(error.target().index(), Some(1), "{path:?}: {error}");
            }
            let error = client.create("/large", vec![0; 2 << 20]).await.unwrap_err();
            assert!(matches!(error, Error::TooLarge { .. }), "{error}");
            assert_eq!(error.outcome(), Outcome::NotApplied);
            let largest = vec![7; 1_000_000];
            client.create("/large", &largest).await.unwrap();
            assert_eq!(client.get("/large").await.unwrap().0, largest);
            assert!(matches!(client.state(), SessionState::Connected { .. }));
        },
    );
}

#[test]
fn a_transaction_is_done_as_a_whole_or_names_what_failed() {
    against_both(
        "a_transaction_is_done_as_a_whole_or_names_what_failed",
        |scene| async move {
            let client = fresh(&scene).await;
            client.create("/epoch", b"").await.unwrap();
            let done = client
                .transaction()
                .check("/epoch")
                .if_version(0)
                .create("/job-", b"body")
                .sequential()
                .set("/epoch", b"1")
                .if_version(0)
                .create("/gone", b"")
                .delete("/gone")
                .await
                .unwrap();
            let job = done.created(1).unwrap();
            assert!(job.path.starts_with("/job-0000"), "{job:?}");
            assert_eq!(done.set(2).unwrap().version, 1);
            assert_eq!(done.results()[0], Done::Checked);
            assert_eq!(done.results()[4], Done::Deleted);
            let error = client
                .transaction()
                .create("/undone", b"")
                .check("/epoch")
                .if_version(0)
                .delete("/epoch")
                .await
                .unwrap_err();
            assert!(error.is(Reason::BadVersion), "{error}");
            assert_eq!(error.target().index(), Some(1));
            assert_eq!(error.target().path(), "/epoch");
            assert_eq!(client.exists("/undone").await.unwrap(), None);
            assert_eq!(client.transaction().await.unwrap().results(), []);
            let error = client.transaction().ephemeral().await.unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
        },
    );
}

#[test]
fn several_reads_are_answered_each_for_itself() {
    against_both(
        "several_reads_are_answered_each_for_itself",
        |scene| async move {
            let client = fresh(&scene).await;
            client.create("/a", b"data").await.unwrap();
            client.create("/a/b", b"").await.unwrap();
            let reads = client.read_many().get("/a").children("/a").get("/none");
            let found = reads.await.unwrap();
            assert!(
                matches!(&found[0], Read::Data(data, stat) if data == "data" && stat.num_children == 1)
            );
            assert_eq!(found[1], Read::Children(vec!["b".to_owned()]));
            assert_eq!(found[2], Read::Failed(Reason::NoNode));
        },
    );
}

#[test]
fn requests_are_done_in_the_order_of_sending_whatever_is_awaited_first() {
    against_both(
        "requests_are_done_in_the_order_of_sending_whatever_is_awaited_first",
        |scene| async move {
            let client = fresh(&scene).await;
            client.create("/n", 0_u32.to_be_bytes()).await.unwrap();
            let mut reads = Vec::new();
            for number in 1..500_u32 {
                let set = client.set("/n", number.to_be_bytes()).send();
                reads.push((number, client.get("/n").send()));
                // Its answer is lost, not the write.
                if number % 3 == 0 {
                    drop(set);
                } else {
                    reads.push((number, client.get("/n").send()));
                    tokio::spawn(set);
                }
            }
            reads.reverse();
            for (number, read) in reads {
                let (data, _) = read.await.unwrap();
                // A set that was dropped before it was sent was not done.
                let read = u32::from_be_bytes(data[..].try_into().unwrap());
                assert!(
                    read == number || (number % 3 == 0 && read + 1 == number),
                    "{number} {read}"
                );
            }
        },
    );
}

#[test]
fn subtrees_are_made_listed_and_deleted() {
    against_both("subtrees_are_made_listed_and_deleted", |scene| async move {
        let client = fresh(&scene).await;
        client.ensure_path("/a/b/c").await.unwrap();
        client.ensure_path("/a/b/c").await.unwrap();
        client.ensure_path("/a/b/d").await.unwrap();
        let many: Vec<_> = (0..600)
            .map(|number| client.create(&format!("/a/b/c/{number}"), b"").send())
            .collect();
        for create in many {
            create.await.unwrap();
        }
        let all = client.list_recursive("/a").await.unwrap();
        assert_eq!(all.len(), 604);
        assert_eq!(&all[..2], ["/a", "/a/b"]);
        assert_eq!(client.count_descendants("/a").await.unwrap(), 603);
        client.delete_recursive("/a").await.unwrap();
        client.delete_recursive("/a").await.unwrap();
        assert_eq!(client.children("/").await.unwrap().0, [""; 0]);
    });
}

#[test]
fn acls_hold_for_those_who_have_not_proved_who_they_are() {
    against_both(
        "acls_hold_for_those_who_have_not_proved_who_they_are",
        |scene| async move {
            let stranger = fresh(&scene).await;
            let builder = scene.builder().authenticate("digest", b"ann:secret");
            let ann = builder.connect().await.unwrap().with_chroot("/t").unwrap();
            let only_ann = [AclEntry::new(
                Perms::ALL,
                "digest",
                &digest_id(b"ann:secret"),
            )];
            ann.create("/hers", b"x").acl(only_ann).await.unwrap();
            let error = stranger.get("/hers").await.unwrap_err();
            assert!(error.is(Reason::NoAuth), "{error}");
            assert_eq!(&ann.get("/hers").await.unwrap().0[..], b"x");
            stranger
                .authenticate("digest", b"ann:secret")
                .await
                .unwrap();
            assert_eq!(&stranger.get("/hers").await.unwrap().0[..], b"x");
            let (acl, stat) = ann.acl("/hers").await.unwrap();
            assert_eq!((acl.len(), stat.aversion), (1, 0));
            let set = ann
                .set_acl("/hers", [AclEntry::open()])
                .if_version(0)
                .await
                .unwrap();
            assert_eq!(set.aversion, 1);
            let who = ann.who_am_i().await.unwrap();
            assert!(
                who.iter()
                    .any(|(scheme, user)| scheme == "digest" && user.starts_with("ann"))
            );
        },
    );
}

#[test]
fn a_chroot_is_made_on_request_and_hides_what_is_above() {
    against_both(
        "a_chroot_is_made_on_request_and_hides_what_is_above",
        |scene| async move {
            let connect_string = format!("{}/new/root", scene.connect_string());
            let plain = Client::connect(&connect_string).await.unwrap();
            assert!(
                plain
                    .create("/a", b"")
                    .await
                    .unwrap_err()
                    .is(Reason::NoNode)
            );
            let client = Client::builder(&connect_string)
                .create_chroot(true)
                .connect()
                .await
                .unwrap();
            assert_eq!(client.create("/a", b"").await.unwrap().path, "/a");
            let below = client.with_chroot("/a").unwrap();
            assert_eq!(below.session(), client.session());
            below.create("/b", b"deep").await.unwrap();
            assert_eq!(&plain.get("/a/b").await.unwrap().0[..], b"deep");
            let outside = scene.client().await;
            assert_eq!(&outside.get("/new/root/a/b").await.unwrap().0[..], b"deep");
            client.members().await.unwrap();
        },
    );
}

#[test]
fn a_protected_create_can_be_told_by_its_mark() {
    against_both(
        "a_protected_create_can_be_told_by_its_mark",
        |scene| async move {
            let client = fresh(&scene).await;
            let one = client
                .create("/lock-", b"")
                .ephemeral()
                .sequential()
                .protected();
            let created = one.await.unwrap();
            let name = &created.path[1..];
            assert!(
                name.starts_with("_c_") && name.contains("-lock-0"),
                "{name}"
            );
            drop(
                client
                    .create("/lock-", b"")
                    .sequential()
                    .delete_if_dropped()
                    .send(),
            );
            client.delete(&created.path).guaranteed().await.unwrap();
            client.delete(&created.path).guaranteed().await.unwrap();
            // Whether it was sent or not, in the end it is not there.
            let mut watch = client.watch("/").await.unwrap();
            client.sync("/").await.unwrap();
            while !client.children("/").await.unwrap().0.is_empty() {
                watch.next().await.unwrap();
            }
        },
    );
}
