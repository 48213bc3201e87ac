//! What the client says of a request when the connection breaks at any step of a conversation: it has
//! to be true.
//!
//! A script of writes of every kind is played again and again. At each of its steps the connection is
//! cut before the request is delivered, cut after the server has answered, or the answer is withheld,
//! late or spoilt. An observer with a connection of its own then looks what was really done.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::task::Poll;
use std::time::Duration;

use quorate_client::{Client, Error, Outcome};
use quorate_testing::{Corruption, Ensemble, Fault, Server, Which};

/// More than any step may take: a silent server is given up after two thirds of a session's timeout.
const STEP_LIMIT: Duration = Duration::from_secs(20);
const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

/// The subtree without the numbers and marks that differ from run to run: name to data.
type Tree = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strike {
    CutBefore,
    CutAfter,
    Withhold,
    Spoil(Corruption),
    /// In time.
    Delay,
    /// So late that the connection was given up before, and a new one answers in time.
    DelayTooLong,
    Nothing,
}

const STRIKES: [Strike; 9] = [
    Strike::Nothing,
    Strike::Delay,
    Strike::DelayTooLong,
    Strike::CutBefore,
    Strike::CutAfter,
    Strike::Withhold,
    Strike::Spoil(Corruption::WrongXid),
    Strike::Spoil(Corruption::BadLength),
    Strike::Spoil(Corruption::Truncated),
];

impl Strike {
    /// Before the client has an answer that makes sense.
    fn breaks_the_connection(self) -> bool {
        match self {
            Self::Nothing | Self::Delay | Self::Spoil(Corruption::Truncated) => false,
            Self::CutBefore
            | Self::CutAfter
            | Self::Withhold
            | Self::DelayTooLong
            | Self::Spoil(_) => true,
        }
    }

