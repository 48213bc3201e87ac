//! A disk in memory that loses what was not synced: for tests and for simulation.
//!
//! Data is durable sector by sector (512 bytes, written whole or not at all), names folder by
//! folder. [`MemoryDisk::crash`] goes back to what was durable plus whatever part of the rest the
//! caller picks, as a power cut does. A failed sync drops its data from what a later sync would
//! write while reads still show it, as Linux does. Handles from before a crash fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::file::{Disk, File};

/// What a disk writes whole or not at all.
pub const SECTOR: u64 = 512;

/// A disk in memory. Clones share it, and go dark together when the power is cut.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    /// Of the boot this handle belongs to.
    generation: u64,
}

/// Without the contents, which are long.
impl fmt::Debug for MemoryDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MemoryDisk").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    folders: BTreeSet<PathBuf>,
    next_inode: u64,
    /// Counts power cuts; a handle from before the last one is void.
    generation: u64,
    capacity: Option<u64>,
    write_bytes_max: Option<usize>,
    interrupts: u64,
    syncs: u64,
    fail_sync_at: Option<u64>,
    writes: u64,
    fail_write_at: Option<(u64, io::ErrorKind)>,
    fail_folder_syncs: bool,
    ignore_folder_syncs: bool,
    changes: u64,
    cut_at: Option<(u64, u64)>,
    corrupt_next_write: bool,
}

#[derive(Default)]
struct Inode {
    /// What reads see.
    contents: Vec<u8>,
    /// What survives.
    durable: Vec<u8>,
    /// The sectors in which they may differ and which a sync would write.
    dirty: BTreeSet<u64>,
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Cuts the power and returns the disk as it is found afterwards. `keep` is asked for each
    /// unsynced sector and each unsynced name, in a fixed order, whether it reached the disk.
    pub fn crash(&self, keep: impl FnMut() -> bool) -> MemoryDisk {
        let mut state = self.state.lock();
        state.cut_power(keep);
        state.cut_at = None;
        MemoryDisk {
            state: self.state.clone(),
            generation: state.generation,
        }
    }

    /// Cuts the power just before the `nth` change from now, of data or names or by a sync; of what
    /// is unsynced then, `seed` decides what is kept.
    pub fn cut_power_at(&self, nth: u64, seed: u64) {
        let mut state = self.state.lock();
        state.cut_at = Some((state.changes + nth, seed));
    }

    /// The disk after a power cut.
    pub fn power_on(&self) -> MemoryDisk {
        MemoryDisk {
            state: self.state.clone(),
            generation: self.state.lock().generation,
        }
    }

