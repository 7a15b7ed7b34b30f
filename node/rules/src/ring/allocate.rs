//! Who holds which arcs: a pure function from nodes and weights to replicas.
//!
//! Rules, in this order: distinct nodes; as many zones as there are; copies and leads in proportion to weight. Nothing
//! is drawn at random: the same nodes give the same arcs. (The older system drew its virtual nodes at random, and its
//! nodes ended up with up to twice their share.)

use god_proto::{ids::NodeId, v1::Member};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

/// Arcs that a node of this weight leads, of each keyspace.
pub fn leads_of(member: &Member, virtual_nodes: u32) -> usize {
    ((f64::from(virtual_nodes) * member.weight).round() as usize).max(1)
}

/// Replicas for so many arcs, the leader first. `copies` is bounded by the number of nodes. Empty without nodes.
/// Cost: O(arcs × copies × nodes), a few times over.
pub fn allocate(members: &[Member], arcs: usize, copies: usize) -> Vec<Vec<NodeId>> {
    if members.is_empty() {
        return Vec::new();
    }
    let copies = copies.clamp(1, members.len());
    let mut nodes = candidates(members, arcs, copies);
    let zones = nodes.iter().map(|node| node.zone).max().map_or(0, |last| last + 1);
    let leaders = deal_leads(&mut nodes, arcs);
    let mut result: Vec<Vec<usize>> = leaders.into_iter().map(|leader| vec![leader]).collect();
    for chosen in &mut result {
        while chosen.len() < copies {
            let fresh = (0..zones).any(|zone| !chosen.iter().any(|at| nodes[*at].zone == zone));
            let seen = |zone| chosen.iter().any(|at| nodes[*at].zone == zone);
            let eligible = |at: &usize| !chosen.contains(at) && !(fresh && seen(nodes[*at].zone));
            let Some(next) = (0..nodes.len()).filter(eligible).max_by(|a, b| furthest_behind(&nodes, *a, *b))
            else {
                break;
            };
            nodes[next].wanted -= 1.0;
            chosen.push(next);
        }
    }
    level(&mut nodes, &mut result);
    result.into_iter().map(|chosen| chosen.into_iter().map(|at| nodes[at].number).collect()).collect()
}

/// Which of two nodes lacks more copies; the lower number where they lack the same.
fn furthest_behind(nodes: &[Candidate], a: usize, b: usize) -> Ordering {
    nodes[a].wanted.total_cmp(&nodes[b].wanted).then(nodes[b].number.cmp(&nodes[a].number))
}

/// Hands copies from nodes that got too many to nodes that got too few, as far as zones allow. What dealing arc by
/// arc cannot foresee is mended here; a few passes do, and there are never more.
fn level(nodes: &mut [Candidate], arcs: &mut [Vec<usize>]) {
    for _ in 0..PASSES {
        let mut moved = false;
        for chosen in arcs.iter_mut() {
            for slot in 1..chosen.len() {
                let giver = chosen[slot];
                // Whose zone would be lost with it, must be followed by one of the same zone.
                let zone = nodes[giver].zone;
                let alone = chosen.iter().filter(|at| nodes[**at].zone == zone).count() == 1;
                let present: BTreeSet<usize> = chosen.iter().map(|at| nodes[*at].zone).collect();
                let fits = |at: &usize| {
                    let zone_of = nodes[*at].zone;
                    !chosen.contains(at) && (!alone || zone_of == zone || !present.contains(&zone_of))
                };
                let taker = (0..nodes.len()).filter(fits).max_by(|a, b| furthest_behind(nodes, *a, *b));
                // A move must bring the two nearer to each other, or it could be undone for ever.
                let Some(taker) =
                    taker.filter(|taker| nodes[*taker].wanted - nodes[giver].wanted > 1.0 + 1e-9)
                else {
                    continue;
                };
                nodes[giver].wanted += 1.0;
                nodes[taker].wanted -= 1.0;
                chosen[slot] = taker;
                moved = true;
            }
        }
        if !moved {
            return;
        }
    }
}

