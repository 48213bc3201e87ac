//! The line in front of a lock: who stands in it, in which order, and whom one has to wait for.
//!
//! A contender is an ephemeral sequential child of the directory. Each waits for one other only, the
//! nearest before it that stands in its way, so that a release wakes one and not all.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_client::{AclEntry, Client, Reason, SessionId};

use crate::directory::{self, Kind};
use crate::grant::Seen;
use crate::naming::{self, Naming, Number, Parsed, Role};
use crate::{Error, OnSessionLoss};

/// Strangers that are warned of once each; of more than that, again and again.
const STRANGERS_MAX: usize = 128;

/// Whom a contender waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Everybody who came before.
    All,
    /// Those who came before and do not only read.
    Writers,
}

/// A contender as its name shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) parsed: Parsed,
}

impl Candidate {
    pub(crate) fn of(name: &str) -> Option<Self> {
        let parsed = Parsed::of(name)?;
        let name = name.to_owned();
        Some(Self { name, parsed })
    }

    pub(crate) fn number(&self) -> Number {
        self.parsed.number
    }

    /// Whoever stands behind a leader has its number, and so have all who were ever asked to: of these
    /// one only may lead, whatever became of the asking.
    fn comes_before(&self, other: &Self) -> bool {
        match self.number() == other.number() {
            true => self.name < other.name,
            false => self.number().comes_before(other.number()),
        }
    }
}

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Ours.
    Ours,
    /// The one to wait for.
    After(String),
    /// We are not in the line.
    Gone,
}

/// Works out whose turn it is from the names of the children.
pub(crate) fn turn(candidates: &[Candidate], me: &str, rule: Rule) -> Turn {
    let Some(own) = candidates.iter().find(|candidate| candidate.name == me) else {
        return Turn::Gone;
    };
    let in_the_way = candidates.iter().filter(|other| match rule {
        Rule::All => true,
        Rule::Writers => other.parsed.role != Role::Shared,
    });
    let before = in_the_way.filter(|other| other.comes_before(own));
    let distance = |other: &Candidate| own.number().distance_from(other.number());
    let nearest = before.min_by(|one, other| {
        let by_name = || other.name.cmp(&one.name);
        distance(one).cmp(&distance(other)).then_with(by_name)
    });
    nearest.map_or(Turn::Ours, |other| Turn::After(other.name.clone()))
}

/// All contenders, first come first.
pub(crate) fn in_order(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let Some(pivot) = candidates.first().map(Candidate::number) else {
        return candidates;
    };
    candidates.sort_by_key(|candidate| candidate.number().distance_from(pivot));
    candidates
}

/// The line at one directory, as one of those who may join it.
#[derive(Clone, Debug)]
pub(crate) struct Contenders {
    pub(crate) client: Client,
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) acl: Vec<AclEntry>,
    strangers: Arc<Mutex<HashSet<String>>>,
    /// The directory is known to be ours.
    claimed: Arc<Mutex<bool>>,
}

/// A place in the line. Dropping it gives the place up: the znode is deleted in the background, for
/// as long as the session lives.
#[derive(Debug)]
pub(crate) struct Place {
    client: Client,
    path: String,
    name: String,
    pub(crate) session: SessionId,
    /// What its znode says.
    pub(crate) identity: String,
    /// The leader behind whom this place is, with the leader's own number.
    behind: Option<String>,
    /// The znode that it may be instead by now: nobody has heard yet.
    moving_to: Option<String>,
    /// The record as it was when its turn came: where a write of it begins.
    pub(crate) record: Option<Seen>,
    runtime: tokio::runtime::Handle,
    /// Somebody else sees to the znode.
    is_kept: bool,
}

