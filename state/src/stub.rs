#![allow(dead_code, unused_variables, missing_docs)]
use crate::*;
use quorate_protocol::multi::ReadOp;
use quorate_protocol::*;
use std::sync::Arc;
#[derive(Debug, Clone)]
pub struct State {
    z: Zxid,
}
pub struct Session {
    pub timeout_ms: i32,
    pub attached_at: Zxid,
}
pub enum Query {
    Exists { path: String },
    GetData { path: String },
    GetAcl { path: String },
    GetChildren { path: String },
    GetChildren2 { path: String },
    GetAllChildrenNumber { path: String },
    GetEphemerals { prefix: Option<String> },
    MultiRead(Vec<ReadOp>),
}
impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
pub struct Reader<'a> {
    pub identities: &'a [Id],
    pub session: SessionId,
    pub skip_acl: bool,
}
pub fn permits(acl: &[Acl], wanted: Perms, identities: &[Id]) -> bool {
    true
}
#[derive(Clone)]
pub struct StateView;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct SnapshotError;
impl State {
    pub fn new() -> Self {
        State { z: Zxid(0) }
    }
    pub fn apply(&mut self, zxid: Zxid, command: Command) -> Applied {
        panic!()
    }
    pub fn skip(&mut self, zxid: Zxid) {}
    pub fn last_zxid(&self) -> Zxid {
        self.z
    }
    pub fn read(&self, query: &Query, reader: &Reader<'_>) -> Result<Response<'_>, OpError> {
        panic!()
    }
    pub fn node_acl(&self, path: &str) -> Option<Arc<[Acl]>> {
        None
    }
    pub fn stat(&self, path: &str) -> Option<Stat> {
        None
    }
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        None
    }
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        std::iter::empty()
    }
    pub fn ephemerals(&self, id: SessionId) -> impl Iterator<Item = String> {
        std::iter::empty()
    }
    pub fn reapable(&self, now_ms: i64, never_used_ms: i64, max: usize) -> Vec<String> {
        vec![]
    }
    pub fn digest(&self) -> u64 {
        0
    }
    pub fn node_count(&self) -> u64 {
        0
    }
    pub fn ephemeral_count(&self) -> u64 {
        0
    }
    pub fn session_count(&self) -> u64 {
        0
    }
    pub fn approximate_data_size(&self) -> u64 {
        0
    }
    pub fn view(&self) -> StateView {
        StateView
    }
    pub fn load(reader: &mut impl std::io::Read) -> Result<State, SnapshotError> {
        Err(SnapshotError)
    }
}
impl StateView {
    pub fn write(&self, out: &mut impl std::io::Write) -> Result<(), SnapshotError> {
        Ok(())
    }
}
