//! Compares the replicas of arcs, and makes them equal.
//!
//! The first replica of an arc that seems to be up compares: digests first, and only where those differ the ranges
//! below, down to lists. It takes what is newer elsewhere, then has the others take what is newer here; after both
//! rounds each replica has all that any of them had when they began.
//!
//! Arcs are compared in turn, every other time one of which something is suspect: a replica that was away, hints that
//! were dropped, a hint that does not get through. Suspect ones come again until they are equal: they must not keep the
//! others, and their floors, waiting. Nor must a node that is up and does not answer: it is left alone for a while.
//!
//! Floors (invariant PURGE-FLOOR). Every replica first promises to take nothing at or below T; then they are made
//! equal, as above; then all are told that they are equal at or below T. Only then may a tombstone at or below T go:
//! what it deleted is on no replica, and is refused from everywhere else. It goes when the reads have ended that were
//! under way when its replica heard of the floor (invariant READS-BEFORE-PURGE): one of them may have been told of what
//! it deleted, by a replica that was not equal yet.

use super::{
    Upkeep,
    pull::{PullError, PullRequest},
    purges::Purges,
};
use crate::{
    engine::EngineError,
    peer::{CallError, Target},
    radix::{Verdict, View},
};
use god_proto::{
    ids::{ArcId, NodeId},
    peer::{self, Cause, Floor, Pull, Summarize, Summary, Suspect, request, response},
    position::{Position, PositionRange},
    record::{Kind, Record},
    ring::{Ring, RingArc},
    version::Version,
};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often it is looked for what is suspect.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// How long a comparison, and a pull of another replica, may take.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const PULL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long arcs that differ are left alone: writes under way make them equal by themselves.
const SETTLE: Duration = Duration::from_millis(100);
/// How many arcs are compared in one look.
const ARCS_AT_ONCE: usize = 16;
/// After how long an arc that could not be made equal is tried again.
pub(super) const LATER: Duration = Duration::from_secs(2);
/// How long a node that did not answer in time is left alone, and after how many times in a row: one message may have
/// been lost. Its arcs stay suspect. A shorter time gives more of it to timeouts, a longer one makes it equal later.
const SILENCE: Duration = Duration::from_secs(5);
const MISSES: u32 = 2;
/// After how many comparisons an arc that does not become equal may differ in what is to be forgotten.
const STAYS_UNEQUAL: u32 = 2;
/// How long a hint may wait before the arc is compared by those who can reach its target.
const STUCK_AFTER: Duration = Duration::from_millis(200);
/// How many tombstones are purged at once.
const PURGE_STEP: usize = 1_024;
/// A floor rises only if it does by so much, as a part of the age of tombstones.
const FLOOR_STEP: u32 = 4;

/// Arcs that may differ, and when they were compared.
#[derive(Default)]
pub(super) struct Suspects(Mutex<State>);

#[derive(Default)]
struct State {
    /// First positions of arcs to be compared soon.
    soon: BTreeSet<bytes::Bytes>,
    /// Which of them was taken last: they are taken in turn, so that none waits for those that come again and again.
    taken: bytes::Bytes,
    /// Whether it was the turn of what is due last: suspect arcs have every other one.
    due_first: bool,
    /// How often arcs were found to differ in a row, though all replicas had taken what was newer elsewhere.
    differed: BTreeMap<ArcId, u32>,
    /// When arcs were last found equal.
    equal: BTreeMap<ArcId, Instant>,
    /// Nodes that were away when last looked at.
    away: BTreeSet<NodeId>,
    /// Nodes that did not answer in time: how often in a row, and when last.
    missed: BTreeMap<NodeId, (u32, Instant)>,
    /// Arcs that could not be made equal, and when they are tried again.
    later: BTreeMap<bytes::Bytes, Instant>,
    /// Up to where tombstones of arcs go.
    purges: BTreeMap<ArcId, Purges>,
}

impl State {
    /// The next arc in turn that is to be compared soon.
    fn take_next(&mut self) -> Option<bytes::Bytes> {
        let after = (std::ops::Bound::Excluded(self.taken.clone()), std::ops::Bound::Unbounded);
        let next = self.soon.range(after).next().or_else(|| self.soon.first())?.clone();
        self.soon.remove(&next);
        self.taken.clone_from(&next);
        Some(next)
    }
}

/// What came of comparing an arc.
enum Compared {
    Equal,
    Differs,
    /// Not all replicas answered.
    Incomplete,
}

