//! Any request: the first byte picks the operation, the rest is the body.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use quorate_protocol::{OpCode, Request};

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else {
        return;
    };
    let op = OpCode::ALL[usize::from(*first) % OpCode::ALL.len()];
    let Ok(request) = Request::decode(op, body) else {
        return;
    };
    assert_eq!(request.op(), op);
    let mut again = BytesMut::new();
    request
        .encode(&mut again)
        .expect("what was decoded encodes");
    assert_eq!(Request::decode(op, &again).as_ref(), Ok(&request));
});
