//! Quotas: how much a subtree may hold, and how much it does.
//!
//! A client sets a quota on `P` by creating `/zookeeper/quota` + `P` + `/zookeeper_limits`; from then
//! on every write below `P` is counted, at the deepest path that has a quota. What was counted stands
//! in the sibling `zookeeper_stats`, if a client has created that: its data changes, but neither its
//! stat nor any watch takes notice. The counts themselves are part of the replicated state, because
//! with nested quotas they depend on history.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::edit::NewData;
use super::{DataTree, Found, digest};
use crate::digest::{Fact, Fingerprint};
use crate::error::OpError;

const QUOTA_ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "/zookeeper_limits";
const STATS: &str = "/zookeeper_stats";

/// The quotas by path. A clone is a handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quotas {
    by_path: Arc<BTreeMap<String, Quota>>,
    /// How often a soft limit was found exceeded on this server since it started.
    pub(crate) soft_exceeded: u64,
}

/// One quota: what was counted, and the limits its znode names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) count: i64,
    pub(crate) bytes: i64,
    limits: Limits,
}

/// -1 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    count: i64,
    bytes: i64,
    hard_count: i64,
    hard_bytes: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            count: -1,
            bytes: -1,
            hard_count: -1,
            hard_bytes: -1,
        }
    }
}

impl Limits {
    /// Reads `count=5,bytes=-1=;byteHardLimit=-1;countHardLimit=7` and whatever is like it: the order
    /// is free, what is missing or no number is no limit.
    fn parse(text: &[u8]) -> Self {
        let mut limits = Self::default();
        for pair in text.split(|byte| matches!(byte, b',' | b';')) {
            let Some((key, value)) = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| pair.split_once('='))
            else {
                continue;
            };
            // ZooKeeper writes `bytes=N=`, so that old versions stop reading there.
            let value = value.trim().trim_end_matches('=').parse().unwrap_or(-1);
            match key.trim() {
                "count" => limits.count = value,
                "bytes" => limits.bytes = value,
                "countHardLimit" => limits.hard_count = value,
                "byteHardLimit" => limits.hard_bytes = value,
                _ => {}
            }
        }
        limits
    }
}

impl Quota {
    pub(super) fn fingerprint(&self, path: &str) -> u64 {
        Fingerprint::of(Fact::Quota, digest::path(path))
            .number(self.count)
            .number(self.bytes)
            .finish()
    }

    fn exceeds_soft(&self) -> bool {
        let Limits { count, bytes, .. } = self.limits;
        (count > -1 && self.count > count) || (bytes > -1 && self.bytes > bytes)
    }
}

impl Quotas {
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Quota)> {
        self.by_path
            .iter()
            .map(|(path, quota)| (path.as_str(), quota))
    }

    /// The deepest path with a quota that `path` is, or is below of.
    fn covering<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.by_path.is_empty() {
            return None;
        }
        let mut prefix = path;
        while !prefix.is_empty() {
            if self.by_path.contains_key(prefix) {
                return Some(prefix);
            }
            prefix = super::parent_of(prefix);
        }
        None
    }
}

impl DataTree {
    /// Whether a hard limit allows `count` more znodes and `bytes` more data at `path`. Only what
    /// grows can be refused.
    pub(super) fn check_quota(&self, path: &str, count: i64, bytes: i64) -> Result<(), OpError> {
        let Some(quota) = self
            .quotas
            .covering(path)
            .map(|covering| &self.quotas.by_path[covering])
        else {
            return Ok(());
        };
        let exceeds = |limit: i64, used: i64, more: i64| {
            limit > -1 && more > 0 && used.saturating_add(more) > limit
        };
        if exceeds(quota.limits.hard_count, quota.count, count)
            || exceeds(quota.limits.hard_bytes, quota.bytes, bytes)
        {
            return Err(OpError::QuotaExceeded);
        }
        Ok(())
    }

