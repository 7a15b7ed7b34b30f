//! Chains: where no single pass makes an uneven node more even, copies pass on from node to node, and each on the way
//! gives about as much as it takes. The shortest chain is looked for, breadth first, as each pass may be a copy more.

use super::{
    EVEN,
    level::{Cutting, is_uneven},
    table::{Cause, Table},
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
pub(super) fn even_out(table: &mut Table<'_>, cause: Cause, cutting: Cutting) -> bool {
    let (mut any, mut left) = (false, MOST_CHAINS);
    loop {
        let off = |node: usize| (table.ratio(node) - 1.0).abs();
        let mut uneven: Vec<usize> = table.takers().filter(|node| is_uneven(table, *node)).collect();
        uneven.sort_by(|a, b| off(*b).total_cmp(&off(*a)).then(a.cmp(b)));
        let mut helped = false;
        for node in uneven {
            while left > 0 && is_uneven(table, node) && help(table, node, cause, cutting) {
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
fn help(table: &mut Table<'_>, node: usize, cause: Cause, cutting: Cutting) -> bool {
    let off = (table.held[node] - table.share(node)).abs();
    // And where none is so heavy: what the arc nearest to that weighs. It may be one that cannot be cut.
    let nearest =
        table.on[node].iter().map(|arc| table.arcs[*arc].weight).filter(|weight| *weight < 2.0 * off);
    let nearest = nearest.min_by(|a, b| (a - off).abs().total_cmp(&(b - off).abs()));
    for weight in [off, 0.5 * off, 0.25 * off].into_iter().chain(nearest) {
        let links = find(table, node, weight, 1.5 * weight).unwrap_or_default();
        if gain(table, &links) > ROUNDING * weight {
            links.iter().for_each(|link| table.pass(link.arc, Some(link.from), link.to, cause));
            return true;
        }
    }
    if cutting == Cutting::Forbidden {
        return false;
    }
    let grain = (1.5 * off).max(EVEN * table.mean() / 4.0);
    let weight = |arc: usize| table.arcs[arc].weight;
    let links = find(table, node, off, f64::INFINITY).unwrap_or_default();
    let mut heavy: Vec<usize> =
        links.iter().map(|link| link.arc).filter(|arc| weight(*arc) > grain).collect();
    heavy.sort_by(|a, b| weight(*b).total_cmp(&weight(*a)).then(a.cmp(b)));
    heavy.into_iter().any(|arc| table.cut_for_evenness(arc))
}

/// The shortest chain of arcs of about a weight: from an overfull node to any that may gain by it, or from any to an
/// underfull one. Its last link comes first.
fn find(table: &Table<'_>, node: usize, weight: f64, most: f64) -> Option<Vec<Link>> {
    let gives = table.ratio(node) > 1.0;
    let gains = |from: usize, to: usize| {
        let (give, take) = (table.share(from), table.share(to));
        let gap = table.held[from] / give - table.held[to] / take;
        // As `gain` has it: no further above its share than is even enough, or than it is below.
        let lacks = take - table.held[to];
        gap > weight * (0.5 / give + 0.5 / take) && weight - lacks <= lacks.max(EVEN * take)
    };
    let mut queue: VecDeque<usize> = match gives {
        true => VecDeque::from([node]),
        false => table.emptiest().rev().filter(|from| gains(*from, node)).collect(),
    };
    let mut came: Vec<Option<Link>> = vec![None; table.nodes.len()];
    let mut unseen: Vec<Vec<usize>> = vec![Vec::new(); table.zones.len()];
    for other in table.emptiest().filter(|other| !queue.contains(other)) {
        unseen[table.nodes[other].zone].push(other);
    }
    while let Some(from) = queue.pop_front() {
        for &arc in &table.on[from] {
            if !(weight / 4.0..=most).contains(&table.arcs[arc].weight) {
                continue;
            }
            let choices = table.choices(arc, from);
            let chosen = |to: &usize| choices.as_ref().is_none_or(|choices| choices.contains(to));
            for (zone, unseen) in unseen.iter_mut().enumerate() {
                if unseen.is_empty() || !table.may_enter(arc, from, zone) {
                    continue;
                }
                let reached = |to: &usize| chosen(to) && table.may_take(arc, Some(from), *to);
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
fn gain(table: &Table<'_>, links: &[Link]) -> f64 {
    let mut change = vec![0.0; table.nodes.len()];
    for (at, link) in links.iter().enumerate() {
        change[link.from] -= table.arcs[link.arc].weight;
        change[link.to] += table.arcs[link.arc].weight;
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
        let share = table.share(node);
        let before = table.held[node] - share;
        let after = before + change;
        if after.abs() > before.abs().max(EVEN * share) {
            return 0.0;
        }
        gain += (before * before - after * after) / share;
    }
    gain
}
