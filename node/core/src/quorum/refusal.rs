//! What a client is told when its request is not done. Pure.

use crate::{budget::NO_MEMORY, peer::CallError, version::ClockError};
use god_proto::{
    MAX_MESSAGE,
    answer::NO_CLUSTER,
    ids::NodeId,
    peer::Cause,
    position::PositionError,
    v1::{self, Answer, Reason, Rejected, Unknown, write_reply},
    version::Version,
};

/// What is told where there is no ring. It may come by itself.
pub(super) fn not_initialised() -> Rejected {
    Rejected::later(Reason::NotInitialised, NO_CLUSTER, 500)
}

pub(super) fn unreachable((is, needed): (u32, u32)) -> Rejected {
    Rejected::later(Reason::Unavailable, format!("{is} of {needed} replicas needed are reachable"), RETRY_MS)
}

pub(super) fn ring_moves() -> Rejected {
    Rejected::later(
        Reason::Unavailable,
        "the ring changed again and again while this was under way",
        RETRY_MS,
    )
}

/// What is told where there is no memory for what it takes (BUDGET).
pub(crate) fn no_memory() -> Rejected {
    Rejected::later(Reason::Busy, format!("{NO_MEMORY}; ask again a little later"), 50)
}

/// The keyspace was deleted on the way.
pub(super) fn keyspace_gone() -> Rejected {
    Rejected::of(Reason::NoSuchKeyspace, "the keyspace is gone")
}

/// Nothing of it was begun: it waited for another call of its batch.
pub(super) fn held_up() -> Rejected {
    let message = "what the batch has before it at its key was not done in time";
    Rejected::later(Reason::Deadline, message, RETRY_MS)
}

/// The keyspace could not be opened for writes (EMPTY-MOVES-FREE). Why.
pub(super) fn not_made_live(why: String) -> Rejected {
    Rejected::later(Reason::Unavailable, why, RETRY_MS)
}

/// The same, where nobody knows why.
pub(super) fn not_live_in_time() -> Rejected {
    let message = "the keyspace could not be opened for writes in time";
    Rejected::later(Reason::Deadline, message, RETRY_MS)
}

/// A read of a keyspace that holds nothing by the ring that is known (EMPTY-CONFIRMED). Why no more is known.
pub(super) fn not_known_empty(why: &str) -> Rejected {
    let message = format!(
        "the keyspace holds nothing by this node's ring, and whether that is the newest is open: {why}"
    );
    Rejected::later(Reason::Unavailable, message, RETRY_MS)
}

/// Reads beyond the bytes that one batch gets.
pub(super) fn enough_on_the_way(bytes: usize) -> Rejected {
    let message = format!("values of {} MiB are on their way; ask again for the rest", bytes >> 20);
    Rejected::later(Reason::Busy, message, 10)
}

/// A read's value found no room in the answer.
pub(super) fn too_large() -> Rejected {
    let message = format!("the values asked for together exceed {} MiB; ask for fewer", MAX_MESSAGE >> 20);
    Rejected::of(Reason::Invalid, message)
}

/// Too few can read what they hold at a position, or have compared it (DAMAGE-APART, LAPSED-IS-NO-VOTE).
pub(super) fn unreadable((can, needed): (u32, u32)) -> Rejected {
    let message = format!(
        "{can} of {needed} replicas needed could say what they hold of this key; another one's is damaged, or may lack \
         what its machine lost"
    );
    // Others may have been too slow to say.
    Rejected::later(Reason::Storage, message, RETRY_MS)
}

/// A position that a replica gave is no key's.
pub(super) fn undecodable(error: &PositionError) -> Rejected {
    Rejected::of(Reason::Storage, error.to_string())
}

/// A client saw a newer version than those that answered hold.
pub(super) fn stale(least: Version) -> Rejected {
    let message = format!("no replica that answered has version {least} or a newer one");
    Rejected::later(Reason::Stale, message, 100)
}

/// This node's clock cannot say whether a record's time is up.
pub(super) fn no_time_to_judge_by(error: &ClockError) -> Rejected {
    Rejected::later(Reason::Clock, format!("whether a key has expired: {error}"), 500)
}

/// This node's clock can stamp no version, or none above the one that is there.
pub(super) fn unstampable(error: &ClockError) -> Rejected {
    Rejected::of(Reason::Clock, error.to_string())
}

pub(super) fn not_stamped_in_time() -> Rejected {
    Rejected::of(Reason::Deadline, "no version could be stamped in time")
}

/// A write was stamped as often as it may be.
pub(super) fn superseded_each_time() -> Rejected {
    Rejected::of(Reason::Busy, "it met a newer write each time it was stamped")
}

/// Nobody would wait for what comes of a write.
pub(super) fn stopping() -> Rejected {
    Rejected::of(Reason::Unavailable, "this node is stopping")
}

