//! How many copies, and how many leads, each node should have.
//!
//! The ideal is in proportion to weight, as far as the rules allow: a node holds an arc at most once, and an arc's
//! copies stand in as many zones as there are. What a capped node or zone cannot take, the others share by weight
//! ("water-filling"); a zone that must hold each arc once but whose weight says less is raised to that.

use std::collections::BTreeMap;

/// What a node brings to the deal.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// The node's number.
    pub node: u32,
    /// Above 0.
    pub weight: f64,
    /// Where it stands.
    pub zone: String,
}

/// Indexes into the nodes, by zone in the order of names.
pub(super) fn zones(nodes: &[Share]) -> Vec<Vec<usize>> {
    let mut zones: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        zones.entry(&node.zone).or_default().push(at);
    }
    zones.into_values().collect()
}

/// Splits `total` by weight, none above its cap. Where the caps together are below the total, all are full.
pub(super) fn water_fill(total: f64, weights: &[f64], caps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    // Whoever is full first: the least cap for its weight.
    order.sort_by(|&a, &b| (caps[a] / weights[a]).total_cmp(&(caps[b] / weights[b])).then(a.cmp(&b)));
    let mut left = total;
    let mut weight_left: f64 = weights.iter().sum();
    let mut parts = vec![0.0; weights.len()];
    for at in order {
        let fair = left * weights[at] / weight_left;
        parts[at] = fair.min(caps[at]).max(0.0);
        left -= parts[at];
        weight_left = (weight_left - weights[at]).max(f64::MIN_POSITIVE);
    }
    parts
}

/// The ideal number of copies of each node, not rounded: `arcs` arcs of `copies` copies each.
pub(super) fn ideal(nodes: &[Share], arcs: usize, copies: usize) -> Vec<f64> {
    let zones = zones(nodes);
    let mut parts = vec![0.0; nodes.len()];
    let cap = arcs as f64;
    let weights_of = |members: &[usize]| members.iter().map(|&at| nodes[at].weight).collect::<Vec<_>>();
    if copies <= zones.len() {
        // At most one copy of an arc in a zone.
        let zone_weights: Vec<f64> = zones.iter().map(|zone| weights_of(zone).iter().sum()).collect();
        let shares = water_fill(cap * copies as f64, &zone_weights, &vec![cap; zones.len()]);
        for (zone, share) in zones.iter().zip(shares) {
            let within = water_fill(share, &weights_of(zone), &vec![cap; zone.len()]);
            zone.iter().zip(within).for_each(|(&at, part)| parts[at] = part);
        }
        return parts;
    }
    // At least one copy of each arc in each zone.
    let mut open: Vec<&Vec<usize>> = zones.iter().collect();
    let mut copies_left = copies;
    loop {
        let members: Vec<usize> = open.iter().flat_map(|zone| zone.iter().copied()).collect();
        let filled = water_fill(cap * copies_left as f64, &weights_of(&members), &vec![cap; members.len()]);
        members.iter().zip(filled).for_each(|(&at, part)| parts[at] = part);
        let (short, enough): (Vec<_>, Vec<_>) = open
            .into_iter()
            .partition(|zone| zone.iter().map(|&at| parts[at]).sum::<f64>() < cap * (1.0 - 1e-9));
        for zone in &short {
            let within = water_fill(cap, &weights_of(zone), &vec![cap; zone.len()]);
            zone.iter().zip(within).for_each(|(&at, part)| parts[at] = part);
        }
        if short.is_empty() || enough.is_empty() {
            return parts;
        }
        copies_left -= short.len();
        open = enough;
    }
}

/// Whole numbers near the parts that add up to `total`, by largest remainder. None above its cap.
pub(super) fn round(parts: &[f64], caps: &[usize], total: usize) -> Vec<usize> {
    let mut whole: Vec<usize> =
        parts.iter().zip(caps).map(|(part, &cap)| ((part + 1e-6).floor() as usize).min(cap)).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|&a, &b| {
        let rest = |at: usize| parts[at] - whole[at] as f64;
        rest(b).total_cmp(&rest(a)).then(a.cmp(&b))
    });
    let mut missing = total.saturating_sub(whole.iter().sum());
    // Each round gives one to all that have room: it ends as soon as none has.
    while missing > 0 && whole.iter().zip(caps).any(|(part, cap)| part < cap) {
        for &at in &order {
            if missing > 0 && whole[at] < caps[at] {
                whole[at] += 1;
                missing -= 1;
            }
        }
    }
    whole
}

/// The number of copies of each node: the ideal, rounded so that zones, too, keep their rule.
pub(super) fn copies(nodes: &[Share], arcs: usize, copies: usize) -> Vec<usize> {
    let parts = ideal(nodes, arcs, copies);
    let zones = zones(nodes);
    let zone_parts: Vec<f64> = zones.iter().map(|zone| zone.iter().map(|&at| parts[at]).sum()).collect();
    let one_each = copies <= zones.len();
    let zone_caps: Vec<usize> =
        zones.iter().map(|zone| if one_each { arcs } else { arcs * zone.len() }).collect();
    let zone_whole = round(&zone_parts, &zone_caps, arcs * copies);
    let mut whole = vec![0; nodes.len()];
    for (zone, total) in zones.iter().zip(zone_whole) {
        let within: Vec<f64> = zone.iter().map(|&at| parts[at]).collect();
        let within = round(&within, &vec![arcs; zone.len()], total);
        zone.iter().zip(within).for_each(|(&at, part)| whole[at] = part);
    }
    whole
}
