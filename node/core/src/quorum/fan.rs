//! Asks replicas: enough of them, each of some, or one.

use super::{
    Shared,
    refusal::{Failures, unreachable},
};
use crate::{
    membership::PeerState,
    peer::{Call, CallError, Target, failure},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use god_proto::{
    ids::NodeId,
    peer::{Cause, Failure, request, response},
    ring::Ring,
    v1::Rejected,
};
use god_rules::quorum::{Hunt, Mask, Sets, bits};
use std::{
    cmp::Reverse,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout_at};

pub(super) type Reply = Result<response::Body, CallError>;

/// Whom a question goes to, under which ring, and until when.
#[derive(Clone)]
pub(super) struct Scope {
    pub ring: Arc<Ring>,
    /// Whom, and how many of each set must answer.
    pub sets: Sets,
    pub deadline: Instant,
}

impl Scope {
    /// Names of members, for a preference in a later question.
    pub(super) fn nodes(&self, members: impl Iterator<Item = usize>) -> Vec<NodeId> {
        members.filter_map(|at| self.sets.node(at)).collect()
    }
}

/// Why there are no answers.
#[derive(Debug)]
pub(super) enum Short {
    /// The ring is newer than the one of the scope: begin again with that.
    Moved,
    /// Too few replicas answered.
    Failed(Rejected),
}

impl From<Rejected> for Short {
    fn from(rejected: Rejected) -> Short {
        Short::Failed(rejected)
    }
}

/// A call to a member.
pub(super) struct Asked {
    pub at: usize,
    pub call: BoxFuture<'static, Reply>,
}

impl Future for Asked {
    type Output = (usize, Reply);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let at = self.at;
        self.call.poll_unpin(context).map(|reply| (at, reply))
    }
}

/// An answer that no honest replica gives. Whether it acted is open.
pub(super) fn strange(what: &str) -> CallError {
    CallError::Lost(format!("its answer {what}"))
}

/// The refusal of an entry at whose position a replica holds something that it cannot read, nor overwrite.
pub(super) fn damaged() -> CallError {
    CallError::Refused(failure(Cause::Corrupt, "what it holds there is damaged, and was not overwritten"))
}

/// The refusal of a replica whose ring is of another epoch.
pub(super) fn other_epoch(reply: &Reply) -> Option<&Failure> {
    match reply {
        Err(CallError::Refused(failure)) if failure.cause() == Cause::StaleEpoch => Some(failure),
        _ => None,
    }
}

impl Shared {
    /// Members that may be asked, best first: this node, then by state and round trip.
    fn order(&self, sets: &Sets, prefer: &[NodeId]) -> Vec<usize> {
        let mut order: Vec<_> = sets
            .members()
            .iter()
            .enumerate()
            .map(|(at, node)| (at, *node, self.liveness.peer(*node)))
            .filter(|(_, _, peer)| peer.state != PeerState::Down)
            .map(|(at, node, peer)| {
                let suspect = peer.state == PeerState::Suspect;
                let far = peer.round_trip.unwrap_or(Duration::from_millis(1));
                (Reverse(prefer.contains(&node)), node != self.me, suspect, far, at)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., at)| at).collect()
    }

    /// Members that are not known to be gone.
    pub(super) fn reachable(&self, sets: &Sets) -> Mask {
        sets.those(|node| self.liveness.state(node) != PeerState::Down)
    }

    /// How long a member may take before another one is asked as well.
    fn patience(&self, node: Option<NodeId>) -> Duration {
        let round_trip = node.and_then(|node| self.liveness.peer(node).round_trip).unwrap_or_default();
        self.settings.hedge_delay.max(round_trip * 3)
    }

    pub(super) fn call(&self, scope: &Scope, at: usize, timeout: Duration, body: request::Body) -> Asked {
        let call = match scope.sets.node(at) {
            Some(node) => {
                let call = Call { epoch: scope.ring.epoch().0, timeout, body };
                self.transport.call(Target::Node(node), call)
            }
            None => async { Err(CallError::NotSent("it is no replica".to_owned())) }.boxed(),
        };
        Asked { at, call }
    }

    /// The same call again, after this node's ring was given to a member that has an older one.
    pub(super) fn call_after_push(
        &self,
        scope: &Scope,
        at: usize,
        timeout: Duration,
        body: request::Body,
    ) -> Asked {
        let Asked { call, .. } = match scope.sets.node(at) {
            Some(node) => {
                let push = self.sync.push(node, Arc::clone(&scope.ring));
                let (transport, epoch) = (Arc::clone(&self.transport), scope.ring.epoch().0);
                let call = async move {
                    let until = Instant::now() + timeout;
                    if timeout_at(until, push).await.is_err() {
                        return Err(CallError::NotSent("it did not take the newer ring in time".to_owned()));
                    }
                    let timeout = until.saturating_duration_since(Instant::now());
                    transport.call(Target::Node(node), Call { epoch, timeout, body }).await
                };
                Asked { at, call: call.boxed() }
            }
            None => self.call(scope, at, timeout, body),
        };
        Asked { at, call }
    }