impl Upkeep {
    /// Somebody says that a range may have unequal replicas: it is compared soon, unless one of them is away. Then it
    /// is when that one comes back.
    pub(super) fn suspect(&self, range: &PositionRange) {
        let Some(ring) = self.ring.get() else { return };
        let mut state = self.suspects.0.lock();
        for arc in ring.arcs_in(range) {
            if arc.replicas.contains(&self.me) && !arc.replicas.iter().any(|node| self.is_down(*node)) {
                state.soon.insert(arc.range.start.clone().into_bytes());
            }
        }
    }

    /// Compares the arcs of this node.
    pub(super) async fn sync(&self) {
        if !self.settings.compares {
            return;
        }
        loop {
            sleep(LOOK).await;
            let Some(ring) = self.ring.get() else { continue };
            self.notice(&ring);
            self.purge_all(&ring).await;
            for _ in 0..ARCS_AT_ONCE {
                let Some(arc) = self.next_arc(&ring) else { break };
                let start = arc.range.start.clone().into_bytes();
                let lost = self.hints.losses();
                let leveled = self.level(&ring, &arc).await;
                let mut state = self.suspects.0.lock();
                state.equal.insert(arc.id, Instant::now());
                match leveled {
                    Ok(true) => {
                        state.later.remove(&start);
                        drop(state);
                        self.hints.forgive(&arc.range, lost);
                    }
                    leveled => {
                        tracing::debug!(%arc, ?leveled, "an arc could not be made equal; it is tried again");
                        state.later.insert(start, Instant::now() + LATER);
                    }
                }
            }
        }
    }

    /// What has become suspect since the last look.
    fn notice(&self, ring: &Ring) {
        let away: BTreeSet<NodeId> =
            ring.nodes().iter().map(|node| NodeId(node.number)).filter(|node| self.is_down(*node)).collect();
        let is_whole = |arc: &RingArc| arc.replicas.iter().all(|node| !away.contains(node));
        let lost = self.hints.suspects();
        let stuck = self.hints.stuck(STUCK_AFTER);
        let now = Instant::now();
        let mut state = self.suspects.0.lock();
        let back: Vec<NodeId> = state.away.difference(&away).copied().collect();
        state.missed.retain(|node, _| ring.node(*node).is_some() && !back.contains(node));
        for arc in ring.arcs().iter().filter(|arc| back.iter().any(|node| arc.replicas.contains(node))) {
            state.soon.insert(arc.range.start.clone().into_bytes());
        }
        let due: Vec<bytes::Bytes> =
            state.later.iter().filter(|(_, at)| **at <= now).map(|(start, _)| start.clone()).collect();
        for start in due {
            state.later.remove(&start);
            state.soon.insert(start);
        }
        let mut tell: Vec<(NodeId, PositionRange)> = Vec::new();
        for start in lost.into_iter().chain(stuck) {
            let Some(arc) = ring.arc_at(&Position::from_bytes(start.clone())) else { continue };
            let waits = state.later.contains_key(&start);
            // The others compare as well: it may be just this node that does not reach one of them.
            if !waits {
                let others = arc.replicas.iter().filter(|node| **node != self.me && !away.contains(*node));
                tell.extend(others.map(|node| (*node, arc.range.clone())));
                if arc.replicas.contains(&self.me) && is_whole(arc) {
                    state.soon.insert(start.clone());
                }
                state.later.insert(start, now + LATER);
            }
        }
        state.away = away;
        let known: BTreeSet<ArcId> = ring.arcs().iter().map(|arc| arc.id).collect();
        state.equal.retain(|arc, _| known.contains(arc));
        state.differed.retain(|arc, _| known.contains(arc));
        state.purges.retain(|arc, _| known.contains(arc));
        gauge!("god_upkeep_suspect_arcs").set(state.soon.len() as f64);
        drop(state);
        for (node, range) in tell {
            let body =
                request::Body::Suspect(Suspect { range: Some(peer::Range::from(&range)), answer: false });
            self.transport.tell(Target::Node(node), 0, body);
        }
    }

    /// Purges what may go of all arcs that this node holds.
    async fn purge_all(&self, ring: &Ring) {
        for arc in ring.arcs().iter().filter(|arc| arc.next.is_none() && arc.replicas.contains(&self.me)) {
            let floor = self.replica.floors().lowest(&arc.range).repaired;
            if floor == Version::ZERO {
                continue;
            }
            let due =
                self.suspects.0.lock().purges.entry(arc.id).or_default().due(arc, floor, self.longest_read);
            let Some(due) = due else { continue };
            match self.purge(arc, due).await {
                Ok(()) => {
                    self.suspects.0.lock().purges.entry(arc.id).or_default().done = due;
                }
                // The floor is seen anew.
                Err(error) => tracing::warn!(%arc, %error, "tombstones could not be purged"),
            }
        }
    }

