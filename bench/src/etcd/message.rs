//! The messages of etcd's API that are used, with the field numbers of its `rpc.proto` and
//! `kv.proto` (version 3.4). A request is encoded as gRPC sends it: not compressed, with its length
//! in front.

use bytes::Bytes;

use super::protobuf::{Fields, Malformed, put_bytes, put_message, put_number};

/// Not compressed, and the length of the message.
pub(crate) const PREFIX_BYTES: usize = 5;

/// One kind of call: its name for people and its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Range,
    Put,
    DeleteRange,
    Txn,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    Status,
}

impl Method {
    pub(crate) const ALL: [Self; 8] = [
        Self::Range,
        Self::Put,
        Self::DeleteRange,
        Self::Txn,
        Self::Watch,
        Self::LeaseGrant,
        Self::LeaseRevoke,
        Self::Status,
    ];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Range => "/etcdserverpb.KV/Range",
            Self::Put => "/etcdserverpb.KV/Put",
            Self::DeleteRange => "/etcdserverpb.KV/DeleteRange",
            Self::Txn => "/etcdserverpb.KV/Txn",
            Self::Watch => "/etcdserverpb.Watch/Watch",
            Self::LeaseGrant => "/etcdserverpb.Lease/LeaseGrant",
            Self::LeaseRevoke => "/etcdserverpb.Lease/LeaseRevoke",
            Self::Status => "/etcdserverpb.Maintenance/Status",
        }
    }
}

/// Puts the prefix in front of an encoded message.
fn framed(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(PREFIX_BYTES + message.len());
    out.push(0);
    let length = u32::try_from(message.len()).expect("requests are a few KiB long");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
    out.into()
}

/// Which of the keys in a range are returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// All, in the order of the keys.
    All,
    OldestCreated,
    YoungestCreated,
}

/// A read of one key, or of a range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range<'a> {
    pub(crate) key: &'a [u8],
    /// The key after the last one of a range; empty for one key.
    pub(crate) end: &'a [u8],
    /// From this server as it is, without asking the leader whether that is the latest.
    pub(crate) serializable: bool,
    pub(crate) keys_only: bool,
    pub(crate) first: First,
    /// 0 for any.
    pub(crate) create_revision_max: u64,
}

impl<'a> Range<'a> {
    pub(crate) fn key(key: &'a [u8]) -> Self {
        Self {
            key,
            end: &[],
            serializable: false,
            keys_only: false,
            first: First::All,
            create_revision_max: 0,
        }
    }

    fn message(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        put_bytes(&mut out, 1, self.key);
        put_bytes(&mut out, 2, self.end);
        let order = match self.first {
            First::All => 0,
            First::OldestCreated => 1,
            First::YoungestCreated => 2,
        };
        if order != 0 {
            put_number(&mut out, 3, 1);
            put_number(&mut out, 5, order);
            put_number(&mut out, 6, 2);
        }
        put_number(&mut out, 7, u64::from(self.serializable));
        put_number(&mut out, 8, u64::from(self.keys_only));
        put_number(&mut out, 13, self.create_revision_max);
        out
    }

    pub(crate) fn encode(&self) -> Bytes {
        framed(&self.message())
    }
}

fn put_request(key: &[u8], value: &[u8], lease: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + value.len() + 32);
    put_bytes(&mut out, 1, key);
    put_bytes(&mut out, 2, value);
    put_number(&mut out, 3, lease);
    out
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Bytes {
    framed(&put_request(key, value, 0))
}

/// Deletes one key, or a range if `end` is not empty.
pub(crate) fn delete_range(key: &[u8], end: &[u8]) -> Bytes {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, key);
    put_bytes(&mut out, 2, end);
    framed(&out)
}

/// What locking begins with: puts `key` with `lease` if it does not exist, reads it otherwise, and
/// reads the key below the prefix that was created first.
pub(crate) fn enqueue(key: &[u8], lease: u64, prefix: &[u8], prefix_end: &[u8]) -> Bytes {
    const CREATE: u64 = 1;
    let mut absent = Vec::new();
    put_number(&mut absent, 2, CREATE);
    put_bytes(&mut absent, 3, key);
    // One of several, and so there although it is 0: the create revision of what does not exist.
    absent.extend_from_slice(&[5 << 3, 0]);
    let mut owner = Range::key(prefix);
    owner.end = prefix_end;
    owner.first = First::OldestCreated;
    let operation = |field, message: &[u8]| {
        let mut out = Vec::new();
        put_message(&mut out, field, message);
        out
    };
    let owner = operation(1, &owner.message());
    let own = operation(1, &Range::key(key).message());
    let own_put = operation(2, &put_request(key, &[], lease));
    let mut out = Vec::new();
    put_message(&mut out, 1, &absent);
    put_message(&mut out, 2, &own_put);
    put_message(&mut out, 2, &owner);
    put_message(&mut out, 3, &own);
    put_message(&mut out, 3, &owner);
    framed(&out)
}