    /// How many changes there were: a range for [`MemoryDisk::cut_power_at`].
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// How many bytes all files together may take; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// How many bytes the named files take.
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }

    /// Lets each write take at most so many bytes.
    pub fn set_write_bytes_max(&self, bytes: Option<usize>) {
        self.state.lock().write_bytes_max = bytes;
    }

    /// Lets the next `count` writes fail as interrupted.
    pub fn interrupt_writes(&self, count: u64) {
        self.state.lock().interrupts = count;
    }

    /// Lets the `nth` file sync from now fail (1 is the next), once.
    pub fn fail_sync(&self, nth: u64) {
        let mut state = self.state.lock();
        state.fail_sync_at = Some(state.syncs + nth);
    }

    /// Lets the `nth` write from now fail (1 is the next), once.
    pub fn fail_write(&self, nth: u64, kind: io::ErrorKind) {
        let mut state = self.state.lock();
        state.fail_write_at = Some((state.writes + nth, kind));
    }

    /// Flips a bit of what the next write brings to the disk.
    pub fn corrupt_next_write(&self) {
        self.state.lock().corrupt_next_write = true;
    }

    /// Lets all folder syncs fail, or no longer.
    pub fn fail_folder_syncs(&self, fail: bool) {
        self.state.lock().fail_folder_syncs = fail;
    }

    /// Lets folder syncs claim to work and do nothing.
    pub fn ignore_folder_syncs(&self) {
        self.state.lock().ignore_folder_syncs = true;
    }

    /// How many file syncs were asked for, failed ones included.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// The contents of a file, as reads see it.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state
            .names
            .get(path)
            .map(|inode| state.inodes[inode].contents.clone())
    }

    /// Makes a file durable with these contents, whatever was there: damage from outside.
    pub fn plant(&self, path: &Path, contents: &[u8]) {
        let mut state = self.state.lock();
        let id = state.next_inode;
        state.next_inode += 1;
        let inode = Inode {
            contents: contents.to_vec(),
            durable: contents.to_vec(),
            dirty: BTreeSet::new(),
        };
        state.inodes.insert(id, inode);
        state.names.insert(path.to_owned(), id);
        state.durable_names.insert(path.to_owned(), id);
        if let Some(folder) = path.parent() {
            state.folders.insert(folder.to_owned());
        }
    }

    /// All files with their contents, to compare before and after.
    pub fn image(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state.lock();
        let contents = |inode: &u64| state.inodes[inode].contents.clone();
        state
            .names
            .iter()
            .map(|(path, inode)| (path.clone(), contents(inode)))
            .collect()
    }

    /// A disk that holds exactly these files, all of them durable.
    pub fn from_image(image: &BTreeMap<PathBuf, Vec<u8>>) -> MemoryDisk {
        let disk = MemoryDisk::new();
        for (path, contents) in image {
            disk.plant(path, contents);
        }
        disk
    }

    fn handle(&self, inode: u64) -> Arc<dyn File> {
        Arc::new(MemoryFile {
            disk: self.clone(),
            inode,
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        state.check_power(self.generation)?;
        act(&mut state)
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.with(|state| {
            state.changes += 1;
            if let Some((at, mut seed)) = state.cut_at
                && at == state.changes
            {
                state.cut_power(|| {
                    // An LCG's top bit: good enough for a coin.
                    seed = seed
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695);
                    seed >> 63 == 0
                });
            }
            state.check_power(self.generation)?;
            act(state)
        })
    }
}

impl State {
    fn check_power(&self, generation: u64) -> io::Result<()> {
        if self.generation == generation {
            return Ok(());
        }
        Err(io::Error::other("the power went out"))
    }

    fn cut_power(&mut self, mut keep: impl FnMut() -> bool) {
        self.generation += 1;
        for inode in self.inodes.values_mut() {
            for sector in std::mem::take(&mut inode.dirty) {
                if keep() {
                    inode.persist(sector);
                }
            }
            inode.contents.clone_from(&inode.durable);
        }
        let known = self.names.keys().chain(self.durable_names.keys());
        let known: BTreeSet<PathBuf> = known.cloned().collect();
        for name in known {
            let now = self.names.get(&name).copied();
            if now != self.durable_names.get(&name).copied() && keep() {
                match now {
                    Some(inode) => self.durable_names.insert(name, inode),
                    None => self.durable_names.remove(&name),
                };
            }
        }
        self.names = self.durable_names.clone();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|inode| self.inodes[inode].contents.len() as u64)
            .sum()
    }

    fn reserve(&self, inode: u64, length: u64) -> io::Result<()> {
        let grown = length.saturating_sub(self.inodes[&inode].contents.len() as u64);
        match self.capacity {
            Some(capacity) if grown > 0 && self.used() + grown > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn folder_of(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(folder) if self.folders.contains(folder) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Inode {
    fn resize(&mut self, length: u64) {
        let old = self.contents.len() as u64;
        self.contents.resize(index(length), 0);
        // The sectors whose presence differs: a kept one brings its length along.
        self.dirty
            .extend(old.min(length) / SECTOR..old.max(length).div_ceil(SECTOR));
    }

    fn persist(&mut self, sector: u64) {
        let start = index(sector * SECTOR);
        let end = index((sector + 1) * SECTOR).min(self.contents.len());
        if start >= end {
            self.durable.truncate(start.min(self.contents.len()));
            return;
        }
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.contents[start..end]);
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.persist(sector);
        }
        self.durable.resize(self.contents.len(), 0);
    }
}

/// Positions fit: the files are in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a file in memory is shorter than the address space")
}