    /// The arc to compare now: in turn a suspect one, and that which was compared longest ago, if it is long enough.
    /// Where there is none of one kind, the other has both turns.
    fn next_arc(&self, ring: &Ring) -> Option<RingArc> {
        let mut state = self.suspects.0.lock();
        state.due_first = !state.due_first;
        let next = match state.due_first {
            true => self.next_due(&state, ring).or_else(|| self.next_suspect(&mut state, ring)),
            false => self.next_suspect(&mut state, ring).or_else(|| self.next_due(&state, ring)),
        }?;
        state.soon.remove(next.range.start.as_bytes());
        Some(next)
    }

    fn next_suspect(&self, state: &mut State, ring: &Ring) -> Option<RingArc> {
        let is_own = |arc: &&RingArc| arc.next.is_none() && arc.replicas.contains(&self.me);
        std::iter::from_fn(|| state.take_next())
            .find_map(|start| ring.arc_at(&Position::from_bytes(start)).filter(is_own).cloned())
    }

    fn next_due(&self, state: &State, ring: &Ring) -> Option<RingArc> {
        let now = Instant::now();
        let leads = |arc: &&RingArc| {
            arc.next.is_none() && arc.replicas.iter().find(|node| !self.is_down(**node)) == Some(&self.me)
        };
        let due = ring.arcs().iter().filter(leads).filter(|arc| {
            state.equal.get(&arc.id).is_none_or(|at| now.duration_since(*at) >= self.settings.sync_interval)
        });
        due.min_by_key(|arc| state.equal.get(&arc.id).copied()).cloned()
    }

