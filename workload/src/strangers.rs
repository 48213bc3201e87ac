//! Clients that misbehave. They must not disturb the others, which is judged by the others'
//! histories; what these do is not recorded, but for sessions that they leave with ephemerals.
//!
//! All that they do is bounded, in bytes and in time: it is the servers' bounds that are tried, not
//! the machine's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quorate_checker::history::{CreateKind, Request};
use quorate_protocol::frame::MAX_FRAME_BYTES_DEFAULT;
use quorate_protocol::{Request as Wire, Xid, request};
use quorate_server::network::{Network, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::dice::Dice;
use crate::link::{Heard, Hello, Link, Opening, Place};
use crate::places::DESERTED;
use crate::raw::{Connected, Manners, Raw, Servers};
use crate::recorder::Recorder;
use crate::stage::{Phase, Stage};

/// Between two misdeeds.
const REST: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(3);
const FLOOD: u64 = 600;
const UNREAD: u64 = 300;
const DESERTERS: u64 = 12;

/// Some way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// Many requests at once.
    Flood,
    /// Asks, and never reads the answers.
    NeverRead,
    /// A handshake and a request, byte by byte.
    Dawdle,
    /// Lengths that no frame may have, with and without what they announce.
    Oversize,
    /// Bytes that are no handshake.
    Garble,
    /// Operations that do not exist, or not there, or do not decode.
    Invalid,
    /// Sessions by the dozen, each left with an ephemeral.
    Desert,
}

impl Misdeed {
    pub const ALL: [Self; 7] = [
        Self::Flood,
        Self::NeverRead,
        Self::Dawdle,
        Self::Oversize,
        Self::Garble,
        Self::Invalid,
        Self::Desert,
    ];
}

pub(crate) struct Stranger {
    pub(crate) client: u32,
    pub(crate) misdeed: Misdeed,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) servers: Servers,
    pub(crate) dice: Dice,
    pub(crate) stage: Stage,
    pub(crate) recorder: Recorder,
}

impl Stranger {
    pub(crate) async fn run(mut self) {
        self.stage.reached(Phase::Run).await;
        while self.stage.phase() == Phase::Run {
            let rest = self.dice.pause(REST) + Duration::from_millis(100);
            let stage = self.stage.clone();
            tokio::select! {
                biased;
                () = stage.reached(Phase::Calm) => return,
                () = sleep(rest) => {}
            }
            let Some((server, address)) = self.dice.pick(&self.servers).copied() else {
                return;
            };
            self.misbehave(server, address).await;
        }
    }

    async fn misbehave(&mut self, server: u64, address: SocketAddr) {
        match self.misdeed {
            Misdeed::Flood => self.flood(server, address).await,
            Misdeed::NeverRead => self.never_read(server, address).await,
            Misdeed::Dawdle => self.dawdle(address).await,
            Misdeed::Oversize => self.oversize(address).await,
            Misdeed::Garble => self.garble(address).await,
            Misdeed::Invalid => self.invalid(server, address).await,
            Misdeed::Desert => self.desert(server).await,
        }
    }

    fn hello() -> Hello {
        Hello {
            session: None,
            is_lie: false,
            seen: 0,
            timeout_ms: 4_000,
        }
    }

    /// A connection that nothing is recorded of.
    async fn open(&self, server: u64, address: SocketAddr) -> Option<Box<Link>> {
        let place = Place {
            client: self.client,
            server,
            address,
        };
        let nowhere = Recorder::new();
        match Link::open(&*self.network, place, &Self::hello(), PATIENCE, &nowhere).await {
            Opening::Granted(link, _) => Some(link),
            _ => None,
        }
    }

    async fn connect(&self, address: SocketAddr) -> Option<Stream> {
        timeout(PATIENCE, self.network.connect(address))
            .await
            .ok()?
            .ok()
    }

    fn ask(link: &mut Link, wire: &Wire) {
        let name = String::new();
        link.send(Request::Other { name }, wire);
    }

    async fn close(mut link: Box<Link>) {
        Self::ask(&mut link, &Wire::CloseSession);
        Self::drain(&mut link, PATIENCE).await;
        link.finish(None);
    }

    async fn drain(link: &mut Link, within: Duration) -> usize {
        let mut answers = 0;
        let all = async {
            while link.pending() > 0 {
                match link.next().await {
                    Ok(Heard::Answer(_)) => answers += 1,
                    Ok(Heard::Event(..)) => {}
                    Err(_) => return,
                }
            }
        };
        timeout(within, all).await.ok();
        answers
    }

    async fn flood(&mut self, server: u64, address: SocketAddr) {
        let Some(mut link) = self.open(server, address).await else {
            return;
        };
        let path = || "/zookeeper".to_owned();
        for _ in 0..FLOOD {
            let wire = match self.dice.below(4) {
                0 => Wire::Sync(request::PathOnly { path: path() }),
                1 => Wire::Ping,
                2 => Wire::GetChildren2(request::Watched {
                    path: path(),
                    watch: true,
                }),
                // Refused, through the log.
                _ => Wire::Delete(request::Delete {
                    path: "/strangers/nothing".to_owned(),
                    version: -1,
                }),
            };
            Self::ask(&mut link, &wire);
        }
        if Self::drain(&mut link, PATIENCE).await > 0 {
            self.recorder.mark("flooded");
        }
        Self::close(link).await;
    }

