//! Locks of all kinds while connections break, callers go and sessions end, at each step: one at a time,
//! nobody stays behind, and whoever is next gets in.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use quorate_client::{AclEntry, Client, OnExpiry, Perms, Reason};
use quorate_recipes::{
    Error, Guard, MultiLock, Mutex, OnSessionLoss, ReadWriteLock, Semaphore, StopReason,
};
use quorate_testing::{Ensemble, TestServer, Which};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::every_request::{Playing, at_every_request};

const SOON: Duration = Duration::from_secs(20);
/// More steps than any way in has.
const STEPS_MAX: usize = 200;

async fn soon<T>(what: &str, something: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(SOON, something.into_future())
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// Waits until a directory has so many children.
async fn children(client: &Client, path: &str, count: usize) {
    let have = async || match client.children(path).await {
        Ok((names, _)) => names.len(),
        Err(error) if error.is(Reason::NoNode) => 0,
        Err(error) => panic!("{error}"),
    };
    let wait = async {
        while have().await != count {
            tokio::task::yield_now().await;
        }
    };
    soon("the line", wait).await;
}

type Asked = Pin<Box<dyn Future<Output = Result<Held, Error>> + Send>>;

/// Whatever it takes to hold it.
#[derive(Debug)]
enum Held {
    One(Guard),
    All(quorate_recipes::MultiGuard),
}

impl Held {
    async fn release(self) -> Result<(), Error> {
        match self {
            Self::One(guard) => guard.release().await,
            Self::All(guard) => guard.release().await,
        }
    }
}

/// What can be asked for, so that one at a time has it.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Mutex,
    Write,
    Read,
    Permit,
    All,
}

const ASKS: [Ask; 5] = [Ask::Mutex, Ask::Write, Ask::Read, Ask::Permit, Ask::All];

impl Ask {
    /// Of this client, below this path.
    fn of(self, client: &Client, path: &str, policy: OnSessionLoss) -> Asked {
        let one = |acquire: quorate_recipes::Acquire| -> Asked {
            Box::pin(async { acquire.await.map(Held::One) })
        };
        let readers = || ReadWriteLock::new(client, path).on_session_loss(policy);
        match self {
            Self::Mutex => one(Mutex::new(client, path).on_session_loss(policy).acquire()),
            Self::Write => one(readers().write()),
            Self::Read => one(readers().read()),
            Self::Permit => {
                let semaphore = Semaphore::new(client, path, 1);
                one(semaphore.on_session_loss(policy).acquire())
            }
            Self::All => {
                let below = ["b", "a"].map(|name| {
                    Mutex::new(client, &format!("{path}/{name}")).on_session_loss(policy)
                });
                let all = MultiLock::new(below).acquire();
                Box::pin(async { all.await.map(Held::All) })
            }
        }
    }

    /// Whoever excludes it.
    fn rival(self) -> Self {
        match self {
            Self::Read => Self::Write,
            other => other,
        }
    }

    /// Where the contenders are.
    fn lines(self, path: &str) -> Vec<String> {
        let below = |names: [&str; 2]| names.map(|name| format!("{path}/{name}")).to_vec();
        match self {
            Self::Mutex | Self::Write | Self::Read => vec![path.to_owned()],
            Self::Permit => below(["locks", "leases"]),
            Self::All => below(["a", "b"]),
        }
    }

    async fn nobody_is_left(self, client: &Client, path: &str) {
        for line in self.lines(path) {
            children(client, &line, 0).await;
        }
    }
}

/// Polls a future so often, whenever it asks for it.
async fn poll_times<F: Future + Unpin>(future: &mut F, polls: usize) -> Option<F::Output> {
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match Pin::new(&mut *future).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[test]
fn a_lock_passes_from_one_to_the_next_wherever_a_connection_breaks() {
    // Each on a server of its own.
    let kinds = ASKS.map(|ask| {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(handed_over_at_every_request(ask))
        })
    });
    for (ask, kind) in ASKS.into_iter().zip(kinds) {
        let requests = kind.join().unwrap();
        assert!(requests > 12, "{ask:?} {requests}");
    }
}

