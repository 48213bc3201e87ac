//! What the kernel says about a process: memory and processor time, from `/proc`.

use std::fs;
use std::time::Duration;

use crate::error::BenchError;

/// Clock ticks per second in `/proc/<pid>/stat`: fixed at 100 for user space on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Kibibytes, as the kernel counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) rss_kib: u64,
    /// The most it has been.
    pub(crate) rss_peak_kib: u64,
    /// As `rss_kib`, with shared pages divided among those who share them.
    pub(crate) pss_kib: u64,
}

pub(crate) fn memory(pid: u32) -> Result<Memory, BenchError> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let rollup = read("smaps_rollup");
    let field = |text, name| kib(text, name).ok_or(BenchError::ProcessUnknown { pid, field: name });
    Ok(Memory {
        rss_kib: field(&status, "VmRSS")?,
        rss_peak_kib: field(&status, "VmHWM")?,
        pss_kib: field(&rollup, "Pss")?,
    })
}

/// The number in a line such as `VmRSS:     1234 kB`.
pub(crate) fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of all threads so far, in steps of 10 ms.
pub(crate) fn cpu(pid: u32) -> Result<Duration, BenchError> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let unknown = BenchError::ProcessUnknown { pid, field: "stat" };
    cpu_ticks(&stat)
        .map(|ticks| Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
        .ok_or(unknown)
}

/// Of several processes together; `None` for none.
pub(crate) fn cpu_of(pids: &[u32]) -> Result<Option<Duration>, BenchError> {
    if pids.is_empty() {
        return Ok(None);
    }
    pids.iter()
        .map(|pid| cpu(*pid))
        .sum::<Result<_, _>>()
        .map(Some)
}

/// Fields 14 and 15 of proc(5)'s stat. Field 2, the name, may hold spaces, but ends with the last
/// parenthesis.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_understood() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kib(status, "VmRSS"), Some(1024));
        assert_eq!(kib(status, "VmHWM"), Some(2048));
        assert_eq!(kib(status, "Pss"), None);
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (x) S"), None);
    }

    #[test]
    fn this_very_process_has_memory() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.rss_kib > 0);
        assert!(memory.rss_peak_kib >= memory.rss_kib);
    }
}
