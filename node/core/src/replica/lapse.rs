//! What this node may have lost because its machine stopped: below durability `always` the end of what it acknowledged.
//!
//! A process that dies loses nothing that the engine took; a machine does. Which of them it was is told by the name of
//! the machine's run (on Linux the kernel's boot id), which is kept, with whether anything may be unsynced, from the
//! start of the node to its clean end. Where the machine stopped, all that this node holds is *lapsed* until it was
//! compared (invariant LAPSED-IS-NO-VOTE, `upkeep/recall`): it takes writes, and is no part of a read quorum. So it is
//! where a start could not read all that it had to count, and so is each position at which a record was damaged, and
//! overwritten: what was there is lost as by a stop.

use crate::{
    engine::{Batch, Engine, EngineError, Table},
    seam::Offload,
};
use bytes::Bytes;
use god_proto::position::{Position, PositionRange};
use parking_lot::RwLock;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};
use tokio::sync::Notify;
use uuid::Uuid;

/// Where the run is kept in [`Table::System`]: whether anything may be unsynced (a byte, 0 or 1), and the run's UUID,
/// which is missing where it is not known.
const RUN_KEY: &[u8] = b"machine/run";
/// There while not everything was compared.
const LAPSED_KEY: &[u8] = b"machine/lapsed";

/// The most ranges that are told apart; beyond it the nearest are joined, and what is between them is lapsed too.
const MAX_RANGES: usize = 1_024;
/// So many are left then, so that it is not done for each one that comes.
const JOINED_RANGES: usize = MAX_RANGES / 4 * 3;
/// The most positions that are remembered for reads that were under way when they were added.
const MAX_RECENT: usize = 256;

/// The ranges that are lapsed, and which addition each came with.
#[derive(Default)]
struct Ranges {
    lapsed: Vec<(PositionRange, u64)>,
    additions: u64,
    /// How many of them there were when that was asked last: a comparison may be under way that mends those.
    asked: u64,
    /// The latest positions that were added, the newest last; and up to which addition some are not among them any
    /// more.
    recent: VecDeque<(u64, Position)>,
    forgotten: u64,
}

impl Ranges {
    fn holds(&self, position: &Position) -> bool {
        self.lapsed.iter().any(|(range, _)| range.contains(position))
    }

    /// See [`Lapse::add`]. What is found damaged at each comparison is added at each: by the second time nothing of it
    /// is new, and no more is lapsed than before.
    fn add(&mut self, positions: &[Position]) {
        let asked = self.asked;
        let fresh: Vec<&PositionRange> =
            self.lapsed.iter().filter(|(_, at)| *at > asked).map(|(range, _)| range).collect();
        let is_covered = |position: &&Position| fresh.iter().any(|range| range.contains(position));
        let added: BTreeSet<&Position> = positions.iter().filter(|at| !is_covered(at)).collect();
        if added.is_empty() {
            return;
        }
        self.additions += 1;
        let addition = self.additions;
        // What is lapsed still, no read under way takes for a vote: it is noted since when.
        let new: Vec<Position> = added.iter().filter(|at| !self.holds(at)).map(|at| (*at).clone()).collect();
        self.recent.extend(new.into_iter().map(|at| (addition, at)));
        while self.recent.len() > MAX_RECENT
            && let Some((addition, _)) = self.recent.pop_front()
        {
            self.forgotten = addition;
        }
        // What was added before moves up rather than stand there twice.
        let is_anew = |range: &PositionRange| added.contains(&range.start) && range.start.next() == range.end;
        self.lapsed.retain(|(range, _)| !is_anew(range));
        let added = added.into_iter().map(PositionRange::of_position);
        self.lapsed.extend(added.map(|range| (range, addition)));
        if self.lapsed.len() > MAX_RANGES && join(&mut self.lapsed) {
            // What is between those that were joined is noted by nobody.
            self.forgotten = addition;
        }
    }
}

/// The ranges that are lapsed.
pub struct Lapse {
    engine: Arc<dyn Engine>,
    offload: Offload,
    run: Option<Uuid>,
    ranges: RwLock<Ranges>,
    /// Whether [`LAPSED_KEY`] is surely there. Held while it is written: what is added is not forgotten with what was
    /// there before.
    noted: Arc<tokio::sync::Mutex<bool>>,
    added: Notify,
}

