//! What each node should hold: in proportion to weight, within what copies and zones allow.

use super::wish::Node;
use std::collections::BTreeMap;

/// The shares of all nodes, for each number of copies.
pub(super) struct Shares<'a> {
    nodes: &'a [Node],
    known: BTreeMap<usize, Vec<f64>>,
}

impl<'a> Shares<'a> {
    pub fn new(nodes: &'a [Node]) -> Shares<'a> {
        Shares { nodes, known: BTreeMap::new() }
    }

    /// What each node should hold of a keyspace with so many copies, as a part of one copy of all of it.
    pub fn of(&mut self, copies: usize) -> &[f64] {
        self.known.entry(copies).or_insert_with(|| shares(self.nodes, copies))
    }
}

/// Divides the copies: nobody holds more than one, and with at least as many copies as zones each zone holds one at
/// least; with fewer, one at most. Within those bounds all nodes hold the same over their weight, zone by zone where
/// a zone is bound (water-filling on two levels).
fn shares(nodes: &[Node], copies: usize) -> Vec<f64> {
    let mut zones: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.takes) {
        zones.entry(node.zone).or_default().push(node.weight);
    }
    let everywhere = copies >= zones.len();
    let bound = |total: f64| if everywhere { total.max(1.0) } else { total.min(1.0) };
    let one = |weight: f64, level: f64| (weight * level).min(1.0);
    let of_zone = |weights: &[f64], level: f64| weights.iter().map(|weight| one(*weight, level)).sum::<f64>();
    // At this level every node holds a whole copy.
    let lightest = nodes.iter().map(|node| node.weight).fold(f64::INFINITY, f64::min);
    let top = 2.0 / lightest;
    let level =
        rise(top, copies as f64, |level| zones.values().map(|weights| bound(of_zone(weights, level))).sum());
    let levels: BTreeMap<usize, f64> = zones
        .iter()
        .map(|(zone, weights)| {
            let total = bound(of_zone(weights, level));
            (*zone, rise(top, total, |level| of_zone(weights, level)))
        })
        .collect();
    let level_of = |node: &Node| levels.get(&node.zone).copied().unwrap_or_default();
    nodes.iter().map(|node| if node.takes { one(node.weight, level_of(node)) } else { 0.0 }).collect()
}

/// Divides a total in proportion to weight, to nobody more than their cap.
pub(super) fn fill(total: f64, bounds: &[(f64, f64)]) -> Vec<f64> {
    let lightest = bounds.iter().map(|(weight, _)| *weight).fold(f64::INFINITY, f64::min);
    let largest = bounds.iter().map(|(_, cap)| *cap).fold(0.0, f64::max);
    let given = |(weight, cap): &(f64, f64), level: f64| (weight * level).min(*cap);
    let level =
        rise(2.0 * largest / lightest, total, |level| bounds.iter().map(|bound| given(bound, level)).sum());
    bounds.iter().map(|bound| given(bound, level)).collect()
}

/// The lowest level, up to `top`, at which so much is given; `given` must not fall with the level.
fn rise(top: f64, total: f64, given: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, top);
    // Each step halves what is unknown: more steps than this cannot tell two numbers apart.
    for _ in 0..96 {
        let middle = f64::midpoint(low, high);
        if given(middle) < total { low = middle } else { high = middle }
    }
    high
}
