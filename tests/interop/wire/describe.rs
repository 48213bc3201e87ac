//! From the bytes of a reply or an event to a line of the transcript.

use std::fmt::Write as _;

use quorate_tests::transcript::now_ms;

use super::connection::Connection;
use super::request::{Numbered, Shape};

/// Bytes being read. Running out of them gives `None`.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn int(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn long(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    /// `Some(None)` is ZooKeeper's null.
    pub(crate) fn buffer(&mut self) -> Option<Option<&'a [u8]>> {
        match self.int()? {
            -1 => Some(None),
            length => Some(Some(self.take(usize::try_from(length).ok()?)?)),
        }
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        Some(self.buffer()?.map_or("null".to_owned(), |bytes| {
            String::from_utf8_lossy(bytes).escape_debug().to_string()
        }))
    }

    pub(crate) fn many<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        (0..self.int()?).map(|_| one(self)).collect()
    }
}

impl Connection {
    pub(super) fn note_event(&mut self, body: &[u8]) {
        let mut reader = Reader(body);
        let mut describe = || {
            let (_, zxid, error) = (reader.int()?, reader.long()?, reader.int()?);
            let (kind, state, path) = (reader.int()?, reader.int()?, reader.text()?);
            let kind = match kind {
                1 => "created",
                2 => "deleted",
                3 => "data changed",
                4 => "children changed",
                _ => "unknown",
            };
            // Before 3.9 every event carries -1, since then the zxid of its transaction.
            let backwards = if zxid > 0 && zxid < self.last_zxid {
                " zxid-goes-backwards"
            } else {
                ""
            };
            self.last_zxid = self.last_zxid.max(zxid);
            let odd = if error == 0 && state == 3 && reader.0.is_empty() {
                ""
            } else {
                " odd"
            };
            Some(format!("{kind} {path}{backwards}{odd}"))
        };
        let line = describe().unwrap_or_else(|| format!("too short: {body:02x?}"));
        self.note("event", &line);
    }

    pub(super) fn describe_reply(&mut self, body: &[u8]) -> String {
        let mut reader = Reader(body);
        let (Some(xid), Some(zxid), Some(error)) = (reader.int(), reader.long(), reader.int())
        else {
            return format!("a reply too short for a header: {body:02x?}");
        };
        let Some(request) = self.pending.pop_front() else {
            return format!("a reply nobody waits for: xid {xid} error {error}");
        };
        let mut line = if error == 0 {
            "ok".to_owned()
        } else {
            format!("error {error}")
        };
        let expected_xid = if request.op == 11 { -2 } else { request.xid };
        if xid != expected_xid {
            let _ = write!(line, " xid={xid}-not-{expected_xid}");
        }
        line.push_str(&self.describe_zxid(request.numbered, zxid));
        if error == 0 {
            let described = self.describe_body(request.shape, &mut reader);
            line.push_str(&described.unwrap_or_else(|| format!(" too-short {body:02x?}")));
        }
        if !reader.0.is_empty() {
            let _ = write!(line, " and {} bytes more", reader.0.len());
        }
        line
    }

    fn describe_zxid(&mut self, numbered: Numbered, zxid: i64) -> String {
        let problem = match numbered {
            Numbered::Write => self.memory.borrow_mut().name_write(zxid),
            Numbered::Read if zxid < self.last_zxid => Some(format!(
                " zxid-goes-backwards({zxid} after {})",
                self.last_zxid
            )),
            Numbered::Other if zxid <= 0 => Some(format!(" zxid={zxid}")),
            Numbered::Read | Numbered::Other => None,
        };
        if zxid > 0 {
            let mut memory = self.memory.borrow_mut();
            memory.last_write = memory.last_write.max(zxid);
        }
        self.last_zxid = self.last_zxid.max(zxid);
        problem.unwrap_or_default()
    }

    fn describe_body(&self, shape: Shape, reader: &mut Reader<'_>) -> Option<String> {
        Some(match shape {
            Shape::Nothing => String::new(),
            Shape::Path => format!(" {}", reader.text()?),
            Shape::PathStat => format!(" {} {}", reader.text()?, self.stat(reader)?),
            Shape::Stat => format!(" {}", self.stat(reader)?),
            Shape::DataStat => format!(" {} {}", data(reader)?, self.stat(reader)?),
            Shape::AclStat | Shape::AclSetStat => {
                let mut entries = reader.many(|reader| {
                    Some(format!(
                        "{}:{}:{}",
                        reader.int()?,
                        reader.text()?,
                        reader.text()?
                    ))
                })?;
                if shape == Shape::AclSetStat {
                    entries.sort();
                }
                format!(" {entries:?} {}", self.stat(reader)?)
            }
            Shape::Names => format!(" {}", names(reader)?),
            Shape::NamesStat => format!(" {} {}", names(reader)?, self.stat(reader)?),
            Shape::Number => format!(" {}", reader.int()?),
            Shape::Results => self.results(reader)?,
            Shape::Users => {
                let mut users =
                    reader.many(|reader| Some(format!("{}:{}", reader.text()?, reader.text()?)))?;
                // Of no promised order: 3.8 keeps them in a hash set.
                users.sort();
                format!(" {users:?}")
            }
        })
    }

    fn results(&self, reader: &mut Reader<'_>) -> Option<String> {
        let mut line = String::new();
        loop {
            let (kind, done, error) = (reader.int()?, reader.byte()?, reader.int()?);
            if done != 0 {
                let odd = if (kind, error) == (-1, -1) {
                    ""
                } else {
                    " odd end"
                };
                line.push_str(odd);
                return Some(line);
            }
            let _ = write!(line, " | {kind}");
            let shape = match kind {
                1 => Shape::Path,
                15 => Shape::PathStat,
                2 | 13 => Shape::Nothing,
                5 => Shape::Stat,
                4 => Shape::DataStat,
                8 => Shape::Names,
                -1 => Shape::Number,
                _ => return Some(format!("{line} unknown result")),
            };
            if error != 0 {
                let _ = write!(line, " error {error}");
            }
            line.push_str(&self.describe_body(shape, reader)?);
        }
    }

    fn stat(&self, reader: &mut Reader<'_>) -> Option<String> {
        let (czxid, mzxid, ctime, mtime) = (
            reader.long()?,
            reader.long()?,
            reader.long()?,
            reader.long()?,
        );
        let (version, cversion, aversion) = (reader.int()?, reader.int()?, reader.int()?);
        let (owner, length, children, pzxid) =
            (reader.long()?, reader.int()?, reader.int()?, reader.long()?);
        let mut memory = self.memory.borrow_mut();
        let owner = if owner == 0 {
            String::new()
        } else {
            format!(" owner={}", memory.session(owner))
        };
        let time = |ms: i64| match u64::try_from(ms) {
            Ok(0) => "0",
            Ok(ms) if ms.abs_diff(now_ms()) < 600_000 => "now",
            _ => "odd",
        };
        Some(format!(
            "[c={} m={} p={} times={}/{} v={version},{cversion},{aversion} length={length} \
             children={children}{owner}]",
            memory.zxid(czxid),
            memory.zxid(mzxid),
            memory.zxid(pzxid),
            time(ctime),
            time(mtime),
        ))
    }
}

fn data(reader: &mut Reader<'_>) -> Option<String> {
    Some(match reader.buffer()? {
        None => "null".to_owned(),
        Some(bytes) if bytes.len() > 64 => format!("{} bytes", bytes.len()),
        Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
    })
}

fn names(reader: &mut Reader<'_>) -> Option<String> {
    let mut names = reader.many(Reader::text)?;
    names.sort();
    Some(format!("{names:?}"))
}
