//! The facade for code without `async`.

use quorate_client::EventType;
use quorate_client::blocking::Client;
use quorate_client::watch::Item;

use crate::servers_of_both;

#[test]
fn everything_can_be_done_without_async() {
    servers_of_both("everything_can_be_done_without_async", |server| {
        let client = Client::connect(&server.address().to_string()).unwrap();
        let other = Client::connect(&server.address().to_string()).unwrap();
        client.create("/a", b"1").unwrap();
        let mut watch = client.watch("/a").unwrap();
        let (_, once) = client.wait(|client| client.get("/a").watch()).unwrap();
        other.set("/a", b"2").unwrap();
        assert!(
            matches!(watch.next(), Some(Item::Event(event)) if event.kind == EventType::NodeDataChanged)
        );
        assert_eq!(client.wait_for(once).unwrap().path, "/a");
        assert_eq!(&client.get("/a").unwrap().0[..], b"2");
        let done = client.wait(|client| client.transaction().check("/a").delete("/a"));
        assert_eq!(done.unwrap().results().len(), 2);
        assert!(client.exists("/a").unwrap().is_none());
        client
            .wait(|client| client.create("/e", b"").ephemeral())
            .unwrap();
        let (_, gone) = other.wait(|other| other.exists("/e").watch()).unwrap();
        drop(watch);
        drop(client);
        assert_eq!(other.wait_for(gone).unwrap().kind, EventType::NodeDeleted);
        other.close();
    });
}
