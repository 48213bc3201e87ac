//! A value that all clients see and any may replace.
//!
//! The data of the znode is the value and nothing else, so that any other client reads and writes it:
//! Curator's `SharedValue`, or a person with a shell. A handle that has written keeps one ephemeral
//! child in the znode (`own-` and 32 digits) until it is dropped, by which it recognises its own writes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use quorate_client::watch::Watcher;
use quorate_client::{AclEntry, Reason, Zxid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::cas::{Base, Cell, Version};
use crate::waiting;

/// How a value is written down.
pub struct Format<T> {
    /// What a value is called in errors.
    wanted: &'static str,
    encode: fn(&T) -> Result<Vec<u8>, String>,
    decode: fn(&[u8]) -> Result<T, String>,
}

impl<T> Format<T> {
    /// Any other one. `wanted` names it where data does not have it: `"a protobuf of Config"`.
    pub const fn new(
        wanted: &'static str,
        encode: fn(&T) -> Result<Vec<u8>, String>,
        decode: fn(&[u8]) -> Result<T, String>,
    ) -> Self {
        Self {
            wanted,
            encode,
            decode,
        }
    }
}

impl<T: Serialize + DeserializeOwned> Format<T> {
    /// JSON.
    pub const JSON: Self = Self::new(
        "JSON of the value's type",
        |value| serde_json::to_vec(value).map_err(|error| error.to_string()),
        |data| serde_json::from_slice(data).map_err(|error| error.to_string()),
    );
}

impl Format<Bytes> {
    /// The bytes as they are.
    pub const BYTES: Self = Self::new(
        "bytes",
        |value| Ok(value.to_vec()),
        |data| Ok(Bytes::copy_from_slice(data)),
    );
}

impl<T> Clone for Format<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Format<T> {}

impl<T> std::fmt::Debug for Format<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.wanted)
    }
}

/// A value, and which replacement it is.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// For [`SharedValue::try_set`].
    pub version: Version,
}