    async fn never_read(&mut self, server: u64, address: SocketAddr) {
        let Some(mut link) = self.open(server, address).await else {
            return;
        };
        for _ in 0..UNREAD {
            Self::ask(
                &mut link,
                &Wire::GetChildren2(request::Watched {
                    path: "/".to_owned(),
                    watch: false,
                }),
            );
        }
        link.push(PATIENCE).await;
        self.recorder.mark("answers never read");
        sleep(self.dice.millis(500, 6_000)).await;
        link.finish(None);
    }

    async fn dawdle(&mut self, address: SocketAddr) {
        let Some(stream) = self.connect(address).await else {
            return;
        };
        let (mut reader, mut writer) = stream.into_split();
        let until = Instant::now() + REST;
        let mut sent = 0;
        for byte in Self::hello().frame() {
            let pause = self.dice.millis(20, 400);
            if Instant::now() >= until || writer.write_all(&[byte]).await.is_err() {
                break;
            }
            sent += 1;
            sleep(pause).await;
        }
        self.recorder.mark("handshake byte by byte");
        if sent > 44 {
            let mut answer = BytesMut::new();
            timeout(PATIENCE, reader.read_buf(&mut answer)).await.ok();
        }
    }

    /// Sends bytes and waits for the server to hang up.
    async fn provoke(&self, address: SocketAddr, bytes: &[u8]) {
        let Some(stream) = self.connect(address).await else {
            return;
        };
        let (mut reader, mut writer) = stream.into_split();
        timeout(PATIENCE, writer.write_all(bytes)).await.ok();
        let mut answer = BytesMut::new();
        let until_closed = async {
            while answer.len() < 4096 && matches!(reader.read_buf(&mut answer).await, Ok(1..)) {}
        };
        timeout(PATIENCE, until_closed).await.ok();
    }

    async fn oversize(&mut self, address: SocketAddr) {
        let limit = i32::try_from(MAX_FRAME_BYTES_DEFAULT).unwrap_or(i32::MAX);
        let lengths = [i32::MAX, -1, i32::MIN, limit + 1, limit, 0];
        let length = lengths[self.dice.index(lengths.len())];
        let mut bytes = length.to_be_bytes().to_vec();
        let body = [0, 100, 100_000][self.dice.index(3)];
        bytes.resize(bytes.len() + body, 7);
        self.recorder.mark("frame of an odd length");
        self.provoke(address, &bytes).await;
    }

    async fn garble(&mut self, address: SocketAddr) {
        let length = self.dice.between(1, 400);
        let mut bytes: Vec<u8> = match self.dice.permille(500) {
            // A frame, but what is in it makes no sense.
            true => i32::try_from(length).unwrap_or(1).to_be_bytes().to_vec(),
            false => Vec::new(),
        };
        for _ in 0..length {
            bytes.push(self.dice.draw().to_le_bytes()[0]);
        }
        self.recorder.mark("garbage");
        self.provoke(address, &bytes).await;
    }

    async fn invalid(&mut self, server: u64, address: SocketAddr) {
        let Some(mut link) = self.open(server, address).await else {
            return;
        };
        let wires = [
            Wire::Check(request::Check {
                path: "/".to_owned(),
                version: -1,
            }),
            Wire::Delete(request::Delete {
                path: "no/path".to_owned(),
                version: -1,
            }),
            Wire::Create(request::Create {
                path: "/strangers".to_owned(),
                data: None,
                acl: Vec::new(),
                flags: 0,
            }),
            Wire::Create(request::Create {
                path: "/strangers".to_owned(),
                data: None,
                acl: vec![quorate_protocol::AclEntry::open()],
                flags: 77,
            }),
            Wire::AddWatch(request::AddWatch {
                path: "/".to_owned(),
                mode: 9,
            }),
            Wire::GetData(request::Watched {
                path: String::new(),
                watch: true,
            }),
        ];
        for wire in &wires {
            Self::ask(&mut link, wire);
        }
        for op in [0, -10, 20, 23, 99, 1_000, i32::MAX] {
            let name = String::new();
            link.send_bytes(Request::Other { name }, Xid(op), op, b"\xff\xff\xff\xf0");
        }
        // Known, and it does not decode.
        for op in [1, 5, 14, 22, 105] {
            let name = String::new();
            let xid = Xid(2_000 + op);
            link.send_bytes(Request::Other { name }, xid, op, b"\x7f\xff\xff\xff12");
        }
        if Self::drain(&mut link, PATIENCE).await > 0 {
            self.recorder.mark("invalid requests");
        }
        match self.dice.permille(500) {
            true => Self::close(link).await,
            false => link.finish(None),
        }
    }

    /// These sessions are recorded: they have to end, and their ephemerals with them.
    async fn desert(&mut self, server: u64) {
        let manners = Manners {
            session_timeout: self.dice.millis(2_000, 4_000),
            ..Manners::default()
        };
        let mut raw = Raw::new(
            self.client,
            Arc::clone(&self.network),
            Servers::clone(&self.servers),
            self.recorder.clone(),
            manners,
        );
        for _ in 0..self.dice.between(DESERTERS / 2, DESERTERS) {
            if self.stage.phase() != Phase::Run {
                return;
            }
            if raw.connect(server).await != Connected::Yes {
                return;
            }
            let session = raw.session().unwrap_or_default();
            let create = Request::Create {
                path: format!("{DESERTED}/e{session:x}").into(),
                data: format!("of {session:x}").into(),
                kind: CreateKind::Ephemeral,
                acl: None,
                with_stat: false,
            };
            if self.dice.permille(300) {
                raw.send(create);
                // Whether it was done, nobody knows.
                raw.listen(Instant::now() + Duration::from_millis(1)).await;
            } else {
                raw.call(create, PATIENCE).await;
            }
            raw.abandon();
        }
    }
}
