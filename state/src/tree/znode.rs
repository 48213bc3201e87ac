//! A znode as bytes.
//!
//! `flags | name length, name | czxid | ctime | what the flags announce | data length, data`, numbers
//! as variable-length integers. Most znodes were created and perhaps never touched again, so what is
//! only written when it differs from the rule (mzxid = czxid, version 0, an open ACL ...) is written
//! for few of them. The data comes last, so that a large one is copied once only.
//!
//! These bytes live in memory and nowhere else: decoding trusts them.

use quorate_protocol::SessionId;

use super::acl::AclId;
use crate::digest::{Fact, Fingerprint};

/// What becomes of a znode by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Persistent,
    /// Ends with this session.
    Ephemeral(SessionId),
    Container,
    /// Its time to live, in milliseconds since it was last set.
    Ttl(i64),
}

/// Everything a znode is, but for its place and its children.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Znode<'a> {
    /// UTF-8. Empty for the root alone.
    pub(crate) name: &'a [u8],
    pub(crate) data: Option<&'a [u8]>,
    pub(crate) czxid: i64,
    pub(crate) mzxid: i64,
    pub(crate) ctime: i64,
    pub(crate) mtime: i64,
    pub(crate) version: i32,
    pub(crate) aversion: i32,
    pub(crate) acl: AclId,
    pub(crate) kind: Kind,
}

const KIND: u8 = 0b11;
const EPHEMERAL: u8 = 1;
const CONTAINER: u8 = 2;
const TTL: u8 = 3;
/// The data is null, not empty.
const NULL: u8 = 1 << 2;
/// mzxid, mtime and version follow.
const SET: u8 = 1 << 3;
const AVERSION: u8 = 1 << 4;
const ACL: u8 = 1 << 5;

impl<'a> Znode<'a> {
    /// A znode that has just been created.
    pub(crate) fn new(name: &'a [u8], data: Option<&'a [u8]>, zxid: i64, time_ms: i64) -> Self {
        Self {
            name,
            data,
            czxid: zxid,
            mzxid: zxid,
            ctime: time_ms,
            mtime: time_ms,
            version: 0,
            aversion: 0,
            acl: AclId::OPEN,
            kind: Kind::Persistent,
        }
    }

    /// Everything but the data itself, which follows at once.
    pub(crate) fn encode_head(&self, out: &mut Vec<u8>) {
        let was_set = (self.mzxid, self.mtime, self.version) != (self.czxid, self.ctime, 0);
        let mut flags = match self.kind {
            Kind::Persistent => 0,
            Kind::Ephemeral(_) => EPHEMERAL,
            Kind::Container => CONTAINER,
            Kind::Ttl(_) => TTL,
        };
        for (applies, flag) in [
            (self.data.is_none(), NULL),
            (was_set, SET),
            (self.aversion != 0, AVERSION),
            (self.acl != AclId::OPEN, ACL),
        ] {
            if applies {
                flags |= flag;
            }
        }
        out.clear();
        out.push(flags);
        put(out, self.name.len() as u64);
        out.extend_from_slice(self.name);
        put_signed(out, self.czxid);
        put_signed(out, self.ctime);
        match self.kind {
            Kind::Persistent | Kind::Container => {}
            Kind::Ephemeral(owner) => put_signed(out, owner.get()),
            Kind::Ttl(ttl_ms) => put_signed(out, ttl_ms),
        }
        if was_set {
            put_signed(out, self.mzxid.wrapping_sub(self.czxid));
            put_signed(out, self.mtime.wrapping_sub(self.ctime));
            put_signed(out, self.version.into());
        }
        if self.aversion != 0 {
            put_signed(out, self.aversion.into());
        }
        if self.acl != AclId::OPEN {
            put(out, self.acl.0.into());
        }
        put(out, self.data_len() as u64);
    }

