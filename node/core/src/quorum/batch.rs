//! Answers a batch of calls: those for the same replicas travel together.

use super::{
    Coordinator, Shared,
    admit::{PendingCall, What, admit},
    fan::{QuorumError, QuorumScope},
    read::{seen, too_large},
    refusal::{no_memory, not_initialised, ring_moves},
};
use crate::budget::Paid;
use futures::future::join_all;
use god_proto::{
    MAX_BATCH,
    ids::{KeyspaceId, NodeId},
    position::Position,
    ring::{Ring, RingArc},
    v1::{Answer, Call, Reason, Rejected, Unknown, get_reply, write_reply},
    version::Version,
};
use god_rules::quorum::Need;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tokio::time::{Instant, timeout_at};

/// How often a request begins again under a newer ring.
pub(super) const MAX_RINGS: usize = 5;
/// Bytes of writes in one message, but for a larger single one.
const MESSAGE_BYTES: usize = 8 << 20;
/// Bytes of values that reads of the same replicas get in one batch, but for the message that passes it.
const READ_BYTES: usize = 32 << 20;

/// A call may get this part of its time less, to travel with others.
const HASTE: u32 = 32;

/// What calls must share to travel in one message: the replicas, those to come, and what is asked of them.
type Group<Nodes> = (Nodes, Option<Nodes>, KeyspaceId, bool, Need);

/// Calls of one group, and of their arcs the one that changed last: what is asked is asked about that (ARC-EPOCH).
type Grouped<'a> = (&'a RingArc, Vec<PendingCall>);

/// Answers, each with its slot.
#[derive(Default)]
pub(super) struct Answered {
    answers: Vec<(usize, Answer)>,
    /// For the values among them (BUDGET).
    paid: Paid,
}

impl Answered {
    /// For so many.
    pub(super) fn with_room(count: usize) -> Answered {
        Answered { answers: Vec::with_capacity(count), paid: Paid::default() }
    }

    pub(super) fn push(&mut self, answer: (usize, Answer)) {
        self.answers.push(answer);
    }

    pub(super) fn extend(&mut self, answers: impl IntoIterator<Item = (usize, Answer)>) {
        self.answers.extend(answers);
    }

    fn absorb(&mut self, other: Answered) {
        self.answers.extend(other.answers);
        self.paid.absorb(other.paid);
    }
}

/// What came of some calls: answers, and what must go on under a newer ring.
pub(super) type Carried = (Answered, Vec<PendingCall>);

impl Coordinator {
    /// Answers each call, in the same order. Not a transaction: each has its own outcome; those for one key take
    /// effect in the order of the batch. Every call is answered by its deadline.
    pub async fn batch(&self, calls: Vec<Call>) -> Vec<Answer> {
        let shared = &self.0;
        let kinds: Vec<bool> = calls.iter().map(Call::is_read).collect();
        let mut answers: Vec<Option<Answer>> = vec![None; calls.len()];
        let answered = shared.answer(calls).await;
        for (slot, answer) in answered.answers {
            if let Some(place) = answers.get_mut(slot) {
                *place = Some(answer);
            }
        }
        // Every call has its answer by now. One that has none must look neither like success nor like nothing.
        let silent = |read: bool| {
            let message = "the coordinator lost track of the call, a defect of this program".to_owned();
            match read {
                true => Answer::refused(true, Rejected::of(Reason::Unspecified, message)),
                false => {
                    let outcome = write_reply::Outcome::Unknown(Unknown { version: None, acks: 0, message });
                    outcome.into()
                }
            }
        };
        answers.into_iter().zip(kinds).map(|(answer, read)| answer.unwrap_or_else(|| silent(read))).collect()
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, calls: Vec<Call>) -> Answered {
        let mut answers = Answered::with_room(calls.len());
        if calls.len() > MAX_BATCH {
            let message = format!("the batch has {} calls; the most is {MAX_BATCH}", calls.len());
            return refused(&calls, &Rejected::of(Reason::Invalid, message));
        }
        let Some(ring) = self.ring.get() else { return refused(&calls, &not_initialised()) };
        let (start, now_ms) = (Instant::now(), self.clock.hybrid_ms());
        let deadline = |timeout_ms| start + self.settings.timeout(timeout_ms);
        let mut pending = Vec::with_capacity(calls.len());
        let mut asleep: BTreeMap<KeyspaceId, Instant> = BTreeMap::new();
        for (slot, call) in calls.into_iter().enumerate() {
            let read = call.is_read();
            match admit(&ring, slot, call, now_ms, deadline) {
                Ok(call) => {
                    if let Some(keyspace) = call.wakes {
                        let soonest = asleep.entry(keyspace).or_insert(call.deadline);
                        *soonest = call.deadline.min(*soonest);
                    }
                    pending.push(call);
                }
                Err(why) => answers.push((slot, Answer::refused(read, why))),
            }
        }
        drop(ring);
        if !asleep.is_empty() {
            self.wake(asleep, &mut pending, &mut answers).await;
        }
        for stage in stages(pending) {
            self.carry(stage, &mut answers).await;
        }
        answers
    }

