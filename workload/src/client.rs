//! A client at work: turn by turn it asks for something, goes somewhere else, or does nothing, until
//! it is told to be calm; then it has to show that it still gets things done.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_checker::history::{Outcome, Request};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::deeds::Deeds;
use crate::dice::Dice;
use crate::places::Places;
use crate::plan::{Habits, Whim};
use crate::raw::{Connected, Pumped, Raw};
use crate::recorder::Recorder;
use crate::stage::{Phase, Stage};

/// How long the answer to the last request of a session is waited for.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a client that stood still looks at what has come in meanwhile.
const GLANCE: Duration = Duration::from_millis(200);
/// Between two attempts to get anything done, in the end.
const RETRY: Duration = Duration::from_millis(100);

/// What a client said in the end.
pub(crate) type Report = (u32, Result<(), String>);

/// How many requests each subtree may still get.
#[derive(Debug)]
pub(crate) struct Budget(Mutex<Vec<u64>>);

impl Budget {
    pub(crate) fn new(subtrees: u64, each: u64) -> Self {
        Self(Mutex::new((0..subtrees).map(|_| each).collect()))
    }

    /// One that still may, and had better get more.
    fn subtree(&self, dice: &mut Dice) -> Option<u64> {
        let left = self.0.lock();
        let weights: Vec<u64> = left.iter().map(|left| u64::from(*left > 0)).collect();
        dice.weighted(&weights).map(|index| index as u64)
    }

    fn spend(&self, subtree: u64, requests: &[Request]) {
        let mut left = self.0.lock();
        let index = usize::try_from(subtree).unwrap_or(usize::MAX);
        if let Some(left) = left.get_mut(index) {
            *left = left.saturating_sub(requests.len() as u64);
        }
    }
}

pub(crate) struct Client {
    pub(crate) raw: Raw,
    pub(crate) deeds: Deeds,
    pub(crate) habits: Habits,
    /// In the order of [`Whim::ALL`].
    pub(crate) whims: Vec<u64>,
    pub(crate) dice: Dice,
    pub(crate) stage: Stage,
    pub(crate) budget: Arc<Budget>,
    pub(crate) recorder: Recorder,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    /// How long it may take to get something done in the end.
    pub(crate) patience: Arc<Mutex<Duration>>,
}

impl Client {
    pub(crate) async fn run(mut self) {
        self.stage.reached(Phase::Run).await;
        let mut turn_at = Instant::now() + self.dice.pause(self.habits.think);
        let mut server = self.habits.home;
        loop {
            let phase = self.stage.phase();
            match phase {
                Phase::SetUp | Phase::Run | Phase::Calm => {}
                Phase::Settle | Phase::Over => break,
            }
            if !self.raw.is_connected() {
                self.come_back(&mut server).await;
                continue;
            }
            if phase == Phase::Run && Instant::now() >= turn_at {
                self.turn(&mut server).await;
                turn_at = Instant::now() + self.dice.pause(self.habits.think);
                continue;
            }
            let until = match phase {
                Phase::Run => turn_at,
                _ => Instant::now() + Duration::from_secs(1),
            };
            let stage = self.stage.clone();
            tokio::select! {
                biased;
                () = stage.reached(phase.next()) => {}
                pumped = self.raw.pump(until) => self.on_pumped(pumped),
            }
        }
        if self.stage.phase() == Phase::Settle {
            let shown = self.show_progress(&mut server).await;
            // Nobody may be listening any more.
            self.reports.send((self.habits.client, shown)).ok();
        }
        self.keep(&mut server).await;
        self.raw.leave();
    }

    fn on_pumped(&mut self, pumped: Pumped) {
        if let Pumped::Answer(answer) = pumped {
            self.deeds.on_answer(&answer);
        }
    }

    /// Connects to some server, mostly another one.
    async fn come_back(&mut self, server: &mut u64) {
        match self.raw.connect(*server).await {
            Connected::Yes => {}
            Connected::Expired => self.deeds.forget(),
            Connected::No => {
                let pause = Instant::now() + self.dice.millis(10, 300);
                let stage = self.stage.clone();
                tokio::select! {
                    biased;
                    () = stage.reached(Phase::Over) => {}
                    () = sleep_until(pause) => {}
                }
                *server = self.raw.another_server(&mut self.dice);
            }
        }
        // Where it goes when this connection is lost.
        if self.raw.is_connected() && self.dice.permille(700) {
            *server = self.raw.another_server(&mut self.dice);
        }
    }

