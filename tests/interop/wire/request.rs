//! Requests: the bytes of each, and what has to come back.

pub(crate) const ALL: i32 = 31;
pub(crate) const READ: i32 = 1;
pub(crate) const WRITE: i32 = 2;
pub(crate) const CREATE: i32 = 4;
pub(crate) const DELETE: i32 = 8;
pub(crate) const ADMIN: i32 = 16;

/// An access control entry: permissions, scheme, id.
pub(crate) type Entry<'a> = (i32, &'a str, &'a str);
pub(crate) const OPEN: &[Entry<'static>] = &[(ALL, "world", "anyone")];

/// Bytes being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn int(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn long(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn bool(self, value: bool) -> Self {
        self.raw(&[u8::from(value)])
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        self.int(i32::try_from(bytes.len()).expect("a test's buffer is short"))
            .raw(bytes)
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn texts(mut self, texts: &[&str]) -> Self {
        self = self.int(i32::try_from(texts.len()).expect("a test's list is short"));
        for text in texts {
            self = self.text(text);
        }
        self
    }

    pub(crate) fn acl(mut self, entries: &[Entry<'_>]) -> Self {
        self = self.int(i32::try_from(entries.len()).expect("a test's list is short"));
        for (permissions, scheme, id) in entries {
            self = self.int(*permissions).text(scheme).text(id);
        }
        self
    }
}

/// What follows the header of a successful reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Nothing,
    Path,
    PathStat,
    Stat,
    DataStat,
    AclStat,
    /// As `AclStat`, where the order of the entries is not promised.
    AclSetStat,
    Names,
    NamesStat,
    Number,
    Results,
    Users,
}

/// What the zxid of a reply has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbered {
    /// Its own: larger than any before.
    Write,
    /// The last one applied: not smaller than any this connection saw.
    Read,
    /// Of no interest: it is printed unless it is as for a read.
    Other,
}

/// One request, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) op: i32,
    pub(crate) body: Body,
    pub(crate) shape: Shape,
    pub(crate) numbered: Numbered,
}

impl Request {
    fn write(op: i32, shape: Shape, body: Body) -> Self {
        Self {
            op,
            body,
            shape,
            numbered: Numbered::Write,
        }
    }

    fn read(op: i32, shape: Shape, body: Body) -> Self {
        Self {
            op,
            body,
            shape,
            numbered: Numbered::Read,
        }
    }

    /// A request that is refused before it becomes a write, or is no request at all.
    pub(crate) fn odd(op: i32, body: Body) -> Self {
        Self {
            op,
            body,
            shape: Shape::Nothing,
            numbered: Numbered::Other,
        }
    }

    /// The same `get_acl`, for a list whose order is not promised.
    pub(crate) fn unordered(mut self) -> Self {
        self.shape = Shape::AclSetStat;
        self
    }

    /// The same request with bytes behind its end.
    pub(crate) fn followed_by(mut self, bytes: &[u8]) -> Self {
        self.body = self.body.raw(bytes);
        self
    }

    /// The same operation with another body.
    pub(crate) fn with_body(mut self, body: Body) -> Self {
        self.body = body;
        self.numbered = Numbered::Other;
        self
    }
}

