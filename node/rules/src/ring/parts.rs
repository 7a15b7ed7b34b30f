//! Arcs cut in two, and made one again: nothing moves.

use super::next::{ChangeError, next};
use god_proto::{ids::ArcId, position::Position, ring::Ring, v1::Arc};
use std::collections::BTreeSet;

/// The ring with an arc cut in two at a position within it: both parts keep its replicas. `None`: it cannot be cut
/// there, or is changing hands.
pub fn split(ring: &Ring, arc: ArcId, at: &Position) -> Result<Option<Ring>, ChangeError> {
    let inner =
        |arc: &god_proto::ring::RingArc| arc.range.start < *at && *at < arc.range.end && arc.next.is_none();
    if !ring.arc(arc).is_some_and(inner) {
        return Ok(None);
    }
    let mut document = next(ring);
    let Some(lower) = document.arcs.iter().find(|lower| lower.id == arc.0) else { return Ok(None) };
    let upper = Arc { id: document.next_arc, start: at.clone().into_bytes(), ..lower.clone() };
    document.next_arc += 1;
    document.arcs.push(upper);
    document.arcs.sort_by(|a, b| a.start.cmp(&b.start));
    Ok(Some(Ring::new(document)?))
}

/// The ring in which these arcs are one with the arcs before them, as far as those have the same replicas and none
/// changes hands or is about to. `None`: nothing changes.
pub fn merge(ring: &Ring, which: &BTreeSet<ArcId>) -> Result<Option<Ring>, ChangeError> {
    let moving: BTreeSet<u64> =
        ring.operations().iter().flat_map(|operation| &operation.moves).map(|step| step.arc).collect();
    let mut document = next(ring);
    let mut kept: Vec<Arc> = Vec::with_capacity(document.arcs.len());
    let keyspace = |arc: &Arc| Position::from_bytes(arc.start.clone()).keyspace();
    for arc in std::mem::take(&mut document.arcs) {
        let joins = |before: &Arc| {
            which.contains(&ArcId(arc.id))
                && keyspace(before) == keyspace(&arc)
                && same_nodes(&before.replicas, &arc.replicas)
                && [before, &arc].iter().all(|arc| arc.transition.is_none() && !moving.contains(&arc.id))
        };
        if !kept.last().is_some_and(joins) {
            kept.push(arc);
        }
    }
    if kept.len() == ring.arcs().len() {
        return Ok(None);
    }
    document.arcs = kept;
    Ok(Some(Ring::new(document)?))
}

/// Whether both have the same nodes, in whatever order.
pub(super) fn same_nodes(a: &[u32], b: &[u32]) -> bool {
    a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}