impl Lapse {
    /// Reads what the start before left, and notes this one. `run` is that of the machine; `synced`: whatever will be
    /// acknowledged is synced. Blocks on the disk.
    pub fn open(
        engine: Arc<dyn Engine>,
        offload: Offload,
        run: Option<Uuid>,
        synced: bool,
    ) -> Result<Lapse, EngineError> {
        let before = engine.get(Table::System, RUN_KEY)?;
        let stopped = before.is_some_and(|before| match before.split_first() {
            Some((1, before)) => run.is_none_or(|run| before != &run.as_bytes()[..]),
            _ => false,
        });
        let is_lapsed = stopped || engine.get(Table::System, LAPSED_KEY)?.is_some();
        let mut batch = Batch::default();
        batch.put(Table::System, RUN_KEY, row(run, synced));
        if is_lapsed {
            batch.put(Table::System, LAPSED_KEY, Bytes::new());
        }
        engine.commit(batch)?;
        engine.sync()?;
        let everything =
            PositionRange { start: Position::default(), end: Position::from_bytes(&[0xff; 8][..]) };
        let lapsed = if is_lapsed { vec![(everything, 0)] } else { vec![] };
        let ranges = RwLock::new(Ranges { lapsed, ..Ranges::default() });
        let noted = Arc::new(tokio::sync::Mutex::new(is_lapsed));
        Ok(Lapse { engine, offload, run, ranges, noted, added: Notify::new() })
    }

    /// What is to be written before [`Lapse::open`] where the data was put back from a backup, or could not all be
    /// read: all of it is lapsed.
    pub fn of_all() -> Batch {
        let mut batch = Batch::default();
        batch.put(Table::System, LAPSED_KEY, Bytes::new());
        batch
    }

    /// Whether nothing is lapsed.
    pub fn is_whole(&self) -> bool {
        self.ranges.read().lapsed.is_empty()
    }

    /// Whether what stands at a position may be lapsed.
    pub fn holds(&self, position: &Position) -> bool {
        self.ranges.read().holds(position)
    }

    /// Whether some of a range may be lapsed.
    pub fn meets(&self, range: &PositionRange) -> bool {
        self.ranges.read().lapsed.iter().any(|(lapsed, _)| !lapsed.intersect(range).is_empty())
    }

    /// How often something was added. Ask before ranges are compared, for [`Lapse::mend`] and [`Lapse::end`].
    pub fn additions(&self) -> u64 {
        let mut ranges = self.ranges.write();
        ranges.asked = ranges.additions;
        ranges.additions
    }

    /// The same, for who looks and compares nothing. Cost: a lock that is shared.
    pub fn count(&self) -> u64 {
        self.ranges.read().additions
    }

    /// Whether something was added at one of some positions after so many additions, even if it was compared by now;
    /// or whether that is not known any more. Cost: a lock that is shared, and a look at each of the latest.
    pub fn added_since(&self, additions: u64, touches: impl Fn(&Position) -> bool) -> bool {
        let ranges = self.ranges.read();
        let mut since = ranges.recent.iter().rev().take_while(|(addition, _)| *addition > additions);
        additions < ranges.forgotten || since.any(|(_, position)| touches(position))
    }

    /// As [`Lapse::added_since`], of a range; also where it was lapsed before, but for what was compared since.
    pub fn added_in(&self, range: &PositionRange, additions: u64) -> bool {
        let meets =
            |(lapsed, at): &(PositionRange, u64)| *at > additions && !lapsed.intersect(range).is_empty();
        let again = self.ranges.read().lapsed.iter().any(meets);
        again || self.added_since(additions, |position| range.contains(position))
    }

    /// Waits until something is lapsed.
    pub async fn begun(&self) {
        loop {
            let added = self.added.notified();
            if !self.is_whole() {
                return;
            }
            added.await;
        }
    }

    /// What stands at these positions may be lapsed from now on. When this returns, a start knows it too: it does not
    /// remember which, and begins with everything. Cost: nothing where they are lapsed already, and no comparison that
    /// began before this is to mend them.
    pub async fn add(&self, positions: &[Position]) -> Result<(), EngineError> {
        self.ranges.write().add(positions);
        self.added.notify_waiters();
        let mut noted = Arc::clone(&self.noted).lock_owned().await;
        if *noted {
            return Ok(());
        }
        let engine = Arc::clone(&self.engine);
        let note = move || {
            engine.commit(Lapse::of_all()).and_then(|()| engine.sync())?;
            *noted = true;
            Ok(())
        };
        self.offload.run(note).await
    }

    /// A range was compared after so many additions: it is not lapsed any more, but for what was added since.
    pub fn mend(&self, range: &PositionRange, additions: u64) {
        let mut ranges = self.ranges.write();
        ranges.lapsed = without(&ranges.lapsed, range, additions);
    }

