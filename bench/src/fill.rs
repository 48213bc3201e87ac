//! Loading a tree quickly, and what it costs the server in memory.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::process::{self, Memory};
use crate::tree::Tree;
use crate::workload::Shape;

/// Children of one parent in a filled tree.
const CHILDREN_PER_PARENT: u32 = 1_000;

#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) znodes: u32,
    pub(crate) data_bytes: usize,
    pub(crate) elapsed: Duration,
    /// Before and after, if the process was named.
    pub(crate) memory: Option<(Memory, Memory)>,
}

/// Creates `znodes` znodes under parents of 1,000 children each, and leaves them there.
pub(crate) fn fill(
    server: SocketAddr,
    znodes: u32,
    data_bytes: usize,
    multi_ops: u32,
    pid: Option<u32>,
) -> Result<Filled, BenchError> {
    let shape = Shape {
        parents: znodes.div_ceil(CHILDREN_PER_PARENT).max(1),
        keys: znodes,
        data_bytes,
    };
    let before = pid.map(process::memory).transpose()?;
    let start = Instant::now();
    Tree::make(&[server], shape, multi_ops)?;
    let elapsed = start.elapsed();
    let after = pid.map(process::memory).transpose()?;
    Ok(Filled {
        znodes,
        data_bytes,
        elapsed,
        memory: before.zip(after),
    })
}

impl Filled {
    /// For people, and one line of JSON.
    pub(crate) fn lines(&self) -> String {
        let seconds = self.elapsed.as_secs_f64();
        let rate = f64::from(self.znodes) / seconds;
        let Some((before, after)) = self.memory else {
            return format!(
                "{} znodes of {} B in {seconds:.1} s ({rate:.0}/s)\n\
                 {{\"znodes\":{},\"data_bytes\":{},\"seconds\":{seconds:.3}}}",
                self.znodes, self.data_bytes, self.znodes, self.data_bytes
            );
        };
        let per_znode = bytes_per_znode(before, after, self.znodes);
        format!(
            "{} znodes of {} B in {seconds:.1} s ({rate:.0}/s); resident {} -> {} MiB (peak {}, \
             proportional {}), {per_znode} B per znode\n\
             {{\"znodes\":{},\"data_bytes\":{},\"seconds\":{seconds:.3},\"rss_kib_before\":{},\
             \"rss_kib\":{},\"rss_peak_kib\":{},\"pss_kib\":{},\"bytes_per_znode\":{per_znode}}}",
            self.znodes,
            self.data_bytes,
            before.rss_kib >> 10,
            after.rss_kib >> 10,
            after.rss_peak_kib >> 10,
            after.pss_kib >> 10,
            self.znodes,
            self.data_bytes,
            before.rss_kib,
            after.rss_kib,
            after.rss_peak_kib,
            after.pss_kib,
        )
    }
}

/// How much resident memory grew, per znode.
pub(crate) fn bytes_per_znode(before: Memory, after: Memory, znodes: u32) -> u64 {
    let grown_kib = after.rss_kib.saturating_sub(before.rss_kib);
    grown_kib * 1024 / u64::from(znodes.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_added_counts_per_znode() {
        let memory = |rss_kib| Memory {
            rss_kib,
            ..Memory::default()
        };
        assert_eq!(bytes_per_znode(memory(1000), memory(3000), 2048), 1000);
        assert_eq!(bytes_per_znode(memory(3000), memory(1000), 10), 0);
    }
}