    /// Makes keyspaces live before their first write (invariant EMPTY-MOVES-FREE).
    async fn wake(
        &self,
        asleep: BTreeMap<KeyspaceId, Instant>,
        pending: &mut Vec<PendingCall>,
        answers: &mut Answered,
    ) {
        for (keyspace, deadline) in asleep {
            let problem = match timeout_at(deadline, self.sync.make_live(keyspace)).await {
                Ok(Ok(())) => continue,
                Ok(Err(problem)) => Rejected::later(Reason::Unavailable, problem, 200),
                Err(_) => Rejected::later(
                    Reason::Deadline,
                    "the keyspace could not be opened for writes in time",
                    200,
                ),
            };
            let stuck = |call: &mut PendingCall| call.wakes == Some(keyspace);
            answers.extend(pending.extract_if(.., stuck).map(|call| call.refused(problem.clone())));
        }
    }

    /// Carries calls to their replicas, again under each newer ring that is met.
    async fn carry(self: &Arc<Self>, mut calls: Vec<PendingCall>, answers: &mut Answered) {
        for _ in 0..MAX_RINGS {
            let Some(ring) = self.ring.get() else { break };
            let again = self.attempt(&ring, calls, answers).await;
            if again.is_empty() {
                return;
            }
            calls = again;
        }
        answers.extend(calls.into_iter().map(|call| call.refused(ring_moves())));
    }

    async fn attempt(
        self: &Arc<Self>,
        ring: &Arc<Ring>,
        calls: Vec<PendingCall>,
        answers: &mut Answered,
    ) -> Vec<PendingCall> {
        let mut again = Vec::new();
        let mut messages = Vec::new();
        for ((.., write, need), (arc, calls)) in groups(ring, calls, answers) {
            for (deadline, calls) in hastened(calls, Instant::now()) {
                let scope = QuorumScope::new(ring, arc, need, deadline);
                for calls in chunks(calls) {
                    messages.push(self.message(scope.clone(), write, calls));
                }
            }
        }
        if messages.len() == 1
            && let Some(message) = messages.pop()
        {
            let (done, moved) = message.await;
            answers.absorb(done);
            return moved;
        }
        for (done, moved) in join_all(messages).await {
            answers.absorb(done);
            again.extend(moved);
        }
        again
    }

    /// Carries one message's calls; gives answers, and what must go on under a newer ring.
    async fn message(self: &Arc<Self>, scope: QuorumScope, write: bool, calls: Vec<PendingCall>) -> Carried {
        if write { self.write(scope, calls).await } else { self.read_calls(scope, calls).await }
    }

    /// As many messages as the values take. Beyond a bound in bytes the rest is to be asked for again.
    async fn read_calls(&self, scope: QuorumScope, mut calls: Vec<PendingCall>) -> Carried {
        let mut answers = Answered::with_room(calls.len());
        if self.settings.budget.is_spent() {
            self.settings.budget.refused();
            let busy = no_memory();
            answers.extend(calls.into_iter().map(|call| call.refused(busy.clone())));
            return (answers, Vec::new());
        }
        let mut bytes = 0;
        while !calls.is_empty() {
            if bytes >= READ_BYTES || bytes > 0 && self.settings.budget.is_spent() {
                let message =
                    format!("values of {} MiB are on their way; ask again for the rest", bytes >> 20);
                let rest = Rejected::later(Reason::Busy, message, 10);
                answers.extend(calls.into_iter().map(|call| call.refused(rest.clone())));
                break;
            }
            let asked: Vec<(Position, Version)> = calls
                .iter()
                .map(|call| match call.what {
                    What::Read { at_least } => (call.position.clone(), at_least),
                    What::Write { .. } => (call.position.clone(), Version::ZERO),
                })
                .collect();
            let got = match self.read(&scope, &[], &asked).await {
                // At least one is got each time; none would be asked for again for ever.
                Ok((got, paid)) => {
                    answers.paid.absorb(paid);
                    if got.is_empty() { vec![Err(too_large())] } else { got }
                }
                Err(QuorumError::Moved) => return (answers, calls),
                Err(QuorumError::Failed(rejected)) => {
                    answers.extend(calls.into_iter().map(|call| call.refused(rejected.clone())));
                    break;
                }
            };
            for (call, got) in calls.drain(..got.len().min(asked.len())).zip(got) {
                let value = got.as_ref().ok().and_then(Option::as_ref).map_or(0, |record| record.value.len());
                bytes += value;
                let outcome = match got {
                    Ok(record) => seen(record),
                    Err(rejected) => get_reply::Outcome::Failed(rejected),
                };
                answers.push((call.slot, outcome.into()));
            }
        }
        (answers, Vec::new())
    }
}