    async fn turn(&mut self, server: &mut u64) {
        if self.dice.permille(self.habits.whims)
            && let Some(whim) = self.dice.weighted(&self.whims)
            && let Some(whim) = Whim::ALL.get(whim)
        {
            return self.follow_whim(*whim, server).await;
        }
        let count = match self.dice.permille(self.habits.bursts) {
            true => self.habits.window,
            false => 1,
        };
        for _ in 0..count {
            if self.raw.pending() >= self.habits.window {
                return;
            }
            let Some(requests) = self.next_requests() else {
                return;
            };
            for request in requests {
                self.raw.send(request);
            }
        }
    }

    fn next_requests(&mut self) -> Option<Vec<Request>> {
        let subtree = self.budget.subtree(&mut self.dice)?;
        let requests = self.deeds.next(subtree, &self.raw);
        self.budget.spend(subtree, &requests);
        Some(requests)
    }

    async fn follow_whim(&mut self, whim: Whim, server: &mut u64) {
        let here = self.raw.server().unwrap_or(*server);
        let there = self.raw.another_server(&mut self.dice);
        match whim {
            Whim::Move => {
                self.recorder.mark("moved");
                *server = there;
                self.raw.leave();
            }
            Whim::ThereAndBack => {
                if self.raw.connect(there).await == Connected::Yes {
                    if self.dice.permille(500)
                        && let Some(requests) = self.next_requests()
                    {
                        for request in requests {
                            self.raw.send(request);
                        }
                        let until = Instant::now() + self.dice.millis(0, 50);
                        self.raw.listen(until).await;
                    }
                    if self.raw.connect(here).await == Connected::Yes {
                        self.recorder.mark("moved there and back");
                    }
                }
            }
            Whim::Resume => {
                *server = here;
                match self.dice.below(4) {
                    0 | 1 => self.raw.leave(),
                    2 => {
                        self.raw.leave();
                        self.oversleep().await;
                    }
                    _ => {
                        // Writes that meet the end of their session.
                        let requests = self.next_requests();
                        self.oversleep().await;
                        for request in requests.into_iter().flatten() {
                            self.raw.send(request);
                        }
                    }
                }
            }
            Whim::Duplicate => {
                let mut late = Vec::new();
                for _ in 0..self.dice.below(4) {
                    late.extend(self.next_requests().into_iter().flatten());
                }
                let place = match self.dice.permille(700) {
                    true => there,
                    false => here,
                };
                if self.raw.duplicate(place, late).await == Connected::Expired {
                    self.deeds.forget();
                }
            }
            Whim::Lie => self.raw.lie(there, &mut self.dice).await,
            Whim::BreakOffHandshake => {
                self.raw.break_off_handshake(there, &mut self.dice).await;
            }
            Whim::Close => {
                self.raw.close(FAREWELL).await;
                self.deeds.forget();
            }
            Whim::Abandon => {
                self.raw.abandon();
                self.deeds.forget();
            }
            Whim::Doze => self.doze().await,
        }
    }

    /// For a third of its timeout, up to twice that.
    async fn doze(&mut self) {
        let permille = u32::try_from(self.dice.between(333, 2_000)).unwrap_or(1_000);
        let until = Instant::now() + self.raw.session_timeout() * permille / 1_000;
        let session = self.raw.session();
        self.recorder.mark("client stood still");
        let stage = self.stage.clone();
        tokio::select! {
            biased;
            () = stage.reached(Phase::Calm) => return,
            () = sleep_until(until) => {}
        }
        // What it learns first is whether it still has a session.
        if let Some(requests) = self.next_requests() {
            for request in requests {
                self.raw.send(request);
            }
        }
        self.raw.listen(Instant::now() + GLANCE).await;
        if self.raw.is_connected() && self.raw.session() == session {
            self.recorder.mark("session outlived a stand-still");
        }
    }

