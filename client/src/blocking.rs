//! The client for code that does not wait in `async` functions.
//!
//! Everything is done on a small runtime of its own. Every operation of the [asynchronous
//! client](crate::Client) can be made through [`Client::wait`]; the usual ones have methods.
//!
//! ```no_run
//! use quorate_client::blocking::Client;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::connect("localhost:2181")?;
//!     client.wait(|client| client.create("/greeting", b"hello").ephemeral())?;
//!     let (data, _) = client.get("/greeting")?;
//!     assert_eq!(&data[..], b"hello");
//!     client.close();
//!     Ok(())
//! }
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_protocol::Stat;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;

use crate::builder::{ClientBuilder, ConnectError};
use crate::error::Error;
use crate::operation::Created;
use crate::watch::{End, Event, Item};

/// How long dropping the last client may take: the session's end is told to a server.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// A session with an ensemble, shared by all clones. It ends when the last is dropped, which may take
/// a second where no server answers.
///
/// No method may be called from asynchronous code: the runtime panics then.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: crate::Client,
    /// Taken by the drop.
    runtime: Option<Runtime>,
}

impl Inner {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => unreachable!("the runtime is there until the drop"),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        let client = self.client.clone();
        let end = move |runtime: Runtime| {
            let closed = client.close();
            runtime.block_on(async { timeout(DROP_PATIENCE, closed).await.ok() });
            runtime.shutdown_background();
        };
        if Handle::try_current().is_err() {
            return end(runtime);
        }
        // In asynchronous code nothing may block: somebody else does.
        let runtime = Arc::new(Mutex::new(Some(runtime)));
        let handed_over = Arc::clone(&runtime);
        let ending = std::thread::Builder::new().name("quorate-client-end".to_owned());
        let started = ending.spawn(move || {
            let runtime = handed_over.lock().take();
            if let Some(runtime) = runtime {
                end(runtime);
            }
        });
        if started.is_err()
            && let Some(runtime) = runtime.lock().take()
        {
            // The session ends by its timeout.
            runtime.shutdown_background();
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The system has no more threads.
    #[error("no thread for the client: {0}")]
    Runtime(#[from] std::io::Error),
    /// As without a facade.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn connect(connect_string: &str) -> Result<Self, StartError> {
        Self::build(crate::Client::builder(connect_string))
    }

    /// With options.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn build(builder: ClientBuilder) -> Result<Self, StartError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("quorate-client")
            .enable_all()
            .build()?;
        let client = runtime.block_on(builder.connect())?;
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                runtime: Some(runtime),
            }),
        })
    }

    /// The asynchronous client, for what has no method here.
    pub fn client(&self) -> &crate::Client {
        &self.inner.client
    }

    /// Makes any operation, and waits for its answer.
    ///
    /// # Errors
    ///
    /// Those of the operation.
    pub fn wait<O: IntoFuture>(&self, operation: impl FnOnce(&crate::Client) -> O) -> O::Output {
        self.inner.block_on(async {
            // Inside, because some operations begin a task when they are made.
            operation(&self.inner.client).into_future().await
        })
    }

    /// As [`crate::Client::get`].
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn get(&self, path: &str) -> Result<(Bytes, Stat), Error> {
        self.wait(|client| client.get(path))
    }

    /// As [`crate::Client::exists`].
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn exists(&self, path: &str) -> Result<Option<Stat>, Error> {
        self.wait(|client| client.exists(path))
    }

    /// As [`crate::Client::children`].
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn children(&self, path: &str) -> Result<(Vec<String>, Stat), Error> {
        self.wait(|client| client.children(path))
    }

    /// As [`crate::Client::create`].
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn create(&self, path: &str, data: impl AsRef<[u8]>) -> Result<Created, Error> {
        self.wait(|client| client.create(path, data))
    }

    /// As [`crate::Client::set`].
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn set(&self, path: &str, data: impl AsRef<[u8]>) -> Result<Stat, Error> {
        self.wait(|client| client.set(path, data))
    }

    /// As [`crate::Client::delete`].
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn delete(&self, path: &str) -> Result<(), Error> {
        self.wait(|client| client.delete(path))
    }

    /// Watches a znode: an iterator that blocks until something happens, and ends with the session.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn watch(&self, path: &str) -> Result<Watch, Error> {
        let stream = self.wait(|client| client.watch(path))?;
        Ok(Watch {
            stream,
            inner: Arc::clone(&self.inner),
        })
    }

    /// Waits for the one event of a one-shot watch.
    ///
    /// # Errors
    ///
    /// [`End`].
    pub fn wait_for(&self, watcher: crate::watch::Watcher) -> Result<Event, End> {
        self.inner.block_on(watcher)
    }

    /// Ends the session and waits until it is over. As [`crate::Client::close`].
    pub fn close(self) {
        self.inner.block_on(self.inner.client.clone().close());
    }
}

/// What happens to a znode, as an iterator.
#[derive(Debug)]
pub struct Watch {
    stream: crate::watch::WatchStream,
    inner: Arc<Inner>,
}

impl Iterator for Watch {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.inner.block_on(self.stream.next()).ok()
    }
}
