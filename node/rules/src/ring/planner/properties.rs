//! What holds of every plan, for rings of up to 200 nodes of any weights, zones and sizes.

use super::{
    EVEN, Plan, Refused, Share, Sizes, Wish, plan, shares,
    tests::{Built, granted, sizes_after},
};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    ring::Ring,
    v1::{Member, MemberState},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Sums of weights are not quite exact.
const ROUNDING: f64 = 1e-6;

/// What a ring is drawn from: few numbers, so that a failure shrinks to something that can be read.
#[derive(Clone, Debug)]
struct Draw {
    nodes: usize,
    zones: usize,
    weights: u64,
    arcs: usize,
    copies: u32,
    /// 0: all arcs are empty, 1: alike, from there on ever more uneven.
    skew: u32,
    seed: u64,
}

fn draws() -> impl Strategy<Value = Draw> {
    let nodes = prop_oneof![3 => 2usize..12, 2 => 12usize..60, 1 => 60usize..200];
    (nodes, 1usize..6, 1u64..5, 1usize..13, 1u32..6, 0u32..4, any::<u64>()).prop_map(
        |(nodes, zones, weights, arcs, copies, skew, seed)| Draw {
            nodes,
            zones,
            weights,
            arcs: nodes * arcs,
            copies,
            skew,
            seed,
        },
    )
}

impl Draw {
    /// The next number of a sequence (SplitMix64), below a bound.
    fn next(seed: &mut u64, below: u64) -> u64 {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = *seed;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ (it >> 31)) % below.max(1)
    }

    /// A ring in which everything is anywhere, and the sizes of its arcs.
    fn ring(&self) -> (Ring, Sizes) {
        let mut seed = self.seed;
        let mut built = Built::new(4);
        for _ in 0..self.nodes {
            let zone = Draw::next(&mut seed, self.zones as u64);
            let weight = (1 + Draw::next(&mut seed, self.weights)) as f64 / 2.0;
            built = built.node(&format!("z{zone}"), weight);
        }
        let copies = (self.copies as usize).min(self.nodes);
        let mut sets = Vec::new();
        for _ in 0..self.arcs {
            let mut set: Vec<u32> = Vec::new();
            while set.len() < copies {
                let node = 1 + Draw::next(&mut seed, self.nodes as u64) as u32;
                if !set.contains(&node) {
                    set.push(node);
                }
            }
            sets.push(set);
        }
        let ring = built.keyspace("default", self.copies, &sets).ring();
        let mut sizes = Sizes::default();
        for arc in ring.arcs() {
            let size = sizes.arcs.entry(arc.id).or_default();
            size.bytes = match self.skew {
                0 => 0,
                1 => 1 << 30,
                2 => Draw::next(&mut seed, 1 << 30),
                // One in a thousand is a thousand times as large.
                _ => (1 << 40) / (1 + Draw::next(&mut seed, 1 << 12)),
            };
            size.entries = size.bytes >> 8;
        }
        (ring, sizes)
    }

    /// The same, made even; and the plan that did it.
    fn even(&self) -> (Ring, Sizes, Plan) {
        let (ring, sizes) = self.ring();
        let plan = plan(&ring, &Wish::Rebalance, &sizes).unwrap();
        let after = granted(&ring, &Wish::Rebalance, &plan);
        let sizes = sizes_after(&sizes, &plan);
        (after, sizes, plan)
    }
}

/// Copies are distinct, enough, and in as many zones as there are (rules 1 and 2).
fn holds_together(ring: &Ring) -> Result<(), TestCaseError> {
    let active = || ring.nodes().iter().filter(|node| node.state() == MemberState::Active);
    let zones: BTreeSet<&str> = active().map(|node| node.zone.as_str()).collect();
    for arc in ring.arcs() {
        let keyspace = ring.keyspace_by_id(arc.keyspace).unwrap();
        let wanted = (keyspace.replicas as usize).min(active().count());
        let distinct: BTreeSet<NodeId> = arc.replicas.iter().copied().collect();
        prop_assert_eq!(distinct.len(), arc.replicas.len());
        prop_assert_eq!(distinct.len(), wanted, "{} on {:?}", arc, arc.replicas);
        let zone = |id: &NodeId| ring.node(*id).unwrap().zone.as_str();
        let spread: BTreeSet<&str> = distinct.iter().map(zone).collect();
        prop_assert_eq!(spread.len(), wanted.min(zones.len()), "{} on {:?}", arc, arc.replicas);
    }
    Ok(())
}

