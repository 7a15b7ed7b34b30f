//! Calls between nodes, as they wait on a connection.

use super::{CallError, connections::Route};
use god_proto::peer::{Request, request, response};
use god_stream::{Backlog, Lost, Protocol};
use metrics::Gauge;
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// Queued bytes that weigh as much as a call, when connections are compared.
const BYTES_A_CALL: usize = 16 << 10;

/// What a caller gets in the end.
pub(super) type CallResult = Result<response::Body, CallError>;
/// A call that was not sent yet.
pub(super) type Waiting = god_stream::Waiting<PeerProtocol>;

/// What is asked.
pub(super) struct PeerCall {
    pub epoch: u64,
    pub arcs: u64,
    pub body: request::Body,
}

/// Who waits for the outcome.
pub(super) struct Caller {
    pub reply: oneshot::Sender<CallResult>,
    /// When the call was made, if its duration is wanted.
    pub timed: Option<Instant>,
}

/// See the module.
pub(super) struct PeerProtocol {
    pub route: Arc<Route>,
    pub waiting: Gauge,
}

impl PeerProtocol {
    /// Tells callers what came of their calls.
    pub fn hand_out(&self, outcomes: impl Iterator<Item = (Caller, CallResult)>) {
        for (caller, outcome) in outcomes {
            if let Err(error) = &outcome {
                self.route.meter.error(error);
            }
            // An error means that the caller stopped waiting.
            let _gone = caller.reply.send(outcome);
        }
    }
}

impl Protocol for PeerProtocol {
    type Call = PeerCall;
    type Caller = Caller;
    type Request = Request;

    const STANDS_BACK: bool = false;

    fn request(id: u64, PeerCall { epoch, arcs, body }: PeerCall, left: Duration) -> Request {
        Request { id, epoch, arcs_epoch: arcs, timeout_ms: millis(left), body: Some(body) }
    }

    /// A call is sent even if its caller stops waiting: it may have to reach every replica.
    fn is_abandoned(_: &Caller) -> bool {
        false
    }

    fn load(&self, backlog: &Backlog) -> usize {
        self.waiting.set(backlog.waiting as f64);
        backlog.unanswered + backlog.bytes / BYTES_A_CALL
    }

    fn lost(&self, lost: Vec<(Caller, Lost)>) {
        self.hand_out(lost.into_iter().map(|(caller, lost)| (caller, Err(lost.into()))));
    }
}

impl From<Lost> for CallError {
    fn from(lost: Lost) -> CallError {
        match lost {
            Lost::NotSent(why) => CallError::NotSent(why),
            Lost::Full => CallError::QueueFull,
            Lost::Broke(why) => CallError::Lost(why),
            Lost::TimedOut | Lost::Stalled => CallError::TimedOut,
        }
    }
}

/// What an answer says.
pub(super) fn outcome(answer: Option<response::Body>) -> CallResult {
    match answer {
        Some(response::Body::Failure(failure)) => Err(CallError::Refused(failure)),
        Some(body) => Ok(body),
        // It did something and says so in words of a later version.
        None => Err(CallError::Lost("the answer is of a kind that this version does not know".to_owned())),
    }
}

/// Whole milliseconds, rounded up, at least one.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_unknown_kind_leaves_the_outcome_open() {
        assert!(outcome(None).is_err_and(|error| error.is_open()));
    }

    #[test]
    fn a_request_says_how_long_there_is_in_whole_milliseconds_and_at_least_one() {
        assert_eq!(millis(Duration::from_micros(10_001)), 11);
        assert_eq!(millis(Duration::from_millis(10)), 10);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
    }
}
