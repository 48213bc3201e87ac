//! A million events from one request.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use mio::{Events, Interest, Poll, Token};
use quorate_protocol::multi::MultiOp;
use quorate_protocol::request::{AddWatch, SetData, Watched};
use quorate_protocol::{Request, Xid};

use super::host::Host;
use super::probe::{calm, on_all, worst};
use super::swarm::{dial, finish, source};
use super::{Outcome, Stage};
use crate::error::BenchError;
use crate::session::{SILENCE_MAX, Session};
use crate::wire::{create, next_reply};

const CALM: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Left by a read of each znode.
    Once,
    /// One for all, above them.
    Recursive,
}

/// 1,000 connections watch 1,000 znodes each; one multi sets all of them.
pub(super) fn watches(
    stage: &mut Stage<'_>,
    kind: Kind,
    servers: usize,
) -> Result<Outcome, BenchError> {
    let side = if stage.divisor == 1 { 1_000 } else { 100 };
    let mut host = Host::start(stage, servers, "", &[])?;
    let mut writer = Session::open(host.server())?;
    writer.call(&Request::Create(create("/w".to_owned(), b"")))?;
    let paths: Vec<String> = (0..side).map(|number| format!("/w/{number:04}")).collect();
    writer.pipeline(
        "creating what is watched",
        paths
            .iter()
            .map(|path| Request::Create(create(path.clone(), b""))),
    )?;
    let mut watchers = Vec::with_capacity(side);
    for number in 0..side {
        let server = host.servers[number % servers];
        let stream = dial(source(number), server, None)?;
        let mut session = Session::over(stream, server, 40_000, SILENCE_MAX)?;
        session.finish_handshake()?;
        watchers.push(session);
    }
    for session in &mut watchers {
        session.sync()?;
        match kind {
            Kind::Once => session.pipeline(
                "leaving watches",
                paths.iter().map(|path| {
                    Request::Exists(Watched {
                        path: path.clone(),
                        watch: true,
                    })
                }),
            )?,
            Kind::Recursive => session.pipeline(
                "leaving a watch",
                [Request::AddWatch(AddWatch {
                    path: "/w".to_owned(),
                    mode: 1,
                })],
            )?,
        }
    }
    let resident = host.resident_mib()?;
    let probes = on_all(&host.servers)?;
    let before = calm(&probes, CALM);
    let reader = Reader::new(watchers, side)?;
    let since = Instant::now();
    let reading = thread::spawn(move || reader.run());
    let sets = paths.iter().map(|path| {
        MultiOp::SetData(SetData {
            path: path.clone(),
            data: None,
            version: -1,
        })
    });
    writer.call(&Request::Multi(sets.collect()))?;
    let answered = since.elapsed();
    let (events, delivered) = reading
        .join()
        .map_err(|_| BenchError::Usage("the reader of events has ended early"))??;
    let noticed = worst(&probes, since);
    let peak = host.memory(0)?.rss_peak_kib >> 10;
    let mut outcome = Outcome::new(events, "events of one request");
    outcome.holds(
        events == side * side,
        format!("{events} delivered (aim: {})", side * side),
    );
    outcome.note(format!(
        "the request answered after {:.0} ms, the last event {:.0} ms",
        answered.as_secs_f64() * 1e3,
        delivered.duration_since(since).as_secs_f64() * 1e3
    ));
    outcome.at_most("other clients' longest", noticed.max_ms, 200.0, "ms");
    outcome.note(format!(
        "p99 {:.1} ms ({:.1} before)",
        noticed.p99_ms, before.p99_ms
    ));
    outcome.note(format!("resident {resident:.0} MiB, {peak} at most"));
    finish(&mut host, probes)?;
    host.stop()?;
    Ok(outcome)
}

/// Reads what many connections are sent, on one thread.
struct Reader {
    poll: Poll,
    clients: Vec<(mio::net::TcpStream, BytesMut)>,
    expected: usize,
}

impl Reader {
    fn new(sessions: Vec<Session>, events_each: usize) -> Result<Self, BenchError> {
        let io = BenchError::io;
        let poll = Poll::new().map_err(io("making a poll"))?;
        let expected = sessions.len() * events_each;
        let mut clients = Vec::with_capacity(sessions.len());
        for (number, session) in sessions.into_iter().enumerate() {
            let (stream, _): (TcpStream, i32) = session.into_parts();
            stream
                .set_nonblocking(true)
                .map_err(io("preparing a socket"))?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry()
                .register(&mut stream, Token(number), Interest::READABLE)
                .map_err(io("registering a socket"))?;
            clients.push((stream, BytesMut::new()));
        }
        Ok(Self {
            poll,
            clients,
            expected,
        })
    }

    /// Reads until all events have come; returns how many came, and when the last did.
    fn run(mut self) -> Result<(usize, Instant), BenchError> {
        let mut ready = Events::with_capacity(1024);
        let mut chunk = vec![0; 256 << 10];
        let mut count = 0;
        let mut last = Instant::now();
        let begun = Instant::now();
        while count < self.expected && begun.elapsed() < PATIENCE {
            self.poll
                .poll(&mut ready, Some(Duration::from_millis(100)))
                .map_err(BenchError::io("waiting for events"))?;
            for event in &ready {
                let (stream, input) = &mut self.clients[event.token().0];
                loop {
                    match stream.read(&mut chunk) {
                        Ok(0) => return Err(BenchError::Closed),
                        Ok(bytes) => input.extend_from_slice(&chunk[..bytes]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(BenchError::io("reading events")(error)),
                    }
                }
                while let Some(reply) = next_reply(input)? {
                    count += usize::from(reply.xid == Xid::NOTIFICATION.0);
                    input.advance(reply.frame_bytes());
                    last = Instant::now();
                }
            }
        }
        Ok((count, last))
    }
}
