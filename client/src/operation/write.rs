//! Changing and deleting znodes.

use std::time::Duration;

use bytes::Bytes;
use quorate_protocol::request::{
    Delete as DeleteRequest, SetAcl as SetAclRequest, SetData as SetDataRequest,
};
use quorate_protocol::{AclEntry, Request, Stat};

use super::{Backoff, Policy, Prepare, Prepared, Sent, absolute, decoded, operation, retried};
use crate::client::Client;
use crate::error::{Error, Reason, Target};
use crate::session::line::Answer;

/// Any version, on the wire.
const ANY_VERSION: i32 = -1;
/// The longest pause between attempts of a guaranteed delete.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Replaces a znode's data. See [`Client::set`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct Set {
    client: Client,
    path: String,
    data: Bytes,
    version: i32,
    policy: Policy,
}

impl Set {
    pub(crate) fn new(client: &Client, path: &str, data: &[u8]) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            data: Bytes::copy_from_slice(data),
            version: ANY_VERSION,
            policy: Policy::default(),
        }
    }

    /// Only if the znode has this version ([`Stat::version`]).
    pub fn if_version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }
}

impl Prepare for Set {
    type Output = Stat;

    fn prepare(&self, client: &Client) -> Result<Prepared, Error> {
        let target = Target::write("set", &self.path);
        Ok(Prepared {
            request: Request::SetData(SetDataRequest {
                path: absolute(client, &target, &self.path)?,
                data: Some(self.data.clone()),
                version: self.version,
            }),
            target,
            interest: None,
        })
    }

    fn decode(answer: Answer, _: &Client) -> Result<Stat, String> {
        decoded(&answer)
    }
}

operation!(Set, Stat);
retried!(Set);

/// Replaces a znode's ACL. See [`Client::set_acl`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct SetAcl {
    client: Client,
    path: String,
    acl: Vec<AclEntry>,
    version: i32,
    policy: Policy,
}

impl SetAcl {
    pub(crate) fn new(client: &Client, path: &str, acl: Vec<AclEntry>) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            acl,
            version: ANY_VERSION,
            policy: Policy::default(),
        }
    }

    /// Only if the ACL has this version ([`Stat::aversion`]).
    pub fn if_version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }
}

impl Prepare for SetAcl {
    type Output = Stat;

    fn prepare(&self, client: &Client) -> Result<Prepared, Error> {
        let target = Target::write("set ACL of", &self.path);
        Ok(Prepared {
            request: Request::SetAcl(SetAclRequest {
                path: absolute(client, &target, &self.path)?,
                acl: self.acl.clone(),
                version: self.version,
            }),
            target,
            interest: None,
        })
    }

    fn decode(answer: Answer, _: &Client) -> Result<Stat, String> {
        decoded(&answer)
    }
}

operation!(SetAcl, Stat);
retried!(SetAcl);

/// Deletes a znode. See [`Client::delete`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct Delete {
    client: Client,
    path: String,
    version: i32,
    guaranteed: bool,
    policy: Policy,
}

impl Delete {
    pub(crate) fn new(client: &Client, path: &str) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            version: ANY_VERSION,
            guaranteed: false,
            policy: Policy::default(),
        }
    }

    /// Only if the znode has this version ([`Stat::version`]).
    pub fn if_version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }

    /// Goes on, in the background and across lost connections, until the znode is gone, a server
    /// refuses for good, or the session is over: also when nobody waits for it any more. That the
    /// znode is gone already is success.
    pub fn guaranteed(mut self) -> Self {
        self.guaranteed = true;
        self
    }

    fn send_any(self) -> Sent<()> {
        if !self.guaranteed {
            return super::send(&self, &self.client, self.policy);
        }
        let target = Target::write("delete", &self.path);
        // Its place is taken now, by the first attempt.
        let first = super::send(&self, &self.client, self.policy);
        let (done, answer) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            // Whoever asked may have gone.
            done.send(self.insist(first).await).ok();
        });
        Sent::driven(async move {
            answer
                .await
                .unwrap_or(Err(Error::Closed { target, sent: true }))
        })
    }

    async fn insist(&self, first: Sent<()>) -> Result<(), Error> {
        let mut result = first.await;
        let mut is_unknown = false;
        let mut backoff = Backoff::new(&self.client, PAUSE_MAX);
        loop {
            match &result {
                Ok(()) => return Ok(()),
                Err(error) if error.is(Reason::NoNode) => return Ok(()),
                Err(error) if error.needs_new_session() => {}
                Err(error)
                    if error.is_retryable() || error.outcome() == crate::Outcome::Unknown =>
                {
                    is_unknown |= super::is_unknown_of(&result);
                    backoff.wait().await;
                    result = super::send(self, &self.client, self.policy).await;
                    if is_unknown {
                        result = result.map_err(Error::after_unknown);
                    }
                    continue;
                }
                Err(_) => {}
            }
            return result;
        }
    }
}

impl Prepare for Delete {
    type Output = ();

    fn prepare(&self, client: &Client) -> Result<Prepared, Error> {
        let target = Target::write("delete", &self.path);
        Ok(Prepared {
            request: Request::Delete(DeleteRequest {
                path: absolute(client, &target, &self.path)?,
                version: self.version,
            }),
            target,
            interest: None,
        })
    }

    fn decode(_: Answer, _: &Client) -> Result<(), String> {
        Ok(())
    }
}

operation!(Delete, send_any, ());
retried!(Delete);
