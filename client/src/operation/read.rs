//! Reads, with and without a watch.

use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::request::{AddWatch, GetEphemerals, PathOnly, Watched as WatchedRequest};
use quorate_protocol::{AclEntry, Request, Stat};
use tokio::sync::oneshot;

use super::{
    Policy, Prepare, Prepared, absolute, data_and_stat, decoded, operation, retried, send,
};
use crate::client::Client;
use crate::error::{Error, Target};
use crate::session::line::Answer;
use crate::watch::queue::Queue;
use crate::watch::registry::{Interest, Kind, Sink, WatcherId};
use crate::watch::{WatchStream, Watcher};

macro_rules! read {
    ($(#[$doc:meta])* $name:ident, $word:literal, $variant:ident, $record:ident {
        $($field:ident: $value:expr),*
    }, $output:ty, $decode:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[must_use = "nothing is sent before `.send()` or `.await`"]
        pub struct $name {
            pub(super) client: Client,
            pub(super) path: String,
            pub(super) policy: Policy,
        }

        impl $name {
            pub(crate) fn new(client: &Client, path: &str) -> Self {
                Self {
                    client: client.clone(),
                    path: path.to_owned(),
                    policy: Policy::default(),
                }
            }
        }

        impl Prepare for $name {
            type Output = $output;

            fn prepare(&self, client: &Client) -> Result<Prepared, Error> {
                let target = Target::read($word, &self.path);
                let path = absolute(client, &target, &self.path)?;
                Ok(Prepared {
                    request: Request::$variant($record { path, $($field: $value),* }),
                    target,
                    interest: None,
                })
            }

            fn decode(answer: Answer, _: &Client) -> Result<$output, String> {
                $decode(answer)
            }
        }

        operation!($name, $output);
        retried!($name);
    };
}

read! {
    /// Reads a znode's data. See [`Client::get`].
    Get, "get", GetData, WatchedRequest { watch: false }, (Bytes, Stat),
    |answer: Answer| {
        let (data, stat) = data_and_stat(answer.body)?;
        Ok((data.unwrap_or_default(), stat))
    }
}

read! {
    /// As [`Get`], telling no data from empty data. See [`Get::or_none`].
    GetWithoutData, "get", GetData, WatchedRequest { watch: false }, (Option<Bytes>, Stat),
    |answer: Answer| data_and_stat(answer.body)
}

impl Get {
    /// Tells a znode without data (null) from one with none in it.
    pub fn or_none(self) -> GetWithoutData {
        GetWithoutData {
            policy: self.policy,
            ..GetWithoutData::new(&self.client, &self.path)
        }
    }

    /// Leaves a watch: it tells of the first change or the deletion after this read.
    pub fn watch(self) -> Watched<Self> {
        Watched(self)
    }
}

read! {
    /// Reads the names of a znode's children. See [`Client::children`].
    Children, "children", GetChildren2, WatchedRequest { watch: false }, (Vec<String>, Stat),
    |answer: Answer| decoded(&answer)
}

impl Children {
    /// Leaves a watch: it tells when a child comes or goes after this read, or the znode itself is
    /// deleted.
    pub fn watch(self) -> Watched<Self> {
        Watched(self)
    }
}

read! {
    /// Reads a znode's ACL. See [`Client::acl`].
    GetAcl, "get ACL of", GetAcl, PathOnly {}, (Vec<AclEntry>, Stat),
    |answer: Answer| decoded(&answer)
}

read! {
    /// Counts a znode's descendants. See [`Client::count_descendants`].
    ChildrenCount, "count below", GetAllChildrenNumber, PathOnly {}, i32,
    |answer: Answer| decoded(&answer)
}

read! {
    /// Waits until the server has caught up. See [`Client::sync`].
    Sync, "sync", Sync, PathOnly {}, (),
    |_: Answer| Ok(())
}

/// Reads whether a znode exists. See [`Client::exists`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct Exists {
    pub(super) client: Client,
    pub(super) path: String,
    pub(super) policy: Policy,
}

