//! What can be told from a ring: who holds how much, and which arcs lack copies.

use god_proto::{
    ids::{ArcId, KeyspaceId, NodeId},
    ring::{Ring, RingArc, partitioner},
    v1::Partitioner,
};
use std::collections::BTreeMap;

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NodeShare {
    /// Arcs of which it holds a copy.
    pub arcs: usize,
    /// Arcs it leads.
    pub leads: usize,
    /// Its part of all copies, 0 to 1: by width in hashed keyspaces, by number of arcs in ordered ones.
    pub share: f64,
}

/// The arcs of which fewer copies are up than their keyspace asks for: the arc, how many are up, how many are asked.
pub fn under_replicated(ring: &Ring, is_up: impl Fn(NodeId) -> bool) -> Vec<(ArcId, usize, usize)> {
    let short = |arc: &RingArc| {
        let want = ring.keyspace_by_id(arc.keyspace)?.replicas as usize;
        let have = arc.replicas.iter().filter(|&&node| is_up(node)).count();
        (have < want).then_some((arc.id, have, want))
    };
    ring.arcs().iter().filter_map(short).collect()
}

/// What each node of the ring holds. Cost: O(arcs).
pub fn shares(ring: &Ring) -> BTreeMap<NodeId, NodeShare> {
    let mut shares: BTreeMap<NodeId, NodeShare> =
        ring.nodes().iter().map(|node| (NodeId(node.number), NodeShare::default())).collect();
    let mut arcs_of: BTreeMap<KeyspaceId, usize> = BTreeMap::new();
    ring.arcs().iter().for_each(|arc| *arcs_of.entry(arc.keyspace).or_default() += 1);
    let mut total = 0.0;
    for arc in ring.arcs() {
        let hashed = ring
            .keyspace_by_id(arc.keyspace)
            .is_some_and(|keyspace| partitioner(keyspace) == Partitioner::Hashed);
        let width = match arcs_of.get(&arc.keyspace) {
            _ if hashed => width(arc),
            Some(&arcs) => 1.0 / arcs.max(1) as f64,
            None => 0.0,
        };
        for (place, node) in arc.replicas.iter().enumerate() {
            let share = shares.entry(*node).or_default();
            share.arcs += 1;
            share.leads += usize::from(place == 0);
            share.share += width;
            total += width;
        }
    }
    if total > 0.0 {
        shares.values_mut().for_each(|share| share.share /= total);
    }
    shares
}

/// The part of the hashes that an arc covers.
fn width(arc: &RingArc) -> f64 {
    let hash = |bytes: &[u8]| {
        bytes.get(4..).and_then(|rest| rest.first_chunk::<8>()).map(|hash| u64::from_be_bytes(*hash))
    };
    let start = hash(arc.range.start.as_bytes()).unwrap_or(0) as f64;
    let same_keyspace = arc.range.end.keyspace() == Some(arc.keyspace);
    let end = hash(arc.range.end.as_bytes()).filter(|_| same_keyspace);
    let all = 2f64.powi(64);
    (end.map_or(all, |end| end as f64) - start) / all
}
