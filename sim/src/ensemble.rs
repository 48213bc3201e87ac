//! The servers of a simulated ensemble: each a host with a disk, clocks and a place on the network, on
//! which the production server is started, killed, frozen and started again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_protocol::Zxid;
use quorate_server::Server;
use quorate_server::config::{Config, Override};
use quorate_server::consensus::Role;
use quorate_server::environment::Environment;
use quorate_server::peer_port::Links;
use quorate_server::random::Randomness;
use quorate_server::tasks::Host;
use quorate_state::State;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::network::{SimNetwork, address_of};
use crate::plan::Settings;
use crate::trace::Trace;
use crate::witness::Witnesses;

/// Where clients connect.
pub const CLIENT_PORT: u16 = 2181;

/// The servers, by id from 1 on.
pub struct Ensemble {
    pub network: SimNetwork,
    pub witnesses: Witnesses,
    settings: Settings,
    trace: Trace,
    places: BTreeMap<u64, Place>,
    seeds: SmallRng,
}

/// What there is of one server while it is down, too.
struct Place {
    disk: SimDisk,
    clock: SimClock,
    running: Option<Running>,
    /// To be started with `--rejoin` once its folder was emptied.
    rejoins: bool,
    /// Frozen at the moment.
    is_frozen: bool,
}

struct Running {
    host: Host,
    server: Arc<Mutex<Status>>,
    stop: Option<oneshot::Sender<()>>,
}

/// How a started server fares.
enum Status {
    Starting,
    Up(Arc<Server>),
    /// It would have exited: with an error, or as asked.
    Exited(Result<(), String>),
}

/// Why a server is not running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// It was killed, or never started.
    Killed,
    /// It ended by itself.
    Exited(String),
    Stopped,
}

/// Randomness from the seed.
#[derive(Debug)]
struct SeededRandomness(Mutex<SmallRng>);

impl Randomness for SeededRandomness {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}

impl Ensemble {
    pub fn new(
        seed: u64,
        settings: Settings,
        network: SimNetwork,
        trace: Trace,
        begun: Instant,
    ) -> Self {
        let mut seeds = SmallRng::seed_from_u64(seed);
        let places = (1..=settings.servers)
            .map(|id| {
                let place = Place {
                    disk: SimDisk::new(seeds.random(), settings.sync_ms),
                    clock: SimClock::new(begun),
                    running: None,
                    rejoins: false,
                    is_frozen: false,
                };
                (id, place)
            })
            .collect();
        Self {
            witnesses: Witnesses::new(trace.clone()),
            network,
            settings,
            trace,
            places,
            seeds,
        }
    }

    /// All ids.
    pub fn ids(&self) -> Vec<u64> {
        self.places.keys().copied().collect()
    }

    /// Where clients find a server.
    pub fn client_address(id: u64) -> SocketAddr {
        SocketAddr::new(address_of(node(id)), CLIENT_PORT)
    }

    /// Starts a server that is down. It may take long to find the others.
    pub fn start(&mut self, id: u64) {
        let config = self.config(id);
        let seed = self.seeds.random();
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        if place.running.is_some() {
            return;
        }
        self.trace.note(&format!("start {id}"));
        let host = Host::new(seed);
        let status = Arc::new(Mutex::new(Status::Starting));
        let (stop, stopped) = oneshot::channel();
        let environment = Environment {
            clock: Arc::new(place.clock.for_new_program()),
            randomness: Arc::new(SeededRandomness(Mutex::new(SmallRng::seed_from_u64(!seed)))),
            network: self.network.of(node(id)),
            disk: Some(Arc::new(place.disk.clone())),
            witness: Some(self.witnesses.of(id)),
        };
        let shown = Arc::clone(&status);
        host.spawn(async move {
            let exit = run(environment, config, &shown, stopped).await;
            *shown.lock() = Status::Exited(exit);
        });
        place.is_frozen = false;
        place.running = Some(Running {
            host,
            server: status,
            stop: Some(stop),
        });
    }

