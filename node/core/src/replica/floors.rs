//! The versions at or below which this node takes nothing any more, range by range, and those below which all
//! replicas are known to be equal.
//!
//! - *promised*: no write at or below it is taken from any source. Durable before it is told.
//! - *repaired*: at or below it all replicas of the range hold the same, so tombstones may go (invariant
//!   PURGE-FLOOR). Never above what is promised.

use crate::{
    engine::{Batch, Direction, Engine, EngineError, Table},
    seam::Offload,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use god_proto::{
    position::{Position, PositionRange},
    version::Version,
};
use parking_lot::RwLock;
use std::{collections::BTreeMap, sync::Arc};

const PREFIX: &[u8] = b"floor/";
const PREFIX_END: &[u8] = b"floor0";

/// What holds in one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Nothing at or below is taken.
    pub promised: Version,
    /// At or below, all replicas hold the same.
    pub repaired: Version,
}

impl Floor {
    fn raise(self, other: Floor) -> Floor {
        let promised = self.promised.max(other.promised);
        Floor { promised, repaired: self.repaired.max(other.repaired).min(promised) }
    }

    fn lower(self, other: Floor) -> Floor {
        Floor { promised: self.promised.min(other.promised), repaired: self.repaired.min(other.repaired) }
    }
}

/// Floors of ranges that do not overlap; where there is none, it is zero. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Spans {
    /// By their first position; with the position after the last.
    spans: BTreeMap<Bytes, (Bytes, Floor)>,
    highest: Version,
}

impl Spans {
    fn at(&self, position: &[u8]) -> Floor {
        let before =
            self.spans.range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(position)));
        match before.last() {
            Some((_, (end, floor))) if position < end.as_ref() => *floor,
            _ => Floor::default(),
        }
    }

    /// The lowest anywhere in a range.
    fn lowest(&self, start: &Bytes, end: &Bytes) -> Floor {
        let floors = self.parts(start, end).into_iter().map(|(_, floor)| floor);
        floors.reduce(Floor::lower).unwrap_or_default()
    }

    /// What holds in each part of a range, from its start to its end: where a part ends, and its floor.
    fn parts(&self, start: &Bytes, end: &Bytes) -> Vec<(Bytes, Floor)> {
        let mut at = start.clone();
        let mut parts = Vec::new();
        for (from, to, floor) in self.within(start, end) {
            if at < from {
                parts.push((from, Floor::default()));
            }
            parts.push((to.clone(), floor));
            at = to;
        }
        if at < *end {
            parts.push((end.clone(), Floor::default()));
        }
        parts
    }

    /// The parts of spans that lie in a range, in order.
    fn within(&self, start: &Bytes, end: &Bytes) -> Vec<(Bytes, Bytes, Floor)> {
        let first = self.spans.range::<Bytes, _>(..start).next_back();
        let inner = self.spans.range::<Bytes, _>(start..end.max(start));
        first
            .into_iter()
            .chain(inner)
            .map(|(from, (to, floor))| (from.max(start).clone(), to.min(end).clone(), *floor))
            .filter(|(from, to, _)| from < to)
            .collect()
    }

    /// Raises a range to a floor, where it is lower.
    fn raise(&mut self, start: &Bytes, end: &Bytes, to: Floor) {
        if start >= end {
            return;
        }
        let mut pieces: Vec<(Bytes, Bytes, Floor)> = Vec::new();
        let mut at = start.clone();
        for (from, until, floor) in self.within(start, end) {
            if at < from {
                pieces.push((at, from.clone(), Floor::default().raise(to)));
            }
            pieces.push((from, until.clone(), floor.raise(to)));
            at = until;
        }
        if at < *end {
            pieces.push((at, end.clone(), Floor::default().raise(to)));
        }
        self.cut_out(start, end);
        for (from, until, floor) in pieces {
            self.insert(from, until, floor);
        }
        // With the one after, where it is the same.
        if let Some((until, floor)) = self.spans.get(end).cloned() {
            self.spans.remove(end);
            self.insert(end.clone(), until, floor);
        }
        self.highest = self.highest.max(to.promised);
    }

    fn cut_out(&mut self, start: &Bytes, end: &Bytes) {
        let touched: Vec<Bytes> = {
            let first = self.spans.range::<Bytes, _>(..start).next_back();
            let inner = self.spans.range::<Bytes, _>(start..end);
            first
                .into_iter()
                .chain(inner)
                .filter(|(_, (to, _))| to > start)
                .map(|(from, _)| from.clone())
                .collect()
        };
        for from in touched {
            let Some((to, floor)) = self.spans.remove(&from) else { continue };
            if from < *start {
                self.spans.insert(from, (start.clone(), floor));
            }
            if to > *end {
                self.spans.insert(end.clone(), (to, floor));
            }
        }
    }

    /// Puts in a span, as one with the one before it where that is the same.
    fn insert(&mut self, from: Bytes, to: Bytes, floor: Floor) {
        if let Some((_, (end, before))) = self.spans.range_mut::<Bytes, _>(..&from).next_back()
            && *end == from
            && *before == floor
        {
            *end = to;
            return;
        }
        if floor != Floor::default() {
            self.spans.insert(from, (to, floor));
        }
    }
}

