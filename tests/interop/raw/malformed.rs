//! Requests that are not what they should be.

use super::conversation;
use crate::wire::{
    Body, OPEN, Request, add_watch, auth, bad_multi, create, create2, delete, exists, frame,
    get_acl, get_all_children_number, get_children, get_children2, get_data, multi, ping,
    remove_watches, set_acl, set_data, set_watches, sync,
};

#[test]
fn a_body_that_cannot_be_decoded_is_answered_and_the_connection_stays() {
    let test = "a_body_that_cannot_be_decoded_is_answered_and_the_connection_stays";
    conversation(test, |talk| {
        let mut a = talk.connect("a");
        let empty = Body::default();
        for (name, request) in [
            ("create", create("/x", 0)),
            ("create2", create2("/x", b"", 0)),
            ("delete", delete("/x", -1)),
            ("exists", exists("/x", false)),
            ("get data", get_data("/x", false)),
            ("set data", set_data("/x", b"", -1)),
            ("get acl", get_acl("/x")),
            ("set acl", set_acl("/x", OPEN, -1)),
            ("children", get_children("/x", false)),
            ("children2", get_children2("/x", false)),
            ("sync", sync("/x")),
            ("multi", multi(&[])),
            ("remove watches", remove_watches("/x", 3)),
            ("all children number", get_all_children_number("/x")),
            ("add watch", add_watch("/x", 0)),
            ("set watches", set_watches(0, &[&[], &[], &[]])),
        ] {
            a.call(
                &format!("{name}, empty"),
                &request.clone().with_body(empty.clone()),
            );
            let cut = request.body.0[..request.body.0.len() - 1].to_vec();
            a.call(
                &format!("{name}, a byte short"),
                &request.with_body(Body(cut)),
            );
        }
        a.call("alive", &ping());
    });
}

#[test]
fn lengths_that_cannot_be_are_a_decoding_error() {
    conversation("lengths_that_cannot_be_are_a_decoding_error", |talk| {
        let mut a = talk.connect("a");
        let create_body = |body: Body| create("/", 0).with_body(body);
        let world = |body: Body| body.acl(OPEN).int(0);
        a.call(
            "null path",
            &create_body(world(Body::default().int(-1).bytes(b""))),
        );
        a.call(
            "path length -2",
            &create_body(world(Body::default().int(-2).bytes(b""))),
        );
        a.call(
            "path longer than the frame",
            &create_body(Body::default().int(5_000).raw(b"/x")),
        );
        a.call(
            "path of 2 GiB",
            &create_body(Body::default().int(i32::MAX).raw(b"/x")),
        );
        a.call(
            "data length -2",
            &create_body(world(Body::default().text("/d").int(-2))),
        );
        a.call(
            "data of 2 GiB",
            &create_body(Body::default().text("/d").int(i32::MAX)),
        );
        a.call(
            "null data",
            &create_body(world(Body::default().text("/null").int(-1))),
        );
        a.call("reads as null", &get_data("/null", false));
        let acl_count = |count| Body::default().text("/acl").bytes(b"").int(count);
        a.call("acl count -1", &create_body(acl_count(-1).int(0)));
        a.call("acl count -2", &create_body(acl_count(-2).int(0)));
        a.call(
            "acl count too large",
            &create_body(acl_count(1_000_000).int(31)),
        );
        a.call("acl count of 2^31-1", &create_body(acl_count(i32::MAX)));
        let null_id = Body::default()
            .text("/nid")
            .bytes(b"")
            .int(1)
            .int(31)
            .text("world")
            .int(-1);
        a.call("null acl id", &create_body(null_id.int(0)));
        let null_scheme = Body::default()
            .text("/nsc")
            .bytes(b"")
            .int(1)
            .int(31)
            .int(-1)
            .text("x");
        a.call("null acl scheme", &create_body(null_scheme.int(0)));
        a.call(
            "null path on a read",
            &exists("/", false).with_body(Body::default().int(-1).bool(false)),
        );
        a.call(
            "null path on children",
            &get_children("/", false).with_body(Body::default().int(-1).bool(false)),
        );
        let lists = |count| {
            set_watches(0, &[&[], &[], &[]])
                .with_body(Body::default().long(0).int(count).int(0).int(0))
        };
        a.call("watch list count -1", &lists(-1));
        a.call("watch list too long", &lists(1_000));
        a.call("alive", &ping());
    });
}

