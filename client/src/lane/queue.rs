//! What waits to be sent on a lane, and what waits for its answer. No I/O and no clock: both are handed in.

use god_proto::{
    MAX_BATCH,
    v1::{self, NumberedAnswer, NumberedCall, answer, call},
};
use std::{collections::VecDeque, mem, task::Waker, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// Where a frame is cut, in bytes; a single larger call travels alone.
const FRAME_BYTES: usize = 1 << 20;

/// What a caller gets in the end.
pub(crate) type Outcome = Result<answer::Answer, Lost>;
type Reply = oneshot::Sender<Outcome>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It never left: nothing happened.
    NotSent(String),
    /// It was sent, and the connection broke.
    Broke(String),
    /// It was sent, and its time is up.
    TimedOut,
    /// It is a read, and the node has been silent for long.
    Stalled,
}

/// A call that was not sent yet.
pub(crate) struct Waiting {
    pub call: call::Call,
    pub bytes: usize,
    pub deadline: Instant,
    /// Places it takes.
    pub places: u32,
    pub reply: Reply,
}

struct Sent {
    deadline: Instant,
    places: u32,
    is_read: bool,
    reply: Reply,
}

/// A place for a call that was sent. Its number is part of the call's id, so that no answer has to be searched for;
/// the count of its uses is the other part, so that a late answer meets nobody else's call.
#[derive(Default)]
struct Slot {
    uses: u32,
    sent: Option<Sent>,
}

/// What is to be handed out once the lock is released.
#[derive(Default)]
pub(super) struct Settled {
    pub outcomes: Vec<(Reply, Outcome)>,
    pub places: usize,
}

impl Settled {
    fn add(&mut self, reply: Reply, places: u32, outcome: Outcome) {
        self.places += places as usize;
        self.outcomes.push((reply, outcome));
    }
}

