//! A list of operations, or of results.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use quorate_protocol::{OpCode, Request, Response};

fuzz_target!(|body: &[u8]| {
    for op in [OpCode::Multi, OpCode::MultiRead] {
        if let Ok(request) = Request::decode(op, body) {
            let mut again = BytesMut::new();
            request
                .encode(&mut again)
                .expect("what was decoded encodes");
            assert_eq!(Request::decode(op, &again).as_ref(), Ok(&request));
        }
        if let Ok(response) = Response::decode(op, body) {
            let mut again = BytesMut::new();
            response
                .encode(&mut again)
                .expect("what was decoded encodes");
            assert_eq!(Response::decode(op, &again).as_ref(), Ok(&response));
        }
    }
});
