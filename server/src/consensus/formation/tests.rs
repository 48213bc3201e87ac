//! Who founds, who joins, who waits, and who is not let in.

use parking_lot::Mutex;

use super::*;
use crate::config::{ClientAddress, PeerAddress};

fn member(id: u8, role: Role) -> Member {
    Member {
        id,
        role,
        addresses: vec![PeerAddress {
            host: format!("host{id}"),
            quorum_port: 2888,
            election_port: 3888,
        }],
        client: Some(ClientAddress {
            host: None,
            port: 2181,
        }),
    }
}

/// Three that vote, and an observer.
fn listed() -> Listed {
    let mut members: Vec<Member> = (1..=3).map(|id| member(id, Role::Participant)).collect();
    members.push(member(4, Role::Observer));
    Listed::new(&members)
}

const OURS: u64 = 50;

fn identity(incarnation: u64) -> Identity {
    Identity {
        cluster: listed().cluster(),
        server: 1,
        incarnation,
    }
}

fn probed(server: u64, standing: Standing) -> Probed {
    Probed {
        cluster: listed().cluster(),
        server,
        standing,
        known: None,
        member: false,
    }
}

fn unreachable(server: u64) -> PeerError {
    PeerError::Unreachable {
        server,
        address: format!("host{server}:2888"),
        reason: "no answer".to_owned(),
    }
}

fn judge(server: u64, identity: Option<Identity>, answers: &[Probed]) -> Verdict {
    let listed = listed();
    let applicant = Applicant {
        server,
        listed: &listed,
        identity,
        incarnation: OURS,
        rejoin: false,
        data_dir: "data".to_owned(),
    };
    let mut all: BTreeMap<u64, Result<Probed, PeerError>> = (1..=4)
        .filter(|other| *other != server)
        .map(|other| (other, Err(unreachable(other))))
        .collect();
    all.extend(answers.iter().map(|probed| (probed.server, Ok(*probed))));
    applicant.judge(&all)
}

