//! A znode whose data is replaced on condition, and each replacement exactly once.
//!
//! Where the connection breaks before the answer to a write, reading the data again does not tell
//! whether it was applied: another client may have written the same. So each write is a transaction
//! that sets a mark as well: an ephemeral child of the znode, one for each handle, whose data is the
//! number of the write. The mark and the data change together, and nobody else touches the mark:
//! reading the mark tells. It goes with its session, and then the version of the znode still tells as
//! long as nobody else has changed it. Only if both are gone is the outcome unknown, and the error
//! says so.

use std::sync::Arc;

use bytes::Bytes;
use quorate_client::{
    AclEntry, Client, Error as ClientError, Outcome, Read, Reason, SessionId, Stat, Transaction,
    Zxid,
};
use tokio::sync::Mutex;

use crate::Error;
use crate::directory::{Kind, owner};
use crate::mark::{Mark, is_mark};
use crate::waiting;

/// How often an update is tried when others are faster each time.
const ATTEMPTS: u32 = 64;

/// The znode. Clones share their mark, and their writes are made one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    client: Client,
    path: String,
    acl: Vec<AclEntry>,
    attempts: u32,
    /// Whose mark makes the znode ours; otherwise the data is the user's, and no recipe's.
    kind: Option<Kind>,
    mark: Arc<Mutex<Mark>>,
}

/// Which replacement a znode's data is of.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    number: i32,
    /// [`Zxid::ZERO`]: not known.
    czxid: Zxid,
}

impl Version {
    /// How often the data was replaced since the znode was created ([`Stat::version`]). One that was
    /// deleted and created again begins at 0.
    pub fn number(&self) -> i32 {
        self.number
    }

    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            number: stat.version,
            czxid: stat.czxid,
        }
    }
}

/// What a write relies on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    /// There is no such znode.
    Absent,
    /// The znode has this version.
    At(Version),
    /// It exists.
    Any,
}

impl Base {
    fn of(read: Option<&(Bytes, Stat)>) -> Self {
        read.map_or(Self::Absent, |(_, stat)| Self::At(Version::of(stat)))
    }
}

/// What an update left.
#[derive(Debug)]
pub(crate) struct Updated<T> {
    /// What the closure answered beside the data.
    pub(crate) answer: T,
    /// `None` if the closure wanted no change.
    pub(crate) version: Option<Version>,
}

impl Cell {
    pub(crate) fn new(client: &Client, path: impl Into<String>) -> Self {
        let path = path.into();
        let mark = Mark::new(client, &path);
        Self {
            client: client.clone(),
            path,
            acl: vec![AclEntry::open()],
            attempts: ATTEMPTS,
            kind: None,
            mark: Arc::new(Mutex::new(mark)),
        }
    }

    pub(crate) fn set_acl(&mut self, acl: Vec<AclEntry>) {
        self.acl = acl;
    }

    pub(crate) fn set_attempts(&mut self, attempts: u32) {
        self.attempts = attempts.max(1);
    }