/// The fullest node's ratio. Of empty arcs none is cut, so there one arc more than the share is as even as can be.
fn unevenness(draw: &Draw, ring: &Ring, sizes: &Sizes) -> f64 {
    let grain = if draw.skew == 0 { 1.0 / ring.arcs().len() as f64 } else { 0.0 };
    let ratio = |share: Share| (share.held - grain * 1.0001) / share.share;
    shares(ring, sizes).into_iter().map(ratio).fold(0.0, f64::max)
}

/// Plans twice, as the same is to come out, and carries it out.
fn carried_out(ring: &Ring, wish: &Wish, sizes: &Sizes) -> Result<(Ring, Sizes, Plan), TestCaseError> {
    let made = plan(ring, wish, sizes).map_err(|refused| TestCaseError::fail(refused.to_string()))?;
    let again = plan(ring, wish, sizes);
    prop_assert_eq!(Some(&made), again.as_ref().ok());
    prop_assert_eq!(made.bytes, made.moves.iter().map(|step| step.bytes).sum::<u64>());
    prop_assert!(made.bytes >= made.ideal_bytes);
    let after = granted(ring, wish, &made);
    let sizes = sizes_after(sizes, &made);
    let fullest = shares(&after, &sizes).iter().map(Share::ratio).fold(0.0, f64::max);
    prop_assert!((fullest - made.unevenness).abs() < ROUNDING, "{} is {}", made.unevenness, fullest);
    Ok((after, sizes, made))
}