fn reason_to_wait(verdict: Verdict) -> String {
    match verdict {
        Verdict::Wait(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_majority_of_new_servers_founds_an_ensemble_and_less_waits() {
    let new = |server| probed(server, Standing::New);
    assert_eq!(judge(1, None, &[new(2)]), Verdict::Found);
    assert_eq!(judge(1, None, &[new(2), new(3)]), Verdict::Found);
    assert_eq!(
        judge(1, None, &[probed(3, Standing::Founding)]),
        Verdict::Found
    );
    assert_eq!(judge(1, Some(identity(OURS)), &[new(2)]), Verdict::Found);
    let reason = reason_to_wait(judge(1, None, &[]));
    assert!(
        reason.contains("server 2 cannot be reached at host2:2888"),
        "{reason}"
    );
    assert!(reason.contains("server 3 cannot be reached"), "{reason}");
}

#[test]
fn an_observer_neither_founds_an_ensemble_nor_counts_for_a_majority() {
    let new = |server| probed(server, Standing::New);
    reason_to_wait(judge(1, None, &[new(4)]));
    let reason = reason_to_wait(judge(4, None, &[new(1), new(2), new(3)]));
    assert!(
        reason.contains("an observer founds no ensemble"),
        "{reason}"
    );
}

/// Its data may hold what the majority had acknowledged before the others lost theirs.
#[test]
fn nobody_founds_an_ensemble_beside_a_server_that_has_data() {
    let answers = [probed(2, Standing::New), probed(3, Standing::Unsettled)];
    let reason = reason_to_wait(judge(1, None, &answers));
    assert!(reason.contains("server 3 has data"), "{reason}");
}

#[test]
fn servers_whose_lines_differ_do_not_count_and_are_told_so() {
    let other = Probed {
        cluster: 1,
        ..probed(2, Standing::New)
    };
    let reason = reason_to_wait(judge(1, None, &[other]));
    assert!(
        reason.contains("server 2 has other server.N lines"),
        "{reason}"
    );
}

#[test]
fn a_server_at_the_wrong_address_does_not_count() {
    let listed = listed();
    let applicant = Applicant {
        server: 1,
        listed: &listed,
        identity: None,
        incarnation: OURS,
        rejoin: false,
        data_dir: "data".to_owned(),
    };
    let answers = BTreeMap::from([(2, Ok(probed(3, Standing::New)))]);
    let reason = reason_to_wait(applicant.judge(&answers));
    assert!(
        reason.contains("server 3 answers where server 2 should"),
        "{reason}"
    );
}

#[test]
fn a_server_that_the_ensemble_does_not_know_joins_it_under_the_ensembles_name() {
    let settled = Probed {
        cluster: 9,
        ..probed(2, Standing::Settled)
    };
    assert_eq!(judge(1, None, &[settled]), Verdict::Join { cluster: 9 });
    let new = probed(3, Standing::New);
    assert_eq!(
        judge(1, None, &[settled, new]),
        Verdict::Join { cluster: 9 }
    );
    assert_eq!(judge(4, None, &[settled]), Verdict::Join { cluster: 9 });
}

#[test]
fn a_server_without_the_data_it_is_known_by_is_not_let_in() {
    let knows = |known| Probed {
        known: Some(known),
        ..probed(2, Standing::Settled)
    };
    let cluster = listed().cluster();
    let known = |incarnation| Verdict::Known {
        cluster,
        incarnation,
    };
    assert_eq!(judge(1, None, &[knows(7)]), known(7));
    assert_eq!(judge(1, Some(identity(8)), &[knows(9)]), known(9));
    let has_not_heard = probed(3, Standing::Settled);
    assert_eq!(judge(1, None, &[knows(7), has_not_heard]), known(7));
    let same = judge(1, Some(identity(7)), &[knows(7)]);
    assert_eq!(same, Verdict::Join { cluster });
}

#[test]
fn the_ensembles_name_follows_from_its_lines_in_any_order() {
    let lines = |ids: &[u8]| -> Vec<Member> {
        ids.iter()
            .map(|id| member(*id, Role::Participant))
            .collect()
    };
    let name = |members: &[Member]| Listed::new(members).cluster();
    assert_eq!(name(&lines(&[1, 2, 3])), name(&lines(&[3, 1, 2])));
    assert_ne!(name(&lines(&[1, 2, 3])), name(&lines(&[1, 2, 4])));
    let mut other = lines(&[1, 2, 3]);
    other[0].role = Role::Observer;
    assert_ne!(name(&lines(&[1, 2, 3])), name(&other));
    let mut other = lines(&[1, 2, 3]);
    other[2].addresses[0].quorum_port = 2889;
    assert_ne!(name(&lines(&[1, 2, 3])), name(&other));
    // Kept in identity files: it may never come out differently.
    assert_eq!(name(&lines(&[1, 2, 3])), 0xbb49_837e_9d02_e336);
}

#[test]
fn newer_data_has_the_higher_number_and_no_two_have_the_same() {
    #[derive(Debug)]
    struct At(i64);
    impl Clock for At {
        fn wall_ms(&self) -> i64 {
            self.0
        }
        fn monotonic_us(&self) -> u64 {
            0
        }
    }
    #[derive(Debug)]
    struct Fill(u8);
    impl Randomness for Fill {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }
    let now = 1_800_000_000_000;
    let old = draw_incarnation(&At(now), &Fill(0xff));
    let new = draw_incarnation(&At(now + 1), &Fill(0));
    assert!(old < new, "{old} {new}");
    assert_ne!(old, draw_incarnation(&At(now), &Fill(0xfe)));
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
    fn on_seen(&self, server: u64, incarnation: u64) {
        self.seen.lock().push((server, incarnation));
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
    let gate = Gate::new(1, 3, listed().cluster(), true);
    gate.set_identity(identity(OURS));
    let view: Weak<Knows> = Arc::downgrade(view);
    gate.set_view(view);
    gate
}

fn caller(incarnation: u64) -> Caller {
    Caller {
        cluster: listed().cluster(),
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