    /// Gets the newer ring of a member that refused; says whether this node now has one newer than the scope's.
    pub(super) async fn catch_up(&self, scope: &Scope, at: usize, epoch: u64) -> bool {
        if let Some(node) = scope.sets.node(at)
            && self.ring.epoch().0 < epoch
        {
            // Out of time or not: what counts is the ring that is there afterwards.
            let _late = timeout_at(scope.deadline, self.sync.fetch(Target::Node(node))).await;
        }
        self.ring.epoch() > scope.ring.epoch()
    }

    /// Answers of enough members, by their index. Asks another member for each that fails, and as well as each that
    /// is slow.
    pub(super) async fn gather<T>(
        &self,
        scope: &Scope,
        prefer: &[NodeId],
        body: impl Fn() -> request::Body,
        decode: impl Fn(response::Body) -> Result<T, CallError>,
    ) -> Result<Vec<(usize, T)>, Short> {
        let mut hunt = Hunt::new(&scope.sets, self.order(&scope.sets, prefer));
        let (reachable, shortfall) = hunt.reachable();
        if !reachable {
            return Err(Short::Failed(unreachable(shortfall)));
        }
        let left = || scope.deadline.saturating_duration_since(Instant::now());
        let mut calls = FuturesUnordered::new();
        let mut hedges: Vec<(Instant, usize)> = Vec::new();
        let mut answers = Vec::new();
        let mut failures = Failures::default();
        let mut pushed: Mask = 0;
        let timer = sleep_until(scope.deadline);
        tokio::pin!(timer);
        loop {
            for at in hunt.ask() {
                calls.push(self.call(scope, at, left(), body()));
                hedges.push((Instant::now() + self.patience(scope.sets.node(at)), at));
            }
            if hunt.is_done() {
                // READS-BEFORE-PURGE: what answered late, because this process stood still, may have purged since.
                return match Instant::now() > scope.deadline {
                    true => Err(Short::Failed(failures.refusal(hunt.shortfall(), true))),
                    false => Ok(answers),
                };
            }
            if !hunt.has_hope() {
                return Err(Short::Failed(failures.refusal(hunt.shortfall(), false)));
            }
            let wake =
                hedges.iter().map(|(when, _)| *when).min().unwrap_or(scope.deadline).min(scope.deadline);
            if timer.deadline() != wake {
                timer.as_mut().reset(wake);
            }
            tokio::select! {
                biased;
                Some((at, reply)) = calls.next() => {
                    if let Some(failure) = other_epoch(&reply) {
                        if failure.epoch > scope.ring.epoch().0 {
                            if self.catch_up(scope, at, failure.epoch).await {
                                return Err(Short::Moved);
                            }
                        } else if pushed & 1 << at == 0 {
                            pushed |= 1 << at;
                            calls.push(self.call_after_push(scope, at, left(), body()));
                            continue;
                        }
                    }
                    hedges.retain(|(_, slow)| *slow != at);
                    match reply.and_then(&decode) {
                        Ok(answer) => {
                            hunt.answered(at);
                            answers.push((at, answer));
                        }
                        Err(error) => {
                            hunt.failed(at);
                            if let Some(node) = scope.sets.node(at) {
                                failures.note(node, error);
                            }
                        }
                    }
                }
                () = &mut timer => {
                    let now = Instant::now();
                    if now >= scope.deadline {
                        for at in hunt.pending() {
                            if let Some(node) = scope.sets.node(at) {
                                failures.note(node, CallError::TimedOut);
                            }
                        }
                        return Err(Short::Failed(failures.refusal(hunt.shortfall(), true)));
                    }
                    let slow: Vec<usize> = hedges.extract_if(.., |(when, _)| *when <= now).map(|(_, at)| at).collect();
                    for at in slow.into_iter().filter_map(|at| hunt.hedge(at)) {
                        metrics::counter!("god_quorum_hedges_total").increment(1);
                        calls.push(self.call(scope, at, left(), body()));
                        hedges.push((now + self.patience(scope.sets.node(at)), at));
                    }
                }
            }
        }
    }

    /// Asks each of some members until `each`, told of every answer, says that it is enough, or time is up.
    pub(super) async fn ask_each<T>(
        &self,
        scope: &Scope,
        who: Mask,
        body: impl Fn(usize) -> request::Body,
        decode: impl Fn(response::Body) -> Result<T, CallError>,
        mut each: impl FnMut(usize, Result<T, CallError>) -> bool,
    ) {
        let left = scope.deadline.saturating_duration_since(Instant::now());
        let mut calls: FuturesUnordered<Asked> =
            bits(who).map(|at| self.call(scope, at, left, body(at))).collect();
        let all = async {
            while let Some((at, reply)) = calls.next().await {
                if each(at, reply.and_then(&decode)) {
                    return;
                }
            }
        };
        // Who did not answer by then is not told of.
        let _late = timeout_at(scope.deadline, all).await;
    }

    /// Asks one member.
    pub(super) async fn ask_one<T>(
        &self,
        scope: &Scope,
        at: usize,
        body: request::Body,
        decode: impl Fn(response::Body) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let left = scope.deadline.saturating_duration_since(Instant::now());
        match timeout_at(scope.deadline, self.call(scope, at, left, body)).await {
            Ok((_, reply)) => reply.and_then(decode),
            Err(_) => Err(CallError::TimedOut),
        }
    }
}
