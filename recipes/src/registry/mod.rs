//! A registry of services: which instances of each there are, and which of them to ask.
//!
//! The layout and the JSON are those of Curator's `x-discovery`: an ephemeral znode
//! `<base>/<service>/<id>` for each instance. An instance is registered when it says that it is ready,
//! and is again after its session has expired. Instances that others have registered for good
//! (Curator's `STATIC`) are found as well.

mod instance;
mod selection;

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_client::environment::Randomness;
use quorate_client::{AclEntry, Client, Reason, SessionId, Stat, Zxid};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::instance::Instance;
use self::selection::Selection;
pub use self::selection::{DownPolicy, Strategy};
use crate::Error;
use crate::directory::{Kind, claim, refuse_others};
use crate::follow::{Entry, Follow, Step, join, read};
use crate::group::check_name;
use crate::patience::Patience;
use crate::persistent_node::{KeptNode, NodeState, PersistentNode};

/// A registry of services.
///
/// ```no_run
/// # use quorate_client::{Client, OnExpiry};
/// # use quorate_recipes::{Instance, Registry, Strategy};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = Client::builder("localhost:2181").on_expiry(OnExpiry::NewSession);
/// let client = builder.connect().await?;
/// let registry = Registry::new(&client, "/services");
///
/// // On one side: nobody sees it before it is ready.
/// let instance = Instance::new("billing", "billing-7").address("10.0.0.7").port(8080);
/// let registration = registry.register(instance);
/// registration.ready().await?;
///
/// // On the other side: read once, then kept up to date.
/// let billing = registry.follow("billing").await?;
/// let selector = billing.selector(Strategy::RoundRobin);
/// if let Some(instance) = selector.select() {
///     println!("ask {}:{:?}", instance.address, instance.port);
///     selector.note_failure(&instance.id); // Twice within 30 seconds, and it is passed over.
/// }
///
/// registration.deregister().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Registry {
    client: Client,
    base: String,
    acl: Vec<AclEntry>,
}

impl Registry {
    /// The registry in this directory. It is created when the first instance is registered.
    pub fn new(client: &Client, base: &str) -> Self {
        Self {
            client: client.clone(),
            base: base.to_owned(),
            acl: vec![AclEntry::open()],
        }
    }

    /// Who may do what with the znodes of instances that are registered through this handle. Everybody
    /// everything, by default.
    pub fn acl(mut self, acl: impl Into<Vec<AclEntry>>) -> Self {
        self.acl = acl.into();
        self
    }

    /// Prepares to register an instance: [`Registration::ready`] does it.
    pub fn register(&self, instance: Instance) -> Registration {
        Registration {
            shared: Arc::new(Registering {
                registry: self.clone(),
                instance: Mutex::new(instance),
                turn: tokio::sync::Mutex::new(None),
            }),
        }
    }

