//! Carries writes to the replicas of one arc, and answers as soon as the outcome is known.

use super::{
    Shared,
    admit::{PendingCall, What},
    batch::{Answered, Carried},
    fan::{MemberCall, QuorumScope, Reply, Step, damaged, strange},
    refusal::{
        Failures, not_stamped_in_time, stopping, superseded_each_time, unknown, unreachable, unstampable,
    },
};
use crate::{peer::CallError, version::Clock};
use futures::{StreamExt, stream::FuturesUnordered};
use god_proto::{
    peer,
    peer::{request, response},
    record::Entry,
    v1::{Committed, Rejected, write_reply},
    version::Version,
};
use god_rules::quorum::{MAX_ROUNDS, ReplicaMask, Tally, WriteOutcome, bits};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until, timeout_at},
};

/// How often one replica is asked again under the same ring because its own was older.
const MAX_PUSHES: u8 = 2;
/// How long after its write was decided a replica may take to answer before its copy is suspect.
const LATE: Duration = Duration::from_millis(300);

/// The write of one slot.
struct Write {
    slot: usize,
    entry: Entry,
    tally: Tally,
    outcome: Option<WriteOutcome>,
    refusal: Option<Rejected>,
}

impl Write {
    /// Whether a replica that lacks this write should have it later. Never what a client was told is not written.
    fn is_owed(&self) -> bool {
        matches!(self.outcome, Some(WriteOutcome::Committed { .. } | WriteOutcome::Unknown { .. }))
    }
}

/// A message under way: which writes it carries, each in which round.
struct Sent {
    writes: Arc<[(u32, u8)]>,
    pushes: u8,
    /// Whether its end was heard before, and its replica asked for a newer ring.
    caught_up: bool,
    asked: MemberCall,
}

/// What came of a message.
struct Ended {
    writes: Arc<[(u32, u8)]>,
    pushes: u8,
    caught_up: bool,
    at: usize,
    reply: Reply,
}

impl Future for Sent {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let reply = Pin::new(&mut this.asked).poll(context);
        reply.map(|(at, reply)| Ended {
            writes: Arc::clone(&this.writes),
            pushes: this.pushes,
            caught_up: this.caught_up,
            at,
            reply,
        })
    }
}

/// All writes of one group and all messages that carry them. Dropped with messages under way, it leaves a task that
/// waits for their ends and hints the replicas that did not acknowledge.
struct QuorumWrite {
    shared: Arc<Shared>,
    scope: QuorumScope,
    writes: Vec<Write>,
    undecided: usize,
    calls: FuturesUnordered<Sent>,
    failures: Failures,
    /// Whether nobody needs to wait for the messages under way.
    released: bool,
    /// Whoever closes the coordinator waits for it to come back.
    place: Option<OwnedSemaphorePermit>,
}

impl Shared {
    /// Carries writes to the replicas of a scope.
    pub(super) async fn write(self: &Arc<Self>, scope: QuorumScope, calls: Vec<PendingCall>) -> Carried {
        if self.closing.1.is_stopped() {
            // Nobody would wait for what comes of it.
            let mut answers = Answered::default();
            answers.refuse(calls, &stopping());
            return (answers, vec![]);
        }
        let write = |call: PendingCall| match call.what {
            What::Write { record, open } => Some(Write {
                slot: call.slot,
                entry: Entry { position: call.position, record },
                tally: Tally::resumed(open),
                outcome: None,
                refusal: None,
            }),
            What::Read { .. } => None,
        };
        let writes: Vec<Write> = calls.into_iter().filter_map(write).collect();
        let mut write = QuorumWrite {
            shared: Arc::clone(self),
            undecided: writes.len(),
            calls: FuturesUnordered::new(),
            failures: Failures::default(),
            released: false,
            place: Arc::clone(&self.writes).try_acquire_owned().ok(),
            writes,
            scope,
        };
        write.run().await;
        write.finish()
    }
}

