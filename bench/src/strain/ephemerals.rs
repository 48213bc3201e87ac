//! A session that has a hundred thousand ephemerals ends.

use std::thread;
use std::time::{Duration, Instant};

use quorate_protocol::Request;
use quorate_protocol::multi::MultiOp;
use quorate_protocol::request::PathOnly;

use super::host::Host;
use super::probe::{calm, on_all, worst};
use super::swarm::{dial, finish, source};
use super::{Outcome, Stage};
use crate::error::BenchError;
use crate::session::{SILENCE_MAX, Session};
use crate::wire::create;

const CALM: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest session of the default configuration.
const SHORT_SESSION_MS: i32 = 4_000;
const EPHEMERAL: i32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Expired,
    Both,
}

pub(super) fn ephemerals(
    stage: &mut Stage<'_>,
    servers: usize,
    end: End,
) -> Result<Outcome, BenchError> {
    let count = stage.scaled(100_000);
    let mut host = Host::start(stage, servers, "", &[])?;
    let probes = on_all(&host.servers)?;
    let mut observer = Session::open(host.server())?;
    observer.call(&Request::Create(create("/e".to_owned(), b"")))?;
    let before = calm(&probes, CALM);
    let ends = match end {
        End::Both => vec![End::Closed, End::Expired],
        one => vec![one],
    };
    let mut outcome = Outcome::new(count * ends.len(), "ephemerals gone with their session");
    for end in ends {
        let owner = make_owner(&host, count)?;
        thread::sleep(CALM);
        let since = Instant::now();
        let word = match end {
            End::Closed | End::Both => {
                owner.close()?;
                "closed"
            }
            End::Expired => {
                drop(owner);
                "expired"
            }
        };
        // A look now and then, which itself must not be in the way.
        while observer.children("/e")?.len() >= count {
            if since.elapsed() > PATIENCE {
                return Err(BenchError::Stalled {
                    seconds: PATIENCE.as_secs(),
                });
            }
            thread::sleep(Duration::from_millis(500));
        }
        thread::sleep(Duration::from_millis(500));
        let left = observer.children("/e")?.len();
        let noticed = worst(&probes, since);
        outcome.holds(left == 0, format!("{word}: {left} left (aim: none)"));
        let what = format!("other clients' longest when {word}");
        outcome.at_most(&what, noticed.max_ms, 200.0, "ms");
        outcome.note(format!(
            "p99 {:.1} ms ({:.1} before)",
            noticed.p99_ms, before.p99_ms
        ));
    }
    finish(&mut host, probes)?;
    host.stop()?;
    Ok(outcome)
}

/// A session of four seconds with so many ephemerals.
fn make_owner(host: &Host, count: usize) -> Result<Session, BenchError> {
    const OPS: usize = 500;
    let stream = dial(source(0), host.server(), None)?;
    let mut owner = Session::over(stream, host.server(), SHORT_SESSION_MS, SILENCE_MAX)?;
    owner.finish_handshake()?;
    let mut made = 0;
    while made < count {
        let next = (made + OPS).min(count);
        let ops = (made..next).map(|number| {
            let mut record = create(format!("/e/ephemeral-{number:08}"), b"");
            record.flags = EPHEMERAL;
            MultiOp::Create(record)
        });
        owner.pipeline("making ephemerals", [Request::Multi(ops.collect())])?;
        made = next;
    }
    owner.call(&Request::Sync(PathOnly {
        path: "/e".to_owned(),
    }))?;
    Ok(owner)
}