/// This node's floors. Cost of asking: nothing for versions above all of them.
pub struct Floors {
    engine: Arc<dyn Engine>,
    offload: Offload,
    spans: RwLock<Spans>,
    /// What is surely on the disk. One raise at a time: memory and disk change alike.
    synced: Arc<tokio::sync::Mutex<BTreeMap<Bytes, (Bytes, Floor)>>>,
}

impl Floors {
    /// Reads what is kept. Blocks on the disk.
    pub fn open(engine: Arc<dyn Engine>, offload: Offload) -> Result<Floors, EngineError> {
        let mut spans = Spans::default();
        for pair in engine.scan(Table::System, PREFIX, PREFIX_END, Direction::Forward) {
            let (key, value) = pair?;
            let start = key.slice(PREFIX.len()..);
            let (end, floor) = decode(value).ok_or_else(|| {
                EngineError::Corrupt(format!("the floor of the range from {start:?} is malformed"))
            })?;
            spans.highest = spans.highest.max(floor.promised);
            spans.spans.insert(start, (end, floor));
        }
        let synced = Arc::new(tokio::sync::Mutex::new(spans.spans.clone()));
        Ok(Floors { engine, offload, spans: RwLock::new(spans), synced })
    }

    /// What holds at a position.
    pub fn at(&self, position: &Position) -> Floor {
        self.spans.read().at(position.as_bytes())
    }

    /// Whether a version may still be taken at a position; if not, the floor that forbids it.
    pub fn admits(&self, position: &Position, version: Version) -> Result<(), Floor> {
        let spans = self.spans.read();
        if version > spans.highest {
            return Ok(());
        }
        let floor = spans.at(position.as_bytes());
        if version > floor.promised { Ok(()) } else { Err(floor) }
    }

    /// The lowest anywhere in a range.
    pub fn lowest(&self, range: &PositionRange) -> Floor {
        let (start, end) = bounds(range);
        self.spans.read().lowest(&start, &end)
    }

    /// What holds in each part of a range, from its start on, at most so many: where a part ends, and its floor.
    pub fn parts(&self, range: &PositionRange, most: usize) -> Vec<(Position, Floor)> {
        let (start, end) = bounds(range);
        let parts = self.spans.read().parts(&start, &end);
        parts.into_iter().take(most).map(|(end, floor)| (Position::from_bytes(end), floor)).collect()
    }

    /// Whether there is any in a range.
    pub fn meets(&self, range: &PositionRange) -> bool {
        let (start, end) = bounds(range);
        !self.spans.read().within(&start, &end).is_empty()
    }

