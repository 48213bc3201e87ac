//! Sees who is inside by their files; knows nothing of servers.
//!
//! Who enters makes a file and then looks who else has one. Of two who are inside together the later
//! one to make its file sees the other's, whatever a server has told them. `java/Contender.java` and
//! `python/contender.py` do the same in the same folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// One contender's view of a folder.
#[derive(Debug)]
pub(super) struct Referee {
    folder: PathBuf,
    role: String,
    own: String,
}

impl Referee {
    /// `role` says whom it may meet: `alone` nobody, `reader` other readers, `of-3` any two.
    pub(super) fn new(folder: &Path, role: &str, name: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            role: role.to_owned(),
            own: format!("{role}.{name}"),
        }
    }

    /// Who else is inside and must not be.
    pub(super) fn enter(&self) -> io::Result<Vec<String>> {
        File::create_new(self.folder.join(&self.own))?;
        let mut met = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let other = entry?.file_name().to_string_lossy().into_owned();
            let readers = self.role == "reader" && other.starts_with("reader.");
            if other != self.own && !readers {
                met.push(other);
            }
        }
        let size = self.role.strip_prefix("of-");
        if size.is_some_and(|size| size.parse().is_ok_and(|size: usize| met.len() < size)) {
            met.clear();
        }
        Ok(met)
    }

    /// Also of one that was killed, and cannot do it itself.
    pub(super) fn leave(&self) {
        // There is none if it was not inside.
        let _ = fs::remove_file(self.folder.join(&self.own));
    }
}
