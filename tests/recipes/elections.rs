//! Elections: one leads, the others follow, and leadership goes where it is sent.

use std::time::Duration;

use quorate_client::Reason;
use quorate_recipes::election::{Compat, HealthState, LeaderEvent, LeaderEvents, RunError};
use quorate_recipes::{Election, Error, StopReason};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Scene, against_both};

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, something: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(SOON, something.into_future())
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

async fn candidate(scene: &Scene, identity: &str) -> Election {
    Election::new(&scene.client().await, "/election/billing").identity(identity)
}

async fn wait_for_candidates(election: &Election, count: usize) {
    while election.candidates().await.unwrap().len() != count {
        tokio::task::yield_now().await;
    }
}

async fn event(events: &mut LeaderEvents) -> String {
    match soon("an event", events.next()).await.unwrap().unwrap() {
        LeaderEvent::Elected(leader) => {
            assert!(leader.token.is_some() && leader.since.is_some());
            format!("{} leads with {:?}", leader.identity, leader.value)
        }
        LeaderEvent::Proclaimed(leader) => {
            format!("{} proclaims {:?}", leader.identity, leader.value)
        }
        LeaderEvent::Vacant => "nobody".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn what_a_leader_proclaims_is_seen_and_its_end_too() {
    against_both("campaign, proclaim, observe, resign", |scene| async move {
        let watcher = candidate(&scene, "watcher").await;
        let mut events = watcher.observe();
        assert_eq!(event(&mut events).await, "nobody");
        assert_eq!(watcher.leader().await.unwrap(), None);

        let first = candidate(&scene, "a").await;
        let leadership = soon("the first", first.campaign("one")).await.unwrap();
        assert_eq!(event(&mut events).await, r#"a leads with Some("one")"#);
        assert!(matches!(
            first.health().state(),
            HealthState::Leading { .. }
        ));
        leadership.proclaim("two").await.unwrap();
        assert_eq!(event(&mut events).await, r#"a proclaims Some("two")"#);
        let seen = watcher.leader().await.unwrap().unwrap();
        assert_eq!(
            seen.token,
            Some(leadership.token()),
            "a proclamation is no new term"
        );

        let second = candidate(&scene, "b").await;
        let refused = second.try_campaign("b").await.unwrap_err();
        assert!(matches!(refused, Error::WouldBlock { .. }), "{refused}");
        let waiting = tokio::spawn(async move { second.campaign("three").await });
        wait_for_candidates(&watcher, 2).await;
        let (term, token) = (leadership.term().clone(), leadership.token());
        leadership.resign().await.unwrap();
        let next = soon("the second", waiting).await.unwrap().unwrap();
        assert!(next.token() > token);
        // Whether it is seen that nobody led for a moment is a matter of chance.
        let mut seen = event(&mut events).await;
        if seen == "nobody" {
            seen = event(&mut events).await;
        }
        assert_eq!(seen, r#"b leads with Some("three")"#);
        assert_eq!(watcher.leader().await.unwrap().unwrap().transitions, 2);

        let late = term.proclaim("late").await.unwrap_err();
        assert!(matches!(late, Error::Displaced { .. }), "{late}");
        let late = term.transaction().create("/late", b"").await.unwrap_err();
        assert!(late.is(Reason::NoNode), "{late}");
        drop(next);
        assert_eq!(event(&mut events).await, "nobody");
        assert_eq!(first.health().state(), HealthState::Idle);
    });
}

/// A candidate that leads until it is told to stop, and says when and why.
fn runs(
    election: Election,
    tell: mpsc::UnboundedSender<(String, String)>,
) -> tokio::task::JoinHandle<Result<Option<u64>, RunError<Error>>> {
    tokio::spawn(async move {
        let run = election.run(|term| {
            let tell = tell.clone();
            async move {
                let who = term.identity().to_owned();
                tell.send((who.clone(), "leads".to_owned())).unwrap();
                let reason = term.stopping().await;
                assert!(term.is_held(), "there is time to end in order");
                tell.send((who, reason.to_string())).unwrap();
                Ok(term.token().get())
            }
        });
        run.await
    })
}

#[test]
fn leadership_goes_where_it_is_sent_and_candidates_stand_again_by_themselves() {
    against_both("transfer, step down, prefer", |scene| async move {
        let (tell, mut told) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let observer = candidate(&scene, "observer").await;
        let mut running = Vec::new();
        for (count, who) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let election = candidate(&scene, who).await;
            let election = election
                .prefer_after(Duration::from_millis(1))
                .shutdown(shutdown.clone());
            running.push(runs(election, tell.clone()));
            wait_for_candidates(&observer, count + 1).await;
        }
        let mut next = async || soon("the next", told.recv()).await.unwrap();
        let said = |who: &str, what: &str| (who.to_owned(), what.to_owned());
        assert_eq!(next().await, said("a", "leads"));

        // Past b and c, who came before.
        assert!(observer.request_transfer("d").await.unwrap());
        assert_eq!(next().await, said("a", "leadership goes to d"));
        assert_eq!(next().await, said("d", "leads"));
        // Nobody of that name, and the leader itself: nothing happens.
        for nobody in ["nobody", "d"] {
            observer.request_transfer(nobody).await.unwrap();
        }
        assert!(observer.request_step_down("maintenance").await.unwrap());
        assert_eq!(next().await, said("d", "it was revoked: maintenance"));
        assert_eq!(next().await, said("b", "leads"));
        wait_for_candidates(&observer, 4).await;

        observer.prefer(Some("a")).await.unwrap();
        assert_eq!(next().await, said("b", "leadership goes to a"));
        assert_eq!(next().await, said("a", "leads"));
        observer.prefer(None).await.unwrap();
        assert_eq!(observer.leader().await.unwrap().unwrap().identity, "a");

        shutdown.cancel();
        assert_eq!(next().await, said("a", "the process shuts down"));
        let mut tokens = Vec::new();
        for run in running {
            tokens.extend(soon("the end", run).await.unwrap().unwrap());
        }
        assert_eq!(tokens.len(), 1, "one was told to end while it led");
        assert!(observer.candidates().await.unwrap().is_empty());
    });
}

#[test]
fn the_work_of_a_term_ends_the_run_only_if_it_ends_by_itself() {
    against_both("how runs end", |scene| async move {
        let election = candidate(&scene, "a").await;
        let done = election.run(async |_| Ok::<_, Error>(7)).await.unwrap();
        assert_eq!(done, Some(7));
        let failed = election.run(async |_| Err::<(), _>("no database")).await;
        assert!(matches!(failed, Err(RunError::Work("no database"))));

        // One that fails because it was told to stop leads again.
        let mut terms = 0;
        let tokens = mpsc::unbounded_channel();
        let done = election
            .run(|term| {
                terms += 1;
                let (first, tell) = (terms == 1, tokens.0.clone());
                async move {
                    tell.send(term.token()).unwrap();
                    if !first {
                        return Ok(());
                    }
                    term.step_down(Duration::ZERO);
                    assert_eq!(term.stopping().await, StopReason::Released);
                    Err("interrupted")
                }
            })
            .await;
        assert!(matches!(done, Ok(Some(()))));
        let mut tokens = tokens.1;
        assert!(tokens.recv().await.unwrap() < tokens.recv().await.unwrap());

        // Its node is deleted: the work is dropped where it stands, and it leads again.
        let client = scene.client().await;
        let mut terms = 0;
        let done = election
            .run(|term| {
                terms += 1;
                let (first, client) = (terms == 1, client.clone());
                async move {
                    if first {
                        client.delete(term.lease().node()).await?;
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, quorate_client::Error>(())
                }
            })
            .await;
        assert!(matches!(done, Ok(Some(()))));
        assert!(election.candidates().await.unwrap().is_empty());

        // What cannot pass is no reason to go on for ever.
        client.create("/config", b"data").await.unwrap();
        let elsewhere = Election::new(&client, "/config").compat(Compat::Kazoo);
        let refused = elsewhere.run(async |_| Ok::<_, Error>(())).await;
        assert!(matches!(
            refused,
            Err(RunError::Election(Error::Foreign { .. }))
        ));
    });
}
