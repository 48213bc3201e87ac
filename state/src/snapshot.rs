//! A state as bytes, in an order every replica shares.
//!
//! One version byte, then MessagePack records: a header, the sessions by id, the znodes (parents
//! before children, siblings in the order of their creation), the quotas by path. An ACL is written
//! where it first occurs, and named by number from then on. The header's counts say where each part
//! ends, and its digest what the whole has to add up to: [`State::load`] computes it anew.
//!
//! Nothing is gathered in memory on the way, in either direction.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufReader, BufWriter, Read, Write};

use bytes::Bytes;
use hashbrown::HashMap;
use quorate_protocol::{Acl, Password, SessionId, Zxid};
use rmp_serde::decode::ReadReader;
use serde::{Deserialize, Serialize};

use crate::canary::{Canary, planted};
use crate::command::{Connection, Origin};
use crate::digest;
use crate::pages::Pages;
use crate::sessions::{Session, Sessions};
use crate::state::State;
use crate::tree::acl::AclId;
use crate::tree::nodes::{Family, NodeId, Nodes};
use crate::tree::znode::{Kind, Znode};
use crate::tree::{DataTree, Quotas};

/// The version in front of every snapshot.
const VERSION: u8 = 1;

/// The ACL of the root, and of every znode whose record names none.
const FIRST_ACL: u32 = 0;

/// Snapshots are written and read in pieces of this size.
const BUFFER: usize = 128 * 1024;

/// An immutable view of a state.
#[derive(Clone, Debug)]
pub struct StateView {
    last_zxid: Zxid,
    digest: u64,
    znodes: u64,
    nodes: Nodes,
    sessions: Pages<Option<Session>>,
    quotas: Quotas,
    incarnations: BTreeMap<u64, u64>,
}

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot could not be read or written: {0}")]
    Io(#[from] std::io::Error),
    #[error("the snapshot has format version {0}, this program knows {VERSION}: run a newer one")]
    Version(u8),
    #[error("the snapshot does not encode: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    #[error("the snapshot does not decode: {0}: use another one")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("the snapshot contradicts itself: {0}: use another one")]
    Contradiction(&'static str),
    #[error("the snapshot's digest is {computed:#018x}, not {announced:#018x}: use another one")]
    Digest { announced: u64, computed: u64 },
}

#[derive(Serialize, Deserialize)]
struct Header {
    last_zxid: Zxid,
    digest: u64,
    sessions: u64,
    znodes: u64,
    quotas: u64,
    incarnations: BTreeMap<u64, u64>,
}

#[derive(Serialize, Deserialize)]
struct SessionRecord {
    id: SessionId,
    password: Password,
    timeout_ms: i32,
    connection: Connection,
    attached_at: Zxid,
    next_sequence: u64,
}

#[derive(Serialize, Deserialize)]
struct ZnodeRecord<'a> {
    /// How far below the root. The parent is the last znode before this one that is one less deep.
    depth: u32,
    name: Cow<'a, str>,
    data: Option<Blob<'a>>,
    czxid: i64,
    ctime: i64,
    /// Left out for a persistent znode with the first ACL that was never set and never had a child:
    /// most are like that.
    more: Option<More<'a>>,
}

#[derive(Serialize, Deserialize)]
struct More<'a> {
    mzxid: i64,
    mtime: i64,
    version: i32,
    aversion: i32,
    acl: AclRecord<'a>,
    /// 0 persistent, 1 ephemeral, 2 container, 3 TTL.
    kind: u8,
    /// The owner of an ephemeral, the time to live of a TTL znode.
    detail: i64,
    /// If there ever was a child: how many there ever were, and the pzxid.
    family: Option<(u64, i64)>,
}

/// The number of an ACL, and its entries where the number is new.
#[derive(Serialize, Deserialize)]
struct AclRecord<'a> {
    number: u32,
    entries: Option<Cow<'a, [Acl]>>,
}

#[derive(Serialize, Deserialize)]
struct QuotaRecord<'a> {
    path: Cow<'a, str>,
    count: i64,
    bytes: i64,
}

