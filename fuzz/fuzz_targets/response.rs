//! Any response: the first byte picks the operation, the rest is the body.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use quorate_protocol::{OpCode, Response};

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else {
        return;
    };
    let op = OpCode::ALL[usize::from(*first) % OpCode::ALL.len()];
    let Ok(response) = Response::decode(op, body) else {
        return;
    };
    let mut again = BytesMut::new();
    response
        .encode(&mut again)
        .expect("what was decoded encodes");
    assert_eq!(Response::decode(op, &again).as_ref(), Ok(&response));
});