    /// Reads the names of all services that there have ever been, in the order of the alphabet; those
    /// without instances as well.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`]; those of any request.
    pub async fn services(&self) -> Result<Vec<String>, Error> {
        let names = match self.client.get(&self.base).await {
            Ok((data, _)) => {
                refuse_others(&self.base, &data, Kind::Registry)?;
                self.client.children(&self.base).await
            }
            Err(error) => Err(error),
        };
        match names {
            Ok((mut names, _)) => {
                names.sort();
                Ok(names)
            }
            Err(error) if error.is(Reason::NoNode) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the instances of a service, in the order in which they were registered. Not of one moment:
    /// what comes or goes meanwhile may be in it or not. An unknown service has none.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`], [`Error::InvalidArgument`]; those of any request.
    pub async fn instances(&self, service: &str) -> Result<Vec<Instance>, Error> {
        let directory = self.directory(service)?;
        let found = read::<Registered>(&self.client, &directory, Kind::Registry).await?;
        let found = found.into_iter();
        Ok(found.map(|found| found.instance.as_ref().clone()).collect())
    }

    /// Reads one instance; `None` if it is not registered.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Registry::instances`]; [`Error::Foreign`]: what has its name is no instance.
    pub async fn instance(&self, service: &str, id: &str) -> Result<Option<Instance>, Error> {
        check_name(id, "the id of an instance")?;
        let path = join(&self.directory(service)?, id);
        match self.client.get(&path).await {
            Ok((data, stat)) => match Registered::read(id, &data, &stat) {
                Some(found) => Ok(Some(found.instance.as_ref().clone())),
                None => Err(Error::Foreign {
                    path,
                    found: "something else".to_owned(),
                    wanted: "an instance of a service",
                }),
            },
            Err(error) if error.is(Reason::NoNode) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Follows the instances of a service: [`RegistryChanges::instances`] at first, and then every
    /// change of it.
    ///
    /// # Errors
    ///
    /// As [`Registry::instances`].
    pub async fn changes(&self, service: &str) -> Result<RegistryChanges, Error> {
        let directory = self.directory(service)?;
        Ok(RegistryChanges {
            follow: Follow::open(&self.client, &directory, Kind::Registry).await?,
        })
    }

    /// Keeps the instances of a service in memory, up to date as long as the handle or a clone of it is
    /// there.
    ///
    /// # Errors
    ///
    /// As [`Registry::instances`].
    pub async fn follow(&self, service: &str) -> Result<Service, Error> {
        let changes = self.changes(service).await?;
        let (seen, instances) = watch::channel(changes.instances().into());
        let stop = CancellationToken::new();
        tokio::spawn(follow(self.client.clone(), changes, seen, stop.clone()));
        Ok(Service {
            name: service.into(),
            instances,
            randomness: self.client.randomness().clone(),
            _stop: Arc::new(stop.drop_guard()),
        })
    }

    fn directory(&self, service: &str) -> Result<String, Error> {
        check_name(service, "the name of a service")?;
        Ok(join(&self.base, service))
    }
}

/// Keeps what others see up to date. It ends with the session, and with the last who sees.
async fn follow(
    client: Client,
    mut changes: RegistryChanges,
    seen: watch::Sender<Arc<[Arc<Instance>]>>,
    stop: CancellationToken,
) {
    let mut patience = Patience::new(&client);
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.next() => change,
        };
        match change {
            None => return,
            Some(Ok(_)) => {
                patience.reset();
                seen.send_replace(changes.instances().into());
            }
            Some(Err(Error::Client(error))) => {
                tracing::debug!(%error, "a service cannot be read now");
                tokio::select! {
                    () = stop.cancelled() => return,
                    goes_on = patience.outlast(&client, client.session(), &error) => if !goes_on {
                        return;
                    },
                }
            }
            Some(Err(_)) => return,
        }
    }
}

/// An instance, on its way into the registry or there.
///
/// When the last clone is dropped it is deregistered, in the background.
#[derive(Clone)]
pub struct Registration {
    shared: Arc<Registering>,
}

struct Registering {
    registry: Registry,
    instance: Mutex<Instance>,
    /// Held by whoever changes something: one at a time, each change whole.
    turn: tokio::sync::Mutex<Option<KeptNode>>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration")
            .field(&*self.shared.instance.lock())
            .finish()
    }
}

impl Registration {
    /// The instance, as it was said last.
    pub fn instance(&self) -> Instance {
        self.shared.instance.lock().clone()
    }