/// The state of a lane, behind its lock.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_use: usize,
    /// No deadline of a call is before this one. A lower bound: calls that ended do not move it.
    pub earliest: Option<Instant>,
    /// Since when nothing was heard while answers are due.
    silent_since: Option<Instant>,
    /// Why calls fail at once, while they do.
    pub down: Option<String>,
    /// Whether frames may be taken from it.
    pub open: bool,
    /// Counts sessions, so that the frames of an earlier one end.
    pub session: u64,
    /// Who waits for something to send.
    pub writer: Option<Waker>,
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

    /// Calls that have no answer yet.
    pub fn unanswered(&self) -> usize {
        self.waiting.len() + self.in_use
    }

    /// Takes a call, or says why not. Bounded by the places that the client has for calls in flight.
    pub fn push(&mut self, call: Waiting) -> Result<Pushed, Lost> {
        if let Some(why) = &self.down {
            return Err(Lost::NotSent(why.clone()));
        }
        let sooner = self.earliest.is_none_or(|earliest| call.deadline < earliest);
        if sooner {
            self.earliest = Some(call.deadline);
        }
        self.waiting.push_back(call);
        Ok(Pushed { writer: if self.open { self.writer.take() } else { None }, sooner })
    }

    /// Takes out what goes into the next frame, oldest first.
    pub fn take_frame(&mut self, now: Instant, settled: &mut Settled) -> Vec<NumberedCall> {
        let mut calls = Vec::with_capacity(self.waiting.len().min(MAX_BATCH));
        let mut bytes = 0;
        while calls.len() < MAX_BATCH {
            let fits = |call: &mut Waiting| calls.is_empty() || bytes + call.bytes <= FRAME_BYTES;
            let Some(mut waiting) = self.waiting.pop_front_if(fits) else { break };
            let left = waiting.deadline.saturating_duration_since(now);
            if left.is_zero() {
                settled.add(waiting.reply, waiting.places, Err(unsent()));
                continue;
            }
            if waiting.reply.is_closed() {
                settled.places += waiting.places as usize;
                continue;
            }
            bytes += waiting.bytes;
            let is_read = limit(&mut waiting.call, left);
            let id = self.keep(
                Sent { deadline: waiting.deadline, places: waiting.places, is_read, reply: waiting.reply },
                now,
            );
            calls.push(NumberedCall { id, call: Some(v1::Call { call: Some(waiting.call) }) });
        }
        calls
    }

    fn keep(&mut self, sent: Sent, now: Instant) -> u64 {
        if self.in_use == 0 {
            self.silent_since = Some(now);
        }
        self.in_use += 1;
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[at as usize];
        slot.uses = slot.uses.wrapping_add(1);
        slot.sent = Some(sent);
        u64::from(slot.uses) << 32 | u64::from(at)
    }

    /// Matches answers with calls. Answers that nobody waits for any more are dropped.
    pub fn answer(&mut self, answers: Vec<NumberedAnswer>, now: Instant, settled: &mut Settled) {
        settled.outcomes.reserve(answers.len());
        for NumberedAnswer { id, answer } in answers {
            let at = id as u32;
            let Some(slot) = self.slots.get_mut(at as usize) else { continue };
            if slot.uses != (id >> 32) as u32 {
                continue;
            }
            let Some(sent) = slot.sent.take() else { continue };
            self.free.push(at);
            self.in_use -= 1;
            let outcome = answer.and_then(|answer| answer.answer).ok_or_else(|| {
                // It did something and says so in words of a later version.
                Lost::Broke("the answer is of a kind that this version does not know".to_owned())
            });
            settled.add(sent.reply, sent.places, outcome);
        }
        self.silent_since = (self.in_use > 0).then_some(now);
    }

    /// Whether answers are due and nothing was heard for so long.
    pub fn is_stalled(&self, now: Instant, stall: Duration) -> bool {
        self.silent_since.is_some_and(|since| now.saturating_duration_since(since) >= stall)
    }

    /// Ends the calls whose time is up, and with `reads` all reads that were sent. Cost: O(unanswered calls); worth
    /// calling at `earliest`, not before.
    pub fn expire(&mut self, now: Instant, reads: bool, settled: &mut Settled) {
        let mut earliest: Option<Instant> = None;
        let mut keep = |deadline: Instant| {
            let stays = deadline > now;
            if stays && earliest.is_none_or(|earliest| deadline < earliest) {
                earliest = Some(deadline);
            }
            stays
        };
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let lost = match &slot.sent {
                Some(sent) if reads && sent.is_read => Lost::Stalled,
                Some(sent) if !keep(sent.deadline) => Lost::TimedOut,
                _ => continue,
            };
            if let Some(sent) = slot.sent.take() {
                self.free.push(at as u32);
                self.in_use -= 1;
                settled.add(sent.reply, sent.places, Err(lost));
            }
        }
        for call in mem::take(&mut self.waiting) {
            if keep(call.deadline) {
                self.waiting.push_back(call);
            } else {
                settled.add(call.reply, call.places, Err(unsent()));
            }
        }
        if self.in_use == 0 {
            self.silent_since = None;
        }
        self.earliest = earliest;
    }

    /// Ends a session, and with it all calls: those that were sent are lost, the others never left.
    pub fn end(&mut self, why: &str, settled: &mut Settled) -> Option<Waker> {
        self.open = false;
        self.session += 1;
        self.earliest = None;
        self.silent_since = None;
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let Some(sent) = slot.sent.take() else { continue };
            self.free.push(at as u32);
            settled.add(sent.reply, sent.places, Err(Lost::Broke(why.to_owned())));
        }
        self.in_use = 0;
        for call in mem::take(&mut self.waiting) {
            settled.add(call.reply, call.places, Err(Lost::NotSent(why.to_owned())));
        }
        self.writer.take()
    }
}

fn unsent() -> Lost {
    Lost::NotSent("the time was up before it could be sent".to_owned())
}