pub(crate) fn lease_grant(seconds: u64) -> Bytes {
    let mut out = Vec::new();
    put_number(&mut out, 1, seconds);
    framed(&out)
}

pub(crate) fn lease_revoke(lease: u64) -> Bytes {
    let mut out = Vec::new();
    put_number(&mut out, 1, lease);
    framed(&out)
}

pub(crate) fn status() -> Bytes {
    framed(&[])
}

pub(crate) fn watch_create(key: &[u8], from_revision: u64) -> Bytes {
    let mut create = Vec::new();
    put_bytes(&mut create, 1, key);
    put_number(&mut create, 3, from_revision);
    let mut out = Vec::new();
    put_message(&mut out, 1, &create);
    framed(&out)
}

pub(crate) fn watch_cancel(watch: u64) -> Bytes {
    let mut cancel = Vec::new();
    put_number(&mut cancel, 1, watch);
    let mut out = Vec::new();
    put_message(&mut out, 2, &cancel);
    framed(&out)
}

/// A reply that is not what the API says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadReply(pub(crate) &'static str);

impl From<Malformed> for BadReply {
    fn from(_: Malformed) -> Self {
        Self("it is no message")
    }
}

/// What every reply begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) member: u64,
    pub(crate) revision: u64,
}

impl Header {
    fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut header = Self::default();
        for field in Fields::of(message) {
            match field? {
                (2, member) => header.member = member.number(),
                (3, revision) => header.revision = revision.number(),
                _ => {}
            }
        }
        Ok(header)
    }
}

/// A reply of which only the header matters. One without is not a reply of etcd.
pub(crate) fn header(reply: &[u8]) -> Result<Header, BadReply> {
    for field in Fields::of(reply) {
        if let (1, header) = field? {
            return Ok(Header::decode(header.bytes())?);
        }
    }
    Err(BadReply("it has no header"))
}

/// A key that a range returned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: Vec<u8>,
    pub(crate) create_revision: u64,
    pub(crate) value_bytes: usize,
}

impl KeyValue {
    fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut found = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, key) => found.key = key.bytes().to_vec(),
                (2, revision) => found.create_revision = revision.number(),
                (5, value) => found.value_bytes = value.bytes().len(),
                _ => {}
            }
        }
        Ok(found)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeReply {
    pub(crate) header: Header,
    pub(crate) first: Option<KeyValue>,
    pub(crate) count: u64,
}

impl RangeReply {
    pub(crate) fn decode(reply: &[u8]) -> Result<Self, BadReply> {
        let mut range = Self::default();
        for field in Fields::of(reply) {
            match field? {
                (1, header) => range.header = Header::decode(header.bytes())?,
                (2, found) if range.first.is_none() => {
                    range.first = Some(KeyValue::decode(found.bytes())?);
                }
                (4, count) => range.count = count.number(),
                _ => {}
            }
        }
        Ok(range)
    }
}

/// Where a contender stands after [`enqueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enqueued {
    pub(crate) own_revision: u64,
    pub(crate) is_owner: bool,
}

impl Enqueued {
    pub(crate) fn decode(reply: &[u8]) -> Result<Self, BadReply> {
        let mut own_revision = header(reply)?.revision;
        let mut succeeded = false;
        let mut ranges = Vec::new();
        for field in Fields::of(reply) {
            match field? {
                (2, flag) => succeeded = flag.number() != 0,
                (3, response) => {
                    for union in Fields::of(response.bytes()) {
                        if let (1, range) = union? {
                            ranges.push(RangeReply::decode(range.bytes())?);
                        }
                    }
                }
                _ => {}
            }
        }
        let owner = ranges.pop().ok_or(BadReply("it does not tell the owner"))?;
        if !succeeded {
            let own = ranges.pop().and_then(|own| own.first);
            let own = own.ok_or(BadReply("the key neither exists nor was put"))?;
            own_revision = own.create_revision;
        }
        Ok(Self {
            own_revision,
            is_owner: owner
                .first
                .is_none_or(|first| first.create_revision == own_revision),
        })
    }
}

pub(crate) fn lease_of(reply: &[u8]) -> Result<u64, BadReply> {
    for field in Fields::of(reply) {
        if let (2, lease) = field? {
            return Ok(lease.number());
        }
    }
    Err(BadReply("it grants no lease"))
}

/// Whether the server that replied to a status request leads.
pub(crate) fn leads(reply: &[u8]) -> Result<bool, BadReply> {
    let own = header(reply)?.member;
    for field in Fields::of(reply) {
        if let (4, leader) = field? {
            return Ok(leader.number() == own);
        }
    }
    Ok(false)
}

