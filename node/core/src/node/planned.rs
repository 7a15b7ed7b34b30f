//! What nodes hold before and after a plan.

use crate::ring::{ArcSize, Plan, Sizes};
use god_proto::{
    ids::{ArcId, NodeId},
    ring::Ring,
    v1::PlannedShare,
};
use std::collections::BTreeMap;

/// Bytes of each member, as far as sizes are known; who leaves holds nothing afterwards, whether its data go to others
/// or are lost. An arc that is cut counts as halves. Cost: O(copies).
pub(super) fn planned_shares(ring: &Ring, plan: &Plan, sizes: &Sizes) -> Vec<PlannedShare> {
    let members = ring.nodes().iter().map(|node| node.number);
    let mut shares: BTreeMap<u32, PlannedShare> =
        members.map(|node| (node, PlannedShare { node, ..PlannedShare::default() })).collect();
    let mut bytes: BTreeMap<u64, u64> =
        sizes.arcs.iter().map(|(arc, ArcSize { bytes, .. })| (arc.0, *bytes)).collect();
    let of = |bytes: &BTreeMap<u64, u64>, ArcId(arc)| bytes.get(&arc).copied().unwrap_or(0);
    for arc in ring.arcs() {
        for NodeId(node) in &arc.replicas {
            let share =
                shares.entry(*node).or_insert_with(|| PlannedShare { node: *node, ..Default::default() });
            share.before += of(&bytes, arc.id);
        }
    }
    for split in &plan.splits {
        let whole = of(&bytes, split.arc);
        bytes.insert(split.arc.0, whole - whole / 2);
        bytes.insert(split.new.0, whole / 2);
    }
    for arc in plan.apply(ring.document()).arcs {
        for node in &arc.replicas {
            let share =
                shares.entry(*node).or_insert_with(|| PlannedShare { node: *node, ..Default::default() });
            share.after += of(&bytes, ArcId(arc.id));
        }
    }
    shares.into_values().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ring::{Founding, Joiner, Wish, found, join, mark_live, plan};
    use god_proto::ids::KeyspaceId;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    fn ring(nodes: u128) -> Ring {
        let joiner = |number: u128| Joiner {
            uuid: Uuid::from_u128(number),
            peer_address: format!("node-{number}:7100"),
            grpc_address: format!("node-{number}:7000"),
            http_address: format!("node-{number}:7200"),
            zone: String::new(),
            weight: 1.0,
            version: "0.1.0".to_owned(),
            takes_part: true,
        };
        let founding = Founding {
            replicas: 3,
            write_quorum: 2,
            read_quorum: 2,
            virtual_nodes: 4,
            under_replicated: false,
        };
        let mut ring = found(Uuid::from_u128(99), &joiner(1), founding).unwrap();
        for number in 2..=nodes {
            ring = join(&ring, &joiner(number), &BTreeSet::new(), &BTreeSet::new()).unwrap().unwrap();
        }
        mark_live(&ring, KeyspaceId(1)).unwrap().unwrap()
    }

    fn sized(ring: &Ring) -> Sizes {
        let mut sizes = Sizes::default();
        for arc in ring.arcs() {
            sizes.arcs.insert(arc.id, ArcSize { bytes: 1_001, entries: 10, ..ArcSize::default() });
        }
        sizes
    }

    fn after(ring: &Ring, wish: &Wish) -> (Vec<u64>, Vec<u64>) {
        let sizes = sized(ring);
        let shares = planned_shares(ring, &plan(ring, wish, &sizes).unwrap(), &sizes);
        (shares.iter().map(|it| it.before).collect(), shares.iter().map(|it| it.after).collect())
    }

    #[test]
    fn who_leaves_holds_nothing_afterwards_whoever_takes_over() {
        for (nodes, wish) in [(4, Wish::Leave as fn(NodeId) -> Wish), (4, Wish::Lost), (3, Wish::Lost)] {
            let ring = ring(nodes);
            let (before, after) = after(&ring, &wish(NodeId(2)));
            let whole = ring.arcs().len() as u64 * 1_001;
            assert_eq!(before.iter().sum::<u64>(), 3 * whole, "{nodes}");
            assert_eq!(after[1], 0, "{nodes}: {after:?}");
            assert_eq!(after.iter().sum::<u64>(), (nodes as u64 - 1).min(3) * whole, "{nodes}: {after:?}");
        }
    }

    #[test]
    fn fewer_copies_are_fewer_bytes() {
        let ring = ring(3);
        let wish = Wish::Replicas { keyspace: KeyspaceId(1), replicas: 2, write_quorum: 2, read_quorum: 1 };
        let (before, after) = after(&ring, &wish);
        assert_eq!(before.iter().sum::<u64>() * 2, after.iter().sum::<u64>() * 3, "{before:?} {after:?}");
    }
}
