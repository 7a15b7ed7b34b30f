//! The way of a call about one key: to a node, back, and where that is safe to the next one.

use crate::{
    Error, Result,
    client::Inner,
    connection::{CallResult, Caller, Lost, Waiting},
    node::Node,
    retry,
};
use bytes::Bytes;
use god_proto::v1::{
    Consistency, DeleteRequest, GetReply, GetRequest, PutRequest, Reason, Rejected, Version, WriteReply,
    answer, call, get_reply, write_reply,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

/// Nodes that one call is offered to at most.
const TRIED: usize = 16;
/// A call takes a place in flight for each so many bytes.
const BYTES_A_PLACE: usize = 16 << 10;

/// What is asked about the key.
#[derive(Clone)]
pub(crate) enum Op {
    Put { value: Bytes, ttl_ms: u64 },
    Delete,
    Get { at_least: Option<Version> },
}

/// A call about one key.
pub(crate) struct KeyCall<'a> {
    pub keyspace: &'a str,
    pub key: Bytes,
    pub op: Op,
    pub consistency: Option<Consistency>,
    pub timeout: Duration,
}

/// What an answer says that is not the end of it.
enum Tried {
    Done(answer::Answer),
    Over(Error),
    /// Nothing happened there; another try makes sense.
    Again(Again),
}

struct Again {
    error: Error,
    /// Whether a node had work with it, so that a try again counts.
    counts: bool,
    wait: Option<Wait>,
}

#[derive(Clone, Copy)]
enum Wait {
    /// A little.
    Short,
    /// At least so long.
    Asked(Duration),
}

impl KeyCall<'_> {
    fn is_write(&self) -> bool {
        !matches!(self.op, Op::Get { .. })
    }

    fn bytes(&self) -> usize {
        let value = if let Op::Put { value, .. } = &self.op { value.len() } else { 0 };
        self.key.len() + value
    }

    fn wire(&self) -> call::Call {
        let keyspace = self.keyspace.to_owned();
        let (key, consistency) = (self.key.clone(), self.consistency);
        match &self.op {
            Op::Put { value, ttl_ms } => call::Call::Put(PutRequest {
                keyspace,
                key,
                value: value.clone(),
                consistency,
                ttl_ms: *ttl_ms,
                timeout_ms: 0,
            }),
            Op::Delete => call::Call::Delete(DeleteRequest { keyspace, key, consistency, timeout_ms: 0 }),
            Op::Get { at_least } => {
                call::Call::Get(GetRequest { keyspace, key, consistency, timeout_ms: 0, at_least: *at_least })
            }
        }
    }
}

impl Inner {
    /// Makes a call: sent again only where nothing can have happened, or where it does not matter, and within the
    /// budget.
    pub async fn call(&self, call: &KeyCall<'_>) -> Result<answer::Answer> {
        let deadline = Instant::now() + call.timeout;
        self.budget.call();
        let mut tried: Vec<Arc<Node>> = Vec::new();
        let mut attempts = 0;
        let mut last = None;
        loop {
            let node = self.routes.load().for_key(call.keyspace, &call.key, &tried).cloned();
            let Some(node) = node.filter(|_| tried.len() < TRIED) else {
                return Err(last.unwrap_or_else(nobody));
            };
            let outcome = self.attempt(&node, call, deadline).await;
            let again = match self.judge(call, &node, outcome, deadline).await {
                Tried::Done(answer) => return Ok(answer),
                Tried::Over(error) => return Err(error),
                Tried::Again(again) => again,
            };
            let busy = again.error.reason() == Some(Reason::Busy);
            if again.counts {
                attempts += 1;
                if attempts > self.settings.retries || !self.budget.take() {
                    tracing::debug!(server = node.address(), error = %again.error, attempts, "not tried again");
                    return Err(again.error);
                }
            }
            tracing::debug!(server = node.address(), error = %again.error, attempts, "tried again");
            // What a node said is worth more than that the next one could not be reached.
            if again.counts || last.is_none() {
                last = Some(again.error);
            }
            tried.push(node);
            if busy && self.routes.load().for_key(call.keyspace, &call.key, &tried).is_none() {
                tried.clear();
            }
            let wait = match again.wait {
                None => continue,
                Some(Wait::Short) => retry::wait(attempts, None),
                Some(Wait::Asked(asked)) => retry::wait(attempts, Some(asked)),
            };
            if Instant::now() + wait >= deadline {
                return Err(last.unwrap_or_else(nobody));
            }
            sleep(wait).await;
        }
    }

