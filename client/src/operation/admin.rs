//! Who we are, and who the servers are.

use bytes::Bytes;
use quorate_protocol::request::Reconfig;
use quorate_protocol::{Request, Stat};

use super::{Policy, Prepare, Prepared, data_and_stat, decoded, operation};
use crate::client::Client;
use crate::error::{Error, Target};
use crate::session::line::{Answer, Work};

/// Lists the identities of the connection. See [`Client::who_am_i`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct WhoAmI {
    client: Client,
    policy: Policy,
}

impl WhoAmI {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            policy: Policy::default(),
        }
    }
}

impl Prepare for WhoAmI {
    type Output = Vec<(String, String)>;

    fn prepare(&self, _: &Client) -> Result<Prepared, Error> {
        Ok(Prepared {
            target: Target::read("who am I", ""),
            request: Request::WhoAmI,
            interest: None,
        })
    }

    fn decode(answer: Answer, _: &Client) -> Result<Self::Output, String> {
        decoded(&answer)
    }
}

operation!(WhoAmI, Vec<(String, String)>);

/// Changes the members of the ensemble. See [`Client::reconfigure`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `.send()` or `.await`"]
pub struct Reconfigure {
    client: Client,
    joining: Vec<String>,
    leaving: Vec<String>,
    members: Option<Vec<String>>,
    version: i64,
    policy: Policy,
}

impl Reconfigure {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            joining: Vec::new(),
            leaving: Vec::new(),
            members: None,
            version: -1,
            policy: Policy::default(),
        }
    }

    /// Adds or changes a server: `server.4=host:2888:3888:participant;2181`.
    pub fn join(mut self, server: &str) -> Self {
        self.joining.push(server.to_owned());
        self
    }

    /// Removes the server with this id.
    pub fn leave(mut self, id: u64) -> Self {
        self.leaving.push(id.to_string());
        self
    }

    /// Replaces all members. Cannot be combined with the others.
    pub fn replace_all<S: AsRef<str>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        let servers = servers.into_iter();
        self.members = Some(servers.map(|server| server.as_ref().to_owned()).collect());
        self
    }

    /// Only if the configuration has this version, as its text says.
    pub fn if_version(mut self, version: i64) -> Self {
        self.version = version;
        self
    }
}

impl Prepare for Reconfigure {
    type Output = (Bytes, Stat);

    fn prepare(&self, _: &Client) -> Result<Prepared, Error> {
        let target = Target::write("reconfigure", "");
        let changes = !(self.joining.is_empty() && self.leaving.is_empty());
        if changes == self.members.is_some() {
            return Err(Error::InvalidArgument {
                target,
                what: "either servers to add and remove, or all of them",
            });
        }
        let list = |servers: &[String]| (!servers.is_empty()).then(|| servers.join(","));
        Ok(Prepared {
            request: Request::Reconfig(Reconfig {
                joining: list(&self.joining),
                leaving: list(&self.leaving),
                new_members: self.members.as_deref().and_then(list),
                config_version: self.version,
            }),
            target,
            interest: None,
        })
    }

    fn decode(answer: Answer, _: &Client) -> Result<(Bytes, Stat), String> {
        let (data, stat) = data_and_stat(answer.body)?;
        Ok((data.unwrap_or_default(), stat))
    }
}

operation!(Reconfigure, (Bytes, Stat));

/// The length of the request on the wire: a header, a number, two lengths, and these.
pub(crate) fn auth_bytes(scheme: &str, proof: &[u8]) -> usize {
    20 + scheme.len() + proof.len()
}

/// Proves who we are. See [`Client::authenticate`].
#[must_use = "it has been sent; await it to know the answer"]
pub struct Authenticate(super::Sent<()>);

impl std::fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticate").finish_non_exhaustive()
    }
}

impl Authenticate {
    pub(crate) fn new(client: &Client, scheme: &str, proof: &[u8]) -> Self {
        // What no server would take ends every connection on which it is said.
        let (length, limit) = (auth_bytes(scheme, proof), client.frame_bytes_max());
        if length > limit {
            return Self(super::Sent::failed(Error::TooLarge {
                target: Target::write("authenticate", ""),
                length,
                limit,
            }));
        }
        let (reply, answer) = tokio::sync::oneshot::channel();
        client.shared().line.add(Work::Authenticate {
            scheme: scheme.to_owned(),
            proof: Bytes::copy_from_slice(proof),
            reply,
        });
        Self(super::Sent::driven(async move {
            let target = Target::write("authenticate", "");
            let answer = answer.await;
            answer.unwrap_or(Err(Error::Disconnected { target, sent: true }))
        }))
    }
}

impl Future for Authenticate {
    type Output = Result<(), Error>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context)
    }
}
