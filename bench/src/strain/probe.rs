//! A client that behaves, beside those that do not: it writes and pings all the time, and notes how
//! long each answer took.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use quorate_protocol::Request;
use quorate_protocol::request::SetData;

use crate::error::BenchError;
use crate::session::Session;
use crate::wire::create;

/// Between an answer and the next request: often enough to notice any pause that matters, seldom
/// enough to be no load.
const PAUSE: Duration = Duration::from_millis(1);
const DATA_BYTES: usize = 100;

/// When an answer came, and how long it had taken.
type Answers = Arc<Mutex<Vec<(Instant, Duration)>>>;

pub(crate) struct Probe {
    answers: Answers,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), BenchError>>>,
}

/// What a probe has noticed in a span of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noticed {
    pub(crate) answers: usize,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Probe {
    pub(crate) fn start(server: SocketAddr) -> Result<Self, BenchError> {
        let mut session = Session::open(server)?;
        let path = format!("/probe-{}", server.port());
        // It is there already when a scene has several probes.
        session.call(&Request::Create(create(path.clone(), &[7; DATA_BYTES])))?;
        let answers = Answers::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (answers, stop) = (Arc::clone(&answers), Arc::clone(&stop));
            move || run(&mut session, &path, &answers, &stop)
        });
        Ok(Self {
            answers,
            stop,
            thread: Some(thread),
        })
    }

    /// What it has noticed since then. An answer that is still due counts with the time it has taken
    /// so far, so that a pause that goes on is not missed.
    pub(crate) fn noticed(&self, since: Instant) -> Noticed {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut took: Vec<Duration> = answers
            .iter()
            .filter(|(when, _)| *when >= since)
            .map(|(_, took)| *took)
            .collect();
        let last = answers.last().map_or(since, |(when, _)| *when);
        drop(answers);
        let due = last.elapsed().saturating_sub(PAUSE);
        if due > Duration::from_millis(5) {
            took.push(due);
        }
        took.sort_unstable();
        let ms = |took: Option<&Duration>| took.map_or(0.0, |took| took.as_secs_f64() * 1e3);
        Noticed {
            answers: took.len(),
            p99_ms: ms(took.get((took.len() * 99 / 100).min(took.len().saturating_sub(1)))),
            max_ms: ms(took.last()),
        }
    }

    /// Ends it; what went wrong for it on the way is an error.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        self.stop.store(true, Ordering::SeqCst);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(BenchError::Usage("a probe has ended early")),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn run(
    session: &mut Session,
    path: &str,
    answers: &Answers,
    stop: &AtomicBool,
) -> Result<(), BenchError> {
    let set = Request::SetData(SetData {
        path: path.to_owned(),
        data: Some(vec![7; DATA_BYTES].into()),
        version: -1,
    });
    while !stop.load(Ordering::SeqCst) {
        for request in [&set, &Request::Ping] {
            let begun = Instant::now();
            match session.call(request)? {
                0 => {}
                code => {
                    return Err(BenchError::Refused {
                        doing: "a probe's request",
                        code,
                    });
                }
            }
            let answer = (Instant::now(), begun.elapsed());
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.push(answer);
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// One on each server.
pub(crate) fn on_all(servers: &[SocketAddr]) -> Result<Vec<Probe>, BenchError> {
    servers.iter().map(|server| Probe::start(*server)).collect()
}

/// The worst of what they have noticed.
pub(crate) fn worst(probes: &[Probe], since: Instant) -> Noticed {
    probes.iter().fold(Noticed::default(), |worst, probe| {
        let noticed = probe.noticed(since);
        Noticed {
            answers: worst.answers + noticed.answers,
            p99_ms: worst.p99_ms.max(noticed.p99_ms),
            max_ms: worst.max_ms.max(noticed.max_ms),
        }
    })
}

/// What is usual before a strain: `span` of calm.
pub(crate) fn calm(probes: &[Probe], span: Duration) -> Noticed {
    let since = Instant::now();
    thread::sleep(span);
    worst(probes, since)
}
