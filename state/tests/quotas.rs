//! What quotas count is what is there.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_protocol::multi::MultiOp;
use quorate_protocol::request::{Create, Delete, SetData};
use quorate_protocol::{AclEntry, Password, Response, SessionId, Zxid};
use quorate_state::{
    Action, Command, Connection, Origin, Query, Reader, Reply, Rules, State, Write,
};

struct World {
    state: State,
    session: SessionId,
    sequence: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::new(),
            session: SessionId::new(1).expect("not zero"),
            sequence: 0,
        };
        let opened = world.apply(Action::OpenSession {
            timeout_ms: 1000,
            password: Password::default(),
        });
        let Reply::Session(Some(grant)) = opened else {
            panic!("a session opens");
        };
        world.session = grant.session;
        for path in ["/zookeeper/quota/q", "/zookeeper/quota/q/zookeeper_limits"] {
            world.multi(vec![MultiOp::Create(create(path, 0))]);
        }
        let stats = create("/zookeeper/quota/q/zookeeper_stats", 0);
        world.multi(vec![MultiOp::Create(stats)]);
        world
    }

    fn multi(&mut self, ops: Vec<MultiOp>) {
        let write = Write::Multi(ops);
        self.apply(Action::Write {
            session: self.session,
            identities: Arc::new([]),
            write,
        });
    }

    fn apply(&mut self, action: Action) -> Reply {
        let zxid = Zxid(self.state.last_zxid().0 + 1);
        let origin = Origin {
            connection: Connection {
                server: 1,
                number: 1,
            },
            sequence: self.sequence,
        };
        self.sequence += 1;
        let command = Command {
            time_ms: zxid.0,
            origin,
            rules: Rules::default(),
            action,
        };
        self.state.apply(zxid, command).reply
    }

    fn stats(&self) -> String {
        let data = self.data("/zookeeper/quota/q/zookeeper_stats");
        String::from_utf8(data.expect("the stats are there")).expect("the stats are text")
    }

    fn data(&self, path: &str) -> Option<Vec<u8>> {
        match self.read(&Query::GetData {
            path: path.to_owned(),
        }) {
            Some(Response::Data { data, .. }) => Some(data.unwrap_or_default().into_owned()),
            _ => None,
        }
    }

    fn read(&self, query: &Query) -> Option<Response<'_>> {
        let reader = Reader {
            identities: &[],
            session: self.session,
            skip_acl: true,
        };
        self.state.read(query, &reader).ok()
    }

    fn count(&self, path: &str) -> (usize, usize) {
        let Some(data) = self.data(path) else {
            return (0, 0);
        };
        let Some(Response::Strings(children)) = self.read(&Query::GetChildren {
            path: path.to_owned(),
        }) else {
            return (0, 0);
        };
        children
            .iter()
            .map(|child| self.count(&format!("{path}/{child}")))
            .fold((1, data.len()), |(n, bytes), (m, more)| {
                (n + m, bytes + more)
            })
    }
}

fn create(path: &str, len: usize) -> Create {
    Create {
        path: path.to_owned(),
        data: Some(vec![b'x'; len].into()),
        acl: vec![AclEntry::open()],
        flags: 0,
    }
}

fn op() -> BoxedStrategy<MultiOp> {
    let path = prop_oneof![
        Just("/q"),
        Just("/q/a"),
        Just("/q/b"),
        Just("/q/a/c"),
        Just("/qq"),
    ]
    .boxed();
    prop_oneof![
        (path.clone(), 0..50usize).prop_map(|(path, len)| MultiOp::Create(create(path, len))),
        path.clone().prop_map(|path| MultiOp::Delete(Delete {
            path: path.to_owned(),
            version: -1
        })),
        (path, 0..50usize).prop_map(|(path, len)| MultiOp::SetData(SetData {
            path: path.to_owned(),
            data: Some(Bytes::from(vec![b'y'; len])),
            version: -1,
        })),
    ]
    .boxed()
}

proptest! {
    #[test]
    fn what_a_quota_counts_is_what_is_there(
        multis in prop::collection::vec(prop::collection::vec(op(), 1..4), 1..40)
    ) {
        let mut world = World::new();
        for ops in multis {
            world.multi(ops);
            let (count, bytes) = world.count("/q");
            prop_assert_eq!(world.stats(), format!("count={count},bytes={bytes}"));
        }
    }
}
