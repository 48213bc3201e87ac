//! Who holds a lock or leads, as the data of the recipe's directory says it.
//!
//! The keys are those of a Kubernetes `Lease`, with a few of our own. The znode's children are the
//! contenders; other libraries do not look at its data.

use quorate_client::Client;
use serde::{Deserialize, Serialize};

use crate::directory::Kind;

/// The JSON object in the directory's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) recipe: Kind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) holder_identity: String,
    /// The session's timeout, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease_duration_seconds: Option<u64>,
    /// RFC 3339, of the holder's wall clock: for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) acquire_time: Option<String>,
    /// When the record was last written by the holder. Not kept up: a write per heartbeat would tell
    /// nothing that the session does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renew_time: Option<String>,
    /// How often the holder has changed to another identity.
    #[serde(default)]
    pub(crate) leader_transitions: u64,
    /// Who is to lead whenever it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) preferred_holder: Option<String>,
    /// To whom leadership is being handed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) handing_over_to: Option<String>,
    /// The name of the holder's znode.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) node: String,
    /// The grant's token, where a later write of the record hides it: without it the token is the
    /// zxid of the record's last write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<u64>,
    /// What the leader has proclaimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    /// The holder has given it back; otherwise, if its znode is gone, it was lost.
    #[serde(default)]
    pub(crate) released: bool,
    /// Why it was given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// What later versions add is kept.
    #[serde(flatten)]
    pub(crate) rest: serde_json::Map<String, serde_json::Value>,
}

impl Record {
    /// Of a recipe that nobody has held yet.
    pub(crate) fn new(recipe: Kind) -> Self {
        Self {
            recipe,
            holder_identity: String::new(),
            lease_duration_seconds: None,
            acquire_time: None,
            renew_time: None,
            leader_transitions: 0,
            preferred_holder: None,
            handing_over_to: None,
            node: String::new(),
            token: None,
            value: None,
            released: true,
            reason: None,
            rest: serde_json::Map::new(),
        }
    }

    /// What the data says. Data that is no record, as other libraries leave it, is as good as none.
    pub(crate) fn parse(recipe: Kind, data: &[u8]) -> Self {
        let parsed: Result<Self, _> = serde_json::from_slice(data);
        parsed.unwrap_or_else(|_| Self::new(recipe))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Keys are strings and values are plain: there is nothing that could not be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The token of the grant, given the zxid of the record's last write.
    pub(crate) fn token(&self, mzxid: i64) -> u64 {
        self.token.unwrap_or(mzxid.unsigned_abs())
    }

    /// Whether somebody has been granted it and has not given it back.
    pub(crate) fn is_taken(&self) -> bool {
        !self.released && !self.node.is_empty()
    }
}

/// The client's wall clock, as people read it.
pub(crate) fn wall_time(client: &Client) -> String {
    humantime::format_rfc3339_micros(client.clock().wall()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_keys_of_a_kubernetes_lease_and_keeps_what_it_does_not_know() {
        let mut record = Record::new(Kind::Election);
        record.holder_identity = "pod-7".to_owned();
        record.lease_duration_seconds = Some(15);
        record.node = "latch-1".to_owned();
        record.released = false;
        record.rest.insert("zone".to_owned(), "eu".into());
        let bytes = record.to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("it is JSON");
        assert_eq!(value["recipe"], "election");
        assert_eq!(value["holderIdentity"], "pod-7");
        assert_eq!(value["leaseDurationSeconds"], 15);
        assert_eq!(value["leaderTransitions"], 0);
        assert_eq!(value["zone"], "eu");
        assert_eq!(Record::parse(Kind::Election, &bytes), record);
        assert!(record.is_taken());
    }

    #[test]
    fn data_that_is_no_record_is_as_good_as_none() {
        for data in [
            &b""[..],
            b"10.0.0.7",
            b"{}",
            b"[]",
            b"\xff",
            br#"{"recipe":"lock"}"#,
        ] {
            let record = Record::parse(Kind::Lock, data);
            assert!(!record.is_taken());
            assert_eq!(record.token(7), 7);
        }
    }
}
