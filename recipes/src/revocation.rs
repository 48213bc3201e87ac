//! Asking a holder to give back what it holds.
//!
//! As Curator does it: the data of the holder's znode becomes `__REVOKE__`. With us a reason may
//! follow, after a space. What else may be asked of a leader: to hand over, and to whom.

use crate::lease::StopReason;

const REVOKE: &str = "__REVOKE__";
const TRANSFER: &str = "__TRANSFER__";
const TAKE_OVER: &str = "__TAKE_OVER__";

/// The reason with which a holder's data asks it to give back, if it does.
pub(crate) fn revoked(data: &[u8]) -> Option<StopReason> {
    let reason = after(std::str::from_utf8(data).ok()?, REVOKE)?.to_owned();
    Some(StopReason::Revoked { reason })
}

/// The candidate to whom a leader's data asks it to hand over, if it does.
pub(crate) fn transferred(data: &[u8]) -> Option<String> {
    let to = after(std::str::from_utf8(data).ok()?, TRANSFER)?;
    (!to.is_empty()).then(|| to.to_owned())
}

/// The znode of the leader whose place a candidate's data asks it to take, if it does.
pub(crate) fn takes_over_from(data: &[u8]) -> Option<String> {
    let leader = after(std::str::from_utf8(data).ok()?, TAKE_OVER)?;
    (!leader.is_empty()).then(|| leader.to_owned())
}

/// Whether a contender's data is something that it is asked, and not what it calls itself.
pub(crate) fn is_asked(data: &str) -> bool {
    let words = [REVOKE, TRANSFER, TAKE_OVER];
    words.iter().any(|word| after(data, word).is_some())
}

fn after<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(what)?;
    match rest.strip_prefix(' ') {
        Some(rest) => Some(rest),
        None => rest.is_empty().then_some(""),
    }
}

/// The data that asks a holder to give back. A holder of Curator's understands it only without a
/// reason.
pub(crate) fn revoke(holder: &str, reason: &str) -> String {
    match is_curators(holder) || reason.is_empty() {
        true => REVOKE.to_owned(),
        false => format!("{REVOKE} {reason}"),
    }
}

/// The data that asks a leader to hand over to a candidate.
pub(crate) fn transfer(to: &str) -> String {
    format!("{TRANSFER} {to}")
}

/// The data that asks a candidate to stand behind a leader, before all others.
pub(crate) fn take_over(leader: &str) -> String {
    format!("{TAKE_OVER} {leader}")
}

/// Whether a contender's name was given by us.
pub(crate) fn is_ours(name: &str) -> bool {
    let mark = name
        .strip_prefix("_c_")
        .and_then(|rest| rest.split_once('-'));
    mark.is_some_and(|(mark, _)| {
        mark.len() == 32 && mark.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// Whether a contender's name was given by Curator: its mark is a UUID with hyphens, ours has none.
pub(crate) fn is_curators(name: &str) -> bool {
    let mark = name.strip_prefix("_c_").and_then(|rest| rest.get(..36));
    mark.is_some_and(|mark| mark.bytes().filter(|byte| *byte == b'-').count() == 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_to_those_who_understand_it() {
        let ours = "_c_00112233445566778899aabbccddeeff-lock-0000000007";
        let reason = "the disk is full".to_owned();
        let data = revoke(ours, &reason);
        assert_eq!(
            revoked(data.as_bytes()),
            Some(StopReason::Revoked { reason })
        );
        let curators = "_c_0b9a3c55-7c4b-4e0e-8c8a-111111111111-lock-0000000007";
        assert_eq!(revoke(curators, "the disk is full"), "__REVOKE__");
        assert!(is_ours(ours) && !is_curators(ours));
        assert!(is_curators(curators) && !is_ours(curators));
        let no_reason = StopReason::Revoked {
            reason: String::new(),
        };
        assert_eq!(revoked(b"__REVOKE__"), Some(no_reason));
    }

    #[test]
    fn an_identity_asks_for_nothing() {
        for data in [
            &b""[..],
            b"pod-7",
            b"__REVOKE__D",
            b"__TRANSFER__",
            b"\xff",
            b"10.0.0.7",
        ] {
            assert_eq!(revoked(data), None);
            assert_eq!(transferred(data), None);
            assert_eq!(takes_over_from(data), None);
        }
        let asked = transfer("pod 8");
        assert_eq!(transferred(asked.as_bytes()).as_deref(), Some("pod 8"));
        let asked = take_over("latch-1");
        assert_eq!(
            takes_over_from(asked.as_bytes()).as_deref(),
            Some("latch-1")
        );
    }
}
