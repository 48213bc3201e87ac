//! One client's connection, and its other half to the server.
//!
//! Each way has a reader, which notes when bytes have come, and a deliverer, which passes them on when
//! they are due. Bounded: the pieces between the two, so that a client that is held back is not read
//! from either.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use quorate_protocol::SessionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::talk::{Next, Talk};
use super::{Settings, Shared};

/// Pieces on their way in one direction.
const PIECES_MAX: usize = 64;
const PIECE_BYTES_MAX: usize = 64 << 10;

/// Why a connection is over before both sides have closed it.
enum Over {
    Broken,
    Cut,
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// A session is served on a connection, as long as this is there.
struct Served<'a> {
    shared: &'a Shared,
    session: SessionId,
}

impl<'a> Served<'a> {
    fn new(shared: &'a Shared, session: SessionId) -> Self {
        shared
            .sessions
            .send_modify(|sessions| sessions.push(session));
        Self { shared, session }
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.shared.sessions.send_modify(|sessions| {
            if let Some(at) = sessions.iter().position(|session| *session == self.session) {
                sessions.swap_remove(at);
            }
        });
    }
}

/// Some bytes, and when they came; empty for the end.
type Piece = (Instant, BytesMut);

/// Serves a client that has just been accepted.
pub(super) fn serve(shared: Arc<Shared>, client: TcpStream) -> impl Future<Output = ()> + Send {
    let mut settings = shared.settings.subscribe();
    let cuts = settings.borrow().cuts;
    async move {
        tokio::select! {
            // Before anything else that has happened meanwhile.
            biased;
            _ = settings.wait_for(|now| now.cuts != cuts) => {}
            _ = converse(&shared, client) => {}
        }
    }
}

async fn converse(shared: &Shared, client: TcpStream) -> Result<(), Over> {
    let mut settings = shared.settings.subscribe();
    let upstream = match settings.wait_for(|now| !now.hangs).await {
        Ok(now) => now.upstream.ok_or(Over::Cut)?,
        Err(_) => return Err(Over::Cut),
    };
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let talk = Mutex::new(Talk::default());
    let open = watch::Sender::new(0);
    let (sent, to_be_sent) = mpsc::channel(PIECES_MAX);
    let (answered, to_be_answered) = mpsc::channel(PIECES_MAX);
    tokio::try_join!(
        read(from_client, sent),
        deliver_requests(shared, &talk, &open, to_be_sent, to_server),
        read(from_server, answered),
        deliver_replies(shared, &talk, &open, to_be_answered, to_client),
    )?;
    Ok(())
}

async fn read(mut from: OwnedReadHalf, pieces: mpsc::Sender<Piece>) -> Result<(), Over> {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES_MAX);
        let is_end = from.read_buf(&mut piece).await? == 0;
        // The other end goes only with the connection.
        let taken = pieces.send((Instant::now(), piece)).await;
        if is_end || taken.is_err() {
            return Ok(());
        }
    }
}

/// Waits until what came at `at` is due.
async fn hold(settings: &mut watch::Receiver<Settings>, at: Instant) {
    loop {
        let Ok(now) = settings.wait_for(|now| !now.hangs).await.map(|now| *now) else {
            return;
        };
        let due = at + now.delay;
        if due <= Instant::now() {
            return;
        }
        tokio::select! {
            () = sleep_until(due) => {}
            _ = settings.changed() => {}
        }
    }
}

async fn deliver_requests(
    shared: &Shared,
    talk: &Mutex<Talk>,
    open: &watch::Sender<usize>,
    mut pieces: mpsc::Receiver<Piece>,
    mut to: OwnedWriteHalf,
) -> Result<(), Over> {
    let mut settings = shared.settings.subscribe();
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    while let Some((at, piece)) = pieces.recv().await {
        hold(&mut settings, at).await;
        if piece.is_empty() {
            break;
        }
        input.unsplit(piece);
        let next = {
            let mut talk = talk.lock();
            let next = talk.requests(&mut input, &mut output, &shared.faults);
            open.send_replace(talk.open_count());
            next
        };
        to.write_all(&output.split()).await?;
        if let Next::Cut(fault) | Next::CutWhenAnswered(fault) = next {
            // The sender is ours.
            open.subscribe().wait_for(|open| *open == 0).await.ok();
            fault.happened();
            return Err(Over::Cut);
        }
    }
    Ok(to.shutdown().await?)
}

async fn deliver_replies(
    shared: &Shared,
    talk: &Mutex<Talk>,
    open: &watch::Sender<usize>,
    mut pieces: mpsc::Receiver<Piece>,
    mut to: OwnedWriteHalf,
) -> Result<(), Over> {
    let mut settings = shared.settings.subscribe();
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut served = None;
    while let Some((at, piece)) = pieces.recv().await {
        hold(&mut settings, at).await;
        if piece.is_empty() {
            break;
        }
        input.unsplit(piece);
        let next = talk.lock().replies(&mut input, &mut output);
        if served.is_none() {
            let session = talk.lock().session();
            served = session.map(|session| Served::new(shared, session));
        }
        to.write_all(&output.split()).await?;
        // Not before the client has its answers.
        open.send_replace(talk.lock().open_count());
        if let Next::Cut(fault) | Next::CutWhenAnswered(fault) = next {
            fault.happened();
            return Err(Over::Cut);
        }
    }
    Ok(to.shutdown().await?)
}
