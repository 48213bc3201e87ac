//! The page of promises and the checker have the same ones.

use std::collections::BTreeSet;

use quorate_checker::Promise;

const PAGE: &str = include_str!("../../docs/guarantees.md");

#[test]
fn every_promise_of_the_page_is_checked_and_every_check_is_on_the_page() {
    let headings = PAGE.lines().filter_map(|line| line.strip_prefix("### `"));
    let on_page: Vec<&str> = headings.map(|rest| rest.trim_end_matches('`')).collect();
    let promised: BTreeSet<&str> = on_page.iter().copied().collect();
    assert_eq!(promised.len(), on_page.len(), "a promise has two headings");
    let checked: BTreeSet<&str> = Promise::ALL.iter().map(|promise| promise.name()).collect();
    assert_eq!(promised, checked);
    assert_eq!(checked.len(), Promise::ALL.len(), "a name is used twice");
}

#[test]
fn every_promise_names_what_it_is_derived_from() {
    for promise in Promise::ALL {
        assert!(!promise.invariants().is_empty(), "{promise}");
    }
}