impl Place {
    pub(crate) fn new(client: Client, path: String, session: SessionId, identity: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Self {
            client,
            path,
            name,
            session,
            identity: identity.to_owned(),
            behind: None,
            moving_to: None,
            record: None,
            runtime: tokio::runtime::Handle::current(),
            is_kept: false,
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// From now on it may be that znode instead.
    pub(crate) fn may_move_to(&mut self, path: &str) {
        self.moving_to = Some(path.to_owned());
    }

    /// It is another znode now, behind that leader.
    pub(crate) fn moved_to(&mut self, path: String, leader: String) {
        path.rsplit('/')
            .next()
            .unwrap_or_default()
            .clone_into(&mut self.name);
        self.path = path;
        self.moving_to = None;
        self.behind = Some(leader);
    }

    /// The znode stays when this is dropped.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A znode of a session that is over is gone by itself; the session after it must not delete
        // anything in its name.
        if !self.is_kept && self.client.session() == Some(self.session) {
            // Whoever drops it may be outside of the runtime.
            let _runtime = self.runtime.enter();
            for path in [Some(&self.path), self.moving_to.as_ref()]
                .into_iter()
                .flatten()
            {
                drop(self.client.delete(path).guaranteed().send());
            }
        }
    }
}

impl Contenders {
    pub(crate) fn new(client: &Client, path: &str, kind: Kind) -> Self {
        Self {
            client: client.clone(),
            path: path.to_owned(),
            kind,
            acl: vec![AclEntry::open()],
            strangers: Arc::default(),
            claimed: Arc::default(),
        }
    }

    pub(crate) fn child(&self, name: &str) -> String {
        match self.path.as_str() {
            "/" => format!("/{name}"),
            path => format!("{path}/{name}"),
        }
    }

