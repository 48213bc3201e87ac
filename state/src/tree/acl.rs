//! ACLs: who may, and one copy of each list however many znodes have it.

use std::sync::Arc;

use hashbrown::HashTable;
use quorate_protocol::{Acl, AclEntry, Id, Perms};

use crate::command::Rules;
use crate::digest::{Fact, Fingerprint};
use crate::error::OpError;
use crate::pages::{Indexes, Pages};

/// Whether an ACL gives somebody with `identities` one of the permissions `wanted`. An empty ACL
/// allows everyone, and a superuser may do everything.
pub fn permits(acl: &[Acl], wanted: Perms, identities: &[Id]) -> bool {
    acl.is_empty()
        || acl.iter().any(|entry| entry.grants(wanted, identities))
        || identities.iter().any(Id::is_superuser)
}

/// The number of an ACL on this server. Others number theirs otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AclId(pub(crate) u32);

impl AclId {
    /// Everything for everyone: what nearly every znode has.
    pub(crate) const OPEN: Self = Self(0);
    /// Reading for everyone: what `/zookeeper/config` has.
    pub(crate) const READ_ONLY: Self = Self(1);

    /// These two are never dropped, so nobody counts who uses them.
    fn is_counted(self) -> bool {
        self.0 > Self::READ_ONLY.0
    }
}

/// An ACL and its hash.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownAcl {
    entries: Arc<[Acl]>,
    fingerprint: u64,
}

/// The lists, which is all a view needs.
#[derive(Clone, Debug)]
pub(crate) struct Acls(Pages<KnownAcl>);

/// How often each is used, and which number it has.
#[derive(Debug)]
pub(crate) struct AclUses {
    indexes: Indexes,
    /// How many records name the ACL.
    counts: Vec<u32>,
    numbers: HashTable<AclId>,
}

impl Acls {
    pub(crate) fn get(&self, id: AclId) -> &Arc<[Acl]> {
        &self.0.get(id.0).entries
    }

    pub(crate) fn fingerprint(&self, id: AclId) -> u64 {
        self.0.get(id.0).fingerprint
    }
}

impl AclUses {
    pub(crate) fn new() -> (Acls, Self) {
        let mut acls = Acls(Pages::new());
        let mut uses = Self {
            indexes: Indexes::default(),
            counts: Vec::new(),
            numbers: HashTable::new(),
        };
        let open = uses.number(&mut acls, vec![Acl::world(Perms::ALL)]);
        let read_only = uses.number(&mut acls, vec![Acl::world(Perms::READ)]);
        debug_assert_eq!((open, read_only), (AclId::OPEN, AclId::READ_ONLY));
        (acls, uses)
    }

    /// The number of a list, a new one if need be. It lasts as long as a record uses it.
    pub(crate) fn number(&mut self, acls: &mut Acls, entries: Vec<Acl>) -> AclId {
        let fingerprint = fingerprint(&entries);
        let known = self
            .numbers
            .find(fingerprint, |id| **acls.get(*id) == *entries);
        if let Some(id) = known {
            return *id;
        }
        let id = AclId(self.indexes.take());
        let entries = entries.into();
        acls.0.set(
            id.0,
            KnownAcl {
                entries,
                fingerprint,
            },
        );
        self.counts
            .resize(self.counts.len().max(id.0 as usize + 1), 0);
        self.numbers
            .insert_unique(fingerprint, id, |id| acls.fingerprint(*id));
        id
    }

    /// A record names the ACL.
    pub(crate) fn keep(&mut self, id: AclId) {
        if id.is_counted() {
            self.counts[id.0 as usize] += 1;
        }
    }

    /// A record that named the ACL is gone.
    pub(crate) fn release(&mut self, acls: &mut Acls, id: AclId) {
        if !id.is_counted() {
            return;
        }
        self.counts[id.0 as usize] -= 1;
        if self.counts[id.0 as usize] == 0 {
            self.drop_acl(acls, id);
        }
    }

    fn drop_acl(&mut self, acls: &mut Acls, id: AclId) {
        let fingerprint = acls.fingerprint(id);
        if let Ok(entry) = self.numbers.find_entry(fingerprint, |other| *other == id) {
            entry.remove();
        }
        acls.0.set(id.0, KnownAcl::default());
        self.indexes.give_back(id.0);
    }
}

/// What a client asked for, as the znode will have it; `None` is the open ACL, without a copy.
pub(crate) fn resolve(
    entries: &[AclEntry],
    identities: &[Id],
    rules: Rules,
) -> Result<Option<Vec<Acl>>, OpError> {
    if let [entry] = entries
        && entry.perms == Perms::ALL
        && entry.scheme.as_deref() == Some("world")
        && entry.id.as_deref() == Some("anyone")
    {
        return Ok(None);
    }
    match Acl::resolve(entries, identities) {
        // A scheme that nobody can prove is unknown, as in ZooKeeper without its provider.
        Ok(acl) if !rules.x509_enabled && acl.iter().any(|entry| entry.id().scheme == "x509") => {
            Err(OpError::InvalidAcl)
        }
        Ok(acl) => Ok(Some(acl)),
        Err(_) => Err(OpError::InvalidAcl),
    }
}

/// The ACL as those see it who may not administrate: a digest's hash is hidden.
pub(crate) fn masked(acl: &[Acl]) -> Vec<AclEntry> {
    acl.iter()
        .map(|entry| {
            let id = entry.id();
            match (id.scheme.as_str(), id.id.split_once(':')) {
                ("digest", Some((user, _))) => {
                    AclEntry::new(entry.perms, "digest", &format!("{user}:x"))
                }
                _ => AclEntry::from(entry.clone()),
            }
        })
        .collect()
}

fn fingerprint(entries: &[Acl]) -> u64 {
    entries
        .iter()
        .fold(Fingerprint::of(Fact::Acl, 0), |hash, entry| {
            hash.number(entry.perms.0.into())
                .bytes(entry.id().scheme.as_bytes())
                .bytes(entry.id().id.as_bytes())
        })
        .finish()
}

#[cfg(test)]
mod tests {
    use quorate_protocol::{AclEntry, Perms};

    use super::resolve;
    use crate::command::Rules;
    use crate::error::OpError;

    #[test]
    fn a_certificate_is_a_valid_id_only_where_one_can_be_shown() {
        let entries = [AclEntry::new(Perms::ALL, "x509", "CN=a")];
        let with = |x509_enabled| Rules {
            x509_enabled,
            ..Rules::default()
        };
        assert_eq!(
            resolve(&entries, &[], with(false)),
            Err(OpError::InvalidAcl)
        );
        let acl = resolve(&entries, &[], with(true)).expect("it is valid");
        assert_eq!(acl.map(|acl| acl.len()), Some(1));
    }
}
