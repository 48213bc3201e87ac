//! Every message survives the way, and no piece of one is taken for a whole.

use std::fmt::Debug;
use std::io;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;

use super::super::frame::{FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, HEAD_BYTES};
use super::*;

const PLACE: Place = Place {
    term: 3,
    index: 900,
};
const BALLOT: Ballot = Ballot {
    term: 70_000,
    server: 2,
    won: true,
};
const CALLER: Caller = Caller {
    cluster: u64::MAX,
    server: 3,
    incarnation: 1 << 60,
    run: 7,
};

fn append() -> Append {
    let entry = |term, payload: &'static [u8]| SentEntry {
        term,
        kind: 1,
        payload: Bytes::from_static(payload),
    };
    Append {
        leader: BALLOT,
        previous: Some(PLACE),
        committed: None,
        entries: vec![entry(3, b"one"), entry(4, b""), entry(70_000, &[0xff; 300])],
    }
}

fn body<T: Serialize>(message: &T) -> BytesMut {
    let mut out = BytesMut::new();
    encode(&mut out, Kind::Question, 1, message).unwrap();
    out.split_off(4 + HEAD_BYTES)
}

/// Reads back what it wrote, and nothing from less.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) {
    let body = body(message);
    assert_eq!(decode::<T>(&body).unwrap(), *message);
    for length in 0..body.len() {
        decode::<T>(&body[..length]).expect_err("a piece is no message");
    }
}

#[test]
fn every_message_survives_the_way_and_no_piece_of_one_is_taken_for_it() {
    for lane in 1..=5 {
        check(&Hello {
            versions: (1, 300),
            lane: Lane::try_from(lane).unwrap(),
            from: CALLER,
            to: 1,
            term: 9,
        });
    }
    check(&Welcome {
        version: 1,
        host: CALLER,
    });
    for code in 0..=7 {
        check(&Refusal::new(RefusalCode::from(code), "the reason"));
    }
    check(&Probe {
        cluster: 5,
        server: 1,
    });
    for standing in 1..=4 {
        check(&Probed {
            cluster: 5,
            server: 2,
            run: 9,
            standing: Standing::try_from(standing).unwrap(),
            known: Some(4),
            member: true,
        });
    }
    check(&Rejoin {
        cluster: 5,
        server: 1,
        incarnation: 8,
    });
    check(&VoteAsked {
        candidate: BALLOT,
        last: Some(PLACE),
        transfer: true,
    });
    check(&Voted {
        ballot: BALLOT,
        granted: false,
        last: None,
    });
    for appended in [
        Appended::All,
        Appended::UpTo(Some(PLACE)),
        Appended::UpTo(None),
        Appended::Conflict,
        Appended::Outvoted(BALLOT),
    ] {
        check(&appended);
    }
    check(&Transfer {
        leader: BALLOT,
        to: 3,
        last: Some(PLACE),
    });
    for transferred in [
        Transferred::Accepted,
        Transferred::VoteChanged {
            expected: BALLOT,
            actual: BALLOT,
        },
        Transferred::NotFlushed {
            expected: Some(PLACE),
            actual: None,
        },
    ] {
        check(&transferred);
    }
    check(&SnapshotBegin {
        leader: BALLOT,
        last: Some(PLACE),
        length: 1 << 40,
    });
    check(&SnapshotChunk(Bytes::from_static(b"bytes")));
    check(&SnapshotTaken { ballot: BALLOT });
    check(&Question::Round {
        touched: vec![-1, 0, i64::MAX],
    });
    for answer in [
        Answer::Confirmed { index: 7 },
        Answer::Done,
        Answer::NotLeader,
        Answer::Refused {
            reason: "why".to_owned(),
        },
    ] {
        check(&answer);
    }
}

#[test]
fn entries_survive_the_way_and_no_piece_of_them_is_taken_for_all() {
    let append = append();
    let body = body(&append);
    assert_eq!(Append::decode(body.clone()).unwrap(), append);
    for length in 0..body.len() {
        Append::decode(BytesMut::from(&body[..length])).expect_err("a piece is no message");
    }
}

#[test]
fn forwarded_commands_survive_the_way_and_no_piece_of_them_is_taken_for_all() {
    let commands = ["first", "", "", "another", ""].map(Bytes::from);
    let body = body(&Forward(&commands));
    let decoded = decode_forward(body.clone()).unwrap();
    assert_eq!(decoded, commands);
    for length in 0..body.len() {
        decode_forward(BytesMut::from(&body[..length])).expect_err("a piece is no message");
    }
}

/// Payloads are binary, not one number for each byte.
#[test]
fn a_payload_costs_its_length_and_a_few_bytes() {
    let payload = Bytes::from(vec![0xee; 10_000]);
    assert!(body(&SnapshotChunk(payload.clone())).len() < 10_010);
    assert!(body(&Forward(std::slice::from_ref(&payload))).len() < 10_010);
    let entry = SentEntry {
        term: 1,
        kind: 1,
        payload,
    };
    let append = Append {
        entries: vec![entry],
        ..append()
    };
    assert!(body(&append).len() < 10_040);
}

