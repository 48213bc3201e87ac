//! Where each field of a request lies in its frame.
//!
//! Read off the protocol crate's own records, through serde: a field that is added to one of them is
//! in the layout by itself, and so is spoilt by every case that [`super::spoil`] derives. A kind of
//! request that is added does not compile here until somebody says what it is made of.

use std::fmt;

use quorate_protocol::multi::{MultiOp, ReadOp};
use quorate_protocol::{OpCode, Request};
use serde::Serialize;
use serde::ser::{self, Impossible};

/// The header in front of every request: xid and operation.
pub(super) const HEADER_BYTES: usize = 8;

/// One field: what it is called, where it begins in the body (header included), what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Long,
    /// A length and so many bytes of text.
    Text {
        bytes: usize,
        nullable: bool,
    },
    /// A length and so many bytes of anything.
    Buffer {
        bytes: usize,
        nullable: bool,
    },
    /// A length of -1, of something that could be there.
    Null,
    /// A count; the elements are fields of their own.
    Count(usize),
}

/// All fields of a request, in their order.
pub(super) fn layout(request: &Request) -> Vec<Field> {
    let mut recorder = Recorder::default();
    match request {
        Request::Create(r) | Request::Create2(r) | Request::CreateContainer(r) => recorder.add(r),
        Request::CreateTtl(r) => recorder.add(r),
        Request::Delete(r) => recorder.add(r),
        Request::SetData(r) => recorder.add(r),
        Request::SetAcl(r) => recorder.add(r),
        Request::Check(r) => recorder.add(r),
        Request::Multi(ops) => {
            for op in ops {
                recorder.add_multi_header();
                match op {
                    MultiOp::Create(r) | MultiOp::Create2(r) | MultiOp::CreateContainer(r) => {
                        recorder.add(r);
                    }
                    MultiOp::CreateTtl(r) => recorder.add(r),
                    MultiOp::Delete(r) => recorder.add(r),
                    MultiOp::SetData(r) => recorder.add(r),
                    MultiOp::Check(r) => recorder.add(r),
                }
            }
            recorder.add_multi_header();
        }
        Request::MultiRead(ops) => {
            for op in ops {
                recorder.add_multi_header();
                match op {
                    ReadOp::GetData(r) | ReadOp::GetChildren(r) => recorder.add(r),
                }
            }
            recorder.add_multi_header();
        }
        Request::Exists(r)
        | Request::GetData(r)
        | Request::GetChildren(r)
        | Request::GetChildren2(r) => recorder.add(r),
        Request::GetAcl(r) | Request::GetAllChildrenNumber(r) | Request::Sync(r) => {
            recorder.add(r);
        }
        Request::GetEphemerals(r) => recorder.add(r),
        Request::Reconfig(r) => recorder.add(r),
        Request::CheckWatches(r) | Request::RemoveWatches(r) => recorder.add(r),
        Request::SetWatches(r) => recorder.add(r),
        Request::SetWatches2(r) => recorder.add(r),
        Request::AddWatch(r) => recorder.add(r),
        Request::Auth(r) => recorder.add(r),
        Request::Sasl(r) => recorder.add(r),
        Request::Ping | Request::PingWithQuestion | Request::WhoAmI | Request::CloseSession => {}
    }
    recorder.fields
}

/// Whether the operation has anything to spoil behind its header.
pub(super) fn has_fields(op: OpCode) -> bool {
    !matches!(op, OpCode::Ping | OpCode::WhoAmI | OpCode::CloseSession)
}

/// A serde serializer that writes down where things would be.
struct Recorder {
    at: usize,
    path: Vec<String>,
    nullable: bool,
    fields: Vec<Field>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            at: HEADER_BYTES,
            path: Vec::new(),
            nullable: false,
            fields: Vec::new(),
        }
    }
}

impl Recorder {
    fn add<T: Serialize>(&mut self, record: &T) {
        record
            .serialize(self)
            .expect("records are made of what jute has");
    }

