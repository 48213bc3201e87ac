//! Holders in processes of their own: stopped, killed, blocked, and with a wall clock that jumps. The
//! program is this one, asked for one ignored test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use quorate_client::{Client, Reason};
use quorate_recipes::{Error, HeldBy, Lease, Mutex, Overrun, StopReason};
use quorate_tests::shim;

use crate::locks::{contenders, soon};
use crate::{Scene, against_both_alone};

const PATH: &str = "/locks/a";
const SERVER: &str = "QUORATE_TEST_HOLDER_SERVER";
const BLOCKS: &str = "QUORATE_TEST_HOLDER_BLOCKS";
const TIMEOUT: Duration = Duration::from_millis(900);
/// What a busy machine may take for what takes no time.
const SLACK: Duration = Duration::from_secs(1);
/// Two of the server's ticks: sessions end up to so much late.
const LATE: Duration = Duration::from_millis(400);
const SIGABRT: i32 = 6;

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // Whoever listened may have gone.
    writeln!(stdout, "{line}").ok();
    stdout.flush().ok();
}

#[test]
#[ignore = "a process of the tests below"]
fn a_holder() {
    let Ok(server) = std::env::var(SERVER) else {
        return;
    };
    let blocks = std::env::var(BLOCKS).is_ok();
    // One thread: work that blocks holds up the heartbeats as well.
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        let builder = Client::builder(&server).session_timeout(TIMEOUT);
        let client = builder.connect().await.unwrap();
        let overrun = if blocks {
            Overrun::Abort
        } else {
            Overrun::Tolerate
        };
        let lock = Mutex::new(&client, PATH)
            .identity("holder")
            .overrun(overrun);
        let guard = lock.acquire().await.unwrap();
        let lease = guard.lease().clone();
        say(&format!("held {}", lease.token()));
        let ended = guard.run(|lease| work(lease, blocks)).await;
        say(&format!("ended {ended:?}"));
        let other = Client::connect(&server).await.unwrap();
        let late = other.transaction().held_by(&lease).set("/store", b"late");
        let refused = late.await.is_err_and(|error| error.is(Reason::NoNode));
        say(if refused {
            "late refused"
        } else {
            "late written"
        });
    });
}

