//! A stream of numbered calls: frames in, answers out as they come.

use super::{Service, meter::Method};
use crate::{
    budget::{Budget, Charge, PART, Paid},
    connections::{Outbox, OutboxSlot, Outgoing, outbox},
    quorum::{AnswerSink, no_memory},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use god_proto::{
    MAX_BATCH,
    v1::{Answer, Call, NumberedAnswer, NumberedCall, PipelineReply, PipelineRequest, Reason},
};
use parking_lot::Mutex;
use prost::Message;
use std::{
    collections::VecDeque,
    future::{pending, poll_fn},
    sync::Arc,
    task::{Context, Poll},
    vec,
};
use tokio::time::Instant;
use tonic::{Status, Streaming};

/// Calls of one stream that may be worked on or wait for their answers to be taken, and the bytes of either. Beyond
/// that the stream is not read.
const IN_FLIGHT: usize = 4_096;
const IN_FLIGHT_BYTES: usize = 32 << 20;
/// Where a reply is cut, in bytes; a single larger answer travels alone.
const REPLY_BYTES: usize = 1 << 20;

/// An answer, and its bytes when it is sent.
type Weighed = (NumberedAnswer, usize);

/// What a stream has under way. Only its own task takes the lock: its calls are worked on in it.
struct InFlight {
    /// Calls that are worked on, and their bytes.
    calls: usize,
    bytes: usize,
    /// Answers that wait to be taken, and what is paid for them.
    answered: VecDeque<Weighed>,
    charge: Charge,
}

/// The calls of a frame, or of a part of one, as they are worked on.
struct Frame {
    in_flight: Arc<Mutex<InFlight>>,
    method: Arc<Method>,
    since: Instant,
    /// The number and the bytes of each call that has no answer yet.
    calls: Vec<Option<(u64, usize)>>,
    /// For those.
    charge: Charge,
}

impl AnswerSink for Frame {
    /// Each call gives its place and its bytes back when it is answered, whatever the others do.
    fn take(&mut self, answers: Vec<(usize, Answer)>, paid: Paid) {
        self.method.answered(answers.len(), self.since);
        let mut in_flight = self.in_flight.lock();
        let (mut freed, mut taken) = (0, 0);
        for (slot, answer) in answers {
            let Some((id, bytes)) = self.calls.get_mut(slot).and_then(Option::take) else { continue };
            if let Some(reason) = answer.failure() {
                self.method.failed(reason);
            }
            let answer = weighed((id, answer));
            in_flight.calls -= 1;
            in_flight.bytes -= bytes;
            freed += bytes + PART;
            taken += answer.1;
            in_flight.answered.push_back(answer);
        }
        in_flight.charge.force(taken);
        self.charge.shrink(freed);
        drop(paid);
    }
}

/// The replies of a stream.
pub(super) type Replies = Outgoing<Result<PipelineReply, Status>>;

/// See the module. It has a task of its own (READERS-APART). A reply has whatever was answered by the time when HTTP/2
/// can take one. A client that does not take its answers is not read.
pub(super) struct Pipeline {
    service: Arc<dyn Service>,
    method: Arc<Method>,
    incoming: Streaming<PipelineRequest>,
    reading: bool,
    /// The rest of the frame that was read last.
    begun: vec::IntoIter<NumberedCall>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
    in_flight: Arc<Mutex<InFlight>>,
    budget: Budget,
    fault: Option<Status>,
    stopped: BoxFuture<'static, ()>,
}

impl Pipeline {
    /// Begins; it ends with the stream, or when nobody takes the replies any more.
    pub fn start(
        service: Arc<dyn Service>,
        method: Arc<Method>,
        budget: Budget,
        incoming: Streaming<PipelineRequest>,
        stopped: BoxFuture<'static, ()>,
    ) -> Replies {
        let mut pipeline = Pipeline {
            service,
            method,
            incoming,
            reading: true,
            begun: Vec::new().into_iter(),
            running: FuturesUnordered::new(),
            in_flight: Arc::new(Mutex::new(InFlight {
                calls: 0,
                bytes: 0,
                answered: VecDeque::new(),
                charge: budget.new_charge(),
            })),
            budget,
            fault: None,
            stopped,
        };
        let (replies, outgoing) = outbox();
        tokio::spawn(async move { poll_fn(|cx| pipeline.poll(cx, &replies)).await });
        outgoing
    }

    /// Reads and begins one frame, or a part of it. Says whether it got anywhere.
    fn begin(&mut self, cx: &mut Context<'_>) -> bool {
        let is_full = |in_flight: &InFlight| {
            in_flight.calls + in_flight.answered.len() >= IN_FLIGHT
                || in_flight.bytes + in_flight.charge.bytes() >= IN_FLIGHT_BYTES
        };
        if is_full(&self.in_flight.lock()) {
            return false;
        }
        let calls: Vec<NumberedCall> = self.begun.by_ref().take(MAX_BATCH).collect();
        if !calls.is_empty() {
            self.begin_batch(calls);
            return true;
        }
        if !self.reading {
            return false;
        }
        match self.incoming.poll_next_unpin(cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(frame))) => self.begun = frame.calls.into_iter(),
            Poll::Ready(Some(Err(fault))) => self.end(Some(fault)),
            Poll::Ready(None) => self.end(None),
        }
        true
    }

    fn begin_batch(&mut self, numbered: Vec<NumberedCall>) {
        let mut open = Vec::with_capacity(numbered.len());
        let mut calls = Vec::with_capacity(numbered.len());
        let mut bytes = 0;
        for NumberedCall { id, call } in numbered {
            let call = call.unwrap_or_default();
            let payload = call.payload_bytes();
            bytes += payload;
            open.push(Some((id, payload)));
            calls.push(call);
        }
        let Some(charge) = self.budget.take(bytes + open.len() * PART) else {
            self.budget.refused();
            return self.refuse(&open, &calls);
        };
        let mut in_flight = self.in_flight.lock();
        in_flight.calls += open.len();
        in_flight.bytes += bytes;
        drop(in_flight);
        let service = Arc::clone(&self.service);
        let (in_flight, method) = (Arc::clone(&self.in_flight), Arc::clone(&self.method));
        let mut frame = Frame { in_flight, method, since: Instant::now(), calls: open, charge };
        self.running.push(
            async move {
                service.batch_to(calls, &mut frame).await;
                let open = frame.calls.iter().flatten().count();
                assert_eq!(open, 0, "BATCH-ANSWERED: each call has an answer");
            }
            .boxed(),
        );
    }

    /// Answers calls for which there is no memory (BUDGET).
    fn refuse(&mut self, open: &[Option<(u64, usize)>], calls: &[Call]) {
        let busy = no_memory();
        let mut in_flight = self.in_flight.lock();
        for ((id, _), call) in open.iter().flatten().zip(calls) {
            self.method.failed(Reason::Busy.as_str_name());
            let answer = weighed((*id, Answer::refused(call.is_read(), busy.clone())));
            in_flight.charge.force(answer.1);
            in_flight.answered.push_back(answer);
        }
    }

    /// Works on what was begun, whether its answers are taken or not: it may hold what others wait for. Says whether
    /// anything was answered or ended.
    fn work(&mut self, cx: &mut Context<'_>) -> bool {
        let waiting = self.in_flight.lock().answered.len();
        let mut progress = false;
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {
            progress = true;
        }
        progress || self.in_flight.lock().answered.len() != waiting
    }

    fn take_reply(&mut self) -> Option<PipelineReply> {
        let mut in_flight = self.in_flight.lock();
        let mut answers = Vec::with_capacity(in_flight.answered.len());
        let mut total = 0;
        while let Some((answer, bytes)) =
            in_flight.answered.pop_front_if(|(_, bytes)| total == 0 || total + *bytes <= REPLY_BYTES)
        {
            total += bytes;
            answers.push(answer);
        }
        in_flight.charge.shrink(total);
        drop(in_flight);
        (!answers.is_empty()).then(|| PipelineReply { answers, epoch: self.service.epoch() })
    }

    fn end(&mut self, fault: Option<Status>) {
        self.reading = false;
        self.fault = self.fault.take().or(fault);
    }

    fn poll(&mut self, cx: &mut Context<'_>, replies: &Outbox<Result<PipelineReply, Status>>) -> Poll<()> {
        if self.reading && self.stopped.poll_unpin(cx).is_ready() {
            self.stopped = pending().boxed();
            self.end(None);
        }
        loop {
            let mut progress = false;
            // Bounded by what may be in flight.
            while self.begin(cx) {
                progress = true;
            }
            progress |= self.work(cx);
            let has_ended = !self.reading && self.begun.as_slice().is_empty() && self.running.is_empty();
            let has_answers = !self.in_flight.lock().answered.is_empty();
            match replies.room(cx, has_ended || has_answers) {
                OutboxSlot::Gone => return Poll::Ready(()),
                OutboxSlot::Taken => {}
                OutboxSlot::Free => {
                    if let Some(reply) = self.take_reply() {
                        replies.put(Ok(reply));
                        progress = true;
                    } else if has_ended {
                        if let Some(fault) = self.fault.take() {
                            replies.put(Err(fault));
                        }
                        return Poll::Ready(());
                    }
                }
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }
}

fn weighed((id, answer): (u64, Answer)) -> Weighed {
    let answer = NumberedAnswer { id, answer: Some(answer) };
    let bytes = answer.encoded_len();
    (answer, bytes)
}