    /// In front of every operation of a multi, and behind the last.
    fn add_multi_header(&mut self) {
        for (name, kind, bytes) in [
            ("type", Kind::Int, 4),
            ("done", Kind::Bool, 1),
            ("err", Kind::Int, 4),
        ] {
            self.path.push(name.to_owned());
            self.note(kind, bytes);
            self.path.pop();
        }
    }

    fn note(&mut self, kind: Kind, bytes: usize) {
        self.fields.push(Field {
            name: self.path.join("."),
            at: self.at,
            kind,
        });
        self.at += bytes;
    }
}

/// Where the records end: what a caller compares with the length of the encoded request.
pub(super) fn end(fields: &[Field]) -> usize {
    fields.last().map_or(HEADER_BYTES, |last| {
        last.at
            + match last.kind {
                Kind::Bool => 1,
                Kind::Int | Kind::Null | Kind::Count(_) => 4,
                Kind::Long => 8,
                Kind::Text { bytes, .. } | Kind::Buffer { bytes, .. } => 4 + bytes,
            }
    })
}

/// Something jute has no notation for.
#[derive(Debug)]
struct NoJute(String);

impl fmt::Display for NoJute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoJute {}

impl ser::Error for NoJute {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

macro_rules! unsupported {
    ($($method:ident($($type:ty),*);)*) => {
        $(fn $method(self, $(_: $type),*) -> Result<(), NoJute> {
            Err(NoJute(stringify!($method).to_owned()))
        })*
    };
}

impl ser::Serializer for &mut Recorder {
    type Ok = ();
    type Error = NoJute;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Impossible<(), NoJute>;
    type SerializeMap = Impossible<(), NoJute>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), NoJute>;

    fn serialize_bool(self, _: bool) -> Result<(), NoJute> {
        self.note(Kind::Bool, 1);
        Ok(())
    }

    fn serialize_i32(self, _: i32) -> Result<(), NoJute> {
        self.note(Kind::Int, 4);
        Ok(())
    }

    fn serialize_i64(self, _: i64) -> Result<(), NoJute> {
        self.note(Kind::Long, 8);
        Ok(())
    }

    fn serialize_str(self, text: &str) -> Result<(), NoJute> {
        let nullable = std::mem::take(&mut self.nullable);
        let bytes = text.len();
        self.note(Kind::Text { bytes, nullable }, 4 + bytes);
        Ok(())
    }

    fn serialize_bytes(self, data: &[u8]) -> Result<(), NoJute> {
        let nullable = std::mem::take(&mut self.nullable);
        let bytes = data.len();
        self.note(Kind::Buffer { bytes, nullable }, 4 + bytes);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), NoJute> {
        self.note(Kind::Null, 4);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NoJute> {
        self.nullable = true;
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NoJute> {
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self, NoJute> {
        let length = length.ok_or_else(|| NoJute("a list of unknown length".to_owned()))?;
        self.note(Kind::Count(length), 4);
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, NoJute> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, NoJute> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, NoJute> {
        Ok(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), NoJute> {
        Err(NoJute("an enum".to_owned()))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NoJute> {
        Err(NoJute("an enum".to_owned()))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NoJute> {
        Err(NoJute("a map".to_owned()))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NoJute> {
        Err(NoJute("an enum".to_owned()))
    }

    unsupported! {
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }
}

impl ser::SerializeStruct for &mut Recorder {
    type Ok = ();
    type Error = NoJute;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NoJute> {
        self.path.push(name.to_owned());
        let result = value.serialize(&mut **self);
        self.path.pop();
        result
    }

    fn end(self) -> Result<(), NoJute> {
        Ok(())
    }
}

macro_rules! unnamed {
    ($($trait:ident::$method:ident;)*) => {
        $(impl ser::$trait for &mut Recorder {
            type Ok = ();
            type Error = NoJute;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoJute> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), NoJute> {
                Ok(())
            }
        })*
    };
}

unnamed! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
}
