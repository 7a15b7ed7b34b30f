//! A stream of numbered calls: frames in, answers out as they come.

use super::{Service, check, meter::Method, store};
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use god_proto::{
    MAX_BATCH,
    v1::{Answer, Call, NumberedAnswer, NumberedCall, PipelineReply, PipelineRequest, call},
};
use prost::Message;
use std::{
    collections::VecDeque,
    future::pending,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    vec,
};
use tokio::time::Instant;
use tonic::{Status, Streaming};

/// Calls of one stream that may be worked on at once, and their bytes. Beyond that the stream is not read.
const IN_FLIGHT: usize = 4_096;
const IN_FLIGHT_BYTES: usize = 32 << 20;
/// Where a reply is cut, in bytes; a single larger answer travels alone.
const REPLY_BYTES: usize = 1 << 20;

struct Done {
    answers: Vec<NumberedAnswer>,
    bytes: usize,
}

/// See the module. Like the stream between nodes it has no task of its own: HTTP/2 asks for the next reply when it can
/// take one, and whatever was answered by then goes into it. A client that does not take its answers is not read.
pub struct Pipeline {
    service: Arc<dyn Service>,
    method: Arc<Method>,
    incoming: Streaming<PipelineRequest>,
    reading: bool,
    /// The rest of the frame that was read last.
    begun: vec::IntoIter<NumberedCall>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    calls: usize,
    bytes: usize,
    answered: VecDeque<NumberedAnswer>,
    fault: Option<Status>,
    stopped: BoxFuture<'static, ()>,
}

impl Pipeline {
    pub(super) fn new(
        service: Arc<dyn Service>,
        method: Arc<Method>,
        incoming: Streaming<PipelineRequest>,
        stopped: BoxFuture<'static, ()>,
    ) -> Pipeline {
        Pipeline {
            service,
            method,
            incoming,
            reading: true,
            begun: Vec::new().into_iter(),
            running: FuturesUnordered::new(),
            calls: 0,
            bytes: 0,
            answered: VecDeque::new(),
            fault: None,
            stopped,
        }
    }

    /// Reads and begins one frame, or a part of it. Says whether it got anywhere.
    fn begin(&mut self, cx: &mut Context<'_>) -> bool {
        let full =
            self.calls >= IN_FLIGHT || self.bytes >= IN_FLIGHT_BYTES || self.answered.len() >= IN_FLIGHT;
        if full {
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
            bytes += weight(&call);
            ids.push(id);
            calls.push(call);
        }
        self.calls += ids.len();
        self.bytes += bytes;
        let service = Arc::clone(&self.service);
        let method = Arc::clone(&self.method);
        self.running.push(
            async move {
                let since = Instant::now();
                let answers = store::answer(&*service, calls).await;
                method.answered(answers.len(), since);
                for reason in answers.iter().filter_map(check::error_of) {
                    method.failed(reason);
                }
                let number = |(id, answer): (u64, Answer)| NumberedAnswer { id, answer: Some(answer) };
                Done { answers: ids.into_iter().zip(answers).map(number).collect(), bytes }
            }
            .boxed(),
        );
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while self.answered.len() < IN_FLIGHT {
            let Poll::Ready(Some(done)) = self.running.poll_next_unpin(cx) else { break };
            self.calls -= done.answers.len();
            self.bytes -= done.bytes;
            self.answered.extend(done.answers);
            progress = true;
        }
        progress
    }

    fn take_reply(&mut self) -> Option<PipelineReply> {
        let mut answers = Vec::with_capacity(self.answered.len());
        let mut total = 0;
        while let Some(answer) = self.answered.pop_front_if(|answer| {
            let bytes = answer.encoded_len();
            let fits = total == 0 || total + bytes <= REPLY_BYTES;
            total += bytes;
            fits
        }) {
            answers.push(answer);
        }
        (!answers.is_empty()).then(|| PipelineReply { answers, epoch: self.service.epoch() })
    }

    fn end(&mut self, fault: Option<Status>) {
        self.reading = false;
        self.fault = self.fault.take().or(fault);
    }
}

impl Stream for Pipeline {
    type Item = Result<PipelineReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.reading && this.stopped.poll_unpin(cx).is_ready() {
            this.stopped = pending().boxed();
            this.end(None);
        }
        loop {
            let mut progress = false;
            // Bounded by what may be in flight.
            while this.begin(cx) {
                progress = true;
            }
            progress |= this.collect(cx);
            if let Some(reply) = this.take_reply() {
                return Poll::Ready(Some(Ok(reply)));
            }
            if !this.reading && this.begun.as_slice().is_empty() && this.running.is_empty() {
                return Poll::Ready(this.fault.take().map(Err));
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }
}

/// Bytes that a call keeps in memory, about.
fn weight(call: &Call) -> usize {
    match &call.call {
        Some(call::Call::Put(put)) => put.key.len() + put.value.len(),
        Some(call::Call::Delete(delete)) => delete.key.len(),
        Some(call::Call::Get(get)) => get.key.len(),
        None => 0,
    }
}
