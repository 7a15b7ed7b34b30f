//! What must move, whatever it costs: copies that are missing, that are too many, or whose node leaves.

use super::{
    NEAR, detour,
    layout::{Cause, KeyspaceLayout},
    level::{even_out, even_roughly, is_even},
    pass::Aim,
    wish::{Refused, Wish},
};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    v1::RingDocument,
};
use std::{cmp::Reverse, collections::BinaryHeap};

/// Of so many nodes that are about equally empty the best is chosen.
const ABOUT_EQUAL: usize = 8;
/// The most times that what could not be made even is planned for again.
const MOST_TURNS: usize = 64;
/// The most arcs that a keyspace is cut into for the sake of their number: as many as it is first dealt out in.
const MOST_ARCS: usize = 1 << 14;

/// Moves what a wish asks for in one keyspace.
pub(super) fn grant(
    layout: &mut KeyspaceLayout<'_>,
    document: &RingDocument,
    wish: &Wish,
) -> Result<(), Refused> {
    let place = |id: NodeId| layout.nodes.iter().position(|node| node.id == id);
    let even = Aim { node: None, thrifty: true, cause: Cause::Even };
    match wish {
        Wish::Join(node) => {
            let node = place(*node);
            layout.taker = node;
            add_arcs(layout, document.virtual_nodes);
            mend(layout, Cause::Joins);
            even_out(layout, Aim { node, thrifty: false, cause: Cause::Joins });
        }
        Wish::Leave(node) | Wish::Lost(node) => {
            let node = place(*node).ok_or(Refused::NoSuchNode(*node))?;
            hand_over(layout, node)?;
            even_out(layout, Aim { thrifty: false, cause: Cause::Leaves, ..even });
        }
        Wish::Replace { old, new } => {
            let (old, new) = (place(*old), place(*new).ok_or(Refused::NoSuchNode(*new))?);
            replace(layout, old, new)?;
        }
        Wish::Replicas { keyspace, .. } if *keyspace == KeyspaceId(layout.keyspace.id) => {
            let copies = layout.copies;
            layout.arcs.iter_mut().for_each(|arc| arc.fresh = copies.saturating_sub(arc.was.len()));
            if let Some(lacking) = mend(layout, Cause::Copies) {
                full(layout, lacking)?;
            }
            // First by the choice of what is copied or given up, and only then by copying more.
            even_roughly(layout, Aim { thrifty: false, ..even });
            // Who waits is given no more than what nobody else can hold.
            if !layout.nodes.iter().any(|node| node.takes && node.waits) {
                layout.arcs.iter_mut().for_each(|arc| arc.fresh = usize::MAX);
                even_out(layout, even);
            }
        }
        Wish::Replicas { .. } => {}
        Wish::Reweight { node, .. } => {
            let node = place(*node);
            add_arcs(layout, document.virtual_nodes);
            mend(layout, Cause::Even);
            even_out(layout, Aim { node, ..even });
        }
        Wish::Rezone { node, .. } => {
            let node = place(*node);
            mend(layout, Cause::Zones);
            even_out(layout, Aim { node, ..even });
        }
        Wish::Rebalance => {
            mend(layout, Cause::Even);
            even_out(layout, even);
            reach_fixed_point(layout, even);
        }
    }
    if matches!(wish, Wish::Reweight { .. } | Wish::Rezone { .. } | Wish::Rebalance) && is_even(layout) {
        detour::undo(layout, Cause::Even);
    }
    Ok(())
}