    /// Registers it: others see it from now on. Does nothing if it is registered.
    ///
    /// Cancel safe: once begun it goes on, until [`Registration::not_ready`].
    ///
    /// # Errors
    ///
    /// [`Error::Taken`]: another instance of the service has the id. [`Error::OtherRecipe`],
    /// [`Error::InvalidArgument`]; those of any request.
    pub async fn ready(&self) -> Result<(), Error> {
        let mut turn = self.shared.turn.lock().await;
        if let Some(node) = &*turn {
            return node.present().await.map(drop);
        }
        let registry = &self.shared.registry;
        let (path, data) = {
            let mut instance = self.shared.instance.lock();
            instance.check()?;
            instance.registered_ms = now_ms(&registry.client);
            let directory = registry.directory(&instance.name)?;
            (join(&directory, &instance.id), instance.to_json())
        };
        claim(&registry.client, &registry.base, Kind::Registry).await?;
        let node = PersistentNode::new(&registry.client, &path)
            .data(data)
            .acl(registry.acl.clone())
            .keep();
        let present = turn.insert(node).present().await;
        if present.is_err()
            && let Some(node) = turn.take()
        {
            // Why it was not there is what the caller has to know.
            node.close().await.ok();
        }
        present.map(drop)
    }

    /// Takes it out again until the next [`Registration::ready`], and returns when others see it no
    /// more. Does nothing if it is not registered.
    ///
    /// Cancel safe: once begun it goes on.
    ///
    /// # Errors
    ///
    /// As [`KeptNode::close`].
    pub async fn not_ready(&self) -> Result<(), Error> {
        let node = self.shared.turn.lock().await.take();
        match node {
            Some(node) => node.close().await,
            None => Ok(()),
        }
    }

    /// Says something else of it: at once if it is registered, otherwise when it will be. Its names are
    /// not changed.
    ///
    /// Cancel safe: once begun it goes on.
    ///
    /// # Errors
    ///
    /// As [`KeptNode::set`].
    pub async fn update(&self, change: impl FnOnce(&mut Instance)) -> Result<(), Error> {
        let turn = self.shared.turn.lock().await;
        let data = {
            let mut instance = self.shared.instance.lock();
            let (name, id) = (instance.name.clone(), instance.id.clone());
            change(&mut instance);
            (instance.name, instance.id) = (name, id);
            instance.to_json()
        };
        match &*turn {
            Some(node) => node.set(data).await,
            None => Ok(()),
        }
    }

    /// Whether others see it; `None` before it is ready.
    pub async fn state(&self) -> Option<NodeState> {
        let turn = self.shared.turn.lock().await;
        turn.as_ref().map(KeptNode::state)
    }

    /// Takes it out for good. As [`Registration::not_ready`].
    ///
    /// # Errors
    ///
    /// As [`KeptNode::close`].
    pub async fn deregister(self) -> Result<(), Error> {
        self.not_ready().await
    }
}

fn now_ms(client: &Client) -> u64 {
    let since = client.clock().wall().duration_since(UNIX_EPOCH);
    let ms = since.unwrap_or_default().as_millis();
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// An instance, and the writes that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registered {
    instance: Arc<Instance>,
    created: Zxid,
    owner: Option<SessionId>,
}

impl Entry for Registered {
    fn read(name: &str, data: &Bytes, stat: &Stat) -> Option<Self> {
        let instance = Instance::from_json(data)?;
        (instance.id == name).then(|| Self {
            instance: Arc::new(instance),
            created: stat.czxid,
            owner: SessionId::new(stat.ephemeral_owner),
        })
    }

    fn created(&self) -> Zxid {
        self.created
    }
}

/// What became of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryChange {
    /// There is an instance more.
    Added(Arc<Instance>),
    /// There is one less.
    Removed(Arc<Instance>),
    /// An instance says something else of itself.
    Updated {
        /// As it is now.
        new: Arc<Instance>,
        /// As it was.
        old: Arc<Instance>,
    },
    /// All was read again after the connection had been lost: what has changed since, which may be
    /// nothing.
    Resynced(Vec<RegistryChange>),
}

impl From<Step<Registered>> for RegistryChange {
    fn from(step: Step<Registered>) -> Self {
        match step {
            Step::Came(new) => Self::Added(new.instance),
            Step::Went(old) => Self::Removed(old.instance),
            Step::Changed { new, old } => Self::Updated {
                new: new.instance,
                old: old.instance,
            },
            Step::Resynced(steps) => Self::Resynced(steps.into_iter().map(Self::from).collect()),
        }
    }
}