/// What a watch sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchReply {
    pub(crate) watch: u64,
    pub(crate) created: bool,
    pub(crate) canceled: bool,
    /// Whether a key was deleted.
    pub(crate) deleted: bool,
}

impl WatchReply {
    pub(crate) fn decode(reply: &[u8]) -> Result<Self, BadReply> {
        let mut watch = Self::default();
        for field in Fields::of(reply) {
            match field? {
                (2, id) => watch.watch = id.number(),
                (3, flag) => watch.created = flag.number() != 0,
                (4, flag) => watch.canceled = flag.number() != 0,
                (11, event) => {
                    for part in Fields::of(event.bytes()) {
                        if let (1, kind) = part? {
                            watch.deleted |= kind.number() == 1;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(watch)
    }
}

/// The key after all that begin with `prefix`, which does not end in 255.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        parts(&mut out);
        out
    }

    fn reply_header(member: u64, revision: u64) -> Vec<u8> {
        message(|out| {
            put_number(out, 2, member);
            put_number(out, 3, revision);
        })
    }

    fn range_reply(key: &[u8], create_revision: u64) -> Vec<u8> {
        let found = message(|out| {
            put_bytes(out, 1, key);
            put_number(out, 2, create_revision);
            put_bytes(out, 5, b"four");
        });
        message(|out| {
            put_message(out, 1, &reply_header(1, 50));
            put_message(out, 2, &found);
            put_number(out, 4, 1);
        })
    }

    fn txn_reply(succeeded: bool, own: &[u8], owner: &[u8]) -> Vec<u8> {
        message(|out| {
            put_message(out, 1, &reply_header(1, 50));
            put_number(out, 2, u64::from(succeeded));
            for range in [own, owner] {
                put_message(out, 3, range);
            }
        })
    }

    #[test]
    fn a_request_is_preceded_by_its_length() {
        let put = put(b"k", b"value");
        assert_eq!(&put[..], b"\0\0\0\0\x0a\x0a\x01k\x12\x05value");
        assert_eq!(&status()[..], [0; PREFIX_BYTES]);
    }

    #[test]
    fn a_range_asks_for_what_it_says() {
        let mut range = Range::key(b"a");
        assert_eq!(&range.encode()[PREFIX_BYTES..], b"\x0a\x01a");
        range.serializable = true;
        range.keys_only = true;
        assert_eq!(&range.encode()[PREFIX_BYTES..], b"\x0a\x01a8\x01@\x01");
        let mut range = Range::key(b"a");
        range.end = b"b";
        range.first = First::YoungestCreated;
        range.create_revision_max = 7;
        let expected = b"\x0a\x01a\x12\x01b\x18\x01\x28\x02\x30\x02\x68\x07";
        assert_eq!(&range.encode()[PREFIX_BYTES..], expected);
    }

    #[test]
    fn the_first_in_the_queue_owns_the_lock() {
        let wrap = |field, inner: &[u8]| message(|out| put_message(out, field, inner));
        let put = wrap(2, &[]);
        let oldest = |revision| wrap(1, &range_reply(b"l/1", revision));
        // Put at revision 50; the oldest is this very key, or one from before.
        for (revision, is_owner) in [(50, true), (49, false)] {
            let reply = txn_reply(true, &put, &oldest(revision));
            let expected = Enqueued {
                own_revision: 50,
                is_owner,
            };
            assert_eq!(Enqueued::decode(&reply), Ok(expected));
        }
        // It existed since 40.
        let reply = txn_reply(false, &oldest(40), &oldest(40));
        let expected = Enqueued {
            own_revision: 40,
            is_owner: true,
        };
        assert_eq!(Enqueued::decode(&reply), Ok(expected));
    }

    #[test]
    fn a_reply_without_a_header_is_refused() {
        assert!(header(&[]).is_err());
        assert!(header(b"garbage").is_err());
        assert_eq!(
            header(&range_reply(b"k", 3)).map(|header| header.revision),
            Ok(50)
        );
    }

    #[test]
    fn a_deletion_is_told_from_a_put() {
        let event = |kind| message(|out| put_number(out, 1, kind));
        for (kind, deleted) in [(0, false), (1, true)] {
            let reply = message(|out| {
                put_message(out, 1, &reply_header(1, 1));
                put_number(out, 2, 9);
                put_message(out, 11, &event(kind));
            });
            let expected = WatchReply {
                watch: 9,
                deleted,
                ..WatchReply::default()
            };
            assert_eq!(WatchReply::decode(&reply), Ok(expected));
        }
    }

    #[test]
    fn a_prefix_ends_before_the_first_key_without_it() {
        assert_eq!(prefix_end(b"/lock/"), b"/lock0");
    }
}
