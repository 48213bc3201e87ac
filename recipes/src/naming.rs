//! What contenders are called, here and in other libraries, and in which order they stand.
//!
//! A contender is an ephemeral sequential child of the recipe's directory. Every library has its own
//! way to name them, and sorts by it; exclusion between languages is a matter of names. Whatever
//! looks like a contender of any library we know counts as one, so that we wait for all of them;
//! whether they wait for us depends on the [`Naming`] that we choose.
//!
//! Numbers are compared by serial arithmetic modulo 2^32: after 2147483647 a server of Apache
//! ZooKeeper goes on with -2147483648, one of Quorate with 2147483648, and both mean "the next".

use crate::directory::Kind;

/// How the znodes of our contenders are named: decides which libraries exclude us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Naming {
    /// As Curator's `InterProcessMutex` (`_c_…-lock-0000000007`): excludes, and is excluded by, Curator,
    /// go-zookeeper, the `WriteLock` of ZooKeeper's Java recipes, and kazoo where it is told of these
    /// names: by `extra_lock_patterns=["-lock-"]`, or by a subclass of its `Lock` with
    /// `_NODE_NAME = "-lock-"` and `_EXCLUDE_NAMES = ["-lock-"]`, which Curator excludes as well (one
    /// with the first of the two alone excludes nobody). A stock kazoo `Lock` does not see it.
    #[default]
    Curator,
    /// As kazoo's `Lock` (`_c_…-__lock__0000000007`): excludes, and is excluded by, kazoo and
    /// go-zookeeper. Curator and `WriteLock` do not wait for it.
    Kazoo,
    /// As the `WriteLock` of ZooKeeper's Java recipes (`_c_…-x-<session>-0000000007`): excludes, and is
    /// excluded by, that one alone. go-zookeeper's lock fails where it finds such a name.
    JavaRecipe,
}

/// What a contender wants, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// To be the only one.
    Exclusive,
    /// To be beside others who only read.
    Shared,
    /// To lead.
    Lead,
    /// To be one of so many.
    Permit,
}

/// What comes between mark and number, and what it means. The longest that fits counts, so that
/// `__rlock__` is not taken for `lock-`.
const PATTERNS: [(&str, Role); 9] = [
    ("__rlock__", Role::Shared),
    ("__READ__", Role::Shared),
    ("__lock__", Role::Exclusive),
    ("__WRIT__", Role::Exclusive),
    ("latch-", Role::Lead),
    ("lock-", Role::Exclusive),
    ("lease-", Role::Permit),
    ("n_", Role::Lead),
    // ZooKeeper's WriteLock: `x-<session in decimal>-`.
    ("x-", Role::Exclusive),
];

/// A name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) number: Number,
    pub(crate) role: Role,
    pattern: &'static str,
}

/// The number at the end of a name. Not ordered by itself: see [`Number::comes_before`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Number(u32);

impl Number {
    /// Whether one contender came before another. True as long as the two are less than 2^31 apart,
    /// which takes that many joins within the time of one wait.
    pub(crate) fn comes_before(self, other: Self) -> bool {
        let distance = other.distance_from(self);
        distance > 0
    }

    /// How far behind `earlier` this is; negative if it is ahead.
    pub(crate) fn distance_from(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// As Apache ZooKeeper and Curator write it: ten digits, of a signed number.
    pub(crate) fn digits(self) -> String {
        format!("{:010}", self.0.cast_signed())
    }

    pub(crate) fn parse(digits: &str) -> Option<Self> {
        let number: i64 = digits.parse().ok()?;
        let wrapped = number.rem_euclid(1 << 32);
        Some(Self(u32::try_from(wrapped).ok()?))
    }
}

impl Parsed {
    /// Takes a child's name apart; `None` if it is no contender of any library we know.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let (head, digits) = split_number(name)?;
        let number = Number::parse(digits)?;
        let found = PATTERNS.iter().find(|(pattern, _)| match *pattern {
            "x-" => is_java_recipe(head),
            "n_" => head == "n_",
            _ => head.ends_with(pattern),
        });
        found.map(|&(pattern, role)| Self {
            number,
            role,
            pattern,
        })
    }

    /// The same name with another number.
    pub(crate) fn renumbered(&self, name: &str, number: Number) -> String {
        let head = split_number(name).map_or(name, |(head, _)| head);
        format!("{head}{}", number.digits())
    }