async fn handed_over_at_every_request(ask: Ask) -> usize {
    at_every_request(async |playing: &Playing<'_>| {
        let context = format!("{ask:?} {playing:?}");
        let path = format!("{}/lock", playing.path());
        let (a, b) = (playing.client().await, playing.client().await);
        let policy = OnSessionLoss::Fail;
        let first = soon(&context, ask.of(&a, &path, policy)).await.unwrap();
        let mut waiting = ask.rival().of(&b, &path, policy);
        let early = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context)));
        assert!(early.await.is_pending(), "{context}");
        let waiting = tokio::spawn(waiting);
        if let (Held::One(first), Ask::Mutex) = (&first, ask) {
            children(&a, &path, 2).await;
            assert!(first.is_held(), "{context}");
        }
        let before = token(&first);
        first.release().await.unwrap();
        let next = soon(&context, waiting).await.unwrap().unwrap();
        assert!(token(&next) > before, "{context}");
        next.release().await.unwrap();
        ask.nobody_is_left(&a, &path).await;
        a.close().await;
        b.close().await;
    })
    .await
}

fn token(held: &Held) -> u64 {
    match held {
        Held::One(guard) => guard.token().get(),
        Held::All(guard) => guard.tokens().map(|(_, token)| token.get()).max().unwrap(),
    }
}

/// An answer that never comes: the client gives the connection up, and finds out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_passes_from_one_to_the_next_whichever_answer_never_comes() {
    let mut request = 0;
    loop {
        // Silence takes its time: several at once.
        let batch = (request..request + 4).map(|request| tokio::spawn(withheld_at(request)));
        let batch: Vec<_> = batch.collect();
        let mut has_happened = true;
        for playing in batch {
            has_happened &= playing.await.unwrap();
        }
        if !has_happened {
            break;
        }
        request += 4;
        assert!(request < STEPS_MAX, "it makes ever more requests");
    }
    assert!(request >= 8, "{request}");
}

