//! What a power cut may leave of a disk: from a tape, at any place of it.
//!
//! Durable is what was synced: contents sector by sector, names folder by folder. Of the rest any
//! part may have got there: each sector as it was, as it is, or as it was in between; each name or
//! not. A write that was under way may also have ended at any byte, all before it being there: on
//! such a disk, too, a server starts ([`Damage::Within`]). Where single sectors are written in part,
//! in any order, more is asked for than disks do and than the log's format promises to tell from
//! damage; a server may refuse then, but never lose anything ([`Damage::Beyond`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;

use crate::tape::{Image, Op, place};

/// What disks write whole or not at all.
pub const SECTOR: usize = 512;

/// Older contents of one sector that may still be what is on the disk, at most.
const VERSIONS_MAX: usize = 4;

#[derive(Default)]
struct Inode {
    durable: Arc<Vec<u8>>,
    current: Arc<Vec<u8>>,
    /// Sectors in which they differ, with what they held in between.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Sectors that the cache shows and no later sync will write: their sync has failed.
    lost: BTreeSet<usize>,
    /// The last write, while it is not synced: from where to where.
    last_write: Option<(usize, usize)>,
}

/// A disk as it is and as it would be found after a power cut now.
#[derive(Default)]
pub struct Wreck {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    next_inode: u64,
    /// The file that was last written to.
    last_written: Option<u64>,
}

/// How much a power cut does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Sectors are whole, but for the end of the write that was under way.
    Within,
    /// Sectors are torn.
    Beyond,
}

/// One way in which a power cut may end. Equal ones leave equal disks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    choices: Vec<u16>,
}

impl Wreck {
    /// A disk on which all of this is durable.
    pub fn of(image: &Image) -> Self {
        let mut wreck = Self::default();
        for (path, contents) in image {
            let inode = wreck.next_inode;
            wreck.next_inode += 1;
            wreck.inodes.insert(
                inode,
                Inode {
                    durable: Arc::clone(contents),
                    current: Arc::clone(contents),
                    ..Inode::default()
                },
            );
            wreck.names.insert(path.clone(), inode);
            wreck.durable_names.insert(path.clone(), inode);
        }
        wreck
    }