    /// Raises a range. When it returns, that is synced to the disk.
    pub async fn raise(&self, range: &PositionRange, to: Floor) -> Result<(), EngineError> {
        self.raise_parts(&[(range.clone(), to)]).await
    }

    /// Raises ranges, each to its floor. When it returns, that is synced to the disk.
    pub async fn raise_parts(&self, parts: &[(PositionRange, Floor)]) -> Result<(), EngineError> {
        self.edit(|spans| {
            for (range, to) in parts {
                let (start, end) = bounds(range);
                spans.raise(&start, &end, *to);
            }
        })
        .await
    }

    /// Forgets a range that nobody will own again (invariant GONE-BY-ID).
    pub async fn forget(&self, range: &PositionRange) -> Result<(), EngineError> {
        let (start, end) = bounds(range);
        self.edit(|spans| spans.cut_out(&start, &end)).await
    }

    async fn edit(&self, edit: impl FnOnce(&mut Spans)) -> Result<(), EngineError> {
        // The write keeps its turn where nobody waits for it any more (LOCK-WITH-WRITE): what it writes must not follow
        // on what a later one does.
        let mut synced = Arc::clone(&self.synced).lock_owned().await;
        let mut next = self.spans.read().clone();
        edit(&mut next);
        // Beside the disk and not beside memory: an edit that failed, or was cancelled, is owed still.
        let batch = difference(&synced, &next.spans);
        if batch.is_empty() {
            return Ok(());
        }
        let spans = next.spans.clone();
        // Taken in first: what is refused too early is stamped again, what is taken too late would be lost.
        *self.spans.write() = next;
        let engine = Arc::clone(&self.engine);
        let write = move || {
            engine.commit(batch).and_then(|()| engine.sync())?;
            *synced = spans;
            Ok(())
        };
        self.offload.run(write).await
    }
}

fn bounds(range: &PositionRange) -> (Bytes, Bytes) {
    (range.start.clone().into_bytes(), range.end.clone().into_bytes())
}

/// What brings the stored rows from one state to another.
fn difference(from: &BTreeMap<Bytes, (Bytes, Floor)>, to: &BTreeMap<Bytes, (Bytes, Floor)>) -> Batch {
    let mut batch = Batch::default();
    let key = |start: &Bytes| [PREFIX, start].concat();
    for start in from.keys().filter(|start| !to.contains_key(*start)) {
        batch.delete(Table::System, key(start));
    }
    for (start, span) in to.iter().filter(|(start, span)| from.get(*start) != Some(*span)) {
        batch.put(Table::System, key(start), encode(span));
    }
    batch
}

fn encode((end, floor): &(Bytes, Floor)) -> Bytes {
    let mut out = BytesMut::with_capacity(end.len() + 2 * Version::SIZE);
    out.put_slice(&floor.promised.encode());
    out.put_slice(&floor.repaired.encode());
    out.put_slice(end);
    out.freeze()
}

