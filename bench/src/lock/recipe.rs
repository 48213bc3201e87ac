//! The lock of ZooKeeper's "Recipes" page, step by step as it stands there: an ephemeral sequential
//! znode, the list of children, a watch on the one in front, and the list again when that is gone.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use quorate_protocol::event::{EventType, WatcherEvent};
use quorate_protocol::request::{Create, Delete, Watched};
use quorate_protocol::{AclEntry, OpCode, Request, Response, Xid, jute};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Contest, Crowd};
use crate::driver::Outcome;
use crate::error::BenchError;
use crate::etcd::load::block_on;
use crate::run::Target;
use crate::session::{SILENCE_MAX, Session};
use crate::wire::{self, Paths, encode_request, next_reply};

const EPHEMERAL_SEQUENTIAL: i32 = 3;
/// The xid of a notification.
const EVENT_XID: i32 = -1;

/// Lets a crowd contend, spread evenly over the target's servers.
pub(crate) fn contend(
    Target { servers, pids }: Target<'_>,
    crowd: Crowd,
    warmup: Duration,
    span: Duration,
) -> Result<(Outcome, Option<Duration>), BenchError> {
    let server = servers.first();
    let server = *server.ok_or(BenchError::Usage("at least one server"))?;
    let root = Paths::unique().root;
    let roots: Vec<String> = (0..crowd.locks)
        .map(|lock| format!("{root}-{lock}"))
        .collect();
    let mut session = Session::open(server)?;
    let creates = roots.iter().map(|root| wire::create(root.clone(), &[]));
    session.pipeline("creating locks", creates.map(Request::Create))?;
    let sessions = Session::open_many(servers, crowd.locks * crowd.contenders)?;

    let measured = block_on(warmup + span + SILENCE_MAX, async {
        let mut contenders = Vec::with_capacity(sessions.len());
        for (index, session) in sessions.into_iter().enumerate() {
            let root = roots[index / crowd.contenders].clone();
            contenders.push((Link::new(session)?, root));
        }
        let run = |(link, root), contest| contend_on(link, root, contest);
        super::contend(contenders, crowd, pids, warmup, span, run).await
    })?;
    let deletes = roots.into_iter().map(|path| Delete { path, version: -1 });
    session.pipeline("removing locks", deletes.map(Request::Delete))?;
    session.close()?;
    Ok(measured)
}

async fn contend_on(
    mut link: Link,
    root: String,
    contest: Rc<RefCell<Contest>>,
) -> Result<(), BenchError> {
    while !contest.borrow().is_over() {
        let own = link.create(format!("{root}/lock-")).await?;
        link.wait_for_turn(&root, &own).await?;
        contest.borrow_mut().acquire()?;
        contest.borrow_mut().release();
        let delete = Delete {
            path: own,
            version: -1,
        };
        link.ask("deleting a lock's znode", &Request::Delete(delete))
            .await?;
    }
    link.ask("closing a session", &Request::CloseSession)
        .await?;
    Ok(())
}

/// A session's connection.
struct Link {
    stream: TcpStream,
    input: BytesMut,
    next_xid: i32,
    /// Watched znodes of which it is known that they are gone.
    deleted: Vec<String>,
}

impl Link {
    fn new(session: Session) -> Result<Self, BenchError> {
        let (stream, next_xid) = session.into_parts();
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream))
            .map_err(BenchError::io("preparing a connection"))?;
        Ok(Self {
            stream,
            input: BytesMut::new(),
            next_xid,
            deleted: Vec::new(),
        })
    }

    /// Creates the znode that stands for this contender in the queue, and returns its path.
    async fn create(&mut self, path: String) -> Result<String, BenchError> {
        let create = Create {
            path,
            data: Some(Vec::new().into()),
            acl: vec![AclEntry::open()],
            flags: EPHEMERAL_SEQUENTIAL,
        };
        let doing = "creating a lock's znode";
        let body = self.ask(doing, &Request::Create(create)).await?;
        Ok(jute::decode::<String>(&body)?)
    }

    async fn wait_for_turn(&mut self, root: &str, own: &str) -> Result<(), BenchError> {
        loop {
            let names = self.children(root).await?;
            let before = names
                .iter()
                .map(|name| format!("{root}/{name}"))
                .filter(|path| path.as_str() < own)
                .max();
            let Some(before) = before else {
                return Ok(());
            };
            let exists = Request::Exists(Watched {
                path: before.clone(),
                watch: true,
            });
            let (code, _) = self.call(&exists).await?;
            match code {
                0 => self.wait_until_deleted(&before).await?,
                // Gone since it was listed; the watch that this has left is for its creation.
                _ => continue,
            }
        }
    }

    async fn children(&mut self, path: &str) -> Result<Vec<String>, BenchError> {
        let list = Request::GetChildren(Watched {
            path: path.to_owned(),
            watch: false,
        });
        let body = self.ask("listing a lock's queue", &list).await?;
        match Response::decode(OpCode::GetChildren, &body)? {
            Response::Strings(names) => Ok(names.into_iter().map(Into::into).collect()),
            _ => Ok(Vec::new()),
        }
    }

    /// As [`Self::call`], for what has to succeed.
    async fn ask(
        &mut self,
        doing: &'static str,
        request: &Request,
    ) -> Result<BytesMut, BenchError> {
        match self.call(request).await? {
            (0, body) => Ok(body),
            (code, _) => Err(BenchError::Refused { doing, code }),
        }
    }

    /// One request, and its reply's error code and body.
    async fn call(&mut self, request: &Request) -> Result<(i32, BytesMut), BenchError> {
        let expected = self.next_xid;
        self.next_xid = expected.wrapping_add(1).max(1);
        let mut out = BytesMut::new();
        encode_request(Xid(expected), request, &mut out)?;
        self.stream
            .write_all(&out)
            .await
            .map_err(BenchError::io("sending a request"))?;
        loop {
            let (actual, code, body) = self.frame().await?;
            if actual == EVENT_XID {
                self.on_event(&body)?;
            } else if actual == expected {
                return Ok((code, body));
            } else {
                return Err(BenchError::UnexpectedXid { expected, actual });
            }
        }
    }

    async fn wait_until_deleted(&mut self, path: &str) -> Result<(), BenchError> {
        loop {
            if let Some(index) = self.deleted.iter().position(|deleted| deleted == path) {
                self.deleted.swap_remove(index);
                return Ok(());
            }
            let (xid, _, body) = self.frame().await?;
            if xid != EVENT_XID {
                return Err(BenchError::Unasked { xid });
            }
            self.on_event(&body)?;
        }
    }

    fn on_event(&mut self, body: &[u8]) -> Result<(), BenchError> {
        let event: WatcherEvent<'_> = jute::decode(body)?;
        if EventType::from_code(event.event_type) == Some(EventType::NodeDeleted) {
            self.deleted.push(event.path.into_owned());
        }
        Ok(())
    }

    /// The next frame's xid, error code and body.
    async fn frame(&mut self) -> Result<(i32, i32, BytesMut), BenchError> {
        loop {
            if let Some(reply) = next_reply(&self.input)? {
                let mut frame = self.input.split_to(reply.frame_bytes());
                let body = frame.split_off(frame.len() - reply.body_bytes);
                return Ok((reply.xid, reply.err, body));
            }
            let read = self.stream.read_buf(&mut self.input).await;
            if read.map_err(BenchError::io("reading a reply"))? == 0 {
                return Err(BenchError::Closed);
            }
        }
    }
}