/// Each key that a selection found was deleted, or expired, before it was read.
pub(super) fn gone_each_time() -> Rejected {
    Rejected::later(Reason::Busy, "each key that was found was gone before it could be read", 100)
}

/// No replica answered a selection.
pub(super) fn none_could_select(why: &str) -> Rejected {
    Rejected::later(Reason::Unavailable, format!("no replica could say which key it is: {why}"), RETRY_MS)
}

/// More was to be compared and repaired than one request may.
pub(super) fn differ_too_much() -> Rejected {
    Rejected::later(Reason::Unavailable, "the replicas differ in too many places", 1_000)
}

/// What was to be listed did not end.
pub(super) fn grew_too_large() -> Rejected {
    let message = "a range grew too large while it was listed; try again";
    Rejected::later(Reason::Unavailable, message, 1_000)
}

/// The answer to a call that nobody else answered.
pub(super) fn lost_track(read: bool) -> Answer {
    let message = "the coordinator lost track of the call, a defect of this program".to_owned();
    match read {
        true => Answer::refused(true, Rejected::of(Reason::Unspecified, message)),
        false => write_reply::Outcome::Unknown(Unknown { version: None, acks: 0, message }).into(),
    }
}

/// What is told of a write that some replicas may hold.
pub(super) fn unknown(version: Option<v1::Version>, acks: u32, needed: u32, because: &str) -> Unknown {
    // While an arc changes hands each of both sets must.
    let count = match acks < needed {
        true => format!("{acks} of {needed} replicas needed acknowledged"),
        false => format!("{acks} replicas acknowledged, and not enough of the old or new ones"),
    };
    Unknown { version, acks, message: format!("{count}; it may surface later{because}") }
}

/// When a client may try again where nothing says better.
const RETRY_MS: u32 = 200;

/// The gravest failure among replicas, for the sentence a client gets.
#[derive(Debug, Default)]
pub(super) struct Failures {
    worst: Option<(u8, NodeId, CallError)>,
}

impl Failures {
    pub(super) fn note(&mut self, node: NodeId, error: CallError) {
        let weight = weight(&error);
        if self.worst.as_ref().is_none_or(|(worst, ..)| weight > *worst) {
            self.worst = Some((weight, node, error));
        }
    }

    /// What they come to, where `is` of `needed` replicas answered.
    pub(super) fn refusal(&self, (is, needed): (u32, u32), out_of_time: bool) -> Rejected {
        let out_of_time = out_of_time || matches!(&self.worst, Some((_, _, CallError::TimedOut)));
        let in_time = if out_of_time { " in time" } else { "" };
        let message = format!("{is} of {needed} replicas needed answered{in_time}{}", self.because());
        let (reason, retry) = match self.worst.as_ref().map(|(_, _, error)| error) {
            Some(CallError::Refused(failure)) => {
                let reason = match failure.cause() {
                    Cause::Busy => Reason::Busy,
                    Cause::Clock => Reason::Clock,
                    Cause::DiskFull => Reason::DiskFull,
                    Cause::Storage | Cause::Corrupt => Reason::Storage,
                    Cause::Invalid => Reason::Invalid,
                    _ => Reason::Unavailable,
                };
                (reason, failure.retry_after_ms)
            }
            Some(CallError::QueueFull) => (Reason::Busy, 0),
            _ if out_of_time => (Reason::Deadline, 0),
            _ => (Reason::Unavailable, 0),
        };
        let again = matches!(reason, Reason::Busy | Reason::Unavailable | Reason::Deadline);
        Rejected::later(reason, message, if again && retry == 0 { RETRY_MS } else { retry })
    }

    /// What they come to, where `is` of `needed` replicas hold the newest record and the others could not be repaired.
    pub(super) fn unrepaired(&self, (is, needed): (u32, u32), late: bool) -> Rejected {
        let because = self.because();
        let message =
            format!("{is} of {needed} replicas needed hold the newest record, and repair failed{because}");
        Rejected::later(if late { Reason::Deadline } else { Reason::Unavailable }, message, RETRY_MS)
    }

    /// The gravest failure as the end of a sentence; empty where there is none.
    pub(super) fn because(&self) -> String {
        self.worst.as_ref().map_or_else(String::new, |(_, node, error)| format!("; node {node}: {error}"))
    }
}

/// What tells most about why a request failed.
fn weight(error: &CallError) -> u8 {
    match error {
        CallError::NotSent(_) => 1,
        CallError::TimedOut | CallError::Lost(_) => 2,
        CallError::QueueFull => 4,
        CallError::Refused(failure) => match failure.cause() {
            Cause::Busy => 5,
            Cause::DiskFull => 6,
            Cause::Storage | Cause::Corrupt => 7,
            Cause::Clock => 8,
            Cause::Invalid => 9,
            _ => 3,
        },
    }
}