    /// Whether a node is away, or did not answer in time a moment ago: nothing is asked of it, and what it holds is not
    /// known to be equal.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        let missed = || self.suspects.0.lock().missed.get(&node).copied();
        self.is_down(node) || missed().is_some_and(|(times, at)| times >= MISSES && at.elapsed() < SILENCE)
    }

    /// Notes whether a node answered in time.
    fn note_answer(&self, node: NodeId, in_time: bool) {
        let missed = &mut self.suspects.0.lock().missed;
        match in_time {
            true => drop(missed.remove(&node)),
            false => {
                let (times, at) = missed.entry(node).or_insert((0, Instant::now()));
                (*times, *at) = (times.saturating_add(1), Instant::now());
            }
        }
    }

    /// Asks a node, and notes whether it answers in time.
    pub(super) async fn ask_noting(
        &self,
        node: NodeId,
        epoch: u64,
        timeout: Duration,
        body: request::Body,
    ) -> Result<response::Body, CallError> {
        let answer = self.ask_node(node, epoch, timeout, body).await;
        self.note_answer(node, !matches!(answer, Err(CallError::TimedOut)));
        answer
    }

    /// Compares an arc, makes its replicas equal if they are not, and raises its floor if it is time. Says whether all
    /// of them are equal then, but for what is being written.
    pub(super) async fn level(&self, ring: &Arc<Ring>, arc: &RingArc) -> Result<bool, PullError> {
        let others: Vec<NodeId> = arc.replicas.iter().copied().filter(|node| *node != self.me).collect();
        // Another replica may keep a tombstone that this one has forgotten, below a floor that it did not hear of or
        // that holds in a part of the arc only.
        let differed =
            self.suspects.0.lock().differed.get(&arc.id).is_some_and(|times| *times >= STAYS_UNEQUAL);
        let floor = self.next_floor(arc, differed).await?;
        let promised = match floor {
            // While one is away it cannot promise, and nobody waits for it.
            Some(floor) if !arc.replicas.iter().any(|node| self.is_silent(*node)) => {
                self.promise(ring, arc, floor).await
            }
            _ => false,
        };
        let mut compared = self.compare(ring, arc).await?;
        if matches!(compared, Compared::Differs) && !promised {
            // Writes under way differ for a moment.
            sleep(SETTLE).await;
            compared = self.compare(ring, arc).await?;
        }
        counter!("god_upkeep_arcs_compared_total").increment(1);
        // Who did not hear that a floor is repaired keeps tombstones that the others have forgotten.
        let repaired = self.replica.floors().lowest(&arc.range).repaired;
        if matches!(compared, Compared::Differs) && repaired > Version::ZERO {
            self.raise_floor(ring, arc, repaired).await;
        }
        let complete = match compared {
            Compared::Equal => true,
            Compared::Differs => self.exchange(ring, arc, &others).await?,
            Compared::Incomplete => {
                self.exchange(ring, arc, &others).await?;
                false
            }
        };
        if complete
            && promised
            && let Some(floor) = floor
        {
            self.raise_floor(ring, arc, floor).await;
        }
        let mut state = self.suspects.0.lock();
        match compared {
            Compared::Equal => drop(state.differed.remove(&arc.id)),
            Compared::Differs if complete => *state.differed.entry(arc.id).or_default() += 1,
            _ => {}
        }
        drop(state);
        Ok(complete)
    }

    async fn compare(&self, ring: &Ring, arc: &RingArc) -> Result<Compared, PullError> {
        let ask = || {
            request::Body::Summarize(Summarize {
                ranges: vec![peer::Range::from(&arc.range)],
                as_stored: false,
                compares: true,
                background: false,
            })
        };
        let asked =
            arc.replicas.iter().filter(|node| !self.is_silent(**node)).map(|node| async move {
                self.ask_noting(*node, ring.epoch().0, COMPARE_TIMEOUT, ask()).await
            });
        let answers = futures::future::join_all(asked).await;
        let mut sums: Vec<Summary> = Vec::new();
        let mut silent = arc.replicas.len() - answers.len();
        for answer in answers {
            match answer {
                Ok(response::Body::Summarize(done)) => sums.extend(done.summaries.into_iter().next()),
                // At the edge of what is compared it cannot tell what it holds: that is compared part by part, and what
                // can be read is made equal (DAMAGE-APART).
                Err(CallError::Refused(refusal)) if refusal.cause() == Cause::Corrupt => silent += 1,
                // Under another ring it is compared again anyway.
                Ok(_) | Err(CallError::Refused(_)) => return Err(PullError::Over),
                Err(_) => silent += 1,
            }
        }
        let equal = sums.array_windows().all(|[a, b]| a.digest == b.digest && a.entries == b.entries);
        Ok(match (equal, silent) {
            (true, 0) => Compared::Equal,
            (false, 0) => Compared::Differs,
            _ => Compared::Incomplete,
        })
    }

    /// Takes what is newer elsewhere, then has the others take what is newer here. Says whether all took part.
    async fn exchange(&self, ring: &Ring, arc: &RingArc, others: &[NodeId]) -> Result<bool, PullError> {
        let still = || self.ring.get().is_some_and(|ring| ring.arc(arc.id) == Some(arc));
        let mut complete = true;
        for from in others {
            if self.is_silent(*from) {
                complete = false;
                continue;
            }
            let wanted = PullRequest {
                range: arc.range.clone(),
                from: *from,
                as_stored: false,
                votes: false,
                exact_to: Version::ZERO,
                still: &still,
                done: &|_, _| {},
                is_awaited: false,
                background: true,
            };
            match self.pull(&wanted).await {
                Ok(pulled) => {
                    counter!("god_upkeep_mended_entries_total").increment(pulled.entries);
                    counter!("god_upkeep_compared_bytes_total").increment(pulled.compared);
                }
                Err(PullError::Source(node, problem)) => {
                    tracing::debug!(%node, problem, "a replica could not be compared");
                    self.note_answer(node, false);
                    complete = false;
                }
                // The rest was taken, and may be elsewhere too (DAMAGE-APART).
                Err(PullError::Unreadable(..) | PullError::Damaged(_)) => complete = false,
                Err(error) => return Err(error),
            }
        }
        for to in others {
            // Even one that was up a moment ago: a floor must not rise above what it lacks (PURGE-FLOOR).
            if self.is_silent(*to) {
                complete = false;
                continue;
            }
            let range = Some(peer::Range::from(&arc.range));
            let pull = Pull { range, from: self.me.0, ..Pull::default() };
            let epoch = self.ring.epoch().max(ring.epoch()).0;
            match self.ask_noting(*to, epoch, PULL_TIMEOUT, request::Body::Pull(pull)).await {
                Ok(response::Body::Pull(done)) => {
                    counter!("god_upkeep_mended_entries_total").increment(done.entries);
                }
                _ => complete = false,
            }
        }
        Ok(complete)
    }

    /// Up to where the floor of an arc may rise now; `None`: there is nothing to be gained. `anyway`: there may be
    /// elsewhere.
    async fn next_floor(&self, arc: &RingArc, anyway: bool) -> Result<Option<Version>, PullError> {
        // What lies in the past by a wrong clock may not.
        if !self.replica.clock().is_trusted() {
            return Ok(None);
        }
        let age_ms = self.settings.tombstone_age.as_millis() as u64;
        let target_ms = self.seams.wall.now_ms().saturating_sub(age_ms);
        let now = self.replica.floors().lowest(&arc.range).repaired;
        let step = (age_ms / u64::from(FLOOR_STEP)).max(1);
        if target_ms < now.ms() + step {
            return Ok(None);
        }
        let range = arc.range.clone();
        let sum = self.look(true, move |view| view.estimate(&range)).await;
        let sum = sum.map_err(|error| PullError::Own(error.to_string()))?;
        // Without a tombstone there is nothing to purge, and a floor would only cost.
        let tombstones = sum.entries.saturating_sub(sum.live_keys + sum.live_members);
        Ok((tombstones > 0 || anyway).then(|| Version::new(target_ms, 0, NodeId(0))))
    }

    /// Has every replica promise to take nothing at or below a version.
    async fn promise(&self, ring: &Ring, arc: &RingArc, floor: Version) -> bool {
        self.tell_floor(ring, arc, floor, Version::ZERO).await
    }

    /// Tells every replica that all are equal at or below a version.
    async fn raise_floor(&self, ring: &Ring, arc: &RingArc, floor: Version) {
        if self.tell_floor(ring, arc, floor, floor).await {
            counter!("god_upkeep_floors_raised_total").increment(1);
        }
    }

    async fn tell_floor(&self, ring: &Ring, arc: &RingArc, promise: Version, repaired: Version) -> bool {
        let message = Floor {
            range: Some(peer::Range::from(&arc.range)),
            promise: Some(promise.into()),
            repaired: (repaired > Version::ZERO).then(|| repaired.into()),
            parts: false,
        };
        let told = arc.replicas.iter().map(|node| {
            self.ask_noting(*node, ring.epoch().0, COMPARE_TIMEOUT, request::Body::Floor(message.clone()))
        });
        let answers = futures::future::join_all(told).await;
        answers.into_iter().all(|answer| match answer {
            Ok(response::Body::Floor(done)) => {
                done.promised.map(Version::from).is_some_and(|promised| promised >= promise)
            }
            _ => false,
        })
    }

    /// Removes tombstones at or below the repaired floor of an arc, some at a time.
    pub(super) async fn purge(&self, arc: &RingArc, floor: Version) -> Result<(), EngineError> {
        let mut rest = arc.range.clone();
        while !rest.is_empty() {
            let range = rest.clone();
            let now_ms = self.replica.clock().sure_ms();
            let find = move |view: &View| old_tombstones(view, &range, floor, now_ms);
            let (old, end) = self.look(true, find).await?;
            if !old.is_empty() {
                let done = self.store.forget(old).await;
                let verdicts = done.map_err(|error| EngineError::Failed(error.to_string()))?;
                let count = verdicts.iter().filter(|verdict| **verdict == Verdict::Applied).count();
                counter!("god_upkeep_tombstones_purged_total").increment(count as u64);
            }
            rest.start = end;
        }
        Ok(())
    }
}

