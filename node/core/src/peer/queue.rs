//! What waits to be sent on a lane, and what waits for its answer. No I/O and no clock: both are handed in.

use super::{CallError, settings::PeerSettings};
use god_proto::peer::{Request, Response, request, response};
use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    task::Waker,
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// What a caller gets in the end.
pub(super) type Outcome = Result<response::Body, CallError>;
/// Where the caller waits for it.
pub(super) type Reply = oneshot::Sender<Outcome>;
/// Outcomes to hand out once the lock is released.
pub(super) type Outcomes = Vec<(Reply, Outcome)>;

/// A call that was not sent yet.
pub(super) struct Waiting {
    pub epoch: u64,
    pub deadline: Instant,
    pub body: request::Body,
    /// Encoded bytes of the body.
    pub bytes: usize,
    /// None: nobody wants an answer.
    pub reply: Option<Reply>,
    /// When it was made, if its duration is wanted.
    pub timed: Option<Instant>,
}

struct Sent {
    deadline: Instant,
    reply: Reply,
    timed: Option<Instant>,
}

/// The state of a lane, behind its lock.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    // By id. Ordered, so that what is done to all of them is done in the order in which they were sent.
    sent: BTreeMap<u64, Sent>,
    last_id: u64,
    /// No deadline of a call is before this one. A lower bound: calls that ended do not move it.
    pub earliest: Option<Instant>,
    /// Why calls fail at once, while they do.
    pub down: Option<String>,
    /// Whether frames may be taken from it: the other side said hello.
    pub open: bool,
    /// Counts sessions, so that the frames of an earlier one end.
    pub session: u64,
    /// Who waits for something to send.
    pub writer: Option<Waker>,
    /// When it was last used.
    pub used: Option<Instant>,
}

/// What became of a call that was to be queued.
pub(super) struct Pushed {
    /// Whoever sends frames, if it has to be woken.
    pub writer: Option<Waker>,
    /// The call's deadline is before all others: whoever looks after deadlines must know.
    pub sooner: bool,
}

impl Queue {
    /// Calls that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that wait to be sent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Calls that have no answer yet.
    pub fn unanswered(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }

    /// Takes a call, or says why not.
    pub fn push(
        &mut self,
        settings: &PeerSettings,
        call: Waiting,
        now: Instant,
    ) -> Result<Pushed, CallError> {
        if let Some(why) = &self.down {
            return Err(CallError::NotSent(why.clone()));
        }
        // The bound on bytes lets a single call of any permitted size through an empty queue.
        let full = self.waiting.len() >= settings.queue_requests
            || (!self.waiting.is_empty() && self.bytes + call.bytes > settings.queue_bytes);
        if full {
            return Err(CallError::QueueFull);
        }
        let sooner = self.earliest.is_none_or(|earliest| call.deadline < earliest);
        if sooner {
            self.earliest = Some(call.deadline);
        }
        self.used = Some(now);
        self.bytes += call.bytes;
        self.waiting.push_back(call);
        Ok(Pushed { writer: if self.open { self.writer.take() } else { None }, sooner })
    }

    /// Takes out what goes into the next frame, oldest first.
    pub fn take_frame(
        &mut self,
        settings: &PeerSettings,
        now: Instant,
        outcomes: &mut Outcomes,
    ) -> Vec<Request> {
        let mut requests = Vec::with_capacity(self.waiting.len().min(settings.frame_requests));
        let mut bytes = 0;
        while requests.len() < settings.frame_requests {
            let fits = |call: &mut Waiting| requests.is_empty() || bytes + call.bytes <= settings.frame_bytes;
            let Some(call) = self.waiting.pop_front_if(fits) else { break };
            self.bytes -= call.bytes;
            let left = call.deadline.saturating_duration_since(now);
            if left.is_zero() {
                outcomes.extend(call.reply.map(|reply| (reply, Err(unsent()))));
                continue;
            }
            bytes += call.bytes;
            let mut id = 0;
            if let Some(reply) = call.reply {
                self.last_id += 1;
                id = self.last_id;
                self.sent.insert(id, Sent { deadline: call.deadline, reply, timed: call.timed });
            }
            requests.push(Request { id, epoch: call.epoch, timeout_ms: millis(left), body: Some(call.body) });
        }
        requests
    }

    /// Matches answers with calls. Answers that nobody waits for any more are dropped. Tells `took` how long those
    /// calls took of which that is wanted.
    pub fn answer(
        &mut self,
        responses: Vec<Response>,
        outcomes: &mut Outcomes,
        mut took: impl FnMut(Instant),
    ) {
        for response in responses {
            let Some(sent) = self.sent.remove(&response.id) else { continue };
            if let Some(since) = sent.timed {
                took(since);
            }
            let outcome = match response.body {
                Some(response::Body::Failure(failure)) => Err(CallError::Refused(failure)),
                Some(body) => Ok(body),
                // It did something and says so in words of a later version.
                None => {
                    Err(CallError::Lost("the answer is of a kind that this version does not know".to_owned()))
                }
            };
            outcomes.push((sent.reply, outcome));
        }
    }

    /// Ends the calls whose time is up. Cost: O(unanswered calls); worth calling at `earliest`, not before.
    pub fn expire(&mut self, now: Instant, outcomes: &mut Outcomes) {
        let mut earliest: Option<Instant> = None;
        let mut keep = |deadline: Instant| {
            let stays = deadline > now;
            if stays && earliest.is_none_or(|earliest| deadline < earliest) {
                earliest = Some(deadline);
            }
            stays
        };
        for (_, late) in self.sent.extract_if(.., |_, sent| !keep(sent.deadline)) {
            outcomes.push((late.reply, Err(CallError::TimedOut)));
        }
        let bytes = &mut self.bytes;
        self.waiting.retain_mut(|call| {
            let stays = keep(call.deadline);
            if !stays {
                *bytes -= call.bytes;
                outcomes.extend(call.reply.take().map(|reply| (reply, Err(unsent()))));
            }
            stays
        });
        self.earliest = earliest;
    }