async fn withheld_at(request: usize) -> bool {
    let server = TestServer::start().await.unwrap();
    let builder = Client::builder(&server.connect_string());
    let client = builder.session_timeout(Duration::from_millis(600));
    let client = client.connect().await.unwrap();
    let other = Client::connect(&server.connect_string()).await.unwrap();
    let lock = Mutex::new(&client, "/lock");
    let passed: Vec<_> = (0..request).map(|_| server.pass_next(Which::Any)).collect();
    let fault = server.withhold_reply(Which::Any);
    let guard = soon("the lock", lock.acquire()).await.unwrap();
    // It may have been told to stop, or even lost it, while nobody answered.
    match soon("the release", guard.release()).await {
        Ok(()) | Err(Error::Lost { .. }) => {}
        Err(error) => panic!("request {request}: {error}"),
    }
    let has_happened = fault.has_happened();
    drop(passed);
    fault.disarm();
    let next = soon("the next", Mutex::new(&other, "/lock").acquire());
    next.await.unwrap().release().await.unwrap();
    children(&other, "/lock", 0).await;
    has_happened
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_at_any_step_leaves_no_place_in_the_line() {
    let server = TestServer::start().await.unwrap();
    let client = Client::connect(&server.connect_string()).await.unwrap();
    let other = Client::connect(&server.connect_string()).await.unwrap();
    let policy = OnSessionLoss::Requeue;
    for ask in ASKS {
        let path = format!("/{ask:?}");
        for polls in 1.. {
            assert!(polls < STEPS_MAX, "{ask:?} asks for ever");
            // It is held, and given back as soon as the other waits.
            let held = ask.rival().of(&other, &path, policy).await.unwrap();
            let mut asked = ask.of(&client, &path, policy);
            let mut give_back = Box::pin(async {
                let line = ask.lines(&path).swap_remove(0);
                let waiting = if let Ask::Permit = ask { 1 } else { 2 };
                children(&other, &line, waiting).await;
                held.release().await.unwrap();
                std::future::pending::<()>().await;
            });
            let got = tokio::select! {
                biased;
                got = poll_times(&mut asked, polls) => got,
                () = &mut give_back => unreachable!("it is pending"),
            };
            drop((asked, give_back));
            let is_over = got.is_some();
            drop(got.transpose().unwrap());
            let next = soon("the next", ask.rival().of(&other, &path, policy)).await;
            next.unwrap().release().await.unwrap();
            ask.nobody_is_left(&other, &path).await;
            if is_over {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_that_ends_at_any_step_leaves_no_place_in_the_line() {
    let server = TestServer::start().await.unwrap();
    let client = Client::connect(&server.connect_string()).await.unwrap();
    let other = Client::connect(&server.connect_string()).await.unwrap();
    // So that there is a moment between any two steps.
    server.delay(Duration::from_millis(2));
    let lock = Mutex::new(&client, "/mutex");
    let semaphore = Semaphore::new(&client, "/semaphore", 1);
    let (mut late, mut in_time) = (0, 0);
    for ms in (1..).step_by(5) {
        assert!(ms < 2000, "it is never obtained");
        let patience = Duration::from_millis(ms);
        let mut all_in_time = true;
        for acquire in [lock.acquire(), semaphore.acquire()] {
            match soon("an answer", acquire.wait_at_most(patience)).await {
                Ok(guard) => {
                    in_time += 1;
                    guard.release().await.unwrap();
                }
                Err(Error::HeldByAnother { waited, .. }) => {
                    assert_eq!(waited, patience);
                    late += 1;
                    all_in_time = false;
                }
                Err(error) => panic!("{ms} ms: {error}"),
            }
        }
        children(&other, "/mutex", 0).await;
        children(&other, "/semaphore/locks", 0).await;
        children(&other, "/semaphore/leases", 0).await;
        if all_in_time {
            break;
        }
    }
    assert!(late > 3 && in_time > 1, "{late} {in_time}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_at_any_step_leaves_nobody_and_what_waits_does_as_it_was_told() {
    let server = TestServer::start().await.unwrap();
    let observer = Client::connect(&server.connect_string()).await.unwrap();
    for (number, (on_expiry, policy, goes_on)) in [
        (OnExpiry::NewSession, OnSessionLoss::Requeue, true),
        (OnExpiry::NewSession, OnSessionLoss::Fail, false),
        (OnExpiry::Stay, OnSessionLoss::Requeue, false),
    ]
    .into_iter()
    .enumerate()
    {
        let asks = [Ask::Mutex, Ask::Read, Ask::Permit, Ask::All];
        for ask in asks.into_iter().take(if goes_on { 4 } else { 1 }) {
            let path = format!("/{ask:?}{number}");
            for polls in 1.. {
                let context = format!("{ask:?} {on_expiry:?} {policy:?} after {polls} polls");
                assert!(polls < STEPS_MAX, "{context}");
                let builder = Client::builder(&server.connect_string());
                let client = builder.on_expiry(on_expiry).connect().await.unwrap();
                let mut asked = ask.of(&client, &path, policy);
                let got = poll_times(&mut asked, polls).await;
                let is_over = got.is_some();
                server
                    .expire(client.session().unwrap().get())
                    .await
                    .unwrap();
                if let Some(held) = got {
                    let lost = held.unwrap().release().await;
                    assert!(
                        matches!(lost, Err(Error::Lost { .. })),
                        "{context}: {lost:?}"
                    );
                    break;
                }
                match (goes_on, soon(&context, asked).await) {
                    // It may have been obtained before the client heard of the end, or begin after it.
                    (_, Ok(held)) => match held.release().await {
                        Ok(()) | Err(Error::Lost { .. }) => {}
                        Err(error) => panic!("{context}: {error}"),
                    },
                    (true, Err(error)) => panic!("{context}: {error}"),
                    (false, Err(error)) => {
                        let is_typed = match &error {
                            Error::Client(error) => error.needs_new_session(),
                            Error::Displaced { .. } | Error::Lost { .. } => true,
                            _ => false,
                        };
                        assert!(is_typed, "{context}: {error}");
                    }
                }
                ask.nobody_is_left(&observer, &path).await;
                if is_over {
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_of_three_is_lost_the_others_go_on_in_order() {
    let server = TestServer::start().await.unwrap();
    let path = "/lock";
    for lost in 0..3 {
        let mut clients = Vec::new();
        for _ in 0..3 {
            let builder = Client::builder(&server.connect_string());
            let builder = builder.on_expiry(OnExpiry::Stay);
            clients.push(builder.connect().await.unwrap());
        }
        let observer = Client::connect(&server.connect_string()).await.unwrap();
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        for (number, client) in clients.iter().enumerate() {
            let (lock, told) = (Mutex::new(client, path), told.clone());
            tokio::spawn(async move {
                // Whoever is lost fails.
                if let Ok(guard) = lock.acquire().await {
                    told.send((number, guard)).ok();
                }
            });
            children(&observer, path, number + 1).await;
        }
        let (number, holder) = soon("the first", order.recv()).await.unwrap();
        assert_eq!(number, 0);
        let mut holder = Some(holder);
        let session = clients[lost].session().unwrap().get();
        server.expire(session).await.unwrap();
        children(&observer, path, 2).await;
        let mut last = holder.as_ref().map(Guard::token).unwrap();
        for expected in (1..3).filter(|number| *number != lost) {
            match holder.take().unwrap() {
                gone if lost == 0 && expected == 1 => {
                    assert_eq!(soon("the loss", gone.lost()).await, StopReason::SessionOver);
                }
                holder => {
                    assert!(order.try_recv().is_err(), "two at once");
                    assert!(holder.is_held());
                    holder.release().await.unwrap();
                }
            }
            let (number, next) = soon("the next", order.recv()).await.unwrap();
            assert_eq!(number, expected, "without {lost}");
            assert!(next.token() > last);
            last = next.token();
            holder = Some(next);
        }
        holder.unwrap().release().await.unwrap();
        children(&observer, path, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_delays_the_next_where_that_was_asked_for_and_a_release_does_not() {
    const DELAY: Duration = Duration::from_millis(400);
    let server = TestServer::start().await.unwrap();
    let address = server.connect_string();
    let next = Client::connect(&address).await.unwrap();
    for is_shared in [false, true] {
        let path = format!("/lock-{is_shared}");
        let lost = Client::connect(&address).await.unwrap();
        let ask = |client: &Client| {
            let lock = ReadWriteLock::new(client, &path).lock_delay(DELAY);
            let mutex = Mutex::new(client, &path).lock_delay(DELAY);
            match is_shared {
                true => (lock.write(), lock.read()),
                false => (mutex.acquire(), mutex.acquire()),
            }
        };
        let first = ask(&lost).0.await.unwrap();
        let session = lost.session().unwrap().get();
        server.expire(session).await.unwrap();
        children(&next, &path, 0).await;
        let since = Instant::now();
        let tried = ask(&next).1.try_now().await;
        assert!(matches!(tried, Err(Error::WouldBlock { .. })), "{tried:?}");
        let second = soon("the next", ask(&next).1).await.unwrap();
        assert!(since.elapsed() >= DELAY, "{:?}", since.elapsed());
        assert!(second.token() > first.token());
        second.release().await.unwrap();
        let since = Instant::now();
        let third = soon("the third", ask(&next).1).await.unwrap();
        third.release().await.unwrap();
        assert!(since.elapsed() < DELAY, "{:?}", since.elapsed());
    }
}

/// How many requests a server has received.
async fn received(server: &TestServer) -> u64 {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"srvr").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let line = answer
        .lines()
        .find_map(|line| line.strip_prefix("Received: "));
    line.unwrap().parse().unwrap()
}

/// Requests that a hand-over takes, on average over some, with so many in the line.
async fn requests_per_hand_over(contenders: usize) -> f64 {
    const HAND_OVERS: u32 = 20;
    let server = TestServer::start().await.unwrap();
    // Heartbeats are requests, too: there is to be none of them meanwhile.
    let connect = || {
        let builder = Client::builder(&server.connect_string());
        let builder = builder.session_timeout(Duration::from_secs(300));
        async { builder.connect().await.unwrap() }
    };
    let admin = connect().await;
    let holder = Mutex::new(&admin, "/lock").acquire().await.unwrap();
    let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let lock = Mutex::new(&connect().await, "/lock");
        for _ in 0..contenders / 10 {
            let (lock, told) = (lock.clone(), told.clone());
            waiting.spawn(async move {
                let guard = lock.acquire().await.unwrap();
                told.send(guard).unwrap();
            });
        }
    }
    let joined = async {
        loop {
            let stat = admin.exists("/lock").await.unwrap().unwrap();
            if usize::try_from(stat.num_children).unwrap() == contenders + 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the line", joined).await;
    holder.release().await.unwrap();
    let mut holder = soon("the first", order.recv()).await.unwrap();
    // All of them have read the line by now, and wait.
    for _ in 0..3 {
        holder.release().await.unwrap();
        holder = soon("the next", order.recv()).await.unwrap();
    }
    let before = received(&server).await;
    for _ in 0..HAND_OVERS {
        holder.release().await.unwrap();
        holder = soon("the next", order.recv()).await.unwrap();
    }
    // Read before the word itself is counted.
    let count = received(&server).await - before;
    waiting.abort_all();
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let count = count as f64;
    count / f64::from(HAND_OVERS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_takes_as_many_requests_among_a_thousand_as_among_a_few() {
    let few = requests_per_hand_over(40).await;
    let many = requests_per_hand_over(1000).await;
    assert!(few > 2.0 && few < 12.0, "{few}");
    assert!((few - many).abs() < 1.5, "{few} and {many}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_refuses_is_told_and_leaves_nothing() {
    let builder = Ensemble::builder().config("enforceQuota", "true");
    let server = builder.start().await.unwrap();
    let client = Client::connect(&server.connect_string()).await.unwrap();
    client.create("/q", b"").await.unwrap();
    client.create("/zookeeper/quota/q", b"").await.unwrap();
    let limits = "/zookeeper/quota/q/zookeeper_limits";
    let quota = |count: i64, bytes: i64| {
        format!("count=-1,bytes=-1=;byteHardLimit={bytes};countHardLimit={count}")
    };
    client.create(limits, quota(1, -1)).await.unwrap();
    client
        .create("/zookeeper/quota/q/zookeeper_stats", b"count=0,bytes=0")
        .await
        .unwrap();
    let lock = Mutex::new(&client, "/q/lock").identity("a");
    // No room for the directory, for a place in the line, for the record.
    for (step, limit) in [quota(1, -1), quota(2, -1), quota(-1, 60)]
        .iter()
        .enumerate()
    {
        client.set(limits, limit).await.unwrap();
        let refused = soon("an answer", lock.acquire()).await.unwrap_err();
        assert!(refused.is(Reason::QuotaExceeded), "step {step}: {refused}");
        children(&client, "/q/lock", 0).await;
    }
    client.set(limits, quota(-1, -1)).await.unwrap();
    let guard = soon("the lock", lock.acquire()).await.unwrap();
    // No room for what the record says of the release: the lock is given back all the same.
    client.set(limits, quota(-1, 60)).await.unwrap();
    guard.release().await.unwrap();
    children(&client, "/q/lock", 0).await;
    client.set(limits, quota(-1, -1)).await.unwrap();
    let guard = soon("the lock", lock.acquire()).await.unwrap();
    guard.release().await.unwrap();

    // An ACL that lets nobody join, or nobody write the record.
    let only = |perms| {
        let open = AclEntry::open();
        [AclEntry { perms, ..open }]
    };
    let all_but_write = Perms(Perms::ALL.0 & !Perms::WRITE.0);
    for (path, perms) in [("/read-only", Perms::READ), ("/no-record", all_but_write)] {
        client.create(path, b"").await.unwrap();
        client.set_acl(path, only(perms)).await.unwrap();
        let lock = Mutex::new(&client, path);
        let refused = soon("an answer", lock.acquire()).await.unwrap_err();
        assert!(refused.is(Reason::NoAuth), "{refused}");
        children(&client, path, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_and_loses_its_session_stands_last_or_fails_as_it_was_told() {
    let server = TestServer::start().await.unwrap();
    let path = "/lock";
    let observer = Client::connect(&server.connect_string()).await.unwrap();
    let lock = Mutex::new(&observer, path);
    for (on_expiry, policy, goes_on) in [
        (OnExpiry::NewSession, OnSessionLoss::Requeue, true),
        (OnExpiry::NewSession, OnSessionLoss::Fail, false),
        (OnExpiry::Stay, OnSessionLoss::Requeue, false),
        (OnExpiry::Stay, OnSessionLoss::Fail, false),
    ] {
        let context = format!("{on_expiry:?} {policy:?}");
        let holder = lock.acquire().await.unwrap();
        let builder = Client::builder(&server.connect_string());
        let client = builder.on_expiry(on_expiry).connect().await.unwrap();
        let session = client.session().unwrap();
        let waiting = Mutex::new(&client, path).identity("waiting");
        let waiting = tokio::spawn(waiting.on_session_loss(policy).acquire().into_future());
        children(&observer, path, 2).await;
        let behind = Mutex::new(&observer, path).identity("behind");
        let behind = tokio::spawn(behind.acquire().into_future());
        children(&observer, path, 3).await;
        server.expire(session.get()).await.unwrap();
        if goes_on {
            // Again, under its new session, and behind all who were there.
            let stands = async {
                loop {
                    let line = lock.contenders().await.unwrap();
                    let last = line.last().unwrap();
                    if line.len() == 3 && last.identity == "waiting" {
                        assert_ne!(last.session, Some(session), "{context}");
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            };
            soon(&context, stands).await;
        } else {
            // Without having to wait for the holder.
            let refused = soon(&context, waiting).await.unwrap().unwrap_err();
            let is_typed = match &refused {
                Error::Client(error) => error.needs_new_session(),
                error => matches!(error, Error::Displaced { .. }),
            };
            assert!(is_typed, "{context}: {refused}");
            children(&observer, path, 2).await;
            holder.release().await.unwrap();
            let behind = soon(&context, behind).await.unwrap().unwrap();
            behind.release().await.unwrap();
            continue;
        }
        holder.release().await.unwrap();
        let next = soon(&context, behind).await.unwrap().unwrap();
        assert!(!waiting.is_finished(), "{context}: two at once");
        next.release().await.unwrap();
        let last = soon(&context, waiting).await.unwrap().unwrap();
        last.release().await.unwrap();
        children(&observer, path, 0).await;
    }
}
