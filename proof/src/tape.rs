//! A disk in memory that writes down every change, in order, so that a power cut can be tried at each
//! of them afterwards.
//!
//! Reads see every write at once, as a page cache shows them. What a power cut leaves is not decided
//! here but in `wreck`, from the tape. Between the changes stand notes: what whoever uses the disk had
//! been told by then. Two faults can be asked for: a sync that fails, and a write that reaches the
//! disk with a flipped bit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_server::storage::file::{Disk, File};

use crate::oracle::Window;

/// All files by path, as a power cut leaves them. Contents are shared until somebody writes.
pub type Image = BTreeMap<PathBuf, Arc<Vec<u8>>>;

/// One change, or what was known between two.
#[derive(Clone, Debug)]
pub enum Op {
    Create {
        path: PathBuf,
        inode: u64,
    },
    Write {
        inode: u64,
        offset: u64,
        bytes: Bytes,
    },
    /// Also of an allocation, which writes zeros.
    SetLength {
        inode: u64,
        length: u64,
    },
    Sync {
        inode: u64,
        fails: bool,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    SyncFolder {
        folder: PathBuf,
        fails: bool,
    },
    Note(Note),
}

impl Op {
    /// Whether the disk was asked to do something.
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Note(_))
    }
}

/// What was known, or asked for, at a place of the tape. Numbers are those of the oracle's states of
/// the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The folders are this server's for good.
    Initialized,
    /// The log was asked for changes up to this state.
    Asked(usize),
    /// It has said that all up to this state is durable.
    Durable(usize),
    /// A start has found this state, and whoever started goes by it.
    Found(usize),
    /// A snapshot up to this index counts.
    Snapshot(u64),
    /// The log was told that entries up to this index are committed.
    Committed(u64),
}

/// What goes wrong, each once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The how manieth sync of a file fails, from 1.
    pub failing_sync: Option<u64>,
    /// The how manieth sync of a folder fails, from 1.
    pub failing_folder_sync: Option<u64>,
    /// The how manieth write to a snapshot brings a flipped bit to the disk, from 1.
    pub corrupt_snapshot_write: Option<u64>,
}

/// How often there was what can go wrong: a range for [`Faults`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub syncs: u64,
    pub folder_syncs: u64,
    pub snapshot_writes: u64,
}

impl Faults {
    /// Whether anything is to go wrong.
    pub fn any(&self) -> bool {
        self.failing_sync
            .or(self.failing_folder_sync)
            .or(self.corrupt_snapshot_write)
            .is_some()
    }
}

/// A disk. Clones share it.
#[derive(Clone, Default)]
pub struct TapeDisk {
    tape: Arc<Mutex<Tape>>,
}

impl fmt::Debug for TapeDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TapeDisk").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Tape {
    contents: BTreeMap<u64, Arc<Vec<u8>>>,
    names: BTreeMap<PathBuf, u64>,
    folders: BTreeSet<PathBuf>,
    next_inode: u64,
    records: bool,
    ops: Vec<Op>,
    window: Window,
    faults: Faults,
    counts: Counts,
    snapshot_inodes: BTreeSet<u64>,
}

#[derive(Debug)]
struct TapeFile {
    disk: TapeDisk,
    inode: u64,
}

impl TapeDisk {
    /// A disk that holds these files. It writes down what is done to it, if it `records`.
    pub fn new(image: &Image, window: Window, records: bool) -> Self {
        let mut tape = Tape {
            records,
            window,
            ..Tape::default()
        };
        for (path, contents) in image {
            let inode = tape.next_inode;
            tape.next_inode += 1;
            tape.contents.insert(inode, Arc::clone(contents));
            tape.names.insert(path.clone(), inode);
            tape.folders
                .extend(path.ancestors().skip(1).map(Path::to_owned));
        }
        Self {
            tape: Arc::new(Mutex::new(tape)),
        }
    }

    /// The same disk for another process: what reads show is there, and inodes have the numbers they
    /// had. It writes down what is done to it.
    pub fn resumed(
        files: Vec<(PathBuf, u64, Arc<Vec<u8>>)>,
        next_inode: u64,
        window: Window,
    ) -> Self {
        let mut tape = Tape {
            records: true,
            window,
            next_inode,
            ..Tape::default()
        };
        for (path, inode, contents) in files {
            tape.folders
                .extend(path.ancestors().skip(1).map(Path::to_owned));
            tape.contents.insert(inode, contents);
            tape.names.insert(path, inode);
        }
        Self {
            tape: Arc::new(Mutex::new(tape)),
        }
    }

    pub fn set_faults(&self, faults: Faults) {
        self.tape.lock().faults = faults;
    }

    /// Notes what is known by now.
    pub fn note(&self, note: Note) {
        let mut tape = self.tape.lock();
        tape.window.note(note);
        tape.record(|| Op::Note(note));
    }