    /// Ends a session, and with it all calls: those that were sent are lost, the others never left.
    pub fn end(&mut self, why: &str, outcomes: &mut Outcomes) -> Option<Waker> {
        self.open = false;
        self.session += 1;
        self.bytes = 0;
        self.earliest = None;
        for (_, sent) in mem::take(&mut self.sent) {
            outcomes.push((sent.reply, Err(CallError::Lost(why.to_owned()))));
        }
        for call in mem::take(&mut self.waiting) {
            outcomes.extend(call.reply.map(|reply| (reply, Err(CallError::NotSent(why.to_owned())))));
        }
        self.writer.take()
    }
}

fn unsent() -> CallError {
    CallError::NotSent("the time was up before it could be sent".to_owned())
}

/// Whole milliseconds, rounded up, at least one.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use god_proto::peer::Ping;

    fn call(bytes: usize, deadline: Instant) -> (Waiting, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let body = request::Body::Ping(Ping::default());
        (Waiting { epoch: 1, deadline, body, bytes, reply: Some(reply), timed: None }, outcome)
    }

    fn queued(
        settings: &PeerSettings,
        sizes: &[usize],
        now: Instant,
    ) -> (Queue, Vec<oneshot::Receiver<Outcome>>) {
        let mut queue = Queue { open: true, ..Queue::default() };
        let outcomes = sizes.iter().enumerate().map(|(at, bytes)| {
            let (call, outcome) = call(*bytes, now + Duration::from_millis(10 * (at as u64 + 1)));
            queue.push(settings, call, now).unwrap();
            outcome
        });
        let outcomes = outcomes.collect();
        (queue, outcomes)
    }

    fn hand_out(outcomes: Outcomes) {
        for (reply, outcome) in outcomes {
            reply.send(outcome).unwrap();
        }
    }

    #[tokio::test]
    async fn when_a_session_ends_what_was_sent_is_lost_and_what_waited_was_not_sent() {
        let settings = PeerSettings { frame_requests: 1, ..PeerSettings::default() };
        let now = Instant::now();
        let (mut queue, mut calls) = queued(&settings, &[1, 1], now);
        let mut outcomes = Vec::new();
        assert_eq!(queue.take_frame(&settings, now, &mut outcomes).len(), 1);
        queue.end("it broke", &mut outcomes);
        hand_out(outcomes);
        assert_eq!(calls[0].try_recv().unwrap(), Err(CallError::Lost("it broke".to_owned())));
        assert_eq!(calls[1].try_recv().unwrap(), Err(CallError::NotSent("it broke".to_owned())));
        assert_eq!((queue.unanswered(), queue.bytes()), (0, 0));
    }

    #[tokio::test]
    async fn a_call_whose_time_is_up_times_out_if_it_was_sent_and_else_was_not_sent() {
        let settings = PeerSettings { frame_requests: 1, ..PeerSettings::default() };
        let now = Instant::now();
        let (mut queue, mut calls) = queued(&settings, &[1, 1, 1], now);
        assert_eq!(queue.earliest, Some(now + Duration::from_millis(10)));
        let mut outcomes = Vec::new();
        assert_eq!(queue.take_frame(&settings, now, &mut outcomes)[0].timeout_ms, 10);
        queue.expire(now + Duration::from_millis(25), &mut outcomes);
        hand_out(outcomes);
        assert_eq!(calls[0].try_recv().unwrap(), Err(CallError::TimedOut));
        assert!(matches!(calls[1].try_recv().unwrap(), Err(CallError::NotSent(_))));
        assert!(calls[2].try_recv().is_err());
        assert_eq!(queue.earliest, Some(now + Duration::from_millis(30)));
        assert_eq!((queue.unanswered(), queue.bytes()), (1, 1));
        // What is late goes into no frame either.
        let mut outcomes = Vec::new();
        assert!(queue.take_frame(&settings, now + Duration::from_millis(30), &mut outcomes).is_empty());
        assert_eq!(outcomes.len(), 1);
    }

    #[tokio::test]
    async fn frames_are_cut_by_bytes_and_a_larger_call_travels_alone() {
        let settings = PeerSettings { frame_bytes: 100, ..PeerSettings::default() };
        let now = Instant::now();
        let (mut queue, _calls) = queued(&settings, &[60, 40, 1, 500, 1], now);
        let mut outcomes = Vec::new();
        let sizes: Vec<usize> =
            std::iter::repeat_with(|| queue.take_frame(&settings, now, &mut outcomes).len())
                .take_while(|size| *size > 0)
                .collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
    }

    #[tokio::test]
    async fn an_answer_of_unknown_kind_leaves_the_outcome_open() {
        let settings = PeerSettings::default();
        let now = Instant::now();
        let (mut queue, mut calls) = queued(&settings, &[1], now);
        let mut outcomes = Vec::new();
        let id = queue.take_frame(&settings, now, &mut outcomes)[0].id;
        let unasked = Response { id: id + 1, body: None };
        queue.answer(vec![unasked, Response { id, body: None }], &mut outcomes, |_| ());
        hand_out(outcomes);
        assert!(calls[0].try_recv().unwrap().unwrap_err().is_open());
    }
}