/// A value that all clients see and any may replace.
///
/// Each write is applied exactly once, or not at all: also where the connection breaks before its
/// answer. Only if the session ends just then, and somebody else writes as well, may it be impossible
/// to find out; the error says so ([`Error::outcome`]).
///
/// Cheap to clone. Writes of a handle and its clones are made one after the other.
///
/// ```no_run
/// # use quorate_client::Client;
/// # use quorate_recipes::{Error, SharedValue};
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Limits {
///     requests_per_second: u32,
/// }
///
/// # async fn example(client: &Client) -> Result<(), Error> {
/// let limits = SharedValue::<Limits>::json(client, "/config/limits");
/// limits
///     .update(|now| Limits {
///         requests_per_second: now.map_or(100, |now| now.requests_per_second * 2),
///     })
///     .await?;
///
/// let mut values = limits.watch();
/// while let Some(now) = values.next().await {
///     match now? {
///         Some(now) => println!("{}", now.value.requests_per_second),
///         None => println!("no limits"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # What it does not promise
///
/// Reads are of the server the client is connected to, which may be a moment behind; ask for
/// [`Client::sync`](quorate_client::Client::sync) first where that matters. A value that is deleted by
/// others at the very moment at which a connection is lost that was creating it is created again.
pub struct SharedValue<T = Bytes> {
    cell: Cell,
    format: Format<T>,
}

impl<T> Clone for SharedValue<T> {
    fn clone(&self) -> Self {
        Self {
            cell: self.cell.clone(),
            format: self.format,
        }
    }
}

impl<T> std::fmt::Debug for SharedValue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedValue")
            .field("path", &self.cell.path())
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl SharedValue {
    /// Of bytes. Nothing is created before the first write.
    pub fn new(client: &quorate_client::Client, path: &str) -> Self {
        Self::with_format(client, path, Format::BYTES)
    }
}

impl<T: Serialize + DeserializeOwned> SharedValue<T> {
    /// Written as JSON.
    pub fn json(client: &quorate_client::Client, path: &str) -> Self {
        Self::with_format(client, path, Format::JSON)
    }
}

impl<T> SharedValue<T> {
    /// In any format.
    pub fn with_format(client: &quorate_client::Client, path: &str, format: Format<T>) -> Self {
        let cell = Cell::new(client, path);
        Self { cell, format }
    }

    /// Who may do what with the znode, if this creates it. Everybody everything by default. Whoever
    /// writes needs the permission to create children, too.
    #[must_use]
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.cell.set_acl(acl.into());
        self
    }

    /// How often [`SharedValue::update`] tries when others are faster each time; 64 by default.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.cell.set_attempts(attempts);
        self
    }

    /// The value; `None` if there is no such znode.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`]: the data is not in the format, or a recipe's; those of a read.
    pub async fn get(&self) -> Result<Option<Versioned<T>>, Error> {
        let Some((data, stat)) = self.cell.read().await? else {
            return Ok(None);
        };
        let version = Version::of(&stat);
        let value = self.decode(&data)?;
        Ok(Some(Versioned { value, version }))
    }

    /// Replaces the value, whatever it is, and creates the znode if there is none.
    ///
    /// Cancel safe: dropped before it has resolved, it may have been done.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`]; [`Error::Foreign`]: the znode is a recipe's; those of a write.
    pub async fn set(&self, value: &T) -> Result<Version, Error> {
        let data = self.encode(value)?;
        self.cell.put(&data).await
    }

    /// Replaces the value if it is still of this version; `None` if it is not, or gone.
    ///
    /// Cancel safe, as [`SharedValue::set`].
    ///
    /// # Errors
    ///
    /// As [`SharedValue::set`].
    pub async fn try_set(&self, value: &T, version: Version) -> Result<Option<Version>, Error> {
        let data = self.encode(value)?;
        self.cell.write(Base::At(version), &data).await
    }

    /// Creates the znode with this value; `None` if there is one already.
    ///
    /// Cancel safe, as [`SharedValue::set`].
    ///
    /// # Errors
    ///
    /// As [`SharedValue::set`].
    pub async fn initialize(&self, value: &T) -> Result<Option<Version>, Error> {
        let data = self.encode(value)?;
        self.cell.write(Base::Absent, &data).await
    }

    /// Replaces the value by what the closure makes of it, if nobody else writes in between; otherwise
    /// asks the closure again. `None` stands for no such znode.
    ///
    /// Cancel safe, as [`SharedValue::set`].
    ///
    /// # Errors
    ///
    /// [`Error::Contended`]; [`Error::Foreign`]; those of a read and a write.
    pub async fn update(
        &self,
        mut change: impl FnMut(Option<T>) -> T,
    ) -> Result<Versioned<T>, Error> {
        let updated = self.try_update(|now| Some(change(now))).await?;
        match updated {
            Some(updated) => Ok(updated),
            None => unreachable!("the closure always wants a change"),
        }
    }

    /// As [`SharedValue::update`]; where the closure answers `None`, the value is left as it is.
    ///
    /// Cancel safe, as [`SharedValue::set`].
    ///
    /// # Errors
    ///
    /// As [`SharedValue::update`].
    pub async fn try_update(
        &self,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<Versioned<T>>, Error> {
        let change = |data: Option<&[u8]>| {
            let now = data.map(|data| self.decode(data)).transpose()?;
            let Some(value) = change(now) else {
                return Ok((None, None));
            };
            Ok((Some(self.encode(&value)?), Some(value)))
        };
        let updated = self.cell.update(change).await?;
        let value = updated.answer.zip(updated.version);
        Ok(value.map(|(value, version)| Versioned { value, version }))
    }

    /// Deletes the znode; `false` if there is none.
    ///
    /// Cancel safe, as [`SharedValue::set`].
    ///
    /// # Errors
    ///
    /// [`Reason::NotEmpty`]: others keep children there; [`Error::Foreign`]: it is a recipe's; those of
    /// a write.
    pub async fn remove(&self) -> Result<bool, Error> {
        self.cell.remove().await
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, Error> {
        (self.format.encode)(value).map_err(|what| Error::Unwritable {
            path: self.cell.path().to_owned(),
            what,
        })
    }

    fn decode(&self, data: &[u8]) -> Result<T, Error> {
        (self.format.decode)(data).map_err(|found| Error::Foreign {
            path: self.cell.path().to_owned(),
            found: format!("other data ({found})"),
            wanted: self.format.wanted,
        })
    }
}

impl<T: Send + 'static> SharedValue<T> {
    /// The value as it is, and then as it becomes. A reader that is slow misses values in between,
    /// never the latest; no value comes twice.
    pub fn watch(&self) -> Values<T> {
        Values {
            state: State::Idle(Box::new(Watching {
                value: self.clone(),
                last: None,
                watcher: None,
            })),
        }
    }
}