/// The most passes of [`level`].
const PASSES: usize = 8;

struct Candidate {
    number: NodeId,
    zone: usize,
    weight: f64,
    /// Copies it should hold beyond those it has.
    wanted: f64,
}

/// What each node should hold: in proportion to weight, no more than one copy of each arc, and each arc in as many
/// zones as there are.
fn candidates(members: &[Member], arcs: usize, copies: usize) -> Vec<Candidate> {
    let mut zones: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
    for member in members {
        zones.entry(&member.zone).or_default().push(member);
    }
    let arcs = arcs as f64;
    let spread = copies.min(zones.len());
    let bounds: Vec<Bound> = zones
        .values()
        .map(|members| {
            let weight = members.iter().map(|member| member.weight).sum();
            // With as many copies as zones or more, every arc has one in each; with fewer, at most one.
            let (least, most) =
                if spread == zones.len() { (arcs, arcs * members.len() as f64) } else { (0.0, arcs) };
            Bound { weight, least, most }
        })
        .collect();
    let of_zones = share(&bounds, arcs * copies as f64);
    let mut nodes = Vec::with_capacity(members.len());
    for (zone, (members, total)) in zones.values().zip(of_zones).enumerate() {
        let bounds: Vec<Bound> =
            members.iter().map(|member| Bound { weight: member.weight, least: 0.0, most: arcs }).collect();
        for (member, wanted) in members.iter().zip(share(&bounds, total)) {
            nodes.push(Candidate { number: NodeId(member.number), zone, weight: member.weight, wanted });
        }
    }
    nodes.sort_by_key(|node| node.number);
    nodes
}

/// Who may get how much.
struct Bound {
    weight: f64,
    least: f64,
    most: f64,
}

/// Divides a total in proportion to weight within bounds: whoever would pass a bound gets the bound, and the rest is
/// divided among the others (water-filling). Cost: O(n²) at worst.
fn share(bounds: &[Bound], total: f64) -> Vec<f64> {
    let mut fixed: Vec<Option<f64>> = vec![None; bounds.len()];
    loop {
        let free =
            || bounds.iter().zip(&fixed).filter(|(_, fixed)| fixed.is_none()).map(|(bound, _)| bound.weight);
        let left = total - fixed.iter().flatten().sum::<f64>();
        let unit = left.max(0.0) / free().sum::<f64>().max(f64::MIN_POSITIVE);
        // Those that would get too much first; only when there are none, those that would get too little.
        let over = |at: &usize| fixed[*at].is_none() && bounds[*at].weight * unit > bounds[*at].most + 1e-9;
        let under = |at: &usize| fixed[*at].is_none() && bounds[*at].weight * unit < bounds[*at].least - 1e-9;
        let beyond: Vec<(usize, f64)> = match (0..bounds.len()).find(over) {
            Some(_) => (0..bounds.len()).filter(over).map(|at| (at, bounds[at].most)).collect(),
            None => (0..bounds.len()).filter(under).map(|at| (at, bounds[at].least)).collect(),
        };
        if beyond.is_empty() {
            let given = |(bound, fixed): (&Bound, &Option<f64>)| fixed.unwrap_or(bound.weight * unit);
            return bounds.iter().zip(&fixed).map(given).collect();
        }
        for (at, bound) in beyond {
            fixed[at] = Some(bound);
        }
    }
}

