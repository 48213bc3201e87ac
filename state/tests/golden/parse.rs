//! The words of a script.

use bytes::Bytes;
use quorate_protocol::multi::MultiOp;
use quorate_protocol::request::{self, Check, Create, CreateTtl, Delete, SetAcl, SetData};
use quorate_protocol::{AclEntry, Id, Perms};
use quorate_state::Write;

/// The words of one operation: those in order, and those with a name.
pub(crate) struct Words<'a> {
    words: std::vec::IntoIter<&'a str>,
}

impl<'a> Words<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        Self {
            words: words.into_iter(),
        }
    }

    pub(crate) fn next(&mut self) -> &'a str {
        self.words.next().expect("the command wants another word")
    }

    pub(crate) fn text(&mut self) -> String {
        unescape(self.next())
    }

    /// Takes `name=value` from wherever it stands.
    pub(crate) fn named(&mut self, name: &str) -> Option<&'a str> {
        let value_of = |word: &&'a str| word.strip_prefix(name)?.strip_prefix('=');
        let value = self.words.as_slice().iter().find_map(value_of);
        let others: Vec<&str> = self
            .words
            .as_slice()
            .iter()
            .copied()
            .filter(|word| value_of(word).is_none())
            .collect();
        self.words = others.into_iter();
        value
    }

    pub(crate) fn number<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.named(name)
            .map(|value| value.parse().ok().expect("a number stands behind ="))
    }

    pub(crate) fn rest(&mut self) -> Option<&'a str> {
        self.words.next()
    }

    fn data(&mut self) -> Option<Bytes> {
        self.named("data").map(|data| match data {
            "\"\"" => Bytes::new(),
            repeated if repeated.starts_with('*') => {
                vec![b'x'; repeated[1..].parse().expect("* and a length")].into()
            }
            data => data.to_owned().into(),
        })
    }

    fn acl(&mut self) -> Vec<AclEntry> {
        match self.named("acl") {
            None => vec![AclEntry::open()],
            Some("none") => Vec::new(),
            Some(entries) => entries.split('|').map(acl_entry).collect(),
        }
    }

    fn create(&mut self) -> Create {
        Create {
            data: self.data(),
            acl: self.acl(),
            flags: self.number("flags").unwrap_or(0),
            path: self.text(),
        }
    }
}

/// A write of one client.
pub(crate) fn write(verb: &str, text: &str) -> Option<Write> {
    let mut words = Words::new(text);
    Some(match verb {
        "create" => Write::Create(words.create()),
        "create2" => Write::Create2(words.create()),
        "container" => Write::CreateContainer(words.create()),
        "ttl" => Write::CreateTtl(ttl(&mut words)),
        "delete" => Write::Delete(delete(&mut words)),
        "set" => Write::SetData(set(&mut words)),
        "setacl" => Write::SetAcl(SetAcl {
            acl: words.acl(),
            version: words.number("version").unwrap_or(-1),
            path: words.text(),
        }),
        "reconfig" => Write::Reconfig(request::Reconfig {
            joining: None,
            leaving: None,
            new_members: None,
            config_version: -1,
        }),
        "multi" => Write::Multi(
            text.split(';')
                .map(str::trim)
                .filter(|op| !op.is_empty())
                .map(multi_op)
                .collect(),
        ),
        _ => return None,
    })
}

fn multi_op(text: &str) -> MultiOp {
    let (verb, rest) = text.split_once(' ').expect("an operation and its words");
    let mut words = Words::new(rest);
    match verb {
        "create" => MultiOp::Create(words.create()),
        "create2" => MultiOp::Create2(words.create()),
        "container" => MultiOp::CreateContainer(words.create()),
        "ttl" => MultiOp::CreateTtl(ttl(&mut words)),
        "delete" => MultiOp::Delete(delete(&mut words)),
        "set" => MultiOp::SetData(set(&mut words)),
        "check" => MultiOp::Check(Check {
            version: words.number("version").unwrap_or(-1),
            path: words.text(),
        }),
        _ => panic!("{verb} is no operation of a multi"),
    }
}

fn ttl(words: &mut Words<'_>) -> CreateTtl {
    CreateTtl {
        ttl_ms: words.number("ttl").unwrap_or(-1),
        data: words.data(),
        acl: words.acl(),
        flags: words.number("flags").unwrap_or(5),
        path: words.text(),
    }
}

fn delete(words: &mut Words<'_>) -> Delete {
    Delete {
        version: words.number("version").unwrap_or(-1),
        path: words.text(),
    }
}

fn set(words: &mut Words<'_>) -> SetData {
    SetData {
        data: words.data(),
        version: words.number("version").unwrap_or(-1),
        path: words.text(),
    }
}

/// `scheme:id:permissions`, the permissions as letters or as a number.
fn acl_entry(text: &str) -> AclEntry {
    let (id, perms) = text.rsplit_once(':').expect("scheme:id:permissions");
    let (scheme, id) = id.split_once(':').expect("scheme:id:permissions");
    let or_null = |text: &str| (text != "null").then(|| text.to_owned());
    AclEntry {
        perms: self::perms(perms),
        scheme: or_null(scheme),
        id: or_null(id),
    }
}

fn perms(text: &str) -> Perms {
    if let Ok(number) = text.parse() {
        return Perms(number);
    }
    text.chars().fold(Perms(0), |perms, letter| {
        perms.union(match letter {
            'r' => Perms::READ,
            'w' => Perms::WRITE,
            'c' => Perms::CREATE,
            'd' => Perms::DELETE,
            'a' => Perms::ADMIN,
            _ => panic!("{letter} is no permission"),
        })
    })
}

/// `digest:user:password`, `super`, or any scheme and id.
pub(crate) fn identity(text: &str) -> Id {
    match text.split_once(':') {
        None => Id::superuser(),
        Some(("digest", credentials)) => Id::digest(credentials.as_bytes()),
        Some((scheme, id)) => Id::new(scheme, id),
    }
}

/// `\s` is a space, `\0` a NUL, `\u{1f600}` what it is in Rust, and `""` the empty string.
pub(crate) fn unescape(text: &str) -> String {
    if text == "\"\"" {
        return String::new();
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, escaped)) = rest.split_once('\\') {
        out.push_str(before);
        if let Some(hex) = escaped.strip_prefix("u{") {
            let (hex, after) = hex.split_once('}').expect("\\u{...}");
            let code = u32::from_str_radix(hex, 16).expect("a hexadecimal number");
            out.push(char::from_u32(code).expect("a character"));
            rest = after;
        } else {
            out.push(match &escaped[..1] {
                "s" => ' ',
                "0" => '\0',
                other => panic!("\\{other} means nothing"),
            });
            rest = &escaped[1..];
        }
    }
    out + rest
}
