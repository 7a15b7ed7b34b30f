//! A replica: answers what coordinators ask of this node's own copy.
//!
//! - [`Replica`]: checks that the question is for this node and under its ring, and asks the store.
//! - [`Floors`]: what is too old to be taken, range by range.
//! - [`Loads`]: how busy its copies are.
//! - [`Lapse`]: what its machine's stop may have cost.
//! - `gate`: who writes, and who waits until that is applied.
//! - `look`: what a read, a scan or a comparison is told.
//! - `pages`: what of a range fits in one answer.
//! - `vote`: whether what it holds counts for a quorum.

mod below;
mod check;
mod floors;
mod gate;
mod lapse;
mod load;
mod look;
mod pages;
mod vote;

#[cfg(test)]
mod tests;

pub(crate) use self::check::not_all_of_range;
pub use self::{
    floors::{Floor, Floors},
    lapse::Lapse,
    load::Loads,
};

use self::{
    below::Below,
    check::{Touch, stale},
    gate::{Admitted, Gate},
};
use crate::{
    budget::Budget,
    engine::EngineError,
    peer::{Call, failure},
    radix::{CommitError, Store, Verdict},
    ring::{CurrentRing, common_epoch, deleted},
    seam::Offload,
    version::{Clock, ClockError, FAR_MS},
};
use god_proto::{
    ids::{ArcId, Epoch, NodeId},
    peer::{self, Cause, Failure, request, response},
    position::{Position, PositionRange},
    record::Entry,
    ring::{Ring, RingArc},
    version::Version,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

/// The most entries in one write, positions in one read, or ranges in one comparison.
const MAX_ENTRIES: usize = 10_000;
/// How old a floor must be: older than any write that may still be under way.
const MIN_FLOOR_AGE_MS: u64 = 1_000;
/// How long a write may wait for a new replica to take over a promise.
const MAX_PROMISE_WAIT: Duration = Duration::from_secs(1);
/// Of so many parts of a range the floors are told at a time.
const MAX_FLOOR_PARTS: usize = 1_024;
/// When a node whose clock is off may be asked again.
const CLOCK_RETRY_MS: u32 = 500;
/// When a node whose disk is behind may be asked again.
const CROWDED_RETRY_MS: u32 = 100;
/// The least time for others between two parts of what is dropped.
const MIN_DROP_PAUSE: Duration = Duration::from_millis(1);

/// This node's copy, seen from coordinators.
pub struct Replica {
    me: NodeId,
    store: Arc<Store>,
    ring: CurrentRing,
    clock: Arc<Clock>,
    offload: Offload,
    gate: Gate,
    floors: Arc<Floors>,
    loads: Loads,
    lapse: Arc<Lapse>,
    /// What is read for an answer is paid from this while it is read.
    budget: Budget,
    /// The transitions of arcs to this node for which it has taken over a promise.
    inherited: Mutex<BTreeSet<(ArcId, u64)>>,
    /// How many records that expire were taken in since the start.
    expiring: AtomicU64,
    /// Wakes writes that wait for one. Not a `watch`: that wakes in an order drawn from the machine's randomness.
    inherits: Notify,
}

impl Replica {
    /// The copy of the node of this number.
    pub fn new(
        me: NodeId,
        store: Arc<Store>,
        ring: CurrentRing,
        clock: Arc<Clock>,
        floors: Arc<Floors>,
        lapse: Arc<Lapse>,
        offload: Offload,
    ) -> Replica {
        Replica {
            me,
            store,
            ring,
            clock,
            offload,
            gate: Gate::default(),
            floors,
            loads: Loads::new(),
            lapse,
            budget: Budget::default(),
            inherited: Mutex::default(),
            expiring: AtomicU64::new(0),
            inherits: Notify::new(),
        }
    }

    /// The same, and what it reads is paid from the node's budget.
    #[must_use]
    pub fn paid_from(self, budget: Budget) -> Replica {
        Replica { budget, ..self }
    }

    /// What of it may be lapsed.
    pub fn lapse(&self) -> &Arc<Lapse> {
        &self.lapse
    }

    /// At or below this version nothing is taken at a position.
    pub fn promised_at(&self, position: &Position) -> Version {
        self.floors.at(position).promised
    }

    /// At or below this version all replicas hold the same at a position.
    pub fn repaired_at(&self, position: &Position) -> Version {
        self.floors.at(position).repaired
    }

    /// Its clock.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Its floors.
    pub fn floors(&self) -> &Arc<Floors> {
        &self.floors
    }

    /// How many records that expire were taken in since the start.
    pub fn expiring(&self) -> u64 {
        self.expiring.load(Ordering::Relaxed)
    }

    /// How busy its copies are.
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Answers one question about data. A refusal left nothing behind, but one with `CAUSE_STORAGE`.
    pub async fn handle(&self, call: Call) -> Result<response::Body, Failure> {
        if let request::Body::Write(write) = call.body {
            return self.admit_write((call.epoch, call.arcs), call.timeout, write).await;
        }
        // What these say is said of the whole ring.
        let arcs = if matches!(call.body, request::Body::Fence(_) | request::Body::Floor(_)) {
            0
        } else {
            call.arcs
        };
        let touch = self.touch(call.epoch, arcs)?;
        match call.body {
            request::Body::Fence(_) => {
                self.drained().await;
                // Under the ring that held when all before it was done.
                self.touch(call.epoch, arcs)?;
                Ok(response::Body::Fence(peer::FenceDone {}))
            }
            request::Body::Read(read) => self.read(&touch, read).await,
            request::Body::Scan(scan) => self.scan(&touch, scan).await,
            request::Body::Summarize(ask) => self.summarize(&touch, ask).await,
            request::Body::Split(ask) => {
                let range = touch.range(ask.range, ask.as_stored)?;
                let at = self.look(false, move |store| store.view().split_point(&range)).await?;
                let position = at.map(Position::into_bytes).unwrap_or_default();
                Ok(response::Body::Split(peer::SplitDone { position }))
            }
            request::Body::Select(ask) => {
                let (range, rank) = (touch.range(ask.range, false)?, ask.rank);
                let at = self.look(false, move |store| store.view().select(&range, rank)).await?;
                let position = at.map(Position::into_bytes).unwrap_or_default();
                Ok(response::Body::Select(peer::SelectDone { position }))
            }
            request::Body::Floor(ask) => {
                let range = touch.range(ask.range, false)?;
                let promised = ask.promise.map_or(Version::ZERO, Version::from);
                let repaired = ask.repaired.map_or(Version::ZERO, Version::from);
                if promised.max(repaired) > Version::ZERO {
                    self.raise_floor(&range, promised, repaired).await?;
                }
                let floor = self.floors.lowest(&range);
                let (promised, repaired) = (Some(floor.promised.into()), Some(floor.repaired.into()));
                let lapsed = self.lapse.meets(&range);
                let part = |(end, floor): (Position, Floor)| peer::FloorPart {
                    end: end.into_bytes(),
                    promised: Some(floor.promised.into()),
                    repaired: Some(floor.repaired.into()),
                };
                let parts = match ask.parts {
                    true => self.floors.parts(&range, MAX_FLOOR_PARTS).into_iter().map(part).collect(),
                    false => Vec::new(),
                };
                Ok(response::Body::Floor(peer::FloorDone { promised, repaired, lapsed, parts }))
            }
            _ => Err(failure(Cause::Invalid, "this is no question about data")),
        }
    }

    /// Writes once this node has a promise for all arcs that the write touches (invariant PROMISE-INHERITED).
    async fn admit_write(
        &self,
        (epoch, arcs): (u64, u64),
        timeout: Duration,
        write: peer::Write,
    ) -> Result<response::Body, Failure> {
        self.clock.trusted(timeout).await.map_err(|error| untimely(&error))?;
        let mut write = match self.try_write((epoch, arcs), write).await? {
            Ok(done) => return Ok(done),
            Err(write) => write,
        };
        let until = Instant::now() + timeout.min(MAX_PROMISE_WAIT);
        loop {
            let inherits = self.inherits.notified();
            tokio::pin!(inherits);
            inherits.as_mut().enable();
            write = match self.try_write((epoch, arcs), write).await? {
                Ok(done) => return Ok(done),
                Err(write) => write,
            };
            if timeout_at(until, inherits).await.is_err() {
                let message = format!("node {} has taken over no promise for an arc yet", self.me);
                return Err(Failure { retry_after_ms: 50, ..failure(Cause::Busy, message) });
            }
        }
    }

    /// Gives the write back where a promise is yet to be taken over for one of its arcs.
    async fn try_write(
        &self,
        (epoch, arcs): (u64, u64),
        write: peer::Write,
    ) -> Result<Result<response::Body, peer::Write>, Failure> {
        let _admitted = self.gate.admit().await;
        let touch = self.touch(epoch, arcs)?;
        touch.agrees(&write)?;
        let held = |arc: &RingArc| self.inherited.lock().contains(&(arc.id, arc.since.0));
        match touch.has_promises(&write, held) {
            true => self.write(&touch, write).await.map(Ok),
            false => Ok(Err(write)),
        }
    }

    /// Notes that an old replica's promise holds here for the transition of an arc that began in the epoch `since`, and
    /// forgets all transitions but those `under_way`.
    pub fn inherit(&self, arc: ArcId, since: u64, under_way: &BTreeSet<(ArcId, u64)>) {
        let mut inherited = self.inherited.lock();
        inherited.retain(|transition| under_way.contains(transition));
        inherited.insert((arc, since));
        drop(inherited);
        self.inherits.notify_waiters();
    }

    /// Writes go on while this is held, and whoever waits until all is applied waits for it.
    pub async fn admit(&self) -> Admitted<'_> {
        self.gate.admit().await
    }

    /// Waits until every write that was admitted before is applied, and every removal that was begun is done.
    pub async fn drained(&self) {
        self.gate.drained().await;
    }

    /// Removes what is stored of a range, if by the ring `owners` hold all of it and this node nothing (invariant
    /// OWNERS-FIRST: they have what was stored here). Says whether it was done.
    pub async fn drop_misplaced(
        &self,
        range: &PositionRange,
        owners: &[NodeId],
    ) -> Result<bool, CommitError> {
        let foreign =
            |arc: &RingArc| arc.replicas == owners && !Ring::holds(arc, self.me) && arc.next.is_none();
        let is_misplaced = |ring: &Ring, rest: &PositionRange| match ring.arcs_in(rest) {
            [arc] => foreign(arc) && arc.range.intersect(rest) == *rest,
            _ => false,
        };
        self.drop_while(range, is_misplaced).await
    }

    /// Removes what is stored of keyspaces that were deleted, if by the ring `range` is of such (invariant GONE-BY-ID).
    /// Says whether it was done.
    pub async fn drop_deleted(&self, range: &PositionRange) -> Result<bool, CommitError> {
        let is_deleted = |ring: &Ring, rest: &PositionRange| {
            deleted(ring).iter().any(|gone| gone.intersect(rest) == *rest)
        };
        let done = self.drop_while(range, is_deleted).await?;
        if done {
            self.floors.forget(range).await.map_err(CommitError::from)?;
        }
        Ok(done)
    }

    /// Removes what is stored of a range while the ring permits it for what is left, damaged records too: what was
    /// acknowledged of them is where the range belongs (BARRIER, OWNERS-FIRST), or is nobody's (GONE-BY-ID), and as
    /// nobody can read them they are of use to nobody. Says whether all is gone. No write comes in while a part goes.
    async fn drop_while(
        &self,
        range: &PositionRange,
        may: impl Fn(&Ring, &PositionRange) -> bool,
    ) -> Result<bool, CommitError> {
        // With what is dropped goes what is damaged beside it of what its bucket counts (DAMAGE-APART).
        let beside = self.store.damaged_outside(range).await.map_err(CommitError::from)?;
        let positions: Vec<Position> = beside.iter().cloned().collect();
        if !positions.is_empty() {
            self.lapse.add(&positions).await.map_err(CommitError::from)?;
        }
        let beside = Arc::new(beside);
        let (mut rest, mut all) = (range.clone(), true);
        while !rest.is_empty() {
            // A part at a time, so that writes to other ranges do not wait for long.
            let part = self.store.first_part(&rest);
            let began = Instant::now();
            {
                let _alone = self.gate.alone().await;
                if !self.ring.get().is_some_and(|ring| may(&ring, &rest)) {
                    return Ok(false);
                }
                rest.start = part.end.clone();
                all &= self.store.drop_part(part, &beside).await?;
            }
            // Others go on for as long.
            sleep(began.elapsed().max(MIN_DROP_PAUSE)).await;
        }
        Ok(all)
    }

    /// The ring, if the caller's is the same one, or may be the same in what is touched. Who holds what must not be in
    /// doubt (invariant ONE-EPOCH).
    fn touch(&self, epoch: u64, arcs: u64) -> Result<Touch, Failure> {
        let ring = self.ring.get().ok_or_else(|| stale(0, epoch))?;
        match common_epoch(&ring, Epoch(epoch), Epoch(arcs)) {
            Some(common) => Ok(Touch { me: self.me, ring, asked: Epoch(epoch), arcs: Epoch(arcs), common }),
            None => Err(stale(ring.epoch().0, epoch)),
        }
    }

    /// After a look: the ring that is there now, if another one came meanwhile. What it has not left as it was may have
    /// been dropped while parts of it were read.
    fn again(&self, touch: &Touch) -> Result<Option<Touch>, Failure> {
        match self.ring.epoch() == touch.ring.epoch() {
            true => Ok(None),
            false => self.touch(touch.asked.0, touch.arcs.0).map(Some),
        }
    }

    async fn write(&self, touch: &Touch, write: peer::Write) -> Result<response::Body, Failure> {
        at_most("entries", write.entries.len())?;
        let entries = write.entries.into_iter().map(Entry::try_from).collect::<Result<Vec<Entry>, _>>();
        let all = entries.map_err(|error| failure(Cause::Invalid, error.to_string()))?;
        let below = self.below_floors(&all).await?;
        self.loads.count_calls(all.len() as u64);
        let mut entries = Vec::with_capacity(all.len());
        let mut newest = Version::ZERO;
        // Of entries that are not written, as they are that old (PURGE-FLOOR): which, and what their writer is told.
        let mut old: Vec<(usize, peer::Verdict)> = Vec::new();
        for (at, entry) in all.into_iter().enumerate() {
            let arc = touch.writable(&entry)?;
            self.loads.count(arc, 1);
            newest = newest.max(entry.record.version);
            let version = entry.record.version;
            let Err(floor) = self.floors.admits(&entry.position, version) else {
                entries.push(entry);
                continue;
            };
            let superseded = |by: Version| Some(by.max(floor.promised).into());
            let told = match below.get(&at) {
                Some(Below::Ended) => {
                    entries.push(entry);
                    continue;
                }
                Some(Below::Held { newer: None }) => peer::Verdict::default(),
                Some(Below::Held { newer: Some(newer) }) => {
                    peer::Verdict { superseded_by: superseded(*newer), ..peer::Verdict::default() }
                }
                Some(Below::Unread) => peer::Verdict { damaged: true, ..peer::Verdict::default() },
                // At or below what is repaired, this replica has all there is, if it can be read: a tombstone, perhaps,
                // that has gone.
                Some(Below::Lacking) | None => peer::Verdict {
                    superseded_by: superseded(floor.promised),
                    floored: version > floor.repaired,
                    damaged: false,
                },
            };
            old.push((at, told));
        }
        // By one look: the wall may have been set while the gate was waited for.
        let now_ms = self.clock.trusted(Duration::ZERO).await.map_err(|error| untimely(&error))?;
        // The newest is within the limit where any is beyond it.
        self.clock.observe_at(newest, now_ms).map_err(|error| untimely(&error))?;
        let written = self.take_each(entries, now_ms + FAR_MS).await;
        // A refusal would say that nothing was written: what failed is among the verdicts.
        let (verdicts, _) = written.map_err(|error| refused(&error))?;
        let said = |verdict: Verdict| peer::Verdict {
            superseded_by: match verdict {
                Verdict::Applied | Verdict::Equal | Verdict::Damaged => None,
                Verdict::Superseded(version) => Some(version.into()),
            },
            floored: false,
            damaged: verdict == Verdict::Damaged,
        };
        let mut verdicts: Vec<peer::Verdict> = verdicts.into_iter().map(said).collect();
        for (at, verdict) in old {
            verdicts.insert(at, verdict);
        }
        Ok(response::Body::Write(peer::WriteDone { verdicts }))
    }

    /// Writes entries, over damaged records too. What such a one was is lost here, and what others in its bucket were
    /// is not counted any more: before it is overwritten, its position and theirs are noted as lapsed, so that this
    /// replica says nothing of them until they were compared (LAPSED-IS-NO-VOTE). After an error some may be written.
    /// Verdict `Damaged`: it cannot be overwritten yet.
    pub async fn take(
        &self,
        entries: impl Into<Arc<Vec<Entry>>>,
        ceiling_ms: u64,
    ) -> Result<Vec<Verdict>, CommitError> {
        match self.take_each(entries, ceiling_ms).await? {
            (verdicts, None) => Ok(verdicts),
            (_, Some(error)) => Err(error),
        }
    }

    /// As [`Replica::take`]; an error beside verdicts says why those of them that are `Damaged` are.
    async fn take_each(
        &self,
        entries: impl Into<Arc<Vec<Entry>>>,
        ceiling_ms: u64,
    ) -> Result<(Vec<Verdict>, Option<CommitError>), CommitError> {
        let entries = entries.into();
        let expire = |entry: &&Entry| entry.record.is_live() && entry.record.expires_at_ms.is_some();
        let expiring = entries.iter().filter(expire).count() as u64;
        let done = self.take_in(entries, ceiling_ms).await;
        // Afterwards: who looks for them then finds them, or sees that there are more.
        self.expiring.fetch_add(expiring, Ordering::Relaxed);
        done
    }

    async fn take_in(
        &self,
        entries: Arc<Vec<Entry>>,
        ceiling_ms: u64,
    ) -> Result<(Vec<Verdict>, Option<CommitError>), CommitError> {
        let mut verdicts = self.store.write_below(Arc::clone(&entries), ceiling_ms).await?;
        let damaged = |verdict: &Verdict| *verdict == Verdict::Damaged;
        if !verdicts.iter().any(damaged) {
            return Ok((verdicts, None));
        }
        let over = entries.iter().zip(&verdicts).filter(|(_, verdict)| damaged(verdict));
        let over: Vec<Entry> = over.map(|(entry, _)| entry.clone()).collect();
        let mut positions: Vec<Position> = over.iter().map(|entry| entry.position.clone()).collect();
        tracing::warn!(
            records = over.len(),
            "damaged records are overwritten, and compared with other replicas"
        );
        // The others of these entries are written: where this fails, the verdict of each says so.
        let noted = async {
            let beside = self.store.damaged_beside(&positions).await?;
            positions.extend(beside.iter().cloned());
            self.lapse.add(&positions).await.map(|()| beside)
        };
        let beside = match noted.await {
            Ok(beside) => beside,
            Err(error) => {
                tracing::warn!(%error, "damaged records cannot be overwritten");
                return Ok((verdicts, Some(error.into())));
            }
        };
        match self.store.write_over_damage(over, beside, ceiling_ms).await {
            Ok(again) => {
                for (verdict, again) in verdicts.iter_mut().filter(|verdict| damaged(verdict)).zip(again) {
                    *verdict = again;
                }
                Ok((verdicts, None))
            }
            // Nothing more of them was written; what failed otherwise is open.
            Err(error @ (CommitError::Busy { .. } | CommitError::DiskFull(_) | CommitError::Stopped)) => {
                Ok((verdicts, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Promises to take nothing at or below a version any more, and notes up to where all replicas are equal.
    async fn raise_floor(
        &self,
        range: &PositionRange,
        promised: Version,
        repaired: Version,
    ) -> Result<(), Failure> {
        // By a clock that is ahead, a floor would refuse all writes for as long.
        let now_ms = self.clock.trusted(Duration::ZERO).await.map_err(|error| untimely(&error))?;
        // A floor above what writes are stamped with now would refuse them all.
        let latest = self.clock.hybrid_at(now_ms).saturating_sub(MIN_FLOOR_AGE_MS);
        if promised.max(repaired).ms() > latest {
            return Err(failure(Cause::Clock, "a floor must lie in the past by this node's clock"));
        }
        self.floors.raise(range, Floor { promised, repaired }).await.map_err(|error| broken(&error))?;
        if promised > Version::ZERO {
            // What was admitted before is applied before anybody compares.
            self.drained().await;
        }
        Ok(())
    }
}

fn at_most(what: &str, count: usize) -> Result<(), Failure> {
    match count {
        0 => Err(failure(Cause::Invalid, format!("there are no {what}"))),
        1..=MAX_ENTRIES => Ok(()),
        _ => Err(failure(Cause::Invalid, format!("there are {count} {what}; the most is {MAX_ENTRIES}"))),
    }
}

/// A refusal because of a version's time or, with a time to wait, of this node's own clock.
fn untimely(error: &ClockError) -> Failure {
    let retry_after_ms = if error.is_own() { CLOCK_RETRY_MS } else { 0 };
    Failure { retry_after_ms, ..failure(Cause::Clock, error.to_string()) }
}

fn broken(error: &EngineError) -> Failure {
    let cause = match error {
        EngineError::Corrupt(_) => Cause::Corrupt,
        EngineError::DiskFull(_) => Cause::DiskFull,
        EngineError::Failed(_) => Cause::Storage,
        EngineError::Crowded(_) => Cause::Busy,
    };
    let retry_after_ms = if cause == Cause::Busy { CROWDED_RETRY_MS } else { 0 };
    Failure { retry_after_ms, ..failure(cause, error.to_string()) }
}

/// Why a write was not done. What failed in the engine may survive a restart, so that its outcome is open.
fn refused(error: &CommitError) -> Failure {
    let cause = match error {
        CommitError::Busy { .. } => Cause::Busy,
        CommitError::DiskFull(_) => Cause::DiskFull,
        CommitError::Engine(_) => Cause::Storage,
        CommitError::Stopped => Cause::NotMember,
    };
    let retry_after_ms = match error {
        CommitError::Busy { retry_after } => retry_after.as_millis().clamp(1, 60_000) as u32,
        _ => 0,
    };
    Failure { retry_after_ms, ..failure(cause, error.to_string()) }
}
