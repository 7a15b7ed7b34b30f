//! Which arcs are too small to be worth having on their own.

use super::{
    EVEN, Sizes, cut::Cuts, layout::KeyspaceLayout, share::Shares, space::DiskSpace, wish::Outlook,
    wish::Wish,
};
use god_proto::{ids::ArcId, ring::Ring};
use std::collections::{BTreeMap, BTreeSet};

/// A part of what would be cut again, and of what arcs weigh at the start: arcs that were merged stay well below both.
const LIGHT: f64 = 0.25;

/// Arcs that can be one with those before them: on the same nodes, light together, and more than their keyspace began
/// with. Cost: O(arcs).
pub fn small_arcs(ring: &Ring, sizes: &Sizes) -> BTreeSet<ArcId> {
    let outlook = Outlook::new(ring, &Wish::Rebalance, false);
    let mut known = Shares::new(&outlook.nodes);
    let mut space = DiskSpace::new(&outlook.nodes, &BTreeMap::new());
    let mut cuts = Cuts::new(0, 0, 0);
    let weights: f64 = ring.nodes().iter().map(|node| node.weight).sum();
    let first = (f64::from(ring.document().virtual_nodes) * weights).ceil().max(1.0);
    let mut small = BTreeSet::new();
    for keyspace in ring.keyspaces().iter().filter(|keyspace| keyspace.live) {
        let parts = known.of(outlook.copies(keyspace));
        let layout = KeyspaceLayout::new(ring, keyspace, sizes, &outlook, parts, &mut space, &mut cuts);
        let mut surplus = layout.arcs.len().saturating_sub(first as usize);
        let least = layout.takers().map(|node| layout.share(node)).fold(f64::INFINITY, f64::min);
        let light = LIGHT * (layout.total / first).min(EVEN * least);
        let mut before: Option<(Vec<usize>, f64)> = None;
        for arc in &layout.arcs {
            let mut nodes = arc.now.clone();
            nodes.sort_unstable();
            match &mut before {
                Some((same, weight))
                    if surplus > 0 && !arc.fixed && *same == nodes && *weight + arc.weight <= light =>
                {
                    *weight += arc.weight;
                    surplus -= 1;
                    small.insert(arc.id);
                }
                _ => before = (!arc.fixed).then_some((nodes, arc.weight)),
            }
        }
    }
    small
}