/// Cuts the heaviest arcs until there are as many as the nodes should lead. They are never made fewer.
fn add_arcs(layout: &mut KeyspaceLayout<'_>, virtual_nodes: u32) {
    let leads =
        |node: usize| (f64::from(virtual_nodes) * layout.nodes[node].weight).round().max(1.0) as usize;
    let wanted = layout.takers().map(leads).sum::<usize>().min(MOST_ARCS);
    let heft = |layout: &KeyspaceLayout<'_>, arc: usize| {
        let planned = &layout.arcs[arc];
        // Of numbers that are not negative the bits are in the same order.
        (planned.weight.to_bits(), planned.size.load.max(0.0).to_bits(), Reverse(arc))
    };
    let mut heaviest: BinaryHeap<_> = (0..layout.arcs.len()).map(|arc| heft(layout, arc)).collect();
    while layout.arcs.len() < wanted
        && let Some((.., Reverse(arc))) = heaviest.pop()
    {
        let reason = format!("all nodes together lead {wanted} arcs, {virtual_nodes} for a weight of 1");
        if layout.cut(arc, reason) {
            heaviest.push(heft(layout, arc));
            heaviest.push(heft(layout, layout.arcs.len() - 1));
        }
    }
}

/// Gives what a node holds to the others: only that moves, and once.
fn hand_over(layout: &mut KeyspaceLayout<'_>, node: usize) -> Result<(), Refused> {
    for arc in &mut layout.arcs {
        arc.fresh = usize::from(arc.was.contains(&node));
    }
    for arc in by_weight(layout, |layout, arc| layout.arcs[arc].now.contains(&node)) {
        layout.give_up(arc, node, Cause::Leaves);
        if !fill_up(layout, arc, Cause::Leaves) {
            full(layout, arc)?;
        }
    }
    Ok(())
}

/// Puts a node in the very places of another one.
fn replace(layout: &mut KeyspaceLayout<'_>, old: Option<usize>, new: usize) -> Result<(), Refused> {
    for arc in 0..layout.arcs.len() {
        let planned = &layout.arcs[arc];
        if planned.fixed || !planned.now.iter().any(|node| Some(*node) == old) {
            continue;
        }
        if !layout.space.fits(new, planned.size.bytes) {
            return Err(no_room(layout, new, planned.size.bytes));
        }
        layout.pass(arc, old, new, Cause::Replaced);
    }
    Ok(())
}

/// Gives each arc as many copies as it should have, in as many zones as it should; gives one that still lacks some.
fn mend(layout: &mut KeyspaceLayout<'_>, cause: Cause) -> Option<usize> {
    let joins = layout.taker.is_some();
    let wrong = |layout: &KeyspaceLayout<'_>, arc: usize| {
        layout.arcs[arc].now.len() != layout.copies || layout.zones_of(arc) < layout.spread
    };
    let mut lacking = None;
    for arc in by_weight(layout, wrong) {
        // Who joins takes; what is surplus is another wish's business.
        while !joins && layout.arcs[arc].now.len() > layout.copies {
            take_away(layout, arc);
        }
        if !fill_up(layout, arc, if joins { cause } else { Cause::Copies }) {
            lacking.get_or_insert(arc);
        }
        while layout.zones_of(arc) < layout.spread
            && spread_out(layout, arc, if joins { cause } else { Cause::Zones })
        {}
    }
    lacking
}

/// Arcs for which something must be done, the heaviest first: what is dealt out last evens out what was before.
fn by_weight(layout: &KeyspaceLayout<'_>, which: impl Fn(&KeyspaceLayout<'_>, usize) -> bool) -> Vec<usize> {
    let movable = (0..layout.arcs.len()).filter(|arc| !layout.arcs[*arc].fixed);
    let mut arcs: Vec<usize> = movable.filter(|arc| which(layout, *arc)).collect();
    arcs.sort_by(|a, b| layout.arcs[*b].weight.total_cmp(&layout.arcs[*a].weight).then(a.cmp(b)));
    arcs
}

/// Takes the copy from the fullest node that is not alone in a zone that is needed.
fn take_away(layout: &mut KeyspaceLayout<'_>, arc: usize) {
    let now = &layout.arcs[arc].now;
    let least = layout.spread.min(layout.zones_of(arc));
    let spare = |node: &usize| layout.zones_with(arc, Some(*node), None) >= least;
    let node =
        fullest(layout, now.iter().copied().filter(spare)).or_else(|| fullest(layout, now.iter().copied()));
    if let Some(node) = node {
        layout.give_up(arc, node, Cause::Surplus);
    }
}