    /// All that this node holds was compared after so many additions. Until this is done, a start begins anew. Where
    /// something was added since, nothing is done.
    pub async fn end(&self, additions: u64) -> Result<(), EngineError> {
        let mut noted = Arc::clone(&self.noted).lock_owned().await;
        if self.count() != additions {
            return Ok(());
        }
        // Where this fails it may be gone or not.
        *noted = false;
        let engine = Arc::clone(&self.engine);
        let forget = move || {
            // The write keeps its turn where nobody waits for it any more (LOCK-WITH-WRITE): what is added then is
            // noted after this.
            let _turn = noted;
            let mut batch = Batch::default();
            batch.delete(Table::System, LAPSED_KEY);
            engine.commit(batch).and_then(|()| engine.sync())
        };
        self.offload.run(forget).await?;
        // What is added meanwhile is noted after this.
        self.ranges.write().lapsed.retain(|(_, addition)| *addition > additions);
        Ok(())
    }

    /// The node ends, and writes nothing any more: all is synced when this returns, and noted to be.
    pub async fn rest(&self) -> Result<(), EngineError> {
        let (engine, row) = (Arc::clone(&self.engine), row(self.run, true));
        let note = move || {
            engine.sync()?;
            let mut batch = Batch::default();
            batch.put(Table::System, RUN_KEY, row);
            engine.commit(batch).and_then(|()| engine.sync())
        };
        self.offload.run(note).await
    }
}

fn row(run: Option<Uuid>, synced: bool) -> Vec<u8> {
    let mut row = vec![u8::from(!synced)];
    row.extend(run.iter().flat_map(Uuid::as_bytes));
    row
}

/// What is left of ranges without one, of those that came with one of the first additions.
fn without(ranges: &[(PositionRange, u64)], cut: &PositionRange, up_to: u64) -> Vec<(PositionRange, u64)> {
    let mut left = Vec::with_capacity(ranges.len() + 1);
    for (range, addition) in ranges {
        if *addition > up_to || range.intersect(cut).is_empty() {
            left.push((range.clone(), *addition));
            continue;
        }
        let below = PositionRange { start: range.start.clone(), end: cut.start.clone() };
        let above = PositionRange { start: cut.end.clone(), end: range.end.clone() };
        let parts = [below, above].into_iter().filter(|part| !part.is_empty());
        left.extend(parts.map(|part| (part, *addition)));
    }
    left
}

/// Makes one of those that meet; where too many are left, of the nearest too. Says whether anything lies between ranges
/// that were joined. What comes of two is as late as the later one. Cost: a sort.
fn join(ranges: &mut Vec<(PositionRange, u64)>) -> bool {
    ranges.sort_unstable_by(|(a, _), (b, _)| a.start.cmp(&b.start));
    unite(ranges, |range, next| next.start <= range.end);
    if ranges.len() <= MAX_RANGES {
        return false;
    }
    let pairs = ranges.iter().zip(ranges.iter().skip(1)).enumerate();
    let mut gaps: Vec<_> = pairs.map(|(at, ((range, _), (next, _)))| (gap(range, next), at)).collect();
    gaps.sort_unstable();
    let beyond = ranges.len() - JOINED_RANGES;
    let narrow: BTreeSet<usize> = gaps.into_iter().take(beyond).map(|(_, at)| at).collect();
    let mut at = 0..;
    unite(ranges, |_, _| at.next().is_some_and(|at| narrow.contains(&at)));
    true
}

/// Makes one of neighbours of which this is so, from the first to the last.
fn unite(
    ranges: &mut Vec<(PositionRange, u64)>,
    mut are_one: impl FnMut(&PositionRange, &PositionRange) -> bool,
) {
    ranges.dedup_by(|(next, later), (range, addition)| {
        let are_one = are_one(range, next);
        if are_one {
            range.end = range.end.clone().max(next.end.clone());
            *addition = (*addition).max(*later);
        }
        are_one
    });
}

