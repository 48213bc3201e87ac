//! Our recipes in a process of their own, with the commands that are asked for here.

use std::io::BufRead;
use std::sync::{Arc, Mutex as Shared, PoisonError};
use std::time::{Duration, Instant};

use quorate_client::Client;
use quorate_recipes::election::Leadership;
use quorate_recipes::{Election, Guard, Mutex};

use crate::library::Failure;

/// Reads commands until there are no more.
pub(crate) fn contend(server: &str) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut contender = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let done = runtime.block_on(obey(server, &words[1..], &mut contender));
        let answer = done.unwrap_or_else(|error| format!("failed {error}"));
        println!("{} {answer}", words[0]);
    }
    Ok(())
}

async fn obey(
    server: &str,
    words: &[&str],
    contender: &mut Option<(Contender, Option<Inside>)>,
) -> Result<String, Failure> {
    match (words, contender) {
        (["open", recipe, path, _, _, session_ms], contender) => {
            let timeout = Duration::from_millis(session_ms.parse()?);
            let builder = Client::builder(server).session_timeout(timeout);
            let opened = Contender::new(&builder.connect().await?, recipe, path)?;
            *contender = Some((opened, None));
            Ok("opened".to_owned())
        }
        (["acquire"], Some((contender, inside))) => {
            *inside = Some(contender.enter().await?);
            Ok("entered".to_owned())
        }
        (["release"], Some((_, inside))) => {
            if let Some(inside) = inside.take() {
                inside.leave().await?;
            }
            Ok("left".to_owned())
        }
        (["measure", recipe, path, contenders, sessions, warm_up, span], _) => {
            let (contenders, sessions) = (contenders.parse()?, sessions.parse()?);
            let warm_up = Duration::from_millis(warm_up.parse()?);
            let span = Duration::from_millis(span.parse()?);
            measure(
                server,
                (recipe, path),
                contenders,
                sessions,
                (warm_up, span),
            )
            .await
        }
        _ => Err(format!("there is no command {words:?} now").into()),
    }
}

#[derive(Clone)]
enum Contender {
    Lock(Mutex),
    Election(Election),
}

enum Inside {
    Lock(Guard),
    Election(Leadership),
}

impl Contender {
    fn new(client: &Client, recipe: &str, path: &str) -> Result<Self, Failure> {
        match recipe {
            "quorate-lock" => Ok(Self::Lock(Mutex::new(client, path))),
            "quorate-election" => Ok(Self::Election(Election::new(client, path))),
            _ => Err(format!("there is no recipe {recipe}").into()),
        }
    }

    async fn enter(&self) -> Result<Inside, quorate_recipes::Error> {
        Ok(match self {
            Self::Lock(lock) => Inside::Lock(lock.acquire().await?),
            Self::Election(election) => Inside::Election(election.campaign("").await?),
        })
    }
}

impl Inside {
    async fn leave(self) -> Result<(), quorate_recipes::Error> {
        match self {
            Self::Lock(guard) => guard.release().await,
            Self::Election(leadership) => leadership.resign().await,
        }
    }
}

#[derive(Default)]
struct HandOvers {
    left: Option<Instant>,
    entered: usize,
    took: Vec<Duration>,
}

async fn measure(
    server: &str,
    (recipe, path): (&str, &str),
    contenders: usize,
    sessions: usize,
    (warm_up, span): (Duration, Duration),
) -> Result<String, Failure> {
    let mut clients = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        clients.push(Client::connect(server).await?);
    }
    let begin = Instant::now() + warm_up;
    let end = begin + span;
    let hand_overs = Arc::new(Shared::new(HandOvers::default()));
    let mut running = Vec::with_capacity(contenders);
    for index in 0..contenders {
        let contender = Contender::new(&clients[index % sessions], recipe, path)?;
        let hand_overs = Arc::clone(&hand_overs);
        running.push(tokio::spawn(async move {
            while Instant::now() < end {
                let inside = contender.enter().await?;
                let now = Instant::now();
                {
                    let mut hand_overs = hand_overs.lock().unwrap_or_else(PoisonError::into_inner);
                    hand_overs.entered += 1;
                    let since = hand_overs.left.take();
                    if let Some(since) = since
                        && now >= begin
                        && now < end
                    {
                        hand_overs.took.push(now - since);
                    }
                    hand_overs.left = Some(Instant::now());
                }
                inside.leave().await?;
            }
            Ok::<_, quorate_recipes::Error>(())
        }));
    }
    for one in running {
        one.await??;
    }
    for client in clients {
        client.close().await;
    }
    let hand_overs = hand_overs.lock().unwrap_or_else(PoisonError::into_inner);
    let mut micros: Vec<f64> = hand_overs
        .took
        .iter()
        .map(|took| took.as_secs_f64() * 1e6)
        .collect();
    micros.sort_unstable_by(f64::total_cmp);
    let count = micros.len();
    let (Some(p50), Some(p99)) = (micros.get(count / 2), micros.get(count * 99 / 100)) else {
        return Err("nobody handed over".into());
    };
    let per_second = count as f64 / span.as_secs_f64();
    let entered = hand_overs.entered;
    Ok(format!(
        "figures {per_second:.1} {p50:.1} {p99:.1} {entered}"
    ))
}
