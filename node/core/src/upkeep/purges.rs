//! When tombstones may go: once the reads are over that were under way when their floor was heard of (invariant
//! READS-BEFORE-PURGE).

use god_proto::{ids::Epoch, ring::RingArc, version::Version};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// How many floors of an arc may wait for reads to end.
const MAX_SEEN: usize = 8;

/// Up to where the tombstones of an arc were purged, and will be.
#[derive(Default)]
pub(super) struct Purges {
    /// The epoch in which the arc became what it is. Of another one nothing was seen yet: it may have grown.
    changed: Epoch,
    pub done: Version,
    /// Repaired floors, rising, and when each was first seen.
    seen: VecDeque<(Version, Instant)>,
}

impl Purges {
    /// Takes note of the floor that holds now in all of an arc; gives the highest that was seen so long ago.
    pub fn due(&mut self, arc: &RingArc, floor: Version, longest_read: Duration) -> Option<Version> {
        if self.changed != arc.changed {
            *self = Purges { changed: arc.changed, ..Purges::default() };
        }
        let newest = self.seen.back().map_or(self.done, |(floor, _)| *floor);
        // What does not fit is seen later.
        if floor > newest && self.seen.len() < MAX_SEEN {
            self.seen.push_back((floor, Instant::now()));
        }
        let mut due = None;
        while let Some((floor, _)) = self.seen.pop_front_if(|(_, at)| at.elapsed() > longest_read) {
            due = Some(floor);
        }
        due
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use god_proto::{
        ids::{ArcId, KeyspaceId, NodeId},
        position::PositionRange,
    };
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn of_an_arc_that_has_grown_no_floor_was_seen_yet() {
        let arc = RingArc {
            id: ArcId(1),
            keyspace: KeyspaceId(1),
            range: PositionRange::of_keyspace(KeyspaceId(1)),
            replicas: vec![NodeId(1)],
            next: None,
            since: Epoch(0),
            changed: Epoch(4),
        };
        let (high, low) = (Version::new(20, 0, NodeId(1)), Version::new(10, 0, NodeId(1)));
        let (read, later) = (Duration::from_secs(5), Duration::from_secs(6));
        let mut purges = Purges::default();
        assert_eq!(purges.due(&arc, high, read), None, "reads may be under way");
        advance(later).await;
        // It was merged with one whose floor is lower, in which reads may be under way that know of neither.
        let merged = RingArc { changed: Epoch(5), ..arc };
        assert_eq!(purges.due(&merged, low, read), None);
        advance(later).await;
        assert_eq!(purges.due(&merged, low, read), Some(low));
        purges.done = low;
        assert_eq!(purges.due(&merged, low, read), None, "it is done");
    }
}
