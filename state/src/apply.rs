//! Applies committed commands to the replicated state.
//!
//! [`State::apply`] is the only way to change a [`State`]. Equal states given equal commands become
//! equal states: no clock, no randomness, no iteration over unordered maps. A refusal ([`OpError`])
//! is a result like any other; it uses up its zxid, so that replicas agree on numbering. What they
//! cannot agree on (a full disk, say) never reaches this module: the server stops instead.

use std::borrow::Cow;

use quorate_protocol::{Id, Password, Response, SessionId, Zxid, request};

use crate::applied::{Applied, Change, Reply, SessionEvent, SessionGrant};
use crate::canary::{Canary, planted};
use crate::command::{Action, Command, Origin, Rules, Write};
use crate::error::OpError;
use crate::sessions::{Inadmissible, Session};
use crate::state::State;
use crate::tree::{Author, Decisions, Plan, check_flags};

impl State {
    /// Applies one command. It never fails: a refusal is a reply.
    pub fn apply(&mut self, zxid: Zxid, command: Command) -> Applied {
        let Command {
            time_ms,
            origin,
            rules,
            action,
        } = command;
        self.last_zxid = zxid;
        match action {
            Action::OpenSession {
                timeout_ms,
                password,
            } => self.open_session(zxid, origin, timeout_ms, password),
            Action::AttachSession {
                session,
                password,
                timeout_ms,
            } => self.attach_session(zxid, origin, session, &password.0, timeout_ms),
            Action::CloseSession { session } => self.close_session(zxid, origin, session),
            Action::ExpireSession {
                session,
                attached_at,
            } => self.expire_session(zxid, session, attached_at),
            Action::Write {
                session,
                identities,
                write,
            } => {
                let terms = (zxid, time_ms, rules);
                self.write(terms, origin, session, &identities, write)
            }
            Action::Reap {
                paths,
                never_used_ms,
            } => self.reap(zxid, time_ms, &paths, never_used_ms),
            Action::Marker { .. } => told(Reply::Nobody),
            Action::Admit {
                server,
                incarnation,
            } => {
                self.incarnations.insert(server, incarnation);
                told(Reply::Nobody)
            }
        }
    }

    fn open_session(
        &mut self,
        zxid: Zxid,
        origin: Origin,
        timeout_ms: i32,
        password: Password,
    ) -> Applied {
        // No zxid comes twice, so neither does an id.
        let id = Session::id_of(origin.connection.server, zxid)
            .filter(|id| self.sessions.get(*id).is_none());
        match id {
            Some(id) => self.grant(Session::new(id, password, timeout_ms, origin, zxid), None),
            None => told(Reply::Session(None)),
        }
    }

    fn attach_session(
        &mut self,
        zxid: Zxid,
        origin: Origin,
        id: SessionId,
        password: &[u8],
        timeout_ms: i32,
    ) -> Applied {
        let known = self.sessions.get(id).copied();
        if known.is_none() && planted(Canary::SilentNewSession) {
            return self.open_session(zxid, origin, timeout_ms, Password::new([0; 16]));
        }
        let Some(before) = known.filter(|session| session.password().matches(password)) else {
            if known.is_some() && planted(Canary::WrongPasswordClosesSession) {
                return self.end_session(zxid, id, false, Reply::Session(None));
            }
            return told(Reply::Session(None));
        };
        if before.connection() == origin.connection {
            return told(Reply::Void);
        }
        self.grant(
            Session::new(id, before.password(), timeout_ms, origin, zxid),
            Some(before),
        )
    }

    /// Gives the session to its connection, and takes it from the one it had.
    fn grant(&mut self, session: Session, before: Option<Session>) -> Applied {
        self.sessions.put(session);
        Applied {
            reply: Reply::Session(Some(SessionGrant {
                session: session.id(),
                password: session.password(),
                timeout_ms: session.timeout_ms,
            })),
            changes: Vec::new(),
            session: Some(SessionEvent::Attached {
                session: session.id(),
                connection: session.connection(),
                timeout_ms: session.timeout_ms,
                attached_at: session.attached_at,
                from: before
                    .map(|before| before.connection())
                    .filter(|from| *from != session.connection()),
            }),
        }
    }

    fn close_session(&mut self, zxid: Zxid, origin: Origin, id: SessionId) -> Applied {
        match self.sessions.admit(id, origin) {
            Ok(()) => {}
            Err(Inadmissible::OutOfOrder) => return told(Reply::Void),
            Err(Inadmissible::Refused(error)) => return told(Reply::Write(Err(error))),
        }
        self.end_session(zxid, id, false, Reply::Write(Ok(Response::Empty)))
    }

    /// A session that was attached again after the leader lost patience lives on.
    fn expire_session(&mut self, zxid: Zxid, id: SessionId, attached_at: Zxid) -> Applied {
        match self.sessions.get(id) {
            Some(session)
                if session.attached_at == attached_at || planted(Canary::ExpiryByOldLeader) =>
            {
                self.end_session(zxid, id, true, Reply::Nobody)
            }
            _ => told(Reply::Nobody),
        }
    }

