//! Chains: where no single pass makes an uneven node more even, copies pass on from node to node, and each on the way
//! gives about as much as it takes. The shortest chain is looked for, breadth first, as each pass may be a copy more.

use super::{
    EVEN,
    layout::{Cause, KeyspaceLayout},
    level::{Cutting, is_uneven},
};
use std::{cmp::Ordering, collections::VecDeque};

/// The most chains of one plan.
const MOST_CHAINS: usize = 4_096;
/// A chain must gain more than rounding could feign, as a part of its weight.
const ROUNDING: f64 = 1e-6;

/// An arc that passes from one node to another.
#[derive(Clone, Copy, Debug)]
struct Link {
    arc: usize,
    from: usize,
    to: usize,
}

/// Makes nodes more even by chains, as far as there are any; says whether there was one.
pub(super) fn even_out(layout: &mut KeyspaceLayout<'_>, cause: Cause, cutting: Cutting) -> bool {
    let (mut any, mut left) = (false, MOST_CHAINS);
    loop {
        let off = |node: usize| (layout.ratio(node) - 1.0).abs();
        let mut uneven: Vec<usize> = layout.takers().filter(|node| is_uneven(layout, *node)).collect();
        uneven.sort_by(|a, b| off(*b).total_cmp(&off(*a)).then(a.cmp(b)));
        let mut helped = false;
        for node in uneven {
            while left > 0 && is_uneven(layout, node) && help(layout, node, cause, cutting) {
                (helped, left) = (true, left - 1);
            }
        }
        any |= helped;
        if !helped || left == 0 {
            return any;
        }
    }
}

/// Takes a part of what a node has too much, or lacks, through others; or cuts what is too heavy for that.
fn help(layout: &mut KeyspaceLayout<'_>, node: usize, cause: Cause, cutting: Cutting) -> bool {
    let off = (layout.held[node] - layout.share(node)).abs();
    // And where none is so heavy: what the arc nearest to that weighs. It may be one that cannot be cut.
    let nearest =
        layout.on[node].iter().map(|arc| layout.arcs[*arc].weight).filter(|weight| *weight < 2.0 * off);
    let nearest = nearest.min_by(|a, b| (a - off).abs().total_cmp(&(b - off).abs()));
    for weight in [off, 0.5 * off, 0.25 * off].into_iter().chain(nearest) {
        let links = find(layout, node, weight, 1.5 * weight).unwrap_or_default();
        if gain(layout, &links) > ROUNDING * weight {
            links.iter().for_each(|link| layout.pass(link.arc, Some(link.from), link.to, cause));
            return true;
        }
    }
    if cutting == Cutting::Forbidden {
        return false;
    }
    let grain = (1.5 * off).max(EVEN * layout.mean() / 4.0);
    let weight = |arc: usize| layout.arcs[arc].weight;
    let links = find(layout, node, off, f64::INFINITY).unwrap_or_default();
    let mut heavy: Vec<usize> =
        links.iter().map(|link| link.arc).filter(|arc| weight(*arc) > grain).collect();
    heavy.sort_by(|a, b| weight(*b).total_cmp(&weight(*a)).then(a.cmp(b)));
    heavy.into_iter().any(|arc| layout.cut_for_evenness(arc))
}

/// The shortest chain of arcs of about a weight: from an overfull node to any that may gain by it, or from any to an
/// underfull one. Its last link comes first.
fn find(layout: &KeyspaceLayout<'_>, node: usize, weight: f64, most: f64) -> Option<Vec<Link>> {
    let gives = layout.ratio(node) > 1.0;
    let gains = |from: usize, to: usize| {
        let (give, take) = (layout.share(from), layout.share(to));
        let gap = layout.held[from] / give - layout.held[to] / take;
        // As `gain` has it: no further above its share than is even enough, or than it is below.
        let lacks = take - layout.held[to];
        gap > weight * (0.5 / give + 0.5 / take) && weight - lacks <= lacks.max(EVEN * take)
    };
    let mut queue: VecDeque<usize> = match gives {
        true => VecDeque::from([node]),
        false => layout.emptiest().rev().filter(|from| gains(*from, node)).collect(),
    };
    let mut came: Vec<Option<Link>> = vec![None; layout.nodes.len()];
    let mut unseen: Vec<Vec<usize>> = vec![Vec::new(); layout.zones.len()];
    for other in layout.emptiest().filter(|other| !queue.contains(other)) {
        unseen[layout.nodes[other].zone].push(other);
    }
    while let Some(from) = queue.pop_front() {
        for &arc in &layout.on[from] {
            if !(weight / 4.0..=most).contains(&layout.arcs[arc].weight) {
                continue;
            }
            let choices = layout.choices(arc, from);
            let chosen = |to: &usize| choices.as_ref().is_none_or(|choices| choices.contains(to));
            for (zone, unseen) in unseen.iter_mut().enumerate() {
                if unseen.is_empty() || !layout.may_enter(arc, from, zone) {
                    continue;
                }
                let reached = |to: &usize| chosen(to) && layout.may_take(arc, Some(from), *to);
                for to in unseen.extract_if(.., |to| reached(to)) {
                    came[to] = Some(Link { arc, from, to });
                    if if gives { gains(node, to) } else { to == node } {
                        return Some(std::iter::successors(came[to], |link| came[link.from]).collect());
                    }
                    queue.push_back(to);
                }
            }
        }
    }
    None
}

/// By how much a chain lowers Σ (held − share)² / share; nothing if it makes a node on the way uneven, or more so.
fn gain(layout: &KeyspaceLayout<'_>, links: &[Link]) -> f64 {
    let mut change = vec![0.0; layout.nodes.len()];
    for (at, link) in links.iter().enumerate() {
        change[link.from] -= layout.arcs[link.arc].weight;
        change[link.to] += layout.arcs[link.arc].weight;
        // Each of two passes of one arc may be fine, and both together not.
        if links.iter().take(at).any(|other| other.arc == link.arc) {
            return 0.0;
        }
    }
    let mut gain = 0.0;
    for (node, change) in change.into_iter().enumerate() {
        if change.total_cmp(&0.0) == Ordering::Equal {
            continue;
        }
        let share = layout.share(node);
        let before = layout.held[node] - share;
        let after = before + change;
        if after.abs() > before.abs().max(EVEN * share) {
            return 0.0;
        }
        gain += (before * before - after * after) / share;
    }
    gain
}