/// Whether a tombstone may go at a repaired floor. The end of a record lies as low as the record does, and stays until
/// no clock says that the record can still be read where it stands (invariant EXPIRY-DERIVED).
pub(super) fn may_go(record: &Record, floor: Version, sure_ms: u64) -> bool {
    record.kind == Kind::Tombstone
        && record.version <= floor
        && record.expires_at_ms.is_none_or(|at| at <= sure_ms)
}

/// The first tombstones of a range at or below a version, and where more may be. What cannot be read is passed over
/// (DAMAGE-APART). Cost: a scan of the range.
fn old_tombstones(
    view: &crate::radix::View,
    range: &PositionRange,
    floor: Version,
    sure_ms: u64,
) -> Result<(Vec<(Position, Version)>, Position), EngineError> {
    let sum = view.estimate(range)?;
    let mut found = Vec::new();
    if sum.entries == sum.live_keys + sum.live_members {
        return Ok((found, range.end.clone()));
    }
    for entry in view.readable(range) {
        let entry = entry?;
        let record = entry.record;
        if may_go(&record, floor, sure_ms) {
            let next = entry.position.next();
            found.push((entry.position, record.version));
            if found.len() == PURGE_STEP {
                return Ok((found, next));
            }
        }
    }
    Ok((found, range.end.clone()))
}
