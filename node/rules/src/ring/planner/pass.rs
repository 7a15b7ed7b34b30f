//! What a pass of one copy from a node to another is worth.

use super::{
    EVEN, NEAR,
    layout::{Cause, KeyspaceLayout},
};
use std::cmp::Reverse;

/// A pass must gain more than rounding could feign.
const ROUNDING: f64 = 1e-9;

/// What is gone for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    /// A node that is to come as near to its share as whole arcs let it.
    pub node: Option<usize>,
    /// Whether each pass is a copy more to be made: then only as few are made as evenness asks for.
    pub thrifty: bool,
    /// Why arcs are moved.
    pub cause: Cause,
}

/// How near two nodes come to their shares by a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// One is further from it than is even enough.
    Poor,
    /// Both are even enough.
    Tolerable,
    /// Both are near.
    Good,
    /// The one still holds no less than its share, the other no more. (Not told apart where each pass is a copy more:
    /// there it counts that few arcs move.)
    Exact,
}

/// A copy that may pass from a node to another. The best is the greatest: what comes first counts first. The largest
/// arc that leaves both near their shares is best, or else the smallest; among arcs of about one size, one that need
/// not be copied once more, and one whose new replicas have other arcs in common already (rule 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pass {
    pub fit: Fit,
    size: i64,
    free: bool,
    known: bool,
    first: Reverse<usize>,
    pub arc: usize,
    pub from: usize,
    pub to: usize,
}

impl Pass {
    /// The pass of this arc, if it may be and makes nodes more even: if it lowers Σ (held − share)² / share.
    pub fn new(layout: &KeyspaceLayout<'_>, aim: Aim, arc: usize, from: usize, to: usize) -> Option<Pass> {
        let weight = layout.arcs[arc].weight;
        let (give, take) = (layout.share(from), layout.share(to));
        let gap = layout.held[from] / give - layout.held[to] / take;
        if gap - weight * (0.5 / give + 0.5 / take) <= ROUNDING || overfills(layout, aim, arc, to) {
            return None;
        }
        if !layout.may_pass(arc, from, to) {
            return None;
        }
        let within = |off: f64| {
            layout.held[from] - weight >= (1.0 - off) * give && layout.held[to] + weight <= (1.0 + off) * take
        };
        let fit = match () {
            () if !aim.thrifty && within(0.0) => Fit::Exact,
            () if within(NEAR) => Fit::Good,
            () if within(EVEN) => Fit::Tolerable,
            () => Fit::Poor,
        };
        // Sizes within a fifth of each other count as one.
        let size = (weight.log2() * 4.0).floor() as i64;
        let planned = &layout.arcs[arc];
        Some(Pass {
            fit,
            size: if fit >= Fit::Good { size } else { -size },
            free: planned.was.contains(&to) || !planned.was.contains(&from),
            known: layout.is_known_set(arc, Some(from), to),
            first: Reverse(arc),
            arc,
            from,
            to,
        })
    }
}

/// Whether who joins would be further above its share than it is below: others may hold more than theirs, but that is
/// no reason to give it more than its own.
fn overfills(layout: &KeyspaceLayout<'_>, aim: Aim, arc: usize, to: usize) -> bool {
    !aim.thrifty
        && layout.taker == Some(to)
        && layout.held[to] + layout.arcs[arc].weight / 2.0 > layout.share(to)
}