/// Who leads each arc: in proportion to weight, each node's evenly over the order (smooth weighted round robin).
fn deal_leads(nodes: &mut [Candidate], arcs: usize) -> Vec<usize> {
    let whole: f64 = nodes.iter().map(|node| node.weight).sum();
    let mut credit = vec![0.0; nodes.len()];
    (0..arcs)
        .map(|_| {
            for (credit, node) in credit.iter_mut().zip(nodes.iter()) {
                *credit += node.weight;
            }
            let leader = (0..nodes.len())
                .max_by(|a, b| credit[*a].total_cmp(&credit[*b]).then(b.cmp(a)))
                .unwrap_or_default();
            credit[leader] -= whole;
            nodes[leader].wanted -= 1.0;
            leader
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(number: u32, zone: &str, weight: f64) -> Member {
        Member { number, zone: zone.to_owned(), weight, ..Member::default() }
    }

    fn held(allocation: &[Vec<NodeId>], node: u32) -> f64 {
        allocation.iter().filter(|replicas| replicas.contains(&NodeId(node))).count() as f64
    }

    /// Copies of the fullest node over what it should hold.
    fn unevenness(members: &[Member], allocation: &[Vec<NodeId>], copies: usize) -> f64 {
        let copies = copies.clamp(1, members.len());
        candidates(members, allocation.len(), copies)
            .iter()
            // One copy more than the share is as even as whole copies can be.
            .map(|node| (held(allocation, node.number.0) - 1.0) / node.wanted.max(1.0))
            .fold(0.0, f64::max)
    }

    #[test]
    fn equal_nodes_hold_equal_shares() {
        let members: Vec<Member> = (1..=6).map(|number| member(number, "", 1.0)).collect();
        let allocation = allocate(&members, 60, 3);
        for node in 1..=6 {
            assert!(
                (29.0..=31.0).contains(&held(&allocation, node)),
                "node {node}: {}",
                held(&allocation, node)
            );
        }
    }

    #[test]
    fn a_node_of_twice_the_weight_holds_and_leads_twice_as_much() {
        let mut members: Vec<Member> = (1..=9).map(|number| member(number, "", 1.0)).collect();
        members.push(member(10, "", 2.0));
        let allocation = allocate(&members, 110, 3);
        let leads = |node| allocation.iter().filter(|replicas| replicas[0] == NodeId(node)).count();
        assert_eq!((leads(10), leads(1)), (20, 10));
        assert!((held(&allocation, 10) - 60.0).abs() <= 1.0, "{}", held(&allocation, 10));
        assert!((held(&allocation, 1) - 30.0).abs() <= 1.0, "{}", held(&allocation, 1));
    }

    #[test]
    fn copies_are_in_as_many_zones_as_there_are() {
        let members: Vec<Member> =
            (1..=7).map(|number| member(number, ["a", "b", "c"][number as usize % 3], 1.0)).collect();
        for replicas in allocate(&members, 70, 3) {
            let zones: BTreeSet<_> = replicas.iter().map(|node| node.0 % 3).collect();
            assert_eq!(zones.len(), 3);
        }
    }

    #[test]
    fn fewer_nodes_than_copies_hold_one_each() {
        let members = [member(1, "", 1.0), member(2, "", 5.0)];
        assert!(allocate(&members, 20, 3).iter().all(|replicas| replicas.len() == 2));
        assert!(allocate(&[], 20, 3).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_cluster_is_dealt_distinct_nodes_all_zones_and_even_shares(
            nodes in proptest::collection::vec((0u8..5, 1u8..=4), 1..200),
            zones in 1u8..5,
            copies in 1usize..6,
        ) {
            let members: Vec<Member> = nodes
                .iter()
                .enumerate()
                .map(|(at, (zone, weight))| {
                    member(at as u32 + 1, &format!("z{}", zone % zones), f64::from(*weight) / 2.0)
                })
                .collect();
            let arcs = members.iter().map(|member| leads_of(member, 10)).sum();
            let allocation = allocate(&members, arcs, copies);
            let all_zones: BTreeSet<_> = members.iter().map(|member| &member.zone).collect();
            let expected = copies.min(members.len());
            for replicas in &allocation {
                let distinct: BTreeSet<_> = replicas.iter().collect();
                prop_assert_eq!(distinct.len(), expected);
                let zones: BTreeSet<_> =
                    replicas.iter().map(|node| &members[node.0 as usize - 1].zone).collect();
                prop_assert_eq!(zones.len(), expected.min(all_zones.len()));
            }
            let unevenness = unevenness(&members, &allocation, copies);
            prop_assert!(unevenness <= 1.05, "a node holds {unevenness:.3} of its share");
        }
    }
}
