//! Chang and Roberts' leader election on a ring, with every message a znode.
//!
//! ```text
//! cargo run -p quorate-recipes --example ring_election -- [localhost:2181] [8]
//! ```
//!
//! The members of a group are the processes, in the order of joining; the last one's next is the first.
//! Each has a mailbox, a directory of its own in which the one before it creates a znode for each
//! message. All begin an election at once. It is played with ids in the best, the worst and a random
//! order, and the messages are counted and set beside the formulas; see `quorate_recipes::Ring`, also
//! for why this is **not the way** to elect a leader when there is such a service to ask.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;

use bytes::Bytes;
use quorate_client::{Client, Reason, Zxid};
use quorate_recipes::{Group, Membership, Ring, RingMessage};
use rand::seq::SliceRandom;
use tokio::task::JoinSet;

type Failure = Box<dyn Error + Send + Sync>;
/// The id of a member: of so many digits that texts are in the order of numbers.
type Id = String;

/// What an election has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages of the election.
    pub(crate) election: usize,
    /// Messages by which the leader told everybody.
    pub(crate) announcement: usize,
}

fn to_text(message: &RingMessage<Id>) -> String {
    match message {
        RingMessage::Election(id) => format!("election {id}"),
        RingMessage::Elected(id) => format!("elected {id}"),
    }
}

fn from_text(data: &[u8]) -> Result<RingMessage<Id>, Failure> {
    match std::str::from_utf8(data)?.split_once(' ') {
        Some(("election", id)) => Ok(RingMessage::Election(id.to_owned())),
        Some(("elected", id)) => Ok(RingMessage::Elected(id.to_owned())),
        _ => Err(format!("no message: {data:?}").into()),
    }
}

/// A member, in its place on the ring.
struct Process {
    client: Client,
    ring: Ring<Id>,
    /// Where its messages come.
    mailbox: String,
    /// Where the messages of the next one come.
    next_mailbox: String,
    sent: Counts,
}

impl Process {
    /// Takes part in one election, until it knows who has won and has told the next one.
    async fn elect(mut self) -> Result<(Id, Counts), Failure> {
        let first = self.ring.start();
        self.send(first).await?;
        loop {
            for message in self.receive().await? {
                let is_last = matches!(message, RingMessage::Elected(_));
                let answer = self.ring.receive(message);
                self.send(answer).await?;
                if let (true, Some(leader)) = (is_last, self.ring.leader()) {
                    return Ok((leader.clone(), self.sent));
                }
            }
        }
    }

    async fn send(&mut self, message: Option<RingMessage<Id>>) -> Result<(), Failure> {
        let Some(message) = message else {
            return Ok(());
        };
        match message {
            RingMessage::Election(_) => self.sent.election += 1,
            RingMessage::Elected(_) => self.sent.announcement += 1,
        }
        let path = format!("{}/message-", self.next_mailbox);
        let create = self.client.create(&path, to_text(&message));
        // Protected: a message that comes twice would be counted twice.
        create.sequential().protected().await?;
        Ok(())
    }

    /// Waits for messages, and takes them out of the mailbox: in the order of sending, which the zxids
    /// of their creation have and no number that wraps.
    async fn receive(&self) -> Result<Vec<RingMessage<Id>>, Failure> {
        loop {
            let ((names, _), watch) = self.client.children(&self.mailbox).watch().await?;
            if names.is_empty() {
                watch.changed().await?;
                continue;
            }
            let mut found: Vec<(Zxid, Bytes)> = Vec::new();
            for name in names {
                let path = format!("{}/{name}", self.mailbox);
                let (data, stat) = self.client.get(&path).await?;
                found.push((stat.czxid, data));
                self.client.delete(&path).guaranteed().await?;
            }
            found.sort();
            return found.iter().map(|(_, data)| from_text(data)).collect();
        }
    }
}

/// Elects one of a group whose members join in this order, below a path. All end with the same leader.
pub(crate) async fn elect(
    client: &Client,
    path: &str,
    ids: &[Id],
) -> Result<(Id, Counts), Failure> {
    let group = Group::new(client, &format!("{path}/members"));
    let mut memberships: Vec<Membership> = Vec::new();
    for id in ids {
        client.ensure_path(&format!("{path}/mail/{id}")).await?;
        memberships.push(group.join(id, "").await?);
    }
    // Who is next is what the group says: the same for all, and nobody may leave meanwhile.
    let ring: Vec<Id> = group.members().await?.into_iter().map(|m| m.id).collect();
    let mut processes = JoinSet::new();
    for (place, id) in ring.iter().enumerate() {
        let next = &ring[(place + 1) % ring.len()];
        let process = Process {
            client: client.clone(),
            ring: Ring::new(id.clone()),
            mailbox: format!("{path}/mail/{id}"),
            next_mailbox: format!("{path}/mail/{next}"),
            sent: Counts::default(),
        };
        processes.spawn(process.elect());
    }
    let mut leaders = Vec::new();
    let mut counts = Counts::default();
    while let Some(ended) = processes.join_next().await {
        let (leader, sent) = ended??;
        leaders.push(leader);
        counts.election += sent.election;
        counts.announcement += sent.announcement;
    }
    for membership in memberships {
        membership.leave().await?;
    }
    leaders.dedup();
    match leaders.as_slice() {
        [leader] => Ok((leader.clone(), counts)),
        _ => Err(format!("they do not agree: {leaders:?}").into()),
    }
}

/// Ids that grow.
pub(crate) fn ids(n: usize) -> Vec<Id> {
    (1..=n)
        .map(|number| format!("member-{number:04}"))
        .collect()
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next();
    let servers = servers.unwrap_or_else(|| "localhost:2181".to_owned());
    let n: usize = arguments.next().map_or(Ok(8), |n| n.parse())?;
    if n == 0 || n > 100 {
        return Err("from 1 to 100 members".into());
    }
    let client = Client::connect(&servers).await?;
    let root = format!("/ring-election-{:08x}", rand::random::<u32>());
    client.ensure_path(&root).await?;

    let best = ids(n);
    let mut worst = best.clone();
    worst.reverse();
    let mut random = best.clone();
    random.shuffle(&mut rand::rng());
    let harmonic: f64 = (1..=n)
        .map(|k| 1.0 / f64::from(u32::try_from(k).unwrap_or(1)))
        .sum();
    let average = harmonic * f64::from(u32::try_from(n)?);
    println!("{n} members that all begin at once; each election and {n} messages more to tell all");
    for (order, ids, expected) in [
        ("growing (best)", best, format!("2n - 1 = {}", 2 * n - 1)),
        (
            "shrinking (worst)",
            worst,
            format!("n(n + 1) / 2 = {}", n * (n + 1) / 2),
        ),
        (
            "random",
            random,
            format!("on average n H(n) = {average:.1}"),
        ),
    ] {
        let (leader, counts) = elect(&client, &root, &ids).await?;
        println!(
            "{order:>18}: {leader} is elected with {} messages, {expected}; {} tell all",
            counts.election, counts.announcement
        );
    }

    for path in client.list_recursive(&root).await?.iter().rev() {
        match client.delete(path).await {
            Err(error) if !error.is(Reason::NoNode) => return Err(error.into()),
            _ => {}
        }
    }
    client.close().await;
    Ok(())
}
