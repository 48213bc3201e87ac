//! The lock of go-zookeeper 1.0.4, as its `Lock` does it, on our client.
//!
//! Names are `_c_<32 hex digits>-lock-<10 digits>`. Every child is a contender: its number is what
//! follows the last `lock-`, else the last `__`, and one without a number makes the lock fail. What
//! was created before that stays until the session ends.

use quorate_client::{Client, Reason};

use super::contender::Recipe;

pub(super) struct GoLock {
    client: Client,
    path: String,
    own: Option<String>,
}

impl GoLock {
    pub(super) fn new(client: Client, path: &str) -> Self {
        Self {
            client,
            path: path.to_owned(),
            own: None,
        }
    }
}

fn number(name: &str) -> Result<i64, String> {
    let tail = if name.contains("lock-") {
        name.rsplit("lock-").next()
    } else {
        name.rsplit("__").next()
    };
    let tail = tail.unwrap_or(name);
    tail.parse()
        .map_err(|_| format!("strconv.Atoi: parsing {tail:?}"))
}

impl Recipe for GoLock {
    async fn enter(&mut self) -> Result<(), String> {
        let guid: u128 = rand::random();
        let prefix = format!("{}/_c_{guid:032x}-lock-", self.path);
        let created = self.client.create(&prefix, "").ephemeral().sequential();
        let own = created.await.map_err(|error| error.to_string())?.path;
        let mine = number(&own)?;
        loop {
            let children = self.client.children(&self.path).await;
            let (children, _) = children.map_err(|error| error.to_string())?;
            let mut before: Option<(i64, String)> = None;
            for child in children {
                let its = number(&child)?;
                if its < mine && before.as_ref().is_none_or(|(best, _)| its > *best) {
                    before = Some((its, child));
                }
            }
            let Some((_, before)) = before else {
                self.own = Some(own);
                return Ok(());
            };
            let before = format!("{}/{before}", self.path);
            match self.client.get(&before).watch().await {
                Ok((_, watcher)) => drop(watcher.await),
                Err(error) if error.is(Reason::NoNode) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn leave(&mut self) -> Result<(), String> {
        let own = self.own.take().ok_or("zk: not locked")?;
        self.client
            .delete(&own)
            .await
            .map_err(|error| error.to_string())
    }

    async fn close(self) {
        self.client.close().await;
    }
}

#[test]
fn numbers_are_read_as_go_zookeeper_reads_them() {
    for (name, expected) in [
        ("_c_0123456789abcdef0123456789abcdef-lock-0000000007", Ok(7)),
        ("0123456789abcdef0123456789abcdef__lock__0000000012", Ok(12)),
        ("a-lock-b__lock__0000000001", Err(())),
        ("x-72057594037927936-0000000000", Err(())),
        ("record", Err(())),
    ] {
        assert_eq!(number(name).map_err(drop), expected, "{name}");
    }
}
