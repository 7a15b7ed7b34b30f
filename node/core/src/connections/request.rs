//! The body of a gRPC request: each message of it is whole, counted and paid for before it is decoded.

use crate::budget::{Budget, Charge, Method, NO_MEMORY, PART, parts};
use axum::body::{Bytes, HttpBody};
use god_proto::{MAX_ELEMENTS, MAX_MESSAGE};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// What gRPC puts before a message: whether it is compressed, and its length.
const HEADER: usize = 5;

/// What to do where the budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// The request is refused.
    Refuse,
    /// It is read and counted all the same; whoever handles it refuses what can be refused.
    Admit,
}

/// See the module.
pub(super) struct ChargedBody {
    body: Incoming,
    method: Option<Method>,
    budget: Budget,
    spent: Spent,
    /// Shared with the answer, which ends after the request.
    charge: Arc<Mutex<Charge>>,
    /// Chunks of a message that is not whole yet, and their bytes.
    begun: Vec<Bytes>,
    bytes: usize,
    /// Chunks of whole messages, and what was paid for these.
    whole: VecDeque<Bytes>,
    paid: usize,
    /// How long the next part of a message may take, and since when it is waited for.
    slow: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    /// Messages that cannot be cut out are refused by whoever decodes them.
    passes: bool,
}

impl ChargedBody {
    pub fn new(
        body: Incoming,
        method: Option<Method>,
        budget: Budget,
        spent: Spent,
        charge: Arc<Mutex<Charge>>,
        slow: Duration,
    ) -> ChargedBody {
        ChargedBody {
            body,
            method,
            budget,
            spent,
            charge,
            begun: Vec::new(),
            bytes: 0,
            whole: VecDeque::new(),
            paid: 0,
            slow,
            waiting: None,
            passes: false,
        }
    }

    fn pay(&self, bytes: usize) -> Result<(), Status> {
        let mut charge = self.charge.lock();
        match self.spent {
            Spent::Admit => charge.force(bytes),
            Spent::Refuse if charge.grow(bytes) => {}
            Spent::Refuse => {
                self.budget.refused();
                let message = format!("{NO_MEMORY}; nothing was done, ask again a little later");
                return Err(Status::resource_exhausted(message));
            }
        }
        Ok(())
    }

    /// Gives up on a message of which nothing comes any more. Between the messages of a stream there is all the time.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<Option<Result<T, hyper::Error>>>,
    ) -> Poll<Option<Result<T, Status>>> {
        if let Poll::Ready(part) = polled {
            self.waiting = None;
            return Poll::Ready(part.map(|part| part.map_err(|error| Status::from_error(error.into()))));
        }
        if self.begun.is_empty() && self.method.is_none_or(|method| method.streams) {
            return Poll::Pending;
        }
        let slow = self.slow;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(slow)));
        ready!(waiting.as_mut().poll(cx));
        let late = format!("the rest of the message did not come within {slow:?}");
        Poll::Ready(Some(Err(Status::deadline_exceeded(late))))
    }

    /// The length of the message that has begun, once its header is there. `None`: it is not.
    fn length(&self) -> Option<usize> {
        if self.bytes < HEADER {
            return None;
        }
        let mut length = 0;
        for byte in self.begun.iter().flatten().skip(1).take(4) {
            length = length << 8 | usize::from(*byte);
        }
        Some(length)
    }

    fn take(&mut self, chunk: Bytes) -> Result<(), Status> {
        self.pay(chunk.len())?;
        if self.passes {
            self.whole.push_back(chunk);
            return Ok(());
        }
        self.bytes += chunk.len();
        self.begun.push(chunk);
        while let Some(length) = self.length() {
            if length > MAX_MESSAGE {
                self.passes = true;
                self.whole.extend(self.begun.drain(..));
                return Ok(());
            }
            if self.bytes < HEADER + length {
                return Ok(());
            }
            let message = self.cut(HEADER + length);
            self.paid += HEADER + length;
            if let Some(method) = self.method {
                let content = without(&message, HEADER);
                let parts = parts(method, &content).unwrap_or(0);
                if parts > MAX_ELEMENTS {
                    return Err(Status::invalid_argument(format!(
                        "the message has lists of {parts} elements together, the most is {MAX_ELEMENTS}: send it in parts"
                    )));
                }
                self.pay(parts * PART)?;
                self.paid += parts * PART;
            }
            self.whole.extend(message);
        }
        Ok(())
    }

    /// Takes the first bytes of what has begun.
    fn cut(&mut self, bytes: usize) -> Vec<Bytes> {
        let mut message = Vec::new();
        let mut missing = bytes;
        let mut rest = Vec::new();
        for mut chunk in self.begun.drain(..) {
            if missing == 0 {
                rest.push(chunk);
            } else if chunk.len() > missing {
                message.push(chunk.split_to(missing));
                missing = 0;
                rest.push(chunk);
            } else {
                missing -= chunk.len();
                message.push(chunk);
            }
        }
        self.begun = rest;
        self.bytes -= bytes;
        message
    }
}

/// The same chunks without their first bytes.
fn without(chunks: &[Bytes], mut bytes: usize) -> Vec<Bytes> {
    let mut left = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let skipped = bytes.min(chunk.len());
        bytes -= skipped;
        left.push(chunk.slice(skipped..));
    }
    left
}

impl HttpBody for ChargedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(chunk) = this.whole.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            // Whoever asks for more of a stream has taken over what came before.
            if this.method.is_some_and(|method| method.streams) {
                this.charge.lock().shrink(std::mem::take(&mut this.paid));
            }
            let polled = Pin::new(&mut this.body).poll_frame(cx);
            match ready!(this.watch(cx, polled)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => {
                        if let Err(refusal) = this.take(chunk) {
                            return Poll::Ready(Some(Err(refusal)));
                        }
                    }
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if this.begun.is_empty() => return Poll::Ready(None),
                // Cut short: whoever decodes it says so.
                None => {
                    this.whole.extend(this.begun.drain(..));
                    this.bytes = 0;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_empty() && self.begun.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