    pub(super) fn quota_after_create(&mut self, path: &str, bytes: usize) {
        self.charge(path, 1, signed(bytes));
        if let Some(quota_path) = limited_by(path) {
            self.begin_quota(quota_path);
        } else if let Some(quota_path) = counted_at(path) {
            self.write_stats(quota_path);
        }
    }

    pub(super) fn quota_after_delete(&mut self, path: &str, bytes: usize) {
        if let Some(quota_path) = limited_by(path) {
            self.put_quota(quota_path, None);
        }
        self.charge(path, -1, -signed(bytes));
    }

    pub(super) fn quota_after_set_data(&mut self, path: &str, growth: i64) {
        if let Some(quota_path) = limited_by(path)
            && let Some(mut quota) = self.quotas.by_path.get(quota_path).copied()
        {
            quota.limits = self.limits_at(quota_path);
            self.put_quota(quota_path, Some(quota));
        }
        self.charge(path, 0, growth);
    }

    /// Puts a counted quota back, as a snapshot has it. Its limits are read from the tree.
    pub(crate) fn restore_quota(&mut self, path: &str, count: i64, bytes: i64) {
        let limits = self.limits_at(path);
        let quota = Quota {
            count,
            bytes,
            limits,
        };
        self.put_quota(path, Some(quota));
    }

    /// Counts what is there already, once: the price of setting a quota on a large subtree.
    fn begin_quota(&mut self, path: &str) {
        let mut quota = Quota {
            limits: self.limits_at(path),
            ..Quota::default()
        };
        if let Some(found) = self.find(path) {
            for (_, id) in self.nodes.subtree(found.id) {
                quota.count += 1;
                quota.bytes += signed(self.nodes.znode(id).data_len());
            }
        }
        self.put_quota(path, Some(quota));
        self.write_stats(path);
    }

    fn charge(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(path) = self.quotas.covering(path) else {
            return;
        };
        let mut quota = self.quotas.by_path[path];
        quota.count = quota.count.saturating_add(count);
        quota.bytes = quota.bytes.saturating_add(bytes);
        self.put_quota(path, Some(quota));
        if (count > 0 || bytes > 0) && quota.exceeds_soft() {
            self.quotas.soft_exceeded += 1;
        }
        self.write_stats(path);
    }

    fn put_quota(&mut self, path: &str, quota: Option<Quota>) {
        let quotas = Arc::make_mut(&mut self.quotas.by_path);
        let before = match quota {
            Some(quota) => quotas.insert(path.to_owned(), quota),
            None => quotas.remove(path),
        };
        let fact = |quota: Option<Quota>| quota.map_or(0, |quota| quota.fingerprint(path));
        self.totals.digest = self
            .totals
            .digest
            .wrapping_sub(fact(before))
            .wrapping_add(fact(quota));
    }

    fn limits_at(&self, path: &str) -> Limits {
        self.find(&limits_path(path))
            .and_then(|Found { id, .. }| self.nodes.znode(id).data)
            .map_or_else(Limits::default, Limits::parse)
    }

    fn write_stats(&mut self, path: &str) {
        let Some(quota) = self.quotas.by_path.get(path) else {
            return;
        };
        let text = format!("count={},bytes={}", quota.count, quota.bytes);
        if let Some(found) = self.find(&format!("{QUOTA_ROOT}{path}{STATS}")) {
            self.rewrite(found, &NewData::Set(Some(text.as_bytes())), |_| {});
        }
    }
}

/// The znode that sets the quota of `path`.
pub(super) fn limits_path(path: &str) -> String {
    format!("{QUOTA_ROOT}{path}{LIMITS}")
}

/// The path whose quota the znode at `path` sets.
fn limited_by(path: &str) -> Option<&str> {
    quota_path(path, LIMITS)
}

/// The path whose use the znode at `path` shows.
fn counted_at(path: &str) -> Option<&str> {
    quota_path(path, STATS)
}

/// Never empty: there is no quota on the root.
fn quota_path<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    path.strip_suffix(name)?
        .strip_prefix(QUOTA_ROOT)
        .filter(|quota_path| quota_path.starts_with('/'))
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