/// Notes its steps until it is asked for the lock: other reasons to stop it does not mind.
async fn work(lease: Lease, blocks: bool) {
    let mut wall = SystemTime::now();
    while !matches!(lease.stop_reason(), Some(StopReason::Revoked { .. })) {
        say("step");
        let before = std::mem::replace(&mut wall, SystemTime::now());
        let apart = wall.duration_since(before);
        if apart.unwrap_or_else(|behind| behind.duration()) > Duration::from_secs(1800) {
            say("jumped");
        }
        if blocks {
            std::thread::sleep(Duration::from_millis(2));
        } else {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The process, and what it says.
struct Holder {
    child: Child,
    lines: Receiver<(Instant, String)>,
    token: u64,
}

impl Holder {
    fn start(scene: &Scene, variables: &[(String, String)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "processes::a_holder", "--ignored", "--nocapture"])
            .env(SERVER, scene.connect_string())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (told, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Nobody may listen any more.
                told.send((Instant::now(), line)).ok();
            }
        });
        let mut holder = Self {
            child,
            lines,
            token: 0,
        };
        let (_, held) = holder.line("held ");
        holder.token = held.trim_start_matches("held ").parse().unwrap();
        holder.line("step");
        holder
    }

    /// The next line that begins so.
    fn line(&self, start: &str) -> (Instant, String) {
        loop {
            let limit = Duration::from_secs(20);
            let line = self.lines.recv_timeout(limit);
            let (at, line) = line.unwrap_or_else(|_| panic!("it does not say {start:?}"));
            // The harness may have said something without an end of line.
            if let Some(from) = line.find(start) {
                return (at, line[from..].to_owned());
            }
        }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let done = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(done.success(), "{kill}");
    }

    fn wait(&mut self) -> ExitStatus {
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < limit, "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All that it says until it ends.
    fn rest(&self) -> Vec<(Instant, String)> {
        self.lines.iter().collect()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It has ended by itself where that was the point.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn last_step(lines: &[(Instant, String)]) -> Option<Instant> {
    let mut steps = lines.iter().rev().filter(|(_, line)| line == "step");
    steps.next().map(|(at, _)| *at)
}

/// Has another wait behind the holder.
async fn next_in_line(scene: &Scene) -> tokio::task::JoinHandle<(Instant, quorate_recipes::Guard)> {
    let lock = Mutex::new(&scene.client().await, PATH).identity("next");
    let waiting = tokio::spawn({
        let lock = lock.clone();
        async move {
            let guard = lock.acquire().await.unwrap();
            (Instant::now(), guard)
        }
    });
    soon("the line", contenders(&lock, 2)).await;
    waiting
}

#[test]
fn no_step_is_done_by_a_process_whose_lock_may_be_anothers() {
    against_both_alone("holders in processes", |scene| async move {
        let client = scene.client().await;
        client.create("/store", b"").await.unwrap();
        stopped_and_continued(&scene).await;
        killed(&scene).await;
        blocked(&scene).await;
        assert!(client.get("/store").await.unwrap().0.is_empty());
    });
}

async fn stopped_and_continued(scene: &Scene) {
    let holder = Holder::start(scene, &[]);
    let waiting = next_in_line(scene).await;
    holder.signal("STOP");
    let (let_in, guard) = soon("the next", waiting).await.unwrap();
    assert!(guard.token().get() > holder.token);
    // It has stood still since; all that it had said is here.
    let said: Vec<_> = holder.lines.try_iter().collect();
    assert!(last_step(&said).is_some_and(|at| at < let_in));
    holder.signal("CONT");
    let mut rest = Vec::new();
    loop {
        let line = holder.lines.recv_timeout(Duration::from_secs(20)).unwrap();
        let is_last = line.1.starts_with("late");
        rest.push(line);
        if is_last {
            break;
        }
    }
    assert_eq!(last_step(&rest), None, "a step after the end of the lease");
    assert!(rest[0].1.contains("SessionOver"), "{rest:?}");
    assert_eq!(rest.last().unwrap().1, "late refused");
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

async fn killed(scene: &Scene) {
    let mut holder = Holder::start(scene, &[]);
    let waiting = next_in_line(scene).await;
    let since = Instant::now();
    holder.signal("KILL");
    holder.wait();
    let (let_in, guard) = soon("the next", waiting).await.unwrap();
    let took = let_in - since;
    assert!(took <= TIMEOUT + LATE + SLACK, "{took:?}");
    assert!(guard.token().get() > holder.token);
    guard.release().await.unwrap();
}

async fn blocked(scene: &Scene) {
    let blocks = [(BLOCKS.to_owned(), "1".to_owned())];
    let mut holder = Holder::start(scene, &blocks);
    let waiting = next_in_line(scene).await;
    let (let_in, guard) = soon("the next", waiting).await.unwrap();
    assert_eq!(holder.wait().signal(), Some(SIGABRT));
    let rest = holder.rest();
    assert!(
        last_step(&rest).is_some_and(|at| at < let_in),
        "two at once"
    );
    guard.release().await.unwrap();
}

#[test]
fn a_wall_clock_that_jumps_makes_no_difference_to_a_holder() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = shim::build(folder.path()).unwrap() else {
        eprintln!("skipped: there is no C compiler");
        return;
    };
    let library = Arc::new(library);
    let folder = Arc::new(folder);
    against_both_alone("a wall clock that jumps", |scene| {
        let (library, folder) = (Arc::clone(&library), Arc::clone(&folder));
        async move {
            let name = format!("clock-{:?}", scene.server.product());
            let clock = shim::WallClock::new(&folder.path().join(name)).unwrap();
            let holder = Holder::start(&scene, &clock.variables(&library));
            let other = Mutex::new(&scene.client().await, PATH);
            for ahead_ms in [3_600_000, -3_600_000] {
                clock.set_ahead_ms(ahead_ms).unwrap();
                let (since, _) = holder.line("jumped");
                // Each step is an event; they go on for longer than a session without a proof.
                while holder.line("step").0 < since + TIMEOUT {}
                match other.acquire().try_now().await {
                    Err(Error::WouldBlock { holder, .. }) => assert_eq!(holder, "holder"),
                    unexpected => panic!("{ahead_ms}: {unexpected:?}"),
                }
            }
            assert!(other.revoke("enough").await.unwrap());
            assert_eq!(holder.line("ended").1, "ended Ok(())");
        }
    });
}
