//! What this node may have lost because its machine stopped: below durability `always` the end of what it acknowledged.
//!
//! A process that dies loses nothing that the engine took; a machine does. Which of them it was is told by the name of
//! the machine's run (on Linux the kernel's boot id), which is kept, with whether anything may be unsynced, from the
//! start of the node to its clean end. Where the machine stopped, all that this node holds is *lapsed* until it was
//! compared (invariant LAPSED-IS-NO-VOTE, `upkeep/recall`): it takes writes, and is no part of a read quorum.

use crate::{
    engine::{Batch, Engine, EngineError, Table},
    seam::Offload,
};
use bytes::Bytes;
use god_proto::position::{Position, PositionRange};
use parking_lot::RwLock;
use std::sync::Arc;
use uuid::Uuid;

/// Where the run is kept in [`Table::System`]: whether anything may be unsynced (a byte, 0 or 1), and the run's UUID,
/// which is missing where it is not known.
const RUN_KEY: &[u8] = b"machine/run";
/// There while not everything was compared.
const LAPSED_KEY: &[u8] = b"machine/lapsed";

/// The ranges that are lapsed.
pub struct Lapse {
    engine: Arc<dyn Engine>,
    offload: Offload,
    run: Option<Uuid>,
    /// They do not overlap. At most one more than there were cuts into them.
    ranges: RwLock<Vec<PositionRange>>,
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
        let ranges = RwLock::new(if is_lapsed { vec![everything] } else { vec![] });
        Ok(Lapse { engine, offload, run, ranges })
    }

    /// Whether nothing is lapsed.
    pub fn is_whole(&self) -> bool {
        self.ranges.read().is_empty()
    }

    /// Whether what stands at a position may be lapsed.
    pub fn holds(&self, position: &Position) -> bool {
        self.ranges.read().iter().any(|range| range.contains(position))
    }

    /// Whether some of a range may be lapsed.
    pub fn meets(&self, range: &PositionRange) -> bool {
        self.ranges.read().iter().any(|lapsed| !lapsed.intersect(range).is_empty())
    }

    /// A range was compared: it is not lapsed any more.
    pub fn mend(&self, range: &PositionRange) {
        let mut ranges = self.ranges.write();
        *ranges = without(&ranges, range);
    }

    /// All that this node holds was compared. Until this is done, a start begins anew.
    pub async fn end(&self) -> Result<(), EngineError> {
        let engine = Arc::clone(&self.engine);
        let forget = move || {
            let mut batch = Batch::default();
            batch.delete(Table::System, LAPSED_KEY);
            engine.commit(batch).and_then(|()| engine.sync())
        };
        self.offload.run(forget).await?;
        self.ranges.write().clear();
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

/// What is left of ranges without one.
fn without(ranges: &[PositionRange], cut: &PositionRange) -> Vec<PositionRange> {
    let mut left = Vec::with_capacity(ranges.len() + 1);
    for range in ranges {
        if range.intersect(cut).is_empty() {
            left.push(range.clone());
            continue;
        }
        let below = PositionRange { start: range.start.clone(), end: cut.start.clone() };
        let above = PositionRange { start: cut.end.clone(), end: range.end.clone() };
        left.extend([below, above].into_iter().filter(|part| !part.is_empty()));
    }
    left
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
        lapsed.end().await.unwrap();
        assert!(lapsed.is_whole());
        lapsed.rest().await.unwrap();
        disk.crash_machine(0);
        assert!(open(&disk, 3, true).is_whole(), "it had ended cleanly");
        disk.crash_machine(0);
        assert!(open(&disk, 4, false).is_whole(), "all was synced");
        disk.crash_process();
        assert!(!Lapse::open(disk.open(), Offload::Inline, None, false).unwrap().is_whole(), "nobody knows");
    }

    #[test]
    fn what_was_compared_is_whole_and_the_rest_is_not() {
        let disk = SimulatedDisk::new();
        open(&disk, 1, false);
        disk.crash_machine(0);
        let lapsed = open(&disk, 2, false);
        lapsed.mend(&range(3, 5));
        lapsed.mend(&range(7, 9));
        lapsed.mend(&range(4, 6));
        assert!(!lapsed.meets(&range(3, 6)) && !lapsed.holds(&range(7, 8).start));
        assert!(
            lapsed.meets(&range(5, 7)) && lapsed.holds(&range(6, 7).start) && lapsed.meets(&range(8, 10))
        );
        lapsed.mend(&PositionRange { start: Position::default(), end: Position::from_bytes(&[0xff; 8][..]) });
        assert!(lapsed.is_whole());
    }
}