pub(crate) fn create_with(
    op: i32,
    path: &str,
    data: &[u8],
    acl: &[Entry<'_>],
    flags: i32,
) -> Request {
    let shape = if op == 1 {
        Shape::Path
    } else {
        Shape::PathStat
    };
    Request::write(
        op,
        shape,
        Body::default().text(path).bytes(data).acl(acl).int(flags),
    )
}

pub(crate) fn create(path: &str, flags: i32) -> Request {
    create_with(1, path, b"", OPEN, flags)
}

pub(crate) fn create2(path: &str, data: &[u8], flags: i32) -> Request {
    create_with(15, path, data, OPEN, flags)
}

pub(crate) fn create_acl(path: &str, acl: &[Entry<'_>]) -> Request {
    create_with(1, path, b"", acl, 0)
}

pub(crate) fn create_container(path: &str, flags: i32) -> Request {
    create_with(19, path, b"", OPEN, flags)
}

pub(crate) fn create_ttl(path: &str, flags: i32, ttl: i64) -> Request {
    let mut request = create_with(21, path, b"", OPEN, flags);
    request.body = request.body.long(ttl);
    request
}

pub(crate) fn delete(path: &str, version: i32) -> Request {
    Request::write(2, Shape::Nothing, Body::default().text(path).int(version))
}

pub(crate) fn exists(path: &str, watch: bool) -> Request {
    Request::read(3, Shape::Stat, Body::default().text(path).bool(watch))
}

pub(crate) fn get_data(path: &str, watch: bool) -> Request {
    Request::read(4, Shape::DataStat, Body::default().text(path).bool(watch))
}

pub(crate) fn set_data(path: &str, data: &[u8], version: i32) -> Request {
    Request::write(
        5,
        Shape::Stat,
        Body::default().text(path).bytes(data).int(version),
    )
}

pub(crate) fn get_acl(path: &str) -> Request {
    Request::read(6, Shape::AclStat, Body::default().text(path))
}

pub(crate) fn set_acl(path: &str, acl: &[Entry<'_>], version: i32) -> Request {
    Request::write(
        7,
        Shape::Stat,
        Body::default().text(path).acl(acl).int(version),
    )
}

pub(crate) fn get_children(path: &str, watch: bool) -> Request {
    Request::read(8, Shape::Names, Body::default().text(path).bool(watch))
}

pub(crate) fn get_children2(path: &str, watch: bool) -> Request {
    Request::read(12, Shape::NamesStat, Body::default().text(path).bool(watch))
}

pub(crate) fn sync(path: &str) -> Request {
    Request::read(9, Shape::Path, Body::default().text(path))
}

pub(crate) fn ping() -> Request {
    Request::read(11, Shape::Nothing, Body::default())
}

pub(crate) fn check(path: &str, version: i32) -> Request {
    Request::write(13, Shape::Nothing, Body::default().text(path).int(version))
}

pub(crate) fn check_watches(path: &str, kind: i32) -> Request {
    Request::read(17, Shape::Nothing, Body::default().text(path).int(kind))
}

pub(crate) fn remove_watches(path: &str, kind: i32) -> Request {
    Request::read(18, Shape::Nothing, Body::default().text(path).int(kind))
}

pub(crate) fn auth(scheme: &str, data: &[u8]) -> Request {
    Request::odd(100, Body::default().int(0).text(scheme).bytes(data))
}

pub(crate) fn get_ephemerals(prefix: &str) -> Request {
    Request::read(103, Shape::Names, Body::default().text(prefix))
}

pub(crate) fn get_all_children_number(path: &str) -> Request {
    Request::read(104, Shape::Number, Body::default().text(path))
}

pub(crate) fn add_watch(path: &str, mode: i32) -> Request {
    Request::read(106, Shape::Number, Body::default().text(path).int(mode))
}

pub(crate) fn who_am_i() -> Request {
    Request::read(107, Shape::Users, Body::default())
}

pub(crate) fn close_session() -> Request {
    Request::write(-11, Shape::Nothing, Body::default())
}

/// `lists`: data, exist, child and, with op 105, persistent and recursive.
pub(crate) fn set_watches(relative_zxid: i64, lists: &[&[&str]]) -> Request {
    let mut body = Body::default().long(relative_zxid);
    for list in lists {
        body = body.texts(list);
    }
    Request::read(
        if lists.len() == 3 { 101 } else { 105 },
        Shape::Nothing,
        body,
    )
}

fn transaction(requests: &[Request]) -> Body {
    let mut body = Body::default();
    for request in requests {
        body = body
            .int(request.op)
            .bool(false)
            .int(-1)
            .raw(&request.body.0);
    }
    body.int(-1).bool(true).int(-1)
}

pub(crate) fn multi(requests: &[Request]) -> Request {
    Request::write(14, Shape::Results, transaction(requests))
}

/// A multi that is refused as a whole before it becomes a write.
pub(crate) fn bad_multi(requests: &[Request]) -> Request {
    Request {
        numbered: Numbered::Other,
        ..multi(requests)
    }
}

pub(crate) fn multi_read(requests: &[Request]) -> Request {
    Request::read(22, Shape::Results, transaction(requests))
}
