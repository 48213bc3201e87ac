//! What a server says: answers in the order of the requests, and what stands outside that order.

use std::sync::Arc;

use bytes::Bytes;
use quorate_protocol::{ErrorCode, EventType, OpCode, ReplyHeader, WatcherEvent, Xid, Zxid, jute};

use super::{Broken, Core};
use crate::error::{Error, Reason, Target};
use crate::session::line::{Answer, Over, Released};
use crate::watch::Event;
use crate::watch::registry::Kind;

/// The length of a reply header on the wire.
const HEADER_BYTES: usize = 16;

impl Core {
    pub(super) fn frame(
        &mut self,
        mut frame: Bytes,
        released: &mut Released,
    ) -> Result<(), Broken> {
        let header: ReplyHeader = frame
            .get(..HEADER_BYTES)
            .and_then(|header| jute::decode(header).ok())
            .ok_or_else(|| Broken::Protocol("a reply without a header".to_owned()))?;
        let body = frame.split_off(HEADER_BYTES);
        match header.xid {
            Xid::NOTIFICATION => return self.notified(header, &body),
            Xid::PING => return self.ponged(&body),
            Xid::AUTH => return self.authenticated(header),
            Xid::SET_WATCHES => return self.watches_set(header),
            _ => {}
        }
        match self.in_flight.front() {
            Some(due) if due.xid == header.xid => {}
            Some(due) => {
                let what = format!("answer {} where {} was due", header.xid.0, due.xid.0);
                return Err(Broken::Protocol(what));
            }
            None if self.close_xid == Some(header.xid) => return Err(Broken::Over(Over::Closed)),
            None => {
                let what = "an answer that nobody asked for".to_owned();
                return Err(Broken::Protocol(what));
            }
        }
        self.last_zxid = self.last_zxid.max(header.zxid);
        if header.err == ErrorCode::SessionMoved.code() {
            // Not applied, and nothing else will be on this connection.
            let what = "the session has moved to another connection".to_owned();
            return Err(Broken::Protocol(what));
        }
        let Some(flight) = self.in_flight.pop_front() else {
            return Ok(());
        };
        released.add(&flight.call);
        if header.err == ErrorCode::SessionExpired.code() {
            flight.call.answer_over(Over::Expired);
            return Err(Broken::Over(Over::Expired));
        }
        if flight.proves && header.err == 0 {
            self.lease.prove_reached(flight.sent);
        }
        let mut call = flight.call;
        if let Some(mut interest) = call.interest.take() {
            let path = Arc::clone(&interest.watcher.path);
            let is_unwanted = interest.is_cancelled || call.is_abandoned();
            let is_absent = call.op == OpCode::Exists && header.err == ErrorCode::NoNode.code();
            if is_absent {
                interest.watcher.kind = Kind::Exist;
            }
            if header.err == 0 || is_absent {
                let watcher = interest.watcher.clone();
                self.registry.add(interest);
                if is_unwanted {
                    self.unwatch(&watcher);
                }
            }
            self.unwatch_stale(&path);
        }
        let repeated = call.was_sent;
        if header.err == 0 {
            call.answer(Ok(Answer { body, repeated }));
            return Ok(());
        }
        let reason = Reason::from_code(header.err);
        let target = call.target.clone();
        call.answer(Err(Error::Refused {
            target,
            reason,
            repeated,
        }));
        Ok(())
    }

    fn notified(&mut self, header: ReplyHeader, body: &[u8]) -> Result<(), Broken> {
        let event: WatcherEvent<'_> = jute::decode(body)
            .map_err(|error| Broken::Protocol(format!("an event that is none ({error})")))?;
        // A later release may send other types.
        let Some(kind) = EventType::from_code(event.event_type) else {
            tracing::debug!(code = event.event_type, "an event of an unknown type");
            return Ok(());
        };
        let event = Event {
            kind,
            path: event.path.into_owned(),
            zxid: Some(header.zxid).filter(|zxid| *zxid > Zxid::ZERO),
        };
        self.registry.fire(&event, self.last_zxid);
        Ok(())
    }

    fn ponged(&mut self, body: &[u8]) -> Result<(), Broken> {
        let Some(up) = &mut self.up else {
            return Ok(());
        };
        let Some(ping) = up.pings.pop_front() else {
            return Err(Broken::Protocol("an answer to no ping".to_owned()));
        };
        // Servers answer in order: a request that was passed over will never be answered.
        if self
            .in_flight
            .front()
            .is_some_and(|flight| flight.number <= ping.behind)
        {
            return Err(Broken::Protocol(
                "a request was left without an answer".to_owned(),
            ));
        }
        up.proves_pings |= !body.is_empty();
        if up.proves_pings {
            self.lease.prove(ping.sent);
        }
        Ok(())
    }

    fn authenticated(&mut self, header: ReplyHeader) -> Result<(), Broken> {
        let Some(up) = &mut self.up else {
            return Ok(());
        };
        let reply = up.auths.pop_front().flatten();
        if header.err == 0 {
            if let Some(reply) = reply {
                reply.send(Ok(())).ok();
            }
            return Ok(());
        }
        if let Some(reply) = reply {
            let target = Target::write("authenticate", "");
            reply
                .send(Err(Error::AuthFailed { target, sent: true }))
                .ok();
        }
        Err(Broken::Over(Over::AuthFailed))
    }

    fn watches_set(&mut self, header: ReplyHeader) -> Result<(), Broken> {
        let Some(up) = &mut self.up else {
            return Ok(());
        };
        if up.set_watches == 0 {
            return Err(Broken::Protocol("an answer to no setWatches".to_owned()));
        }
        up.set_watches -= 1;
        if header.err != 0 {
            let reason = Reason::from_code(header.err);
            return Err(Broken::Protocol(format!(
                "watches were not set again ({reason})"
            )));
        }
        Ok(())
    }
}
