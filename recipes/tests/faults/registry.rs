//! The registry while connections break at every request.

use quorate_client::Client;
use quorate_recipes::{Instance, Registry};

use crate::one_client::at_every_request;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_registered_once_wherever_the_connection_breaks() {
    let play = async |client: Client| {
        let registry = Registry::new(&client, "/s");
        let one = registry.register(Instance::new("web", "1").port(1));
        one.ready().await.unwrap();
        one.update(|instance| instance.port = Some(2))
            .await
            .unwrap();
        let found = registry.instances("web").await.unwrap();
        let expected = one.instance();
        one.deregister().await.unwrap();
        (client, found, expected)
    };
    at_every_request(
        play,
        async |observer, (client, found, expected), context| {
            assert_eq!(found, [expected], "{context}");
            observer.sync("/").await.unwrap();
            let left = Registry::new(&observer, "/s")
                .instances("web")
                .await
                .unwrap();
            assert_eq!(left, [], "{context}");
            client.close().await;
        },
    )
    .await;
}
