//! Epochs of arcs (invariant ARC-EPOCH): two rings of one cluster mean the same by an arc that did not change between
//! their epochs, so that a step of one arc disturbs no request for another.
//!
//! Each arc of a ring has the epoch in which it became what it is. It is noted in one place, [`stamp_arcs`], for
//! whatever change was made, and compared in one place, [`common_epoch`].

use god_proto::{
    ids::{ArcId, Epoch},
    position::PositionRange,
    ring::{MAX_RING_BYTES, Ring, RingArc, RingError, ring_bytes},
    v1::RingDocument,
};
use std::collections::HashMap;

/// A changed ring, with the epoch in which each arc changed; `before` is the ring of the epoch before. An arc changes
/// with its bounds, its replicas or their order, its transition, or anything of its keyspace. Cost: O(document).
pub fn stamp_arcs(before: &Ring, after: &Ring) -> Result<Ring, RingError> {
    let known: HashMap<ArcId, &RingArc> = before.arcs().iter().map(|arc| (arc.id, arc)).collect();
    let mut document = after.document().clone();
    for (arc, message) in after.arcs().iter().zip(&mut document.arcs) {
        let same = known.get(&arc.id).filter(|old| {
            let keyspaces = (before.keyspace_by_id(old.keyspace), after.keyspace_by_id(arc.keyspace));
            let all_else = RingArc { changed: old.changed, ..arc.clone() };
            keyspaces.0 == keyspaces.1 && ***old == all_else
        });
        message.changed = same.map_or(document.epoch, |old| old.changed.0);
    }
    // Rather all of it changed now than not at all: what was made fits without.
    if ring_bytes(&document) > MAX_RING_BYTES {
        document = unstamped(&document);
    }
    Ring::new(document)
}

fn unstamped(document: &RingDocument) -> RingDocument {
    let mut document = document.clone();
    document.arcs.iter_mut().for_each(|arc| arc.changed = 0);
    document
}

/// Whether two rings are the same but for the epochs of arcs, which older programs leave out. Cost: O(document).
pub fn is_same_change(a: &RingDocument, b: &RingDocument) -> bool {
    a == b || a.epoch == b.epoch && unstamped(a) == unstamped(b)
}

/// The arcs that a range consists of, in order; `None` where a part of it is in none. Cost: O(log arcs + arcs in it).
pub fn arcs_of<'a>(ring: &'a Ring, range: &PositionRange) -> Option<&'a [RingArc]> {
    let arcs = ring.arcs_in(range);
    let (first, last) = (arcs.first()?, arcs.last()?);
    let gapless = arcs.array_windows().all(|[a, b]| a.range.end == b.range.start);
    let within = first.range.start <= range.start && range.end <= last.range.end;
    (within && gapless).then_some(arcs)
}

/// The latest epoch in which an arc of a range changed; 0 where not all of the range is in arcs, of which only the
/// whole ring tells. Cost: O(arcs in it).
pub fn changed_in(ring: &Ring, range: &PositionRange) -> Epoch {
    let changed = |arcs: &[RingArc]| arcs.iter().map(|arc| arc.changed).max();
    arcs_of(ring, range).and_then(changed).unwrap_or(Epoch(0))
}

/// The epoch up to which an arc must have stood still for a caller's ring and this one to mean the same by it; `None`:
/// by none. `asked`: the epoch of the caller's ring; `arcs`: the latest in which an arc that it asks about changed by
/// that ring, 0 where it asks by the whole of it.
///
/// Why that is enough. Let the rings be of epochs a < b. An arc that did not change in a + 1 … b is the same in both.
/// Whoever has b sees that from its own note of the arc. Whoever has a cannot, and is told by the other that it changed
/// at `arcs` ≤ a at the latest.
pub fn common_epoch(ring: &Ring, asked: Epoch, arcs: Epoch) -> Option<Epoch> {
    if asked == ring.epoch() {
        return Some(asked);
    }
    let common = asked.min(ring.epoch());
    (arcs != Epoch(0) && arcs <= common).then_some(common)
}