    /// Kills a server's process. What it wrote stays, as its operating system lives on, and its
    /// connections are reset.
    pub fn kill(&mut self, id: u64) -> bool {
        self.end(id, true)
    }

    /// Cuts a server's power: what was not synced may be gone, and nobody is told.
    pub fn cut_power(&mut self, id: u64) -> bool {
        let ended = self.end(id, false);
        if let Some(place) = self.places.get_mut(&id) {
            place.disk.cut_power();
        }
        ended
    }

    fn end(&mut self, id: u64, loud: bool) -> bool {
        let Some(place) = self.places.get_mut(&id) else {
            return false;
        };
        let Some(running) = place.running.take() else {
            return false;
        };
        self.trace
            .note(&format!("{} {id}", if loud { "kill" } else { "power cut" }));
        place.is_frozen = false;
        self.network.take_down(node(id), loud);
        self.witnesses.on_end(id);
        running.host.kill();
        // The last handle on the server goes with it.
        *running.server.lock() = Status::Exited(Ok(()));
        true
    }

    /// Asks a server to stop in order. [`Ensemble::down`] says when it has.
    pub fn stop(&mut self, id: u64) {
        self.trace.note(&format!("stop {id}"));
        if let Some(place) = self.places.get_mut(&id)
            && let Some(running) = &mut place.running
            && let Some(stop) = running.stop.take()
        {
            stop.send(()).ok();
        }
    }

    /// Nothing of a server runs until it is thawed.
    pub fn freeze(&mut self, id: u64) {
        self.trace.note(&format!("freeze {id}"));
        if let Some(place) = self.places.get_mut(&id)
            && let Some(running) = &place.running
        {
            running.host.freeze();
            place.is_frozen = true;
        }
    }

    pub fn thaw(&mut self, id: u64) {
        if let Some(place) = self.places.get_mut(&id)
            && let Some(running) = &place.running
        {
            self.trace.note(&format!("thaw {id}"));
            running.host.thaw();
            place.is_frozen = false;
        }
    }

    /// Buries servers that have ended by themselves, as their operating system does, and says which
    /// and why.
    pub fn bury(&mut self) -> Vec<(u64, Result<(), String>)> {
        let exited: Vec<(u64, Result<(), String>)> = self
            .places
            .iter()
            .filter_map(|(id, place)| {
                let status = place.running.as_ref()?.server.lock();
                match &*status {
                    Status::Exited(why) => Some((*id, why.clone())),
                    _ => None,
                }
            })
            .collect();
        for (id, why) in &exited {
            self.trace.note(&format!("server {id} has ended: {why:?}"));
            self.end(*id, true);
        }
        exited
    }

    pub fn is_running(&self, id: u64) -> bool {
        self.places
            .get(&id)
            .is_some_and(|place| place.running.is_some())
    }

    pub fn is_frozen(&self, id: u64) -> bool {
        self.places.get(&id).is_some_and(|place| place.is_frozen)
    }

    pub fn disk(&self, id: u64) -> Option<&SimDisk> {
        self.places.get(&id).map(|place| &place.disk)
    }

    pub fn clock(&self, id: u64) -> Option<&SimClock> {
        self.places.get(&id).map(|place| &place.clock)
    }

    /// Gives a server that is down an empty disk, and has it join again when it is started: what an
    /// operator does about a broken disk.
    pub fn replace_disk(&mut self, id: u64) {
        let seed = self.seeds.random();
        if let Some(place) = self.places.get_mut(&id) {
            self.trace.note(&format!("new disk for {id}"));
            place.disk = SimDisk::new(seed, self.settings.sync_ms);
            place.rejoins = true;
            self.witnesses.on_new_disk(id);
        }
    }

    /// The server, if it is up.
    fn server(&self, id: u64) -> Option<Arc<Server>> {
        let place = self.places.get(&id)?;
        match &*place.running.as_ref()?.server.lock() {
            Status::Up(server) => Some(Arc::clone(server)),
            _ => None,
        }
    }