    async fn attempt(&self, node: &Node, call: &KeyCall<'_>, deadline: Instant) -> CallResult {
        let bytes = call.bytes();
        let places =
            u32::try_from(1 + bytes / BYTES_A_PLACE).unwrap_or(u32::MAX).min(self.settings.in_flight);
        let free = &self.shared.places;
        let taken = match free.try_acquire_many(places) {
            Ok(taken) => taken,
            Err(_) => match timeout_at(deadline, free.acquire_many(places)).await {
                Ok(Ok(taken)) => taken,
                _ => {
                    return Err(Lost::NotSent(
                        "the time was up while too many calls were in flight".to_owned(),
                    ));
                }
            },
        };
        let (reply, outcome) = oneshot::channel();
        let caller = Some(Caller { reply, places, is_read: !call.is_write() });
        node.push(Waiting { call: call.wire(), bytes, deadline, caller })?;
        // The connection gives them back.
        taken.forget();
        outcome.await.unwrap_or_else(|_| Err(Lost::Broke("the client was closed".to_owned())))
    }

    async fn judge(&self, call: &KeyCall<'_>, node: &Node, outcome: CallResult, deadline: Instant) -> Tried {
        let rejected = match outcome {
            Ok(answer::Answer::Write(reply)) => match reply.outcome {
                Some(write_reply::Outcome::Rejected(rejected)) => rejected,
                outcome => return Tried::Done(answer::Answer::Write(WriteReply { outcome })),
            },
            Ok(answer::Answer::Get(reply)) => match reply.outcome {
                Some(get_reply::Outcome::Failed(failed)) => failed,
                outcome => return Tried::Done(answer::Answer::Get(GetReply { outcome })),
            },
            Err(lost) => return lost_on_the_way(call, node, lost, deadline),
        };
        let wait = after(&rejected);
        let error = Error::from(rejected);
        let elsewhere = self.elsewhere(call.keyspace, &error, deadline).await;
        if elsewhere { Tried::Again(Again { error, counts: true, wait }) } else { Tried::Over(error) }
    }
}

/// Whether to wait before the next try.
fn after(rejected: &Rejected) -> Option<Wait> {
    match (rejected.reason(), rejected.retry_after_ms) {
        (_, ms @ 1..) => Some(Wait::Asked(Duration::from_millis(ms.into()))),
        (Reason::Busy | Reason::Stale | Reason::NoSuchKeyspace, 0) => Some(Wait::Short),
        _ => None,
    }
}

fn lost_on_the_way(call: &KeyCall<'_>, node: &Node, lost: Lost, deadline: Instant) -> Tried {
    let address = node.address();
    let unknown = |what: String| {
        Tried::Over(Error::Unknown { version: None, acks: 0, message: format!("{address} {what}") })
    };
    let again = |message: String, counts: bool| {
        Tried::Again(Again { error: Error::Unreachable(message), counts, wait: None })
    };
    match lost {
        Lost::NotSent(why) if Instant::now() >= deadline => Tried::Over(Error::Unreachable(format!(
            "no answer within {:?}, and nothing was written: {why}",
            call.timeout
        ))),
        Lost::NotSent(why) => again(why, false),
        Lost::Full => again(format!("too much is waiting for {address}"), false),
        Lost::TimedOut if call.is_write() => unknown(format!("did not answer within {:?}", call.timeout)),
        Lost::TimedOut => {
            Tried::Over(Error::Unreachable(format!("{address} did not answer within {:?}", call.timeout)))
        }
        Lost::Broke(why) if call.is_write() => unknown(format!("did not answer: {why}")),
        Lost::Stalled if call.is_write() => unknown("does not answer".to_owned()),
        Lost::Broke(why) => again(format!("{address} did not answer: {why}"), true),
        Lost::Stalled => again(format!("{address} does not answer"), true),
    }
}

fn nobody() -> Error {
    Error::Unreachable("there is no server to ask".to_owned())
}
