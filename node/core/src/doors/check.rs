//! Refuses what cannot be meant, before the node sees it, in sentences that name the problem.

use god_proto::{
    MAX_KEY, MAX_VALUE,
    v1::{
        Answer, Call, Consistency, GetReply, KeyRange, Level, Reason, Rejected, WriteReply, answer, call,
        consistency, get_reply, key_range, write_reply,
    },
};

/// What is wrong with a call, if anything is.
pub(super) fn call(call: &Call) -> Result<(), String> {
    match &call.call {
        Some(call::Call::Put(put)) => {
            own_key(&put.key)?;
            if put.value.len() > MAX_VALUE {
                return Err(format!("the value has {} bytes, the most is {MAX_VALUE}", put.value.len()));
            }
            level(put.consistency.as_ref())
        }
        Some(call::Call::Delete(delete)) => {
            own_key(&delete.key)?;
            level(delete.consistency.as_ref())
        }
        Some(call::Call::Get(get)) => {
            own_key(&get.key)?;
            level(get.consistency.as_ref())
        }
        None => {
            Err("the call is empty, or of a kind that this version does not know: put, delete or get"
                .to_owned())
        }
    }
}

/// What is wrong with the key of an entry.
fn own_key(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Err(format!("the key is empty; it has 1 to {MAX_KEY} bytes"));
    }
    key(bytes)
}

/// What is wrong with a key that only marks a place in the order.
pub(super) fn key(key: &[u8]) -> Result<(), String> {
    if key.len() > MAX_KEY {
        return Err(format!("the key has {} bytes, the most is {MAX_KEY}", key.len()));
    }
    Ok(())
}

/// What is wrong with the bounds of a range.
pub(super) fn range(range: Option<&KeyRange>) -> Result<(), String> {
    let Some(range) = range else { return Ok(()) };
    if let Some(key_range::Lower::From(bound) | key_range::Lower::After(bound)) = &range.lower {
        key(bound)?;
    }
    if let Some(key_range::Upper::Before(bound) | key_range::Upper::Through(bound)) = &range.upper {
        key(bound)?;
    }
    key(range.prefix.as_deref().unwrap_or_default())
}

/// What is wrong with a consistency.
pub(super) fn level(consistency: Option<&Consistency>) -> Result<(), String> {
    match consistency.and_then(|consistency| consistency.level.as_ref()) {
        Some(consistency::Level::Count(0)) => {
            Err("the consistency asks for 0 replicas; at least one must answer".to_owned())
        }
        Some(consistency::Level::Named(named)) if Level::try_from(*named).is_err() => {
            Err(format!("the consistency level {named} is not known to this version: 0 to 3"))
        }
        _ => Ok(()),
    }
}

/// A refusal for a reason in the request itself.
pub(super) fn invalid(message: String) -> Rejected {
    Rejected { reason: Reason::Invalid.into(), message, retry_after_ms: 0 }
}

/// The answer to a call that is refused. One of unknown kind is answered as a write: what it meant is not known.
pub(super) fn refusal(call: &Call, why: String) -> Answer {
    rejected(call, invalid(why))
}

/// The answer to a call for which the node has no memory (BUDGET).
pub(super) fn busy(call: &Call) -> Answer {
    let message = "the node's memory for requests is taken up; ask again a little later".to_owned();
    rejected(call, Rejected { reason: Reason::Busy.into(), message, retry_after_ms: 50 })
}

fn rejected(call: &Call, rejected: Rejected) -> Answer {
    let answer = match &call.call {
        Some(call::Call::Get(_)) => {
            answer::Answer::Get(GetReply { outcome: Some(get_reply::Outcome::Failed(rejected)) })
        }
        _ => answer::Answer::Write(WriteReply { outcome: Some(write_reply::Outcome::Rejected(rejected)) }),
    };
    Answer { answer: Some(answer) }
}

/// Why a call failed, if it did: the name of its reason.
pub(super) fn error_of(answer: &Answer) -> Option<&'static str> {
    let rejected = match answer.answer.as_ref()? {
        answer::Answer::Write(write) => match write.outcome.as_ref()? {
            write_reply::Outcome::Rejected(rejected) => rejected,
            write_reply::Outcome::Unknown(_) => return Some("UNKNOWN_OUTCOME"),
            write_reply::Outcome::Committed(_) => return None,
        },
        answer::Answer::Get(get) => match get.outcome.as_ref()? {
            get_reply::Outcome::Failed(rejected) => rejected,
            get_reply::Outcome::Found(_) | get_reply::Outcome::Missing(_) => return None,
        },
    };
    Some(rejected.reason().as_str_name())
}
