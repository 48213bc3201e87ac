//! The numbers of operations, errors and events, as ZooKeeper has them.

use quorate_protocol::{ErrorCode, EventType, OpCode};

#[test]
fn operations_have_zookeepers_numbers() {
    let numbers = [
        (OpCode::Create, 1),
        (OpCode::Delete, 2),
        (OpCode::Exists, 3),
        (OpCode::GetData, 4),
        (OpCode::SetData, 5),
        (OpCode::GetAcl, 6),
        (OpCode::SetAcl, 7),
        (OpCode::GetChildren, 8),
        (OpCode::Sync, 9),
        (OpCode::Ping, 11),
        (OpCode::GetChildren2, 12),
        (OpCode::Check, 13),
        (OpCode::Multi, 14),
        (OpCode::Create2, 15),
        (OpCode::Reconfig, 16),
        (OpCode::CheckWatches, 17),
        (OpCode::RemoveWatches, 18),
        (OpCode::CreateContainer, 19),
        (OpCode::CreateTtl, 21),
        (OpCode::MultiRead, 22),
        (OpCode::Auth, 100),
        (OpCode::SetWatches, 101),
        (OpCode::Sasl, 102),
        (OpCode::GetEphemerals, 103),
        (OpCode::GetAllChildrenNumber, 104),
        (OpCode::SetWatches2, 105),
        (OpCode::AddWatch, 106),
        (OpCode::WhoAmI, 107),
        (OpCode::CloseSession, -11),
    ];
    assert_eq!(numbers.map(|(op, _)| op), OpCode::ALL);
    for (op, number) in numbers {
        assert_eq!(op.code(), number);
        assert_eq!(OpCode::from_code(number), Some(op));
    }
}

/// ZooKeeper runs createSession and deleteContainer for any client that sends them.
#[test]
fn internal_and_unknown_operations_are_unknown() {
    for number in [0, -1, -10, 10, 20, 23, 99, 108, i32::MIN, i32::MAX] {
        assert_eq!(OpCode::from_code(number), None);
    }
}

#[test]
fn errors_have_zookeepers_numbers() {
    let numbers = [
        (ErrorCode::SystemError, -1),
        (ErrorCode::RuntimeInconsistency, -2),
        (ErrorCode::MarshallingError, -5),
        (ErrorCode::Unimplemented, -6),
        (ErrorCode::BadArguments, -8),
        (ErrorCode::NewConfigNoQuorum, -13),
        (ErrorCode::ReconfigInProgress, -14),
        (ErrorCode::NoNode, -101),
        (ErrorCode::NoAuth, -102),
        (ErrorCode::BadVersion, -103),
        (ErrorCode::NoChildrenForEphemerals, -108),
        (ErrorCode::NodeExists, -110),
        (ErrorCode::NotEmpty, -111),
        (ErrorCode::SessionExpired, -112),
        (ErrorCode::InvalidAcl, -114),
        (ErrorCode::AuthFailed, -115),
        (ErrorCode::SessionMoved, -118),
        (ErrorCode::NotReadOnly, -119),
        (ErrorCode::NoWatcher, -121),
        (ErrorCode::ReconfigDisabled, -123),
        (ErrorCode::SessionClosedRequireSaslAuth, -124),
        (ErrorCode::QuotaExceeded, -125),
        (ErrorCode::ThrottledOp, -127),
    ];
    assert_eq!(numbers.map(|(error, _)| error), ErrorCode::ALL);
    for (error, number) in numbers {
        assert_eq!(error.code(), number);
        assert_eq!(ErrorCode::from_code(number), Some(error));
    }
    for number in [0, 1, -126, -128, i32::MIN] {
        assert_eq!(ErrorCode::from_code(number), None);
    }
}

#[test]
fn events_have_zookeepers_numbers() {
    for (event, number) in [
        (EventType::NodeCreated, 1),
        (EventType::NodeDeleted, 2),
        (EventType::NodeDataChanged, 3),
        (EventType::NodeChildrenChanged, 4),
    ] {
        assert_eq!(event.code(), number);
        assert_eq!(EventType::from_code(number), Some(event));
    }
    for number in [-2, -1, 0, 5, 6, 7] {
        assert_eq!(EventType::from_code(number), None);
    }
}
