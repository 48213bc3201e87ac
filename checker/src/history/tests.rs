//! A history written and read is the same one.

use super::*;

fn full() -> History {
    let stat = Stat {
        version: 3,
        ..Stat::default()
    };
    let operation = Operation {
        client: 1,
        connection: 2,
        server: 3,
        session: -4,
        sequence: 5,
        invoked: u64::MAX,
        returned: Some(7),
        arrival: 8,
        request: Request::Multi(vec![
            Request::Create {
                path: "/a".into(),
                data: Data::from(vec![0xff, 0x00]),
                kind: CreateKind::TtlSequential { ms: 9 },
                acl: None,
                with_stat: true,
            },
            Request::Check {
                path: "/b".into(),
                version: -1,
            },
        ]),
        outcome: Outcome::Done {
            zxid: 10,
            reply: Reply::Results(vec![
                PartResult::Done(Reply::Created {
                    path: "/a0000000000".into(),
                    stat,
                }),
                PartResult::Failed(-101),
            ]),
        },
    };
    let mut history = History {
        header: Header {
            seed: Some(1),
            promises: Promises::ZOOKEEPER,
            ..Header::default()
        },
        operations: vec![
            Operation {
                request: Request::SetData {
                    path: "/a".into(),
                    data: Data::NULL,
                    version: -1,
                },
                outcome: Outcome::Unknown,
                returned: None,
                ..operation.clone()
            },
            operation,
        ],
        events: vec![WatchEvent {
            client: 1,
            connection: 2,
            server: 3,
            session: 4,
            arrival: 5,
            at: 6,
            kind: EventKind::ChildrenChanged,
            path: "/ü".into(),
            zxid: None,
        }],
        sessions: vec![SessionRecord {
            client: 1,
            connection: 2,
            server: 3,
            session: 4,
            from: 5,
            at: 6,
            step: SessionStep::Refused {
                wrong_password: true,
            },
        }],
        grants: vec![Grant {
            lock: "/lock".to_owned(),
            client: 1,
            session: 2,
            token: 3,
            from: 4,
            to: None,
        }],
        trees: vec![FinalTree {
            server: 1,
            znodes: BTreeMap::from([(
                "/".into(),
                FinalZnode {
                    data: Data::from("text"),
                    stat,
                },
            )]),
            ..FinalTree::default()
        }],
        log: Some(Log {
            entries: vec![LogEntry {
                zxid: 1,
                term: 2,
                time_ms: -3,
                origin: Origin::default(),
                command: LogCommand::Write {
                    session: 1,
                    identities: vec![Id::new("world", "anyone")].into(),
                    rules: Rules::default(),
                    write: Request::CloseSession,
                },
            }],
        }),
        ..History::default()
    };
    history.mark("snapshot_installed");
    history
}

#[test]
fn a_history_written_and_read_is_the_same() {
    let history = full();
    let mut lines = Vec::new();
    history.write_to(&mut lines).unwrap();
    assert_eq!(History::read_from(&lines[..]).unwrap(), history);
}

#[test]
fn a_log_without_entries_is_not_a_missing_log() {
    let history = History {
        log: Some(Log::default()),
        ..History::default()
    };
    let mut lines = Vec::new();
    history.write_to(&mut lines).unwrap();
    assert_eq!(History::read_from(&lines[..]).unwrap(), history);
}

#[test]
fn a_line_that_is_no_record_is_named() {
    let error = History::read_from(&b"\"log\"\n{\"what\":1}\n"[..]).unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}
