//! The newest ring this node has heard of; the rules by which rings change are [`god_rules::ring`].

pub use god_rules::ring::*;

use arc_swap::ArcSwapOption;
use god_proto::{
    ids::{Epoch, NodeId},
    ring::Ring,
};
use std::sync::Arc;
use tokio::sync::watch;

/// Holds the newest decided ring; it only ever moves to higher epochs (invariant EPOCH-FORWARD).
/// Clones share the same ring.
#[derive(Clone)]
pub struct CurrentRing {
    ring: Arc<ArcSwapOption<Ring>>,
    changes: watch::Sender<Epoch>,
}

impl Default for CurrentRing {
    fn default() -> Self {
        CurrentRing { ring: Arc::default(), changes: watch::Sender::new(Epoch(0)) }
    }
}

impl CurrentRing {
    /// The ring, if the node is in a cluster. Cost: an atomic load.
    pub fn get(&self) -> Option<Arc<Ring>> {
        self.ring.load_full()
    }

    /// Its epoch; 0 without one.
    pub fn epoch(&self) -> Epoch {
        self.ring.load().as_ref().map_or(Epoch(0), |ring| ring.epoch())
    }

    /// The address of a node's peer door, if the ring has the node.
    pub fn peer_address(&self, node: NodeId) -> Option<String> {
        let ring = self.ring.load();
        Some(ring.as_ref()?.node(node)?.peer_address.clone())
    }

    /// Takes a decided ring if it is newer; says whether it was.
    pub fn advance(&self, ring: Arc<Ring>) -> bool {
        let mut newer = false;
        // The watch's lock puts concurrent calls in order; readers do not take it.
        self.changes.send_if_modified(|epoch| {
            newer = ring.epoch() > *epoch;
            if newer {
                *epoch = ring.epoch();
                self.ring.store(Some(Arc::clone(&ring)));
            }
            newer
        });
        newer
    }

    /// Wakes at each change; holds the newest epoch.
    pub fn changes(&self) -> watch::Receiver<Epoch> {
        self.changes.subscribe()
    }
}
