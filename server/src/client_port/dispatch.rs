//! Which way a request goes: answered here, or into the log.

use quorate_protocol::{ErrorCode, Request, Response, request};
use quorate_state::{Query, WatchKind, WatcherType, Write};

use super::Disconnect;
use crate::replica::Ask;

/// Where a request is answered.
#[derive(Debug)]
pub enum Route {
    /// By this server's replica, in the order of the connection's requests.
    Local(Ask),
    /// By whoever applies it, on every server alike.
    Log(Write),
    /// Through the log as well: the session ends.
    CloseSession,
    /// Here, but not before all that was committed when a majority was asked is applied here.
    Barrier(Response<'static>),
    /// Here, but not before a majority has confirmed that the leader knows the session to be alive.
    Touch(Response<'static>),
    /// By the connection, which then has proved more about its client.
    Auth(request::Auth),
    /// By the connection, which knows what its client has proved.
    WhoAmI,
}

/// The only place that knows where each kind of request goes.
pub fn route(request: Request) -> Route {
    match request {
        Request::Create(r) => Route::Log(Write::Create(r)),
        Request::Create2(r) => Route::Log(Write::Create2(r)),
        Request::CreateContainer(r) => Route::Log(Write::CreateContainer(r)),
        Request::CreateTtl(r) => Route::Log(Write::CreateTtl(r)),
        Request::Delete(r) => Route::Log(Write::Delete(r)),
        Request::SetData(r) => Route::Log(Write::SetData(r)),
        Request::SetAcl(r) => Route::Log(Write::SetAcl(r)),
        Request::Multi(ops) => Route::Log(Write::Multi(ops)),
        Request::Reconfig(r) => Route::Log(Write::Reconfig(r)),
        Request::CloseSession => Route::CloseSession,
        Request::Exists(r) => read(Query::Exists { path: r.path }, r.watch),
        Request::GetData(r) => read(Query::GetData { path: r.path }, r.watch),
        Request::GetChildren(r) => read(Query::GetChildren { path: r.path }, r.watch),
        Request::GetChildren2(r) => read(Query::GetChildren2 { path: r.path }, r.watch),
        Request::GetAcl(r) => read(Query::GetAcl { path: r.path }, false),
        Request::GetAllChildrenNumber(r) => {
            read(Query::GetAllChildrenNumber { path: r.path }, false)
        }
        Request::GetEphemerals(r) => read(Query::GetEphemerals { prefix: r.prefix }, false),
        Request::MultiRead(ops) => read(Query::MultiRead(ops), false),
        Request::Sync(r) => Route::Barrier(Response::Path(r.path.into())),
        Request::Ping => Route::Touch(Response::Empty),
        Request::PingWithQuestion => Route::Touch(Response::Proof),
        Request::WhoAmI => Route::WhoAmI,
        Request::Auth(r) => Route::Auth(r),
        Request::AddWatch(r) => match r.mode {
            0 => add_watch(r.path, WatchKind::Persistent),
            1 => add_watch(r.path, WatchKind::PersistentRecursive),
            _ => refused(ErrorCode::MarshallingError),
        },
        Request::CheckWatches(r) => match WatcherType::from_code(r.watcher_type) {
            Some(kind) => Route::Local(Ask::CheckWatches { path: r.path, kind }),
            None => refused(ErrorCode::MarshallingError),
        },
        Request::RemoveWatches(r) => match WatcherType::from_code(r.watcher_type) {
            Some(kind) => Route::Local(Ask::RemoveWatches { path: r.path, kind }),
            None => refused(ErrorCode::MarshallingError),
        },
        Request::SetWatches(r) => Route::Local(Ask::SetWatches(Box::new(r.into()))),
        Request::SetWatches2(r) => Route::Local(Ask::SetWatches(Box::new(r))),
        // Valid inside a multi only.
        Request::Check(_) => refused(ErrorCode::Unimplemented),
        // No SASL mechanism is offered, so none succeeds.
        Request::Sasl(_) => Route::Local(Ask::RefusedFinally(
            ErrorCode::AuthFailed,
            Disconnect::AuthFailed,
        )),
    }
}

fn read(query: Query, watch: bool) -> Route {
    Route::Local(Ask::Read { query, watch })
}

fn add_watch(path: String, kind: WatchKind) -> Route {
    Route::Local(Ask::AddWatch { path, kind })
}

fn refused(error: ErrorCode) -> Route {
    Route::Local(Ask::Refused(error))
}
