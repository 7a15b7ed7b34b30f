//! Answers a batch of calls: those for the same replicas travel together, and each is answered when it is done.

use super::{
    Coordinator, Shared,
    admit::{PendingCall, What, admit, too_many},
    fan::{QuorumError, QuorumScope},
    read::seen,
    refusal::{
        enough_on_the_way, held_up, keyspace_gone, lost_track, no_memory, not_initialised, not_known_empty,
        not_live_in_time, not_made_live, ring_moves, too_large,
    },
    sink::{AnswerSink, Collected},
    stages::Stages,
};
use crate::budget::Paid;
use futures::{StreamExt, stream::FuturesUnordered};
use god_proto::{
    MAX_BATCH,
    ids::{KeyspaceId, NodeId},
    position::Position,
    ring::{Ring, RingArc},
    v1::{Answer, Call, Rejected, get_reply},
    version::Version,
};
use god_rules::quorum::Need;
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::{Instant, sleep_until, timeout_at};

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

    /// The same refusal for each of some calls.
    pub(super) fn refuse(&mut self, calls: Vec<PendingCall>, why: &Rejected) {
        self.answers.extend(calls.into_iter().map(|call| call.refused(why.clone())));
    }
}

/// What came of some calls: answers, and what must go on under a newer ring.
pub(super) type Carried = (Answered, Vec<PendingCall>);

impl Coordinator {
    /// Answers each call, in the same order, when all are done. See [`Coordinator::batch_to`].
    pub async fn batch(&self, calls: Vec<Call>) -> Vec<Answer> {
        let mut all = Collected::new(calls.len());
        self.batch_to(calls, &mut all).await;
        all.into_answers()
    }

    /// Answers each call once, and tells each when it is done. Not a transaction: each has its own outcome; those for
    /// one key take effect in the order of the batch, and wait for nothing else of it. Every call is answered by its
    /// deadline.
    pub async fn batch_to(&self, calls: Vec<Call>, told: &mut dyn AnswerSink) {
        let open = calls.iter().map(|call| Some(call.is_read())).collect();
        let mut report = OpenCalls { told, open };
        self.0.answer(calls, &mut report).await;
        report.end();
    }
}

/// Tells of answers, and knows which calls have none yet.
struct OpenCalls<'a> {
    told: &'a mut dyn AnswerSink,
    /// Whether a call reads; nothing once it is answered.
    open: Vec<Option<bool>>,
}

impl OpenCalls<'_> {
    fn tell(&mut self, Answered { answers, paid }: Answered) {
        for (slot, _) in &answers {
            if let Some(open) = self.open.get_mut(*slot) {
                *open = None;
            }
        }
        if !answers.is_empty() {
            self.told.take(answers, paid);
        }
    }

    /// Every call has its answer by now. One that has none must look neither like success nor like nothing.
    fn end(self) {
        if self.open.iter().any(Option::is_some) {
            let open = self.open.iter().enumerate();
            let open = open.filter_map(|(slot, read)| Some((slot, lost_track((*read)?))));
            self.told.take(open.collect(), Paid::default());
        }
    }
}

/// What is under way for some calls of a batch.
enum Errand {
    /// Their keyspace is made live for writes (invariant EMPTY-MOVES-FREE); that it is not is made sure of for reads
    /// (invariant EMPTY-CONFIRMED).
    Wake { keyspace: KeyspaceId, write: bool, deadline: Instant, calls: Vec<PendingCall> },
    /// One message carries them, under the ring that follows on so many others.
    Message { scope: QuorumScope, write: bool, calls: Vec<PendingCall>, rings: usize },
}

/// How it ended.
enum ErrandOutcome {
    Woken(Vec<PendingCall>, Result<(), Rejected>),
    Carried(Carried, usize),
}

/// A batch under way.
struct BatchInProgress<'a, 'b> {
    shared: &'a Arc<Shared>,
    stages: Stages,
    /// What is yet to be begun.
    ready: Vec<Errand>,
    report: &'a mut OpenCalls<'b>,
}

impl BatchInProgress<'_, '_> {
    async fn run(mut self) {
        // What goes in one message costs no more than that.
        while self.ready.len() == 1
            && self.stages.is_empty()
            && let Some(errand) = self.ready.pop()
        {
            let ended = self.shared.carry(errand).await;
            self.ended(ended);
        }
        if self.ready.is_empty() {
            return;
        }
        let mut under_way = FuturesUnordered::new();
        loop {
            under_way.extend(self.ready.drain(..).map(|errand| self.shared.carry(errand)));
            let late = self.stages.first_deadline();
            tokio::select! {
                biased;
                ended = under_way.next() => match ended {
                    Some(ended) => self.ended(ended),
                    // What waits waits for something under way.
                    None => return,
                },
                () = reached(late) => self.out_of_time(Instant::now()),
            }
        }
    }

    fn ended(&mut self, ended: ErrandOutcome) {
        match ended {
            ErrandOutcome::Woken(mut calls, Ok(())) => {
                calls.iter_mut().for_each(|call| call.asleep = None);
                self.go(calls, 0, Answered::default());
            }
            ErrandOutcome::Woken(calls, Err(why)) => {
                let mut answers = Answered::default();
                answers.refuse(calls, &why);
                self.tell(answers);
            }
            ErrandOutcome::Carried((answers, again), rings) => self.go(again, rings + 1, answers),
        }
    }

    /// Calls that waited for others until they were out of time. Nothing of them was done.
    fn out_of_time(&mut self, now: Instant) {
        let mut answers = Answered::default();
        answers.refuse(self.stages.late(now), &held_up());
        self.tell(answers);
    }