impl QuorumWrite {
    /// Goes on until every write is decided, time is up, or the ring has moved.
    async fn run(&mut self) {
        self.begin((0..self.writes.len() as u32).collect()).await;
        let timer = sleep_until(self.scope.deadline);
        tokio::pin!(timer);
        let mut catches_up = false;
        while self.undecided > 0 {
            let ended = tokio::select! {
                biased;
                Some(ended) = self.calls.next() => ended,
                () = &mut timer => {
                    self.late();
                    continue;
                }
            };
            let (current, may_push) = (self.shared.ring.epoch(), ended.pushes < MAX_PUSHES);
            let has_moved = match Step::of(&ended.reply, &self.scope, current, may_push, ended.caught_up) {
                Step::Take => false,
                Step::Moved => true,
                Step::CatchUp(epoch) => {
                    let Ended { writes, pushes, at, reply, .. } = ended;
                    let was_asked = std::mem::replace(&mut catches_up, true);
                    let asked = self.shared.call_after_catch_up(&self.scope, at, epoch, was_asked, reply);
                    self.calls.push(Sent { writes, pushes, caught_up: true, asked });
                    continue;
                }
                Step::Push => {
                    self.send(ended.at, ended.writes, ended.pushes + 1);
                    continue;
                }
            };
            let newer = self.ended(&ended.writes, ended.at, ended.reply);
            if has_moved {
                self.released = true;
                return self.hint_pending();
            }
            if !newer.is_empty() {
                self.begin(newer).await;
            }
        }
    }

    /// Time is up.
    fn late(&mut self) {
        for at in 0..self.writes.len() {
            if let Some(write) = self.writes.get(at)
                && write.outcome.is_none()
            {
                let outcome = write.tally.give_up();
                self.decide(at, outcome, true);
            }
        }
    }

    /// Begins a round: stamps these writes and sends them to all that are not known to be gone.
    async fn begin(&mut self, which: Vec<u32>) {
        let reachable = self.shared.reachable(&self.scope.replicas);
        let missed = self.scope.replicas.all() & !reachable;
        let enough = self.scope.replicas.enough(reachable);
        if !enough {
            let refusal = unreachable(self.scope.replicas.shortfall(reachable));
            for at in which {
                self.give_up(at as usize, &refusal);
            }
            return;
        }
        // One that goes on under a newer ring keeps its version: replicas that hold it already say so.
        let keeps = |write: &Write| write.tally.round() == 0 && write.entry.record.version != Version::ZERO;
        let fresh = which
            .iter()
            .filter(|at| self.writes.get(**at as usize).is_some_and(|write| !keeps(write)))
            .count();
        let stamps = match fresh {
            0 => Ok(None),
            fresh => stamp(&self.shared.clock, self.scope.deadline, fresh).await.map(Some),
        };
        let mut stamps = match stamps {
            Ok(stamps) => stamps.into_iter().flatten(),
            Err(refusal) => {
                for at in which {
                    self.give_up(at as usize, &refusal);
                }
                return;
            }
        };
        let mut ready = Vec::with_capacity(which.len());
        for at in which {
            let Some(write) = self.writes.get_mut(at as usize) else { continue };
            if !keeps(write) {
                // As many were stamped as are taken.
                let Some(version) = stamps.next() else { continue };
                write.entry.record.version = version;
            }
            write.tally.begin(reachable, missed);
            ready.push((at, write.tally.round()));
        }
        if ready.is_empty() {
            return;
        }
        let ready: Arc<[(u32, u8)]> = ready.into();
        for at in bits(reachable) {
            self.send(at, Arc::clone(&ready), 0);
        }
    }

    fn send(&mut self, at: usize, writes: Arc<[(u32, u8)]>, pushes: u8) {
        let chosen = writes.iter().filter_map(|(write, _)| self.writes.get(*write as usize));
        let entries = chosen.map(|write| peer::Entry::from(write.entry.clone())).collect();
        let body = request::Body::Write(peer::Write { entries });
        // Replicas get longer than an impatient client, so that a slow one is not taken for one that failed.
        let left = self.scope.deadline.saturating_duration_since(Instant::now());
        let timeout = left.max(self.shared.settings.default_timeout);
        let asked = if pushes == 0 {
            self.shared.call(&self.scope, at, timeout, body)
        } else {
            self.shared.call_after_push(&self.scope, at, timeout, body)
        };
        self.calls.push(Sent { writes, pushes, caught_up: false, asked });
    }

