//! Calls about one key, as they wait on a connection.

use super::ConnectionContext;
use god_proto::v1::{self, Answer, NumberedCall, answer, call};
use god_stream::{Backlog, Lost, Protocol};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// What a caller gets in the end.
pub(crate) type CallResult = Result<answer::Answer, Lost>;
/// A call that was not sent yet.
pub(crate) type Waiting = god_stream::Waiting<Pipeline>;

/// Who waits for the outcome.
pub(crate) struct Caller {
    pub reply: oneshot::Sender<CallResult>,
    /// Places it takes.
    pub places: u32,
    /// Whether it can be given up, as it can be made elsewhere.
    pub is_read: bool,
}

/// The protocol: that of a store's pipelines.
pub(crate) struct Pipeline(pub Arc<ConnectionContext>);

impl Pipeline {
    /// Tells callers what came of their calls, and gives back the places that those took.
    pub fn hand_out<T>(&self, ended: Vec<(Caller, T)>, outcome: impl Fn(T) -> CallResult) {
        let places: usize = ended.iter().map(|(caller, _)| caller.places as usize).sum();
        if places > 0 {
            self.0.places.add_permits(places);
        }
        for (caller, what) in ended {
            // An error means that the caller stopped waiting.
            let _gone = caller.reply.send(outcome(what));
        }
    }
}

impl Protocol for Pipeline {
    type Call = call::Call;
    type Caller = Caller;
    type Request = NumberedCall;

    const STANDS_BACK: bool = true;

    /// Tells the node how long it may take. A sixteenth is left for the way back: an answer that says what happened is
    /// worth more than the time.
    fn request(id: u64, mut call: call::Call, left: Duration) -> NumberedCall {
        let ms = u32::try_from((left / 16 * 15).as_millis()).unwrap_or(u32::MAX).max(1);
        match &mut call {
            call::Call::Put(put) => put.timeout_ms = ms,
            call::Call::Delete(delete) => delete.timeout_ms = ms,
            call::Call::Get(get) => get.timeout_ms = ms,
        }
        NumberedCall { id, call: Some(v1::Call { call: Some(call) }) }
    }

    fn is_abandoned(caller: &Caller) -> bool {
        caller.reply.is_closed()
    }

    fn load(&self, backlog: &Backlog) -> usize {
        backlog.unanswered
    }

    fn lost(&self, lost: Vec<(Caller, Lost)>) {
        self.hand_out(lost, Err);
    }
}

/// What an answer says.
pub(super) fn outcome(answer: Option<Answer>) -> CallResult {
    answer.and_then(|answer| answer.answer).ok_or_else(|| {
        // It did something and says so in words of a later version.
        Lost::Broke("the answer is of a kind that this version does not know".to_owned())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_given_back_whether_anybody_waits_for_the_outcome_or_not() {
        let pipeline = Pipeline(Arc::new(ConnectionContext::new(Duration::ZERO, Duration::ZERO, 0)));
        let caller = || {
            let (reply, outcome) = oneshot::channel();
            (Caller { reply, places: 2, is_read: true }, outcome)
        };
        let ((first, mut waits), (second, gone)) = (caller(), caller());
        drop(gone);
        assert!(Pipeline::is_abandoned(&second) && !Pipeline::is_abandoned(&first));
        pipeline.lost(vec![(first, Lost::TimedOut), (second, Lost::TimedOut)]);
        assert_eq!(waits.try_recv().unwrap(), Err(Lost::TimedOut));
        assert_eq!(pipeline.0.places.available_permits(), 4);
    }

    #[test]
    fn an_answer_of_unknown_kind_leaves_the_outcome_open() {
        for unknown in [None, Some(Answer { answer: None })] {
            assert!(matches!(outcome(unknown), Err(Lost::Broke(_))));
        }
    }
}