    fn arm(self, server: &Server) -> Option<Fault> {
        Some(match self {
            Self::Delay => {
                server.delay(SESSION_TIMEOUT / 10);
                return None;
            }
            Self::DelayTooLong => {
                server.delay(SESSION_TIMEOUT);
                return None;
            }
            Self::Nothing => return None,
            Self::CutBefore => server.cut_before_next(Which::Any),
            Self::CutAfter => server.cut_after_commit(Which::Any),
            Self::Withhold => server.withhold_reply(Which::Any),
            Self::Spoil(how) => server.corrupt_reply(Which::Any, how),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    CreateSequential,
    CreateEphemeral,
    Set,
    SetIfVersion,
    SetIdempotently,
    Transact,
    Delete,
    DeleteGuaranteed,
    CreateProtected,
    Get,
    Children,
}

const STEPS: [Step; 12] = [
    Step::Create,
    Step::CreateSequential,
    Step::CreateEphemeral,
    Step::Set,
    Step::SetIfVersion,
    Step::SetIdempotently,
    Step::Transact,
    Step::Delete,
    Step::DeleteGuaranteed,
    Step::CreateProtected,
    Step::Get,
    Step::Children,
];

/// Played when the answer comes too late: one of each kind.
const LATE_STEPS: [Step; 5] = [
    Step::Create,
    Step::Transact,
    Step::SetIdempotently,
    Step::CreateProtected,
    Step::Get,
];

impl Step {
    async fn play(self, client: &Client) -> Result<(), Error> {
        match self {
            Self::Create => client.create("/created", b"c").await.map(drop),
            Self::CreateSequential => client.create("/seq-", b"s").sequential().await.map(drop),
            Self::CreateEphemeral => client.create("/eph", b"e").ephemeral().await.map(drop),
            Self::Set => client.set("/base", b"set").await.map(drop),
            Self::SetIfVersion => client.set("/base", b"cas").if_version(0).await.map(drop),
            Self::SetIdempotently => client.set("/base", b"again").idempotent().await.map(drop),
            Self::Transact => {
                let transaction = client.transaction().create("/by-txn", b"t");
                transaction.set("/base", b"txn").await.map(drop)
            }
            Self::Delete => client.delete("/doomed").await,
            Self::DeleteGuaranteed => client.delete("/doomed").guaranteed().await,
            Self::CreateProtected => {
                let create = client.create("/lock-", b"p").ephemeral().sequential();
                create.protected().await.map(drop)
            }
            Self::Get => client.get("/base").await.map(drop),
            Self::Children => client.children("/").await.map(drop),
        }
    }

    /// What the step makes of the tree.
    fn apply(self, tree: &mut Tree) {
        let mut put = |name: &str, data: &[u8]| drop(tree.insert(name.to_owned(), data.to_vec()));
        match self {
            Self::Create => put("created", b"c"),
            Self::CreateSequential => put("seq-#", b"s"),
            Self::CreateEphemeral => put("eph", b"e"),
            Self::Set => put("base", b"set"),
            Self::SetIfVersion => put("base", b"cas"),
            Self::SetIdempotently => put("base", b"again"),
            Self::Transact => {
                put("by-txn", b"t");
                put("base", b"txn");
            }
            Self::Delete | Self::DeleteGuaranteed => drop(tree.remove("doomed")),
            Self::CreateProtected => put("lock-#", b"p"),
            Self::Get | Self::Children => {}
        }
    }

    /// Whether the client finds out by itself what became of it.
    fn is_carried_through(self) -> bool {
        matches!(
            self,
            Self::SetIdempotently
                | Self::DeleteGuaranteed
                | Self::CreateProtected
                | Self::Get
                | Self::Children
        )
    }
}

/// The name without its number and mark; two of one kind differ by a count.
fn plain_name(name: &str) -> String {
    let name = match name.strip_prefix("_c_") {
        Some(marked) => marked.split_once('-').map_or(marked, |(_, name)| name),
        None => name,
    };
    match name.char_indices().nth_back(9) {
        Some((at, _)) if name[at..].bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{}#", &name[..at])
        }
        _ => name.to_owned(),
    }
}

/// The tree at one moment: what comes late may come between two reads, so it is looked at until two
/// looks agree.
async fn observe(observer: &Client) -> Tree {
    observer.sync("/").await.unwrap();
    let mut seen = look(observer).await;
    loop {
        let again = look(observer).await;
        if again == seen {
            return seen;
        }
        seen = again;
    }
}

async fn look(observer: &Client) -> Tree {
    let mut tree = Tree::new();
    for name in observer.children("/").await.unwrap().0 {
        let (data, _) = observer.get(&format!("/{name}")).await.unwrap();
        let mut plain = plain_name(&name);
        while tree.contains_key(&plain) {
            plain.push('+');
        }
        tree.insert(plain, data.to_vec());
    }
    tree
}

async fn strike_at(ensemble: &Ensemble, strike: Strike, step: Step, round: usize) {
    let context = format!("{strike:?} at {step:?}");
    // Each server has its own proxy: the observer's is left alone.
    let (struck, other) = (ensemble.server(1), ensemble.server(2));
    let root = format!("/r{round}");
    let observer = Client::connect(&other.connect_string()).await.unwrap();
    for path in ["", "/base", "/doomed"] {
        observer
            .create(&format!("{root}{path}"), b"0")
            .await
            .unwrap();
    }
    let observer = observer.with_chroot(&root).unwrap();
    let builder = Client::builder(&struck.connect_string()).session_timeout(SESSION_TIMEOUT);
    let client = builder.connect().await.unwrap();
    let client = client.with_chroot(&root).unwrap();
    // What the first server knows from here on is what the observer knows.
    client.sync("/").await.unwrap();
    let before = observe(&observer).await;
    let mut after = before.clone();
    step.apply(&mut after);

    let fault = strike.arm(struck);
    // What is held back too long arrives when it is given up: after its time, on an old connection.
    let mut states = client.states();
    let give_back = async {
        while states.current().is_connected() {
            states.next().await;
        }
        struck.delay(Duration::ZERO);
        std::future::pending::<()>().await;
    };
    let play = async {
        tokio::select! {
            played = step.play(&client) => played,
            () = give_back => unreachable!("it never ends"),
        }
    };
    let played = tokio::time::timeout(STEP_LIMIT, play).await;
    let played = played.unwrap_or_else(|_| panic!("{context}: the client hangs"));
    struck.delay(Duration::ZERO);
    if let Some(fault) = fault {
        fault.happened().await.unwrap();
    }

    let outcome = match &played {
        Ok(()) => Outcome::Applied,
        Err(error) => error.outcome(),
    };
    let found = observe(&observer).await;
    let truth = format!("{context}: {played:?}, found {found:?}");
    match outcome {
        Outcome::Applied => assert_eq!(found, after, "{truth}"),
        Outcome::NotApplied => assert_eq!(found, before, "{truth}"),
        Outcome::Unknown => assert!(found == before || found == after, "{truth}"),
    }
    // An answer that says "done", and then makes no sense, is not asked for again.
    let is_cut_off = strike == Strike::Spoil(Corruption::Truncated);
    if strike.breaks_the_connection() && !step.is_carried_through() {
        assert_eq!(outcome, Outcome::Unknown, "{truth}");
    }
    assert!(
        played.is_ok() || is_cut_off || !step.is_carried_through(),
        "{truth}"
    );
    assert!(
        played.is_ok() || !matches!(strike, Strike::Nothing | Strike::Delay),
        "{truth}"
    );

    // The session has survived it, with what it owns.
    let alive = tokio::time::timeout(STEP_LIMIT, client.sync("/").into_future()).await;
    alive
        .unwrap_or_else(|_| panic!("{context}: the client hangs afterwards"))
        .unwrap();
    client.close().await;
    let left = observe(&observer).await;
    assert!(
        !left.contains_key("eph") && !left.contains_key("lock-#"),
        "{context}: {left:?}"
    );
    observer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outcome_that_is_reported_is_true_wherever_the_connection_breaks() {
    let ensemble = Ensemble::start(3).await.unwrap();
    ensemble.wait_for_leader().await.unwrap();
    let mut round = 0;
    for strike in STRIKES {
        for step in STEPS {
            // Each of these takes as long as it takes to give a connection up.
            if strike == Strike::DelayTooLong && !LATE_STEPS.contains(&step) {
                continue;
            }
            strike_at(&ensemble, strike, step, round).await;
            round += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_breaks_is_made_again() {
    let ensemble = Ensemble::start(1).await.unwrap();
    let server = ensemble.server(1);
    let attempt = SESSION_TIMEOUT / 4;
    let arm = |strike: Strike| match strike {
        Strike::CutBefore => Some(server.cut_before_next(Which::Handshake)),
        Strike::CutAfter => Some(server.cut_after_commit(Which::Handshake)),
        Strike::Withhold => Some(server.withhold_reply(Which::Handshake)),
        // It has no xid to be wrong.
        Strike::Spoil(Corruption::WrongXid) => None,
        Strike::Spoil(how) => Some(server.corrupt_reply(Which::Handshake, how)),
        Strike::Delay | Strike::DelayTooLong | Strike::Nothing => None,
    };
    for strike in STRIKES {
        let Some(first) = arm(strike) else { continue };
        let builder = Client::builder(&server.connect_string());
        let builder = builder
            .session_timeout(SESSION_TIMEOUT)
            .attempt_timeout(attempt);
        let connecting = tokio::time::timeout(STEP_LIMIT, builder.connect());
        let client = connecting.await.expect("it goes on").unwrap();
        first.happened().await.unwrap();
        client.create("/mine", b"").ephemeral().await.unwrap();
        // And when it resumes its session.
        let session = client.session();
        let second = arm(strike).unwrap();
        server.cut_connections();
        second.happened().await.unwrap();
        assert_eq!(
            client.ephemerals("/").await.unwrap(),
            ["/mine"],
            "{strike:?}"
        );
        assert_eq!(client.session(), session, "{strike:?}");
        client.close().await;
    }
}

/// Polls a future so many times; `None` if it has not resolved by then, and is dropped.
async fn poll_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    for _ in 0..times {
        let polled = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
        if let Poll::Ready(output) = polled.await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_create_leaves_nothing_behind() {
    let ensemble = Ensemble::start(1).await.unwrap();
    let builder = Client::builder(&ensemble.connect_string()).session_timeout(SESSION_TIMEOUT);
    let client = builder.connect().await.unwrap();
    client.create("/locks", b"").await.unwrap();
    let mut dropped = 0;
    // Where all is late for good, nothing is ever over.
    let strikes = STRIKES
        .into_iter()
        .filter(|strike| *strike != Strike::DelayTooLong);
    for strike in strikes {
        for times in [0, 1, 10, 100, 1000, 3000] {
            let context = format!("{strike:?} after {times}");
            let fault = strike.arm(ensemble.server(1));
            let create = client.create("/locks/lock-", b"").ephemeral().sequential();
            let create = create.delete_if_dropped().send();
            match poll_times(create, times).await {
                Some(Ok(created)) => client.delete(&created.path).guaranteed().await.unwrap(),
                Some(Err(error)) => assert_eq!(error.outcome(), Outcome::Applied, "{context}"),
                None => dropped += 1,
            }
            // A request that was never sent cannot be struck: the next one is.
            let gone = async {
                let mut watch = client.watch("/locks").await.unwrap();
                while !client.children("/locks").await.unwrap().0.is_empty() {
                    watch.next().await.unwrap();
                }
            };
            let gone = tokio::time::timeout(STEP_LIMIT, gone).await;
            assert!(
                gone.is_ok(),
                "{context}: {:?}",
                client.children("/locks").await
            );
            ensemble.server(1).delay(Duration::ZERO);
            if let Some(fault) = fault {
                fault.disarm();
            }
        }
    }
    assert!(dropped >= STRIKES.len() * 2, "{dropped} were dropped");
}
