//! The values requests and replies are made of: valid once constructed.

mod acl;
mod create_mode;
mod path;
mod session_id;
mod stat;
mod zxid;

pub use acl::{ACL_ENTRIES_MAX, Acl, AclEntry, Id, InvalidAcl, Perms, digest_id, ip_matches};
pub use create_mode::{BadFlags, CreateMode, TTL_MAX_MS};
pub use path::{PathError, ZnodePath};
pub use session_id::{Password, SessionId};
pub use stat::Stat;
pub use zxid::{Xid, Zxid};
