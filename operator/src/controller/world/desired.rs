//! The spec, worked out.

use super::ring::Copies;
use crate::crd::{GodCluster, Partitioner, bytes_of, milliseconds, seconds};
use god_proto::{keyspace::default_quorums, time::MAX_TTL_MS};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Names a node by UUID, to be replaced by a new one on a new volume. Several are parted by commas.
pub const REPLACE: &str = "god-db.io/replace";
/// Names a volume claim, or `all`: its quarantine ends now.
pub const RELEASE: &str = "god-db.io/release";

/// What a cluster should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The cluster to found, or to take over where the spec names one.
    pub cluster: Uuid,
    /// The cluster that the spec names.
    pub named: Option<Uuid>,
    /// Pools, in the order of the spec.
    pub pools: Vec<PoolWish>,
    /// Keyspaces; the first is `default`.
    pub keyspaces: Vec<KeyspaceWish>,
    /// Arcs that a node of weight 1 leads.
    pub virtual_nodes: u32,
    /// Nothing is to be changed.
    pub paused: bool,
    /// No pods are to run.
    pub hibernate: bool,
    /// Restarts may cost a quorum.
    pub allow_downtime: bool,
    /// Lost volumes are made up for without being asked.
    pub replace_automatically: bool,
    /// So many of them within the window.
    pub replace_max: u32,
    /// In seconds.
    pub replace_window: i64,
    /// How long unused volumes are kept, in seconds.
    pub quarantine: i64,
    /// Nodes to be replaced, as somebody asked.
    pub replace: BTreeSet<Uuid>,
    /// Volumes whose quarantine is to end; `all` is among them where all are meant.
    pub release: BTreeSet<String>,
    /// The version that nodes should come to.
    pub version: Option<String>,
    /// How pods and volumes are named: `NAME-POOL-ORDINAL`.
    pub name: String,
}

/// What a pool should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolWish {
    /// Its name.
    pub name: String,
    /// How many nodes.
    pub nodes: u32,
    /// Their weight, in thousandths.
    pub weight: u32,
    /// Their zone.
    pub zone: String,
    /// Bytes of each volume.
    pub volume_bytes: u64,
}

/// What a keyspace should be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyspaceWish {
    /// Its name.
    pub name: String,
    /// Its keys are in the order of their bytes.
    pub ordered: bool,
    /// N, W and R.
    pub copies: Copies,
    /// How long entries live that say nothing else; 0: for ever.
    pub ttl_ms: u64,
}

