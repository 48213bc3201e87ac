//! The disk of one simulated server: in memory, with everything a disk can do to those who trust it.
//!
//! [`MemoryDisk`] knows what is durable and what is not; this adds time: how long a sync takes, and for
//! how long the disk hangs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_server::storage::file::{Disk, File};
use quorate_server::storage::memory::MemoryDisk;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

/// A server's disk. It outlives the server.
#[derive(Clone, Debug)]
pub struct SimDisk {
    memory: MemoryDisk,
    time: Arc<Mutex<Time>>,
}

#[derive(Debug)]
struct Time {
    random: SmallRng,
    /// What a sync takes, in milliseconds.
    sync_ms: (u64, u64),
    hangs_until: Option<Instant>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64, sync_ms: (u64, u64)) -> Self {
        Self {
            memory: MemoryDisk::new(),
            time: Arc::new(Mutex::new(Time {
                random: SmallRng::seed_from_u64(seed),
                sync_ms,
                hangs_until: None,
            })),
        }
    }

    /// What is on it.
    pub fn memory(&self) -> &MemoryDisk {
        &self.memory
    }

    /// Cuts the power: of what was not synced, each sector and each name is kept or not.
    pub fn cut_power(&mut self) {
        let time = Arc::clone(&self.time);
        // All, nothing, or some of it: the extremes are the likeliest to matter.
        let kept = match time.lock().random.random_range(0..4) {
            0 => 0.0,
            1 => 1.0,
            _ => 0.5,
        };
        let keep = || time.lock().random.random_bool(kept);
        self.memory = self.memory.crash(keep);
    }

    /// No sync returns for so long.
    pub fn hang(&self, span: Duration) {
        self.time.lock().hangs_until = Some(Instant::now() + span);
    }

    /// Ends a hang.
    pub fn go_on(&self) {
        self.time.lock().hangs_until = None;
    }
}

impl Disk for SimDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.memory.create_folder(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.memory.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.memory.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.memory.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.memory.remove(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.memory.list(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.memory.sync_folder(folder)
    }

    fn sync_takes(&self) -> Duration {
        let mut time = self.time.lock();
        let (low, high) = time.sync_ms;
        let usual = Duration::from_millis(time.random.random_range(low..=high));
        let hang = time
            .hangs_until
            .map(|until| until.saturating_duration_since(Instant::now()));
        usual.max(hang.unwrap_or_default())
    }
}