    /// Does what the tape says was done. Inodes have the numbers that the tape's disk gave them.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Note(_) => {}
            Op::Create { path, inode } => {
                self.next_inode = self.next_inode.max(*inode + 1);
                self.inodes.insert(*inode, Inode::default());
                self.names.insert(path.clone(), *inode);
            }
            Op::Write {
                inode,
                offset,
                bytes,
            } => {
                self.last_written = Some(*inode);
                self.inode(*inode).write(place(*offset), bytes);
            }
            Op::SetLength { inode, length } => self.inode(*inode).set_length(place(*length)),
            Op::Sync { inode, fails } => self.inode(*inode).sync(*fails),
            Op::Rename { from, to } => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                }
            }
            Op::Remove { path } => {
                self.names.remove(path);
            }
            // A later one still makes the names durable: they are in the file system's journal.
            Op::SyncFolder { fails: true, .. } => {}
            Op::SyncFolder { folder, .. } => {
                let is_inside = |path: &PathBuf| path.parent() == Some(folder);
                self.durable_names.retain(|path, _| !is_inside(path));
                let inside = self.names.iter().filter(|(path, _)| is_inside(path));
                let inside: Vec<_> = inside.map(|(path, inode)| (path.clone(), *inode)).collect();
                self.durable_names.extend(inside);
                self.forget_nameless();
            }
        }
    }

    fn forget_nameless(&mut self) {
        let named: BTreeSet<u64> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .copied()
            .collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }

    /// An inode without a name may still be written to.
    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.entry(inode).or_default()
    }

    /// How many ways there are for what matters: unsynced sectors of files that a start looks at, and
    /// unsynced names.
    pub fn loose_ends(&self) -> usize {
        let looked_at: BTreeSet<u64> = self
            .names
            .iter()
            .chain(&self.durable_names)
            .filter(|(path, _)| path.extension().is_none_or(|extension| extension != "tmp"))
            .map(|(_, inode)| *inode)
            .collect();
        let sectors = looked_at.iter().filter_map(|inode| self.inodes.get(inode));
        sectors.map(|inode| inode.dirty.len()).sum::<usize>() + self.loose_names().len()
    }

    fn loose_names(&self) -> Vec<PathBuf> {
        let known: BTreeSet<&PathBuf> =
            self.names.keys().chain(self.durable_names.keys()).collect();
        known
            .into_iter()
            .filter(|name| self.names.get(*name) != self.durable_names.get(*name))
            .cloned()
            .collect()
    }

    /// Cuts the power, and decides by the generator what is left. `number` says how: 0 leaves nothing
    /// that was not synced, 1 everything, others whatever comes.
    pub fn cut(&self, number: usize, random: &mut SmallRng) -> (Image, Cut, Damage) {
        let mut chosen = Vec::new();
        let mut contents: BTreeMap<u64, Arc<Vec<u8>>> = BTreeMap::new();
        let style = match number {
            0 => Style::Nothing,
            1 => Style::Everything,
            _ => match random.random_range(0..8) {
                0..=3 => Style::Any(
                    *[10, 50, 50, 90]
                        .get(random.random_range(0..4))
                        .unwrap_or(&50),
                ),
                4..=5 => Style::EndsAt,
                _ => Style::Torn,
            },
        };
        let mut damage = Damage::Within;
        for (number, inode) in &self.inodes {
            let is_last = self.last_written == Some(*number);
            let left = inode.left(style, is_last, random, &mut chosen, &mut damage);
            contents.insert(*number, left);
        }
        let mut names = self.durable_names.clone();
        for name in self.loose_names() {
            let keep = match style {
                Style::Nothing => false,
                Style::Everything => true,
                Style::Any(_) | Style::EndsAt | Style::Torn => random.random(),
            };
            chosen.push(u16::from(keep));
            if keep {
                match self.names.get(&name) {
                    Some(inode) => names.insert(name, *inode),
                    None => names.remove(&name),
                };
            }
        }
        let image = names
            .into_iter()
            .map(|(path, inode)| (path, contents.get(&inode).cloned().unwrap_or_default()))
            .collect();
        (image, Cut { choices: chosen }, damage)
    }

    /// What reads show to a process that starts now, with the numbers of the inodes.
    pub fn cached(&self) -> Vec<(PathBuf, u64, Arc<Vec<u8>>)> {
        let current = |inode: &u64| {
            let inode = self.inodes.get(inode);
            inode.map_or_else(Arc::default, |inode| Arc::clone(&inode.current))
        };
        let names = self.names.iter();
        names
            .map(|(path, inode)| (path.clone(), *inode, current(inode)))
            .collect()
    }

    /// A number that no inode has had.
    pub fn fresh_inode(&self) -> u64 {
        self.inodes
            .last_key_value()
            .map_or(0, |(inode, _)| inode + 1)
            .max(self.next_inode)
    }

    /// Whether everything is durable.
    pub fn is_clean(&self) -> bool {
        self.names == self.durable_names && self.inodes.values().all(|inode| inode.dirty.is_empty())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Nothing,
    Everything,
    /// Each sector with this chance, in per cent.
    Any(u32),
    /// All but the end of the last write.
    EndsAt,
    /// As `Any`, and one sector in part.
    Torn,
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            self.touch(sector);
        }
        let current = Arc::make_mut(&mut self.current);
        if current.len() < end {
            let old = current.len();
            current.resize(end, 0);
            for sector in old / SECTOR..offset / SECTOR {
                self.dirty.entry(sector).or_default();
            }
        }
        Arc::make_mut(&mut self.current)[offset..end].copy_from_slice(bytes);
        self.last_write = Some((offset, end));
    }

    /// After a failure the cache shows what no later sync will write (Rebello et al., "Can Applications
    /// Recover from fsync Failures?", ATC 2020).
    fn sync(&mut self, fails: bool) {
        self.last_write = None;
        let dirty = std::mem::take(&mut self.dirty);
        if fails {
            self.lost.extend(dirty.into_keys());
        } else if self.lost.is_empty() {
            self.durable = Arc::clone(&self.current);
        } else {
            let durable = Arc::make_mut(&mut self.durable);
            for sector in dirty.into_keys() {
                put(
                    durable,
                    &self.current,
                    sector * SECTOR,
                    (sector + 1) * SECTOR,
                );
            }
            durable.resize(self.current.len(), 0);
        }
    }

    /// A sector is about to change: what it holds may stay on the disk.
    fn touch(&mut self, sector: usize) {
        self.lost.remove(&sector);
        match self.dirty.entry(sector) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Vec::new());
            }
            std::collections::btree_map::Entry::Occupied(mut occupied) => {
                let start = (sector * SECTOR).min(self.current.len());
                let end = (start + SECTOR).min(self.current.len());
                if occupied.get().len() < VERSIONS_MAX {
                    occupied.get_mut().push(self.current[start..end].to_vec());
                }
            }
        }
    }

    fn set_length(&mut self, length: usize) {
        let old = self.current.len();
        Arc::make_mut(&mut self.current).resize(length, 0);
        for sector in old.min(length) / SECTOR..old.max(length).div_ceil(SECTOR) {
            self.dirty.entry(sector).or_default();
        }
        self.last_write = None;
    }

    fn left(
        &self,
        style: Style,
        is_last: bool,
        random: &mut SmallRng,
        chosen: &mut Vec<u16>,
        damage: &mut Damage,
    ) -> Arc<Vec<u8>> {
        if self.dirty.is_empty() || style == Style::Nothing {
            chosen.push(0);
            return Arc::clone(&self.durable);
        }
        if style == Style::Everything {
            chosen.push(1);
            return Arc::clone(&self.current);
        }
        if style == Style::EndsAt
            && let Some((from, to)) = self.last_write.filter(|_| is_last)
        {
            return self.ends_within(from, to, random, chosen);
        }
        let mut left = self.durable.to_vec();
        let chance = match style {
            Style::Any(chance) => chance,
            _ => 50,
        };
        let torn = (style == Style::Torn && is_last)
            .then(|| {
                self.dirty
                    .keys()
                    .nth(random.random_range(0..self.dirty.len()))
            })
            .flatten();
        for (sector, versions) in &self.dirty {
            if torn == Some(sector) {
                let at = random.random_range(1..SECTOR);
                let ends = random.random();
                chosen.extend([2, index(at), u16::from(ends)]);
                let (start, middle, end) =
                    (sector * SECTOR, sector * SECTOR + at, (sector + 1) * SECTOR);
                if ends {
                    put(&mut left, &self.current, start, middle);
                } else {
                    put(&mut left, &self.current, middle, end);
                }
                *damage = Damage::Beyond;
                continue;
            }
            if random.random_range(0..100) >= chance {
                chosen.push(0);
                continue;
            }
            let version = random.random_range(0..=versions.len());
            chosen.push(3 + index(version));
            match versions.get(version) {
                Some(older) => put_bytes(&mut left, older, sector * SECTOR),
                None => put(
                    &mut left,
                    &self.current,
                    sector * SECTOR,
                    (sector + 1) * SECTOR,
                ),
            }
        }
        Arc::new(left)
    }

    /// All of it, but of the last write only what is before some byte.
    fn ends_within(
        &self,
        from: usize,
        to: usize,
        random: &mut SmallRng,
        chosen: &mut Vec<u16>,
    ) -> Arc<Vec<u8>> {
        let at = random.random_range(from..to);
        chosen.extend([4, index(at - from)]);
        let mut left = self.durable.to_vec();
        let mut before: Vec<usize> = self.dirty.keys().copied().collect();
        before.retain(|sector| sector * SECTOR < from || sector * SECTOR >= to);
        for sector in before {
            put(
                &mut left,
                &self.current,
                sector * SECTOR,
                (sector + 1) * SECTOR,
            );
        }
        if left.len() < at {
            left.resize(at, 0);
        }
        // What shares a sector with the beginning was there before it.
        put(&mut left, &self.current, from - from % SECTOR, at);
        Arc::new(left)
    }
}

fn index(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// Copies `from..to` as far as `source` goes. Where it ends before, so does the file.
fn put(target: &mut Vec<u8>, source: &[u8], from: usize, to: usize) {
    if from >= source.len() {
        target.truncate(source.len());
        return;
    }
    let to = to.min(source.len());
    if target.len() < to {
        target.resize(to, 0);
    }
    target[from..to].copy_from_slice(&source[from..to]);
}

fn put_bytes(target: &mut Vec<u8>, bytes: &[u8], from: usize) {
    let to = from + bytes.len();
    if target.len() < to {
        target.resize(to, 0);
    }
    target[from..to].copy_from_slice(bytes);
}
