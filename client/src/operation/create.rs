//! Creating a znode, in every mode, and knowing afterwards whether it was done.

use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::request::{Create as CreateRequest, CreateTtl};
use quorate_protocol::{AclEntry, CreateMode, Request, SessionId, Stat, ZnodePath};
use tokio::runtime::Handle;

use super::{
    Backoff, Policy, Prepare, Prepared, Sent, decoded, invalid_path, operation, retried, send_once,
};
use crate::client::Client;
use crate::error::{Error, Outcome, Reason, Target};
use crate::recursive::join;
use crate::session::line::Answer;

/// What the names of protected znodes begin with, before 32 hexadecimal digits, a hyphen and the
/// name asked for. As in Curator, whose locks sort by what is behind it.
const PROTECTED_PREFIX: &str = "_c_";

/// The longest pause between attempts to find out what became of a protected znode.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A znode that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its path, with the number of a sequential one.
    pub path: String,
    /// As it was created.
    pub stat: Stat,
}

/// Creates a znode. See [`Client::create`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct Create {
    pub(super) client: Client,
    path: String,
    data: bytes::Bytes,
    pub(super) policy: Policy,
    plan: Plan,
    protection: Option<Protection>,
}

/// What kind of znode it is to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    ephemeral: bool,
    sequential: bool,
    container: bool,
    ttl: Option<Duration>,
    acl: Vec<AclEntry>,
}

#[derive(Clone, Debug)]
struct Protection {
    /// What the znode is recognised by.
    mark: Arc<str>,
    delete_if_dropped: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            ephemeral: false,
            sequential: false,
            container: false,
            ttl: None,
            acl: vec![AclEntry::open()],
        }
    }
}

impl Plan {
    pub(crate) fn set_ephemeral(&mut self) {
        self.ephemeral = true;
    }

    pub(crate) fn set_sequential(&mut self) {
        self.sequential = true;
    }

    pub(crate) fn set_container(&mut self) {
        self.container = true;
    }

    pub(crate) fn set_ttl(&mut self, ttl: Duration) {
        self.ttl = Some(ttl);
    }

    pub(crate) fn set_acl(&mut self, acl: Vec<AclEntry>) {
        self.acl = acl;
    }

    fn mode(&self) -> Result<CreateMode, &'static str> {
        let ttl_ms = match self.ttl {
            None => None,
            Some(ttl) => match i64::try_from(ttl.as_millis()) {
                Ok(ms @ 1..=quorate_protocol::types::TTL_MAX_MS) => Some(ms),
                _ => return Err("a time to live is from 1 ms to about 34 years"),
            },
        };
        Ok(
            match (self.ephemeral, self.sequential, self.container, ttl_ms) {
                (false, false, false, None) => CreateMode::Persistent,
                (false, true, false, None) => CreateMode::PersistentSequential,
                (true, false, false, None) => CreateMode::Ephemeral,
                (true, true, false, None) => CreateMode::EphemeralSequential,
                (false, false, true, None) => CreateMode::Container,
                (false, false, false, Some(ttl_ms)) => CreateMode::PersistentWithTtl { ttl_ms },
                (false, true, false, Some(ttl_ms)) => {
                    CreateMode::PersistentSequentialWithTtl { ttl_ms }
                }
                (true, _, _, Some(_)) => return Err("an ephemeral znode has no time to live"),
                (true, _, true, None) => return Err("a container is not ephemeral"),
                (false, true, true, None) => return Err("a container is not sequential"),
                (false, _, true, Some(_)) => return Err("a container has no time to live"),
            },
        )
    }

    /// The path on the wire: with a sequential mode it may end with a slash, because a number follows.
    pub(crate) fn absolute(
        &self,
        client: &Client,
        target: &Target,
        path: &str,
    ) -> Result<String, Error> {
        let checked = if self.sequential {
            ZnodePath::check(&format!("{path}0"))
        } else {
            ZnodePath::check(path)
        };
        checked.map_err(|source| invalid_path(target, source))?;
        if self.sequential && path.ends_with('/') {
            // The name is the number alone, below the chroot as well.
            return Ok(format!("{}{path}", client.chroot().as_str()));
        }
        Ok(client.chroot().absolute(path).into_owned())
    }

    pub(crate) fn request(
        &self,
        target: &Target,
        path: String,
        data: bytes::Bytes,
    ) -> Result<Request, Error> {
        let mode = self.mode().map_err(|what| Error::InvalidArgument {
            target: target.clone(),
            what,
        })?;
        let (data, acl, flags) = (Some(data), self.acl.clone(), mode.flags());
        Ok(match mode.ttl_ms() {
            Some(ttl_ms) => Request::CreateTtl(CreateTtl {
                path,
                data,
                acl,
                flags,
                ttl_ms,
            }),
            None => {
                let request = CreateRequest {
                    path,
                    data,
                    acl,
                    flags,
                };
                if mode == CreateMode::Container {
                    Request::CreateContainer(request)
                } else {
                    Request::Create2(request)
                }
            }
        })
    }
}