    /// Is silent until about when its session expires: a little less, or a little longer.
    async fn oversleep(&mut self) {
        self.recorder.mark("overslept");
        let timeout = self.habits.manners.session_timeout;
        let until = Instant::now() + timeout * 9 / 10 + self.dice.millis(0, 3_000);
        let stage = self.stage.clone();
        tokio::select! {
            biased;
            () = stage.reached(Phase::Calm) => {}
            () = sleep_until(until) => {}
        }
    }

    /// Writes to what is its own, and tries again until that is done.
    async fn show_progress(&mut self, server: &mut u64) -> Result<(), String> {
        let patience = *self.patience.lock();
        let deadline = Instant::now() + patience;
        let path = Places::progress(self.habits.client);
        let mut last = None;
        while Instant::now() < deadline {
            if !self.raw.is_connected() {
                self.come_back(server).await;
                continue;
            }
            let request = Request::SetData {
                path: path.clone(),
                data: self.deeds.value(),
                version: -1,
            };
            last = self.raw.call(request, deadline - Instant::now()).await;
            match last {
                Some(Outcome::Done { .. }) => return Ok(()),
                Some(_) => {
                    self.raw
                        .listen((Instant::now() + RETRY).min(deadline))
                        .await;
                }
                None => {}
            }
        }
        Err(format!(
            "client {} (session {:x?}, server {:?}) could not write within {patience:?}, although \
             nothing was in its way; last: {last:?}",
            self.habits.client,
            self.raw.session(),
            self.raw.server()
        ))
    }

    /// Keeps its session, and with it its ephemerals, until all is over.
    async fn keep(&mut self, server: &mut u64) {
        let stage = self.stage.clone();
        while stage.phase() < Phase::Over {
            if !self.raw.is_connected() {
                self.come_back(server).await;
                continue;
            }
            let until = Instant::now() + Duration::from_secs(1);
            tokio::select! {
                biased;
                () = stage.reached(Phase::Over) => {}
                _ = self.raw.pump(until) => {}
            }
        }
    }
}

/// Writes on one server, then syncs and reads on another: what was acknowledged has to be there.
pub(crate) struct Prober {
    pub(crate) writer: Raw,
    pub(crate) reader: Raw,
    pub(crate) deeds: Deeds,
    pub(crate) dice: Dice,
    pub(crate) stage: Stage,
    pub(crate) budget: Arc<Budget>,
    pub(crate) recorder: Recorder,
    pub(crate) every: Duration,
}

/// How long one step of a probe may take before it is given up.
const STEP: Duration = Duration::from_secs(3);

impl Prober {
    pub(crate) async fn run(mut self) {
        self.stage.reached(Phase::Run).await;
        while self.stage.phase() == Phase::Run {
            self.probe().await;
            let until = Instant::now() + self.dice.pause(self.every);
            let stage = self.stage.clone();
            let both = async {
                tokio::join!(self.writer.listen(until), self.reader.listen(until));
                sleep_until(until).await;
            };
            tokio::select! {
                biased;
                () = stage.reached(Phase::Calm) => {}
                () = both => {}
            }
        }
        self.writer.leave();
        self.reader.leave();
        self.writer.abandon();
        self.reader.abandon();
    }

    async fn probe(&mut self) {
        if !self.reader.is_connected() {
            let server = self.reader.another_server(&mut self.dice);
            self.reader.connect(server).await;
        }
        if !self.writer.is_connected() {
            let server = self.writer.another_server(&mut self.dice);
            self.writer.connect(server).await;
        }
        let Some(subtree) = self.budget.subtree(&mut self.dice) else {
            return;
        };
        let path = Places::register(subtree, self.dice.below(crate::places::REGISTERS));
        let requests = [
            Request::SetData {
                path: path.clone(),
                data: self.deeds.value(),
                version: -1,
            },
            Request::Sync { path: path.clone() },
            Request::GetData { path, watch: false },
        ];
        self.budget.spend(subtree, &requests);
        let [write, sync, read] = requests;
        let written = self.writer.call(write, STEP).await;
        if !written.is_some_and(|outcome| outcome.is_done()) || !self.reader.is_connected() {
            return;
        }
        self.reader.send(sync);
        let read = self.reader.call(read, STEP).await;
        if read.is_some_and(|outcome| outcome.is_done())
            && self.reader.server() != self.writer.server()
        {
            self.recorder
                .mark("written on one server, synced and read on another");
        }
    }
}