    pub(crate) fn set_kind(&mut self, kind: Kind) {
        self.kind = Some(kind);
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The data and stat; `None` if there is no such znode.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`]; those of a read.
    pub(crate) async fn read(&self) -> Result<Option<(Bytes, Stat)>, Error> {
        match self.client.get(&self.path).await {
            Ok((data, stat)) => {
                self.refuse_others(&data)?;
                Ok(Some((data, stat)))
            }
            Err(error) if error.is(Reason::NoNode) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn refuse_others(&self, data: &[u8]) -> Result<(), Error> {
        match (owner(data), self.kind) {
            (Some(found), Some(wanted)) if found != wanted => Err(Error::OtherRecipe {
                path: self.path.clone(),
                wanted,
                found,
            }),
            (Some(found), None) => Err(Error::Foreign {
                path: self.path.clone(),
                found: format!("the record of {found}"),
                wanted: "a value",
            }),
            _ => Ok(()),
        }
    }

    /// Writes, if the znode is as `base` has it; answers its new version, or `None` if it is not.
    ///
    /// Cancel safe: what was sent may be applied.
    ///
    /// # Errors
    ///
    /// Those of a transaction. The outcome is unknown only where neither the mark nor the version can
    /// tell.
    pub(crate) async fn write(&self, base: Base, data: &[u8]) -> Result<Option<Version>, Error> {
        // Fair: whoever asked first is first.
        let mut mark = self.mark.lock().await;
        for _ in 0..self.attempts {
            let session = self.client.session();
            mark.next(session);
            let error = match self.steps(base, data, &mark).await {
                Ok(committed) => {
                    mark.exists = true;
                    let created = committed.created(0).map(|created| &created.stat);
                    let stat = committed.set(0).or(created);
                    // Old servers leave the stat out of a created one, which has the version 0.
                    let stat = stat.copied().unwrap_or_default();
                    return Ok(Some(Version::of(&stat)));
                }
                Err(error) => error,
            };
            if error.outcome() == Outcome::NotApplied {
                match (error.target().index(), error.reason()) {
                    (Some(0), Some(Reason::BadVersion | Reason::NodeExists)) => return Ok(None),
                    (Some(0), Some(Reason::NoNode)) if !matches!(base, Base::Absent) => {
                        mark.exists = false;
                        return Ok(None);
                    }
                    (Some(0), Some(Reason::NoNode)) if self.has_parent() => {
                        self.ensure_parent().await?;
                    }
                    (Some(1), _) if mark.learn(&error) => {}
                    _ => return Err(error.into()),
                }
                continue;
            }
            match self.resolve(base, &mark, session).await {
                Ok(Found::Applied(version)) => {
                    mark.exists = true;
                    return Ok(Some(version));
                }
                // As if it had never been sent.
                Ok(Found::NotApplied) => {}
                // The first error says what is not known.
                Ok(Found::Unknown) | Err(_) => return Err(error.into()),
            }
        }
        Err(self.contended())
    }

    /// The write, and with it the mark.
    fn steps(&self, base: Base, data: &[u8], mark: &Mark) -> Transaction {
        let steps = self.client.transaction();
        let steps = match base {
            Base::Absent => steps.create(&self.path, data).acl(self.acl.clone()),
            Base::At(version) => steps.set(&self.path, data).if_version(version.number),
            Base::Any => steps.set(&self.path, data),
        };
        // A znode that is created has no children yet.
        mark.add_to(steps, matches!(base, Base::Absent), &self.acl)
    }

    /// What became of a write without an answer.
    async fn resolve(
        &self,
        base: Base,
        mark: &Mark,
        session: Option<SessionId>,
    ) -> Result<Found, ClientError> {
        // The server may be behind the one that was lost.
        waiting::read(&self.client, || self.client.sync(&self.path)).await?;
        let reads = || self.client.read_many().get(&self.path).get(&mark.path);
        let reads = waiting::read(&self.client, reads).await?;
        let is_same_session = session.is_some() && self.client.session() == session;
        let found = |at: usize| match reads.get(at) {
            Some(Read::Data(data, stat)) => Ok(Some((data, stat))),
            Some(Read::Failed(Reason::NoNode)) => Ok(None),
            // Not permitted, say.
            _ => Err(Found::Unknown),
        };
        let (value, marked) = match (found(0), found(1)) {
            (Ok(value), Ok(marked)) => (value, marked),
            (Err(unknown), _) | (_, Err(unknown)) => return Ok(unknown),
        };
        if let (Some((_, value)), Some((data, _))) = (value, marked) {
            // The mark and the data change together.
            if !mark.is_of_last_write(data) {
                return Ok(Found::NotApplied);
            }
            let number = match base {
                // Others may have written since.
                Base::Absent => 0,
                Base::At(version) => version.number.wrapping_add(1),
                Base::Any => value.version,
            };
            let czxid = value.czxid;
            return Ok(Found::Applied(Version { number, czxid }));
        }
        // There is no mark: it was not made, or went with its session, or with the znode.
        let is_not_applied = match (base, value) {
            // If others have deleted it meanwhile, mark and all, nobody can tell; and then there is
            // nothing that a second write could disturb.
            (Base::Absent | Base::Any, None) => true,
            (Base::Absent | Base::Any, Some(_)) => is_same_session,
            (Base::At(version), Some((_, now))) => {
                let is_same_znode = version.czxid == now.czxid;
                // Each write makes another version.
                is_same_znode && (is_same_session || version.number == now.version)
            }
            (Base::At(_), None) => false,
        };
        Ok(if is_not_applied {
            Found::NotApplied
        } else {
            Found::Unknown
        })
    }

    /// Below the root, which is missing only if it is that of a chroot.
    fn has_parent(&self) -> bool {
        self.path.rfind('/').is_some_and(|at| at > 0)
    }

    async fn ensure_parent(&self) -> Result<(), Error> {
        match self.path.rsplit_once('/') {
            Some((parent, _)) if !parent.is_empty() => Ok(self.client.ensure_path(parent).await?),
            _ => Ok(()),
        }
    }

    /// Writes whatever is there, and creates the znode if there is none.
    pub(crate) async fn put(&self, data: &[u8]) -> Result<Version, Error> {
        // What has a mark of ours is known to be no other recipe's.
        if !self.mark.lock().await.exists {
            match self.read().await {
                // It may be written, and not read.
                Err(error) if error.is(Reason::NoAuth) => {}
                read => drop(read?),
            }
        }
        for _ in 0..self.attempts {
            if let Some(version) = self.write(Base::Any, data).await? {
                return Ok(version);
            }
            if let Some(version) = self.write(Base::Absent, data).await? {
                return Ok(version);
            }
        }
        Err(self.contended())
    }

    /// Reads, asks `change` what to write, and writes it if nobody was faster; again and again. What
    /// `change` refuses ends it, and so does its asking for no change.
    pub(crate) async fn update<T>(
        &self,
        mut change: impl FnMut(Option<&[u8]>) -> Result<(Option<Vec<u8>>, T), Error>,
    ) -> Result<Updated<T>, Error> {
        let mut backoff = waiting::Backoff::new(&self.client);
        for attempt in 0..self.attempts {
            if attempt > 0 {
                backoff.wait().await;
            }
            let read = self.read().await?;
            let (data, answer) = change(read.as_ref().map(|(data, _)| &data[..]))?;
            let Some(data) = data else {
                return Ok(Updated {
                    answer,
                    version: None,
                });
            };
            let written = self.write(Base::of(read.as_ref()), &data).await?;
            if written.is_some() {
                return Ok(Updated {
                    answer,
                    version: written,
                });
            }
        }
        Err(self.contended())
    }

    /// Deletes the znode with all marks; `false` if there is none.
    pub(crate) async fn remove(&self) -> Result<bool, Error> {
        if self.read().await?.is_none() {
            return Ok(false);
        }
        for _ in 0..self.attempts {
            let (names, stat) = match self.client.children(&self.path).await {
                Ok(found) => found,
                Err(error) if error.is(Reason::NoNode) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let mut steps = self.client.transaction();
            for name in names.iter().filter(|name| is_mark(name)) {
                steps = steps.delete(&format!("{}/{name}", self.path));
            }
            match steps.delete(&self.path).await {
                Ok(_) => return Ok(true),
                // Children of others stay, and so does the znode.
                Err(error)
                    if error.is(Reason::NotEmpty) && !names.iter().all(|name| is_mark(name)) =>
                {
                    return Err(error.into());
                }
                // Marks come and go.
                Err(error) if error.is(Reason::NoNode) || error.is(Reason::NotEmpty) => {}
                // Gone is gone, whoever did it.
                Err(error) if error.outcome() == Outcome::Unknown && !error.needs_new_session() => {
                    waiting::read(&self.client, || self.client.sync(&self.path)).await?;
                    let left =
                        waiting::read(&self.client, || self.client.exists(&self.path)).await?;
                    // Another one may have been created since.
                    if left.is_none_or(|left| left.czxid != stat.czxid) {
                        return Ok(true);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.contended())
    }

    fn contended(&self) -> Error {
        Error::Contended {
            path: self.path.clone(),
            attempts: self.attempts,
        }
    }
}

/// What is known of a write without an answer.
#[derive(Debug)]
enum Found {
    /// It has made this version.
    Applied(Version),
    NotApplied,
    Unknown,
}