/// A ring with a member more that holds nothing, and its number.
fn with_member(ring: &Ring, zone: String, weight: f64) -> (Ring, NodeId) {
    let mut document = ring.document().clone();
    let number = document.next_node;
    let uuid = uuid::Uuid::from_u128(u128::from(number)).as_bytes().to_vec().into();
    document.nodes.push(Member { number, uuid, zone, weight, ..Member::default() });
    document.next_node += 1;
    (Ring::new(document).unwrap(), NodeId(number))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_ring_can_be_made_even_and_then_nothing_more_moves(draw in draws()) {
        let (ring, sizes) = draw.ring();
        let (after, sizes, made) = carried_out(&ring, &Wish::Rebalance, &sizes)?;
        holds_together(&after)?;
        let unevenness = unevenness(&draw, &after, &sizes);
        prop_assert!(unevenness <= 1.0 + EVEN + ROUNDING, "{unevenness:.3} {:?}", made.notes);
        let again = plan(&after, &Wish::Rebalance, &sizes).unwrap();
        prop_assert_eq!((again.splits, again.moves), (vec![], vec![]));
    }

    #[test]
    fn who_joins_is_all_that_takes_and_gets_its_share(draw in draws(), zone in 0u8..6, weight in 1u8..5) {
        let (ring, sizes, _) = draw.even();
        let (ring, node) = with_member(&ring, format!("z{zone}"), f64::from(weight) / 2.0);
        let (after, sizes, made) = carried_out(&ring, &Wish::Join(node), &sizes)?;
        holds_together(&after)?;
        for step in &made.moves {
            let gained = |id: &&NodeId| !step.from.contains(id);
            prop_assert!(step.to.iter().filter(gained).all(|id| *id == node), "{:?}", step);
        }
        prop_assert_eq!(made.bytes, made.ideal_bytes);
        let joined = shares(&after, &sizes).into_iter().find(|share| share.node == node).unwrap();
        // A whole arc more or less, where none is cut.
        let grain = if draw.skew == 0 { 1.0 / after.arcs().len() as f64 } else { 0.0 };
        prop_assert!((joined.held - joined.share).abs() <= EVEN * joined.share + grain + ROUNDING, "{joined:?}");
        // As nothing else moves, others may hold a little too much; then that is said.
        let unevenness = unevenness(&draw, &after, &sizes);
        let said = made.notes.iter().any(|note| note.contains("of its share"));
        prop_assert!(unevenness <= 1.0 + EVEN + ROUNDING || draw.skew == 0 || said, "{unevenness:.3}");
    }

    #[test]
    fn who_leaves_holds_nothing_and_only_that_moved(draw in draws(), which in any::<prop::sample::Index>()) {
        let (ring, sizes, _) = draw.even();
        let node = NodeId(ring.nodes()[which.index(ring.nodes().len())].number);
        if ring.nodes().len() <= draw.copies as usize {
            let refused = plan(&ring, &Wish::Leave(node), &sizes);
            prop_assert!(matches!(refused, Err(Refused::TooFewNodes { .. })), "{:?}", refused);
            return Ok(());
        }
        let (after, sizes, made) = carried_out(&ring, &Wish::Leave(node), &sizes)?;
        holds_together(&after)?;
        for step in made.moves.iter().filter(|step| !step.reason.starts_with("leads")) {
            let gone: Vec<&NodeId> = step.from.iter().filter(|id| !step.to.contains(id)).collect();
            prop_assert_eq!(gone, [&node]);
            prop_assert_eq!(step.to.len(), step.from.len());
        }
        prop_assert_eq!(made.bytes, made.ideal_bytes);
        let unevenness = unevenness(&draw, &after, &sizes);
        let said = made.notes.iter().any(|note| note.contains("of its share"));
        prop_assert!(unevenness <= 1.0 + EVEN + ROUNDING || draw.skew == 0 || said, "{unevenness:.3}");
    }

    #[test]
    fn a_new_weight_or_zone_moves_from_who_holds_too_much(draw in draws(), eighths in 1u8..33, zone in 0u8..6) {
        let (ring, sizes, _) = draw.even();
        let node = NodeId(1);
        let weight = Wish::Reweight { node, weight: f64::from(eighths) / 8.0 };
        for wish in [weight, Wish::Rezone { node, zone: format!("z{zone}") }] {
            let (after, sizes, made) = carried_out(&ring, &wish, &sizes)?;
            holds_together(&after)?;
            let unevenness = unevenness(&draw, &after, &sizes);
            prop_assert!(unevenness <= 1.0 + 2.0 * EVEN, "{unevenness:.3} {wish:?} {:?}", made.notes);
            // With many copies on few nodes, what one gives up has few places to go to without a detour.
            if draw.zones == 1 && matches!(wish, Wish::Reweight { .. }) {
                let (bytes, ideal) = (made.bytes as f64, made.ideal_bytes as f64);
                prop_assert!(bytes <= 1.5 * ideal, "{bytes} of {ideal}");
            }
        }
    }

    #[test]
    fn more_or_fewer_copies_are_even_too(draw in draws(), replicas in 1u32..8) {
        let (ring, sizes, _) = draw.even();
        let wish = Wish::Replicas { keyspace: KeyspaceId(1), replicas, write_quorum: 1, read_quorum: 1 };
        let (after, sizes, made) = carried_out(&ring, &wish, &sizes)?;
        holds_together(&after)?;
        let unevenness = unevenness(&draw, &after, &sizes);
        prop_assert!(unevenness <= 1.0 + EVEN + ROUNDING, "{unevenness:.3} {:?}", made.notes);
    }

    #[test]
    fn leads_follow_weight_where_copies_do(draw in draws()) {
        // Of one copy, who holds it leads.
        prop_assume!(draw.copies > 1);
        let draw = Draw { zones: 1, skew: 1, ..draw };
        let (ring, ..) = draw.even();
        let weight: f64 = ring.nodes().iter().map(|node| node.weight).sum();
        for node in ring.nodes() {
            let leads = ring.arcs().iter().filter(|arc| arc.replicas[0] == NodeId(node.number)).count() as f64;
            let share = ring.arcs().len() as f64 * node.weight / weight;
            prop_assert!((leads - share).abs() <= 1.0 + EVEN * share, "node {} leads {leads} of {share}", node.number);
        }
    }
}
