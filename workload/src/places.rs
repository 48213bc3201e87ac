//! Which znodes a run is about: a few hot ones in each of several subtrees that have nothing to do
//! with each other, so that a search for an order can take them one by one.

use quorate_checker::history::{CreateKind, Data, Path, Request};
use quorate_protocol::{AclEntry, Id, Perms};

/// What each client writes to in the end, to show that it can.
const PROGRESS: &str = "/progress";
/// Containers and znodes with a time to live: servers delete them, so nobody can search for an order.
const REAPED: &str = "/reaped";
/// Of sessions that are left by the dozen.
pub(crate) const DESERTED: &str = "/deserted";
const LOCK_HOLDERS: &str = "e";
const NUMBERED: &str = "q";

pub(crate) const REGISTERS: u64 = 3;
pub(crate) const NODES: u64 = 3;
pub(crate) const SECRETS: u64 = 2;
/// Who can prove something.
pub(crate) const USERS: [&str; 2] = ["ada:lovelace", "alan:turing"];

/// The names of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) subtrees: u64,
}

impl Places {
    pub(crate) fn top(subtree: u64) -> Path {
        format!("/s{subtree}").into()
    }

    /// Always there; set all the time.
    pub(crate) fn register(subtree: u64, index: u64) -> Path {
        format!("/s{subtree}/r{index}").into()
    }

    /// Comes and goes.
    pub(crate) fn node(subtree: u64, index: u64) -> Path {
        format!("/s{subtree}/n{index}").into()
    }

    pub(crate) fn child_of_node(subtree: u64, index: u64) -> Path {
        format!("/s{subtree}/n{index}/x").into()
    }

    /// Not for everybody.
    pub(crate) fn secret(subtree: u64, index: u64) -> Path {
        format!("/s{subtree}/a{index}").into()
    }

    /// Parent of numbered znodes.
    pub(crate) fn numbered(subtree: u64) -> Path {
        format!("/s{subtree}/{NUMBERED}").into()
    }

    /// Parent of ephemerals.
    pub(crate) fn holders(subtree: u64) -> Path {
        format!("/s{subtree}/{LOCK_HOLDERS}").into()
    }

    /// An ephemeral that several clients want.
    pub(crate) fn held(subtree: u64, index: u64) -> Path {
        format!("/s{subtree}/{LOCK_HOLDERS}/k{index}").into()
    }

    pub(crate) fn reaped(name: &str) -> Path {
        format!("{REAPED}/{name}").into()
    }

    pub(crate) fn progress(client: u32) -> Path {
        format!("{PROGRESS}/c{client}").into()
    }

    /// What has to be there before anything else is done.
    pub(crate) fn set_up(self, clients: &[u32]) -> Vec<Request> {
        let mut paths: Vec<Path> = [PROGRESS, REAPED, DESERTED].map(Path::from).into();
        paths.extend(clients.iter().map(|client| Self::progress(*client)));
        let mut secrets = Vec::new();
        for subtree in 0..self.subtrees {
            paths.extend([
                Self::top(subtree),
                Self::numbered(subtree),
                Self::holders(subtree),
            ]);
            paths.extend((0..REGISTERS).map(|index| Self::register(subtree, index)));
            secrets.extend((0..SECRETS).map(|index| Self::secret(subtree, index)));
        }
        let create = |path: Path, acl| Request::Create {
            data: Data::from(format!("set up {path}")),
            path,
            kind: CreateKind::Persistent,
            acl,
            with_stat: false,
        };
        paths
            .into_iter()
            .map(|path| create(path, None))
            .chain(secrets.into_iter().map(|path| create(path, Some(acl(1)))))
            .collect()
    }
}

/// ACLs that somebody with all of [`USERS`] can always read and change; 0 is open.
pub(crate) fn acl(index: u64) -> Vec<AclEntry> {
    let user = |perms, user: &str| {
        let id = Id::digest(user.as_bytes());
        AclEntry::new(perms, &id.scheme, &id.id)
    };
    let [first, second] = USERS;
    match index {
        0 => vec![AclEntry::open()],
        1 => vec![user(Perms::ALL, first)],
        2 => vec![user(Perms::ALL, first), user(Perms::READ, second)],
        3 => vec![
            user(Perms::ALL, second),
            AclEntry::new(Perms::READ, "world", "anyone"),
        ],
        _ => vec![
            user(Perms::ALL, second),
            user(Perms::WRITE.union(Perms::READ), first),
        ],
    }
}

pub(crate) const ACLS: u64 = 5;