/// The instances of a service, and how they change. See [`Registry::changes`].
///
/// Changes in quick succession may be seen as one; the last is never missed.
#[derive(Debug)]
pub struct RegistryChanges {
    follow: Follow<Registered>,
}

impl RegistryChanges {
    /// Those there are, in the order in which they were registered, as the last
    /// [`RegistryChanges::next`] left them.
    pub fn instances(&self) -> Vec<Arc<Instance>> {
        let mut all: Vec<&Registered> = self.follow.entries().values().collect();
        all.sort_by_key(|one| one.created);
        all.into_iter()
            .map(|one| Arc::clone(&one.instance))
            .collect()
    }

    /// The next change; `None` when the session is over. After an error that can be retried it goes on.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Registry::instances`].
    pub async fn next(&mut self) -> Option<Result<RegistryChange, Error>> {
        let step = self.follow.next().await?;
        Some(step.map(RegistryChange::from).map_err(Error::from))
    }
}

/// A service in memory. See [`Registry::follow`].
///
/// While the client is not connected it is as it was last known: better an address that may be gone
/// than none.
#[derive(Clone)]
pub struct Service {
    name: Arc<str>,
    instances: watch::Receiver<Arc<[Arc<Instance>]>>,
    randomness: Randomness,
    _stop: Arc<DropGuard>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("instances", &self.instances())
            .finish_non_exhaustive()
    }
}

impl Service {
    /// Which.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its instances, in the order in which they were registered; those out of service as well.
    pub fn instances(&self) -> Arc<[Arc<Instance>]> {
        Arc::clone(&self.instances.borrow())
    }

    /// Waits for other instances than the last call of this clone has seen; `None` when the session is
    /// over. Cancel safe.
    pub async fn changed(&mut self) -> Option<Arc<[Arc<Instance>]>> {
        self.instances.changed().await.ok()?;
        Some(Arc::clone(&self.instances.borrow_and_update()))
    }

    /// Whether it is still kept up to date: not after the session is over for good.
    pub fn is_followed(&self) -> bool {
        self.instances.has_changed().is_ok()
    }

    /// Chooses among its instances, and passes over those that fail ([`DownPolicy::default`]).
    pub fn selector(&self, strategy: Strategy) -> Selector {
        self.selector_with(strategy, DownPolicy::default())
    }

    /// As [`Service::selector`], with another idea of what is down. Less than one failure counts as
    /// one, more than 1,000 as 1,000.
    pub fn selector_with(&self, strategy: Strategy, down: DownPolicy) -> Selector {
        Selector {
            service: self.clone(),
            selection: Arc::new(Mutex::new(Selection::new(strategy, down))),
        }
    }
}

/// Chooses among the instances of a service. Clones share what they remember.
#[derive(Clone, Debug)]
pub struct Selector {
    service: Service,
    selection: Arc<Mutex<Selection>>,
}

impl Selector {
    /// An instance to ask; `None` if none is in service.
    pub fn select(&self) -> Option<Arc<Instance>> {
        let instances = self.service.instances();
        let chance = self.service.randomness.fraction();
        let mut selection = self.selection.lock();
        selection.choose(&instances, Instant::now(), chance)
    }

    /// Says that an instance has not answered as it should.
    pub fn note_failure(&self, id: &str) {
        let instances = self.service.instances();
        let mut selection = self.selection.lock();
        selection.retain(&instances);
        if instances.iter().any(|instance| instance.id == id) {
            selection.note_failure(id, Instant::now());
        }
    }
}

/// What is read says the same when it is written again.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzing(data: &[u8]) {
    if let Some(instance) = Instance::from_json(data) {
        let again = Instance::from_json(&instance.to_json());
        assert_eq!(again.as_ref(), Some(&instance));
    }
}
