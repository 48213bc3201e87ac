//! The machine's shape, which every figure depends on.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::error::BenchError;
use crate::process::kib;

const FSYNC_ROUNDS: usize = 200;
const FSYNC_BYTES: usize = 4096;

/// Microseconds that writing 4 KiB over existing blocks and fdatasync take together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FsyncLatency {
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
}

/// One line: cores, processor, memory, kernel, file system of `dir`.
pub(crate) fn describe(dir: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let memory_info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_gib = kib(&memory_info, "MemTotal").unwrap_or(0) >> 20;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim();
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let file_system = file_system(&mounts, &dir).unwrap_or("unknown file system");
    format!("{cores} cores ({model}), {memory_gib} GiB, Linux {kernel}, {file_system}")
}

/// The type of the file system mounted deepest above `dir`.
fn file_system<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((Path::new(fields.next()?), fields.next()?))
        })
        .filter(|(mount, _)| dir.starts_with(mount))
        .max_by_key(|(mount, _)| mount.components().count())
        .map(|(_, kind)| kind)
}

pub(crate) fn fsync_latency(dir: &Path) -> Result<FsyncLatency, BenchError> {
    let path = dir.join("fsync-latency");
    let failed = |source| BenchError::File {
        doing: "measuring fdatasync on",
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(failed)?;
    let block = [0; FSYNC_BYTES];
    let offset = |round: usize| (round * FSYNC_BYTES) as u64;
    for round in 0..FSYNC_ROUNDS {
        file.write_all_at(&block, offset(round)).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    let mut spans_us = Vec::with_capacity(FSYNC_ROUNDS);
    for round in 0..FSYNC_ROUNDS {
        let start = Instant::now();
        file.write_all_at(&block, offset(round)).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        spans_us.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    fs::remove_file(&path).map_err(failed)?;
    spans_us.sort_unstable();
    Ok(FsyncLatency {
        p50_us: spans_us[FSYNC_ROUNDS / 2],
        p99_us: spans_us[FSYNC_ROUNDS * 99 / 100],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_above_the_folder_counts() {
        let mounts =
            "/dev/a / ext4 rw 0 0\ntmpfs /data/tmp tmpfs rw 0 0\n/dev/b /data xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/data/x")), Some("xfs"));
        assert_eq!(file_system(mounts, Path::new("/data/tmp/x")), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/database")), Some("ext4"));
    }
}