    fn end_session(&mut self, zxid: Zxid, id: SessionId, expired: bool, reply: Reply) -> Applied {
        let mut changes = Vec::new();
        self.tree.end_session(id, zxid, &mut changes);
        let session = self.sessions.remove(id);
        Applied {
            reply,
            changes,
            session: session.map(|session| SessionEvent::Ended {
                session: id,
                connection: session.connection(),
                expired,
            }),
        }
    }

    fn reap(&mut self, zxid: Zxid, time_ms: i64, paths: &[String], never_used_ms: i64) -> Applied {
        let mut changes = Vec::new();
        for path in paths {
            self.tree
                .reap(path, zxid, time_ms, never_used_ms, &mut changes);
        }
        Applied {
            reply: Reply::Nobody,
            changes,
            session: None,
        }
    }

    fn write(
        &mut self,
        (zxid, time_ms, rules): (Zxid, i64, Rules),
        origin: Origin,
        session: SessionId,
        identities: &[Id],
        write: Write,
    ) -> Applied {
        let admitted = match self.sessions.admit(session, origin) {
            Ok(()) => Ok(()),
            Err(Inadmissible::OutOfOrder) => return told(Reply::Void),
            Err(Inadmissible::Refused(error @ OpError::SessionMoved)) => {
                return told(Reply::Write(Err(error)));
            }
            Err(Inadmissible::Refused(OpError::SessionExpired))
                if planted(Canary::EphemeralAfterClose) =>
            {
                Ok(())
            }
            Err(Inadmissible::Refused(error)) => Err(error),
        };
        let decisions = Decisions::default();
        let author = Author {
            zxid,
            time_ms,
            session,
            identities,
            rules,
            decisions: &decisions,
        };
        let mut changes = Vec::new();
        let result = self.judge(&author, admitted, write, &mut changes);
        Applied {
            reply: Reply::Write(result),
            changes,
            session: None,
        }
    }

    /// What depends on the request alone is refused before the session is looked at, as ZooKeeper
    /// has it.
    fn judge(
        &mut self,
        author: &Author<'_>,
        admitted: Result<(), OpError>,
        write: Write,
        changes: &mut Vec<Change>,
    ) -> Result<Response<'static>, OpError> {
        let rules = author.rules;
        match write {
            Write::Create(r) => {
                let plan = Plan::of_create(r.flags, rules)?;
                admitted?;
                let (path, _) =
                    self.tree
                        .create(author, plan, r.path, r.data.as_ref(), &r.acl, changes)?;
                Ok(Response::Path(Cow::Owned(path)))
            }
            Write::Create2(r) => {
                let plan = Plan::of_create(r.flags, rules)?;
                admitted?;
                self.create2(author, plan, r, changes)
            }
            Write::CreateContainer(r) => {
                let plan = Plan::of_create_container(r.flags, rules)?;
                admitted?;
                self.create2(author, plan, r, changes)
            }
            Write::CreateTtl(r) => {
                let plan = Plan::of_create_ttl(r.flags, r.ttl_ms, rules)?;
                admitted?;
                let create = request::Create {
                    path: r.path,
                    data: r.data,
                    acl: r.acl,
                    flags: r.flags,
                };
                self.create2(author, plan, create, changes)
            }
            Write::Delete(r) => {
                admitted?;
                self.tree.delete(author, &r.path, r.version, changes)?;
                Ok(Response::Empty)
            }
            Write::SetData(r) => {
                admitted?;
                self.tree
                    .set_data(author, &r.path, r.data.as_ref(), r.version, changes)
                    .map(Response::Stat)
            }
            Write::SetAcl(r) => {
                admitted?;
                self.tree
                    .set_acl(author, &r.path, &r.acl, r.version)
                    .map(Response::Stat)
            }
            Write::Multi(ops) => {
                check_flags(&ops)?;
                admitted?;
                Ok(Response::Multi(self.tree.multi(author, ops, changes)))
            }
            Write::Reconfig(_) => Err(OpError::ReconfigDisabled),
        }
    }

    fn create2(
        &mut self,
        author: &Author<'_>,
        plan: Plan,
        r: request::Create,
        changes: &mut Vec<Change>,
    ) -> Result<Response<'static>, OpError> {
        let (path, id) =
            self.tree
                .create(author, plan, r.path, r.data.as_ref(), &r.acl, changes)?;
        Ok(Response::PathStat {
            path: Cow::Owned(path),
            stat: self.tree.nodes().stat(id),
        })
    }
}

/// A result that changed nothing.
fn told(reply: Reply) -> Applied {
    Applied {
        reply,
        changes: Vec::new(),
        session: None,
    }
}