/// How far one range is from the next: the fewer bytes they have in common the further, and then by the bytes after
/// those.
fn gap(range: &PositionRange, next: &PositionRange) -> (Reverse<usize>, u64) {
    let (end, start) = (range.end.as_bytes(), next.start.as_bytes());
    let common = end.iter().zip(start).take_while(|(a, b)| a == b).count();
    let number = |bytes: &[u8]| {
        let rest = bytes.iter().skip(common).chain(&[0; 8]).take(8);
        rest.fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    (Reverse(common), number(start).saturating_sub(number(end)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::SimulatedDisk;

    fn open(disk: &SimulatedDisk, run: u128, synced: bool) -> Lapse {
        Lapse::open(disk.open(), Offload::Inline, Some(Uuid::from_u128(run)), synced).unwrap()
    }

    fn range(from: u8, to: u8) -> PositionRange {
        PositionRange { start: Position::from_bytes(vec![from; 5]), end: Position::from_bytes(vec![to; 5]) }
    }

    #[tokio::test]
    async fn only_a_machine_that_stopped_with_something_unsynced_tears() {
        let disk = SimulatedDisk::new();
        assert!(open(&disk, 1, false).is_whole(), "the first start");
        disk.crash_process();
        assert!(open(&disk, 1, false).is_whole(), "a process that was killed");
        disk.crash_machine(0);
        let lapsed = open(&disk, 2, false);
        assert!(lapsed.meets(&range(3, 4)) && lapsed.holds(&range(3, 4).start));
        disk.crash_process();
        let lapsed = open(&disk, 2, false);
        assert!(!lapsed.is_whole(), "it was not compared before it started again");
        lapsed.end(0).await.unwrap();
        assert!(lapsed.is_whole());
        lapsed.rest().await.unwrap();
        disk.crash_machine(0);
        assert!(open(&disk, 3, true).is_whole(), "it had ended cleanly");
        disk.crash_machine(0);
        assert!(open(&disk, 4, false).is_whole(), "all was synced");
        disk.crash_process();
        assert!(!Lapse::open(disk.open(), Offload::Inline, None, false).unwrap().is_whole(), "nobody knows");
        let disk = SimulatedDisk::new();
        open(&disk, 1, true).rest().await.unwrap();
        disk.open().commit(Lapse::of_all()).unwrap();
        assert!(!open(&disk, 1, true).is_whole(), "it was put back from a backup");
    }

    #[test]
    fn what_was_compared_is_whole_and_the_rest_is_not() {
        let disk = SimulatedDisk::new();
        open(&disk, 1, false);
        disk.crash_machine(0);
        let lapsed = open(&disk, 2, false);
        lapsed.mend(&range(3, 5), 0);
        lapsed.mend(&range(7, 9), 0);
        lapsed.mend(&range(4, 6), 0);
        assert!(!lapsed.meets(&range(3, 6)) && !lapsed.holds(&range(7, 8).start));
        assert!(
            lapsed.meets(&range(5, 7)) && lapsed.holds(&range(6, 7).start) && lapsed.meets(&range(8, 10))
        );
        let everything =
            PositionRange { start: Position::default(), end: Position::from_bytes(&[0xff; 8][..]) };
        lapsed.mend(&everything, 0);
        assert!(lapsed.is_whole());
    }

    #[tokio::test]
    async fn what_is_added_while_others_are_compared_stays_lapsed_and_over_a_start() {
        let disk = SimulatedDisk::new();
        let lapsed = open(&disk, 1, true);
        let (first, second) = (range(3, 4).start, range(5, 6).start);
        lapsed.add(std::slice::from_ref(&first)).await.unwrap();
        let before = lapsed.additions();
        lapsed.add(std::slice::from_ref(&second)).await.unwrap();
        lapsed.mend(&range(2, 9), before);
        assert!(!lapsed.holds(&first) && lapsed.holds(&second));
        lapsed.end(before).await.unwrap();
        assert!(lapsed.holds(&second), "it was added since");
        disk.crash_process();
        assert!(open(&disk, 1, true).holds(&second));
    }

    #[tokio::test]
    async fn what_is_lapsed_already_is_added_once_and_noted_once() {
        let disk = SimulatedDisk::new();
        let lapsed = open(&disk, 1, true);
        let (one, other) = (range(3, 4).start, range(5, 6).start);
        lapsed.add(std::slice::from_ref(&one)).await.unwrap();
        disk.fail_writes(Some(EngineError::Failed("nothing need be written".to_owned())));
        for _ in 0..2 * MAX_RANGES {
            lapsed.add(&[one.clone(), other.clone()]).await.unwrap();
            // As who compares does, and finds it as it was.
            lapsed.additions();
        }
        assert_eq!(lapsed.ranges.read().lapsed.len(), 2);
        disk.fail_writes(None);
        // What comes after a comparison began is not mended by it, though it was lapsed before.
        let before = lapsed.additions();
        lapsed.add(std::slice::from_ref(&one)).await.unwrap();
        lapsed.mend(&range(2, 9), before);
        assert!(lapsed.holds(&one) && !lapsed.holds(&other));
        lapsed.end(lapsed.additions()).await.unwrap();
        assert!(lapsed.is_whole());
        lapsed.add(std::slice::from_ref(&one)).await.unwrap();
        disk.crash_process();
        assert!(open(&disk, 1, true).holds(&one), "what was noted as whole is noted as lapsed again");
    }

    #[tokio::test]
    async fn of_very_many_the_nearest_become_one() {
        let lapsed = open(&SimulatedDisk::new(), 1, true);
        let at = |number: u32| Position::from_bytes(number.to_be_bytes().to_vec());
        // As in two places that are far apart.
        let many = MAX_RANGES as u32 / 2 + 1;
        let positions: Vec<Position> =
            (0..many).chain((0..many).map(|number| 1 << 30 | number)).map(at).collect();
        lapsed.add(&positions).await.unwrap();
        assert!(positions.iter().all(|position| lapsed.holds(position)));
        assert_eq!(lapsed.ranges.read().lapsed.len(), JOINED_RANGES);
        let between = PositionRange { start: at(many), end: at(1 << 30) };
        assert!(!lapsed.meets(&between));
        lapsed.end(lapsed.additions()).await.unwrap();
        assert!(lapsed.is_whole());
    }

    #[tokio::test]
    async fn what_is_overwritten_within_very_many_that_became_one_is_known_to_have_lapsed() {
        let lapsed = open(&SimulatedDisk::new(), 1, true);
        let at = |number: u32| Position::from_bytes(number.to_be_bytes().to_vec());
        let positions: Vec<Position> = (0..MAX_RANGES as u32).map(|number| at(2 * number)).collect();
        lapsed.add(&positions).await.unwrap();
        // A look at what lies between begins, and does not end yet.
        let between = at(7);
        let vote = lapsed.count();
        assert!(!lapsed.holds(&between));
        lapsed.add(&[at(2 * MAX_RANGES as u32)]).await.unwrap();
        lapsed.add(std::slice::from_ref(&between)).await.unwrap();
        assert!(lapsed.added_since(vote, |position| *position == between));
        let later = lapsed.count();
        assert!(lapsed.holds(&between) && !lapsed.added_since(later, |_| true));
    }

    /// As `upkeep/recall` does with damage that stays: what is compared is mended, but for what is found damaged again.
    async fn compare(lapsed: &Lapse, damaged: &[Position], arcs: impl Iterator<Item = PositionRange>) {
        let before = lapsed.additions();
        for arc in arcs {
            for few in damaged.chunks(7) {
                let here: Vec<Position> = few.iter().filter(|at| arc.contains(at)).cloned().collect();
                lapsed.add(&here).await.unwrap();
            }
            lapsed.mend(&arc, before);
        }
    }

    #[tokio::test]
    async fn a_second_comparison_of_the_same_damage_adds_nothing() {
        const PLACES: u32 = 3 * MAX_RANGES as u32;
        let lapsed = open(&SimulatedDisk::new(), 1, true);
        let at = |number: u32| Position::from_bytes(number.to_be_bytes().to_vec());
        let arcs = || (0..16).map(|arc| PositionRange { start: at(arc << 20), end: at((arc + 1) << 20) });
        // At the beginning of each second arc, further from each other as they go.
        let place = |number: u32| at(((number % 8) << 21) | ((number / 8) * (number / 8)));
        let damaged: Vec<Position> = (0..PLACES).map(place).collect();
        let meets = |lapsed: &Lapse| arcs().map(|arc| lapsed.meets(&arc)).collect::<Vec<_>>();
        let whole: Vec<bool> = (0..16).map(|arc| arc % 2 == 0).collect();
        lapsed.add(&damaged).await.unwrap();
        assert_eq!(meets(&lapsed), whole, "what lies between is not lapsed");
        let probe = |number: u32| at(((number % 8) << 21) | (number / 8 * 293));
        let held = |lapsed: &Lapse| (0..4_096).map(|at| lapsed.holds(&probe(at))).collect::<Vec<_>>();
        let mut before = held(&lapsed);
        for _ in 0..4 {
            let vote = lapsed.count();
            compare(&lapsed, &damaged, arcs()).await;
            assert!(damaged.iter().all(|at| lapsed.holds(at)));
            assert!(lapsed.ranges.read().lapsed.len() <= MAX_RANGES);
            let after = held(&lapsed);
            assert!(before.iter().zip(&after).all(|(before, after)| before >= after), "more is lapsed");
            assert!(!lapsed.added_since(vote, |_| true), "reads under way are told of nothing new");
            assert_eq!(meets(&lapsed), whole);
            before = after;
        }
        // What is mended of it by and by is told apart again.
        for _ in 0..3 {
            compare(&lapsed, &damaged[..8], arcs()).await;
        }
        assert_eq!(lapsed.ranges.read().lapsed.len(), 8);
        compare(&lapsed, &[], arcs()).await;
        assert!(lapsed.is_whole());
    }
}