    /// Takes the end of a message; gives the writes that met newer ones and must be stamped again.
    fn ended(&mut self, sent: &[(u32, u8)], at: usize, reply: Reply) -> Vec<u32> {
        let who: ReplicaMask = 1 << at;
        let verdicts = match reply {
            Ok(response::Body::Write(done)) if done.verdicts.len() == sent.len() => Ok(done.verdicts),
            Ok(_) => Err(strange("is not that to a write")),
            Err(error) => Err(error),
        };
        let mut newer = Vec::new();
        match verdicts {
            Ok(verdicts) => {
                for ((write, round), verdict) in sent.iter().zip(verdicts) {
                    if self.verdict(*write, *round, who, verdict) {
                        newer.push(*write);
                    }
                }
            }
            Err(error) => self.failed(sent, at, error),
        }
        for (write, _) in sent {
            let at = *write as usize;
            if let Some(write) = self.writes.get(at)
                && write.outcome.is_none()
                && let Some(outcome) = write.tally.decide(&self.scope.replicas)
                // One that is stamped again has another chance.
                && (matches!(outcome, WriteOutcome::Committed { .. }) || !newer.contains(&(at as u32)))
            {
                self.decide(at, outcome, false);
            }
        }
        newer.retain(|at| self.writes.get(*at as usize).is_some_and(|write| write.outcome.is_none()));
        newer
    }

    /// Takes a replica's word on one write; says whether the write must be stamped again.
    fn verdict(&mut self, at: u32, round: u8, who: ReplicaMask, verdict: peer::Verdict) -> bool {
        let superseded_by = verdict.superseded_by.map(Version::from);
        let observed = superseded_by.map(|version| self.shared.clock.observe(version));
        let Some(write) = self.writes.get_mut(at as usize) else { return false };
        if round != write.tally.round() {
            if superseded_by.is_none() && !verdict.damaged {
                write.tally.reopen();
            }
            return false;
        }
        if verdict.damaged {
            write.tally.failed(who, false);
            let owed = write.is_owed().then(|| write.entry.clone());
            if let Some(node) = self.scope.replicas.node(who.trailing_zeros() as usize) {
                self.shared.hints.add(node, owed.as_slice());
                self.failures.note(node, damaged());
            }
            return false;
        }
        match observed {
            None => {
                write.tally.acked(who);
                false
            }
            Some(Ok(())) => {
                write.tally.superseded(who);
                metrics::counter!("god_quorum_superseded_total").increment(1);
                write.outcome.is_none() && write.tally.round() < MAX_ROUNDS
            }
            // What is there is from a clock so far ahead that this node may not follow.
            Some(Err(error)) => {
                write.tally.superseded(who);
                write.refusal = Some(unstampable(&error));
                false
            }
        }
    }

    fn failed(&mut self, sent: &[(u32, u8)], at: usize, error: CallError) {
        let open = error.is_open();
        let Some(node) = self.scope.replicas.node(at) else { return };
        let mut owed = Vec::new();
        for (write, round) in sent {
            let Some(write) = self.writes.get_mut(*write as usize) else { continue };
            if *round == write.tally.round() {
                write.tally.failed(1 << at, open);
                if write.is_owed() {
                    owed.push(write.entry.clone());
                }
            } else if open {
                write.tally.reopen();
            }
        }
        self.shared.hints.add(node, &owed);
        self.failures.note(node, error);
    }

    /// Ends a write that cannot be sent.
    fn give_up(&mut self, at: usize, refusal: &Rejected) {
        let Some(write) = self.writes.get_mut(at) else { return };
        write.refusal = Some(refusal.clone());
        if write.tally.is_open() {
            // Some replica may have it by now, and none of this round is asked: it is owed to all of them.
            write.tally.begin(0, self.scope.replicas.all());
        }
        let outcome = write.tally.give_up();
        self.decide(at, outcome, false);
    }

    fn decide(&mut self, at: usize, outcome: WriteOutcome, out_of_time: bool) {
        let Some(write) = self.writes.get_mut(at) else { return };
        write.outcome = Some(outcome);
        self.undecided -= 1;
        if write.is_owed() {
            for missed in bits(write.tally.missed()) {
                if let Some(node) = self.scope.replicas.node(missed) {
                    self.shared.hints.add(node, std::slice::from_ref(&write.entry));
                }
            }
        } else if write.refusal.is_none() {
            let shortfall = self.scope.replicas.shortfall(0);
            let refusal = if write.tally.round() >= MAX_ROUNDS {
                superseded_each_time()
            } else {
                self.failures.refusal(shortfall, out_of_time)
            };
            write.refusal = Some(refusal);
        }
    }

