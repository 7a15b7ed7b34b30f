//! What stands in the place of entries that are refused as too old.

use super::{Replica, broken};
use crate::peer::Damaged;
use god_proto::{peer::Failure, position::Position, record::Entry, version::Version};
use std::collections::BTreeMap;

/// What stands where an entry is at or below a promised floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Below {
    /// The record that it is the end of: it takes the place of that, however old it is, as nothing comes back by it.
    Ended,
    /// It, or a newer one: it is not too old here, as nothing is written.
    Held { newer: Option<Version> },
    /// Nothing, or something older: it is too old.
    Lacking,
    /// What cannot be read.
    Unread,
}

impl Replica {
    /// What stands in the place of those of some entries, by index, that are at or below promised floors (PURGE-FLOOR).
    /// Cost: a read for each of them.
    pub(super) async fn below_floors(&self, entries: &[Entry]) -> Result<BTreeMap<usize, Below>, Failure> {
        let refused = |entry: &Entry| self.floors.admits(&entry.position, entry.record.version).is_err();
        let low: Vec<(usize, &Entry)> =
            entries.iter().enumerate().filter(|(_, entry)| refused(entry)).collect();
        if low.is_empty() {
            return Ok(BTreeMap::new());
        }
        let positions: Vec<Position> = low.iter().map(|(_, entry)| entry.position.clone()).collect();
        let held = self.held_or_noted(&positions).await?;
        // What a wrong clock stamped stands in nothing's way (FAR-IS-NOT-THERE).
        let ceiling_ms = self.clock.ceiling_ms();
        let near = |held: Option<Version>| held.filter(|version| version.ms() <= ceiling_ms);
        let below = |version: Version, held: Result<_, Damaged>| match held.map(near) {
            Err(Damaged) => Below::Unread,
            Ok(Some(held)) if held >= version => Below::Held { newer: Some(held).filter(|it| *it > version) },
            Ok(Some(held)) if version.is_expiry() && held == version.stamped() => Below::Ended,
            Ok(_) => Below::Lacking,
        };
        Ok(low
            .into_iter()
            .zip(held)
            .map(|((at, entry), held)| (at, below(entry.record.version, held)))
            .collect())
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
