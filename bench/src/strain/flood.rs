//! Sessions opened and closed as fast as they can be, beside sessions that must live.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorate_protocol::{Request, Xid};

use super::probe::{calm, on_all, worst};
use super::swarm::{dial, finish, hello, source};
use super::{Outcome, Stage, System};
use crate::error::BenchError;
use crate::session::{SILENCE_MAX, Session};
use crate::wire::encode_request;

const CALM: Duration = Duration::from_secs(2);
const RATE: usize = 5_000;
const THREADS: usize = 24;
/// The shortest session of the default configuration, kept alive as clients do: three times in it.
const SHORT_SESSION_MS: i32 = 4_000;
const HEARTBEAT: Duration = Duration::from_millis(1_300);
const HEARTBEATERS: usize = 100;

pub(super) fn flood(stage: &mut Stage<'_>) -> Result<Outcome, BenchError> {
    let span = Duration::from_secs(if stage.divisor == 1 { 10 } else { 1 });
    let mut host = stage.host()?;
    let server = host.server();
    let probes = on_all(&host.servers)?;
    let mut alive = Vec::new();
    for number in 0..HEARTBEATERS {
        let stream = dial(source(number), server, None)?;
        let mut session = Session::over(stream, server, SHORT_SESSION_MS, SILENCE_MAX)?;
        session.finish_handshake()?;
        alive.push(session);
    }
    let before = calm(&probes, CALM);
    for session in &mut alive {
        session.call(&Request::Ping)?;
    }
    let since = Instant::now();
    let begun = AtomicUsize::new(0);
    let (done, longest_ping) = thread::scope(|scope| {
        let floods: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| churn(server, since, span, &begun)))
            .collect();
        let mut longest = Duration::ZERO;
        let mut lost = Ok(());
        while since.elapsed() < span + HEARTBEAT {
            let round = Instant::now();
            for session in &mut alive {
                let asked = Instant::now();
                if let Err(error) = session.call(&Request::Ping) {
                    lost = Err(error);
                }
                longest = longest.max(asked.elapsed());
            }
            thread::sleep(HEARTBEAT.saturating_sub(round.elapsed()));
        }
        let done = floods
            .into_iter()
            .map(|flood| flood.join().unwrap_or(Ok(0)))
            .sum::<Result<usize, BenchError>>()?;
        lost?;
        Ok::<_, BenchError>((done, longest))
    })?;
    let noticed = worst(&probes, since);
    let mut outcome = Outcome::new(done, "sessions opened and closed");
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let rate = done as f64 / span.as_secs_f64();
    outcome.note(format!("{rate:.0} in a second"));
    outcome.holds(
        true,
        format!("{HEARTBEATERS} sessions of 4 s kept alive beside them, none lost"),
    );
    outcome.at_most(
        "their longest ping",
        longest_ping.as_secs_f64() * 1e3,
        200.0,
        "ms",
    );
    outcome.at_most("another client's longest", noticed.max_ms, 200.0, "ms");
    outcome.note(format!(
        "p99 {:.1} ms ({:.1} before)",
        noticed.p99_ms, before.p99_ms
    ));
    finish(&mut host, probes)?;
    host.stop()?;
    if stage.system == System::Zookeeper {
        (stage.progress)("the rate is what ZooKeeper lets through");
    }
    Ok(outcome)
}

/// Opens and closes sessions, [`RATE`] in a second with all others; returns how many.
fn churn(
    server: SocketAddr,
    since: Instant,
    span: Duration,
    begun: &AtomicUsize,
) -> Result<usize, BenchError> {
    let mut whole = hello(SHORT_SESSION_MS)?;
    encode_request(Xid(1), &Request::CloseSession, &mut whole)?;
    let mut done = 0;
    while since.elapsed() < span {
        let number = begun.fetch_add(1, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let due = since + Duration::from_secs_f64(number as f64 / RATE as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut stream = dial(source(number), server, None)?;
        let mut answer = Vec::new();
        stream
            .write_all(&whole)
            .and_then(|()| stream.set_read_timeout(Some(SILENCE_MAX)))
            .and_then(|()| stream.read_to_end(&mut answer))
            .map_err(BenchError::io("opening and closing a session"))?;
        // The answers to the handshake and to the close.
        if answer.len() != 41 + 20 {
            return Err(BenchError::NoSession);
        }
        done += 1;
    }
    Ok(done)
}
