//! The first frame in each direction, with and without the byte that came later.

use proptest::prelude::*;
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::{Password, SessionId, Zxid};

use super::encoded;
use super::strategies::{connect_request, connect_response};

proptest! {
    #[test]
    fn a_connect_request_decodes_to_itself(request in connect_request()) {
        let body = encoded(|out| request.encode(out));
        prop_assert_eq!(&ConnectRequest::decode(&body).unwrap(), &request);
    }

    #[test]
    fn a_connect_request_cut_short_loses_the_last_byte_or_is_an_error(request in connect_request()) {
        let body = encoded(|out| request.encode(out));
        let without_byte = body.len() - usize::from(request.read_only.is_some());
        for end in 0..body.len() {
            match ConnectRequest::decode(&body[..end]) {
                Ok(cut) => {
                    prop_assert_eq!(end, without_byte);
                    prop_assert_eq!(cut, ConnectRequest { read_only: None, ..request.clone() });
                }
                Err(_) => prop_assert_ne!(end, without_byte),
            }
        }
    }

    #[test]
    fn a_connect_response_decodes_to_itself_and_has_the_length_clients_expect(
        response in connect_response(),
    ) {
        let body = encoded(|out| response.encode(out));
        let expected = if response.read_only.is_some() { 37 } else { 36 };
        prop_assert_eq!(body.len(), expected);
        prop_assert_eq!(&ConnectResponse::decode(&body).unwrap(), &response);
        for end in 0..36 {
            prop_assert!(ConnectResponse::decode(&body[..end]).is_err());
        }
    }
}

/// Clients look at different fields to learn that their session is gone: all must say it.
#[test]
fn an_expired_session_is_said_in_every_field() {
    for (asked, read_only) in [
        (None, None),
        (Some(true), Some(false)),
        (Some(false), Some(false)),
    ] {
        let response = ConnectResponse::expired(asked);
        let body = encoded(|out| response.encode(out));
        let mut expected = vec![0; 36];
        expected[19] = 16;
        expected.extend(read_only.map(u8::from));
        assert_eq!(body, expected);
    }
}

#[test]
fn a_connect_request_may_have_any_password_or_none() {
    let mut request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms: 10_000,
        session_id: None,
        password: None,
        read_only: None,
    };
    for (password, length) in [(None, 28), (Some(&b""[..]), 28), (Some(&b"abc"[..]), 31)] {
        request.password = password.map(bytes::Bytes::from);
        let body = encoded(|out| request.encode(out));
        assert_eq!(body.len(), length);
        assert_eq!(
            ConnectRequest::decode(&body).unwrap().password,
            request.password
        );
    }
    request.password = Some(bytes::Bytes::from_static(&[7; 16]));
    assert_eq!(encoded(|out| request.encode(out)).len(), 44);
    request.read_only = Some(false);
    assert_eq!(encoded(|out| request.encode(out)).len(), 45);
}

#[test]
fn a_connect_response_with_a_password_of_another_length_is_refused() {
    let good = ConnectResponse {
        protocol_version: 0,
        timeout_ms: 4000,
        session_id: SessionId::new(1),
        password: Password::new([9; 16]),
        read_only: None,
    };
    let mut body = encoded(|out| good.encode(out));
    body[19] = 15;
    assert!(ConnectResponse::decode(&body).is_err());
    body[16..20].fill(0xff);
    assert!(ConnectResponse::decode(&body).is_err());
}

#[test]
fn passwords_match_only_themselves() {
    let password = Password::new([9; 16]);
    assert!(password.matches(&[9; 16]));
    assert!(!password.matches(&[8; 16]));
    assert!(!password.matches(&[9; 15]));
    assert!(!password.matches(&[9; 17]));
    assert!(!password.matches(b""));
    assert!(!Password::default().matches(b""));
}

#[test]
fn no_password_shows_in_debug_output() {
    let secret = bytes::Bytes::from_static(b"sssssssssssssss!");
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms: 1,
        session_id: SessionId::new(5),
        password: Some(secret.clone()),
        read_only: None,
    };
    let response = ConnectResponse {
        protocol_version: 0,
        timeout_ms: 1,
        session_id: None,
        password: Password::new(secret.as_ref().try_into().unwrap()),
        read_only: None,
    };
    for shown in [format!("{request:?}"), format!("{response:?}")] {
        assert!(!shown.contains("ss!") && !shown.contains("115"), "{shown}");
    }
}
