//! What must move, whatever it costs: copies that are missing, that are too many, or whose node leaves.

use super::{
    NEAR, detour,
    level::{even_out, even_roughly, is_even},
    pass::Aim,
    table::{Cause, Table},
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
pub(super) fn grant(table: &mut Table<'_>, document: &RingDocument, wish: &Wish) -> Result<(), Refused> {
    let place = |id: NodeId| table.nodes.iter().position(|node| node.id == id);
    let even = Aim { node: None, thrifty: true, cause: Cause::Even };
    match wish {
        Wish::Join(node) => {
            let node = place(*node);
            table.taker = node;
            add_arcs(table, document.virtual_nodes);
            mend(table, Cause::Joins);
            even_out(table, Aim { node, thrifty: false, cause: Cause::Joins });
        }
        Wish::Leave(node) | Wish::Lost(node) => {
            let node = place(*node).ok_or(Refused::NoSuchNode(*node))?;
            hand_over(table, node)?;
            even_out(table, Aim { thrifty: false, cause: Cause::Leaves, ..even });
        }
        Wish::Replace { old, new } => {
            let (old, new) = (place(*old), place(*new).ok_or(Refused::NoSuchNode(*new))?);
            replace(table, old, new)?;
        }
        Wish::Replicas { keyspace, .. } if *keyspace == KeyspaceId(table.keyspace.id) => {
            let copies = table.copies;
            table.arcs.iter_mut().for_each(|arc| arc.fresh = copies.saturating_sub(arc.was.len()));
            if let Some(lacking) = mend(table, Cause::Copies) {
                full(table, lacking)?;
            }
            // First by the choice of what is copied or given up, and only then by copying more.
            even_roughly(table, Aim { thrifty: false, ..even });
            table.arcs.iter_mut().for_each(|arc| arc.fresh = usize::MAX);
            even_out(table, even);
        }
        Wish::Replicas { .. } => {}
        Wish::Reweight { node, .. } => {
            let node = place(*node);
            add_arcs(table, document.virtual_nodes);
            mend(table, Cause::Even);
            even_out(table, Aim { node, ..even });
        }
        Wish::Rezone { node, .. } => {
            let node = place(*node);
            mend(table, Cause::Zones);
            even_out(table, Aim { node, ..even });
        }
        Wish::Rebalance => {
            mend(table, Cause::Even);
            even_out(table, even);
            settle(table, even);
        }
    }
    if matches!(wish, Wish::Reweight { .. } | Wish::Rezone { .. } | Wish::Rebalance) && is_even(table) {
        detour::undo(table, Cause::Even);
    }
    Ok(())
}

/// Cuts the heaviest arcs until there are as many as the nodes should lead. They are never made fewer.
fn add_arcs(table: &mut Table<'_>, virtual_nodes: u32) {
    let leads = |node: usize| (f64::from(virtual_nodes) * table.nodes[node].weight).round().max(1.0) as usize;
    let wanted = table.takers().map(leads).sum::<usize>().min(MOST_ARCS);
    let heft = |table: &Table<'_>, arc: usize| {
        let planned = &table.arcs[arc];
        // Of numbers that are not negative the bits are in the same order.
        (planned.weight.to_bits(), planned.size.load.max(0.0).to_bits(), Reverse(arc))
    };
    let mut heaviest: BinaryHeap<_> = (0..table.arcs.len()).map(|arc| heft(table, arc)).collect();
    while table.arcs.len() < wanted
        && let Some((.., Reverse(arc))) = heaviest.pop()
    {
        let reason = format!("all nodes together lead {wanted} arcs, {virtual_nodes} for a weight of 1");
        if table.cut(arc, reason) {
            heaviest.push(heft(table, arc));
            heaviest.push(heft(table, table.arcs.len() - 1));
        }
    }
}

/// Gives what a node holds to the others: only that moves, and once.
fn hand_over(table: &mut Table<'_>, node: usize) -> Result<(), Refused> {
    for arc in &mut table.arcs {
        arc.fresh = usize::from(arc.was.contains(&node));
    }
    for arc in by_weight(table, |table, arc| table.arcs[arc].now.contains(&node)) {
        table.give_up(arc, node, Cause::Leaves);
        if !fill_up(table, arc, Cause::Leaves) {
            full(table, arc)?;
        }
    }
    Ok(())
}

/// Puts a node in the very places of another one.
fn replace(table: &mut Table<'_>, old: Option<usize>, new: usize) -> Result<(), Refused> {
    for arc in 0..table.arcs.len() {
        let planned = &table.arcs[arc];
        if planned.fixed || !planned.now.iter().any(|node| Some(*node) == old) {
            continue;
        }
        if !table.room.fits(new, planned.size.bytes) {
            return Err(no_room(table, new, planned.size.bytes));
        }
        table.pass(arc, old, new, Cause::Replaced);
    }
    Ok(())
}

/// Gives each arc as many copies as it should have, in as many zones as it should; gives one that still lacks some.
fn mend(table: &mut Table<'_>, cause: Cause) -> Option<usize> {
    let joins = table.taker.is_some();
    let wrong = |table: &Table<'_>, arc: usize| {
        table.arcs[arc].now.len() != table.copies || table.zones_of(arc) < table.spread
    };
    let mut lacking = None;
    for arc in by_weight(table, wrong) {
        // Who joins takes; what is surplus is another wish's business.
        while !joins && table.arcs[arc].now.len() > table.copies {
            take_away(table, arc);
        }
        if !fill_up(table, arc, if joins { cause } else { Cause::Copies }) {
            lacking.get_or_insert(arc);
        }
        while table.zones_of(arc) < table.spread
            && spread_out(table, arc, if joins { cause } else { Cause::Zones })
        {}
    }
    lacking
}

