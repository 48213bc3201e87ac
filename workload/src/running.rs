//! A run that has begun: who starts it, tells it when the faults are over, and has it settle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_checker::history::{Outcome, Request, SessionStep};
use quorate_protocol::ErrorCode;
use quorate_server::network::Network;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::client::{Budget, Client, Prober, Report};
use crate::deeds::Deeds;
use crate::dice::Dice;
use crate::places::USERS;
use crate::plan::{SETTER_UP, Workload};
use crate::raw::{Connected, Manners, Pumped, Raw, Servers};
use crate::recorder::Recorder;
use crate::stage::{Phase, Stage};
use crate::strangers::Stranger;
use crate::walk::walk;

/// How long the parents of everything may take to be created, faults and all.
const SET_UP_MAX: Duration = Duration::from_secs(120);
/// One attempt at some of them.
const SET_UP_STEP: Duration = Duration::from_secs(5);
/// How many are asked for at once.
const SET_UP_WINDOW: usize = 20;
/// A client that is told to stop does so within one handshake.
const STOP: Duration = Duration::from_secs(15);
const NANOS_PER_MILLI: u64 = 1_000_000;

/// See the module. Dropping it ends all clients where they stand; what they had asked for is then
/// recorded as unknown.
pub struct Running {
    stage: Stage,
    recorder: Recorder,
    servers: Servers,
    network: Arc<dyn Network>,
    tasks: JoinSet<()>,
    reports: mpsc::UnboundedReceiver<Report>,
    clients: usize,
    patience: Arc<Mutex<Duration>>,
    dice: Dice,
}

impl Workload {
    /// Starts it, on the runtime this is called in. `network_of_client` says which network each
    /// client is in, by its number.
    pub fn start(
        &self,
        network_of_client: impl Fn(u32) -> Arc<dyn Network>,
        recorder: &Recorder,
    ) -> Running {
        recorder.update(|history| {
            let header = &mut history.header;
            header.seed.get_or_insert(self.seed);
            if header.servers.is_empty() {
                header.servers = self.servers.iter().map(|(server, _)| *server).collect();
            }
        });
        let mut dice = self.dice.clone();
        let stage = Stage::new();
        let budget = Arc::new(Budget::new(self.subtrees, self.operations_per_subtree));
        let patience = Arc::new(Mutex::new(Duration::ZERO));
        let (reporter, reports) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let raw = |client, manners| {
            Raw::new(
                client,
                network_of_client(client),
                Servers::clone(&self.servers),
                recorder.clone(),
                manners,
            )
        };
        tasks.spawn(set_up(
            raw(SETTER_UP, Manners::default()),
            self.parents(),
            dice.fork(),
            stage.clone(),
            recorder.clone(),
        ));
        for habits in &self.clients {
            let deeds = Deeds::new(
                habits.client,
                self.deeds.clone(),
                habits.watches,
                dice.fork(),
                recorder.clone(),
            );
            let client = Client {
                raw: raw(habits.client, habits.manners.clone()),
                deeds,
                habits: habits.clone(),
                whims: self.whims.clone(),
                dice: dice.fork(),
                stage: stage.clone(),
                budget: Arc::clone(&budget),
                recorder: recorder.clone(),
                reports: reporter.clone(),
                patience: Arc::clone(&patience),
            };
            tasks.spawn(client.run());
        }
        for [writer, reader] in &self.probers {
            let prober = Prober {
                writer: raw(*writer, Manners::default()),
                reader: raw(*reader, Manners::default()),
                deeds: Deeds::new(*writer, Vec::new(), 0, dice.fork(), recorder.clone()),
                dice: dice.fork(),
                stage: stage.clone(),
                budget: Arc::clone(&budget),
                recorder: recorder.clone(),
                every: self.probe_every,
            };
            tasks.spawn(prober.run());
        }
        for (client, misdeed) in &self.strangers {
            let stranger = Stranger {
                client: *client,
                misdeed: *misdeed,
                network: network_of_client(*client),
                servers: Servers::clone(&self.servers),
                dice: dice.fork(),
                stage: stage.clone(),
                recorder: recorder.clone(),
            };
            tasks.spawn(stranger.run());
        }
        Running {
            stage,
            recorder: recorder.clone(),
            servers: Servers::clone(&self.servers),
            network: network_of_client(SETTER_UP),
            tasks,
            reports,
            clients: self.clients.len(),
            patience,
            dice,
        }
    }

    fn parents(&self) -> Vec<Request> {
        let clients: Vec<u32> = self.clients.iter().map(|client| client.client).collect();
        self.places().set_up(&clients)
    }
}

impl Running {
    /// Waits until clients have begun to work, for at most so long.
    pub async fn begun(&self, within: Duration) -> bool {
        timeout(within, self.stage.reached(Phase::Run))
            .await
            .is_ok()
    }

    /// From now on nothing new is asked for, nobody misbehaves, and sessions are only kept. To be
    /// called when nothing is in the way of anybody any more, or before that.
    pub fn stop_faulty_phase(&self) {
        self.stage.advance(Phase::Calm);
    }

