//! Dealing arcs to nodes: who holds a copy of each, and who leads it.

use super::quota::{self, Share};
use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The replicas of each of `arcs` arcs, the leader first; `copies` of them or as many as there are nodes.
///
/// Every node gets just its quota of copies ([`quota::copies`]). Arc by arc, with L arcs to go, a zone that has Q
/// copies to take takes Q/L of them rounded down or up, and a node that has as many to take as arcs are to go takes
/// one. Both hold again for L − 1, so the deal never ends in a corner. Among those who may take, the one that has the
/// largest part of its quota to go does, and a hash settles ties, so that sets of replicas are mixed.
/// Cost: O(arcs × nodes).
pub(super) fn deal(nodes: &[Share], arcs: usize, copies: usize) -> Vec<Vec<u32>> {
    let copies = copies.min(nodes.len());
    let zones = quota::zones(nodes);
    let quotas = quota::copies(nodes, arcs, copies);
    let mut left = quotas.clone();
    let mut dealt: Vec<Vec<usize>> = Vec::with_capacity(arcs);
    for arc in 0..arcs {
        let to_go = arcs - arc;
        let tie = |what: u32| xxh3_64_with_seed(&what.to_le_bytes(), arc as u64);
        let mut takes: Vec<usize> = Vec::with_capacity(zones.len());
        let mut extras: Vec<(usize, u64, usize)> = Vec::with_capacity(zones.len());
        for (at, zone) in zones.iter().enumerate() {
            let total: usize = zone.iter().map(|&node| left[node]).sum();
            takes.push(total / to_go);
            if total % to_go > 0 {
                extras.push((total % to_go, tie(at as u32), at));
            }
        }
        extras.sort_unstable_by(|a, b| b.cmp(a));
        let missing = copies.saturating_sub(takes.iter().sum());
        for (_, _, at) in extras.into_iter().take(missing) {
            takes[at] += 1;
        }
        let mut set = Vec::with_capacity(copies);
        for (zone, take) in zones.iter().zip(takes) {
            let mut may: Vec<(bool, u64, u64, usize)> = zone
                .iter()
                .filter(|&&at| left[at] > 0)
                .map(|&at| {
                    let part = ((left[at] as u64) << 32) / quotas[at].max(1) as u64;
                    (left[at] == to_go, part, tie(nodes[at].node), at)
                })
                .collect();
            may.sort_unstable_by(|a, b| b.cmp(a));
            for (_, _, _, at) in may.into_iter().take(take) {
                left[at] -= 1;
                set.push(at);
            }
        }
        assert_eq!(set.len(), copies, "RING-WELL-FORMED: an arc has all of its copies");
        set.sort_unstable_by_key(|&at| tie(nodes[at].node));
        dealt.push(set);
    }
    lead(nodes, &mut dealt, &quotas);
    dealt.into_iter().map(|set| set.into_iter().map(|at| nodes[at].node).collect()).collect()
}

/// Puts a leader first in each set, so that leads follow weight: first the replica that has the largest part of its
/// leads to go, then by handing arcs on along chains from nodes with too many to nodes with too few.
fn lead(nodes: &[Share], sets: &mut [Vec<usize>], copies: &[usize]) {
    let weights: Vec<f64> = nodes.iter().map(|node| node.weight).collect();
    let caps: Vec<f64> = copies.iter().map(|&copies| copies as f64).collect();
    let quotas = quota::round(&quota::water_fill(sets.len() as f64, &weights, &caps), copies, sets.len());
    let mut leads = vec![0usize; nodes.len()];
    for set in sets.iter_mut() {
        let part = |at: usize| ((leads[at] as u64) << 32) / quotas[at].max(1) as u64;
        let best = (0..set.len()).min_by_key(|&place| (quotas[set[place]] == 0, part(set[place]), place));
        if let Some(place) = best {
            set.swap(0, place);
            leads[set[0]] += 1;
        }
    }
    let mut held: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (arc, set) in sets.iter().enumerate() {
        set.iter().for_each(|&at| held[at].push(arc));
    }
    for node in 0..nodes.len() {
        // Each chain takes one lead away; without a chain none will come.
        while leads[node] > quotas[node] {
            let Some(chain) = chain(node, sets, &held, &leads, &quotas) else { break };
            for (arc, to) in chain {
                if let Some(place) = sets[arc].iter().position(|&at| at == to) {
                    leads[sets[arc][0]] -= 1;
                    leads[to] += 1;
                    sets[arc].swap(0, place);
                }
            }
        }
    }
}

/// Arcs to hand on, each with its new leader, so that `from` has one lead less and a node below its quota one more.
fn chain(
    from: usize,
    sets: &[Vec<usize>],
    held: &[Vec<usize>],
    leads: &[usize],
    quotas: &[usize],
) -> Option<Vec<(usize, usize)>> {
    let mut came: Vec<Option<(usize, usize)>> = vec![None; held.len()];
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        if leads[node] < quotas[node] {
            let mut chain = Vec::new();
            let mut at = node;
            while at != from {
                let (before, arc) = came[at]?;
                chain.push((arc, at));
                at = before;
            }
            return Some(chain);
        }
        for &arc in held[node].iter().filter(|&&arc| sets[arc].first() == Some(&node)) {
            for &next in &sets[arc][1..] {
                if next != from && came[next].is_none() {
                    came[next] = Some((node, arc));
                    queue.push_back(next);
                }
            }
        }
    }
    None
}