    /// What may be found if all goes dark now.
    pub fn window(&self) -> Window {
        self.tape.lock().window
    }

    /// All that was written down so far.
    pub fn take_ops(&self) -> Vec<Op> {
        std::mem::take(&mut self.tape.lock().ops)
    }

    /// What was done so far that can go wrong.
    pub fn counts(&self) -> Counts {
        self.tape.lock().counts
    }

    /// What reads see.
    pub fn image(&self) -> Image {
        let tape = self.tape.lock();
        let named = tape.names.iter();
        named
            .map(|(path, inode)| (path.clone(), Arc::clone(&tape.contents[inode])))
            .collect()
    }

    fn file(&self, inode: u64) -> Arc<dyn File> {
        Arc::new(TapeFile {
            disk: self.clone(),
            inode,
        })
    }
}

impl Tape {
    fn record(&mut self, op: impl FnOnce() -> Op) {
        if self.records {
            self.ops.push(op());
        }
    }

    fn check_folder(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(folder) if self.folders.contains(folder) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn contents_mut(&mut self, inode: u64) -> &mut Vec<u8> {
        Arc::make_mut(self.contents.entry(inode).or_default())
    }
}

/// Positions fit: the files are in memory.
pub(crate) fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a file in memory is shorter than the address space")
}

impl Disk for TapeDisk {
    /// Folders are there for good once they are made.
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut tape = self.tape.lock();
        tape.folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut tape = self.tape.lock();
        tape.check_folder(path)?;
        if tape.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = tape.next_inode;
        tape.next_inode += 1;
        tape.contents.insert(inode, Arc::default());
        tape.names.insert(path.to_owned(), inode);
        if path.to_string_lossy().contains("snapshot") {
            tape.snapshot_inodes.insert(inode);
        }
        tape.record(|| Op::Create {
            path: path.to_owned(),
            inode,
        });
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inode = self.tape.lock().names.get(path).copied();
        Ok(self.file(inode.ok_or(io::ErrorKind::NotFound)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut tape = self.tape.lock();
        tape.check_folder(to)?;
        let inode = tape.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        tape.names.insert(to.to_owned(), inode);
        tape.record(|| Op::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut tape = self.tape.lock();
        tape.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        tape.record(|| Op::Remove {
            path: path.to_owned(),
        });
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let tape = self.tape.lock();
        if !tape.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = tape.names.keys();
        let inside = inside.filter(|path| path.parent() == Some(folder));
        Ok(inside
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut tape = self.tape.lock();
        tape.counts.folder_syncs += 1;
        let fails = tape.faults.failing_folder_sync == Some(tape.counts.folder_syncs);
        tape.record(|| Op::SyncFolder {
            folder: folder.to_owned(),
            fails,
        });
        if fails {
            return Err(io::Error::other("a sync that was to fail"));
        }
        Ok(())
    }
}

impl File for TapeFile {
    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut tape = self.disk.tape.lock();
        let mut bytes = Bytes::copy_from_slice(bytes);
        if tape.snapshot_inodes.contains(&self.inode) {
            tape.counts.snapshot_writes += 1;
            if tape.faults.corrupt_snapshot_write == Some(tape.counts.snapshot_writes) {
                let mut flipped = bytes.to_vec();
                let middle = flipped.len() / 2;
                flipped[middle] ^= 0x10;
                bytes = flipped.into();
            }
        }
        let end = offset + bytes.len() as u64;
        let contents = tape.contents_mut(self.inode);
        if contents.len() < place(end) {
            contents.resize(place(end), 0);
        }
        contents[place(offset)..place(end)].copy_from_slice(&bytes);
        let length = bytes.len();
        let inode = self.inode;
        tape.record(|| Op::Write {
            inode,
            offset,
            bytes,
        });
        Ok(length)
    }

    fn read_some_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let tape = self.disk.tape.lock();
        let contents = &tape.contents[&self.inode];
        let start = place(offset).min(contents.len());
        let length = bytes.len().min(contents.len() - start);
        bytes[..length].copy_from_slice(&contents[start..start + length]);
        Ok(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut tape = self.disk.tape.lock();
        tape.counts.syncs += 1;
        let fails = tape.faults.failing_sync == Some(tape.counts.syncs);
        let inode = self.inode;
        tape.record(|| Op::Sync { inode, fails });
        if fails {
            return Err(io::Error::other("a sync that was to fail"));
        }
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        if self.length()? < length {
            self.set_length(length)?;
        }
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut tape = self.disk.tape.lock();
        let inode = self.inode;
        tape.contents_mut(inode).resize(place(length), 0);
        tape.record(|| Op::SetLength { inode, length });
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.tape.lock().contents[&self.inode].len() as u64)
    }

    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
}
