//! What was seen and what is wished for, as plain values: all that `plan` and `build` know of the world.
//!
//! - [`Observed`]: pods, volumes and sets of one cluster, what its status remembers, and its ring.
//! - [`ring`]: the ring, as far as its nodes told.
//! - [`Desired`]: the spec, worked out.
//!
//! A node is its UUID. Pods, ordinals and addresses are only where it was met (rule 1 of operators that own data).

mod desired;
mod evidence;
pub mod ring;

pub use desired::{Desired, KeyspaceWish, PoolWish};
pub use ring::{Ring, RingView};

use std::collections::BTreeMap;
use uuid::Uuid;

/// One cluster, as it was seen at one time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    /// Seconds since 1970.
    pub now: i64,
    /// What the status remembers.
    pub recorded: Recorded,
    /// StatefulSets, by pool; also of pools that are not in the spec any more.
    pub sets: BTreeMap<String, Set>,
    /// Pods of all sets, whatever their state.
    pub pods: Vec<Pod>,
    /// Volume claims of the cluster, used or not.
    pub volumes: Vec<Volume>,
    /// The ring.
    pub ring: RingView,
    /// What the ring refused up to this epoch is asked again: it was long ago, or the spec was changed since.
    pub excused: u64,
}

/// What the status remembers because it cannot be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recorded {
    /// The cluster that the volumes belong to.
    pub cluster: Option<Uuid>,
    /// Who was to found it: node, and UID of its volume.
    pub founder: Option<(Uuid, String)>,
    /// Nodes that were replaced because their volumes were lost, and when.
    pub replaced: Vec<(Uuid, i64)>,
    /// Since when no node has told of the ring.
    pub silent_since: Option<i64>,
}

/// A StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Set {
    /// Its UID.
    pub uid: String,
    /// What a change of it must be based on.
    pub version: String,
    /// Pods that it keeps.
    pub replicas: u32,
    /// The revision that pods should have; none while its controller has not seen the newest template.
    pub revision: Option<String>,
    /// Bytes of the volumes that it makes.
    pub volume_bytes: u64,
    /// It is being deleted.
    pub terminating: bool,
}

/// A place for a node: the pool and the number in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Name of the pool.
    pub pool: String,
    /// From 0.
    pub ordinal: u32,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Which one.
    pub place: Place,
    /// Its UID.
    pub uid: String,
    /// The revision of the template that it was made from.
    pub revision: String,
    /// Its readiness probe passes.
    pub ready: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// It has not been started on any machine.
    pub pending: bool,
    /// Why it does not start, as Kubernetes says.
    pub stuck: Option<String>,
    /// What its node says of itself.
    pub said: Said,
}

/// What a node says of itself when it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Said {
    /// It did not answer: nothing follows from that.
    #[default]
    Nothing,
    /// It is in no cluster.
    Fresh(Uuid),
    /// It is, or was, in this cluster.
    Member {
        /// The node.
        node: Uuid,
        /// The cluster.
        cluster: Uuid,
    },
}

impl Said {
    /// Who answers.
    pub fn node(self) -> Option<Uuid> {
        match self {
            Said::Nothing => None,
            Said::Fresh(node) | Said::Member { node, .. } => Some(node),
        }
    }
}

/// A volume claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Whose pod it belongs to.
    pub place: Place,
    /// Its UID.
    pub uid: String,
    /// What a change of it must be based on.
    pub version: String,
    /// Bytes asked for.
    pub bytes: u64,
    /// The node whose data are on it, as that node itself said while it ran on it. Written down on the volume.
    pub node: Option<Uuid>,
    /// The cluster that the node said it was a member of. Written down on the volume.
    pub cluster: Option<Uuid>,
    /// It is kept until then, and deleted afterwards. Written down on the volume.
    pub quarantined_until: Option<i64>,
    /// It is being deleted.
    pub terminating: bool,
}

impl Observed {
    /// The volume of a place.
    pub fn volume_at(&self, place: &Place) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.place == *place)
    }

    /// The pod of a place.
    pub fn pod_at(&self, place: &Place) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.place == *place)
    }

    /// The volume that holds a node's data.
    pub fn volume_of(&self, node: Uuid) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.node == Some(node))
    }

    /// Where a node is: where its volume is, or else where a pod says that it runs.
    pub fn place_of(&self, node: Uuid) -> Option<&Place> {
        let by_word = || self.pods.iter().find(|pod| pod.said.node() == Some(node)).map(|pod| &pod.place);
        self.volume_of(node).map(|volume| &volume.place).or_else(by_word)
    }

    /// The node of a place: whose data are on its volume, or else who answers there.
    pub fn node_at(&self, place: &Place) -> Option<Uuid> {
        let by_word = || self.pod_at(place)?.said.node();
        self.volume_at(place).and_then(|volume| volume.node).or_else(by_word)
    }

    /// The cluster, as far as anything says: the record, or else the only one that volumes are of.
    pub fn cluster(&self) -> Option<Uuid> {
        self.recorded.cluster.or_else(|| {
            let mut said = self.volumes.iter().filter_map(|volume| volume.cluster);
            let first = said.next()?;
            said.all(|other| other == first).then_some(first)
        })
    }
}
