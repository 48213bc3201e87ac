//! A few words of ZooKeeper's protocol, on one connection: nothing is retried, nothing is hidden.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_protocol::frame::{FrameCodec, write_frame};
use quorate_protocol::handshake::{ConnectRequest, ConnectResponse};
use quorate_protocol::request::{Auth, Create, PathOnly, SetWatches, Watched};
use quorate_protocol::{
    AclEntry, ErrorCode, Password, ReplyHeader, Request, RequestHeader, Response, SessionId, Xid,
    Zxid, jute,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long a server may be silent: more than anything takes, on any machine.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    password: Password,
}

#[derive(Debug)]
pub(crate) struct Conversation {
    stream: TcpStream,
    input: BytesMut,
    next_xid: i32,
    pub(crate) session: Session,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) xid: i32,
    pub(crate) err: i32,
    pub(crate) body: BytesMut,
}

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

async fn soon<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "nothing was heard");
    timeout(SILENCE, what).await.map_err(late)?
}

pub(crate) fn create(path: &str, flags: i32) -> Request {
    Request::Create(Create {
        path: path.to_owned(),
        data: Some(Bytes::from_static(b"data")),
        acl: vec![AclEntry::open()],
        flags,
    })
}

pub(crate) const PERSISTENT: i32 = 0;
pub(crate) const EPHEMERAL: i32 = 1;

impl Conversation {
    /// Opens a session.
    pub(crate) async fn open(address: SocketAddr, session_timeout: Duration) -> io::Result<Self> {
        Self::hello(address, session_timeout, None).await
    }