/// Arcs for which something must be done, the heaviest first: what is dealt out last evens out what was before.
fn by_weight(table: &Table<'_>, which: impl Fn(&Table<'_>, usize) -> bool) -> Vec<usize> {
    let movable = (0..table.arcs.len()).filter(|arc| !table.arcs[*arc].fixed);
    let mut arcs: Vec<usize> = movable.filter(|arc| which(table, *arc)).collect();
    arcs.sort_by(|a, b| table.arcs[*b].weight.total_cmp(&table.arcs[*a].weight).then(a.cmp(b)));
    arcs
}

/// Takes the copy from the fullest node that is not alone in a zone that is needed.
fn take_away(table: &mut Table<'_>, arc: usize) {
    let now = &table.arcs[arc].now;
    let least = table.spread.min(table.zones_of(arc));
    let spare = |node: &usize| table.zones_with(arc, Some(*node), None) >= least;
    let node =
        fullest(table, now.iter().copied().filter(spare)).or_else(|| fullest(table, now.iter().copied()));
    if let Some(node) = node {
        table.give_up(arc, node, Cause::Surplus);
    }
}

/// Gives copies to the emptiest nodes until there are enough; says whether there are.
fn fill_up(table: &mut Table<'_>, arc: usize, cause: Cause) -> bool {
    while table.arcs[arc].now.len() < table.copies {
        let left = table.copies - table.arcs[arc].now.len();
        // With this copy in a zone that has one, would there be copies left for all zones that it should be in?
        let zones = table.zones_of(arc);
        let elsewhere = if zones + left - 1 < table.spread { emptiest(table, arc, None, true) } else { None };
        match elsewhere.or_else(|| emptiest(table, arc, None, false)) {
            Some(node) => table.pass(arc, None, node, cause),
            None => return false,
        }
    }
    true
}

/// Passes one copy from a zone that has two to a zone that has none; says whether it could.
fn spread_out(table: &mut Table<'_>, arc: usize, cause: Cause) -> bool {
    let zones = table.zones_of(arc);
    let spare = |node: &usize| table.zones_with(arc, Some(*node), None) == zones;
    let from = fullest(table, table.arcs[arc].now.iter().copied().filter(spare));
    if from.is_none() {
        return false;
    }
    // A copy that must be in another zone may be one more than was to be made.
    table.arcs[arc].fresh = table.arcs[arc].fresh.max(table.arcs[arc].news + 1);
    let Some(to) = emptiest(table, arc, from, true) else { return false };
    table.pass(arc, from, to, cause);
    true
}

/// Who is to be given a copy, in addition or in the place of another's, and perhaps in a zone that has none: the
/// emptiest; among a few about as empty, one with which the arc's replicas are a set that exists already (rule 6).
fn emptiest(table: &Table<'_>, arc: usize, from: Option<usize>, elsewhere: bool) -> Option<usize> {
    let zone = |node: usize| table.nodes[node].zone;
    let is_new = |to: usize| !table.arcs[arc].now.iter().any(|node| zone(*node) == zone(to));
    let mut able =
        table.emptiest().filter(|to| (!elsewhere || is_new(*to)) && table.may_take(arc, from, *to));
    let first = able.next()?;
    let most = table.ratio(first) + NEAR / 3.0;
    let equal = able.take(ABOUT_EQUAL).take_while(|to| table.ratio(*to) <= most);
    let known = std::iter::once(first).chain(equal).find(|to| table.is_known_set(arc, from, *to));
    known.or(Some(first))
}

/// Who is to give a copy up: the fullest.
fn fullest(table: &Table<'_>, able: impl Iterator<Item = usize>) -> Option<usize> {
    able.max_by(|a, b| table.ratio(*a).total_cmp(&table.ratio(*b)).then(b.cmp(a)))
}

/// Where nodes could not be made even, what is found depends on the order of looking, and the next plan looks in
/// another one. So what came out is planned for as that plan would find it, until it finds nothing. Each pass lowers
/// Σ (held − share)² / share, so there is an end.
fn settle(table: &mut Table<'_>, even: Aim) {
    for _ in 0..MOST_TURNS {
        if is_even(table) {
            return;
        }
        table.begin_anew();
        even_out(table, even);
        if !table.take_together() {
            return;
        }
    }
}

/// Why nobody takes a copy that must be made: for want of room, or as there is nobody, which is no reason to refuse.
fn full(table: &Table<'_>, arc: usize) -> Result<(), Refused> {
    let planned = &table.arcs[arc];
    let crowded = |node: &usize| !planned.now.contains(node) && !table.room.fits(*node, planned.size.bytes);
    match table.emptiest().find(crowded) {
        Some(node) if planned.news < planned.fresh => Err(no_room(table, node, planned.size.bytes)),
        _ => Ok(()),
    }
}

fn no_room(table: &Table<'_>, node: usize, bytes: u64) -> Refused {
    let (needed, free) = (table.room.needed(node, bytes), table.room.free(node));
    Refused::NoRoom { node: table.nodes[node].id, needed, free }
}