    /// To be called when nothing is in the way of anybody any more: every client has to get a write
    /// done within that time, then abandoned sessions are given the time to expire, and every server's
    /// tree is read. Sessions are kept until [`Running::finish`].
    ///
    /// # Errors
    ///
    /// What did not get done; the recorder has it among its complaints as well.
    pub async fn settle(&mut self, within: Duration) -> Result<(), String> {
        *self.patience.lock() = within;
        self.stage.advance(Phase::Settle);
        // Beyond their own patience they may be in the middle of a handshake.
        let deadline = Instant::now() + within + STOP;
        let mut failed = Vec::new();
        for _ in 0..self.clients {
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some((_, Ok(())))) => {}
                Ok(Some((_, Err(what)))) => failed.push(what),
                Ok(None) | Err(_) => {
                    failed.push("a client has said nothing in the end".to_owned());
                    break;
                }
            }
        }
        // What the wait is for cannot be had without progress.
        if failed.is_empty() {
            sleep(self.until_abandoned_are_gone()).await;
            failed.extend(self.read_trees(within).await);
        }
        match failed.is_empty() {
            true => Ok(()),
            false => {
                for what in &failed {
                    self.recorder.complain(what.clone());
                }
                Err(failed.join("; "))
            }
        }
    }

    /// One and a half of the longest timeout of an abandoned session, from when it was abandoned.
    fn until_abandoned_are_gone(&self) -> Duration {
        let now = self.recorder.now();
        let left = self.recorder.update(|history| {
            let longest = history
                .sessions
                .iter()
                .filter_map(|record| match record.step {
                    SessionStep::Opened { timeout_ms }
                    | SessionStep::Resumed { timeout_ms, .. } => {
                        Some(u64::from(timeout_ms) * NANOS_PER_MILLI)
                    }
                    _ => None,
                });
            let longest = longest.max().unwrap_or(0);
            let last = history
                .sessions
                .iter()
                .filter_map(|record| match record.step {
                    SessionStep::Abandoned => Some(record.at),
                    _ => None,
                });
            let last = last.max()?;
            Some((last + longest + longest / 2).saturating_sub(now))
        });
        Duration::from_nanos(left.unwrap_or(0))
    }

    async fn read_trees(&mut self, within: Duration) -> Vec<String> {
        let deadline = Instant::now() + within;
        let manners = Manners {
            credentials: USERS.map(str::to_owned).into(),
            session_timeout: Duration::from_secs(10),
            ..Manners::default()
        };
        let mut walkers: Vec<(u64, Raw)> = self
            .servers
            .iter()
            .map(|(server, _)| {
                let raw = Raw::new(
                    SETTER_UP,
                    Arc::clone(&self.network),
                    Servers::clone(&self.servers),
                    // Reading all there is tells nothing about how it was meanwhile.
                    Recorder::new(),
                    manners.clone(),
                );
                (*server, raw)
            })
            .collect();
        // Before anything is read: to open a session is a write.
        for (server, raw) in &mut walkers {
            while raw.connect(*server).await != Connected::Yes && Instant::now() < deadline {
                sleep(self.dice.millis(50, 200)).await;
            }
        }
        let mut failed = Vec::new();
        for (server, raw) in &mut walkers {
            match walk(raw, *server, deadline).await {
                Ok(tree) => self.recorder.update(|history| {
                    history.mark(match tree.exact {
                        true => "tree read at one zxid",
                        false => "tree changed while it was read",
                    });
                    history.trees.push(tree);
                }),
                Err(what) => failed.push(what),
            }
        }
        for (_, mut raw) in walkers {
            raw.close(Duration::from_secs(2)).await;
        }
        failed
    }

    /// Stops all clients; what is still open is recorded as unknown. Their sessions are left as they
    /// are.
    pub async fn finish(mut self) {
        self.stage.advance(Phase::Over);
        let recorder = self.recorder.clone();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    recorder.complain(format!("a client of the workload failed: {error}"));
                }
            }
        };
        if timeout(STOP, all).await.is_err() {
            self.recorder
                .complain("a client did not stop within its own bounds".to_owned());
            self.tasks.shutdown().await;
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("stage", &self.stage)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

/// Creates the parents of everything, then lets the others begin.
async fn set_up(
    mut raw: Raw,
    requests: Vec<Request>,
    mut dice: Dice,
    stage: Stage,
    recorder: Recorder,
) {
    let deadline = Instant::now() + SET_UP_MAX;
    let mut left = requests;
    while !left.is_empty() && Instant::now() < deadline && stage.phase() == Phase::SetUp {
        if !raw.is_connected() {
            let server = raw.another_server(&mut dice);
            if raw.connect(server).await != Connected::Yes {
                sleep(dice.millis(50, 300)).await;
                continue;
            }
        }
        left = create_all(&mut raw, left, deadline).await;
        if !left.is_empty() {
            sleep(dice.millis(50, 300)).await;
        }
    }
    if !left.is_empty() && stage.phase() == Phase::SetUp {
        recorder.complain(format!("not set up within {SET_UP_MAX:?}: {left:?}"));
    }
    stage.advance(Phase::Run);
    raw.close(SET_UP_STEP).await;
}

/// Asks for all of them, some at a time, and returns those that are not there for sure. Their order
/// is kept: parents come first.
async fn create_all(raw: &mut Raw, requests: Vec<Request>, deadline: Instant) -> Vec<Request> {
    let exists = ErrorCode::NodeExists.code();
    let mut left = Vec::new();
    for some in requests.chunks(SET_UP_WINDOW) {
        for request in some {
            raw.send(request.clone());
        }
        let mut waiting = some.to_vec();
        let until = deadline.min(Instant::now() + SET_UP_STEP);
        while !waiting.is_empty() && Instant::now() < until {
            let answer = match raw.pump(until).await {
                Pumped::Answer(answer) => answer,
                Pumped::Event(..) => continue,
                Pumped::Due | Pumped::Ended => break,
            };
            let is_there = match answer.outcome {
                Outcome::Done { .. } => true,
                // By an attempt that was not answered.
                Outcome::Refused { code, .. } => code == exists,
                Outcome::Unknown | Outcome::NotSent => false,
            };
            if is_there {
                waiting.retain(|request| *request != answer.request);
            }
        }
        left.extend(waiting);
    }
    left
}