    /// Which recipe other than `wanted` this name betrays, if any. Names that several recipes use
    /// betray nothing.
    pub(crate) fn betrays(&self, wanted: Kind) -> Option<Kind> {
        let kind = match self.pattern {
            "latch-" | "n_" => Kind::Election,
            "__READ__" | "__WRIT__" | "__rlock__" => Kind::ReadWriteLock,
            "lease-" => Kind::Semaphore,
            _ => return None,
        };
        (kind != wanted).then_some(kind)
    }
}

/// Splits off the number: ten characters as servers write it (`%010d`), eleven for the longest of
/// those that have wrapped. The sign is one of them: after -1000000000 comes -999999999.
fn split_number(name: &str) -> Option<(&str, &str)> {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let unsigned = match digits {
        0..=8 => return None,
        // There has to be a sign.
        9 => name.len() - 9,
        // The server writes ten at most, so what is before them belongs to the name; unless there is
        // no other way to read it, as with eleven digits, which then fits no pattern.
        _ => name.len() - 10,
    };
    // The sign belongs to the number if what is before it ends a pattern itself.
    match name[..unsigned].strip_suffix('-') {
        Some(head) if ends_a_pattern(head) => Some(name.split_at(head.len())),
        _ if digits == 9 => None,
        _ => Some(name.split_at(unsigned)),
    }
}

fn ends_a_pattern(head: &str) -> bool {
    let known = PATTERNS.iter().filter(|(pattern, _)| *pattern != "x-");
    let ends = known
        .into_iter()
        .any(|(pattern, _)| head.ends_with(pattern));
    ends || is_java_recipe(head)
}

