//! What is encoded decodes to what it was, whatever follows it, and to nothing else when cut short.

use bytes::BytesMut;
use proptest::prelude::*;
use quorate_protocol::{
    EventType, OpCode, ReplyHeader, Request, RequestHeader, Response, WatcherEvent, Xid, Zxid, jute,
};

use super::strategies::{op, request_for, response_for, stat, text};
use super::{encoded, jute_of};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_request_decodes_to_itself_with_or_without_bytes_behind_it(
        request in op().prop_flat_map(request_for),
        rest in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let op = request.op();
        let mut body = encoded(|out| request.encode(out));
        prop_assert_eq!(&Request::decode(op, &body).unwrap(), &request);
        body.extend(rest);
        prop_assert_eq!(&Request::decode(op, &body).unwrap(), &request);
    }

    #[test]
    fn every_response_decodes_to_itself_with_or_without_bytes_behind_it(
        (op, response) in op().prop_flat_map(|op| (Just(op), response_for(op))),
        rest in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let mut body = encoded(|out| response.encode(out));
        prop_assert_eq!(&Response::decode(op, &body).unwrap(), &response);
        body.extend(rest);
        prop_assert_eq!(&Response::decode(op, &body).unwrap(), &response);
    }

    #[test]
    fn headers_decode_to_themselves(xid: i32, op: i32, zxid: i64, err: i32) {
        let request = RequestHeader { xid: Xid(xid), op };
        let reply = ReplyHeader { xid: Xid(xid), zxid: Zxid(zxid), err };
        let (request_bytes, reply_bytes) = (jute_of(&request), jute_of(&reply));
        prop_assert_eq!(request_bytes.len(), 8);
        prop_assert_eq!(reply_bytes.len(), 16);
        prop_assert_eq!(jute::decode::<RequestHeader>(&request_bytes).unwrap(), request);
        prop_assert_eq!(jute::decode::<ReplyHeader>(&reply_bytes).unwrap(), reply);
    }

    #[test]
    fn a_stat_is_68_bytes_that_decode_to_it(stat in stat()) {
        let bytes = jute_of(&stat);
        prop_assert_eq!(bytes.len(), quorate_protocol::Stat::JUTE_BYTES);
        prop_assert_eq!(jute::decode::<quorate_protocol::Stat>(&bytes).unwrap(), stat);
    }

    #[test]
    fn notifications_decode_to_themselves(path in text(), code in 1..5i32) {
        let event = WatcherEvent::new(EventType::from_code(code).unwrap(), &path);
        let bytes = jute_of(&event);
        prop_assert_eq!(&jute::decode::<WatcherEvent<'_>>(&bytes).unwrap(), &event);
    }

    #[test]
    fn a_request_cut_short_anywhere_is_an_error(
        request in op().prop_flat_map(request_for),
    ) {
        let body = encoded(|out| request.encode(out));
        for end in 0..body.len() {
            let cut = Request::decode(request.op(), &body[..end]);
            prop_assert!(cut.is_err(), "{} of {} bytes gave {:?}", end, body.len(), cut);
        }
    }

    #[test]
    fn a_response_cut_short_anywhere_is_an_error(
        (op, response) in op().prop_flat_map(|op| (Just(op), response_for(op))),
    ) {
        let body = encoded(|out| response.encode(out));
        for end in 0..body.len() {
            let cut = Response::decode(op, &body[..end]);
            prop_assert!(cut.is_err(), "{} of {} bytes gave {:?}", end, body.len(), cut);
        }
    }

    #[test]
    fn random_bytes_give_a_value_that_decodes_again_or_an_error(
        op in op(),
        bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => Just(255), 2 => 0..30u8, 1 => any::<u8>()], 0..60),
    ) {
        if let Ok(request) = Request::decode(op, &bytes) {
            let body = encoded(|out| request.encode(out));
            prop_assert_eq!(Request::decode(op, &body).unwrap(), request);
        }
        if let Ok(response) = Response::decode(op, &bytes) {
            let body = encoded(|out| response.encode(out));
            prop_assert_eq!(Response::decode(op, &body).unwrap(), response);
        }
    }
}

#[test]
fn a_ping_with_a_question_is_a_ping_to_those_who_do_not_know_it() {
    let mut question = BytesMut::new();
    Request::PingWithQuestion.encode(&mut question).unwrap();
    assert_eq!(
        Request::decode(OpCode::Ping, &question),
        Ok(Request::PingWithQuestion)
    );
    for cut in 0..question.len() {
        let decoded = Request::decode(OpCode::Ping, &question[..cut]);
        assert_eq!(decoded, Ok(Request::Ping));
    }
    let mut proof = BytesMut::new();
    Response::Proof.encode(&mut proof).unwrap();
    assert!(!proof.is_empty());
    assert_eq!(Response::decode(OpCode::Ping, &proof), Ok(Response::Empty));
}
