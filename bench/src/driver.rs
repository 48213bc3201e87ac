//! The measuring loop: a closed loop over many connections on one thread.
//!
//! Every connection keeps a fixed number of requests outstanding; each reply is followed by a new
//! request. All connections that are ready are read first and written to afterwards, so that one
//! system call carries as many frames as there are. Replies must come in the order of the requests,
//! with the right xid and of a length that is possible; anything else ends the run.
//!
//! Latency runs from just before a request is handed to the kernel until its reply has been read.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as StdTcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::error::BenchError;
use crate::session::{SILENCE_MAX, Session};
use crate::wire::{REPLY_BYTES_MAX, next_reply};
use crate::workload::Workload;

/// One read takes what ten outstanding gets of 1 KiB answer, with room.
const INPUT_BYTES: usize = 64 << 10;
/// Latencies above are recorded as this.
const LATENCY_MAX_NS: u64 = 120_000_000_000;

/// When to measure and when to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) outstanding: usize,
    pub(crate) warmup: Duration,
    pub(crate) stop: Stop,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// So long after the warm-up.
    After(Duration),
    /// When this many requests have been sent after the warm-up.
    Count(u64),
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Nanoseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) ops: u64,
    /// Completed operations in all, those before and after measuring included.
    pub(crate) replies: u64,
    pub(crate) elapsed: Duration,
    /// How often each error code came, the warm-up included.
    pub(crate) errors: BTreeMap<i32, u64>,
    /// The processor time this generator itself used while measuring.
    pub(crate) cpu: Duration,
    /// Read and write calls while measuring.
    pub(crate) calls: u64,
    pub(crate) created_until: u32,
}

impl Outcome {
    pub(crate) fn empty() -> Self {
        Self {
            latency: new_histogram(),
            ops: 0,
            replies: 0,
            elapsed: Duration::ZERO,
            errors: BTreeMap::new(),
            cpu: Duration::ZERO,
            calls: 0,
            created_until: 0,
        }
    }

    /// Adds what another driver measured during the same time.
    pub(crate) fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so this cannot fail.
        let _ = self.latency.add(&other.latency);
        self.ops += other.ops;
        self.replies += other.replies;
        self.elapsed = self.elapsed.max(other.elapsed);
        for (code, count) in &other.errors {
            *self.errors.entry(*code).or_default() += count;
        }
        self.cpu += other.cpu;
        self.calls += other.calls;
        self.created_until = self.created_until.max(other.created_until);
    }

    /// Not a number if the span was too short for one operation to be begun and ended in it.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        if self.latency.is_empty() {
            return f64::NAN;
        }
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    pub(crate) fn ops_per_second(&self) -> f64 {
        self.ops as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("the bounds are constants that fit")
}

struct Pending {
    xid: i32,
    slot: u8,
    sent_ns: u64,
    /// Whether its reply completes an operation.
    is_last: bool,
}

struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    input_start: usize,
    input_end: usize,
    output: Vec<u8>,
    output_start: usize,
    pending: VecDeque<Pending>,
    next_xid: i32,
}

/// Drives `sessions` until the plan is fulfilled and every reply is in, and hands them back.
pub(crate) fn drive(
    sessions: Vec<Session>,
    workload: &mut Workload,
    plan: Plan,
) -> Result<(Outcome, Vec<Session>), BenchError> {
    let mut driver = Driver::new(sessions, workload, plan)?;
    driver.run()?;
    driver.finish()
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Warmup,
    Measuring,
    Draining,
}

struct Driver<'a> {
    poll: Poll,
    connections: Vec<Connection>,
    workload: &'a mut Workload,
    plan: Plan,
    phase: Phase,
    /// All times are nanoseconds since this.
    origin: Instant,
    measured_from_ns: u64,
    measured_until_ns: u64,
    sent_measured: u64,
    outstanding_total: usize,
    cpu_from: Duration,
    outcome: Outcome,
}

