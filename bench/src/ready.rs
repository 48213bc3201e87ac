//! When a server answers its first read after a start.

use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use quorate_protocol::Request;
use quorate_protocol::request::Watched;

use crate::error::BenchError;
use crate::session::Session;

/// Between attempts, and so the precision of the result.
const RETRY: Duration = Duration::from_millis(10);
/// Some servers accept connections before they serve, and then never answer on them. So a new
/// attempt does not wait for the last one, and no attempt lasts for ever.
const ATTEMPT: Duration = Duration::from_secs(10);
const ATTEMPTS_AT_ONCE: usize = 100;

/// Waits until `server` answers exists("/"), and returns how long after `since` that was.
/// `check_server` is asked between attempts, so that a caller can notice that the server has ended.
pub(crate) fn wait(
    server: SocketAddr,
    since: Instant,
    patience: Duration,
    mut check_server: impl FnMut() -> Result<(), BenchError>,
) -> Result<Duration, BenchError> {
    let (ended, attempts) = mpsc::channel();
    let mut running = 0;
    loop {
        if running < ATTEMPTS_AT_ONCE {
            let ended = ended.clone();
            thread::spawn(move || {
                let answered = ask(server).map(|()| since.elapsed());
                // Nobody listens any more once another attempt was answered.
                let _ = ended.send(answered);
            });
            running += 1;
        }
        let next_attempt = Instant::now() + RETRY;
        loop {
            let left = next_attempt.saturating_duration_since(Instant::now());
            match attempts.recv_timeout(left) {
                Ok(Ok(answered)) => return Ok(answered),
                Ok(Err(_)) => running -= 1,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        check_server()?;
        if since.elapsed() > patience {
            let seconds = patience.as_secs();
            return Err(BenchError::NotReady { seconds });
        }
    }
}

/// Opens a session and reads; the session is closed without waiting for that.
fn ask(server: SocketAddr) -> Result<(), BenchError> {
    let mut session = Session::start(server, ATTEMPT)?;
    session.finish_handshake()?;
    let request = Request::Exists(Watched {
        path: "/".to_owned(),
        watch: false,
    });
    let code = session.call(&request)?;
    if code != 0 {
        let doing = "exists(\"/\")";
        return Err(BenchError::Refused { doing, code });
    }
    session.close()
}
