//! What servers say to our client.

use std::time::Duration;

use bytes::BytesMut;
use quorate_client::fuzzing::{Bench, Wish};
use quorate_protocol::handshake::ConnectResponse;
use quorate_protocol::{Password, ReplyHeader, SessionId, WatcherEvent, Xid, Zxid, jute};

use crate::cursor::Cursor;

/// Steps in one input: more say nothing that another input does not.
const STEPS_MAX: usize = 64;

/// A session under a server that may say anything: every caller is told something once, zxids never go
/// back, no lease outlives its session, and all room is given back.
pub fn client_session(input: &[u8]) {
    let mut input = Cursor::new(input);
    let mut bench = Bench::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        step(&mut bench, &mut input);
    }
    bench.finish();
}

fn step(bench: &mut Bench, input: &mut Cursor<'_>) {
    const PATHS: [&str; 4] = ["/a", "/a/b", "/", ""];
    let (what, detail) = (input.u8(), input.u8());
    let path = PATHS[usize::from(detail) % PATHS.len()];
    match what {
        0..=31 => connect(bench, detail, input),
        32..=95 => {
            let wish = match what % 5 {
                0 => Wish::Read,
                1 => Wish::Write,
                2 => Wish::Watch,
                3 => Wish::WatchExists,
                _ => Wish::Sync,
            };
            bench.ask(wish, path, &vec![0; usize::from(detail) * 4]);
        }
        96..=103 => bench.authenticate(&vec![0; usize::from(detail)]),
        104..=111 => bench.abandon(detail.into()),
        112..=119 => bench.unwatch(detail.into()),
        120..=123 => bench.lose(),
        124..=125 => bench.close(),
        126..=139 => bench.wait(Duration::from_millis(u64::from(detail) * 8)),
        140..=155 => bench.receive(input.counted()),
        156..=235 => answer(bench, detail, input),
        _ => notify(bench, path, detail),
    }
}

fn connect(bench: &mut Bench, detail: u8, input: &mut Cursor<'_>) {
    let known = bench.connect_request();
    let session_id = match detail & 7 {
        0 => None,
        1 => SessionId::new(9),
        _ => known.session_id.or(SessionId::new(7)),
    };
    bench.connected(&ConnectResponse {
        protocol_version: 0,
        timeout_ms: match detail & 0x38 {
            0 => input.u32().cast_signed(),
            8 => 0,
            _ => 3_000,
        },
        session_id,
        password: Password::default(),
        read_only: [None, Some(false), Some(false), Some(true)][usize::from(detail >> 6)],
    });
}

/// A whole frame, more or less the one that is due.
fn answer(bench: &mut Bench, detail: u8, input: &mut Cursor<'_>) {
    let xid = match detail & 15 {
        0..=8 => Xid(bench.due_xid().unwrap_or(1)),
        9 | 10 => Xid::PING,
        11 => Xid::AUTH,
        12 => Xid::SET_WATCHES,
        13 => Xid::NOTIFICATION,
        _ => Xid(input.u32().cast_signed()),
    };
    let err = match detail >> 4 {
        0..=9 => 0,
        10 => -101,
        11 => -112,
        12 => -118,
        13 => -115,
        _ => -i32::from(input.u8()),
    };
    let zxid = Zxid(match input.u8() {
        255 => input.i64(),
        small => i64::from(small),
    });
    let header = ReplyHeader { xid, zxid, err };
    receive(bench, header, |out| out.extend_from_slice(input.counted()));
}

fn notify(bench: &mut Bench, path: &str, detail: u8) {
    let header = ReplyHeader {
        xid: Xid::NOTIFICATION,
        zxid: Zxid(-1),
        err: 0,
    };
    let event = WatcherEvent {
        event_type: i32::from(detail >> 2) % 6,
        state: 3,
        path: path.into(),
    };
    receive(bench, header, |out| {
        jute::encode(&event, out).expect("it is short");
    });
}

fn receive(bench: &mut Bench, header: ReplyHeader, body: impl FnOnce(&mut BytesMut)) {
    let mut frame = BytesMut::from(&[0; 4][..]);
    jute::encode(&header, &mut frame).expect("it is short");
    body(&mut frame);
    let length = i32::try_from(frame.len() - 4).expect("it is short");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    bench.receive(&frame);
}