impl<'a> Driver<'a> {
    fn new(
        sessions: Vec<Session>,
        workload: &'a mut Workload,
        plan: Plan,
    ) -> Result<Self, BenchError> {
        let doing = "preparing to poll connections";
        let poll = Poll::new().map_err(BenchError::io(doing))?;
        let mut connections = Vec::with_capacity(sessions.len());
        for (index, session) in sessions.into_iter().enumerate() {
            let (stream, next_xid) = session.into_parts();
            stream
                .set_nonblocking(true)
                .map_err(BenchError::io(doing))?;
            let mut socket = TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut socket, Token(index), interest)
                .map_err(BenchError::io(doing))?;
            connections.push(Connection {
                socket,
                input: vec![0; INPUT_BYTES],
                input_start: 0,
                input_end: 0,
                output: Vec::with_capacity(INPUT_BYTES),
                output_start: 0,
                pending: VecDeque::with_capacity(plan.outstanding),
                next_xid,
            });
        }
        Ok(Self {
            poll,
            connections,
            workload,
            plan,
            phase: Phase::Warmup,
            origin: Instant::now(),
            measured_from_ns: 0,
            measured_until_ns: 0,
            sent_measured: 0,
            outstanding_total: 0,
            cpu_from: Duration::ZERO,
            outcome: Outcome::empty(),
        })
    }

    fn run(&mut self) -> Result<(), BenchError> {
        let mut events = Events::with_capacity(1024);
        let mut ready = Vec::with_capacity(self.connections.len());
        let mut last_reply_ns = self.now_ns();
        self.advance_phase(last_reply_ns);
        for index in 0..self.connections.len() {
            self.refill(index, last_reply_ns);
            self.flush(index)?;
        }
        while self.outstanding_total > 0 {
            self.poll(&mut events)?;
            ready.clear();
            for event in &events {
                let index = event.token().0;
                ready.push(index);
                if event.is_readable() || event.is_read_closed() {
                    let replies = self.receive(index)?;
                    if replies > 0 {
                        last_reply_ns = self.now_ns();
                    }
                }
            }
            let now_ns = self.now_ns();
            self.advance_phase(now_ns);
            for index in &ready {
                self.refill(*index, now_ns);
                self.flush(*index)?;
            }
            let silent = Duration::from_nanos(now_ns.saturating_sub(last_reply_ns));
            if silent > SILENCE_MAX {
                let seconds = silent.as_secs();
                return Err(BenchError::Stalled { seconds });
            }
        }
        Ok(())
    }

    fn poll(&mut self, events: &mut Events) -> Result<(), BenchError> {
        match self.poll.poll(events, Some(Duration::from_secs(1))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                Err(BenchError::io("polling connections")(error))
            }
            _ => Ok(()),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn advance_phase(&mut self, now_ns: u64) {
        let warmup_ns = u64::try_from(self.plan.warmup.as_nanos()).unwrap_or(u64::MAX);
        if self.phase == Phase::Warmup && now_ns >= warmup_ns {
            self.phase = Phase::Measuring;
            self.measured_from_ns = now_ns;
            self.cpu_from = thread_cpu();
        }
        if self.phase != Phase::Measuring {
            return;
        }
        let ended = match self.plan.stop {
            Stop::After(span) => u128::from(now_ns - self.measured_from_ns) >= span.as_nanos(),
            Stop::Count(count) => self.sent_measured >= count,
        };
        if ended {
            self.phase = Phase::Draining;
            self.measured_until_ns = now_ns;
            self.outcome.cpu = thread_cpu().saturating_sub(self.cpu_from);
        }
    }

    /// Whether replies count now. With a count, the ones still outstanding at the end do, too.
    fn is_counting(&self) -> bool {
        match self.phase {
            Phase::Warmup => false,
            Phase::Measuring => true,
            Phase::Draining => matches!(self.plan.stop, Stop::Count(_)),
        }
    }

    /// Reads and accounts for all replies that are there.
    fn receive(&mut self, index: usize) -> Result<usize, BenchError> {
        let mut replies = 0;
        loop {
            let connection = &mut self.connections[index];
            let room = connection.input.len() - connection.input_end;
            let read = match connection
                .socket
                .read(&mut connection.input[connection.input_end..])
            {
                Ok(0) => return Err(BenchError::Closed),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(replies),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(BenchError::io("reading replies")(error)),
            };
            connection.input_end += read;
            self.outcome.calls += u64::from(self.phase == Phase::Measuring);
            let now_ns = self.now_ns();
            replies += self.account(index, now_ns)?;
            // A read that did not fill the buffer has emptied the socket (epoll(7)).
            if read < room {
                return Ok(replies);
            }
        }
    }

    fn account(&mut self, index: usize, now_ns: u64) -> Result<usize, BenchError> {
        let counting = self.is_counting();
        let connection = &mut self.connections[index];
        let mut replies = 0;
        while let Some(reply) =
            next_reply(&connection.input[connection.input_start..connection.input_end])?
        {
            connection.input_start += reply.frame_bytes();
            let Some(pending) = connection.pending.pop_front() else {
                return Err(BenchError::Unasked { xid: reply.xid });
            };
            if pending.xid != reply.xid {
                return Err(BenchError::UnexpectedXid {
                    expected: pending.xid,
                    actual: reply.xid,
                });
            }
            if reply.err == 0 {
                self.workload.check(pending.slot, &reply)?;
            } else {
                *self.outcome.errors.entry(reply.err).or_default() += 1;
            }
            replies += 1;
            if !pending.is_last {
                continue;
            }
            if counting && pending.sent_ns >= self.measured_from_ns {
                let latency_ns = now_ns.saturating_sub(pending.sent_ns);
                self.outcome.latency.saturating_record(latency_ns.max(1));
            }
            self.outcome.ops += u64::from(counting);
            self.outcome.replies += 1;
        }
        self.outstanding_total -= replies;
        if counting && self.phase == Phase::Draining {
            self.measured_until_ns = now_ns;
        }
        connection.make_room();
        Ok(replies)
    }

    /// Encodes as many new operations as were completed.
    fn refill(&mut self, index: usize, now_ns: u64) {
        let connection = &mut self.connections[index];
        let requests = self.workload.requests_per_op();
        let room_until = requests * (self.plan.outstanding - 1);
        while self.phase < Phase::Draining && connection.pending.len() <= room_until {
            if let (Phase::Measuring, Stop::Count(count)) = (self.phase, self.plan.stop) {
                if self.sent_measured >= count {
                    return;
                }
                self.sent_measured += 1;
            }
            for request in 1..=requests {
                let xid = connection.next_xid;
                connection.next_xid = xid.wrapping_add(1).max(1);
                let slot = self.workload.next(&mut connection.output, xid);
                connection.pending.push_back(Pending {
                    xid,
                    slot,
                    sent_ns: now_ns,
                    is_last: request == requests,
                });
            }
            self.outstanding_total += requests;
        }
    }

    fn flush(&mut self, index: usize) -> Result<(), BenchError> {
        let connection = &mut self.connections[index];
        while connection.output_start < connection.output.len() {
            match connection
                .socket
                .write(&connection.output[connection.output_start..])
            {
                Ok(written) => connection.output_start += written,
                // The poll reports it once there is room.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(BenchError::io("sending requests")(error)),
            }
            self.outcome.calls += u64::from(self.phase == Phase::Measuring);
        }
        connection.output.clear();
        connection.output_start = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<(Outcome, Vec<Session>), BenchError> {
        let doing = "giving sockets back";
        let measured_ns = self.measured_until_ns.saturating_sub(self.measured_from_ns);
        self.outcome.elapsed = Duration::from_nanos(measured_ns);
        self.outcome.created_until = self.workload.created_until();
        let mut sessions = Vec::with_capacity(self.connections.len());
        for mut connection in self.connections {
            self.poll
                .registry()
                .deregister(&mut connection.socket)
                .map_err(BenchError::io(doing))?;
            let stream = StdTcpStream::from(connection.socket);
            stream
                .set_nonblocking(false)
                .map_err(BenchError::io(doing))?;
            sessions.push(Session::from_parts(stream, connection.next_xid));
        }
        Ok((self.outcome, sessions))
    }
}

impl Connection {
    /// Moves what is left of the input to the front, and grows the buffer for a frame it cannot
    /// hold (`next_reply` bounds those).
    fn make_room(&mut self) {
        if self.input_start == self.input_end {
            self.input_start = 0;
            self.input_end = 0;
        } else if self.input_start > 0 {
            self.input.copy_within(self.input_start..self.input_end, 0);
            self.input_end -= self.input_start;
            self.input_start = 0;
        }
        if self.input_end == self.input.len() && self.input.len() <= REPLY_BYTES_MAX {
            self.input.resize(2 * self.input.len(), 0);
        }
    }
}

pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_outcomes_count_every_operation_and_keep_the_slowest() {
        let mut total = Outcome::empty();
        for (latency_ns, ops, seconds) in [(1_000, 10, 2), (9_000_000, 30, 3)] {
            let mut outcome = Outcome::empty();
            outcome.latency.record_n(latency_ns, ops).unwrap();
            outcome.ops = ops;
            outcome.elapsed = Duration::from_secs(seconds);
            outcome.errors.insert(-101, ops);
            total.merge(&outcome);
        }
        assert_eq!(total.ops, 40);
        assert_eq!(total.elapsed, Duration::from_secs(3));
        assert_eq!(total.errors[&-101], 40);
        assert_eq!(total.latency.len(), 40);
        let max = total.latency.max();
        assert!((9_000_000..9_010_000).contains(&max), "{max}");
        let p20 = total.latency.value_at_quantile(0.2);
        assert!((1_000..1_002).contains(&p20), "{p20}");
        assert!(total.latency.value_at_quantile(0.3) > 8_000_000);
    }

    #[test]
    fn the_rate_is_what_was_done_over_how_long_it_took() {
        let mut outcome = Outcome::empty();
        outcome.ops = 500;
        outcome.elapsed = Duration::from_millis(250);
        assert!((outcome.ops_per_second() - 2_000.0).abs() < 1e-6);
    }
}
