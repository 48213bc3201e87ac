//! Who is let in, and what is told to those who are not in yet.

use parking_lot::Mutex;

use super::*;

const CLUSTER: u64 = 77;
const OURS: u64 = 50;

fn identity(incarnation: u64) -> Identity {
    Identity {
        cluster: CLUSTER,
        server: 1,
        incarnation,
    }
}

#[derive(Debug)]
struct Knows {
    known: Option<u64>,
    member: bool,
    current: bool,
    standing: Standing,
    seen: Mutex<Vec<(u64, u64)>>,
}

impl View for Knows {
    fn standing(&self) -> Standing {
        self.standing
    }
    fn incarnation_of(&self, _: u64) -> Option<u64> {
        self.known
    }
    fn is_member(&self, _: u64) -> bool {
        self.member
    }
    fn is_current(&self, _: u64) -> bool {
        self.current
    }
    fn on_seen(&self, server: u64, incarnation: u64) -> bool {
        let mut seen = self.seen.lock();
        if let Some(first) = seen.iter().find(|seen| seen.0 == server) {
            return first.1 == incarnation;
        }
        seen.push((server, incarnation));
        true
    }
}

fn knows(known: Option<u64>, member: bool, current: bool) -> Arc<Knows> {
    Arc::new(Knows {
        known,
        member,
        current,
        standing: Standing::Settled,
        seen: Mutex::default(),
    })
}

fn gate(view: &Arc<Knows>) -> Gate {
    let gate = Gate::new(1, 3, CLUSTER, true);
    gate.set_identity(identity(OURS));
    let view: Weak<Knows> = Arc::downgrade(view);
    gate.set_view(view);
    gate
}

fn caller(incarnation: u64) -> Caller {
    Caller {
        cluster: CLUSTER,
        server: 2,
        incarnation,
        run: 1,
    }
}

fn code(admitted: Result<(), Refusal>) -> Option<RefusalCode> {
    admitted.err().map(|refusal| refusal.code)
}

#[test]
fn a_member_with_the_data_it_is_known_by_is_admitted() {
    let view = knows(Some(6), true, true);
    assert_eq!(code(gate(&view).admit(caller(6))), None);
    assert!(view.seen.lock().is_empty());
}

#[test]
fn a_member_that_was_not_seen_before_is_admitted_and_reported() {
    let view = knows(None, true, true);
    assert_eq!(code(gate(&view).admit(caller(6))), None);
    assert_eq!(*view.seen.lock(), [(2, 6)]);
}

/// Until the ensemble has agreed on one of them, the first counts.
#[test]
fn of_two_new_servers_with_one_id_the_second_is_refused() {
    let view = knows(None, true, true);
    let gate = gate(&view);
    assert_eq!(code(gate.admit(caller(6))), None);
    assert_eq!(code(gate.admit(caller(7))), Some(RefusalCode::ReusedId));
    assert_eq!(code(gate.admit(caller(6))), None);
}

#[test]
fn another_ensemble_the_same_id_and_a_stranger_are_refused() {
    let view = knows(None, true, true);
    let gate_of_member = gate(&view);
    let other = Caller {
        cluster: 1,
        ..caller(6)
    };
    assert_eq!(
        code(gate_of_member.admit(other)),
        Some(RefusalCode::Cluster)
    );
    let namesake = Caller {
        server: 1,
        ..caller(6)
    };
    assert_eq!(
        code(gate_of_member.admit(namesake)),
        Some(RefusalCode::ReusedId)
    );
    let view = knows(Some(6), false, true);
    assert_eq!(
        code(gate(&view).admit(caller(6))),
        Some(RefusalCode::Stranger)
    );
}

#[test]
fn data_older_than_what_is_known_is_refused_by_everybody() {
    for current in [false, true] {
        let view = knows(Some(7), true, current);
        assert_eq!(
            code(gate(&view).admit(caller(6))),
            Some(RefusalCode::ReusedId)
        );
    }
}

/// A server that lags may not have heard that another was taken in again, or added; refusing it,
/// it would refuse the very leader that could tell it.
#[test]
fn a_server_that_is_not_up_to_date_refuses_neither_newer_data_nor_a_stranger() {
    let view = knows(Some(7), true, true);
    assert_eq!(
        code(gate(&view).admit(caller(8))),
        Some(RefusalCode::ReusedId)
    );
    let view = knows(Some(7), false, false);
    assert_eq!(code(gate(&view).admit(caller(8))), None);
}

#[test]
fn before_it_knows_anything_a_server_talks_with_nobody_and_says_so() {
    let gate = Gate::new(1, 3, 5, false);
    assert_eq!(gate.me(), None);
    assert_eq!(code(gate.admit(caller(6))), Some(RefusalCode::Starting));
    let probe = Probe {
        cluster: 5,
        server: 2,
    };
    assert_eq!(gate.probed(probe).standing, Standing::New);
    assert_eq!(gate.probed(probe).cluster, 5);
    gate.set_identity(identity(OURS));
    assert_eq!(code(gate.admit(caller(6))), Some(RefusalCode::Starting));
}

#[test]
fn a_server_that_is_cut_off_does_not_tell_whom_it_knows() {
    let probe = Probe {
        cluster: 5,
        server: 2,
    };
    let probed = gate(&knows(Some(6), true, false)).probed(probe);
    assert_eq!((probed.standing, probed.known), (Standing::Unsettled, None));
}

/// One that has not heard from a majority since it started may know less than it once did.
#[test]
fn only_a_settled_server_tells_whom_it_knows() {
    let probe = Probe {
        cluster: 5,
        server: 2,
    };
    for standing in [
        Standing::New,
        Standing::Founding,
        Standing::Unsettled,
        Standing::Settled,
    ] {
        let view = Arc::new(Knows {
            standing,
            ..Arc::into_inner(knows(Some(6), true, true)).unwrap()
        });
        let probed = gate(&view).probed(probe);
        let settled = standing == Standing::Settled;
        assert_eq!(probed.standing, standing);
        assert_eq!(probed.known, settled.then_some(6));
        assert_eq!(probed.member, settled);
    }
}
