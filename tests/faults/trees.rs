//! What every server has when all is quiet: each znode, and the digest the server itself keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_checker::history::{Data, DigestAt, FinalTree, FinalZnode, Path};
use quorate_protocol::Request;
use quorate_tests::client::{Connection, Message, get_children, get_data, sync};
use quorate_tests::ensemble::Ensemble;

use crate::board::Board;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
const SESSION_MS: i32 = 60_000;
/// Reads sent together.
const READS: usize = 200;

/// Reads all servers, once what dead sessions held is gone and all have applied the same; what is not
/// alike by then never will be, and the checker says what it is.
pub(crate) fn read_all(
    ensemble: &Ensemble,
    board: &Board,
    patience: Duration,
) -> io::Result<(Vec<FinalTree>, Vec<DigestAt>)> {
    let deadline = Instant::now() + patience;
    let ids = ensemble.ids();
    let mut readers: BTreeMap<u64, Connection> = BTreeMap::new();
    loop {
        let is_late = Instant::now() >= deadline;
        // Before the digests: sessions are part of the state.
        let mut is_there = true;
        for id in &ids {
            if !readers.contains_key(id) {
                match Connection::open(ensemble.address(*id), SESSION_MS) {
                    Ok(reader) => drop(readers.insert(*id, reader)),
                    Err(error) if is_late => return Err(error),
                    Err(_) => is_there = false,
                }
            }
        }
        let before = digests(ensemble, &ids);
        let is_level = before.windows(2).all(|two| two[0].zxid == two[1].zxid);
        if !(is_there && is_level && before.len() == ids.len() || is_late) {
            thread::sleep(LOOK);
            continue;
        }
        let mut trees = Vec::new();
        for (id, reader) in &mut readers {
            match read(reader, *id) {
                Ok(tree) => trees.push(tree),
                Err(error) if is_late => return Err(error),
                // Another one will come.
                Err(_) => break,
            }
        }
        if trees.len() < ids.len() && !is_late {
            readers.clear();
            continue;
        }
        let after = digests(ensemble, &ids);
        let sessions = board.sessions();
        let is_quiet =
            trees.len() == ids.len() && trees.iter().all(|tree| owners(tree).is_subset(&sessions));
        if is_quiet && before == after || is_late {
            for tree in &mut trees {
                if let Some(at) = after.iter().find(|at| at.server == tree.server) {
                    tree.digest = Some(at.digest);
                    tree.exact = before == after;
                    tree.zxid = at.zxid;
                }
            }
            for (_, mut reader) in readers {
                // It is about to end with its server.
                let _ = reader.call(&Request::CloseSession);
            }
            return Ok((trees, after));
        }
        thread::sleep(LOOK);
    }
}

fn owners(tree: &FinalTree) -> BTreeSet<i64> {
    let owners = tree.znodes.values().map(|znode| znode.stat.ephemeral_owner);
    owners.filter(|owner| *owner != 0).collect()
}

/// The answers to `hash`: at which zxid, and the digest.
fn digests(ensemble: &Ensemble, ids: &[u64]) -> Vec<DigestAt> {
    let one = |id: &u64| {
        let text = ensemble.word(*id, "hash").ok()?;
        let (zxid, digest) = text.trim().split_once(": ")?;
        Some(DigestAt {
            server: *id,
            zxid: i64::from_str_radix(zxid, 16).ok()?,
            digest: digest.parse().ok()?,
        })
    };
    ids.iter().filter_map(one).collect()
}

/// Reads everything below the root but ZooKeeper's own.
fn read(connection: &mut Connection, id: u64) -> io::Result<FinalTree> {
    let zxid = connection.call(&sync("/"))?.zxid;
    let mut znodes = BTreeMap::new();
    let mut folders = vec!["/".to_owned()];
    while let Some(folder) = folders.pop() {
        let reply = connection.call(&get_children(&folder, false))?;
        let prefix = folder.trim_end_matches('/');
        let names = reply.children().unwrap_or_default().iter();
        let paths: Vec<String> = names
            .map(|name| format!("{prefix}/{name}"))
            .filter(|path| path != "/zookeeper")
            .collect();
        for some in paths.chunks(READS) {
            let reads: Vec<_> = some.iter().map(|path| get_data(path, false)).collect();
            connection.send_all(&reads)?;
            for path in some {
                let Message::Reply(reply) = connection.receive()? else {
                    return Err(io::Error::other(format!("{path}: no reply")));
                };
                // What went away in between was an ephemeral.
                if let Some(stat) = reply.stat() {
                    if stat.num_children > 0 {
                        folders.push(path.clone());
                    }
                    let data = Data(reply.data().map(Bytes::copy_from_slice));
                    znodes.insert(Path::from(path.as_str()), FinalZnode { data, stat });
                }
            }
        }
    }
    Ok(FinalTree {
        server: id,
        zxid,
        exact: false,
        digest: None,
        znodes,
    })
}