    /// Reads what [`Self::encode_head`] and the data behind it made. Bytes beyond are ignored.
    pub(crate) fn decode(record: &'a [u8]) -> Self {
        let flags = flags(record);
        let mut rest = &record[1..];
        let name = take(&mut rest);
        let czxid = signed(&mut rest);
        let ctime = signed(&mut rest);
        let kind = match flags & KIND {
            EPHEMERAL => Kind::Ephemeral(
                SessionId::new(signed(&mut rest)).expect("the owner of an ephemeral is a session"),
            ),
            CONTAINER => Kind::Container,
            TTL => Kind::Ttl(signed(&mut rest)),
            _ => Kind::Persistent,
        };
        let (mzxid, mtime, version) = match flags & SET {
            0 => (czxid, ctime, 0),
            _ => (
                czxid.wrapping_add(signed(&mut rest)),
                ctime.wrapping_add(signed(&mut rest)),
                small(signed(&mut rest)),
            ),
        };
        let aversion = match flags & AVERSION {
            0 => 0,
            _ => small(signed(&mut rest)),
        };
        let acl = match flags & ACL {
            0 => AclId::OPEN,
            _ => AclId(u32::try_from(unsigned(&mut rest)).expect("an ACL id has 32 bits")),
        };
        let data = take(&mut rest);
        Self {
            name,
            data: (flags & NULL == 0).then_some(data),
            czxid,
            mzxid,
            ctime,
            mtime,
            version,
            aversion,
            acl,
            kind,
        }
    }

    pub(crate) fn data_len(&self) -> usize {
        self.data.map_or(0, <[u8]>::len)
    }

    /// This znode's part of the digest. It names no id that another replica might have given
    /// otherwise: the place is the hash of the path, the ACL that of its entries.
    pub(crate) fn fingerprint(&self, place: u64, acl: u64) -> u64 {
        let (kind, detail) = match self.kind {
            Kind::Persistent => (0, 0),
            Kind::Ephemeral(owner) => (EPHEMERAL, owner.get()),
            Kind::Container => (CONTAINER, 0),
            Kind::Ttl(ttl_ms) => (TTL, ttl_ms),
        };
        let null = if self.data.is_none() { NULL } else { 0 };
        Fingerprint::of(Fact::Znode, place)
            .number(self.czxid)
            .number(self.mzxid)
            .number(self.ctime)
            .number(self.mtime)
            .number((i64::from(self.version) << 32) ^ i64::from(self.aversion.cast_unsigned()))
            .number(detail)
            .word(u64::from(kind | null))
            .word(acl)
            .bytes(self.data.unwrap_or_default())
            .finish()
    }
}

/// The name alone, for comparisons.
pub(crate) fn name(record: &[u8]) -> &[u8] {
    take(&mut &record[1..])
}

/// Whether the server may delete the znode by itself (container, TTL).
pub(crate) fn may_be_reaped(record: &[u8]) -> bool {
    matches!(flags(record) & KIND, CONTAINER | TTL)
}

pub(crate) fn is_ephemeral(record: &[u8]) -> bool {
    flags(record) & KIND == EPHEMERAL
}

fn flags(record: &[u8]) -> u8 {
    record[0]
}

/// Seven bits a byte, the lowest first; the top bit says that another byte follows.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(low_bits(number) | 0x80);
        number >>= 7;
    }
    out.push(low_bits(number));
}

fn low_bits(number: u64) -> u8 {
    number.to_le_bytes()[0] & 0x7f
}

/// Zigzag: small numbers stay small, whatever their sign.
fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

#[inline]
fn unsigned(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    let mut shift = 0;
    loop {
        let (byte, tail) = rest.split_first().expect("a record is complete");
        *rest = tail;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return number;
        }
        shift += 7;
    }
}

#[inline]
fn signed(rest: &mut &[u8]) -> i64 {
    let number = unsigned(rest);
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

fn small(number: i64) -> i32 {
    i32::try_from(number).expect("a version has 32 bits")
}

/// A length, and as many bytes.
#[inline]
fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = usize::try_from(unsigned(rest)).expect("a length fits into memory");
    let (taken, tail) = rest.split_at(len);
    *rest = tail;
    taken
}
