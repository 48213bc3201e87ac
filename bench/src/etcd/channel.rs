//! One connection to an etcd server: gRPC calls side by side on its streams.
//!
//! Belongs to a runtime with one thread: the connection is driven by a task there, which puts
//! what all streams have to send into as few writes as it can. A call has no deadline of its own;
//! whoever makes calls bounds the whole.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, Version};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::message::{BadReply, Method, PREFIX_BYTES, WatchReply};
use crate::error::BenchError;

/// What the server may send before it is told to go on: more than is ever outstanding here.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// More than any reply a run asks for.
const REPLY_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Channel {
    sender: SendRequest<Bytes>,
    /// One for each method, ready to be sent.
    requests: Vec<(Method, Request<()>)>,
    driver: JoinHandle<()>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn http2(doing: &'static str) -> impl FnOnce(h2::Error) -> BenchError {
    move |source| BenchError::Http2 { doing, source }
}

fn bad(method: Method) -> impl FnOnce(BadReply) -> BenchError {
    move |BadReply(why)| BenchError::EtcdReply {
        doing: method.path(),
        why,
    }
}

impl Channel {
    pub(crate) async fn connect(server: SocketAddr) -> Result<Self, BenchError> {
        let connect = |source| BenchError::Connect { server, source };
        let stream = TcpStream::connect(server).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(http2("connecting to etcd"))?;
        // The error that ends it is also that of every call.
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        let requests = Method::ALL
            .into_iter()
            .map(|method| Ok((method, request(server, method)?)))
            .collect::<Result<_, BenchError>>()?;
        Ok(Self {
            sender,
            requests,
            driver,
        })
    }

    async fn open(
        &self,
        method: Method,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), BenchError> {
        let request = self
            .requests
            .iter()
            .find_map(|(known, request)| (*known == method).then_some(request))
            .expect("there is a request for every method");
        let sender = self.sender.clone().ready().await;
        let mut sender = sender.map_err(http2(method.path()))?;
        sender
            .send_request(request.clone(), false)
            .map_err(http2(method.path()))
    }

    /// Sends `message` (with its prefix) and returns the reply's message, once etcd has said that
    /// it did what was asked.
    pub(crate) async fn call(&self, method: Method, message: Bytes) -> Result<Bytes, BenchError> {
        let doing = method.path();
        let (response, mut stream) = self.open(method).await?;
        stream.send_data(message, true).map_err(http2(doing))?;
        let response = response.await.map_err(http2(doing))?;
        check_head(method, &response)?;
        let mut body = response.into_body();
        let mut reply = Bytes::new();
        while let Some(part) = body.data().await {
            let part = part.map_err(http2(doing))?;
            let _ = body.flow_control().release_capacity(part.len());
            reply = joined(reply, part);
            if reply.len() > REPLY_BYTES_MAX {
                return Err(bad(method)(BadReply("it is too long")));
            }
        }
        let trailers = body.trailers().await.map_err(http2(doing))?;
        check_status(method, trailers.as_ref())?;
        match next_message(&reply).map_err(bad(method))? {
            Some(bytes) if bytes == reply.len() => {
                reply.advance(PREFIX_BYTES);
                Ok(reply)
            }
            _ => Err(bad(method)(BadReply("its length is not what it announces"))),
        }
    }

    /// Decodes a reply.
    pub(crate) async fn ask<T>(
        &self,
        method: Method,
        message: Bytes,
        decode: impl FnOnce(&[u8]) -> Result<T, BadReply>,
    ) -> Result<T, BenchError> {
        let reply = self.call(method, message).await?;
        decode(&reply).map_err(bad(method))
    }

    /// Opens the stream that all of a client's watches share.
    pub(crate) async fn watch(&self) -> Result<WatchStream, BenchError> {
        let (response, requests) = self.open(Method::Watch).await?;
        Ok(WatchStream {
            requests,
            replies: Replies::Announced(response),
            input: BytesMut::new(),
        })
    }
}

/// The second of two parts is rare, so joining them may cost a copy.
fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    [first, second].concat().into()
}

