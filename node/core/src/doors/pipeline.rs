//! A stream of numbered calls: frames in, answers out as they come.

use super::{Service, meter::Method, store};
use crate::{
    budget::{Budget, Charge, PART},
    connections::{Outbox, OutboxRoom, Outgoing, outbox},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use god_proto::{
    MAX_BATCH,
    v1::{Answer, Call, NumberedAnswer, NumberedCall, PipelineReply, PipelineRequest, Reason, Rejected},
};
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

struct Done {
    answers: Vec<Weighed>,
    /// Of the calls.
    bytes: usize,
    /// Of the calls, and then of their answers.
    charge: Charge,
}

/// An answer, and its bytes when it is sent.
type Weighed = (NumberedAnswer, usize);

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
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    calls: usize,
    bytes: usize,
    answered: VecDeque<Weighed>,
    budget: Budget,
    /// Of the answers that wait: their bytes.
    charge: Charge,
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
            calls: 0,
            bytes: 0,
            answered: VecDeque::new(),
            charge: budget.new_charge(),
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
        if self.calls + self.answered.len() >= IN_FLIGHT
            || self.bytes + self.charge.bytes() >= IN_FLIGHT_BYTES
        {
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
        let mut ids = Vec::with_capacity(numbered.len());
        let mut calls = Vec::with_capacity(numbered.len());
        let mut bytes = 0;
        for NumberedCall { id, call } in numbered {
            let call = call.unwrap_or_default();
            bytes += call.payload_bytes();
            ids.push(id);
            calls.push(call);
        }
        let Some(mut charge) = self.budget.take(bytes + ids.len() * PART) else {
            self.budget.refused();
            return self.refuse(ids, &calls);
        };
        self.calls += ids.len();
        self.bytes += bytes;
        let service = Arc::clone(&self.service);
        let method = Arc::clone(&self.method);
        self.running.push(
            async move {
                let since = Instant::now();
                let answers = store::answer(&*service, calls).await;
                method.answered(answers.len(), since);
                for reason in answers.iter().filter_map(Answer::failure) {
                    method.failed(reason);
                }
                let answers: Vec<Weighed> = ids.into_iter().zip(answers).map(weighed).collect();
                charge.clear();
                charge.force(answers.iter().map(|(_, bytes)| bytes).sum());
                Done { answers, bytes, charge }
            }
            .boxed(),
        );
    }

    /// Answers calls for which there is no memory (BUDGET).
    fn refuse(&mut self, ids: Vec<u64>, calls: &[Call]) {
        let message = "the node's memory for requests is taken up; ask again a little later";
        let busy = Rejected::later(Reason::Busy, message, 50);
        for (id, call) in ids.into_iter().zip(calls) {
            self.method.failed(Reason::Busy.as_str_name());
            let answer = weighed((id, Answer::refused(call.is_read(), busy.clone())));
            self.charge.force(answer.1);
            self.answered.push_back(answer);
        }
    }

    /// Takes what is ready. What was begun goes on whether its answers are taken or not: it may hold what others wait
    /// for.
    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while let Poll::Ready(Some(done)) = self.running.poll_next_unpin(cx) {
            self.calls -= done.answers.len();
            self.bytes -= done.bytes;
            self.charge.absorb(done.charge);
            self.answered.extend(done.answers);
            progress = true;
        }
        progress
    }

    fn take_reply(&mut self) -> Option<PipelineReply> {
        let mut answers = Vec::with_capacity(self.answered.len());
        let mut total = 0;
        while let Some((answer, bytes)) =
            self.answered.pop_front_if(|(_, bytes)| total == 0 || total + *bytes <= REPLY_BYTES)
        {
            total += bytes;
            answers.push(answer);
        }
        self.charge.shrink(total);
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
            progress |= self.collect(cx);
            let has_ended = !self.reading && self.begun.as_slice().is_empty() && self.running.is_empty();
            match replies.room(cx, has_ended || !self.answered.is_empty()) {
                OutboxRoom::Gone => return Poll::Ready(()),
                OutboxRoom::Taken => {}
                OutboxRoom::Free => {
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
