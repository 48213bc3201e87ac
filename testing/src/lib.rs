//! An ensemble inside your test process, and the faults to try your service with.
//!
//! ZooKeeper's protocol on a port of this machine, a fraction of a second after you asked for it, with
//! no Java, no container, and nothing to install. These are the servers of Quorate themselves, with
//! their logs on disk and their elections, each on a thread of its own.
//!
//! ```
//! use quorate_testing::TestServer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = TestServer::start().await?;
//! let service = my_service::connect(&server.connect_string()).await?;
//! // ... try it.
//! # Ok(())
//! # }
//! # mod my_service {
//! #     pub async fn connect(address: &str) -> std::io::Result<tokio::net::TcpStream> {
//! #         tokio::net::TcpStream::connect(address).await
//! #     }
//! # }
//! ```
//!
//! When the handle is dropped, also by a test that fails, all of it is gone: threads, ports, files.
//! Ensembles do not share anything, so tests may run in parallel. All kinds of `#[tokio::test]` will
//! do, and other runtimes too: the servers do not run on yours, and no wait depends on its clock.
//!
//! # A service that bets on three servers
//!
//! ```
//! use quorate_testing::Ensemble;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), quorate_testing::Error> {
//! let ensemble = Ensemble::start(3).await?;
//! println!("connect to {}", ensemble.connect_string());
//!
//! // The machine of the leader loses its power, and comes back.
//! let leader = ensemble.wait_for_leader().await?;
//! ensemble.server(leader).kill().await?;
//! assert_ne!(ensemble.wait_for_leader().await?, leader);
//! ensemble.server(leader).start().await?;
//!
//! // One server is cut off from the others. Its clients reach it, and it may not serve them.
//! ensemble.partition(&[1], &[2, 3]);
//! assert_ne!(ensemble.wait_for_leader().await?, 1);
//! ensemble.heal();
//! # Ok(())
//! # }
//! ```
//!
//! # What clients go through
//!
//! In front of each server stands a proxy that knows the protocol, so that a fault strikes the request
//! it is meant for. These are the two that every client has to live through, and cannot tell apart: a
//! request that was never seen, and one whose answer was lost.
//!
//! ```
//! use quorate_testing::{OpCode, TestServer};
//! # use std::{io, net::SocketAddr, time::Duration};
//! # use bytes::{Bytes, BytesMut};
//! # use quorate_protocol::{AclEntry, Request, RequestHeader, Xid, Zxid, jute};
//! # use quorate_protocol::{frame::write_frame, handshake::ConnectRequest, request};
//! # use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! #
//! # /// Opens a session, creates a znode, and waits for both answers.
//! # async fn create(address: SocketAddr, path: &str) -> io::Result<()> {
//! #     let connect = ConnectRequest {
//! #         protocol_version: 0,
//! #         last_zxid_seen: Zxid::ZERO,
//! #         timeout_ms: 10_000,
//! #         session_id: None,
//! #         password: None,
//! #         read_only: Some(false),
//! #     };
//! #     let create = Request::Create(request::Create {
//! #         path: path.to_owned(),
//! #         data: Some(Bytes::new()),
//! #         acl: vec![AclEntry::open()],
//! #         flags: 0,
//! #     });
//! #     let header = RequestHeader { xid: Xid(1), op: create.op().code() };
//! #     let mut frames = BytesMut::new();
//! #     write_frame(&mut frames, |out| connect.encode(out)).unwrap();
//! #     write_frame(&mut frames, |out| {
//! #         jute::encode(&header, out)?;
//! #         create.encode(out)
//! #     })
//! #     .unwrap();
//! #     let mut stream = tokio::net::TcpStream::connect(address).await?;
//! #     stream.write_all(&frames).await?;
//! #     // The answer to the handshake, and the header of the reply.
//! #     stream.read_exact(&mut [0; 4 + 37 + 4 + 16]).await?;
//! #     Ok(())
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = TestServer::start().await?;
//!
//! let fault = server.cut_before_next(OpCode::Create);
//! assert!(create(server.address(), "/order").await.is_err());
//! fault.happened().await?; // There is no /order.
//!
//! let fault = server.cut_after_commit(OpCode::Create);
//! assert!(create(server.address(), "/order").await.is_err());
//! fault.happened().await?; // Now there is.
//!
//! assert!(create(server.address(), "/another").await.is_ok());
//! # Ok(())
//! # }
//! ```
//!
//! | To see that your service | have a [`Server`] or the [`Ensemble`] |
//! | --- | --- |
//! | goes on when a connection breaks | [`Server::cut_connections`] |
//! | does nothing twice, and leaves nothing out | [`Server::cut_before_next`], [`Server::cut_after_commit`] |
//! | waits for a server that is away, and not for ever | [`Server::refuse_connections`], [`Server::stop`] and [`Server::start`] |
//! | notices a server that says nothing | [`Server::hang`], [`Server::withhold_reply`] |
//! | keeps its session on a slow network | [`Server::delay`] |
//! | trusts no garbled answer | [`Server::corrupt_reply`] |
//! | gives up what it held when its session expires | [`Ensemble::expire`] |
//! | survives the loss of any one server | [`Server::kill`], [`Server::freeze`], [`Ensemble::partition`] |
//!
//! # Fidelity
//!
//! - A killed server ends where it stands, as by `SIGKILL`, and finds on disk what the operating system
//!   was given. A power failure, which takes unsynced data along, is not tried here.
//! - A partition ends the connections between servers at once, where a network would have them time
//!   out.
//! - A server that starts waits for its disk a few times. Where that is slow, let `TMPDIR` name a folder
//!   in memory.
//! - Time is real. Sessions expire by their timeouts, or by [`Ensemble::expire`] at once.

#![warn(missing_docs)]

mod board;
mod builder;
mod ensemble;
mod error;
mod host;
mod port;
mod proxy;
mod server;
mod stage;

pub use quorate_protocol::{OpCode, SessionId};

pub use self::builder::Builder;
pub use self::ensemble::{Ensemble, TestServer};
pub use self::error::Error;
pub use self::proxy::{Corruption, Fault, Which};
pub use self::server::Server;
