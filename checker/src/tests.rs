//! Good histories are clean, and each promise is missed where it is broken.
//!
//! The histories come from the server's own state and watches ([`world`]), so they also hold the
//! naive tree of this crate against the real one.

mod promises;
mod random;
mod world;

use crate::history::{Data, Outcome, Reply, Request};
use crate::{Promise, Report, check};

/// A report of what must have no fault, as text if it has one.
#[track_caller]
fn assert_clean(history: &crate::History) -> Report {
    let report = check(history);
    assert!(report.is_clean(), "{}", show(&report));
    report
}

fn show(report: &Report) -> String {
    let violations = report.violations.iter().map(ToString::to_string);
    let undecided = report.undecided.iter().cloned();
    violations.chain(undecided).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_broken(history: &crate::History, promise: Promise) {
    let report = check(history);
    assert!(
        report.broken.contains_key(&promise),
        "{promise} is not noticed; only:\n{}",
        show(&report)
    );
}

fn create(path: &str) -> Request {
    create_kind(path, crate::history::CreateKind::Persistent)
}

fn create_kind(path: &str, kind: crate::history::CreateKind) -> Request {
    Request::Create {
        path: path.into(),
        data: Data::from("new"),
        kind,
        acl: None,
        with_stat: false,
    }
}

fn set(path: &str, data: &'static str) -> Request {
    Request::SetData {
        path: path.into(),
        data: Data::from(data),
        version: -1,
    }
}

fn get(path: &str) -> Request {
    Request::GetData {
        path: path.into(),
        watch: false,
    }
}

fn watch(path: &str) -> Request {
    Request::GetData {
        path: path.into(),
        watch: true,
    }
}

fn sync() -> Request {
    Request::Sync { path: "/".into() }
}

/// Changes the reply of an operation that was done.
fn reply_of(outcome: &mut Outcome) -> &mut Reply {
    match outcome {
        Outcome::Done { reply, .. } => reply,
        other => panic!("{other:?} has no reply"),
    }
}

fn zxid_of(outcome: &mut Outcome) -> &mut i64 {
    match outcome {
        Outcome::Done { zxid, .. } | Outcome::Refused { zxid, .. } => zxid,
        other => panic!("{other:?} has no zxid"),
    }
}