/// Gives copies to the emptiest nodes until there are enough; says whether there are.
fn fill_up(layout: &mut KeyspaceLayout<'_>, arc: usize, cause: Cause) -> bool {
    while layout.arcs[arc].now.len() < layout.copies {
        let left = layout.copies - layout.arcs[arc].now.len();
        // With this copy in a zone that has one, would there be copies left for all zones that it should be in?
        let zones = layout.zones_of(arc);
        let elsewhere =
            if zones + left - 1 < layout.spread { emptiest(layout, arc, None, true) } else { None };
        match elsewhere.or_else(|| emptiest(layout, arc, None, false)) {
            Some(node) => layout.pass(arc, None, node, cause),
            None => return false,
        }
    }
    true
}

/// Passes one copy from a zone that has two to a zone that has none; says whether it could.
fn spread_out(layout: &mut KeyspaceLayout<'_>, arc: usize, cause: Cause) -> bool {
    let zones = layout.zones_of(arc);
    let spare = |node: &usize| layout.zones_with(arc, Some(*node), None) == zones;
    let from = fullest(layout, layout.arcs[arc].now.iter().copied().filter(spare));
    if from.is_none() {
        return false;
    }
    // A copy that must be in another zone may be one more than was to be made.
    layout.arcs[arc].fresh = layout.arcs[arc].fresh.max(layout.arcs[arc].news + 1);
    let Some(to) = emptiest(layout, arc, from, true) else { return false };
    layout.pass(arc, from, to, cause);
    true
}

/// Who is to be given a copy, in addition or in the place of another's, and perhaps in a zone that has none: the
/// emptiest; among a few about as empty, one with which the arc's replicas are a set that exists already (rule 6).
fn emptiest(layout: &KeyspaceLayout<'_>, arc: usize, from: Option<usize>, elsewhere: bool) -> Option<usize> {
    let zone = |node: usize| layout.nodes[node].zone;
    let is_new = |to: usize| !layout.arcs[arc].now.iter().any(|node| zone(*node) == zone(to));
    let mut able =
        layout.emptiest().filter(|to| (!elsewhere || is_new(*to)) && layout.may_take(arc, from, *to));
    let first = able.next()?;
    let most = layout.ratio(first) + NEAR / 3.0;
    let equal = able.take(ABOUT_EQUAL).take_while(|to| layout.ratio(*to) <= most);
    let known = std::iter::once(first).chain(equal).find(|to| layout.is_known_set(arc, from, *to));
    known.or(Some(first))
}

/// Who is to give a copy up: the fullest.
fn fullest(layout: &KeyspaceLayout<'_>, able: impl Iterator<Item = usize>) -> Option<usize> {
    able.max_by(|a, b| layout.ratio(*a).total_cmp(&layout.ratio(*b)).then(b.cmp(a)))
}

/// Where nodes could not be made even, what is found depends on the order of looking, and the next plan looks in
/// another one. So what came out is planned for as that plan would find it, until it finds nothing. Each pass lowers
/// Σ (held − share)² / share, so there is an end.
fn reach_fixed_point(layout: &mut KeyspaceLayout<'_>, even: Aim) {
    for _ in 0..MOST_TURNS {
        if is_even(layout) {
            return;
        }
        layout.begin_anew();
        even_out(layout, even);
        if !layout.take_together() {
            return;
        }
    }
}

/// Why nobody takes a copy that must be made: for want of room, or as there is nobody, which is no reason to refuse.
fn full(layout: &KeyspaceLayout<'_>, arc: usize) -> Result<(), Refused> {
    let planned = &layout.arcs[arc];
    let crowded = |node: &usize| !planned.now.contains(node) && !layout.space.fits(*node, planned.size.bytes);
    match layout.emptiest().find(crowded) {
        Some(node) if planned.news < planned.fresh => Err(no_room(layout, node, planned.size.bytes)),
        _ => Ok(()),
    }
}

fn no_room(layout: &KeyspaceLayout<'_>, node: usize, bytes: u64) -> Refused {
    let (needed, free) = (layout.space.needed(node, bytes), layout.space.free(node));
    Refused::NoRoom { node: layout.nodes[node].id, needed, free }
}