/// What version 1 looks like on the wire. These bytes may never change: a server of this version
/// may be among servers of a later one.
#[test]
fn version_1_is_what_it_always_was() {
    let mut out = BytesMut::new();
    let hello = Hello {
        versions: (1, 1),
        lane: Lane::Control,
        from: Caller {
            cluster: 0x0102_0304_0506_0708,
            server: 1,
            incarnation: 2,
            run: 3,
        },
        to: 2,
        term: 0,
    };
    encode(&mut out, Kind::Hello, 0, &hello).unwrap();
    let expected = b"\0\0\0\x1d\x01\0\0\0\0\0\0\0\0\
                     \x95\x92\x01\x01\x04\x94\xcf\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x02\0";
    assert_eq!(out, expected[..]);

    let append = Append {
        leader: Ballot {
            term: 2,
            server: 3,
            won: true,
        },
        previous: Some(Place { term: 1, index: 9 }),
        committed: None,
        entries: vec![SentEntry {
            term: 2,
            kind: 1,
            payload: Bytes::from_static(b"abc"),
        }],
    };
    out.clear();
    encode(&mut out, Kind::Append, 5, &append).unwrap();
    let expected = b"\0\0\0\x1b\x10\0\0\0\0\0\0\0\x05\
                     \x94\x93\x02\x03\xc3\x92\x01\x09\xc0\x91\x93\x02\x01\xc4\x03abc";
    assert_eq!(out, expected[..]);
}

fn frames() -> BytesMut {
    let mut out = BytesMut::new();
    let question = Question::Round { touched: vec![7] };
    encode(&mut out, Kind::Question, 41, &question).unwrap();
    encode(&mut out, Kind::Append, 42, &append()).unwrap();
    out
}

/// However the network cuts a stream up, the frames are the same.
#[tokio::test]
async fn frames_come_out_whole_whatever_pieces_they_arrive_in() {
    for step in [1, 3, 7, 50, 1000] {
        let (mut sender, receiver) = tokio::io::duplex(64);
        let sending = tokio::spawn(async move {
            for piece in frames().chunks(step) {
                sender.write_all(piece).await.unwrap();
            }
        });
        let mut reader = FrameReader::new(receiver);
        let first = reader.next().await.unwrap().unwrap();
        assert_eq!((first.kind, first.call), (Kind::Question, 41));
        let second = reader.next().await.unwrap().unwrap();
        assert_eq!((second.kind, second.call), (Kind::Append, 42));
        assert_eq!(Append::decode(second.body).unwrap(), append());
        assert!(reader.next().await.unwrap().is_none());
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_is_an_error_and_between_two_is_not() {
    let frames = frames();
    let mut first = frames.clone();
    first.truncate(frames.len() - body(&append()).len() - HEAD_BYTES - 4);
    for length in 0..frames.len() {
        let mut reader = FrameReader::new(&frames[..length]);
        let mut whole = 0;
        let end = loop {
            match reader.next().await {
                Ok(Some(_)) => whole += 1,
                end => break end,
            }
        };
        assert_eq!(whole, usize::from(length >= first.len()), "{length} bytes");
        let is_between = length == 0 || length == first.len();
        assert_eq!(end.is_ok(), is_between, "{length} bytes");
    }
}

fn wire_error(error: io::Error) -> WireError {
    *error.into_inner().unwrap().downcast().unwrap()
}

#[tokio::test]
async fn a_frame_that_cannot_be_is_refused_before_its_bytes_are_there() {
    let read = async |bytes: &[u8], handshake_done: bool| {
        let mut reader = FrameReader::new(bytes);
        if handshake_done {
            reader.handshake_done();
        }
        wire_error(reader.next().await.unwrap_err())
    };
    // Before the handshake only little is believed.
    let announced = u32::try_from(HANDSHAKE_BYTES_MAX + 1).unwrap();
    let error = read(&announced.to_be_bytes(), false).await;
    assert!(matches!(error, WireError::TooLong { limit, .. } if limit == HANDSHAKE_BYTES_MAX));
    let error = read(&u32::MAX.to_be_bytes(), true).await;
    assert!(matches!(error, WireError::TooLong { limit, .. } if limit == FRAME_BYTES_MAX));
    let error = read(&8_u32.to_be_bytes(), true).await;
    assert!(matches!(error, WireError::TooShort));
    let mut unknown = vec![0, 0, 0, 9, 255];
    unknown.extend([0; 8]);
    let error = read(&unknown, true).await;
    assert!(matches!(error, WireError::UnknownKind(255)));
}

#[tokio::test]
async fn a_stranger_is_told_from_a_peer_by_the_first_bytes() {
    let mut reader = FrameReader::new(&b"GET / HTTP/1.1\r\n\r\n"[..]);
    let error = wire_error(greeted(&mut reader).await.unwrap_err());
    assert!(matches!(error, WireError::Magic));

    let mut bytes = Vec::new();
    let mut writer = FrameWriter::new(&mut bytes);
    let probe = Probe {
        cluster: 1,
        server: 2,
    };
    greet(&mut writer, Kind::Probe, &probe).await.unwrap();
    let frame = greeted(&mut FrameReader::new(&bytes[..])).await.unwrap();
    assert_eq!(frame.decode::<Probe>().unwrap(), probe);
}

/// An answer that gives up must not leave half a frame in front of the next one.
#[tokio::test]
async fn a_frame_that_does_not_encode_leaves_nothing_behind() {
    struct Broken;
    impl Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::{Error, SerializeSeq};
            let mut sequence = serializer.serialize_seq(Some(2))?;
            sequence.serialize_element(&1)?;
            Err(S::Error::custom("broken"))
        }
    }
    let mut out = frames();
    let before = out.clone();
    encode(&mut out, Kind::Answer, 1, &Broken).unwrap_err();
    assert_eq!(out, before);
}

proptest! {
    /// Whatever a peer sends, it is a message or an error.
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<Hello>(&bytes);
        let _ = decode::<Refusal>(&bytes);
        let _ = decode::<Probed>(&bytes);
        let _ = decode::<Question>(&bytes);
        let _ = decode::<Answer>(&bytes);
        let _ = decode::<Appended>(&bytes);
        let _ = decode::<Transferred>(&bytes);
        let _ = Append::decode(BytesMut::from(&bytes[..]));
        let _ = decode_forward(BytesMut::from(&bytes[..]));
    }
}
