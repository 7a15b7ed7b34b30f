//! Which node to ask for a key: the ring, and how the nodes do.

use crate::{connection::ConnectionState, node::Node};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    position::Position,
    ring::{Ring, partitioner},
    v1::Keyspace,
};
use std::{collections::BTreeMap, sync::Arc};

/// Calls without an answer beyond which a node is left for the next one: fewer share frames and cost less together.
const BUSY: usize = 128;

/// One state of knowledge; replaced as a whole.
#[derive(Default)]
pub(crate) struct Routes {
    pub ring: Option<Ring>,
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// The servers that were named; the first one that answered is first.
    pub seeds: Vec<Arc<Node>>,
}

impl Routes {
    /// A keyspace by its name, as the ring has it.
    pub fn keyspace(&self, name: &str) -> Option<&Keyspace> {
        self.ring.as_ref()?.keyspace(name)
    }

    /// The node to ask for a key, leaving out those that were tried: of its replicas the one that this client ranks
    /// first. Each client has a ranking of its own, so that many of them use all nodes alike, while the calls of one
    /// go to few nodes and share frames, which halves their cost on both sides. A replica that does not do well is
    /// passed over, and so is one that has much to answer. Where no replica does well any node does, as all of them
    /// coordinate. Cost: O(log arcs).
    pub fn for_key(&self, keyspace: &str, key: &[u8], tried: &[Arc<Node>]) -> Option<&Arc<Node>> {
        let replicas = self.replicas(keyspace, key);
        let replicas = replicas.iter().filter_map(|node| self.nodes.get(node));
        let best = best(replicas.clone(), tried);
        // One that was never wanted is no worse than one that was: it only needs to be connected.
        let nearest = replicas.clone().min_by_key(|node| node.rank());
        let busy = best.is_some_and(|best| best.load() >= BUSY);
        for node in replicas.filter(|node| busy || nearest.is_some_and(|nearest| Arc::ptr_eq(nearest, node)))
        {
            if node.state() == ConnectionState::Idle {
                node.want();
            }
        }
        match best {
            Some(node) if node.state() == ConnectionState::Open => Some(node),
            replica => {
                // Wanted from now on; until it is there, somebody who is there is asked.
                if let Some(node) = replica {
                    node.want();
                }
                let anyone = self.any(tried);
                match (replica, anyone) {
                    (Some(replica), Some(other)) if other.state() < replica.state() => Some(other),
                    (Some(replica), _) => Some(replica),
                    (None, anyone) => anyone,
                }
            }
        }
    }

    /// The node that does best, leaving out those that were tried. The named servers go before others.
    pub fn any(&self, tried: &[Arc<Node>]) -> Option<&Arc<Node>> {
        let all = self.seeds.iter().chain(self.nodes.values());
        all.filter(|node| !is_in(tried, node)).min_by_key(|node| node.state())
    }

    /// A node to ask for what is not a single key: one after the other in turns, as far as they do well.
    pub fn in_turn(&self, turn: usize, tried: &[Arc<Node>]) -> Option<&Arc<Node>> {
        let at = turn.checked_rem(self.nodes.len()).unwrap_or_default();
        match self.nodes.values().nth(at) {
            Some(node) if node.state() == ConnectionState::Open && !is_in(tried, node) => Some(node),
            other => {
                if let Some(node) = other {
                    node.want();
                }
                self.any(tried)
            }
        }
    }

    fn replicas(&self, keyspace: &str, key: &[u8]) -> &[NodeId] {
        let find = || {
            let ring = self.ring.as_ref()?;
            let keyspace = ring.keyspace(keyspace)?;
            let position = Position::of_key(KeyspaceId(keyspace.id), partitioner(keyspace), key).ok()?;
            Some(&ring.arc_at(&position)?.replicas[..])
        };
        find().unwrap_or(&[])
    }
}

fn best<'a>(replicas: impl Iterator<Item = &'a Arc<Node>>, tried: &[Arc<Node>]) -> Option<&'a Arc<Node>> {
    replicas
        .filter(|node| !is_in(tried, node))
        .min_by_key(|node| (node.state(), node.load() / BUSY, node.rank()))
}

fn is_in(nodes: &[Arc<Node>], node: &Arc<Node>) -> bool {
    nodes.iter().any(|other| Arc::ptr_eq(other, node))
}