#[test]
fn bytes_after_a_request_are_ignored() {
    conversation("bytes_after_a_request_are_ignored", |talk| {
        let mut a = talk.connect("a");
        let more = |request: Request| request.followed_by(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        a.call("create", &more(create("/more", 0)));
        a.call("set data", &more(set_data("/more", b"x", -1)));
        a.call("exists", &more(exists("/more", false)));
        a.call("children", &more(get_children("/", false)));
        a.call("multi", &more(multi(&[set_data("/more", b"y", -1)])));
        a.call("ping", &more(ping()));
        a.call("add watch", &more(add_watch("/more", 0)));
        a.call("delete", &more(delete("/more", -1)));
    });
}

#[test]
fn any_xid_is_echoed_except_that_of_a_ping() {
    conversation("any_xid_is_echoed_except_that_of_a_ping", |talk| {
        let mut a = talk.connect("a");
        for xid in [0, -1, -2, -4, -8, -100, 5, 5, 4, i32::MAX, i32::MIN] {
            // An answer with xid -1 cannot be told from an event by its header alone.
            if xid != -1 {
                let bytes = a.encode_as(xid, &exists("/", false));
                a.send_raw(&bytes);
                a.reply(&format!("exists as {xid}"));
            }
            let bytes = a.encode_as(xid, &ping());
            a.send_raw(&bytes);
            a.reply(&format!("ping as {xid}"));
        }
        let bytes = a.encode_as(33, &auth("digest", b"u:p"));
        a.send_raw(&bytes);
        a.reply("auth as 33");
        let bytes = a.encode_as(-4, &auth("digest", b"u:q"));
        a.send_raw(&bytes);
        a.reply("auth as -4");
    });
}

#[test]
fn frames_of_impossible_length_end_the_connection() {
    conversation("frames_of_impossible_length_end_the_connection", |talk| {
        for (label, bytes) in [
            ("length 0", 0_i32.to_be_bytes().to_vec()),
            ("length -1", (-1_i32).to_be_bytes().to_vec()),
            ("length -2^31", i32::MIN.to_be_bytes().to_vec()),
            ("length 1048576", 1_048_576_i32.to_be_bytes().to_vec()),
            ("length 2^31-1", i32::MAX.to_be_bytes().to_vec()),
            ("a header of 4 bytes", frame(&[0, 0, 0, 1])),
            ("a header of 7 bytes", frame(&[0, 0, 0, 1, 0, 0, 0])),
        ] {
            let mut a = talk.connect("a");
            a.send_raw(&bytes);
            a.until_closed(label);
        }
    });
}

#[test]
fn a_request_as_large_as_the_limit_is_served_and_one_byte_more_is_not() {
    let test = "a_request_as_large_as_the_limit_is_served_and_one_byte_more_is_not";
    conversation(test, |talk| {
        let mut a = talk.connect("a");
        // Frame: header 8, path 4 + 4, data length 4, acl 4 + 4 + 9 + 10, flags 4.
        let fits = 1_048_575 - 8 - 8 - 4 - 27 - 4;
        a.call(
            "fits",
            &crate::wire::create_with(1, "/big", &vec![7; fits], OPEN, 0),
        );
        a.call("is there", &get_data("/big", false));
        a.send(&crate::wire::create_with(
            1,
            "/bog",
            &vec![7; fits + 1],
            OPEN,
            0,
        ));
        a.until_closed("one byte more");
        let mut b = talk.connect("b");
        b.call("not there", &exists("/bog", false));
    });
}

#[test]
fn an_operation_that_is_none_is_refused_as_unimplemented() {
    conversation(
        "an_operation_that_is_none_is_refused_as_unimplemented",
        |talk| {
            for op in [0, 10, 23, 99, 108, 999, -2, -12, i32::MAX, i32::MIN] {
                let mut a = talk.connect("a");
                // ZooKeeper closes then, Quorate need not: see quorate_only.
                a.send(&Request::odd(op, Body::default().text("/x").int(0)));
                talk.note(format!("op {op}: {:?}", a.error_of_next_frame()));
            }
            let mut a = talk.connect("a");
            a.call(
                "multi with an unknown op",
                &bad_multi(&[Request::odd(999, Body::default())]),
            );
            a.call("alive", &ping());
        },
    );
}

#[test]
fn a_malformed_auth_packet_ends_the_connection() {
    conversation("a_malformed_auth_packet_ends_the_connection", |talk| {
        for (label, request) in [
            ("empty", Request::odd(100, Body::default())),
            (
                "cut short",
                Request::odd(100, Body::default().int(0).text("digest").int(50)),
            ),
            ("unknown scheme", auth("nothing", b"x")),
            ("world", auth("world", b"anyone")),
        ] {
            let mut a = talk.connect("a");
            a.send(&request);
            a.until_closed(label);
        }
    });
}
