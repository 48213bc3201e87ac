//! What one server has when all is quiet: every znode, read over a connection that is not recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_checker::history::{FinalTree, FinalZnode, Outcome, Path, Reply, Request};
use quorate_protocol::ErrorCode;
use tokio::time::{Instant, sleep};

use crate::raw::{Connected, Pumped, Raw};

/// Requests under way at once.
const WINDOW: usize = 20;
/// How often a tree is read until nothing changes while it is.
const ATTEMPTS: u32 = 10;
const RETRY: Duration = Duration::from_millis(250);
/// The servers' own.
const SYSTEM: &str = "/zookeeper";

/// A tree that was read, and from which zxid to which.
struct Seen {
    znodes: BTreeMap<Path, FinalZnode>,
    first: i64,
    last: i64,
}

/// Reads all of a server, again and again until nothing changes meanwhile.
///
/// # Errors
///
/// What could not be read, in time.
pub(crate) async fn walk(
    raw: &mut Raw,
    server: u64,
    deadline: Instant,
) -> Result<FinalTree, String> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        if Instant::now() >= deadline {
            break;
        }
        if raw.server() != Some(server) && raw.connect(server).await != Connected::Yes {
            sleep(RETRY).await;
            continue;
        }
        match read_all(raw, deadline).await {
            Ok(Some(seen)) if seen.first == seen.last => return Ok(tree(server, seen, true)),
            Ok(seen) => last = seen.or(last),
            Err(what) => return Err(format!("server {server}: {what}")),
        }
        sleep(RETRY).await;
    }
    match last {
        Some(seen) => Ok(tree(server, seen, false)),
        None => Err(format!("server {server} could not be read in time")),
    }
}

fn tree(server: u64, seen: Seen, exact: bool) -> FinalTree {
    FinalTree {
        server,
        zxid: match exact {
            true => seen.last,
            false => seen.first,
        },
        exact,
        digest: None,
        znodes: seen.znodes,
    }
}

/// `None`: the connection was lost, or something came or went in between.
async fn read_all(raw: &mut Raw, deadline: Instant) -> Result<Option<Seen>, String> {
    let within = deadline.saturating_duration_since(Instant::now());
    let sync = Request::Sync { path: "/".into() };
    let Some(Outcome::Done { zxid: first, .. }) = raw.call(sync, within).await else {
        return Ok(None);
    };
    let mut seen = Seen {
        znodes: BTreeMap::new(),
        first,
        last: first,
    };
    let mut to_read: Vec<Path> = vec!["/".into()];
    while !to_read.is_empty() {
        let rest = to_read.split_off(to_read.len().saturating_sub(WINDOW / 2));
        for path in &rest {
            let (path, watch) = (Path::clone(path), false);
            raw.send(Request::GetData {
                path: Path::clone(&path),
                watch,
            });
            raw.send(Request::GetChildren { path, watch });
        }
        while raw.pending() > 0 {
            let Pumped::Answer(answer) = raw.pump(deadline).await else {
                return Ok(None);
            };
            let zxid = answer.outcome.zxid().unwrap_or_default();
            seen.last = seen.last.max(zxid);
            match (answer.request, answer.outcome) {
                (
                    Request::GetData { path, .. },
                    Outcome::Done {
                        reply: Reply::Data { data, stat },
                        ..
                    },
                ) => {
                    seen.znodes.insert(path, FinalZnode { data, stat });
                }
                (
                    Request::GetChildren { path, .. },
                    Outcome::Done {
                        reply: Reply::Children { names, .. },
                        ..
                    },
                ) => {
                    let parent = match &*path {
                        "/" => "",
                        path => path,
                    };
                    let paths = names
                        .iter()
                        .map(|name| Path::from(format!("{parent}/{name}")));
                    to_read.extend(paths.filter(|path| &**path != SYSTEM));
                }
                // A ping, or a proof of identity.
                (_, Outcome::Done { .. }) => {}
                (_, Outcome::Refused { code, .. }) if code == ErrorCode::NoNode.code() => {
                    return Ok(None);
                }
                (request, outcome) => return Err(format!("{request:?}: {outcome:?}")),
            }
        }
    }
    Ok(Some(seen))
}
