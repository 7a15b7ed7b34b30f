//! What a client is told when its request is not done. Pure.

use crate::peer::CallError;
use god_proto::{
    answer::NO_CLUSTER,
    ids::NodeId,
    peer::Cause,
    v1::{Reason, Rejected},
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
    let message = "the node's memory for requests is taken up; ask again a little later";
    Rejected::later(Reason::Busy, message, 50)
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
