//! Detours: a node that gave one arc away and took another may as well have kept the one, if whoever would lack it then
//! takes the other. Searching for evenness makes such passes; each that is undone is a copy less.

use super::{
    NEAR,
    layout::{Cause, KeyspaceLayout},
};

/// A node takes back an arc that it gave, and another one gives up to it what that node took.
struct Undone {
    saved: f64,
    kept: usize,
    taken: usize,
    other: usize,
}

/// Undoes detours, the largest of each node first, as far as nodes stay as even as they are or near to their shares.
/// Each lowers what is copied, so there is an end. Cost: about O(nodes × arcs given × arcs taken × copies).
pub(super) fn undo(layout: &mut KeyspaceLayout<'_>, cause: Cause) {
    for node in 0..layout.nodes.len() {
        while let Some(Undone { kept, taken, other, .. }) = best(layout, node) {
            layout.pass(kept, Some(other), node, cause);
            layout.pass(taken, Some(node), other, cause);
        }
    }
}

fn best(layout: &KeyspaceLayout<'_>, node: usize) -> Option<Undone> {
    let took: Vec<usize> =
        layout.on[node].iter().copied().filter(|arc| !layout.arcs[*arc].was.contains(&node)).collect();
    if took.is_empty() {
        return None;
    }
    let mut best: Option<Undone> = None;
    for &kept in layout.was_on[node].iter().filter(|arc| !layout.arcs[**arc].now.contains(&node)) {
        for &other in &layout.arcs[kept].now {
            if !layout.may_pass(kept, other, node) {
                continue;
            }
            for &taken in &took {
                let saved = saving(layout, kept, taken, other);
                let better = best.as_ref().is_none_or(|best| saved > best.saved);
                if saved > 0.0
                    && better
                    && stays(layout, node, other, kept, taken)
                    && layout.may_pass(taken, node, other)
                {
                    best = Some(Undone { saved, kept, taken, other });
                }
            }
        }
    }
    best
}

/// What need not be copied.
fn saving(layout: &KeyspaceLayout<'_>, kept: usize, taken: usize, other: usize) -> f64 {
    let copied =
        |arc: usize| if layout.arcs[arc].was.contains(&other) { 0.0 } else { layout.arcs[arc].weight };
    layout.arcs[taken].weight + copied(kept) - copied(taken)
}

/// Whether both nodes are as near to their shares as they were, or near enough.
fn stays(layout: &KeyspaceLayout<'_>, node: usize, other: usize, kept: usize, taken: usize) -> bool {
    let change = layout.arcs[kept].weight - layout.arcs[taken].weight;
    [(node, change), (other, -change)].into_iter().all(|(node, change)| {
        let off = layout.held[node] - layout.share(node);
        (off + change).abs() <= off.abs().max(NEAR * layout.share(node))
    })
}