/// The values of a znode: `None` while there is no such znode. See [`SharedValue::watch`].
///
/// Lost connections are waited out. An [`Error::Foreign`] is an item like any other, and the next
/// value follows it; any other error is the last item.
#[derive(Debug)]
pub struct Values<T> {
    state: State<T>,
}

type Looked<T> = (Box<Watching<T>>, Result<Option<Versioned<T>>, Error>);

enum State<T> {
    Idle(Box<Watching<T>>),
    Looking(Pin<Box<dyn Future<Output = Looked<T>> + Send>>),
    Over,
}

impl<T> std::fmt::Debug for State<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle(_) => "Idle",
            Self::Looking(_) => "Looking",
            Self::Over => "Over",
        })
    }
}

struct Watching<T> {
    value: SharedValue<T>,
    /// Which write the last item was of; [`Zxid::ZERO`] if it was that there is none.
    last: Option<Zxid>,
    /// Since the last item.
    watcher: Option<Watcher>,
}

impl<T> Watching<T> {
    async fn next(&mut self) -> Result<Option<Versioned<T>>, Error> {
        loop {
            if let Some(watcher) = self.watcher.take() {
                // Whatever has happened: it is read again. After an expiry, in the next session.
                watcher.changed().await.ok();
            }
            let (client, path) = (self.value.cell.client(), self.value.cell.path());
            let read = match waiting::read(client, || client.get(path).watch()).await {
                Ok((read, watcher)) => {
                    self.watcher = Some(watcher);
                    Some(read)
                }
                Err(error) if error.is(Reason::NoNode) => {
                    let (stat, watcher) =
                        waiting::read(client, || client.exists(path).watch()).await?;
                    if stat.is_some() {
                        continue;
                    }
                    self.watcher = Some(watcher);
                    None
                }
                Err(error) => return Err(error.into()),
            };
            let mzxid = read.as_ref().map_or(Zxid::ZERO, |(_, stat)| stat.mzxid);
            // A watch tells of other things as well.
            if self.last.replace(mzxid) == Some(mzxid) {
                continue;
            }
            let Some((data, stat)) = read else {
                return Ok(None);
            };
            self.value.cell.refuse_others(&data)?;
            let version = Version::of(&stat);
            let value = self.value.decode(&data)?;
            return Ok(Some(Versioned { value, version }));
        }
    }
}

impl<T: Send + 'static> Values<T> {
    /// The next value; `None` after the last. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`], after which it goes on; those of a read, when the session is over.
    pub async fn next(&mut self) -> Option<Result<Option<Versioned<T>>, Error>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<T: Send + 'static> Stream for Values<T> {
    type Item = Result<Option<Versioned<T>>, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match std::mem::replace(&mut this.state, State::Over) {
                State::Idle(mut watching) => {
                    this.state = State::Looking(Box::pin(async move {
                        let item = watching.next().await;
                        (watching, item)
                    }));
                }
                State::Looking(mut looking) => {
                    let Poll::Ready((watching, item)) = looking.as_mut().poll(context) else {
                        this.state = State::Looking(looking);
                        return Poll::Pending;
                    };
                    if matches!(item, Ok(_) | Err(Error::Foreign { .. })) {
                        this.state = State::Idle(watching);
                    }
                    return Poll::Ready(Some(item));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }
}
