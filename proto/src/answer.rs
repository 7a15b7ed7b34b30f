//! Answers and refusals, in the shapes of the protocol.

use crate::v1::{Answer, Call, GetReply, Reason, Rejected, WriteReply, answer, call, get_reply, write_reply};

/// Why a node that has no ring serves nobody, with what to do.
pub const NO_CLUSTER: &str =
    "this node is in no cluster yet; run `god init` on one node, start the others with --seed";

/// How the reason begins why a node is not ready whose storage failed: it decides nothing, and does not mend by itself.
pub const STORAGE_FAILED: &str = "storage failed";

impl Rejected {
    /// A refusal after which the same request makes no sense.
    pub fn of(reason: Reason, message: impl Into<String>) -> Rejected {
        Rejected::later(reason, message, 0)
    }

    /// A refusal after which the same request makes sense in so many milliseconds; 0: nothing is known about when.
    pub fn later(reason: Reason, message: impl Into<String>, retry_after_ms: u32) -> Rejected {
        Rejected { reason: reason.into(), message: message.into(), retry_after_ms }
    }
}

impl Call {
    /// Whether it is answered like a read. What a call of unknown kind meant is not known: it is answered like a write.
    pub fn is_read(&self) -> bool {
        matches!(self.call, Some(call::Call::Get(_)))
    }

    /// Bytes of its key and value, which are what it keeps in memory, about.
    pub fn payload_bytes(&self) -> usize {
        match &self.call {
            Some(call::Call::Put(put)) => put.key.len() + put.value.len(),
            Some(call::Call::Delete(delete)) => delete.key.len(),
            Some(call::Call::Get(get)) => get.key.len(),
            None => 0,
        }
    }
}

impl From<write_reply::Outcome> for Answer {
    fn from(outcome: write_reply::Outcome) -> Answer {
        Answer { answer: Some(answer::Answer::Write(WriteReply { outcome: Some(outcome) })) }
    }
}

impl From<get_reply::Outcome> for Answer {
    fn from(outcome: get_reply::Outcome) -> Answer {
        Answer { answer: Some(answer::Answer::Get(GetReply { outcome: Some(outcome) })) }
    }
}

impl Answer {
    /// The refusal of a read, or of a write.
    pub fn refused(read: bool, why: Rejected) -> Answer {
        match read {
            true => get_reply::Outcome::Failed(why).into(),
            false => write_reply::Outcome::Rejected(why).into(),
        }
    }

    /// Why the call failed, if it did: the name of the reason, or `UNKNOWN_OUTCOME`.
    pub fn failure(&self) -> Option<&'static str> {
        let rejected = match self.answer.as_ref()? {
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
}