fn request(server: SocketAddr, method: Method) -> Result<Request<()>, BenchError> {
    let unusable = |_| BenchError::Usage("the address of an etcd server cannot be in a URI");
    let uri = Uri::builder()
        .scheme("http")
        .authority(server.to_string())
        .path_and_query(method.path())
        .build()
        .map_err(unusable)?;
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    Ok(request)
}

/// A call that is refused at once has its status among the headers.
fn check_head(method: Method, response: &http::Response<RecvStream>) -> Result<(), BenchError> {
    if response.headers().contains_key("grpc-status") {
        check_status(method, Some(response.headers()))?;
    }
    match response.status() {
        StatusCode::OK => Ok(()),
        status => Err(BenchError::Grpc {
            doing: method.path(),
            status: "none".to_owned(),
            message: format!("HTTP status {status}"),
        }),
    }
}

fn check_status(method: Method, trailers: Option<&HeaderMap>) -> Result<(), BenchError> {
    let text = |name| {
        let value = trailers.and_then(|trailers| trailers.get(name));
        let text = value.map(|value| String::from_utf8_lossy(value.as_bytes()));
        text.unwrap_or_default()
    };
    match text("grpc-status").as_ref() {
        "0" => Ok(()),
        status => Err(BenchError::Grpc {
            doing: method.path(),
            status: status.to_owned(),
            message: text("grpc-message").into_owned(),
        }),
    }
}

/// How many bytes the message at the front of `input` has with its prefix; `None` if it is not
/// there in full.
fn next_message(input: &[u8]) -> Result<Option<usize>, BadReply> {
    let Some(prefix) = input.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(BadReply("it is compressed, which was not asked for"));
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > REPLY_BYTES_MAX {
        return Err(BadReply("it is too long"));
    }
    let bytes = PREFIX_BYTES + length;
    Ok((input.len() >= bytes).then_some(bytes))
}

#[derive(Debug)]
enum Replies {
    Announced(h2::client::ResponseFuture),
    Open(RecvStream),
}

/// Watches come and go on it; replies name theirs.
#[derive(Debug)]
pub(crate) struct WatchStream {
    requests: SendStream<Bytes>,
    replies: Replies,
    input: BytesMut,
}

impl WatchStream {
    pub(crate) fn send(&mut self, message: Bytes) -> Result<(), BenchError> {
        self.requests
            .send_data(message, false)
            .map_err(http2(Method::Watch.path()))
    }

    pub(crate) async fn next(&mut self) -> Result<WatchReply, BenchError> {
        let method = Method::Watch;
        loop {
            if let Some(bytes) = next_message(&self.input).map_err(bad(method))? {
                let message = self.input.split_to(bytes);
                return WatchReply::decode(&message[PREFIX_BYTES..]).map_err(bad(method));
            }
            match &mut self.replies {
                // etcd sends headers with the first reply only.
                Replies::Announced(response) => {
                    let response = response.await.map_err(http2(method.path()))?;
                    check_head(method, &response)?;
                    self.replies = Replies::Open(response.into_body());
                }
                Replies::Open(body) => {
                    let Some(part) = body.data().await else {
                        return Err(BenchError::Closed);
                    };
                    let part = part.map_err(http2(method.path()))?;
                    let _ = body.flow_control().release_capacity(part.len());
                    self.input.extend_from_slice(&part);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_exactly_when_it_is_there_in_full() {
        let message = b"\0\0\0\0\x02ab";
        for cut in 0..message.len() {
            assert_eq!(next_message(&message[..cut]), Ok(None));
        }
        assert_eq!(next_message(message), Ok(Some(7)));
        assert_eq!(next_message(b"\0\0\0\0\x02ab\0\0"), Ok(Some(7)));
        assert!(next_message(b"\x01\0\0\0\x02ab").is_err());
        assert!(next_message(b"\0\xff\0\0\x02ab").is_err());
    }

    #[test]
    fn only_status_0_is_success() {
        let with = |status: Option<&'static str>| {
            let mut trailers = HeaderMap::new();
            if let Some(status) = status {
                trailers.insert("grpc-status", HeaderValue::from_static(status));
            }
            check_status(Method::Put, Some(&trailers)).is_ok()
        };
        assert!(with(Some("0")));
        assert!(!with(Some("14")));
        assert!(!with(None));
        assert!(check_status(Method::Put, None).is_err());
    }
}
