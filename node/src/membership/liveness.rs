//! What this node believes about the others, in one table that every room may read.

use god_proto::ids::NodeId;
use parking_lot::RwLock;
use std::{collections::BTreeMap, time::Duration};

/// Whether a node seems to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerState {
    /// It answers, or nothing is known against it.
    #[default]
    Up,
    /// It did not answer lately.
    Suspect,
    /// It is taken to be gone until it says otherwise.
    Down,
}

/// What is known of one peer.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Whether it seems to be there.
    pub state: PeerState,
    /// Whether it said that it is ready, when it last answered.
    pub ready: bool,
    /// Smoothed time from request to answer.
    pub round_trip: Option<Duration>,
    /// Microseconds its clock is ahead of this node's, from the fastest of the latest exchanges.
    pub clock_ahead_us: Option<i64>,
}

/// The table. A belief, never an authority: only the ring says who holds what.
#[derive(Debug, Default)]
pub struct Liveness(RwLock<BTreeMap<NodeId, Peer>>);

impl Liveness {
    /// What is known of a node.
    pub fn peer(&self, node: NodeId) -> Peer {
        self.0.read().get(&node).cloned().unwrap_or_default()
    }

    /// Whether a node seems to be there.
    pub fn state(&self, node: NodeId) -> PeerState {
        self.0.read().get(&node).map_or(PeerState::Up, |peer| peer.state)
    }

    /// Changes what is known of a node.
    pub fn update(&self, node: NodeId, change: impl FnOnce(&mut Peer)) {
        change(self.0.write().entry(node).or_default());
    }

    /// All that is known.
    pub fn all(&self) -> Vec<(NodeId, Peer)> {
        self.0.read().iter().map(|(node, peer)| (*node, peer.clone())).collect()
    }
}
