//! What the libraries have in common.

use std::future::Future;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// The znode that is read and set.
pub(crate) const PATH: &str = "/bench-clients";
/// What it holds.
pub(crate) const DATA: [u8; 100] = [b'x'; 100];

/// A client library, as far as it is measured.
pub(crate) trait Library: Sized {
    const NAME: &'static str;

    fn connect(server: &str) -> impl Future<Output = Result<Self, Failure>>;
    /// Makes sure that the znode is there.
    fn prepare(&self) -> impl Future<Output = Result<(), Failure>>;
    fn get(&self) -> impl Future<Output = Result<(), Failure>>;
    fn set(&self) -> impl Future<Output = Result<(), Failure>>;
    /// Leaves a one-shot watch; the inner future resolves when it tells of a change.
    fn watch(&self) -> impl Future<Output = Result<impl Future<Output = ()>, Failure>>;
}

pub(crate) struct OurClient(quorate_client::Client);

impl Library for OurClient {
    const NAME: &'static str = "quorate-client";

    async fn connect(server: &str) -> Result<Self, Failure> {
        Ok(Self(quorate_client::Client::connect(server).await?))
    }

    async fn prepare(&self) -> Result<(), Failure> {
        self.0.ensure_path(PATH).await?;
        self.0.set(PATH, DATA).await?;
        Ok(())
    }

    async fn get(&self) -> Result<(), Failure> {
        self.0.get(PATH).await?;
        Ok(())
    }

    async fn set(&self) -> Result<(), Failure> {
        self.0.set(PATH, DATA).await?;
        Ok(())
    }

    async fn watch(&self) -> Result<impl Future<Output = ()>, Failure> {
        let (_, watcher) = self.0.get(PATH).watch().await?;
        Ok(async move { drop(watcher.await) })
    }
}

pub(crate) struct ZookeeperClient(zookeeper_client::Client);

impl Library for ZookeeperClient {
    const NAME: &'static str = "zookeeper-client 0.11";

    async fn connect(server: &str) -> Result<Self, Failure> {
        Ok(Self(zookeeper_client::Client::connect(server).await?))
    }

    async fn prepare(&self) -> Result<(), Failure> {
        self.0.set_data(PATH, &DATA, None).await?;
        Ok(())
    }

    async fn get(&self) -> Result<(), Failure> {
        self.0.get_data(PATH).await?;
        Ok(())
    }

    async fn set(&self) -> Result<(), Failure> {
        self.0.set_data(PATH, &DATA, None).await?;
        Ok(())
    }

    async fn watch(&self) -> Result<impl Future<Output = ()>, Failure> {
        let (_, _, watcher) = self.0.get_and_watch_data(PATH).await?;
        Ok(async move { drop(watcher.changed().await) })
    }
}

pub(crate) struct TokioZookeeper(tokio_zookeeper::ZooKeeper);

impl Library for TokioZookeeper {
    const NAME: &'static str = "tokio-zookeeper 0.4";

    async fn connect(server: &str) -> Result<Self, Failure> {
        let (client, _) = tokio_zookeeper::ZooKeeper::connect(&server.parse()?).await?;
        Ok(Self(client))
    }

    async fn prepare(&self) -> Result<(), Failure> {
        self.set().await
    }

    async fn get(&self) -> Result<(), Failure> {
        self.0.get_data(PATH).await?.ok_or("no such znode")?;
        Ok(())
    }

    async fn set(&self) -> Result<(), Failure> {
        self.0.set_data(PATH, None, DATA.to_vec()).await??;
        Ok(())
    }

    async fn watch(&self) -> Result<impl Future<Output = ()>, Failure> {
        let (watcher, ..) = self
            .0
            .with_watcher()
            .get_data(PATH)
            .await?
            .ok_or("no such znode")?;
        Ok(async move { drop(watcher.await) })
    }
}
