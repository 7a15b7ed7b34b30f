//! Asks replicas: enough of them, each of some, or one.

use super::{
    Shared,
    refusal::{Failures, no_memory, unreachable},
};
use crate::{
    budget::Paid,
    membership::PeerState,
    peer::{Call, CallError, Target, failure, weight},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use god_proto::{
    ids::{Epoch, NodeId},
    peer::{Cause, Failure, request, response},
    ring::{Ring, RingArc},
    v1::Rejected,
};
use god_rules::quorum::{JointReplicas, Need, ReplicaMask, ReplicaSelector};
use std::{
    cmp::Reverse,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

pub(super) type Reply = Result<response::Body, CallError>;

/// Whom a question goes to, under which ring, and until when.
#[derive(Clone)]
pub(super) struct QuorumScope {
    pub ring: Arc<Ring>,
    /// The latest epoch in which an arc that is asked about changed.
    pub arcs: Epoch,
    /// What was asked for, of which the rest follows.
    pub need: Need,
    /// Whom, and how many of each set must answer.
    pub replicas: JointReplicas,
    pub deadline: Instant,
    /// So much longer a member may take before another one is asked as well, as its answer is large.
    pub slack: Duration,
}

impl QuorumScope {
    /// For what lies in one arc of a ring.
    pub(super) fn new(ring: &Arc<Ring>, arc: &RingArc, need: Need, deadline: Instant) -> QuorumScope {
        let (ring, replicas) = (Arc::clone(ring), JointReplicas::of(ring, arc, need));
        QuorumScope { ring, arcs: arc.changed, need, replicas, deadline, slack: Duration::ZERO }
    }

    /// Names of members, for a preference in a later question.
    pub(super) fn nodes(&self, members: impl Iterator<Item = usize>) -> Vec<NodeId> {
        members.filter_map(|at| self.replicas.node(at)).collect()
    }
}

/// Why there are no answers.
#[derive(Debug)]
pub(super) enum QuorumError {
    /// The ring is newer than the one of the scope: begin again with that.
    Moved,
    /// Too few replicas answered.
    Failed(Rejected),
}

impl From<Rejected> for QuorumError {
    fn from(rejected: Rejected) -> QuorumError {
        QuorumError::Failed(rejected)
    }
}

/// What members said, each by its index.
pub(super) struct Answers<T> {
    pub said: Vec<(usize, T)>,
    /// For what they said, as long as it is held (BUDGET).
    pub paid: Paid,
}

/// A call to a member.
pub(super) struct MemberCall {
    pub at: usize,
    pub call: BoxFuture<'static, Reply>,
}

impl Future for MemberCall {
    type Output = (usize, Reply);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let at = self.at;
        self.call.poll_unpin(context).map(|reply| (at, reply))
    }
}

/// For what is told as a whole, or not at all.
pub(super) fn whole<T>(_: &mut Answers<T>, _: &mut T) -> bool {
    false
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
pub(super) fn other_epoch<T>(reply: &Result<T, CallError>) -> Option<&Failure> {
    match reply {
        Err(CallError::Refused(failure)) if failure.cause() == Cause::StaleEpoch => Some(failure),
        _ => None,
    }
}

/// A search for answers under way: what was heard, and what follows from it. Pure.
struct Gathering<'a> {
    scope: &'a QuorumScope,
    selector: ReplicaSelector<'a>,
    /// When each member that was asked is slow.
    patience: Vec<(Instant, usize)>,
    failures: Failures,
    /// Members that were given this node's ring.
    pushed: ReplicaMask,
    /// Members that were asked for theirs.
    caught_up: ReplicaMask,
}

/// What to do with a member's reply.
pub(super) enum Step {
    /// Take it.
    Take,
    /// Get the member's ring, which is of this epoch and newer than this node's, and hear it again. Once.
    CatchUp(u64),
    /// Take it, and go on under this node's ring, which is newer than the scope's.
    Moved,
    /// Give it this node's ring, as its own is older, and ask again.
    Push,
}

impl Step {
    /// By where this node's ring has got to, whether this member may be given it (again), and whether it was asked for
    /// its own before.
    pub(super) fn of(
        reply: &Reply,
        scope: &QuorumScope,
        current: Epoch,
        may_push: bool,
        caught_up: bool,
    ) -> Step {
        let Some(Failure { epoch, .. }) = other_epoch(reply) else { return Step::Take };
        let began = scope.ring.epoch();
        match *epoch > began.0 {
            true if current.0 < *epoch && !caught_up => Step::CatchUp(*epoch),
            true if current > began => Step::Moved,
            false if may_push => Step::Push,
            true | false => Step::Take,
        }
    }
}

impl<'a> Gathering<'a> {
    fn new(scope: &'a QuorumScope, order: Vec<usize>) -> Result<Gathering<'a>, Rejected> {
        let selector = ReplicaSelector::new(&scope.replicas, order);
        match selector.reachable() {
            (true, _) => {
                let (patience, failures) = (vec![], Failures::default());
                Ok(Gathering { scope, selector, patience, failures, pushed: 0, caught_up: 0 })
            }
            (false, shortfall) => Err(unreachable(shortfall)),
        }
    }

    fn asked(&mut self, at: usize, slow_at: Instant) {
        self.patience.push((slow_at, at));
    }

    /// What to do with a reply, where this node's ring is by now of the epoch `current`.
    fn heard(&mut self, at: usize, reply: &Reply, current: Epoch) -> Step {
        let who: ReplicaMask = 1 << at;
        let step = Step::of(reply, self.scope, current, self.pushed & who == 0, self.caught_up & who != 0);
        match step {
            Step::Push => self.pushed |= who,
            Step::CatchUp(_) => self.caught_up |= who,
            Step::Take | Step::Moved => {}
        }
        step
    }

    fn answered(&mut self, at: usize) {
        self.patience.retain(|(_, slow)| *slow != at);
        self.selector.answered(at);
    }

    fn failed(&mut self, at: usize, error: CallError) {
        self.patience.retain(|(_, slow)| *slow != at);
        self.selector.failed(at);
        if let Some(node) = self.scope.replicas.node(at) {
            self.failures.note(node, error);
        }
    }

    /// Whether there are answers enough, or cannot be any more.
    fn end(&self, now: Instant) -> Option<Result<(), Rejected>> {
        let failed = |late| Some(Err(self.failures.refusal(self.selector.shortfall(), late)));
        match self.selector.is_done() {
            // READS-BEFORE-PURGE: what answered late, because this process stood still, may have purged since.
            true if now > self.scope.deadline => failed(true),
            true => Some(Ok(())),
            false if self.selector.has_hope() => None,
            false => failed(false),
        }
    }

    /// When to look for slow ones.
    fn wake(&self) -> Instant {
        let soonest = self.patience.iter().map(|(when, _)| *when).min();
        soonest.map_or(self.scope.deadline, |soonest| soonest.min(self.scope.deadline))
    }

    /// Whom to ask as well as those that are slow; the refusal where time is up.
    fn slow(&mut self, now: Instant) -> Result<Vec<usize>, Rejected> {
        if now >= self.scope.deadline {
            for node in self.selector.pending().filter_map(|at| self.scope.replicas.node(at)) {
                self.failures.note(node, CallError::TimedOut);
            }
            return Err(self.failures.refusal(self.selector.shortfall(), true));
        }
        let slow = self.patience.extract_if(.., |(when, _)| *when <= now);
        let hedges: Vec<usize> = slow.filter_map(|(_, at)| self.selector.hedge(at)).collect();
        metrics::counter!("god_quorum_hedges_total").increment(hedges.len() as u64);
        Ok(hedges)
    }
}

impl Shared {
    /// Members that may be asked, best first: this node, then by state and round trip.
    fn order(&self, replicas: &JointReplicas, prefer: &[NodeId]) -> Vec<usize> {
        let mut order: Vec<_> = replicas
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
    pub(super) fn reachable(&self, replicas: &JointReplicas) -> ReplicaMask {
        replicas.those(|node| self.liveness.state(node) != PeerState::Down)
    }

    /// How long a member may take before another one is asked as well.
    fn patience(&self, node: Option<NodeId>) -> Duration {
        let round_trip = node.and_then(|node| self.liveness.peer(node).round_trip).unwrap_or_default();
        self.settings.hedge_delay.max(round_trip * 3)
    }

    pub(super) fn call(
        &self,
        scope: &QuorumScope,
        at: usize,
        timeout: Duration,
        body: request::Body,
    ) -> MemberCall {
        let call = match scope.replicas.node(at) {
            Some(node) => {
                let call = Call { epoch: scope.ring.epoch().0, arcs: scope.arcs.0, timeout, body };
                self.transport.call(Target::Node(node), call)
            }
            None => async { Err(CallError::NotSent("it is no replica".to_owned())) }.boxed(),
        };
        MemberCall { at, call }
    }

    /// The same call again, after this node's ring was given to a member that has an older one.
    pub(super) fn call_after_push(
        &self,
        scope: &QuorumScope,
        at: usize,
        timeout: Duration,
        body: request::Body,
    ) -> MemberCall {
        let MemberCall { call, .. } = match scope.replicas.node(at) {
            Some(node) => {
                let push = self.sync.push(node, Arc::clone(&scope.ring));
                let (transport, epoch) = (Arc::clone(&self.transport), scope.ring.epoch().0);
                let arcs = scope.arcs.0;
                let call = async move {
                    let until = Instant::now() + timeout;
                    if timeout_at(until, push).await.is_err() {
                        return Err(CallError::NotSent("it did not take the newer ring in time".to_owned()));
                    }
                    let timeout = until.saturating_duration_since(Instant::now());
                    transport.call(Target::Node(node), Call { epoch, arcs, timeout, body }).await
                };
                MemberCall { at, call: call.boxed() }
            }
            None => self.call(scope, at, timeout, body),
        };
        MemberCall { at, call }
    }

    /// A reply once more, after this node asked the member for its ring, which is of another epoch. What others say is
    /// heard meanwhile: the member may be slow. Where one of those `was_asked` for its own ring, that is as good, and
    /// this one is asked only once that lasts: at a change of the ring all of them refuse at once.
    pub(super) fn call_after_catch_up(
        &self,
        scope: &QuorumScope,
        at: usize,
        epoch: u64,
        was_asked: bool,
        reply: Reply,
    ) -> MemberCall {
        let (mut changes, patience) = (self.ring.changes(), self.patience(scope.replicas.node(at)));
        let catch_up = self.catch_up(scope, at, epoch);
        let call = async move {
            let newer = changes.wait_for(|current| current.0 >= epoch);
            if !(was_asked && timeout(patience, newer).await.is_ok()) {
                catch_up.await;
            }
            reply
        };
        MemberCall { at, call: call.boxed() }
    }

    /// Gets the newer ring, of this epoch, of a member that refused, unless this node has it by now.
    fn catch_up(&self, scope: &QuorumScope, at: usize, epoch: u64) -> impl Future<Output = ()> + use<> {
        let member = scope.replicas.node(at).filter(|_| self.ring.epoch().0 < epoch);
        let fetch = member.map(|node| timeout_at(scope.deadline, self.sync.fetch(Target::Node(node))));
        async move {
            if let Some(fetch) = fetch {
                // Out of time or not: what counts is the ring that is there afterwards.
                let _late = fetch.await;
            }
        }
    }

    /// The same, and whether this node now has a ring newer than the scope's.
    pub(super) async fn has_moved(&self, scope: &QuorumScope, at: usize, epoch: u64) -> bool {
        self.catch_up(scope, at, epoch).await;
        self.ring.epoch() > scope.ring.epoch()
    }

    /// Answers of enough members; `body` is what a member is asked, by its index. Asks another member for each that
    /// fails, and as well as each that is slow. Refused as busy where there is no memory for what they say, and `fit`
    /// cannot make what one of them says small enough.
    pub(super) async fn gather<T>(
        &self,
        scope: &QuorumScope,
        prefer: &[NodeId],
        body: impl Fn(usize) -> request::Body,
        decode: impl Fn(response::Body) -> Result<T, CallError>,
        fit: impl FnMut(&mut Answers<T>, &mut T) -> bool,
    ) -> Result<Answers<T>, QuorumError> {
        let mut answers = Answers { said: Vec::new(), paid: Paid::default() };
        self.gather_into(&mut answers, scope, prefer, body, decode, fit).await?;
        Ok(answers)
    }

    /// The same, where some of it is paid for before it comes. What is paid stays so where too few answer.
    pub(super) async fn gather_into<T>(
        &self,
        answers: &mut Answers<T>,
        scope: &QuorumScope,
        prefer: &[NodeId],
        body: impl Fn(usize) -> request::Body,
        decode: impl Fn(response::Body) -> Result<T, CallError>,
        mut fit: impl FnMut(&mut Answers<T>, &mut T) -> bool,
    ) -> Result<(), QuorumError> {
        let mut gathering = Gathering::new(scope, self.order(&scope.replicas, prefer))?;
        let left = || scope.deadline.saturating_duration_since(Instant::now());
        let mut calls = FuturesUnordered::new();
        let timer = sleep_until(scope.deadline);
        tokio::pin!(timer);
        let (mut hedges, mut catches_up) = (Vec::new(), false);
        loop {
            for at in std::mem::take(&mut hedges).into_iter().chain(gathering.selector.ask()) {
                calls.push(self.call(scope, at, left(), body(at)));
                gathering.asked(at, Instant::now() + self.patience(scope.replicas.node(at)) + scope.slack);
            }
            if let Some(end) = gathering.end(Instant::now()) {
                return end.map_err(QuorumError::Failed);
            }
            if timer.deadline() != gathering.wake() {
                timer.as_mut().reset(gathering.wake());
            }
            let heard = tokio::select! {
                biased;
                Some(heard) = calls.next() => Some(heard),
                () = &mut timer => None,
            };
            let Some((at, reply)) = heard else {
                hedges = gathering.slow(Instant::now())?;
                continue;
            };
            match gathering.heard(at, &reply, self.ring.epoch()) {
                Step::Take => match self.afford(answers, reply, &decode, &mut fit)? {
                    Ok(answer) => {
                        gathering.answered(at);
                        answers.said.push((at, answer));
                    }
                    Err(error) => gathering.failed(at, error),
                },
                Step::CatchUp(epoch) => {
                    let was_asked = std::mem::replace(&mut catches_up, true);
                    calls.push(self.call_after_catch_up(scope, at, epoch, was_asked, reply));
                }
                Step::Moved => return Err(QuorumError::Moved),
                Step::Push => calls.push(self.call_after_push(scope, at, left(), body(at))),
            }
        }
    }

    /// What a reply says, or as much of it as there is memory for; the outer error: there is none.
    fn afford<T>(
        &self,
        answers: &mut Answers<T>,
        reply: Reply,
        decode: impl Fn(response::Body) -> Result<T, CallError>,
        mut fit: impl FnMut(&mut Answers<T>, &mut T) -> bool,
    ) -> Result<Result<T, CallError>, Rejected> {
        // Nothing waits meanwhile: what is not paid for, or not kept, is gone at once.
        let bytes = reply.as_ref().map_or(0, weight);
        let mut answer = match reply.and_then(decode) {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        let is_paid = answers.paid.pay(&self.settings.budget, bytes);
        if is_paid || fit(answers, &mut answer) { Ok(Ok(answer)) } else { Err(no_memory()) }
    }

    /// Asks some members, each its own question, until `each`, told of every answer, says that it is enough, or time is
    /// up. What they say adds to what is `paid`; the error is that there is no memory for it.
    pub(super) async fn ask_each<T>(
        &self,
        scope: &QuorumScope,
        paid: &mut Paid,
        asked: impl IntoIterator<Item = (usize, request::Body)>,
        decode: impl Fn(response::Body) -> Result<T, CallError>,
        mut each: impl FnMut(usize, Result<T, CallError>) -> bool,
    ) -> Result<(), Rejected> {
        let left = scope.deadline.saturating_duration_since(Instant::now());
        let mut calls: FuturesUnordered<MemberCall> =
            asked.into_iter().map(|(at, body)| self.call(scope, at, left, body)).collect();
        let all = async {
            while let Some((at, reply)) = calls.next().await {
                let bytes = reply.as_ref().map_or(0, weight);
                let answer = reply.and_then(&decode);
                if answer.is_ok() && !paid.pay(&self.settings.budget, bytes) {
                    return Err(no_memory());
                }
                if each(at, answer) {
                    break;
                }
            }
            Ok(())
        };
        // Who did not answer by then is not told of.
        timeout_at(scope.deadline, all).await.unwrap_or(Ok(()))
    }

    /// Asks one member.
    pub(super) async fn ask_one<T>(
        &self,
        scope: &QuorumScope,
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
