//! Between the engine's types and the ones that travel.
//!
//! What comes from a peer is checked here: the engine takes some impossible requests for a reason to
//! abort.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::log_store::{to_entry, to_log_entry};
use super::types::{CommittedLeaderId, LeaderId, LogId, TypeConfig, Vote};
use crate::peer_port::ServiceError;
use crate::peer_port::wire::{
    Append, Appended, Ballot, Place, SentEntry, Transfer, Transferred, VoteAsked, Voted,
};
use crate::storage::log::{EntryId, LogEntry};

pub(super) fn place(id: LogId) -> Place {
    Place {
        term: id.leader_id.term,
        index: id.index,
    }
}

pub(super) fn log_id(place: Place) -> LogId {
    LogId {
        leader_id: CommittedLeaderId::from(place.term),
        index: place.index,
    }
}

pub(super) fn ballot(vote: &Vote) -> Ballot {
    Ballot {
        term: vote.leader_id.term,
        server: vote.leader_id.voted_for,
        won: vote.committed,
    }
}

pub(super) fn vote(ballot: Ballot) -> Vote {
    Vote {
        leader_id: LeaderId {
            term: ballot.term,
            voted_for: ballot.server,
        },
        committed: ballot.won,
    }
}

/// # Errors
///
/// An entry that does not encode, which none does.
pub(super) fn append(request: AppendEntriesRequest<TypeConfig>) -> Result<Append, std::io::Error> {
    let entries = request
        .entries
        .into_iter()
        .map(|entry| {
            let entry = to_log_entry(entry)?;
            Ok(SentEntry {
                term: entry.id.term,
                kind: entry.kind,
                payload: entry.payload,
            })
        })
        .collect::<Result<_, std::io::Error>>()?;
    Ok(Append {
        leader: ballot(&request.vote),
        previous: request.prev_log_id.map(place),
        committed: request.leader_commit.map(place),
        entries,
    })
}

/// # Errors
///
/// [`ServiceError`]: no leader sends such a request.
pub(super) fn append_request(
    append: Append,
) -> Result<AppendEntriesRequest<TypeConfig>, ServiceError> {
    let mut last_term = append.previous.map_or(0, |place| place.term);
    let first = append.previous.map_or(0, |place| place.index + 1);
    let mut entries = Vec::with_capacity(append.entries.len());
    for (index, sent) in (first..).zip(append.entries) {
        let SentEntry {
            term,
            kind,
            payload,
        } = sent;
        if term < last_term || term > append.leader.term {
            return Err(impossible("entries whose terms do not rise"));
        }
        last_term = term;
        let id = EntryId { term, index };
        let entry = to_entry(LogEntry { id, kind, payload })
            .map_err(|error| ServiceError(error.to_string()))?;
        entries.push(entry);
    }
    Ok(AppendEntriesRequest {
        vote: leader_vote(append.leader)?,
        prev_log_id: append.previous.map(log_id),
        entries,
        leader_commit: append.committed.map(log_id),
    })
}

/// The vote of a leader: one that has won.
///
/// # Errors
///
/// [`ServiceError`]: it has not.
pub(super) fn leader_vote(leader: Ballot) -> Result<Vote, ServiceError> {
    if leader.won {
        Ok(vote(leader))
    } else {
        Err(impossible("entries of one that does not lead"))
    }
}

fn impossible(what: &str) -> ServiceError {
    ServiceError(format!("{what}: no server of this version sends that"))
}

pub(super) fn appended(response: &AppendEntriesResponse<TypeConfig>) -> Appended {
    match *response {
        AppendEntriesResponse::Success => Appended::All,
        AppendEntriesResponse::PartialSuccess(last) => Appended::UpTo(last.map(place)),
        AppendEntriesResponse::Conflict => Appended::Conflict,
        AppendEntriesResponse::HigherVote(ref vote) => Appended::Outvoted(ballot(vote)),
    }
}

pub(super) fn append_response(appended: Appended) -> AppendEntriesResponse<TypeConfig> {
    match appended {
        Appended::All => AppendEntriesResponse::Success,
        Appended::UpTo(last) => AppendEntriesResponse::PartialSuccess(last.map(log_id)),
        Appended::Conflict => AppendEntriesResponse::Conflict,
        Appended::Outvoted(ballot) => AppendEntriesResponse::HigherVote(vote(ballot)),
    }
}

pub(super) fn vote_asked(request: &VoteRequest<TypeConfig>) -> VoteAsked {
    VoteAsked {
        candidate: ballot(&request.vote),
        last: request.last_log_id.map(place),
        transfer: request.leadership_transfer,
    }
}

pub(super) fn vote_request(asked: VoteAsked) -> VoteRequest<TypeConfig> {
    let mut request = VoteRequest::new(vote(asked.candidate), asked.last.map(log_id));
    request.leadership_transfer = asked.transfer;
    request
}

pub(super) fn voted(response: &VoteResponse<TypeConfig>) -> Voted {
    Voted {
        ballot: ballot(&response.vote),
        granted: response.vote_granted,
        last: response.last_log_id.map(place),
    }
}

pub(super) fn vote_response(voted: Voted) -> VoteResponse<TypeConfig> {
    VoteResponse::new(vote(voted.ballot), voted.last.map(log_id), voted.granted)
}

pub(super) fn transfer(request: &TransferLeaderRequest<TypeConfig>) -> Transfer {
    Transfer {
        leader: ballot(request.from_leader()),
        to: *request.to_node_id(),
        last: request.last_log_id().copied().map(place),
    }
}

pub(super) fn transfer_request(transfer: Transfer) -> TransferLeaderRequest<TypeConfig> {
    TransferLeaderRequest::new(
        vote(transfer.leader),
        transfer.to,
        transfer.last.map(log_id),
    )
}

pub(super) fn transferred(response: &TransferLeaderResponse<TypeConfig>) -> Transferred {
    match response {
        Ok(()) => Transferred::Accepted,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => Transferred::VoteChanged {
            expected: ballot(expected),
            actual: ballot(actual),
        },
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Transferred::NotFlushed {
            expected: expected.map(place),
            actual: actual.map(place),
        },
    }
}

pub(super) fn transfer_response(transferred: Transferred) -> TransferLeaderResponse<TypeConfig> {
    match transferred {
        Transferred::Accepted => Ok(()),
        Transferred::VoteChanged { expected, actual } => Err(TransferLeaderError::VoteChanged {
            expected: vote(expected),
            actual: vote(actual),
        }),
        Transferred::NotFlushed { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
            expected: expected.map(log_id),
            actual: actual.map(log_id),
        }),
    }
}
