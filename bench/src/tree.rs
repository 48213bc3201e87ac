//! The subtree a run works on: made before it, removed after it.

use std::net::SocketAddr;

use quorate_protocol::Request;
use quorate_protocol::multi::MultiOp;
use quorate_protocol::request::Delete;

use crate::error::BenchError;
use crate::session::Session;
use crate::wire::{Paths, create};
use crate::workload::{Shape, place};

/// Operations in one multi while filling and cleaning up. With 1 KiB of data each, a request stays
/// far below the 1 MiB that servers accept.
pub(crate) const MULTI_OPS: u32 = 100;

/// A subtree of its own on a server, or on all servers of an ensemble.
#[derive(Debug)]
pub(crate) struct Tree {
    servers: Vec<SocketAddr>,
    pub(crate) paths: Paths,
    pub(crate) shape: Shape,
    /// The number of the next znode to create.
    pub(crate) created_until: u32,
}

impl Tree {
    /// Makes the root, the parents and the keys, `multi_ops` creates to a request. Every one of the
    /// servers has them afterwards.
    pub(crate) fn make(
        servers: &[SocketAddr],
        shape: Shape,
        multi_ops: u32,
    ) -> Result<Self, BenchError> {
        let paths = Paths::unique();
        let mut session = open(servers)?;
        let root = std::iter::once(paths.root.clone());
        let parents = (0..shape.parents).map(|parent| paths.parent(parent));
        let requests = root
            .chain(parents)
            .map(|path| Request::Create(create(path, &[])));
        session.pipeline("creating the parents", requests)?;

        let data = vec![b'd'; shape.data_bytes];
        let requests = chunks(0..shape.keys, multi_ops).map(|(from, to)| {
            let mut ops = (from..to).map(|key| {
                let (parent, child) = place(key, shape.parents);
                create(paths.child(parent, child), &data)
            });
            match (to - from, ops.next()) {
                (1, Some(only)) => Request::Create(only),
                (_, first) => {
                    Request::Multi(first.into_iter().chain(ops).map(MultiOp::Create).collect())
                }
            }
        });
        session.pipeline("creating the keys", requests)?;
        session.close()?;
        let tree = Self {
            servers: servers.to_vec(),
            paths,
            shape,
            created_until: shape.keys,
        };
        tree.settle()?;
        Ok(tree)
    }

    /// A server of an ensemble may not have applied yet what another has acknowledged.
    fn settle(&self) -> Result<(), BenchError> {
        if self.servers.len() == 1 {
            return Ok(());
        }
        for server in &self.servers {
            let mut session = Session::open(*server)?;
            session.sync()?;
            session.close()?;
        }
        Ok(())
    }

    /// Removes what runs created beyond the keys.
    pub(crate) fn remove_created(&mut self) -> Result<(), BenchError> {
        self.settle()?;
        let mut session = open(&self.servers)?;
        for parent in 0..self.shape.parents {
            let path = self.paths.parent(parent);
            let mut created: Vec<String> = session.children(&path)?;
            let key_max = format!("n{:09}", self.shape.keys);
            created.retain(|name| *name >= key_max);
            remove(&mut session, &path, &created)?;
        }
        self.created_until = self.shape.keys;
        session.close()?;
        self.settle()
    }

    /// Removes the whole subtree.
    pub(crate) fn remove(self) -> Result<(), BenchError> {
        self.settle()?;
        let mut session = open(&self.servers)?;
        let mut parents = Vec::new();
        for parent in 0..self.shape.parents {
            let path = self.paths.parent(parent);
            let children = session.children(&path)?;
            remove(&mut session, &path, &children)?;
            parents.push(format!("p{parent:05}"));
        }
        remove(&mut session, &self.paths.root, &parents)?;
        session.call(&Request::Delete(delete(self.paths.root)))?;
        session.close()
    }
}

/// A session on one of the servers.
fn open(servers: &[SocketAddr]) -> Result<Session, BenchError> {
    let server = servers.first();
    Session::open(*server.ok_or(BenchError::Usage("at least one server"))?)
}

fn remove(session: &mut Session, parent: &str, names: &[String]) -> Result<(), BenchError> {
    let requests = names.chunks(MULTI_OPS as usize).map(|names| {
        let delete = |name| MultiOp::Delete(delete(format!("{parent}/{name}")));
        Request::Multi(names.iter().map(delete).collect())
    });
    session.pipeline("removing znodes", requests)
}

fn delete(path: String) -> Delete {
    Delete { path, version: -1 }
}

fn chunks(range: std::ops::Range<u32>, size: u32) -> impl Iterator<Item = (u32, u32)> {
    let end = range.end;
    let size = size.max(1);
    range
        .step_by(size as usize)
        .map(move |from| (from, end.min(from.saturating_add(size))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_range_once_and_in_order() {
        let all: Vec<_> = chunks(0..10, 4).collect();
        assert_eq!(all, [(0, 4), (4, 8), (8, 10)]);
        assert_eq!(chunks(0..0, 4).count(), 0);
        assert_eq!(chunks(0..2, 0).count(), 2);
    }
}