impl Exists {
    pub(crate) fn new(client: &Client, path: &str) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            policy: Policy::default(),
        }
    }

    /// Leaves a watch, whether or not the znode exists: it tells of the first creation, change or
    /// deletion after this read.
    pub fn watch(self) -> Watched<Self> {
        Watched(self)
    }

    fn send_any(self) -> super::Sent<Option<Stat>> {
        let sent = send(&self, &self.client, self.policy);
        super::Sent::driven(async move { or_none(sent.await) })
    }
}

operation!(Exists, send_any, Option<Stat>);
retried!(Exists);

/// That there is no znode is an answer here.
fn or_none(result: Result<Stat, Error>) -> Result<Option<Stat>, Error> {
    match result {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.is(crate::error::Reason::NoNode) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Prepare for Exists {
    type Output = Stat;

    fn prepare(&self, client: &Client) -> Result<Prepared, Error> {
        let target = Target::read("exists", &self.path);
        let path = absolute(client, &target, &self.path)?;
        Ok(Prepared {
            request: Request::Exists(WatchedRequest { path, watch: false }),
            target,
            interest: None,
        })
    }

    fn decode(answer: Answer, _: &Client) -> Result<Stat, String> {
        decoded(&answer)
    }
}

/// A read that leaves a one-shot watch: its answer comes with a [`Watcher`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct Watched<R>(R);

/// A watch, before the server knows of it.
struct Planned {
    watcher: WatcherId,
    receiver: oneshot::Receiver<Result<crate::watch::Event, crate::watch::End>>,
}

impl Planned {
    fn new(client: &Client, prepared: &mut Prepared, kind: Kind) -> Self {
        let path = match &mut prepared.request {
            Request::GetData(read) | Request::GetChildren2(read) | Request::Exists(read) => {
                read.watch = true;
                read.path.as_str().into()
            }
            _ => Arc::from(""),
        };
        let watcher = WatcherId {
            kind,
            path,
            number: client.next_number(),
        };
        let (sender, receiver) = oneshot::channel();
        prepared.interest = Some(Interest {
            watcher: watcher.clone(),
            sink: Sink::Once(sender),
            is_cancelled: false,
        });
        Self { watcher, receiver }
    }

    fn watcher(self, client: &Client) -> Watcher {
        Watcher::new(
            self.receiver,
            self.watcher,
            client.chroot().clone(),
            Arc::clone(&client.shared().line),
        )
    }
}

fn send_watched<P: Prepare>(
    read: &P,
    client: &Client,
    policy: Policy,
    kind: Kind,
) -> Result<(super::Sent<P::Output>, Planned), Error> {
    let mut prepared = read.prepare(client)?;
    let planned = Planned::new(client, &mut prepared, kind);
    let Prepared {
        target,
        request,
        interest,
    } = prepared;
    let sent = super::send_once(client, target, &request, interest, policy, P::decode);
    Ok((sent, planned))
}

macro_rules! watched {
    ($name:ident, $kind:ident, $output:ty, $convert:expr) => {
        impl Watched<$name> {
            /// As [`Get::fail_fast`].
            pub fn fail_fast(mut self) -> Self {
                self.0.policy.wait = super::Wait::FailFast;
                self
            }

            /// As [`Get::wait_for_reconnect`].
            pub fn wait_for_reconnect(mut self, limit: std::time::Duration) -> Self {
                self.0.policy.wait = super::Wait::For(limit);
                self
            }

            /// Takes its place among the client's requests, now. Cancel safe: dropping the future
            /// takes the watch away as well.
            pub fn send(self) -> super::Sent<($output, Watcher)> {
                let client = self.0.client.clone();
                match send_watched(&self.0, &client, self.0.policy, Kind::$kind) {
                    Err(error) => super::Sent::failed(error),
                    Ok((sent, planned)) => {
                        // Here, so that dropping the future drops it.
                        let watcher = planned.watcher(&client);
                        super::Sent::driven(async move {
                            let output: $output = $convert(sent.await)?;
                            Ok((output, watcher))
                        })
                    }
                }
            }
        }

        impl IntoFuture for Watched<$name> {
            type Output = Result<($output, Watcher), Error>;
            type IntoFuture = super::Sent<($output, Watcher)>;

            fn into_future(self) -> Self::IntoFuture {
                self.send()
            }
        }
    };
}

watched!(Get, Data, (Bytes, Stat), std::convert::identity);
watched!(
    Children,
    Children,
    (Vec<String>, Stat),
    std::convert::identity
);
watched!(Exists, Data, Option<Stat>, or_none);

/// Watches until the stream is dropped, which has every event of a write that comes after this
/// request. See [`Client::watch`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct Watch {
    client: Client,
    path: String,
    policy: Policy,
    recursive: bool,
    buffer: usize,
}

/// Events that wait for a slow reader, unless it says otherwise.
const BUFFER: usize = 1024;

impl Watch {
    pub(crate) fn new(client: &Client, path: &str) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            policy: Policy::default(),
            recursive: false,
            buffer: BUFFER,
        }
    }

    /// Watches all znodes below as well. Such a watch tells of children by their own creation and
    /// deletion, not by a change of their parent's children.
    pub fn recursive(mut self) -> Self {
        self.recursive = true;
        self
    }

    /// How many events may wait for a slow reader before they become one gap. 1,024 by default.
    pub fn buffer(mut self, events: usize) -> Self {
        self.buffer = events;
        self
    }

    /// Dropping the future takes the watch away as well.
    fn send_any(self) -> super::Sent<WatchStream> {
        let client = self.client;
        let target = Target::read("watch", &self.path);
        let path = match absolute(&client, &target, &self.path) {
            Ok(path) => path,
            Err(error) => return super::Sent::failed(error),
        };
        let watcher = WatcherId {
            kind: if self.recursive {
                Kind::Recursive
            } else {
                Kind::Persistent
            },
            path: path.as_str().into(),
            number: client.next_number(),
        };
        let queue = Arc::new(Queue::new(self.buffer, client.last_zxid()));
        let interest = Interest {
            watcher: watcher.clone(),
            sink: Sink::Stream(Arc::clone(&queue)),
            is_cancelled: false,
        };
        let request = Request::AddWatch(AddWatch {
            path,
            mode: i32::from(self.recursive),
        });
        let decode: super::Decode<()> = |_, _| Ok(());
        let sent = super::send_once(
            &client,
            target,
            &request,
            Some(interest),
            self.policy,
            decode,
        );
        let chroot = client.chroot().clone();
        let line = Arc::clone(&client.shared().line);
        let stream = WatchStream::new(queue, watcher, chroot, line);
        super::Sent::driven(async move {
            sent.await?;
            Ok(stream)
        })
    }
}

operation!(Watch, send_any, WatchStream);

/// Lists the session's ephemeral znodes. See [`Client::ephemerals`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct Ephemerals {
    client: Client,
    below: String,
    policy: Policy,
}

impl Ephemerals {
    pub(crate) fn new(client: &Client, below: &str) -> Self {
        Self {
            client: client.clone(),
            below: below.to_owned(),
            policy: Policy::default(),
        }
    }
}

impl Prepare for Ephemerals {
    type Output = Vec<String>;

    fn prepare(&self, client: &Client) -> Result<Prepared, Error> {
        let target = Target::read("list ephemerals below", &self.below);
        let prefix = absolute(client, &target, &self.below)?;
        Ok(Prepared {
            request: Request::GetEphemerals(GetEphemerals {
                prefix: Some(prefix),
            }),
            target,
            interest: None,
        })
    }

    fn decode(answer: Answer, client: &Client) -> Result<Vec<String>, String> {
        let paths: Vec<String> = decoded(&answer)?;
        let seen = paths.iter().filter_map(|path| client.chroot().seen(path));
        Ok(seen.map(str::to_owned).collect())
    }
}

operation!(Ephemerals, Vec<String>);
retried!(Ephemerals);