    /// Whether a server is up: started, and serving or on its way there.
    pub fn is_up(&self, id: u64) -> bool {
        self.server(id).is_some()
    }

    /// Whether all servers are up and know that all have a vote.
    pub fn is_whole(&self) -> bool {
        let ids = self.ids();
        ids.iter().all(|id| {
            let voters = self.server(*id).and_then(|server| server.voters());
            voters.is_some_and(|voters| voters.iter().eq(&ids))
        })
    }

    /// Who says that it leads.
    pub fn leaders(&self) -> Vec<u64> {
        let leads = |id: &u64| {
            self.server(*id)
                .is_some_and(|server| server.role() == Role::Leader)
        };
        self.ids().into_iter().filter(leads).collect()
    }

    /// Looks at a server's state.
    pub fn inspect<T>(&self, id: u64, look: impl FnOnce(&State) -> T) -> Option<T> {
        Some(self.server(id)?.inspect(look))
    }

    /// The last zxid that each running server has applied.
    pub fn applied(&self) -> BTreeMap<u64, Zxid> {
        self.ids()
            .into_iter()
            .filter_map(|id| Some((id, self.inspect(id, State::last_zxid)?)))
            .collect()
    }

    fn config(&self, id: u64) -> Config {
        let settings = &self.settings;
        let mut overrides: Vec<(&'static str, String)> = vec![
            ("dataDir", "/data".to_owned()),
            ("quorate.serverId", id.to_string()),
            ("clientPortAddress", address_of(node(id)).to_string()),
            ("clientPort", CLIENT_PORT.to_string()),
            ("tickTime", settings.tick_ms.to_string()),
            ("syncLimit", "5".to_owned()),
            ("initLimit", "10".to_owned()),
            ("snapCount", settings.snapshot_entries.to_string()),
            ("4lw.commands.whitelist", "*".to_owned()),
            ("maxClientCnxns", "0".to_owned()),
        ];
        for other in self.places.keys() {
            let address = address_of(node(*other));
            overrides.push((
                "quorate.server",
                format!("{other}={address}:2888:3888:participant;{address}:{CLIENT_PORT}"),
            ));
        }
        let overrides: Vec<Override> = overrides
            .into_iter()
            .map(|(key, value)| Override {
                key,
                value,
                name: key.to_owned(),
            })
            .collect();
        let mut config = match Config::load(None, &overrides) {
            Ok((config, _)) => config,
            Err(error) => panic!("the simulation's own configuration is refused: {error}"),
        };
        config.data_dir = PathBuf::from("/data");
        config.log_dir = PathBuf::from("/log");
        // Smaller than a file may ask for, so that segments come and go.
        config.log_segment_bytes = settings.log_segment_bytes;
        config.snapshot_log_bytes = Some(settings.log_segment_bytes * 4);
        config.linearizable_reads = settings.linearizable_reads;
        config.container_check_interval_ms = settings.tick_ms;
        config.rejoin = self.places.get(&id).is_some_and(|place| place.rejoins);
        config
    }
}

/// The program: starts, serves, stops. What it returns is what it would exit with.
async fn run(
    environment: Environment,
    config: Config,
    status: &Mutex<Status>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), String> {
    let server = Server::start_in(environment, config, Links::default())
        .await
        .map_err(|error| error.to_string())?;
    let server = Arc::new(server);
    *status.lock() = Status::Up(Arc::clone(&server));
    tokio::select! {
        biased;
        why = server.failed() => return Err(why),
        asked = stopped => if asked.is_err() {
            // The one who could ask is gone: it goes on until it is killed.
            return Err(server.failed().await);
        },
    }
    *status.lock() = Status::Starting;
    // Whoever looks at it just now lets go at once: there is one thread.
    let Some(server) = Arc::into_inner(server) else {
        return Err("somebody holds on to the server".to_owned());
    };
    let stopping = tokio::time::timeout(Duration::from_secs(60), server.shutdown()).await;
    match stopping {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it did not stop within a minute".to_owned()),
    }
}

/// A server's place on the network.
pub fn node(id: u64) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}
