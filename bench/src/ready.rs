//! When a server answers its first read after a start.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use quorate_protocol::Request;
use quorate_protocol::request::Watched;

use crate::error::BenchError;
use crate::session::Session;

/// Between attempts, and so the precision of the result. The event waited for happens in another
/// process; there is nothing to be woken by.
const RETRY: Duration = Duration::from_millis(2);
/// A server that accepts connections before it serves must not hold up one attempt for long.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Waits until `server` answers exists("/"), and returns how long after `since` that was.
/// `given_up` is asked between attempts, so that a caller can notice that the server has ended.
pub(crate) fn wait(
    server: SocketAddr,
    since: Instant,
    patience: Duration,
    mut given_up: impl FnMut() -> Result<(), BenchError>,
) -> Result<Duration, BenchError> {
    loop {
        if ask(server).is_ok() {
            return Ok(since.elapsed());
        }
        given_up()?;
        if since.elapsed() > patience {
            let seconds = patience.as_secs();
            return Err(BenchError::NotReady { seconds });
        }
        thread::sleep(RETRY);
    }
}

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
