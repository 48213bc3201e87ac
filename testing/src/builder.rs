//! What an ensemble is to be like.

use std::time::Duration;

use quorate_server::config::{Config, Note, Override};
use tempfile::TempDir;

use crate::board::Board;
use crate::host::Host;
use crate::port::Port;
use crate::proxy::Proxy;
use crate::server::Server;
use crate::stage::{Director, Stage};
use crate::{Ensemble, Error};

/// As many as votes are of use.
pub(crate) const SERVERS_MAX: usize = 9;
/// Short, so that what is counted in ticks happens while a test waits for it.
const TICK: Duration = Duration::from_millis(100);
/// How many ticks a server may hear of no majority. An election takes about half a second, and a few
/// times that where votes are split or the machine is busy: who is left must not take that for more.
const SYNC_LIMIT_TICKS: u32 = 20;
/// Any timeout that a service asks for is granted.
const SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Far more than anything takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The log is made in full when a server first starts, and a test writes little.
const LOG_SEGMENT_BYTES: u64 = 1 << 20;

/// The settings that each server gets from its ensemble.
const OWN_KEYS: [&str; 9] = [
    "dataDir",
    "dataLogDir",
    "dynamicConfigFile",
    "clientPort",
    "clientPortAddress",
    "quorate.server",
    "quorate.serverId",
    "quorate.rejoin",
    "standaloneEnabled",
];

/// Says what an [`Ensemble`] is to be like; [`Builder::start`] starts it.
///
/// ```
/// # use std::time::Duration;
/// # use quorate_testing::Ensemble;
/// # async fn example() -> Result<(), quorate_testing::Error> {
/// let ensemble = Ensemble::builder()
///     .servers(3)
///     .max_session_timeout(Duration::from_secs(2))
///     .config("jute.maxbuffer", "65536")
///     .start()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    servers: usize,
    tick: Duration,
    session_timeout_min: Option<Duration>,
    session_timeout_max: Duration,
    patience: Duration,
    config: Vec<(&'static str, String)>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            servers: 1,
            tick: TICK,
            session_timeout_min: None,
            session_timeout_max: SESSION_TIMEOUT_MAX,
            patience: PATIENCE,
            config: Vec::new(),
        }
    }
}

impl Builder {
    /// How many servers, 1 to 9; one by default. All of them vote.
    #[must_use]
    pub fn servers(mut self, servers: usize) -> Self {
        self.servers = servers;
        self
    }

    /// ZooKeeper's `tickTime`; 100 ms by default. Sessions end up to a tick late, and a server that
    /// hears of no majority turns its clients away after `syncLimit` of them, which are 20: well above
    /// the half second that an election takes.
    #[must_use]
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// The shortest session timeout that is granted; two ticks by default.
    #[must_use]
    pub fn min_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout_min = Some(timeout);
        self
    }

    /// The longest session timeout that is granted; five minutes by default.
    #[must_use]
    pub fn max_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout_max = timeout;
        self
    }

    /// How long anything that a test awaits may take; a minute by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets any key of `zoo.cfg` on all servers; of two with one key the later counts. Addresses,
    /// folders and the list of servers are the ensemble's own.
    #[must_use]
    pub fn config(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.config.push((key, value.into()));
        self
    }

    /// Starts all servers, and returns when all of them serve.
    ///
    /// # Errors
    ///
    /// [`Error`]: a setting is refused, the machine lacks something, or it takes too long.
    pub async fn start(self) -> Result<Ensemble, Error> {
        let stage = Stage::open(self.patience).map_err(Error::Thread)?;
        let director = stage.director().clone();
        let (servers, board, folder) = self.build(&director)?;
        // From here on all is undone when it is dropped.
        let ensemble = Ensemble::new(servers, board, stage, folder);
        ensemble.start_all().await?;
        Ok(ensemble)
    }

    fn build(&self, director: &Director) -> Result<(Vec<Server>, Board, TempDir), Error> {
        let folder = tempfile::Builder::new()
            .prefix("quorate-testing-")
            .tempdir()
            .map_err(Error::Folder)?;
        if !(1..=SERVERS_MAX).contains(&self.servers) {
            return Err(Error::Size {
                asked: self.servers,
            });
        }
        let ids = 1..=self.servers as u64;
        let reserve = || Port::reserve().map_err(Error::Port);
        let mut places = Vec::new();
        for id in ids.clone() {
            // The election port is only ever written down.
            places.push((id, [reserve()?, reserve()?], reserve()?));
        }
        let lines: Vec<String> = places
            .iter()
            .map(|(id, [quorum, election], client)| {
                format!(
                    "{id}=127.0.0.1:{}:{};127.0.0.1:{}",
                    quorum.address().port(),
                    election.address().port(),
                    client.address().port()
                )
            })
            .collect();
        let board = Board::new(ids);
        let mut servers = Vec::new();
        for (id, peer_ports, client_port) in places {
            let data_dir = folder.path().join(format!("server-{id}"));
            let config = self.config_of(id, data_dir.display().to_string(), &lines)?;
            servers.push(Server::new(
                id,
                Host::new(id, config, board.clone()),
                Proxy::start(client_port, director),
                board.clone(),
                peer_ports,
            ));
        }
        Ok((servers, board, folder))
    }

    fn config_of(&self, id: u64, data_dir: String, lines: &[String]) -> Result<Config, Error> {
        let ms = |duration: Duration| duration.as_millis().to_string();
        let mut settings: Vec<(&'static str, String)> = vec![
            ("dataDir", data_dir),
            ("quorate.serverId", id.to_string()),
            ("tickTime", ms(self.tick)),
            ("initLimit", "100".to_owned()),
            ("syncLimit", SYNC_LIMIT_TICKS.to_string()),
            ("maxSessionTimeout", ms(self.session_timeout_max)),
            ("maxClientCnxns", "0".to_owned()),
            ("4lw.commands.whitelist", "*".to_owned()),
            ("quorate.logSegmentBytes", LOG_SEGMENT_BYTES.to_string()),
        ];
        if let Some(timeout) = self.session_timeout_min {
            settings.push(("minSessionTimeout", ms(timeout)));
        }
        // A server alone is told of nobody, as in ZooKeeper.
        if lines.len() > 1 {
            settings.extend(lines.iter().map(|line| ("quorate.server", line.clone())));
        }
        for (key, value) in &self.config {
            if OWN_KEYS.contains(key) || key.starts_with("server.") {
                let key = (*key).to_owned();
                return Err(Error::OwnKey { key });
            }
            settings.push((key, value.clone()));
        }
        let overrides: Vec<Override> = settings
            .into_iter()
            .map(|(key, value)| Override {
                key,
                value,
                name: key.to_owned(),
            })
            .collect();
        let (config, warnings) = Config::load(None, &overrides)?;
        // A test that sets nothing by mistake tests nothing.
        let unknown = warnings
            .into_iter()
            .find(|warning| matches!(warning.note, Note::UnknownKey));
        match unknown {
            Some(warning) => Err(Error::UnknownKey {
                key: warning.place.to_string(),
            }),
            None => Ok(config),
        }
    }
}
