//! Who founds, who joins, who waits, and who is not let in.

use super::*;
use crate::config::{ClientAddress, PeerAddress};
use crate::network::SystemNetwork;

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
        run: 0,
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
        network: Arc::new(SystemNetwork),
        server,
        run: 3,
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
        network: Arc::new(SystemNetwork),
        server: 1,
        run: 3,
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
fn a_second_server_with_the_same_id_finds_the_first_at_its_address() {
    let itself = Probed {
        run: 3,
        ..probed(1, Standing::New)
    };
    let new = probed(2, Standing::New);
    assert_eq!(judge(1, None, &[itself, new]), Verdict::Found);
    reason_to_wait(judge(1, None, &[itself]));
    let another = Probed { run: 4, ..itself };
    assert_eq!(judge(1, None, &[another, new]), Verdict::SameId);
    // Who is there instead is for the others to say.
    let elsewhere = BTreeMap::from([(1, Ok(new)), (2, Ok(new))]);
    let listed = listed();
    let applicant = Applicant {
        network: Arc::new(SystemNetwork),
        server: 1,
        run: 3,
        listed: &listed,
        identity: None,
        incarnation: OURS,
        rejoin: false,
        data_dir: "data".to_owned(),
    };
    assert_eq!(applicant.judge(&elsewhere), Verdict::Found);
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
