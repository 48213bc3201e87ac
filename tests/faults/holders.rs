//! Processes that hold a lock in turn, by the client crate and its recipe, and write with its token.
//!
//! A holder is a process of its own, so that it can stand still as a whole, its timers included, and
//! go on as if nothing had happened. It records its grants and its guarded writes, and leaves them in a
//! file when it is told to end.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use quorate_checker::History;
use quorate_checker::history::{Grant, GuardedWrite};
use quorate_client::{Client, Done, OnExpiry, Outcome};
use quorate_recipes::{Lease, Mutex};
use quorate_tests::ensemble::Ensemble;
use quorate_tests::process::Process;

use crate::board::Clock;

pub(crate) const HOLDERS: u32 = 2;
const LOCK: &str = "/locks/a";
/// Written by holders only: what else the checker searches through must not know of it.
const GUARDED: &str = "/guarded";
const TIMEOUT: Duration = Duration::from_millis(2_000);
/// How long a holder asks for the lock before it begins anew.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// For a holder to end once it is told.
const END_WITHIN: Duration = Duration::from_secs(10);

/// One holder, as the run sees it.
pub(crate) struct Holder {
    process: Process,
    file: PathBuf,
}

impl Holder {
    pub(crate) fn start(
        number: u32,
        ensemble: &Ensemble,
        clock: Clock,
        folder: &Path,
    ) -> io::Result<Self> {
        let file = folder.join(format!("holder{number}.jsonl"));
        let ids = ensemble.ids().into_iter();
        let hosts: Vec<String> = ids
            .map(|id| ensemble.client_address(id).to_string())
            .collect();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--holder").arg(&file).arg(hosts.join(","));
        command.args([number.to_string(), clock.begun_ns.to_string()]);
        let log = folder.join(format!("holder{number}.log"));
        let process = Process::start("a holder", command, &log)?;
        Ok(Self { process, file })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Tells it to end, and adds what it has seen.
    pub(crate) fn end(mut self, history: &mut History) -> io::Result<()> {
        fs::write(stop_file(&self.file), "")?;
        let deadline = Instant::now() + END_WITHIN;
        while self.process.exit_status().is_none() && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        let seen = History::read_from(BufReader::new(File::open(&self.file)?));
        let mut seen = seen.map_err(io::Error::other)?;
        history.grants.append(&mut seen.grants);
        history.guarded.append(&mut seen.guarded);
        Ok(())
    }
}

fn stop_file(file: &Path) -> PathBuf {
    file.with_extension("stop")
}

/// What a holder's process does: its file, the servers, its number and when the clock began.
pub(crate) fn hold(words: &[String]) -> io::Result<()> {
    let [file, hosts, number, begun_ns] = words else {
        return Err(io::Error::other("a holder wants four words"));
    };
    let invalid = |_| io::Error::other("a holder wants numbers");
    let number: u32 = number.parse().map_err(invalid)?;
    let clock = Clock {
        begun_ns: begun_ns.parse().map_err(invalid)?,
    };
    let file = PathBuf::from(file);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let seen = RefCell::new(History::default());
    runtime.block_on(async {
        let work = hold_again_and_again(hosts, number, clock, &seen);
        tokio::select! {
            () = work => {}
            () = told_to_end(&file) => {}
        }
    });
    seen.borrow().write_to(BufWriter::new(File::create(&file)?))
}

async fn told_to_end(file: &Path) {
    let stop = stop_file(file);
    while !stop.exists() {
        tokio::time::sleep(LOOK).await;
    }
}

async fn hold_again_and_again(hosts: &str, number: u32, clock: Clock, seen: &RefCell<History>) {
    let client = Client::builder(hosts)
        .session_timeout(TIMEOUT)
        .on_expiry(OnExpiry::NewSession)
        .start();
    let Ok(client) = client else {
        return;
    };
    while client.ensure_path(GUARDED).await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
    let lock = Mutex::new(&client, LOCK).identity(format!("holder{number}"));
    loop {
        // Whatever goes wrong, the next attempt is another one.
        let held = lock.run(|lease| use_lock(lease, number, clock, seen));
        let _ = tokio::time::timeout(PATIENCE, held).await;
        tokio::time::sleep(LOOK).await;
    }
}

async fn use_lock(lease: Lease, number: u32, clock: Clock, seen: &RefCell<History>) {
    let token = i64::try_from(lease.token().get()).unwrap_or(i64::MAX);
    let session = lease
        .client()
        .session()
        .map_or(0, quorate_client::SessionId::get);
    let grant = seen.borrow().grants.len();
    seen.borrow_mut().grants.push(Grant {
        lock: LOCK.to_owned(),
        client: number,
        session,
        token,
        from: clock.now(),
        to: None,
    });
    for _ in 0..4 {
        let written = lease.transaction().set(GUARDED, token.to_string()).await;
        let (zxid, done) = match written {
            Ok(committed) => match committed.results().last() {
                Some(Done::Set(stat)) => (stat.mzxid.0, true),
                _ => break,
            },
            Err(error) if error.outcome() == Outcome::NotApplied => (0, false),
            Err(_) => break,
        };
        seen.borrow_mut().guarded.push(GuardedWrite {
            lock: LOCK.to_owned(),
            token,
            zxid,
            done,
        });
        tokio::time::sleep(LOOK / 2).await;
    }
    seen.borrow_mut().grants[grant].to = Some(clock.now());
}