/// `x-<session in decimal>-`, after a mark or without one.
fn is_java_recipe(head: &str) -> bool {
    let Some(head) = head.strip_suffix('-') else {
        return false;
    };
    let session = head.rsplit_once("x-").map(|(before, session)| {
        let stands_alone = before.is_empty() || before.ends_with('-');
        (stands_alone, session.strip_prefix('-').unwrap_or(session))
    });
    matches!(session, Some((true, digits)) if !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The name that a contender asks for: the server appends the number, the client's mark comes in
/// front.
pub(crate) fn prefix(kind: Kind, naming: Naming, role: Role, session: i64) -> String {
    match (naming, role) {
        (_, Role::Lead) => "latch-".to_owned(),
        (_, Role::Permit) => "lease-".to_owned(),
        (Naming::Curator, Role::Shared) => "__READ__".to_owned(),
        (Naming::Curator, Role::Exclusive) if kind == Kind::ReadWriteLock => "__WRIT__".to_owned(),
        (Naming::Curator, Role::Exclusive) => "lock-".to_owned(),
        (Naming::Kazoo, Role::Shared) => "__rlock__".to_owned(),
        (Naming::Kazoo, Role::Exclusive) => "__lock__".to_owned(),
        (Naming::JavaRecipe, _) => format!("x-{session}-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "_c_00112233445566778899aabbccddeeff-";

    fn number(digits: &str) -> Number {
        Number::parse(digits).expect("it is a number")
    }

    #[test]
    fn contenders_of_every_library_are_known_by_their_names() {
        for (name, role) in [
            (
                "_c_0b9a3c55-7c4b-4e0e-8c8a-111111111111-lock-0000000007",
                Role::Exclusive,
            ),
            (
                "_c_0b9a3c55-7c4b-4e0e-8c8a-111111111111-latch-0000000007",
                Role::Lead,
            ),
            (
                "_c_0b9a3c55-7c4b-4e0e-8c8a-111111111111-__READ__0000000007",
                Role::Shared,
            ),
            (
                "_c_0b9a3c55-7c4b-4e0e-8c8a-111111111111-__WRIT__0000000007",
                Role::Exclusive,
            ),
            (
                "_c_0b9a3c55-7c4b-4e0e-8c8a-111111111111-lease-0000000007",
                Role::Permit,
            ),
            (
                "c0ffeec0ffeec0ffeec0ffeec0ffeec0__lock__0000000007",
                Role::Exclusive,
            ),
            (
                "c0ffeec0ffeec0ffeec0ffeec0ffeec0__rlock__0000000007",
                Role::Shared,
            ),
            ("x-72057594037927936-0000000007", Role::Exclusive),
            ("x--72057594037927936-0000000007", Role::Exclusive),
            ("n_0000000007", Role::Lead),
            (
                "_c_00112233445566778899aabbccddeeff-x-72057594037927936-0000000007",
                Role::Exclusive,
            ),
        ] {
            let parsed = Parsed::of(name);
            let seen = parsed.map(|parsed| (parsed.number, parsed.role));
            assert_eq!(seen, Some((number("7"), role)), "{name}");
        }
    }

    #[test]
    fn strangers_are_no_contenders() {
        for name in [
            "",
            "locks",
            "lock-",
            "lock-7",
            "lock-00000000x7",
            "lock-000000007",
            "lock--00000007",
            "0000000007",
            "job-0000000007",
            "x-0000000007",
            "x-12a-0000000007",
            "lock-00000000070",
            "an_0000000007",
            "lock-\u{e9}0000000007\u{e9}",
        ] {
            assert_eq!(Parsed::of(name), None, "{name}");
        }
    }

    #[test]
    fn what_we_create_is_what_we_know() {
        for naming in [Naming::Curator, Naming::Kazoo, Naming::JavaRecipe] {
            for role in [Role::Exclusive, Role::Shared, Role::Lead, Role::Permit] {
                if (naming, role) == (Naming::JavaRecipe, Role::Shared) {
                    continue;
                }
                for (digits, same) in [
                    ("0000000012", "12"),
                    ("2147483647", "2147483647"),
                    ("-2147483648", "2147483648"),
                    ("2147483648", "2147483648"),
                    ("-1000000000", "3294967296"),
                    ("-999999999", "3294967297"),
                    ("-000000001", "4294967295"),
                ] {
                    let name = format!(
                        "{MARK}{}{digits}",
                        prefix(Kind::Lock, naming, role, 0x1000_5dfc)
                    );
                    let parsed = Parsed::of(&name).unwrap_or_else(|| panic!("{name}"));
                    assert_eq!(parsed.role, role, "{name}");
                    assert_eq!(parsed.number, number(same), "{name}");
                }
            }
        }
    }

    #[test]
    fn order_survives_the_wrap_of_numbers_on_either_server() {
        for (earlier, later) in [
            ("0", "1"),
            ("9", "10"),
            ("2147483647", "-2147483648"),
            ("2147483647", "2147483648"),
            ("-2147483648", "-2147483647"),
            ("-1", "0"),
            ("4294967295", "0"),
            ("2147483640", "2147483652"),
        ] {
            let (earlier, later) = (number(earlier), number(later));
            assert!(earlier.comes_before(later), "{earlier:?} {later:?}");
            assert!(!later.comes_before(earlier), "{earlier:?} {later:?}");
            assert!(!earlier.comes_before(earlier));
        }
    }

    #[test]
    fn a_name_keeps_all_but_its_number() {
        let name = format!("{MARK}latch--2147483648");
        let parsed = Parsed::of(&name).expect("it is known");
        let renumbered = parsed.renumbered(&name, number("7"));
        assert_eq!(renumbered, format!("{MARK}latch-0000000007"));
    }

    #[test]
    fn a_number_is_written_as_servers_write_it() {
        assert_eq!(number("7").digits(), "0000000007");
        assert_eq!(number("-2147483648").digits(), "-2147483648");
        assert_eq!(number("2147483648").digits(), "-2147483648");
    }

    #[test]
    fn a_latch_betrays_an_election_and_a_reader_a_lock_for_readers() {
        let betrays = |name: &str, wanted| Parsed::of(name).expect("it is known").betrays(wanted);
        let latch = format!("{MARK}latch-0000000001");
        assert_eq!(betrays(&latch, Kind::Lock), Some(Kind::Election));
        assert_eq!(betrays(&latch, Kind::Election), None);
        let reader = format!("{MARK}__READ__0000000001");
        assert_eq!(betrays(&reader, Kind::Lock), Some(Kind::ReadWriteLock));
        let lock = format!("{MARK}lock-0000000001");
        assert_eq!(
            betrays(&lock, Kind::Election),
            None,
            "a LeaderSelector has these, too"
        );
    }
}