impl Create {
    pub(crate) fn new(client: &Client, path: &str, data: &[u8]) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            data: bytes::Bytes::copy_from_slice(data),
            policy: Policy::default(),
            plan: Plan::default(),
            protection: None,
        }
    }

    /// It goes when the session ends.
    pub fn ephemeral(mut self) -> Self {
        self.plan.set_ephemeral();
        self
    }

    /// The server appends a number of ten digits to its name, larger than that of all siblings
    /// before. The path may end with a slash.
    pub fn sequential(mut self) -> Self {
        self.plan.set_sequential();
        self
    }

    /// The server deletes it some time after its last child has gone.
    pub fn container(mut self) -> Self {
        self.plan.set_container();
        self
    }

    /// The server deletes it when it was not set for so long and has no children. Servers of Apache
    /// ZooKeeper have to allow it (`extendedTypesEnabled`).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.plan.set_ttl(ttl);
        self
    }

    /// Who may do what with it. Everybody everything, by default.
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.plan.set_acl(acl.into());
        self
    }

    /// Finds out by itself what became of it when the connection is lost before the answer: the
    /// name gets a mark in front (`_c_`, 32 digits and a hyphen, as Curator has it), and after a
    /// reconnect the znode is looked for. So an error leaves no znode behind that nobody knows of,
    /// and no second one is created.
    ///
    /// Cancel safe: once sent it is carried to its end, also when nobody waits for it any more; see
    /// [`Create::delete_if_dropped`].
    ///
    /// # Errors
    ///
    /// Its outcome is never unknown but for a session that ends meanwhile: then an ephemeral znode
    /// is gone, and another kind may be there.
    pub fn protected(mut self) -> Self {
        self.protection.get_or_insert_with(|| Protection {
            mark: new_mark(&self.client).into(),
            delete_if_dropped: false,
        });
        self
    }

    /// As [`Create::protected`]. If the future is dropped before it has resolved, the znode is
    /// deleted as soon as it is known, as by [`Delete::guaranteed`](super::Delete::guaranteed).
    pub fn delete_if_dropped(self) -> Self {
        let mut protected = self.protected();
        if let Some(protection) = &mut protected.protection {
            protection.delete_if_dropped = true;
        }
        protected
    }

    /// The path with the mark in the name.
    fn marked_path(&self) -> String {
        match &self.protection {
            None => self.path.clone(),
            Some(protection) => {
                let (parent, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
                format!("{parent}/{}{name}", protection.mark)
            }
        }
    }

    fn send_any(mut self) -> Sent<Created> {
        let Some(protection) = self.protection.clone() else {
            return super::send(&self, &self.client, self.policy);
        };
        // Sent again blindly, it would make a second znode.
        self.policy.idempotent = false;
        let prepared = match self.prepare(&self.client) {
            Ok(prepared) => prepared,
            Err(error) => return Sent::failed(error),
        };
        let (done, answer) = tokio::sync::oneshot::channel();
        let target = prepared.target.clone();
        let first = self.attempt(&prepared);
        // The first attempt has its place; what follows is carried to its end by a task of its own.
        tokio::spawn(async move {
            let client = self.client.clone();
            let result = self.protect(&protection, prepared, first).await;
            let result = result.map(|created| Unclaimed {
                claim: Some((created, client)),
                delete_if_dropped: protection.delete_if_dropped,
                runtime: Handle::current(),
            });
            // If nobody waits any more, what comes back is dropped here.
            done.send(result).ok();
        });
        Sent::driven(async move {
            let answer = answer.await;
            let lost = Err(Error::Closed { target, sent: true });
            answer.unwrap_or(lost).and_then(Unclaimed::claim)
        })
    }

    fn attempt(&self, prepared: &Prepared) -> Sent<Created> {
        send_once(
            &self.client,
            prepared.target.clone(),
            &prepared.request,
            None,
            self.policy,
            Self::decode,
        )
    }

    async fn protect(
        &self,
        protection: &Protection,
        prepared: Prepared,
        first: Sent<Created>,
    ) -> Result<Created, Error> {
        let mut result = first.await;
        let mut backoff = Backoff::new(&self.client, PAUSE_MAX);
        loop {
            let error = match result {
                // A plain name that exists with our mark in it is ours.
                Err(error)
                    if (error.outcome() != Outcome::NotApplied || error.is(Reason::NodeExists))
                        && !error.needs_new_session() =>
                {
                    error
                }
                other => return other,
            };
            let session = self.client.session();
            match self.find(protection, session).await {
                Ok(Some(created)) => return Ok(created),
                Ok(None) => result = self.attempt(&prepared).await,
                // Not knowing is what the caller is told.
                Err(found) if found.needs_new_session() => return Err(found_over(&error, &found)),
                Err(found) if found.is_retryable() => {
                    // A server that answers at once "not now" must not be asked without end.
                    backoff.wait().await;
                    result = Err(error);
                }
                Err(_) => return Err(error),
            }
        }
    }

    /// Looks for the znode by its mark.
    async fn find(
        &self,
        protection: &Protection,
        session: Option<SessionId>,
    ) -> Result<Option<Created>, Error> {
        let (parent, _) = self.path.rsplit_once('/').unwrap_or(("", ""));
        let parent = if parent.is_empty() { "/" } else { parent };
        // The server may be behind the one that was lost.
        self.client.sync(parent).await?;
        let names = match self.client.children(parent).await {
            Ok((names, _)) => names,
            Err(error) if error.is(Reason::NoNode) => return Ok(None),
            Err(error) => return Err(error),
        };
        let ours = names
            .iter()
            .find(|name| name.starts_with(&*protection.mark));
        let Some(name) = ours else { return Ok(None) };
        let path = join(parent, name);
        let Some(stat) = self.client.exists(&path).await? else {
            return Ok(None);
        };
        let owner = SessionId::new(stat.ephemeral_owner);
        if self.plan.ephemeral && owner != session {
            // Of our last session: it goes with it, and is not ours any more.
            self.client.delete(&path).guaranteed().send().await?;
            return Ok(None);
        }
        Ok(Some(Created { path, stat }))
    }
}

