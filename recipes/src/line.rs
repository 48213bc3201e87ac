//! Items in a directory, by the order in which they are to be served.
//!
//! The server numbers them. Its counter may wrap: ZooKeeper goes on below zero, Quorate beyond 31 bits,
//! so numbers are compared by their distance, as serial numbers.

use crate::naming::Number;

/// How the names of items are made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `qn-` and the number.
    Plain,
    /// `entry-`, three digits of priority, a hyphen and the number.
    Priority,
    /// `at-`, 16 hexadecimal digits of milliseconds since 1970, a hyphen and the number.
    Time,
}

/// An item of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// What counts before the number: the priority or the time. Lower is first.
    pub(crate) rank: u64,
    number: Number,
}

impl Style {
    pub(crate) fn prefix(self, rank: u64) -> String {
        match self {
            Self::Plain => "qn-".to_owned(),
            Self::Priority => format!("entry-{rank:03}-"),
            Self::Time => format!("at-{rank:016x}-"),
        }
    }

    /// `None`: none of ours.
    pub(crate) fn parse(self, name: &str) -> Option<Entry> {
        let (rank, number) = match self {
            Self::Plain => (0, name.strip_prefix("qn-")?),
            Self::Priority => {
                let (rank, number) = name.strip_prefix("entry-")?.split_once('-')?;
                (rank.parse().ok()?, number)
            }
            Self::Time => {
                let (rank, number) = name.strip_prefix("at-")?.split_once('-')?;
                (u64::from_str_radix(rank, 16).ok()?, number)
            }
        };
        let name = name.to_owned();
        let number = parse_number(number)?;
        Some(Entry { name, rank, number })
    }
}

/// Ten digits, or more; a sign in front where the counter has wrapped.
fn parse_number(digits: &str) -> Option<Number> {
    if digits.len() < 10 || digits.starts_with('+') {
        return None;
    }
    Number::parse(digits)
}

/// First those of the lowest rank, and of one rank those that came first.
pub(crate) fn order(entries: &mut [Entry]) {
    // Numbers that are in the directory together lie within half of their range.
    let Some(pivot) = entries.first().map(|entry| entry.number) else {
        return;
    };
    entries.sort_by_key(|entry| (entry.rank, entry.number.distance_from(pivot)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(style: Style, names: &[&str]) -> Vec<String> {
        let mut entries: Vec<Entry> = names.iter().filter_map(|name| style.parse(name)).collect();
        order(&mut entries);
        entries.into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn items_are_served_by_rank_and_then_by_number() {
        assert_eq!(
            sorted(
                Style::Plain,
                &["qn-0000000010", "qn-0000000009", "x", "qn-"]
            ),
            ["qn-0000000009", "qn-0000000010"]
        );
        assert_eq!(
            sorted(
                Style::Priority,
                &[
                    "entry-100-0000000001",
                    "entry-005-0000000002",
                    "entry-100-0000000000"
                ]
            ),
            [
                "entry-005-0000000002",
                "entry-100-0000000000",
                "entry-100-0000000001"
            ]
        );
        let (late, soon) = (Style::Time.prefix(1 << 40), Style::Time.prefix(5));
        let (late, soon) = (format!("{late}0000000000"), format!("{soon}0000000001"));
        assert_eq!(sorted(Style::Time, &[&late, &soon]), [soon, late]);
    }

    #[test]
    fn numbers_go_on_in_order_when_they_wrap() {
        assert_eq!(
            sorted(
                Style::Plain,
                &["qn--2147483648", "qn-2147483647", "qn--2147483647"]
            ),
            ["qn-2147483647", "qn--2147483648", "qn--2147483647"]
        );
        assert_eq!(
            sorted(
                Style::Plain,
                &["qn-2147483649", "qn-2147483647", "qn-2147483648"]
            ),
            ["qn-2147483647", "qn-2147483648", "qn-2147483649"]
        );
    }

    #[test]
    fn a_foreign_name_is_no_item() {
        for name in [
            "",
            "qn-1",
            "qn-+000000001",
            "lock",
            "own-00",
            "qn-00000x0000",
        ] {
            assert_eq!(Style::Plain.parse(name), None, "{name}");
        }
        assert_eq!(Style::Priority.parse("qn-0000000001"), None);
        assert_eq!(Style::Time.parse("at-x-0000000001"), None);
    }
}