    /// Opens a session as soon as the server takes any: it may have to hear of a majority first.
    pub(crate) async fn open_in_time(address: SocketAddr) -> Self {
        let deadline = Instant::now() + SILENCE;
        loop {
            match Self::open(address, Duration::from_secs(30)).await {
                Ok(conversation) => return conversation,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Creates a znode, however often the server has to be asked: where a machine has too much to do,
    /// elections take so long that clients are turned away.
    pub(crate) async fn make(address: SocketAddr, path: &str) {
        let deadline = Instant::now() + SILENCE;
        loop {
            let mut conversation = Self::open_in_time(address).await;
            match conversation.call(&create(path, PERSISTENT)).await {
                // It may have been created by the attempt before.
                Ok(code) if code == 0 || code == ErrorCode::NodeExists.code() => return,
                other => assert!(Instant::now() < deadline, "{path}: {other:?}"),
            }
        }
    }

    /// Whether a znode is there, by a server that may have to be asked more than once.
    pub(crate) async fn look(address: SocketAddr, path: &str) -> bool {
        let deadline = Instant::now() + SILENCE;
        loop {
            let mut conversation = Self::open_in_time(address).await;
            match conversation.has(path).await {
                Ok(has) => return has,
                Err(error) => assert!(Instant::now() < deadline, "{path}: {error}"),
            }
        }
    }

    /// Goes on with a session on a new connection.
    pub(crate) async fn resume(address: SocketAddr, session: Session) -> io::Result<Self> {
        Self::hello(address, Duration::from_secs(30), Some(session)).await
    }

    async fn hello(
        address: SocketAddr,
        session_timeout: Duration,
        session: Option<Session>,
    ) -> io::Result<Self> {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: i32::try_from(session_timeout.as_millis()).expect("short"),
            session_id: session.map(|session| session.id),
            password: session.map(|session| Bytes::copy_from_slice(session.password.as_bytes())),
            read_only: Some(false),
        };
        let mut frame = BytesMut::new();
        write_frame(&mut frame, |out| request.encode(out)).map_err(broken)?;
        let mut conversation = Self {
            stream: soon(TcpStream::connect(address)).await?,
            input: BytesMut::new(),
            next_xid: 1,
            session: Session {
                id: SessionId::new(1).expect("not zero"),
                password: Password::default(),
            },
        };
        conversation.stream.set_nodelay(true)?;
        conversation.stream.write_all(&frame).await?;
        let response = ConnectResponse::decode(&conversation.frame().await?).map_err(broken)?;
        let id = response
            .session_id
            .ok_or_else(|| broken("the session has expired"))?;
        let password = response.password;
        conversation.session = Session { id, password };
        Ok(conversation)
    }

    pub(crate) async fn frame(&mut self) -> io::Result<BytesMut> {
        let codec = FrameCodec::new(1 << 20);
        loop {
            if let Some(frame) = codec.next_frame(&mut self.input).map_err(broken)? {
                return Ok(frame);
            }
            if soon(self.stream.read_buf(&mut self.input)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Sends a request; returns its xid.
    pub(crate) async fn send(&mut self, request: &Request) -> io::Result<i32> {
        let xid = match request {
            Request::Ping => -2,
            Request::Auth(_) => -4,
            Request::SetWatches(_) => -8,
            _ => {
                self.next_xid += 1;
                self.next_xid
            }
        };
        let header = RequestHeader {
            xid: Xid(xid),
            op: request.op().code(),
        };
        let mut frame = BytesMut::new();
        let written = write_frame(&mut frame, |out| {
            jute::encode(&header, out)?;
            request.encode(out)
        });
        written.map_err(broken)?;
        self.stream.write_all(&frame).await?;
        Ok(xid)
    }

    /// What comes next: a reply, or a notification (xid -1).
    pub(crate) async fn receive(&mut self) -> io::Result<Reply> {
        let frame = self.frame().await?;
        let mut body = &frame[..];
        let header: ReplyHeader = jute::decode_next(&mut body).map_err(broken)?;
        Ok(Reply {
            xid: header.xid.0,
            err: header.err,
            body: body.into(),
        })
    }

    /// Sends a request and expects what comes next to be its reply; the reply's error code.
    pub(crate) async fn call(&mut self, request: &Request) -> io::Result<i32> {
        let xid = self.send(request).await?;
        let reply = self.receive().await?;
        if reply.xid != xid {
            return Err(broken(format!("xid {}, not {xid}", reply.xid)));
        }
        if reply.err == 0 {
            Response::decode(request.op(), &reply.body).map_err(broken)?;
        }
        Ok(reply.err)
    }

    pub(crate) async fn create(&mut self, path: &str) -> io::Result<()> {
        match self.call(&create(path, PERSISTENT)).await? {
            0 => Ok(()),
            code => Err(broken(format!("{path} was not created: {code}"))),
        }
    }

    /// Whether a znode is there, after whatever was committed before.
    pub(crate) async fn has(&mut self, path: &str) -> io::Result<bool> {
        let path = path.to_owned();
        let sync = Request::Sync(PathOnly { path: path.clone() });
        assert_eq!(self.call(&sync).await?, 0);
        let get = Request::GetData(Watched { path, watch: false });
        let code = self.call(&get).await?;
        assert!(code == 0 || code == ErrorCode::NoNode.code(), "{code}");
        Ok(code == 0)
    }

    pub(crate) async fn ping(&mut self) -> io::Result<()> {
        self.call(&Request::Ping).await.map(drop)
    }

    /// Waits for the end of the connection; anything else is a failure.
    pub(crate) async fn assert_cut(&mut self) {
        let heard = self.receive().await;
        let error = heard.expect_err("the connection is cut");
        let is_end = error.kind() != io::ErrorKind::TimedOut;
        assert!(
            is_end && error.kind() != io::ErrorKind::InvalidData,
            "{error}"
        );
    }
}

pub(crate) fn auth() -> Request {
    Request::Auth(Auth {
        auth_type: 0,
        scheme: Some("digest".to_owned()),
        auth: Some(Bytes::from_static(b"user:secret")),
    })
}

pub(crate) fn set_watches() -> Request {
    Request::SetWatches(SetWatches {
        relative_zxid: Zxid::ZERO,
        data: Vec::new(),
        exist: Vec::new(),
        child: Vec::new(),
    })
}

pub(crate) fn watch(path: &str) -> Request {
    Request::GetData(Watched {
        path: path.to_owned(),
        watch: true,
    })
}
