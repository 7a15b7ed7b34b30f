//! What may be done: each step is one write, to the API server or to the ring, and says what it is based on.

use crate::controller::world::{KeyspaceWish, Place, ring::Wish};
use uuid::Uuid;

/// One write. It carries what must still be so when it is made: UIDs, and versions of objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The status remembers which cluster the volumes belong to.
    RecordCluster(Uuid),
    /// The status remembers who is to found the cluster: before it is told to.
    RecordFounder {
        /// The node.
        node: Uuid,
        /// UID of its volume.
        volume: String,
    },
    /// The status remembers that a node's volume is lost: before anything is made of it.
    RecordReplaced {
        /// The node.
        node: Uuid,
        /// When, in seconds since 1970.
        at: i64,
    },
    /// A volume bears the name of the node whose data are on it.
    Mark {
        /// Which volume.
        volume: VolumeRef,
        /// The node.
        node: Uuid,
        /// The cluster, once the node said that it is a member.
        cluster: Option<Uuid>,
    },
    /// A pool gets its set. It must not be there.
    CreateSet {
        /// The pool.
        pool: String,
        /// Pods.
        replicas: u32,
    },
    /// A set keeps another number of pods.
    Scale {
        /// The pool.
        pool: String,
        /// Version of the set.
        version: String,
        /// Pods until now.
        from: u32,
        /// Pods from now on.
        to: u32,
    },
    /// A set goes and leaves its pods where they are, to be made again with larger volumes.
    OrphanSet {
        /// The pool.
        pool: String,
        /// UID of the set.
        uid: String,
    },
    /// The set of a pool that is not in the spec and has no pods.
    DeleteSet {
        /// The pool.
        pool: String,
        /// UID of the set.
        uid: String,
        /// Version of the set.
        version: String,
    },
    /// A node is told to found the cluster.
    Init {
        /// The node.
        node: Uuid,
    },
    /// The ring is asked for an operation. The same id twice is once.
    Begin {
        /// Its id.
        id: String,
        /// What it does.
        wish: Wish,
    },
    /// An operation is undone.
    Cancel {
        /// Its id.
        id: String,
    },
    /// The ring gets a keyspace.
    CreateKeyspace(KeyspaceWish),
    /// A pod is deleted, to be made again.
    Restart {
        /// Which.
        place: Place,
        /// UID of the pod.
        uid: String,
        /// Why.
        why: String,
    },
    /// A volume gets larger.
    Expand {
        /// Which volume.
        volume: VolumeRef,
        /// To so many bytes.
        bytes: u64,
    },
    /// A volume that nobody needs is kept for a while.
    Quarantine {
        /// Which volume.
        volume: VolumeRef,
        /// Until then, in seconds since 1970.
        until: i64,
    },
    /// A volume is needed after all.
    Unquarantine {
        /// Which volume.
        volume: VolumeRef,
    },
    /// A volume is deleted.
    DeleteVolume {
        /// Which volume.
        volume: VolumeRef,
        /// The node whose data are on it.
        node: Option<Uuid>,
    },
}

/// A volume claim, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VolumeRef {
    /// Whose pod it belongs to.
    pub place: Place,
    /// Its UID.
    pub uid: String,
    /// Its version.
    pub version: String,
}

impl VolumeRef {
    /// A reference to a volume as it was seen.
    pub fn to(volume: &crate::controller::world::Volume) -> VolumeRef {
        VolumeRef { place: volume.place.clone(), uid: volume.uid.clone(), version: volume.version.clone() }
    }
}

impl Step {
    /// A word for events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Step::RecordCluster(_) => "ClusterNamed",
            Step::RecordFounder { .. } => "FounderChosen",
            Step::RecordReplaced { .. } => "VolumeLost",
            Step::Mark { .. } => "VolumeRecognised",
            Step::CreateSet { .. } => "PoolCreated",
            Step::Scale { .. } => "PoolScaled",
            Step::OrphanSet { .. } => "PoolRecreated",
            Step::DeleteSet { .. } => "PoolDeleted",
            Step::Init { .. } => "ClusterFounded",
            Step::Begin { .. } => "OperationBegun",
            Step::Cancel { .. } => "OperationCancelled",
            Step::CreateKeyspace(_) => "KeyspaceCreated",
            Step::Restart { .. } => "NodeRestarted",
            Step::Expand { .. } => "VolumeExpanded",
            Step::Quarantine { .. } => "VolumeQuarantined",
            Step::Unquarantine { .. } => "VolumeTakenBack",
            Step::DeleteVolume { .. } => "VolumeDeleted",
        }
    }

    /// A sentence for events.
    pub fn describe(&self) -> String {
        let at = |place: &Place| format!("{}-{}", place.pool, place.ordinal);
        match self {
            Step::RecordCluster(cluster) => format!("the volumes belong to cluster {cluster}"),
            Step::RecordFounder { node, .. } => format!("node {node} is to found the cluster"),
            Step::RecordReplaced { node, .. } => format!("the volume of node {node} is gone"),
            Step::Mark { volume, node, .. } => {
                format!("the volume of {} holds node {node}", at(&volume.place))
            }
            Step::CreateSet { pool, replicas } => format!("pool {pool} starts with {replicas} pods"),
            Step::Scale { pool, from, to, .. } => format!("pool {pool} goes from {from} to {to} pods"),
            Step::OrphanSet { pool, .. } => {
                format!("pool {pool}'s StatefulSet is made again for larger volumes; its pods stay")
            }
            Step::DeleteSet { pool, .. } => {
                format!("pool {pool} has no pods and is not in the spec: its set goes")
            }
            Step::Init { node } => format!("node {node} founds the cluster"),
            Step::Begin { id, wish } => format!("{} (operation {id})", wish.describe()),
            Step::Cancel { id } => format!("operation {id} is undone"),
            Step::CreateKeyspace(wish) => format!("keyspace {} is made", wish.name),
            Step::Restart { place, why, .. } => format!("{} is restarted: {why}", at(place)),
            Step::Expand { volume, bytes } => {
                format!("the volume of {} grows to {}", at(&volume.place), crate::crd::bytes(*bytes))
            }
            Step::Quarantine { volume, .. } => {
                format!("the volume of {} is not needed any more, and kept for a while", at(&volume.place))
            }
            Step::Unquarantine { volume } => format!("the volume of {} is used again", at(&volume.place)),
            Step::DeleteVolume { volume, node } => match node {
                Some(node) => {
                    format!("the volume of {}, of node {node} that left, is deleted", at(&volume.place))
                }
                None => format!("the volume of {}, on which no node ever was, is deleted", at(&volume.place)),
            },
        }
    }
}
