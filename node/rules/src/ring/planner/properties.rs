//! What holds of every plan, for rings of up to 200 nodes of any weights, zones and sizes.

use super::{
    EVEN, Plan, Refused, Share, Sizes, Wish,
    cut::width,
    plan,
    share::fill,
    shares,
    tests::{Built, granted, sizes_after},
};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    ring::{Ring, RingArc},
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

/// What an arc weighs that is not cut however uneven it makes nodes: one that is empty. Nothing, if it may be cut.
fn whole(draw: &Draw, arc: &RingArc) -> f64 {
    if draw.skew == 0 { width(&arc.range, arc.keyspace) as f64 / 2f64.powi(64) } else { 0.0 }
}

/// The fullest node's ratio, without what whole arcs keep it from giving: one passes to a node only where the one is
/// further above its share than the other will be, each over its share: so up to half an arc, and half of one for each
/// time that it is as heavy as the lightest.
fn unevenness(draw: &Draw, ring: &Ring, sizes: &Sizes) -> f64 {
    let grain = ring.arcs().iter().map(|arc| whole(draw, arc)).fold(0.0, f64::max) * 1.0001;
    let all = shares(ring, sizes);
    let lightest =
        all.iter().map(|share| share.share).filter(|share| *share > 0.0).fold(f64::INFINITY, f64::min);
    let ratio = |share: &Share| (share.held - grain / 2.0) / share.share - grain / 2.0 / lightest;
    all.iter().map(ratio).fold(0.0, f64::max)
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

fn even_out(draw: &Draw) -> Result<(), TestCaseError> {
    let (ring, sizes) = draw.ring();
    let (after, sizes, made) = carried_out(&ring, &Wish::Rebalance, &sizes)?;
    holds_together(&after)?;
    let unevenness = unevenness(draw, &after, &sizes);
    prop_assert!(unevenness <= 1.0 + EVEN + ROUNDING, "{unevenness:.3} {:?}", made.notes);
    let again = plan(&after, &Wish::Rebalance, &sizes).unwrap();
    prop_assert_eq!((again.splits, again.moves), (vec![], vec![]));
    Ok(())
}

fn join(draw: &Draw, zone: u8, weight: u8) -> Result<(), TestCaseError> {
    let (ring, sizes, _) = draw.even();
    let (ring, node) = with_member(&ring, format!("z{zone}"), f64::from(weight) / 2.0);
    let (after, sizes, made) = carried_out(&ring, &Wish::Join(node), &sizes)?;
    holds_together(&after)?;
    for step in &made.moves {
        let gained = |id: &&NodeId| !step.from.contains(id);
        prop_assert!(step.to.iter().filter(gained).all(|id| *id == node), "{:?}", step);
    }
    prop_assert_eq!(made.bytes, made.ideal_bytes);
    gets_its_share(draw, &after, &sizes, node)?;
    // As nothing else moves, others may hold a little too much; then that is said.
    let unevenness = unevenness(draw, &after, &sizes);
    let said = made.notes.iter().any(|note| note.contains("of its share"));
    prop_assert!(unevenness <= 1.0 + EVEN + ROUNDING || draw.skew == 0 || said, "{unevenness:.3}");
    Ok(())
}

fn leave(draw: &Draw, which: prop::sample::Index) -> Result<(), TestCaseError> {
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
    let unevenness = unevenness(draw, &after, &sizes);
    let said = made.notes.iter().any(|note| note.contains("of its share"));
    prop_assert!(unevenness <= 1.0 + EVEN + ROUNDING || draw.skew == 0 || said, "{unevenness:.3}");
    Ok(())
}

fn change_node(draw: &Draw, eighths: u8, zone: u8) -> Result<(), TestCaseError> {
    let (ring, sizes, _) = draw.even();
    let node = NodeId(1);
    let weight = Wish::Reweight { node, weight: f64::from(eighths) / 8.0 };
    for wish in [weight, Wish::Rezone { node, zone: format!("z{zone}") }] {
        let (after, sizes_then, made) = carried_out(&ring, &wish, &sizes)?;
        holds_together(&after)?;
        let unevenness = unevenness(draw, &after, &sizes_then);
        prop_assert!(unevenness <= 1.0 + EVEN + ROUNDING, "{unevenness:.3} {wish:?} {:?}", made.notes);
        if draw.zones == 1 && matches!(wish, Wish::Reweight { .. }) {
            let least = made.ideal_bytes
                + passed_on(&ring, &sizes, &shares(&ring, &sizes), &shares(&after, &sizes_then));
            let (bytes, least) = (made.bytes as f64, least as f64);
            prop_assert!(bytes <= 1.5 * least, "{bytes} of {least}");
        }
    }
    Ok(())
}

/// Bytes that must go through a third node where the first one is to hold more, or less: what another one is to give
/// beyond all that it has and the first has not, or to take beyond all that the first has and it has not.
fn passed_on(ring: &Ring, sizes: &Sizes, before: &[Share], after: &[Share]) -> u64 {
    let first = after[0].node;
    let gives = after[0].bytes < before[0].bytes;
    let beyond = |(was, is): (&Share, &Share)| {
        let (from, to, change) = match gives {
            true => (first, is.node, is.bytes.saturating_sub(was.bytes)),
            false => (is.node, first, was.bytes.saturating_sub(is.bytes)),
        };
        let straight = ring.arcs().iter().filter(|arc| Ring::holds(arc, from) && !Ring::holds(arc, to));
        change.saturating_sub(straight.map(|arc| sizes.arcs[&arc.id].bytes).sum())
    };
    before.iter().zip(after).skip(1).map(beyond).sum()
}

/// Who joined holds its share, or as much of it as all those do who could give it more. An arc that has a copy in its
/// zone can be had from that copy's node only, so what the others hold too much of may be out of its reach until they
/// give to each other, which a join does not make them do.
fn gets_its_share(draw: &Draw, ring: &Ring, sizes: &Sizes, node: NodeId) -> Result<(), TestCaseError> {
    let all = shares(ring, sizes);
    let of = |id: NodeId| all.iter().find(|share| share.node == id).unwrap();
    let joined = of(node);
    let largest = ring
        .arcs()
        .iter()
        .filter(|arc| Ring::holds(arc, node))
        .map(|arc| whole(draw, arc))
        .fold(0.0, f64::max);
    prop_assert!(joined.held <= (1.0 + EVEN) * joined.share + largest / 2.0 + ROUNDING, "{joined:?}");
    if joined.held >= (1.0 - EVEN) * joined.share - ROUNDING {
        return Ok(());
    }
    let zone = |id: NodeId| ring.node(id).unwrap().zone.as_str();
    let zones = |ids: &[NodeId]| ids.iter().map(|id| zone(*id)).collect::<BTreeSet<&str>>().len();
    // Of arcs that are not cut it takes one more only where it is nearer to its share by that.
    let lacks = |arc: &&RingArc| joined.held + whole(draw, arc) / 2.0 <= joined.share - ROUNDING;
    for arc in ring.arcs().iter().filter(|arc| !Ring::holds(arc, node)).filter(lacks) {
        for from in &arc.replicas {
            let with: Vec<NodeId> =
                arc.replicas.iter().map(|id| if id == from { node } else { *id }).collect();
            if zones(&with) < zones(&arc.replicas) {
                continue;
            }
            let giver = of(*from);
            let gap = giver.held / giver.share - joined.held / joined.share;
            let step = whole(draw, arc) * (0.5 / giver.share + 0.5 / joined.share);
            prop_assert!(gap <= EVEN + step + ROUNDING, "{joined:?} could take {arc} from {giver:?}");
        }
    }
    Ok(())
}

fn change_copies(draw: &Draw, replicas: u32) -> Result<(), TestCaseError> {
    let (ring, sizes, _) = draw.even();
    let wish = Wish::Replicas { keyspace: KeyspaceId(1), replicas, write_quorum: 1, read_quorum: 1 };
    let (after, sizes, made) = carried_out(&ring, &wish, &sizes)?;
    holds_together(&after)?;
    let unevenness = unevenness(draw, &after, &sizes);
    prop_assert!(unevenness <= 1.0 + EVEN + ROUNDING, "{unevenness:.3} {:?}", made.notes);
    Ok(())
}

fn lead(draw: &Draw) -> Result<(), TestCaseError> {
    // Of one copy, who holds it leads.
    prop_assume!(draw.copies > 1);
    let draw = Draw { zones: 1, skew: 1, ..draw.clone() };
    let (ring, sizes, _) = draw.even();
    let counted = shares(&ring, &sizes);
    // Nobody leads what it does not hold.
    let bound = |(node, share): (&Member, &Share)| (node.weight, share.arcs as f64);
    let bounds: Vec<(f64, f64)> = ring.nodes().iter().zip(&counted).map(bound).collect();
    let wanted = fill(ring.arcs().len() as f64, &bounds);
    let number = |id: &NodeId| counted.iter().position(|share| share.node == *id).unwrap();
    let off = |at: usize| counted[at].leads as f64 - wanted[at];
    for at in (0..counted.len()).filter(|at| off(*at).abs() > 1.0 + EVEN * wanted[*at]) {
        // All to whom it could pass leads on, or who could pass leads on to it; through others, too.
        let gives = off(at) > 0.0;
        let mut reached = BTreeSet::from([at]);
        loop {
            let before = reached.len();
            for arc in ring.arcs() {
                let nodes: Vec<usize> = arc.replicas.iter().map(number).collect();
                let from = if gives { &nodes[..1] } else { &nodes[1..] };
                if from.iter().any(|node| reached.contains(node)) {
                    reached.extend(if gives { &nodes[1..] } else { &nodes[..1] });
                }
            }
            if reached.len() == before {
                break;
            }
        }
        for other in reached.into_iter().filter(|other| *other != at) {
            let (from, to) = if gives { (at, other) } else { (other, at) };
            let (less, more) = ((2.0 * off(from) - 1.0) / wanted[from], (2.0 * off(to) + 1.0) / wanted[to]);
            prop_assert!(less <= more + ROUNDING, "{:?} could lead one for {:?}", counted[to], counted[from]);
        }
    }
    Ok(())
}

/// As many cases as are asked for by the environment, or else so few that nobody waits.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 64 };
    ProptestConfig { cases, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_ring_can_be_made_even_and_then_nothing_more_moves(draw in draws()) {
        even_out(&draw)?;
    }

    #[test]
    fn who_joins_is_all_that_takes_and_gets_its_share(draw in draws(), zone in 0u8..6, weight in 1u8..5) {
        join(&draw, zone, weight)?;
    }

    #[test]
    fn who_leaves_holds_nothing_and_only_that_moved(draw in draws(), which in any::<prop::sample::Index>()) {
        leave(&draw, which)?;
    }

    #[test]
    fn a_new_weight_or_zone_moves_from_who_holds_too_much(draw in draws(), eighths in 1u8..33, zone in 0u8..6) {
        change_node(&draw, eighths, zone)?;
    }

    #[test]
    fn more_or_fewer_copies_are_even_too(draw in draws(), replicas in 1u32..8) {
        change_copies(&draw, replicas)?;
    }

    #[test]
    fn leads_follow_weight_where_copies_do(draw in draws()) {
        lead(&draw)?;
    }
}

/// A draw, field by field.
fn draw(nodes: usize, zones: usize, weights: u64, arcs: usize, copies: u32, skew: u32, seed: u64) -> Draw {
    Draw { nodes, zones, weights, arcs, copies, skew, seed }
}

#[test]
fn nodes_of_a_zone_that_holds_hardly_more_than_one_copy_make_room_for_each_other() {
    even_out(&draw(30, 2, 4, 240, 5, 2, 17_155_669_283_551_795_853)).unwrap();
    even_out(&draw(193, 3, 1, 1_351, 4, 3, 13_369_223_394_267_339_723)).unwrap();
    change_copies(&draw(44, 3, 1, 44, 5, 2, 17_859_828_125_622_570_194), 4).unwrap();
}

#[test]
fn a_zone_of_few_nodes_is_cut_finer() {
    even_out(&draw(19, 2, 1, 57, 4, 1, 17_093_975_463_582_631_067)).unwrap();
}

#[test]
fn arcs_that_cannot_be_cut_pass_through_others_whole() {
    even_out(&draw(54, 5, 2, 54, 4, 0, 11_528_613_965_895_747_852)).unwrap();
    change_copies(&draw(10, 3, 3, 10, 4, 0, 11_485_904_363_529_275_526), 2).unwrap();
}

#[test]
fn what_could_not_be_made_even_is_not_moved_about() {
    even_out(&draw(39, 4, 3, 117, 5, 0, 171_076_979_281_782_876)).unwrap();
    even_out(&draw(18, 1, 2, 90, 5, 3, 13_863_712_319_713_092_141)).unwrap();
}

#[test]
fn who_joins_takes_no_more_than_makes_others_more_even() {
    join(&draw(95, 2, 1, 190, 1, 0, 8_942_932_784_859_657_497), 2, 4).unwrap();
}

#[test]
fn who_joins_a_zone_that_has_a_copy_takes_what_it_can_reach() {
    join(&draw(4, 4, 1, 8, 2, 3, 8_913_035_577_081_693_769), 2, 2).unwrap();
}

#[test]
fn a_node_of_another_weight_is_no_hub_for_others() {
    change_node(&draw(54, 1, 2, 648, 1, 2, 1_081_100_866_249_434_653), 23, 0).unwrap();
}

#[test]
fn who_gave_an_arc_keeps_it_instead_of_another() {
    change_node(&draw(10, 1, 4, 40, 1, 2, 4_717_006_452_366_106_733), 19, 3).unwrap();
}

#[test]
fn what_a_node_holds_already_goes_to_others_through_a_third() {
    change_node(&draw(10, 1, 1, 10, 5, 3, 13_570_581_449_351_951_019), 31, 3).unwrap();
}

#[test]
fn nodes_that_must_lead_too_many_or_too_few_share_that() {
    lead(&draw(29, 1, 3, 29, 2, 0, 4_994_646_723_574_900_989)).unwrap();
    lead(&draw(26, 1, 3, 26, 2, 0, 924_789_714_133_037_121)).unwrap();
}

#[test]
fn what_was_made_even_stays_where_it_is_when_that_is_asked_for_again() {
    even_out(&draw(11, 4, 4, 77, 3, 0, 10_608_068_706_341_637_184)).unwrap();
}