/// The same refusal for each call.
fn refused(calls: &[Call], why: &Rejected) -> Answered {
    let one = |(slot, call): (usize, &Call)| (slot, Answer::refused(call.is_read(), why.clone()));
    Answered { answers: calls.iter().enumerate().map(one).collect(), paid: Paid::default() }
}

/// Calls that may go at the same time, in the order in which they must: a write waits for what the batch has before
/// it at its position, a read for the last write there.
fn stages(mut calls: Vec<PendingCall>) -> Vec<Vec<PendingCall>> {
    if calls.len() < 2 {
        return vec![calls];
    }
    let mut last: HashMap<Position, (u32, bool)> = HashMap::with_capacity(calls.len());
    let mut highest = 0;
    for call in &mut calls {
        let write = call.is_write();
        match last.get_mut(&call.position) {
            Some((stage, written)) => {
                *stage += u32::from(*written || write);
                *written = write;
                call.stage = *stage;
                highest = highest.max(*stage);
            }
            None => {
                last.insert(call.position.clone(), (0, write));
            }
        }
    }
    let mut stages: Vec<Vec<PendingCall>> = (0..=highest).map(|_| Vec::new()).collect();
    for call in calls {
        if let Some(stage) = stages.get_mut(call.stage as usize) {
            stage.push(call);
        }
    }
    stages
}

/// Calls by who answers them, whatever the order in which an arc names its replicas. Those that lie nowhere are
/// answered.
fn groups<'a>(
    ring: &'a Ring,
    calls: Vec<PendingCall>,
    answers: &mut Answered,
) -> BTreeMap<Group<Vec<NodeId>>, Grouped<'a>> {
    let mut ordered: BTreeMap<Group<&[NodeId]>, Grouped<'a>> = BTreeMap::new();
    for call in calls {
        let Some(arc) = ring.arc_at(&call.position) else {
            answers.push(call.refused(Rejected::of(Reason::NoSuchKeyspace, "the keyspace is gone")));
            continue;
        };
        let group = (&arc.replicas[..], arc.next.as_deref(), arc.keyspace, call.is_write(), call.need);
        join_group(ordered.entry(group).or_insert_with(|| (arc, Vec::new())), arc, [call]);
    }
    let sorted = |nodes: &[NodeId]| {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes
    };
    let mut groups: BTreeMap<_, Grouped<'a>> = BTreeMap::new();
    for ((replicas, next, keyspace, write, need), (arc, calls)) in ordered {
        let group = (sorted(replicas), next.map(sorted), keyspace, write, need);
        join_group(groups.entry(group).or_insert_with(|| (arc, Vec::new())), arc, calls);
    }
    groups
}

fn join_group<'a>(
    (latest, into): &mut Grouped<'a>,
    arc: &'a RingArc,
    calls: impl IntoIterator<Item = PendingCall>,
) {
    if arc.changed > latest.changed {
        *latest = arc;
    }
    into.extend(calls);
}

/// Calls that have about as much time left, with the earliest of their deadlines.
fn hastened(mut calls: Vec<PendingCall>, now: Instant) -> Vec<(Instant, Vec<PendingCall>)> {
    calls.sort_by_key(|call| call.deadline);
    let mut out: Vec<(Instant, Vec<PendingCall>)> = Vec::new();
    for call in calls {
        match out.last_mut() {
            Some((first, together)) if call.deadline - *first <= (*first - now) / HASTE => {
                together.push(call)
            }
            _ => out.push((call.deadline, vec![call])),
        }
    }
    out
}

/// Cuts calls where one message would grow too large.
fn chunks(calls: Vec<PendingCall>) -> Vec<Vec<PendingCall>> {
    let mut out = vec![Vec::new()];
    let mut bytes = 0;
    for call in calls {
        let size = call.bytes();
        if bytes > 0 && bytes + size > MESSAGE_BYTES {
            out.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(chunk) = out.last_mut() {
            chunk.push(call);
        }
    }
    out
}