    /// Takes the last place in the line, with the identity in the znode: the session's id if there is no
    /// other.
    ///
    /// Cancel safe: no znode stays behind.
    pub(crate) async fn join(
        &self,
        naming: Naming,
        role: Role,
        identity: Option<&str>,
    ) -> Result<Place, Error> {
        loop {
            let Some(session) = self.client.session() else {
                // There is none at the moment, or no more: the request says which.
                self.client.exists(&self.path).await?;
                continue;
            };
            self.claim().await?;
            let prefix = naming::prefix(self.kind, naming, role, session.get());
            let identity = identity.map_or_else(|| session.to_string(), str::to_owned);
            let create = self.client.create(&self.child(&prefix), &identity);
            let create = create.ephemeral().sequential().acl(self.acl.clone());
            match create.delete_if_dropped().await {
                Ok(created) if created.stat.ephemeral_owner == session.get() => {
                    return Ok(Place::new(
                        self.client.clone(),
                        created.path,
                        session,
                        &identity,
                    ));
                }
                // The session changed meanwhile; the new one's znode is not what was asked for.
                Ok(created) => {
                    drop(self.client.delete(&created.path).guaranteed().send());
                }
                // Somebody has taken the directory away.
                Err(error) if error.is(Reason::NoNode) => self.disclaim(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes sure, once, that the directory is there and not another recipe's.
    pub(crate) async fn claim(&self) -> Result<(), Error> {
        if *self.claimed.lock() {
            return Ok(());
        }
        directory::claim_with_acl(&self.client, &self.path, self.kind, &self.acl).await?;
        // Before anything is created: those whose names betray another recipe are not joined.
        let (names, _) = match self.client.children(&self.path).await {
            Err(error) if error.is(Reason::NoNode) => return Ok(()),
            children => children?,
        };
        self.candidates(&names)?;
        *self.claimed.lock() = true;
        Ok(())
    }

    /// The directory was not there: it is looked at anew.
    pub(crate) fn disclaim(&self) {
        *self.claimed.lock() = false;
    }

    /// Those of the children that contend. Others are named in the log, once each.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRecipe`].
    pub(crate) fn candidates(&self, names: &[String]) -> Result<Vec<Candidate>, Error> {
        let mut candidates = Vec::with_capacity(names.len());
        for name in names {
            let Some(candidate) = Candidate::of(name) else {
                self.note_stranger(name);
                continue;
            };
            if let Some(found) = candidate.parsed.betrays(self.kind) {
                return Err(Error::OtherRecipe {
                    path: self.path.clone(),
                    wanted: self.kind,
                    found,
                });
            }
            candidates.push(candidate);
        }
        Ok(candidates)
    }

    fn note_stranger(&self, name: &str) {
        let mut strangers = self.strangers.lock();
        if strangers.len() >= STRANGERS_MAX {
            strangers.clear();
        }
        if strangers.insert(name.to_owned()) {
            tracing::warn!(path = %self.path, name, "a child that is no contender is ignored");
        }
    }

    /// Reads who is in the line, in no particular order. Nobody is in a line that does not exist.
    pub(crate) async fn read(&self) -> Result<Vec<Candidate>, Error> {
        match self.client.children(&self.path).await {
            Ok((names, _)) => self.candidates(&names),
            Err(error) if error.is(Reason::NoNode) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it is this place's turn.
    ///
    /// A child with a lower number was created before ours, so a server that knows ours knows it too:
    /// a server that lags behind can make us wait longer, never shorter.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Error::Displaced`]: the znode is gone. Those of a session that is over.
    pub(crate) async fn wait_for_turn(&self, place: &mut Place, rule: Rule) -> Result<(), Error> {
        loop {
            // Asked for together: what comes next when it is our turn needs both.
            let record = self.client.get(&self.path).send();
            let candidates = self.read().await?;
            let mut turn = turn(&candidates, place.name(), rule);
            if let (Turn::Ours, Some(leader)) = (&turn, &place.behind)
                && candidates.iter().any(|other| other.name == *leader)
            {
                turn = Turn::After(leader.clone());
            }
            let ahead = match turn {
                Turn::Ours => {
                    place.record = self.seen(record.await)?;
                    return Ok(());
                }
                Turn::Gone => return Err(self.displaced()),
                Turn::After(ahead) => ahead,
            };
            drop(record);
            let (found, gone) = self.client.exists(&self.child(&ahead)).watch().await?;
            if found.is_none() {
                continue;
            }
            // What wakes us says nothing about who is next: the line is read again either way. At the
            // end of the session, the next request says so.
            match self.kind {
                Kind::Election => {
                    let asked = self.asked_to_take_over(place.path());
                    tokio::select! {
                        _ = gone.changed() => {}
                        asked = asked => self.stand_behind(&asked?, place).await?,
                    }
                }
                _ => drop(gone.changed().await),
            }
        }
    }

    /// Sets the data of a contender's znode. `false` if it has gone.
    pub(crate) async fn tell(&self, name: &str, data: String) -> Result<bool, Error> {
        match self.client.set(&self.child(name), data).idempotent().await {
            Ok(_) => Ok(true),
            Err(error) if error.is(Reason::NoNode) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn displaced(&self) -> Error {
        Error::Displaced {
            path: self.path.clone(),
        }
    }
}

/// After `error`, waits for a new session where that is the policy. The error again where nothing can
/// be hoped for.
pub(crate) async fn after_loss(
    client: &Client,
    lost: Option<SessionId>,
    policy: OnSessionLoss,
    error: Error,
) -> Result<(), Error> {
    let may_go_on = match &error {
        // Lost: between the grant and its first look at the session.
        Error::Displaced { .. } | Error::Lost { .. } => true,
        Error::Client(error) => error.needs_new_session() || client.session() != lost,
        _ => false,
    };
    if policy == OnSessionLoss::Fail || !may_go_on {
        return Err(error);
    }
    if matches!(error, Error::Displaced { .. }) {
        return Ok(());
    }
    match crate::patience::renewed(client, lost).await {
        true => Ok(()),
        false => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: &str) -> Candidate {
        Candidate::of(name).unwrap_or_else(|| panic!("{name} is a contender"))
    }

    fn line(numbers: &[i64]) -> Vec<Candidate> {
        let names = numbers
            .iter()
            .map(|number| format!("_c_x-lock-{number:010}"));
        names.map(|name| candidate(&name)).collect()
    }

    #[test]
    fn each_waits_for_the_nearest_before_it() {
        let line = line(&[30, 10, 20]);
        let after = |me: usize| turn(&line, &line[me].name, Rule::All);
        assert_eq!(after(1), Turn::Ours);
        assert_eq!(after(2), Turn::After(line[1].name.clone()));
        assert_eq!(after(0), Turn::After(line[2].name.clone()));
        assert_eq!(turn(&line, "_c_y-lock-0000000001", Rule::All), Turn::Gone);
    }

    #[test]
    fn contenders_of_all_libraries_stand_in_one_line() {
        let names = [
            "_c_a-lock-0000000003",
            "b__lock__0000000001",
            "x-77-0000000002",
            "_c_d-lock-0000000004",
        ];
        let line: Vec<_> = names.iter().map(|name| candidate(name)).collect();
        let ordered = in_order(line.clone());
        let ordered: Vec<_> = ordered
            .iter()
            .map(|candidate| candidate.name.as_str())
            .collect();
        assert_eq!(ordered, [names[1], names[2], names[0], names[3]]);
        assert_eq!(
            turn(&line, names[3], Rule::All),
            Turn::After(names[0].to_owned())
        );
    }

    #[test]
    fn readers_wait_for_writers_only() {
        let names = [
            "_c_a-__READ__0000000001",
            "_c_b-__WRIT__0000000002",
            "_c_c-__READ__0000000003",
            "_c_d-__READ__0000000004",
        ];
        let line: Vec<_> = names.iter().map(|name| candidate(name)).collect();
        assert_eq!(turn(&line, names[0], Rule::Writers), Turn::Ours);
        for reader in [names[2], names[3]] {
            assert_eq!(
                turn(&line, reader, Rule::Writers),
                Turn::After(names[1].to_owned())
            );
        }
        assert_eq!(
            turn(&line, names[1], Rule::All),
            Turn::After(names[0].to_owned())
        );
    }

    #[test]
    fn of_those_who_stand_behind_one_leader_one_has_its_turn() {
        let names = ["b", "a", "c"].map(|mark| format!("_c_{mark}-latch-0000000005"));
        let mut line: Vec<_> = names.iter().map(|name| candidate(name)).collect();
        line.push(candidate("_c_0-latch-0000000009"));
        let after = |me: usize| turn(&line, &line[me].name, Rule::All);
        assert_eq!(after(1), Turn::Ours);
        assert_eq!(after(0), Turn::After(names[1].clone()));
        assert_eq!(after(2), Turn::After(names[0].clone()));
        assert_eq!(after(3), Turn::After(names[2].clone()));
    }

    proptest! {
        #[test]
        fn exactly_one_has_its_turn_and_each_waits_for_another_also_across_the_wrap(
            start in any::<u32>(),
            steps in prop::collection::vec(1_u32..1000, 1..20),
            is_quorate in any::<bool>(),
        ) {
            let mut number = start;
            let mut numbers = Vec::new();
            for step in steps {
                numbers.push(match is_quorate {
                    true => i64::from(number),
                    false => i64::from(number.cast_signed()),
                });
                number = number.wrapping_add(step);
            }
            let line = line(&numbers);
            let mut waited_for = HashSet::new();
            for (index, own) in line.iter().enumerate() {
                match turn(&line, &own.name, Rule::All) {
                    Turn::Ours => prop_assert_eq!(index, 0),
                    Turn::After(other) => {
                        prop_assert_eq!(&other, &line[index - 1].name);
                        prop_assert!(waited_for.insert(other), "two wait for one");
                    }
                    Turn::Gone => prop_assert!(false, "it is there"),
                }
            }
            let mut shuffled = line.clone();
            shuffled.reverse();
            prop_assert_eq!(in_order(shuffled), line);
        }
    }
}