/// A znode whose creator may have lost interest: deleted if this is dropped, where that is asked for.
struct Unclaimed {
    claim: Option<(Created, Client)>,
    delete_if_dropped: bool,
    runtime: Handle,
}

impl Unclaimed {
    fn claim(mut self) -> Result<Created, Error> {
        match self.claim.take() {
            Some((created, _)) => Ok(created),
            None => unreachable!("it is claimed once"),
        }
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some((created, client)) = self.claim.take()
            && self.delete_if_dropped
        {
            // Whoever drops it may be outside of the runtime.
            let _runtime = self.runtime.enter();
            drop(client.delete(&created.path).guaranteed().send());
        }
    }
}

fn found_over(error: &Error, over: &Error) -> Error {
    let target = error.target().clone();
    match over {
        Error::SessionExpired { .. } => Error::SessionExpired { target, sent: true },
        Error::AuthFailed { .. } => Error::AuthFailed { target, sent: true },
        _ => Error::Closed { target, sent: true },
    }
}

fn new_mark(client: &Client) -> String {
    let number = client.randomness().number();
    format!("{PROTECTED_PREFIX}{number:032x}-")
}

impl Prepare for Create {
    type Output = Created;

    fn prepare(&self, client: &Client) -> Result<Prepared, Error> {
        let target = Target::write("create", &self.path);
        let path = self.plan.absolute(client, &target, &self.marked_path())?;
        let request = self.plan.request(&target, path, self.data.clone())?;
        Ok(Prepared {
            target,
            request,
            interest: None,
        })
    }

    fn decode(answer: Answer, client: &Client) -> Result<Created, String> {
        let (path, stat): (String, Stat) = decoded(&answer)?;
        created(client, &path, stat)
    }
}

/// The path as the client names it.
pub(crate) fn created(client: &Client, path: &str, stat: Stat) -> Result<Created, String> {
    match client.chroot().seen(path) {
        Some(seen) => Ok(Created {
            path: seen.to_owned(),
            stat,
        }),
        None => Err(format!("it is about {path}")),
    }
}

operation!(Create, send_any, Created);
retried!(Create);