fn decode(mut value: Bytes) -> Option<(Bytes, Floor)> {
    if value.len() < 2 * Version::SIZE {
        return None;
    }
    let promised = Version::decode(value.get(..Version::SIZE)?)?;
    value.advance(Version::SIZE);
    let repaired = Version::decode(value.get(..Version::SIZE)?)?;
    value.advance(Version::SIZE);
    Some((value, Floor { promised, repaired }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SimulatedDisk;
    use god_proto::ids::NodeId;
    use proptest::prelude::*;
    use std::time::Duration;

    fn version(ms: u64) -> Version {
        Version::new(ms, 0, NodeId(1))
    }

    fn bytes(at: u8) -> Bytes {
        Bytes::copy_from_slice(&[at])
    }

    proptest! {
        #[test]
        fn raised_ranges_are_as_in_a_list_of_all_positions(
            raises in proptest::collection::vec((0u8..20, 0u8..20, 0u64..5, 0u64..5), 0..12),
        ) {
            let mut spans = Spans::default();
            let mut naive = vec![Floor::default(); 20];
            for (a, b, promised, repaired) in raises {
                let to = Floor { promised: version(promised), repaired: version(repaired) };
                spans.raise(&bytes(a), &bytes(b), to);
                for floor in naive.iter_mut().take(b as usize).skip(a as usize) {
                    *floor = floor.raise(to);
                }
                for (at, floor) in naive.iter().enumerate() {
                    prop_assert_eq!(spans.at(&[at as u8]), *floor);
                    prop_assert!(floor.repaired <= floor.promised);
                }
                let ends = |spans: &Spans| spans.spans.iter().map(|(from, (to, _))| (from.clone(), to.clone())).collect::<Vec<_>>();
                prop_assert!(ends(&spans).array_windows().all(|[a, b]| a.1 <= b.0));
                let lowest = naive[3..9].iter().copied().reduce(Floor::lower).unwrap();
                prop_assert_eq!(spans.lowest(&bytes(3), &bytes(9)), lowest);
                let (mut parts, mut from) = (Spans::default(), bytes(3));
                for (to, floor) in spans.parts(&bytes(3), &bytes(9)) {
                    prop_assert!(from < to);
                    parts.raise(&from, &to, floor);
                    from = to;
                }
                prop_assert_eq!(from, bytes(9));
                for at in 3..9 {
                    prop_assert_eq!(parts.at(&[at]), naive[at as usize]);
                }
            }
        }
    }

    #[tokio::test]
    async fn a_floor_that_was_told_survives_a_crash_of_the_machine() {
        let disk = SimulatedDisk::new();
        let floors = Floors::open(disk.open(), Offload::Inline).unwrap();
        let range =
            PositionRange { start: Position::from_bytes(bytes(1)), end: Position::from_bytes(bytes(9)) };
        let to = Floor { promised: version(7), repaired: version(5) };
        floors.raise(&range, to).await.unwrap();
        disk.crash_machine(0);
        let floors = Floors::open(disk.open(), Offload::Inline).unwrap();
        assert_eq!(floors.lowest(&range), to);
        assert_eq!(floors.admits(&Position::from_bytes(bytes(4)), version(7)), Err(to));
        assert_eq!(floors.admits(&Position::from_bytes(bytes(4)), version(8)), Ok(()));
        assert_eq!(floors.admits(&Position::from_bytes(bytes(9)), version(1)), Ok(()));

        let part =
            PositionRange { start: Position::from_bytes(bytes(3)), end: Position::from_bytes(bytes(5)) };
        floors.forget(&part).await.unwrap();
        disk.crash_machine(0);
        let floors = Floors::open(disk.open(), Offload::Inline).unwrap();
        assert_eq!(floors.lowest(&part), Floor::default());
        assert_eq!(floors.at(&range.start), to);
        assert_eq!(floors.at(&part.end), to);
    }

    /// LOCK-WITH-WRITE
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_raise_that_nobody_waits_for_any_more_is_written_before_the_next_one() {
        let disk = SimulatedDisk::new();
        let floors = Arc::new(Floors::open(disk.open(), Offload::threads()).unwrap());
        let range =
            PositionRange { start: Position::from_bytes(bytes(1)), end: Position::from_bytes(bytes(9)) };
        let to = |ms| Floor { promised: version(ms), ..Floor::default() };
        disk.hang(true);
        let given_up = tokio::spawn({
            let (floors, range) = (Arc::clone(&floors), range.clone());
            async move { floors.raise(&range, to(5)).await }
        });
        while disk.waiting() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        let has_its_turn = floors.synced.try_lock().is_err();
        disk.hang(false);
        assert!(has_its_turn, "the next one would overtake it");
        floors.raise(&range, to(7)).await.unwrap();
        let floors = Floors::open(disk.open(), Offload::Inline).unwrap();
        assert_eq!(floors.lowest(&range), to(7));
    }
}