    /// Answers for what is decided; the rest is to go on under the newer ring.
    fn finish(&mut self) -> Carried {
        let (mut answers, mut again) = (Answered::with_room(self.writes.len()), Vec::new());
        for write in &mut self.writes {
            let version = Some(write.entry.record.version.into());
            let outcome = match write.outcome {
                Some(WriteOutcome::Committed { acks }) => {
                    write_reply::Outcome::Committed(Committed { version, acks })
                }
                Some(WriteOutcome::Unknown { acks }) => {
                    let because = match &write.refusal {
                        Some(refusal) => format!("; {}", refusal.message),
                        None => self.failures.because(),
                    };
                    let (_, needed) = self.scope.replicas.shortfall(0);
                    write_reply::Outcome::Unknown(unknown(version, acks, needed, &because))
                }
                Some(WriteOutcome::Rejected) => {
                    write_reply::Outcome::Rejected(write.refusal.take().unwrap_or_default())
                }
                None => {
                    let Entry { position, record } = write.entry.clone();
                    let what = What::Write { record, open: write.tally.is_open() };
                    let QuorumScope { need, deadline, .. } = self.scope;
                    again.push(PendingCall {
                        slot: write.slot,
                        position,
                        need,
                        deadline,
                        stage: 0,
                        asleep: None,
                        what,
                    });
                    continue;
                }
            };
            answers.push((write.slot, outcome.into()));
        }
        (answers, again)
    }

    /// Waits for the messages that are still under way.
    async fn linger(mut self) {
        let late = tokio::time::sleep(LATE);
        let closing = self.shared.closing.1.clone().stopped();
        tokio::pin!(late, closing);
        loop {
            tokio::select! {
                biased;
                call = self.calls.next() => match call {
                    Some(Ended { writes, at, reply, .. }) => drop(self.ended(&writes, at, reply)),
                    // One may have been heard to its end without being counted, as whoever asked was gone.
                    None => break,
                },
                () = &mut closing => break,
                () = &mut late, if !late.is_elapsed() => {
                    // The others can tell whether it has them, by other ways.
                    for write in self.writes.iter().filter(|write| write.is_owed() && write.tally.pending() != 0) {
                        self.shared.hints.late(&write.entry.position);
                    }
                }
            }
        }
        self.hint_pending();
    }

    /// Kibibytes that wait with this write.
    fn weight(&self) -> u32 {
        let bytes = |write: &Write| write.entry.position.as_bytes().len() + write.entry.record.value.len();
        let bytes: usize = self.writes.iter().map(bytes).sum();
        (bytes >> 10) as u32 + 1
    }
}

impl Drop for QuorumWrite {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        // Whoever asked is gone: what is undecided and on its way may surface.
        for at in 0..self.writes.len() {
            if self.writes.get(at).is_some_and(|write| write.outcome.is_none() && write.tally.is_open()) {
                self.decide(at, WriteOutcome::Unknown { acks: 0 }, true);
            }
        }
        if self.calls.is_empty() {
            // One may have been heard to its end without being counted.
            return self.hint_pending();
        }
        let rest = QuorumWrite {
            shared: Arc::clone(&self.shared),
            scope: self.scope.clone(),
            writes: std::mem::take(&mut self.writes),
            undecided: 0,
            calls: std::mem::take(&mut self.calls),
            failures: Failures::default(),
            // A task that ends early ends with its runtime: there is nowhere left to wait.
            released: true,
            place: self.place.take(),
        };
        let room = Arc::clone(&self.shared.background).try_acquire_many_owned(rest.weight());
        if let (Ok(room), Ok(runtime)) = (room, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                rest.linger().await;
                drop(room);
            });
        } else {
            metrics::counter!("god_quorum_background_refused_total").increment(1);
            rest.hint_pending();
        }
    }
}

impl QuorumWrite {
    /// Hints the replicas that did not answer yet.
    fn hint_pending(&self) {
        for write in self.writes.iter().filter(|write| write.is_owed()) {
            for at in bits(write.tally.pending()) {
                if let Some(node) = self.scope.replicas.node(at) {
                    self.shared.hints.add(node, std::slice::from_ref(&write.entry));
                }
            }
        }
    }
}

/// Versions for so many writes. Not a method: a write waits for futures that no two threads may look at.
async fn stamp(
    clock: &Arc<Clock>,
    deadline: Instant,
    count: usize,
) -> Result<impl Iterator<Item = Version> + use<>, Rejected> {
    match timeout_at(deadline, clock.stamp(count)).await {
        Ok(stamps) => stamps.map_err(|error| unstampable(&error)),
        Err(_) => Err(not_stamped_in_time()),
    }
}
