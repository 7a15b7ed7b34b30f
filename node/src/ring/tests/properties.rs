use super::{first, joiner};
use crate::ring::{
    Joiner, RingChangeError, choose_voters, create_keyspace,
    deal::deal,
    join, kept_back, mark_live,
    quota::{self, Share},
    shares, under_replicated,
};
use bytes::Bytes;
use god_proto::{
    ids::{KeyspaceId, NodeId},
    ring::Ring,
    v1::{Keyspace, Mode, Partitioner, RingDocument},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn next(document: RingDocument) -> Ring {
    Ring::new(document).unwrap()
}

fn joined(ring: &Ring, joiner: &Joiner) -> Ring {
    next(join(ring, joiner).unwrap().unwrap())
}

fn cluster(nodes: u32) -> Ring {
    (2..=nodes).fold(first("a", 1.0, 4), |ring, number| joined(&ring, &joiner(number, "a", 1.0)))
}

fn spec(name: &str, partitioner: Partitioner) -> Keyspace {
    Keyspace {
        name: name.to_owned(),
        partitioner: partitioner.into(),
        replicas: 3,
        write_quorum: 2,
        read_quorum: 2,
        ..Keyspace::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_arc_has_distinct_replicas_in_as_many_zones_as_there_are_and_nodes_have_their_part(
        nodes in prop::collection::vec((1u32..40, 0u32..7), 1..200),
        arcs_each in 1usize..16,
        copies in 1usize..6,
    ) {
        let shares: Vec<Share> = nodes
            .iter()
            .enumerate()
            .map(|(at, &(weight, zone))| Share {
                node: at as u32 + 1,
                weight: f64::from(weight) / 4.0,
                zone: zone.to_string(),
            })
            .collect();
        let arcs = arcs_each * nodes.len();
        let copies = copies.min(nodes.len());
        let zones = nodes.iter().map(|(_, zone)| zone).collect::<BTreeSet<_>>().len();
        let dealt = deal(&shares, arcs, copies);
        let mut held = BTreeMap::<u32, usize>::new();
        let mut leads = BTreeMap::<u32, usize>::new();
        for set in &dealt {
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>().len(), copies);
            let in_zones: BTreeSet<u32> = set.iter().map(|&node| nodes[node as usize - 1].1).collect();
            prop_assert_eq!(in_zones.len(), copies.min(zones));
            set.iter().for_each(|&node| *held.entry(node).or_default() += 1);
            *leads.entry(set[0]).or_default() += 1;
        }
        // Whole arcs cannot be cut: within 1.05, or two copies where that is more.
        for (share, ideal) in shares.iter().zip(quota::ideal(&shares, arcs, copies)) {
            let held = held.get(&share.node).copied().unwrap_or(0) as f64;
            prop_assert!(
                held <= (ideal * 1.05).max(ideal + 2.0) && held >= (ideal * 0.95).min(ideal - 2.0),
                "node {} holds {held}, ideal {ideal}", share.node
            );
        }
        prop_assert_eq!(leads.values().sum::<usize>(), arcs);
        prop_assert_eq!(&deal(&shares, arcs, copies), &dealt);
    }

    #[test]
    fn nodes_of_one_weight_lead_the_same_number_of_arcs(nodes in 1usize..60, arcs_each in 1usize..12) {
        let shares: Vec<Share> = (1..=nodes as u32)
            .map(|node| Share { node, weight: 1.0, zone: (node % 3).to_string() })
            .collect();
        let mut leads = BTreeMap::<u32, usize>::new();
        for set in deal(&shares, arcs_each * nodes, 3) {
            *leads.entry(set[0]).or_default() += 1;
        }
        // With zones of different sizes the smallest may have to hold more, but lead it need not.
        for share in &shares {
            let leads = leads.get(&share.node).copied().unwrap_or(0);
            prop_assert!(leads.abs_diff(arcs_each) <= 1, "node {} leads {leads} of {arcs_each}", share.node);
        }
    }

    #[test]
    fn whoever_joins_in_whatever_order_the_ring_holds_together(
        nodes in prop::collection::vec((1u32..9, 0u32..4), 1..24),
        live_from in 0usize..24,
    ) {
        let mut ring = first("0", 1.0, 4);
        ring = next(create_keyspace(&ring, &spec("sorted", Partitioner::Ordered), &[]).unwrap());
        for (at, (weight, zone)) in nodes.into_iter().enumerate() {
            if at == live_from {
                ring = next(mark_live(&ring, &[KeyspaceId(1)]).unwrap());
            }
            let before = ring.clone();
            ring = joined(&ring, &joiner(at as u32 + 2, &zone.to_string(), f64::from(weight)));
            prop_assert_eq!(ring.epoch().0, before.epoch().0 + 1);
            for keyspace in ring.keyspaces() {
                let of = |ring: &Ring| -> Vec<_> {
                    ring.arcs().iter().filter(|arc| arc.keyspace.0 == keyspace.id).cloned().collect()
                };
                if keyspace.live {
                    prop_assert_eq!(of(&ring), of(&before), "EMPTY-MOVES-FREE");
                }
            }
            let again = ring.voters().count();
            prop_assert_eq!(again, match ring.nodes().len() { 0..3 => 1, 3..5 => 3, _ => 5 });
        }
    }
}

#[test]
fn voters_stand_in_as_many_zones_as_there_are_and_stay_where_they_can() {
    let ring = cluster(7);
    assert_eq!(choose_voters(ring.nodes(), &[2, 3, 4, 6, 7]), [2, 3, 4, 6, 7]);
    let mut nodes = ring.nodes().to_vec();
    nodes[0].zone = "b".to_owned();
    nodes[4].zone = "c".to_owned();
    let voters = choose_voters(&nodes, &[2, 3, 4, 6, 7]);
    assert!(voters.contains(&1) && voters.contains(&5), "{voters:?}");
}

#[test]
fn a_node_that_says_the_same_again_changes_nothing() {
    let ring = cluster(3);
    assert_eq!(join(&ring, &joiner(2, "a", 1.0)).unwrap(), None);
}

#[test]
fn the_newest_claim_to_a_peer_address_wins() {
    let ring = cluster(3);
    let ring = joined(&ring, &Joiner { peer_address: "n2:1".to_owned(), ..joiner(3, "a", 1.0) });
    assert_eq!(ring.node(NodeId(3)).unwrap().peer_address, "n2:1");
    assert_eq!(ring.node(NodeId(2)).unwrap().peer_address, "");
}

#[test]
fn a_node_that_holds_data_keeps_its_zone_and_weight_and_is_told() {
    let ring = cluster(3);
    let moved = joiner(2, "elsewhere", 3.0);
    assert_eq!(kept_back(&ring, &moved), None);
    assert_eq!(joined(&ring, &moved).node(NodeId(2)).unwrap().zone, "elsewhere");
    let live = next(mark_live(&ring, &[KeyspaceId(1)]).unwrap());
    assert_eq!(mark_live(&live, &[KeyspaceId(1)]), None);
    assert!(kept_back(&live, &moved).unwrap().contains("keeps zone \"a\""));
    assert_eq!(join(&live, &moved).unwrap(), None);
}

#[test]
fn a_node_that_left_for_good_is_refused() {
    let mut document = cluster(2).document().clone();
    document.retired.push(vec![7; 16].into());
    let joiner = Joiner { uuid: uuid::Uuid::from_bytes([7; 16]), ..joiner(3, "a", 1.0) };
    let refused = join(&next(document), &joiner).unwrap_err();
    assert!(refused.to_string().contains("for good"), "{refused}");
}

#[test]
fn a_keyspace_that_cannot_be_is_refused_with_a_sentence() {
    let ring = cluster(3);
    let why = |spec: Keyspace, splits: &[Bytes]| create_keyspace(&ring, &spec, splits).unwrap_err();
    assert!(matches!(why(spec("default", Partitioner::Hashed), &[]), RingChangeError::Exists(_)));
    let linearizable = Keyspace { mode: Mode::Linearizable.into(), ..spec("x", Partitioner::Hashed) };
    assert!(why(linearizable, &[]).to_string().contains("not available in this version"));
    let wide = Keyspace { write_quorum: 4, ..spec("x", Partitioner::Hashed) };
    assert_eq!(why(wide, &[]).to_string(), "write-quorum 4 exceeds replicas 3 in keyspace x");
    assert!(why(spec("x", Partitioner::Hashed), &["k".into()]).to_string().contains("is hashed"));
    let twice = why(spec("x", Partitioner::Ordered), &["k".into(), "k".into()]);
    assert!(twice.to_string().contains("twice"));
}

#[test]
fn shares_add_up_and_missing_copies_are_told() {
    let ring = cluster(3);
    let shares = shares(&ring);
    assert!((shares.values().map(|share| share.share).sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(shares.values().all(|share| share.leads == 4 && share.arcs == 12), "{shares:?}");
    assert!(under_replicated(&ring, |_| true).is_empty());
    let short = under_replicated(&ring, |node| node != NodeId(2));
    assert_eq!(short.len(), 12);
    assert!(short.iter().all(|(_, have, want)| (*have, *want) == (2, 3)));
}
