//! Whether a node that is well itself can serve anybody: which of its arcs' quorums answer.

use super::Node;
use god_proto::ids::{Epoch, NodeId};
use god_rules::quorum::{JointReplicas, Need, Use};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The quorums of the arcs that a node holds, each once, as of an epoch.
#[derive(Default)]
pub(super) struct Served(Mutex<(Epoch, Arc<[JointReplicas]>)>);

impl Node {
    /// Why nobody can be served here although nothing is wrong with this node: of none of its arcs does a quorum for
    /// reads or for writes answer. Cost: a look at one quorum, mostly; once an epoch O(arcs).
    pub(super) fn alone(&self) -> Option<String> {
        let me = self.member()?.number;
        let quorums = self.quorums(me);
        let answers = |node: NodeId| node == me || !self.liveness.is_silent(node);
        let is_there = |sets: &JointReplicas| sets.enough(sets.those(answers));
        if quorums.is_empty() || quorums.iter().any(is_there) {
            return None;
        }
        let others: BTreeSet<NodeId> = quorums.iter().flat_map(JointReplicas::members).copied().collect();
        let silent: Vec<String> =
            others.iter().filter(|node| !answers(**node)).map(|node| format!("node {node}")).collect();
        Some(format!("no quorum answers for any arc of this node: {} cannot be reached", silent.join(", ")))
    }

    fn quorums(&self, me: NodeId) -> Arc<[JointReplicas]> {
        let Some(ring) = self.ring.get() else { return Arc::default() };
        {
            let served = self.served.0.lock();
            if served.0 == ring.epoch() {
                return Arc::clone(&served.1);
            }
        }
        // Most arcs have the replicas of others.
        let mut alike = BTreeMap::new();
        for arc in ring.arcs().iter().filter(|arc| arc.replicas.contains(&me)) {
            alike.entry((arc.keyspace, &arc.replicas, &arc.next)).or_insert(arc);
        }
        let both = alike.into_values().flat_map(|arc| {
            [Use::Read, Use::Write].map(|wanted| JointReplicas::of(&ring, arc, Need::Default(wanted)))
        });
        let each: Arc<[JointReplicas]> = both.collect::<BTreeSet<JointReplicas>>().into_iter().collect();
        *self.served.0.lock() = (ring.epoch(), Arc::clone(&each));
        each
    }
}