/// Bytes, borrowed on the way out.
enum Blob<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl Serialize for Blob<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_ref())
    }
}

impl<'de> Deserialize<'de> for Blob<'_> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bytes::deserialize(deserializer).map(Self::Owned)
    }
}

impl AsRef<[u8]> for Blob<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl StateView {
    pub(crate) fn new(state: &State) -> Self {
        Self {
            last_zxid: state.last_zxid(),
            digest: state.digest(),
            znodes: state.tree.totals().znodes,
            nodes: state.tree.nodes().clone(),
            sessions: state.sessions.slots().clone(),
            quotas: state.tree.quotas().clone(),
            incarnations: state.incarnations.clone(),
        }
    }

    pub fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Writes the snapshot. Equal states give equal bytes.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Io`] if `out` does, wrapped in [`SnapshotError::Encode`] at times.
    pub fn write(&self, out: &mut impl Write) -> Result<(), SnapshotError> {
        let mut out = BufWriter::with_capacity(BUFFER, out);
        out.write_all(&[VERSION])?;
        let mut sessions: Vec<&Session> = self.sessions.iter().flatten().collect();
        sessions.sort_unstable_by_key(|session| session.id());
        let header = Header {
            last_zxid: self.last_zxid,
            digest: self.digest,
            sessions: sessions.len() as u64,
            // The root counts twice, and is here once.
            znodes: self.znodes - 1,
            quotas: self.quotas.iter().len() as u64,
            incarnations: self.incarnations.clone(),
        };
        rmp_serde::encode::write(&mut out, &header)?;
        for session in sessions {
            rmp_serde::encode::write(&mut out, &session_record(session))?;
        }
        self.write_znodes(&mut out)?;
        for (path, quota) in self.quotas.iter() {
            let record = QuotaRecord {
                path: path.into(),
                count: quota.count,
                bytes: quota.bytes,
            };
            rmp_serde::encode::write(&mut out, &record)?;
        }
        out.flush()?;
        Ok(())
    }

    fn write_znodes(&self, out: &mut impl Write) -> Result<(), SnapshotError> {
        let mut numbers: HashMap<u32, u32, Plain> = HashMap::default();
        for (depth, id) in self.nodes.subtree(NodeId::ROOT) {
            let znode = self.nodes.znode(id);
            let next = u32::try_from(numbers.len()).expect("ACLs are counted in 32 bits");
            let number = *numbers.entry(znode.acl.0).or_insert(next);
            let acl = AclRecord {
                number,
                entries: (number == next).then(|| Cow::Borrowed(&**self.nodes.acls.get(znode.acl))),
            };
            let record = ZnodeRecord {
                depth,
                name: Cow::Borrowed(self.nodes.name(id)),
                data: znode.data.map(Blob::Borrowed),
                czxid: znode.czxid,
                ctime: znode.ctime,
                more: more(&znode, acl, self.nodes.family(id)),
            };
            rmp_serde::encode::write(out, &record)?;
        }
        Ok(())
    }
}

impl State {
    /// Reads what [`StateView::write`] wrote, up to the end of `reader`, and checks that it adds up.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]: the bytes are damaged, incomplete, or from a newer version.
    pub fn load(reader: &mut impl Read) -> Result<Self, SnapshotError> {
        let mut reader = BufReader::with_capacity(BUFFER, reader);
        let mut version = [0];
        reader.read_exact(&mut version)?;
        if version != [VERSION] {
            return Err(SnapshotError::Version(version[0]));
        }
        let mut records = rmp_serde::Deserializer::new(reader);
        let header = Header::deserialize(&mut records)?;
        let mut sessions = Sessions::new();
        for _ in 0..header.sessions {
            sessions.put(session(&SessionRecord::deserialize(&mut records)?));
        }
        if sessions.len() as u64 != header.sessions {
            return Err(SnapshotError::Contradiction("a session comes twice"));
        }
        let mut tree = Loader::default().load(&mut records, header.znodes, &sessions)?;
        for _ in 0..header.quotas {
            let quota = QuotaRecord::deserialize(&mut records)?;
            tree.restore_quota(&quota.path, quota.count, quota.bytes);
        }
        if records.into_inner().read(&mut [0])? != 0 {
            return Err(SnapshotError::Contradiction("something follows its end"));
        }
        let state = Self {
            last_zxid: header.last_zxid,
            tree,
            sessions,
            incarnations: header.incarnations,
        };
        if state.digest() != header.digest {
            return Err(SnapshotError::Digest {
                announced: header.digest,
                computed: state.digest(),
            });
        }
        Ok(state)
    }
}

/// The last command that is in a snapshot, without a look at the rest of it.
///
/// # Errors
///
/// [`SnapshotError`]: the bytes do not begin like a snapshot of this version.
pub fn last_zxid_of_snapshot(reader: &mut impl Read) -> Result<Zxid, SnapshotError> {
    let mut version = [0];
    reader.read_exact(&mut version)?;
    if version != [VERSION] {
        return Err(SnapshotError::Version(version[0]));
    }
    let mut records = rmp_serde::Deserializer::new(reader);
    Ok(Header::deserialize(&mut records)?.last_zxid)
}

/// Builds a tree from znodes in the order of a snapshot.
#[derive(Default)]
struct Loader {
    /// The last znode of each depth down to the current one, and the hash and length of its path.
    ancestors: Vec<(NodeId, u64, usize)>,
    acls: Vec<AclId>,
}

impl Loader {
    fn load<R: Read>(
        mut self,
        records: &mut rmp_serde::Deserializer<ReadReader<R>>,
        count: u64,
        sessions: &Sessions,
    ) -> Result<DataTree, SnapshotError> {
        let mut tree = None;
        for _ in 0..count {
            let record = ZnodeRecord::deserialize(&mut *records)?;
            match &mut tree {
                None => tree = Some(self.root(&record, count)?),
                Some(tree) => self.znode(tree, &record, sessions)?,
            }
        }
        tree.ok_or(SnapshotError::Contradiction("it has no root"))
    }

    fn root(&mut self, record: &ZnodeRecord<'_>, count: u64) -> Result<DataTree, SnapshotError> {
        if record.depth != 0 || !record.name.is_empty() {
            return Err(SnapshotError::Contradiction(
                "it does not begin at the root",
            ));
        }
        let mut tree = DataTree::empty();
        tree.expect_znodes(count);
        let acl = self.acl(&mut tree, record.more.as_ref())?;
        tree.plant_root(&znode(record, acl, Kind::Persistent));
        self.enter(&mut tree, NodeId::ROOT, digest::ROOT_PATH, 0, record);
        Ok(tree)
    }

    fn znode(
        &mut self,
        tree: &mut DataTree,
        record: &ZnodeRecord<'_>,
        sessions: &Sessions,
    ) -> Result<(), SnapshotError> {
        let depth = record.depth as usize;
        if depth == 0 || depth > self.ancestors.len() {
            return Err(SnapshotError::Contradiction("a znode has no parent"));
        }
        self.ancestors.truncate(depth);
        let (parent, parent_place, parent_len) = self.ancestors[depth - 1];
        if tree.nodes().family(parent).is_none() {
            return Err(SnapshotError::Contradiction(
                "a znode's parent has no family",
            ));
        }
        if record.name.is_empty() || record.name.contains('/') {
            return Err(SnapshotError::Contradiction("a name is none"));
        }
        let kind = kind(record.more.as_ref(), sessions)?;
        let acl = self.acl(tree, record.more.as_ref())?;
        let place = digest::step(parent_place, record.name.as_bytes());
        let len = parent_len + 1 + record.name.len();
        let id = tree.plant(parent, place, len, &znode(record, acl, kind));
        self.enter(tree, id, place, len, record);
        Ok(())
    }

    /// The znode's children come next, if it has any.
    fn enter(
        &mut self,
        tree: &mut DataTree,
        id: NodeId,
        place: u64,
        len: usize,
        record: &ZnodeRecord<'_>,
    ) {
        if let Some((created, pzxid)) = record.more.as_ref().and_then(|more| more.family) {
            let created = match planted(Canary::ChildVersionNotInSnapshot) {
                true => 0,
                false => created,
            };
            tree.found_family(id, place, created, pzxid);
        }
        self.ancestors.push((id, place, len));
    }

    fn acl(
        &mut self,
        tree: &mut DataTree,
        more: Option<&More<'_>>,
    ) -> Result<AclId, SnapshotError> {
        if let Some(entries) = more.and_then(|more| more.acl.entries.as_ref()) {
            self.acls.push(tree.number_acl(entries.to_vec()));
        }
        let number = more.map_or(FIRST_ACL, |more| more.acl.number);
        self.acls
            .get(number as usize)
            .copied()
            .ok_or(SnapshotError::Contradiction("an ACL is unknown"))
    }
}

/// What a record says of a znode beyond the usual; `None` if that is nothing.
fn more<'a>(znode: &Znode<'_>, acl: AclRecord<'a>, family: Option<&Family>) -> Option<More<'a>> {
    let usual = Znode::new(znode.name, znode.data, znode.czxid, znode.ctime);
    let is_usual = (znode.mzxid, znode.mtime, znode.version, znode.aversion)
        == (usual.mzxid, usual.mtime, usual.version, usual.aversion)
        && znode.kind == usual.kind
        && (acl.number, &acl.entries) == (FIRST_ACL, &None)
        && family.is_none();
    let (kind, detail) = match znode.kind {
        Kind::Persistent => (0, 0),
        Kind::Ephemeral(owner) => (1, owner.get()),
        Kind::Container => (2, 0),
        Kind::Ttl(ttl_ms) => (3, ttl_ms),
    };
    (!is_usual).then(|| More {
        mzxid: znode.mzxid,
        mtime: znode.mtime,
        version: znode.version,
        aversion: znode.aversion,
        acl,
        kind,
        detail,
        family: family.map(|family| (family.created, family.pzxid)),
    })
}

fn kind(more: Option<&More<'_>>, sessions: &Sessions) -> Result<Kind, SnapshotError> {
    let Some(more) = more else {
        return Ok(Kind::Persistent);
    };
    match more.kind {
        0 => Ok(Kind::Persistent),
        1 => SessionId::new(more.detail)
            .filter(|owner| sessions.get(*owner).is_some())
            .map(Kind::Ephemeral)
            .ok_or(SnapshotError::Contradiction("an ephemeral has no session")),
        2 => Ok(Kind::Container),
        3 => Ok(Kind::Ttl(more.detail)),
        _ => Err(SnapshotError::Contradiction("a kind of znode is unknown")),
    }
}

fn znode<'a>(record: &'a ZnodeRecord<'_>, acl: AclId, kind: Kind) -> Znode<'a> {
    let data = record.data.as_ref().map(AsRef::as_ref);
    let mut znode = Znode::new(record.name.as_bytes(), data, record.czxid, record.ctime);
    znode.acl = acl;
    znode.kind = kind;
    if let Some(more) = &record.more {
        znode.mzxid = more.mzxid;
        znode.mtime = more.mtime;
        znode.version = more.version;
        znode.aversion = more.aversion;
    }
    znode
}

fn session_record(session: &Session) -> SessionRecord {
    SessionRecord {
        id: session.id(),
        password: session.password(),
        timeout_ms: session.timeout_ms,
        connection: session.connection(),
        attached_at: session.attached_at,
        next_sequence: session.next_sequence(),
    }
}

fn session(record: &SessionRecord) -> Session {
    let origin = Origin {
        connection: record.connection,
        sequence: record.next_sequence.wrapping_sub(1),
    };
    Session::new(
        record.id,
        record.password,
        record.timeout_ms,
        origin,
        record.attached_at,
    )
}

/// ACL numbers are dense: they need no hashing, and their order in the map is never looked at.
type Plain = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;
