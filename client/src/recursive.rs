//! What takes several requests: paths with all their parents, and whole subtrees.

use crate::client::Client;
use crate::error::{Error, Reason};
use crate::operation::Sent;

/// Requests under way at a time, of one such call.
const PIPELINED: usize = 256;

impl Client {
    /// Makes sure that a znode exists, and all above it: persistent, empty, open to everybody where
    /// they did not exist.
    ///
    /// Cancel safe: what was created stays. Safe to repeat.
    ///
    /// # Errors
    ///
    /// Those of [`Client::create`], but that a znode exists.
    pub async fn ensure_path(&self, path: &str) -> Result<(), Error> {
        // Most often all is there.
        if self.exists(path).await?.is_some() {
            return Ok(());
        }
        let ends = path.char_indices().skip(1).filter(|(_, c)| *c == '/');
        let ends = ends.map(|(at, _)| at).chain([path.len()]);
        let creates: Vec<Sent<_>> = ends
            .map(|end| self.create(&path[..end], b"").idempotent().send())
            .collect();
        let mut result = Ok(());
        for create in creates {
            result = match create.await {
                Err(error) if error.is(Reason::NodeExists) => Ok(()),
                // Whoever may not create the parents may still find them there.
                Err(error) => Err(error),
                Ok(_) => Ok(()),
            };
        }
        result
    }

    /// Lists a znode and all below it, parents before their children. Not of one moment: what comes
    /// and goes meanwhile may be in it or not.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Reason::NoNode`] if the znode itself does not exist, and those of any read.
    pub async fn list_recursive(&self, path: &str) -> Result<Vec<String>, Error> {
        let (children, _) = self.children(path).await?;
        let mut all = vec![path.to_owned()];
        all.extend(children.iter().map(|name| join(path, name)));
        let mut next = 1;
        while next < all.len() {
            let end = all.len().min(next + PIPELINED);
            let batch: Vec<_> = all[next..end]
                .iter()
                .map(|path| self.children(path).send())
                .collect();
            for (offset, read) in batch.into_iter().enumerate() {
                match read.await {
                    Ok((names, _)) => {
                        let parent = all[next + offset].clone();
                        all.extend(names.iter().map(|name| join(&parent, name)));
                    }
                    // Gone meanwhile.
                    Err(error) if error.is(Reason::NoNode) => {}
                    Err(error) => return Err(error),
                }
            }
            next = end;
        }
        Ok(all)
    }

    /// Deletes a znode and all below it, children before their parents. Not atomic: what others
    /// create meanwhile is deleted as well, or makes it fail with [`Reason::NotEmpty`] when it goes
    /// on for too long. That there is no such znode is success.
    ///
    /// Cancel safe: what was deleted stays deleted. Safe to repeat.
    ///
    /// # Errors
    ///
    /// Those of any write.
    pub async fn delete_recursive(&self, path: &str) -> Result<(), Error> {
        const ROUNDS: usize = 8;
        let mut result = Ok(());
        for _ in 0..ROUNDS {
            let all = match self.list_recursive(path).await {
                Err(error) if error.is(Reason::NoNode) => return Ok(()),
                all => all?,
            };
            result = self.delete_all(&all).await;
            match &result {
                Err(error) if error.is(Reason::NotEmpty) => {}
                _ => break,
            }
        }
        result
    }

    async fn delete_all(&self, all: &[String]) -> Result<(), Error> {
        let mut result = Ok(());
        let paths: Vec<&String> = all.iter().rev().collect();
        for batch in paths.chunks(PIPELINED) {
            let deletes: Vec<_> = batch
                .iter()
                .map(|path| self.delete(path).idempotent().send())
                .collect();
            for delete in deletes {
                match delete.await {
                    Ok(()) => {}
                    Err(error) if error.is(Reason::NoNode) => {}
                    Err(error) => result = Err(error),
                }
            }
            result.clone()?;
        }
        result
    }
}

/// The path of a child.
pub(crate) fn join(parent: &str, name: &str) -> String {
    match parent {
        "/" => format!("/{name}"),
        parent => format!("{parent}/{name}"),
    }
}
