//! How long ensembles take from nothing to the first write that is acknowledged.
//!
//! `cargo run -p quorate-testing --example start_times`, with `--release` or without.

#![expect(
    clippy::print_stdout,
    reason = "a program whose output is what it is for"
)]

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quorate_protocol::frame::write_frame;
use quorate_protocol::handshake::ConnectRequest;
use quorate_protocol::request::Create;
use quorate_protocol::{AclEntry, Request, RequestHeader, Xid, Zxid, jute};
use quorate_testing::{Ensemble, Server};

const ROUNDS: u32 = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for servers in [1, 3, 5] {
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let ensemble = runtime.block_on(Ensemble::start(servers))?;
            let started = begun.elapsed();
            write(ensemble.server(1))?;
            let written = begun.elapsed();
            drop(ensemble);
            let dropped = begun.elapsed() - written;
            println!(
                "{servers} servers: up {started:?}, first write {written:?}, drop {dropped:?}"
            );
        }
    }
    Ok(())
}

/// Opens a session and creates a znode.
fn write(server: &Server) -> Result<(), Box<dyn Error>> {
    let connect = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms: 10_000,
        session_id: None,
        password: None,
        read_only: Some(false),
    };
    let create = Request::Create(Create {
        path: "/first".to_owned(),
        data: Some(Bytes::new()),
        acl: vec![AclEntry::open()],
        flags: 0,
    });
    let header = RequestHeader {
        xid: Xid(1),
        op: create.op().code(),
    };
    let mut frames = BytesMut::new();
    write_frame(&mut frames, |out| connect.encode(out))?;
    write_frame(&mut frames, |out| {
        jute::encode(&header, out)?;
        create.encode(out)
    })?;
    let mut stream = TcpStream::connect(server.address())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&frames)?;
    // The answer to the handshake, and a reply with the path that was created.
    let mut answers = [0; 4 + 37 + 4 + 16 + 4 + 6];
    stream.read_exact(&mut answers)?;
    Ok(())
}
