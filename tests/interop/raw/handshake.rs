//! ConnectRequest and ConnectResponse, and what may come right behind.

use super::{conversation, conversation_with};
use crate::wire::{
    Hello, auth, close_session, create, exists, frame, get_children, ping, set_watches,
};
use quorate_tests::server::Settings;

#[test]
fn the_answer_to_a_connect_request_has_the_form_of_the_request() {
    conversation(
        "the_answer_to_a_connect_request_has_the_form_of_the_request",
        |talk| {
            let hello = Hello::default;
            talk.handshake("45 bytes", &hello().frame());
            talk.handshake(
                "44 bytes",
                &Hello {
                    read_only: None,
                    ..hello()
                }
                .frame(),
            );
            talk.handshake(
                "read only asked for",
                &Hello {
                    read_only: Some(true),
                    ..hello()
                }
                .frame(),
            );
            talk.handshake(
                "another version",
                &Hello {
                    version: 7,
                    ..hello()
                }
                .frame(),
            );
            talk.handshake(
                "no password",
                &Hello {
                    password: None,
                    ..hello()
                }
                .frame(),
            );
            talk.handshake(
                "empty password",
                &Hello {
                    password: Some(b""),
                    ..hello()
                }
                .frame(),
            );
            talk.handshake(
                "short password",
                &Hello {
                    password: Some(b"short"),
                    ..hello()
                }
                .frame(),
            );
            talk.handshake(
                "long password",
                &Hello {
                    password: Some(&[7; 40]),
                    ..hello()
                }
                .frame(),
            );
            let no_password = Hello {
                password: None,
                read_only: None,
                ..hello()
            };
            talk.handshake("no password, no flag", &no_password.frame());
            let mut longer = hello().frame()[4..].to_vec();
            longer.extend([1, 2, 3, 4]);
            talk.handshake("bytes after the flag", &frame(&longer));
        },
    );
}

#[test]
fn the_session_timeout_is_brought_within_the_bounds() {
    let settings = Settings::default().with("minSessionTimeout", "700");
    let test = "the_session_timeout_is_brought_within_the_bounds";
    conversation_with(test, &settings, |talk| {
        for timeout_ms in [
            i32::MIN,
            -1,
            0,
            1,
            699,
            700,
            701,
            59_999,
            60_000,
            60_001,
            i32::MAX,
        ] {
            let hello = Hello {
                timeout_ms,
                ..Hello::default()
            };
            talk.handshake(&format!("asks for {timeout_ms}"), &hello.frame());
        }
    });
}

#[test]
fn a_resumed_session_keeps_its_identity_and_a_wrong_one_is_refused() {
    let test = "a_resumed_session_keeps_its_identity_and_a_wrong_one_is_refused";
    conversation(test, |talk| {
        let (mut first, welcome) = talk.connect_as("a", &Hello::default());
        first.call("create", &create("/kept", 1));
        let again = Hello {
            session: welcome.session,
            password: Some(&welcome.password),
            last_zxid_seen: first.last_zxid(),
            ..Hello::default()
        };
        let (mut second, seen) = talk.handshake("right password", &again.frame());
        talk.note(format!(
            "same password: {}",
            seen.unwrap().password == welcome.password
        ));
        first.until_closed("the old connection");
        second.call("the ephemeral", &exists("/kept", false));

        let (mut third, _) = talk.handshake(
            "another timeout",
            &Hello {
                timeout_ms: 8_000,
                read_only: None,
                ..again.clone()
            }
            .frame(),
        );
        third.call("the ephemeral", &exists("/kept", false));

        let (mut refused, _) = talk.handshake(
            "unknown session",
            &Hello {
                session: 0x7777,
                ..again.clone()
            }
            .frame(),
        );
        refused.until_closed("then");
        let (mut refused, _) = talk.handshake(
            "unknown session, 44 bytes",
            &Hello {
                session: 0x7777,
                read_only: None,
                ..again.clone()
            }
            .frame(),
        );
        refused.until_closed("then");
        third.call("close", &close_session());
        third.until_closed("then");
        let (mut refused, _) = talk.handshake("closed session", &again.frame());
        refused.until_closed("then");
    });
}

#[test]
fn a_wrong_password_is_answered_like_an_expired_session() {
    conversation(
        "a_wrong_password_is_answered_like_an_expired_session",
        |talk| {
            let (first, welcome) = talk.connect_as("a", &Hello::default());
            drop(first);
            let hello = Hello {
                session: welcome.session,
                ..Hello::default()
            };
            for (label, password) in [
                ("zeros", Some(&[0; 16][..])),
                ("null", None),
                ("empty", Some(&[][..])),
                ("a prefix", Some(&welcome.password[..8])),
            ] {
                let (mut refused, _) = talk.handshake(
                    label,
                    &Hello {
                        password,
                        ..hello.clone()
                    }
                    .frame(),
                );
                refused.until_closed("then");
            }
            let right = Hello {
                password: Some(&welcome.password),
                ..hello
            };
            let (mut resumed, _) = talk.handshake("the session is still there", &right.frame());
            resumed.call("and works", &exists("/", false));
        },
    );
}

#[test]
fn a_client_that_has_seen_the_future_is_refused_without_a_word() {
    conversation(
        "a_client_that_has_seen_the_future_is_refused_without_a_word",
        |talk| {
            let ahead = Hello {
                last_zxid_seen: 1 << 60,
                ..Hello::default()
            };
            talk.handshake("new session", &ahead.frame());
            let (first, welcome) = talk.connect_as("a", &Hello::default());
            drop(first);
            let resume = Hello {
                session: welcome.session,
                password: Some(&welcome.password),
                ..Hello::default()
            };
            talk.handshake(
                "known session",
                &Hello {
                    last_zxid_seen: 1 << 60,
                    ..resume.clone()
                }
                .frame(),
            );
            talk.handshake(
                "which still exists",
                &Hello {
                    last_zxid_seen: 0,
                    ..resume
                }
                .frame(),
            );
            talk.handshake(
                "negative",
                &Hello {
                    last_zxid_seen: -5,
                    ..Hello::default()
                }
                .frame(),
            );
        },
    );
}

#[test]
fn frames_right_behind_the_connect_request_are_answered_in_order() {
    conversation(
        "frames_right_behind_the_connect_request_are_answered_in_order",
        |talk| {
            let mut a = talk.dial("a");
            let mut bytes = Hello::default().frame();
            for request in [
                auth("digest", b"u:p"),
                set_watches(0, &[&["/missing"], &[], &[]]),
                create("/behind", 1),
                get_children("/", false),
                ping(),
            ] {
                bytes.extend(a.encode(&request));
            }
            a.send_raw(&bytes);
            talk.note(format!("welcome: {}", a.welcome().is_some()));
            for label in ["auth", "set watches", "create", "children", "ping"] {
                a.reply(label);
            }
        },
    );
}

#[test]
fn a_connection_that_does_not_start_with_a_connect_request_is_closed() {
    let test = "a_connection_that_does_not_start_with_a_connect_request_is_closed";
    conversation(test, |talk| {
        talk.handshake("length 0", &[0, 0, 0, 0]);
        talk.handshake("length -1", &(-1_i32).to_be_bytes());
        talk.handshake("length of 64 MiB", &(64_i32 << 20).to_be_bytes());
        talk.handshake("28 bytes of 44", &frame(&Hello::default().frame()[4..32]));
        talk.handshake("an HTTP request", b"GET / HTTP/1.1\r\n\r\n");
        talk.handshake("still serving", &Hello::default().frame());
    });
}
