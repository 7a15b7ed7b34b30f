//! Room on the disks of nodes.

use super::wish::Node;
use god_proto::ids::NodeId;
use std::collections::BTreeMap;

/// What disks have room for, and what the plan has put there so far. What a node gives up is not counted: it goes only
/// after what comes.
#[derive(Clone)]
pub(super) struct DiskSpace {
    free: Vec<Option<u64>>,
    taken: Vec<u64>,
}

impl DiskSpace {
    pub fn new(nodes: &[Node], free: &BTreeMap<NodeId, u64>) -> DiskSpace {
        DiskSpace {
            free: nodes.iter().map(|node| free.get(&node.id).copied()).collect(),
            taken: vec![0; nodes.len()],
        }
    }

    /// Whether a node has room for so many bytes more.
    pub fn fits(&self, node: usize, bytes: u64) -> bool {
        self.free[node].is_none_or(|free| self.needed(node, bytes) <= free)
    }

    /// Bytes that a node would have taken with these.
    pub fn needed(&self, node: usize, bytes: u64) -> u64 {
        self.taken[node].saturating_add(bytes)
    }

    /// Bytes that a node had room for.
    pub fn free(&self, node: usize) -> u64 {
        self.free[node].unwrap_or(u64::MAX)
    }

    /// Notes that a node takes so much.
    pub fn take(&mut self, node: usize, bytes: u64) {
        self.taken[node] = self.needed(node, bytes);
    }

    /// Notes that a node does not take so much after all.
    pub fn give_back(&mut self, node: usize, bytes: u64) {
        self.taken[node] = self.taken[node].saturating_sub(bytes);
    }
}
