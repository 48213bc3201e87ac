//! What strangers may have written where recipes look: what fuzzing calls. No part of the interface.
//!
//! Whatever is read is written again and says the same; a name that is taken apart is put together to
//! the same name; and an order is an order.

use crate::directory::{self, Kind};
use crate::integer::Layout;
use crate::line::{self, Style};
use crate::mark;
use crate::naming::Parsed;
use crate::record::Record;
use crate::revocation;
use crate::{registry, semaphore, two_phase_commit};

/// The data of a directory that says who holds a lock or leads.
///
/// # Panics
///
/// What is promised does not hold; the same of all others here.
pub fn record(data: &[u8]) {
    let record = Record::parse(Kind::Election, data);
    let written = record.to_bytes();
    assert_eq!(Record::parse(Kind::Election, &written), record);
    assert_eq!(directory::owner(&written), Some(record.recipe));
    let _ = (record.token(i64::MIN), record.is_taken());
}

/// An instance of a service.
pub fn instance(data: &[u8]) {
    registry::fuzzing(data);
}

/// What else is JSON: the marks of all recipes, what a semaphore's users agree on, and transactions.
pub fn marks(data: &[u8]) {
    let owner = directory::owner(data);
    let refused = directory::refuse_strangers("/a", data, Kind::Lock);
    assert_eq!(
        refused.is_ok(),
        owner == Some(Kind::Lock) || data.is_empty()
    );
    semaphore::fuzzing(data);
    two_phase_commit::fuzzing(data);
}

/// A number, in each of its formats.
pub fn integer(data: &[u8]) {
    for layout in [Layout::Text, Layout::Bytes4, Layout::Bytes8] {
        if let Some(value) = layout.decode(data) {
            let written = layout.encode(value).expect("what was read can be written");
            assert_eq!(layout.decode(&written), Some(value));
        }
    }
}

/// What a contender is asked by its data.
pub fn revocation(data: &[u8]) {
    let asked = [
        revocation::revoked(data).is_some(),
        revocation::transferred(data).is_some(),
        revocation::takes_over_from(data).is_some(),
    ];
    assert!(asked.into_iter().filter(|asked| *asked).count() <= 1);
    if asked.contains(&true) {
        let text = std::str::from_utf8(data).expect("words are text");
        assert!(revocation::is_asked(text));
    }
    if let Some(to) = revocation::transferred(data) {
        assert_eq!(revocation::transfer(&to).as_bytes(), data);
    }
    if let Some(leader) = revocation::takes_over_from(data) {
        assert_eq!(revocation::take_over(&leader).as_bytes(), data);
    }
}

/// The names of children, separated by slashes as no name can hold one: contenders of all libraries,
/// and items of queues.
pub fn names(text: &str) {
    let names: Vec<&str> = text.split('/').take(16).collect();
    let mut contenders = Vec::new();
    for name in &names {
        let _ = (mark::is_mark(name), revocation::is_ours(name));
        let _ = revocation::is_curators(name);
        if let Some(parsed) = Parsed::of(name) {
            let again = parsed.renumbered(name, parsed.number);
            let read = Parsed::of(&again).expect("renumbered it is a contender still");
            assert_eq!((read.number, read.role), (parsed.number, parsed.role));
            let _ = parsed.betrays(Kind::Lock);
            contenders.push(parsed.number);
        }
    }
    // Of two, one comes first.
    for one in &contenders {
        for other in &contenders {
            let both = one.comes_before(*other) && other.comes_before(*one);
            assert!(!both || one.distance_from(*other) == i32::MIN);
        }
    }
    for style in [Style::Plain, Style::Priority, Style::Time] {
        let mut entries: Vec<_> = names.iter().filter_map(|name| style.parse(name)).collect();
        line::order(&mut entries);
        assert!(entries.is_sorted_by_key(|entry| entry.rank));
        for entry in &entries {
            assert!(names.contains(&&*entry.name));
        }
    }
}
