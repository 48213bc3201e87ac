//! The first frame in each direction.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};

fuzz_target!(|body: &[u8]| {
    if let Ok(request) = ConnectRequest::decode(body) {
        let mut again = BytesMut::new();
        request
            .encode(&mut again)
            .expect("what was decoded encodes");
        assert_eq!(ConnectRequest::decode(&again).as_ref(), Ok(&request));
    }
    if let Ok(response) = ConnectResponse::decode(body) {
        let mut again = BytesMut::new();
        response
            .encode(&mut again)
            .expect("what was decoded encodes");
        assert_eq!(ConnectResponse::decode(&again).as_ref(), Ok(&response));
    }
});