impl Disk for MemoryDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.folders.extend(path.ancestors().map(Path::to_owned));
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.change(|state| {
            state.folder_of(path)?;
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let inode = state.next_inode;
            state.next_inode += 1;
            state.inodes.insert(inode, Inode::default());
            state.names.insert(path.to_owned(), inode);
            Ok(self.handle(inode))
        })
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.with(|state| {
            let inode = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            Ok(self.handle(*inode))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            state.folder_of(to)?;
            let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), inode);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            let removed = state.names.remove(path);
            removed
                .map(|_| ())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.with(|state| {
            if !state.folders.contains(folder) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let inside = state
                .names
                .keys()
                .filter(|path| path.parent() == Some(folder));
            Ok(inside
                .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
                .collect())
        })
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.change(|state| {
            if state.fail_folder_syncs {
                return Err(io::Error::other("injected folder sync failure"));
            }
            if state.ignore_folder_syncs {
                return Ok(());
            }
            state
                .durable_names
                .retain(|path, _| path.parent() != Some(folder));
            let inside = state
                .names
                .iter()
                .filter(|(path, _)| path.parent() == Some(folder));
            state
                .durable_names
                .extend(inside.map(|(path, inode)| (path.clone(), *inode)));
            Ok(())
        })
    }
}

impl MemoryFile {
    fn change<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        self.disk.change(|state| act(state, self.inode))
    }

    fn read<T>(&self, act: impl FnOnce(&Inode) -> T) -> io::Result<T> {
        self.disk.with(|state| Ok(act(&state.inodes[&self.inode])))
    }
}

impl State {
    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes
            .get_mut(&inode)
            .expect("an inode lives until the power cut that voids its handles")
    }
}

impl File for MemoryFile {
    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.change(|state, inode| {
            if state.interrupts > 0 {
                state.interrupts -= 1;
                return Err(io::ErrorKind::Interrupted.into());
            }
            state.writes += 1;
            if let Some((at, kind)) = state.fail_write_at
                && at == state.writes
            {
                return Err(kind.into());
            }
            let length = bytes.len().min(state.write_bytes_max.unwrap_or(usize::MAX));
            if length == 0 {
                return Ok(0);
            }
            let end = offset + length as u64;
            state.reserve(inode, end)?;
            let corrupt = std::mem::take(&mut state.corrupt_next_write);
            let inode = state.inode(inode);
            if (inode.contents.len() as u64) < end {
                inode.resize(end);
            }
            inode.contents[index(offset)..index(end)].copy_from_slice(&bytes[..length]);
            inode.contents[index(offset)] ^= u8::from(corrupt);
            inode.dirty.extend(offset / SECTOR..end.div_ceil(SECTOR));
            Ok(length)
        })
    }

    fn read_some_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(|inode| {
            let start = index(offset).min(inode.contents.len());
            let length = bytes.len().min(inode.contents.len() - start);
            bytes[..length].copy_from_slice(&inode.contents[start..start + length]);
            length
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.change(|state, inode| {
            state.syncs += 1;
            let failed = state.fail_sync_at == Some(state.syncs);
            let inode = state.inode(inode);
            if failed {
                inode.dirty.clear();
                return Err(io::Error::other("injected sync failure"));
            }
            inode.sync();
            Ok(())
        })
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.change(|state, inode| {
            state.reserve(inode, length)?;
            let inode = state.inode(inode);
            if (inode.contents.len() as u64) < length {
                inode.resize(length);
            }
            Ok(())
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change(|state, inode| {
            state.reserve(inode, length)?;
            state.inode(inode).resize(length);
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.read(|inode| inode.contents.len() as u64)
    }

    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
}
