//! What stands in the place of entries that are refused as too old.

use super::{Replica, broken};
use crate::peer::Damaged;
use god_proto::{peer::Failure, position::Position, record::Entry, version::Version};
use std::collections::BTreeSet;

impl Replica {
    /// Which of some entries, at or below promised floors, are the ends of records that stand here. Those take the
    /// place of what is held, however old it is: nothing comes back by them (PURGE-FLOOR). And in whose place something
    /// cannot be read. Cost: a read for each entry below a promised floor.
    pub(super) async fn below_floors(
        &self,
        entries: &[Entry],
    ) -> Result<(BTreeSet<usize>, BTreeSet<usize>), Failure> {
        let refused = |entry: &Entry| self.floors.admits(&entry.position, entry.record.version).is_err();
        let low: Vec<(usize, &Entry)> =
            entries.iter().enumerate().filter(|(_, entry)| refused(entry)).collect();
        let (mut here, mut unread) = (BTreeSet::new(), BTreeSet::new());
        if low.is_empty() {
            return Ok((here, unread));
        }
        let positions: Vec<Position> = low.iter().map(|(_, entry)| entry.position.clone()).collect();
        let held = self.held_or_noted(&positions).await?;
        for ((at, entry), held) in low.into_iter().zip(held) {
            let version = entry.record.version;
            match held {
                Ok(Some(held)) if version.is_expiry() && held == version.stamped() => drop(here.insert(at)),
                Ok(_) => {}
                Err(Damaged) => drop(unread.insert(at)),
            }
        }
        Ok((here, unread))
    }

    /// What stands where something is refused as too old. What cannot be read there is nothing that this replica has,
    /// and nothing that a write may restore: it is noted as lapsed, so that it is compared past the floors
    /// (DAMAGE-APART).
    async fn held_or_noted(
        &self,
        positions: &[Position],
    ) -> Result<Vec<Result<Option<Version>, Damaged>>, Failure> {
        let held = self.versions_at(positions).await?;
        let unread = positions.iter().zip(&held).filter(|(_, held)| held.is_err());
        let unread: Vec<Position> = unread.map(|(position, _)| position.clone()).collect();
        if !unread.is_empty() {
            self.lapse.add(&unread).await.map_err(|error| broken(&error))?;
        }
        Ok(held)
    }

    /// How many records cannot be read of those at some positions, where something is refused as too old.
    pub async fn damaged_below_floors(&self, positions: &[Position]) -> Result<u64, Failure> {
        let held = self.held_or_noted(positions).await?;
        Ok(held.iter().filter(|held| held.is_err()).count() as u64)
    }
}