/// Tells the node how long it may take, and whether the call is a read. A sixteenth is left for the way back: an
/// answer that says what happened is worth more than the time.
fn limit(call: &mut call::Call, left: Duration) -> bool {
    let ms = u32::try_from((left / 16 * 15).as_millis()).unwrap_or(u32::MAX).max(1);
    match call {
        call::Call::Put(put) => put.timeout_ms = ms,
        call::Call::Delete(delete) => delete.timeout_ms = ms,
        call::Call::Get(get) => {
            get.timeout_ms = ms;
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use god_proto::v1::{Answer, GetReply, GetRequest, PutRequest};

    fn read() -> call::Call {
        call::Call::Get(GetRequest::default())
    }

    fn write() -> call::Call {
        call::Call::Put(PutRequest::default())
    }

    fn push(queue: &mut Queue, call: call::Call, deadline: Instant) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        queue.push(Waiting { call, bytes: 1, deadline, places: 2, reply }).ok().unwrap();
        outcome
    }

    fn hand_out(settled: Settled) -> usize {
        for (reply, outcome) in settled.outcomes {
            reply.send(outcome).unwrap();
        }
        settled.places
    }

    fn answer(id: u64) -> NumberedAnswer {
        let answer = answer::Answer::Get(GetReply::default());
        NumberedAnswer { id, answer: Some(Answer { answer: Some(answer) }) }
    }

    const LATER: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_late_answer_does_not_meet_the_next_call_in_its_slot() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let mut settled = Settled::default();
        let mut first = push(&mut queue, read(), now + Duration::from_millis(10));
        let old = queue.take_frame(now, &mut settled)[0].id;
        queue.expire(now + Duration::from_millis(20), false, &mut settled);
        let mut second = push(&mut queue, read(), now + LATER);
        let new = queue.take_frame(now, &mut settled)[0].id;
        assert_ne!(old, new);
        queue.answer(vec![answer(old), answer(u64::MAX)], now, &mut settled);
        assert_eq!(queue.unanswered(), 1);
        queue.answer(vec![answer(new)], now, &mut settled);
        assert_eq!(hand_out(settled), 4, "all places are given back");
        assert_eq!(first.try_recv().unwrap(), Err(Lost::TimedOut));
        assert!(second.try_recv().unwrap().is_ok());
    }

    #[tokio::test]
    async fn silence_gives_up_reads_and_leaves_writes_waiting() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let mut settled = Settled::default();
        let mut get = push(&mut queue, read(), now + LATER);
        let mut put = push(&mut queue, write(), now + LATER);
        assert_eq!(queue.take_frame(now, &mut settled).len(), 2);
        let stall = Duration::from_millis(500);
        assert!(!queue.is_stalled(now + stall / 2, stall));
        assert!(queue.is_stalled(now + stall, stall));
        queue.expire(now + stall, true, &mut settled);
        hand_out(settled);
        assert_eq!(get.try_recv().unwrap(), Err(Lost::Stalled));
        assert!(put.try_recv().is_err());
        assert_eq!(queue.earliest, Some(now + LATER));
    }

    #[tokio::test]
    async fn when_a_session_ends_what_was_sent_is_lost_and_what_waited_was_not_sent() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let mut settled = Settled::default();
        let mut sent = push(&mut queue, write(), now + LATER);
        queue.take_frame(now, &mut settled);
        let mut waits = push(&mut queue, write(), now + LATER);
        queue.end("it broke", &mut settled);
        assert_eq!(hand_out(settled), 4);
        assert_eq!(sent.try_recv().unwrap(), Err(Lost::Broke("it broke".to_owned())));
        assert_eq!(waits.try_recv().unwrap(), Err(Lost::NotSent("it broke".to_owned())));
        assert_eq!(queue.unanswered(), 0);
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_is_not_sent() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let mut settled = Settled::default();
        drop(push(&mut queue, write(), now + LATER));
        assert!(queue.take_frame(now, &mut settled).is_empty());
        assert_eq!(settled.places, 2);
    }
}
