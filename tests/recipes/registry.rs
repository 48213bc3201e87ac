//! The registry of services.

use std::sync::Arc;

use quorate_recipes::{
    Error, Instance, Registry, RegistryChange, RegistryChanges, Service, Strategy,
};

use crate::persistent_node::{expire, renewing};
use crate::{Scene, against_both};

async fn next(changes: &mut RegistryChanges) -> RegistryChange {
    loop {
        match changes.next().await.unwrap() {
            Ok(change) => return change,
            Err(Error::Client(error)) if error.is_retryable() => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until a service has these instances.
async fn until(service: &mut Service, ids: &[&str]) {
    while !service
        .instances()
        .iter()
        .map(|one| &*one.id)
        .eq(ids.iter().copied())
    {
        service.changed().await.unwrap();
    }
}

async fn instances_come_and_go(scene: Scene) {
    let (observer, client) = (scene.client().await, scene.client().await);
    let (seen, registry) = (Registry::new(&observer, "/s"), Registry::new(&client, "/s"));
    assert_eq!(seen.services().await.unwrap(), [""; 0]);
    assert_eq!(seen.instances("web").await.unwrap(), []);
    let mut changes = seen.changes("web").await.unwrap();
    let mut web = seen.follow("web").await.unwrap();

    let one = registry.register(Instance::new("web", "1").address("a").port(80));
    observer.sync("/").await.unwrap();
    assert_eq!(seen.instance("web", "1").await.unwrap(), None, "not ready");
    one.update(|instance| instance.tags.extend(["canary".to_owned()]))
        .await
        .unwrap();
    one.ready().await.unwrap();
    one.ready().await.unwrap();
    match next(&mut changes).await {
        RegistryChange::Added(found) => assert_eq!(*found, one.instance()),
        other => panic!("{other:?}"),
    }
    assert!(one.instance().registered_ms > 0 && one.instance().tags.contains("canary"));

    let two = registry.register(Instance::new("web", "2").metadata("weight", "0"));
    two.ready().await.unwrap();
    until(&mut web, &["1", "2"]).await;
    assert!(matches!(next(&mut changes).await, RegistryChange::Added(two) if two.id == "2"));
    let round = web.selector(Strategy::RoundRobin);
    let mut turns: Vec<String> = (0..4).map(|_| round.select().unwrap().id.clone()).collect();
    assert_eq!(turns, ["1", "2", "1", "2"]);
    round.note_failure("1");
    round.note_failure("1");
    turns = (0..2).map(|_| round.select().unwrap().id.clone()).collect();
    assert_eq!(turns, ["2", "2"]);
    let key = "weight".to_owned();
    let weighted = web.selector(Strategy::Weighted { key });
    assert!((0..20).all(|_| weighted.select().unwrap().id == "1"));

    // Out of service, and changed.
    one.update(|instance| instance.enabled = false)
        .await
        .unwrap();
    match next(&mut changes).await {
        RegistryChange::Updated { new, old } => assert!(!new.enabled && old.enabled),
        other => panic!("{other:?}"),
    }
    while web.instances()[0].enabled {
        web.changed().await.unwrap();
    }
    assert_eq!(weighted.select().unwrap().id, "2");

    // An instance that another library has registered, and what is none.
    let curator = r#"{"name":"web","id":"3","address":"c","port":null,"sslPort":null,
        "payload":null,"registrationTimeUTC":1,"serviceType":"STATIC","uriSpec":null}"#;
    observer.create("/s/web/3", curator).await.unwrap();
    observer.create("/s/web/none", "x").await.unwrap();
    until(&mut web, &["1", "2", "3"]).await;
    assert!(matches!(next(&mut changes).await, RegistryChange::Added(three) if three.id == "3"));
    assert!(matches!(
        seen.instance("web", "none").await,
        Err(Error::Foreign { .. })
    ));
    let found = seen.instances("web").await.unwrap();
    assert!(web.instances().iter().map(Arc::as_ref).eq(&found));

    let again = Registry::new(&observer, "/s").register(Instance::new("web", "1"));
    assert!(matches!(again.ready().await, Err(Error::Taken { .. })));
    for odd in [Instance::new("a/b", "1"), Instance::new("a", "")] {
        let ready = registry.register(odd).ready().await.err();
        assert!(
            matches!(ready, Some(Error::InvalidArgument(_))),
            "{ready:?}"
        );
    }
    one.not_ready().await.unwrap();
    again.ready().await.unwrap();
    until(&mut web, &["2", "3", "1"]).await;
    drop(again);
    until(&mut web, &["2", "3"]).await;
    one.ready().await.unwrap();
    two.deregister().await.unwrap();
    until(&mut web, &["3", "1"]).await;
    assert_eq!(seen.services().await.unwrap(), ["web"]);

    observer
        .create("/lock", br#"{"recipe":"lock"}"#)
        .await
        .unwrap();
    let other = Registry::new(&observer, "/lock");
    let refused = other.register(Instance::new("a", "b")).ready().await;
    assert!(matches!(refused, Err(Error::OtherRecipe { .. })));
    assert!(matches!(
        other.services().await,
        Err(Error::OtherRecipe { .. })
    ));
}

async fn instances_outlive_their_sessions(scene: Scene) {
    let (observer, client) = (renewing(&scene).await, renewing(&scene).await);
    let registry = Registry::new(&client, "/s");
    let one = registry.register(Instance::new("web", "1").port(1));
    one.ready().await.unwrap();
    let mut changes = Registry::new(&observer, "/s").changes("web").await.unwrap();
    let mut web = Registry::new(&observer, "/s").follow("web").await.unwrap();
    expire(&scene, &client).await;
    while !matches!(next(&mut changes).await, RegistryChange::Added(back)
        if *back == one.instance())
    {}
    // Who looks may lose its session as well.
    until(&mut web, &["1"]).await;
    expire(&scene, &observer).await;
    while !matches!(next(&mut changes).await, RegistryChange::Resynced(_)) {}
    let two = registry.register(Instance::new("web", "2"));
    two.ready().await.unwrap();
    until(&mut web, &["1", "2"]).await;
    assert!(web.is_followed());
    observer.close().await;
    while web.changed().await.is_some() {}
    assert!(!web.is_followed());
}

#[test]
fn instances_of_a_service_are_seen_to_come_and_go() {
    against_both("instances_of_a_service_come_and_go", instances_come_and_go);
}

#[test]
fn instances_of_a_service_outlive_sessions() {
    against_both(
        "instances_of_a_service_outlive",
        instances_outlive_their_sessions,
    );
}