    /// Lets calls go, and tells of answers.
    fn go(&mut self, calls: Vec<PendingCall>, rings: usize, mut answers: Answered) {
        self.depart(calls, rings, &mut answers);
        self.tell(answers);
    }

    /// Tells of answers, and lets go what waited for those calls.
    fn tell(&mut self, mut answers: Answered) {
        let mut seen = 0;
        while !self.stages.is_empty()
            && let Some(ended) = answers.answers.get(seen..)
            && !ended.is_empty()
        {
            let next = ended.iter().flat_map(|(slot, _)| self.stages.ended(*slot)).collect();
            seen = answers.answers.len();
            self.depart(next, 0, &mut answers);
        }
        self.report.tell(answers);
    }

    /// Makes messages of calls. Those that go nowhere are answered.
    fn depart(&mut self, mut calls: Vec<PendingCall>, rings: usize, answers: &mut Answered) {
        if calls.is_empty() {
            return;
        }
        let Some(ring) = self.shared.ring.get().filter(|_| rings < MAX_RINGS) else {
            // Nobody compares by itself what some replica may have by now.
            let is_open = |call: &&PendingCall| matches!(call.what, What::Write { open: true, .. });
            calls.iter().filter(is_open).for_each(|call| self.shared.hints.late(&call.position));
            return answers.refuse(calls, &ring_moves());
        };
        let now = Instant::now();
        let is_live = |keyspace| ring.keyspace_by_id(keyspace).is_some_and(|keyspace| keyspace.live);
        let sleeps = |call: &PendingCall| call.asleep.is_some_and(|keyspace| !is_live(keyspace));
        if calls.iter().any(sleeps) {
            let mut asleep: BTreeMap<(KeyspaceId, bool), Vec<PendingCall>> = BTreeMap::new();
            for call in calls.extract_if(.., |call| sleeps(call)) {
                if let Some(keyspace) = call.asleep {
                    let write = matches!(call.what, What::Write { .. });
                    asleep.entry((keyspace, write)).or_default().push(call);
                }
            }
            for ((keyspace, write), calls) in asleep {
                for (deadline, calls) in hastened(calls, now) {
                    self.ready.push(Errand::Wake { keyspace, write, deadline, calls });
                }
            }
        }
        for ((.., write, need), (arc, calls)) in groups(&ring, calls, answers) {
            for (deadline, calls) in hastened(calls, now) {
                let scope = QuorumScope::new(&ring, arc, need, deadline);
                for calls in chunks(calls) {
                    self.ready.push(Errand::Message { scope: scope.clone(), write, calls, rings });
                }
            }
        }
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, calls: Vec<Call>, report: &mut OpenCalls<'_>) {
        if calls.len() > MAX_BATCH {
            return report.tell(refused(&calls, &too_many(calls.len())));
        }
        let Some(ring) = self.ring.get() else { return report.tell(refused(&calls, &not_initialised())) };
        let (start, now_ms) = (Instant::now(), self.clock.trusted_hybrid_ms());
        let deadline = |timeout_ms| start + self.settings.timeout(timeout_ms);
        let mut pending = Vec::with_capacity(calls.len());
        let mut answers = Answered::default();
        for (slot, call) in calls.into_iter().enumerate() {
            let read = call.is_read();
            match admit(&ring, slot, call, now_ms, deadline) {
                Ok(call) => pending.push(call),
                Err(why) => answers.push((slot, Answer::refused(read, why))),
            }
        }
        drop(ring);
        let (first, stages) = Stages::of(pending);
        let mut batch = BatchInProgress { shared: self, stages, ready: Vec::new(), report };
        batch.go(first, 0, answers);
        batch.run().await;
    }

    async fn carry(self: &Arc<Self>, errand: Errand) -> ErrandOutcome {
        match errand {
            Errand::Message { scope, write, calls, rings } => {
                ErrandOutcome::Carried(self.message(scope, write, calls).await, rings)
            }
            Errand::Wake { write: false, deadline, calls, .. } => {
                let confirmed = self.confirm(deadline).await;
                ErrandOutcome::Woken(calls, confirmed)
            }
            Errand::Wake { keyspace, deadline, calls, .. } => {
                let woken = match timeout_at(deadline, self.sync.make_live(keyspace)).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(woken) => woken.map_err(not_made_live),
                    Err(_) => Err(not_live_in_time()),
                };
                ErrandOutcome::Woken(calls, woken)
            }
        }
    }

    /// Makes sure that the ring that is known was the newest since the call, for reads of a keyspace that is not live
    /// by it (invariant EMPTY-CONFIRMED).
    pub(super) async fn confirm(&self, deadline: Instant) -> Result<(), Rejected> {
        match timeout_at(deadline, self.sync.confirm()).await {
            Ok(confirmed) => confirmed.map_err(|why| not_known_empty(&why)),
            Err(_) => Err(not_known_empty("the ring's voters did not answer in time")),
        }
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
            answers.refuse(calls, &no_memory());
            return (answers, Vec::new());
        }
        let mut bytes = 0;
        while !calls.is_empty() {
            if bytes >= READ_BYTES || bytes > 0 && self.settings.budget.is_spent() {
                answers.refuse(calls, &enough_on_the_way(bytes));
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
                    answers.refuse(calls, &rejected);
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

/// Waits for a time, or for ever where there is none.
async fn reached(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
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
            answers.push(call.refused(keyspace_gone()));
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