impl Desired {
    /// Of an object that breaks no rule (`crd::validate`).
    pub fn of(object: &GodCluster) -> Desired {
        let spec = &object.spec;
        let annotations = object.metadata.annotations.clone().unwrap_or_default();
        let listed = |name: &str| -> BTreeSet<String> {
            let text = annotations.get(name).map(String::as_str).unwrap_or_default();
            text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
        };
        let own_id = object.metadata.uid.as_deref().unwrap_or_default();
        let cluster = spec.cluster_id.as_deref().unwrap_or(own_id).parse().unwrap_or_default();
        let shares = shares(object);
        let default = &spec.consistency;
        // Reads see every acknowledged write unless somebody says otherwise.
        let of = |replicas: u32, write: Option<u32>, read: Option<u32>| {
            let (write_quorum, read_quorum) =
                default_quorums(replicas, write.unwrap_or_default(), read.unwrap_or_default());
            Copies { replicas, write_quorum, read_quorum }
        };
        let copies = of(default.replicas, default.write_quorum, default.read_quorum);
        let mut keyspaces = vec![KeyspaceWish {
            name: god_proto::DEFAULT_KEYSPACE.to_owned(),
            ordered: false,
            copies,
            ttl_ms: 0,
        }];
        keyspaces.extend(spec.keyspaces.iter().map(|keyspace| {
            let copies = keyspace
                .replicas
                .map_or(copies, |replicas| of(replicas, keyspace.write_quorum, keyspace.read_quorum));
            KeyspaceWish {
                name: keyspace.name.clone(),
                ordered: keyspace.partitioner == Partitioner::Ordered,
                copies,
                ttl_ms: keyspace
                    .default_ttl
                    .as_deref()
                    .map_or(0, |text| milliseconds(text).unwrap_or(MAX_TTL_MS)),
            }
        }));
        let pools = spec.node_pools.iter().map(|pool| PoolWish {
            name: pool.name.clone(),
            nodes: shares.get(&pool.name).copied().unwrap_or(0),
            weight: (pool.weight * 1_000.0).round() as u32,
            zone: pool.zone.clone().unwrap_or_default(),
            volume_bytes: bytes_of(&pool.storage.size).unwrap_or(0),
        });
        let whole = |text: &str| i64::try_from(longest(text)).unwrap_or(i64::MAX);
        Desired {
            cluster,
            named: spec.cluster_id.as_deref().and_then(|text| text.parse().ok()),
            pools: pools.collect(),
            keyspaces,
            virtual_nodes: spec.virtual_nodes,
            paused: spec.paused,
            hibernate: spec.hibernate,
            allow_downtime: spec.disruption.allow_downtime,
            replace_automatically: spec.replacement.automatic,
            replace_max: spec.replacement.max,
            replace_window: whole(&spec.replacement.window),
            quarantine: whole(&spec.volumes.quarantine),
            replace: listed(REPLACE).iter().filter_map(|text| text.parse().ok()).collect(),
            release: listed(RELEASE),
            version: spec.version.clone(),
            name: object.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// A pool by name.
    pub fn pool(&self, name: &str) -> Option<&PoolWish> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// All nodes.
    pub fn nodes(&self) -> u32 {
        self.pools.iter().map(|pool| pool.nodes).sum()
    }

    /// The name of a pool's set.
    pub fn set_name(&self, pool: &str) -> String {
        format!("{}-{pool}", self.name)
    }

    /// The name of a place's pod.
    pub fn pod_name(&self, place: &super::Place) -> String {
        format!("{}-{}-{}", self.name, place.pool, place.ordinal)
    }

    /// The name of a place's volume claim.
    pub fn volume_name(&self, place: &super::Place) -> String {
        format!("data-{}", self.pod_name(place))
    }
}

/// Seconds; what is longer than can be counted is the longest, and never none.
fn longest(text: &str) -> u64 {
    seconds(text).unwrap_or(u64::MAX)
}

/// Nodes of each pool: its own number, or its part of the shared one, the first ones getting what is left over.
fn shares(object: &GodCluster) -> BTreeMap<String, u32> {
    let pools = &object.spec.node_pools;
    let sharing = pools.iter().filter(|pool| pool.replicas.is_none()).count().max(1) as u32;
    let all = object.spec.replicas.unwrap_or(0);
    let mut at = 0;
    pools
        .iter()
        .map(|pool| {
            let nodes = pool.replicas.unwrap_or_else(|| {
                at += 1;
                all / sharing + u32::from(at <= all % sharing)
            });
            (pool.name.clone(), nodes)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::NodePool;

    #[test]
    fn what_is_longer_than_can_be_counted_is_the_longest_and_not_none() {
        for text in ["99999999999999d", "999999999999999d"] {
            let mut object = GodCluster::default();
            object.spec.keyspaces =
                vec![crate::crd::Keyspace { default_ttl: Some(text.to_owned()), ..Default::default() }];
            assert_eq!(Desired::of(&object).keyspaces[1].ttl_ms, MAX_TTL_MS);
        }
        let mut object = GodCluster::default();
        object.spec.volumes.quarantine = "200000000000000d".to_owned();
        assert_eq!(Desired::of(&object).quarantine, i64::MAX, "volumes are not deleted at once");
    }

    #[test]
    fn pools_without_a_number_share_what_there_is() {
        let mut object = GodCluster::default();
        let pool = |name: &str, replicas| NodePool { name: name.to_owned(), replicas, ..NodePool::default() };
        object.spec.node_pools = vec![pool("a", None), pool("b", Some(4)), pool("c", None), pool("d", None)];
        object.spec.replicas = Some(5);
        let nodes: Vec<u32> = Desired::of(&object).pools.iter().map(|pool| pool.nodes).collect();
        assert_eq!(nodes, [2, 4, 2, 1]);
    }
}
