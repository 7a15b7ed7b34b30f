//! What a user asks for.

use super::{GodClusterStatus, NodePool, rules};
use god_proto::ring::{MAX_REPLICAS, MAX_VIRTUAL_NODES};
use k8s_openapi::api::{core::v1::LocalObjectReference, networking::v1::NetworkPolicyPeer};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A cluster of GoD: an ordered, replicated key-value store that runs itself.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "god-db.io",
    version = "v1alpha1",
    kind = "GodCluster",
    plural = "godclusters",
    shortname = "god",
    category = "all",
    namespaced,
    status = "GodClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A cluster of GoD: an ordered, replicated key-value store that runs itself.",
    validation = Rule::new(rules::NAME).message(rules::NAME_SAYS),
    validation = Rule::new(rules::CLUSTER_KNOWN).message(rules::CLUSTER_KNOWN_SAYS),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Available')].status"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodesReady"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "Operation", type_ = "string", json_path = ".status.operation.id"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.operation.progress"),
    printcolumn(name = "Blocked", type_ = "string", json_path = ".status.blocked.reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::SHARED).message(rules::SHARED_SAYS),
    validation = Rule::new(rules::ENOUGH_NODES).message(rules::ENOUGH_NODES_SAYS),
    validation = Rule::new(rules::ENOUGH_FOR_KEYSPACES).message(rules::ENOUGH_FOR_KEYSPACES_SAYS),
    validation = Rule::new(rules::NO_TLS).message(rules::NO_TLS_SAYS),
    validation = Rule::new(rules::GOSSIP).message(rules::GOSSIP_SAYS),
    validation = Rule::new(rules::MEMORY).message(rules::MEMORY_SAYS),
    validation = Rule::new(rules::RATE).message(rules::RATE_SAYS),
    validation = Rule::new(rules::TOMBSTONES).message(rules::TOMBSTONES_SAYS),
    validation = Rule::new(rules::MORE).message(rules::MORE_SAYS),
    validation = Rule::new(rules::OWN_KEYSPACE).message(rules::OWN_KEYSPACE_SAYS),
    validation = Rule::new(rules::POOLS_STAY).message(rules::POOLS_STAY_SAYS),
    validation = Rule::new(rules::KEYSPACES_STAY).message(rules::KEYSPACES_STAY_SAYS),
    validation = Rule::new(rules::CLUSTER_STAYS).message(rules::CLUSTER_STAYS_SAYS)
)]
pub struct GodClusterSpec {
    /// The container image of nodes. Left out: the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When the image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(Always|IfNotPresent|Never)$"), length(max = 16))]
    pub image_pull_policy: Option<String>,
    /// Secrets with which it is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// The version that nodes should run, such as 0.2.0: given, it guards against steps that skip one. Nodes tell
    /// their version themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]+\\.[0-9]+\\.[0-9]+$"), length(max = 32))]
    pub version: Option<String>,
    /// Nodes to be divided evenly among the pools that have no replicas of their own. `kubectl scale` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 500))]
    pub replicas: Option<u32>,
    /// Pools of nodes.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub node_pools: Vec<NodePool>,
    /// Arcs that a node of weight 1 leads in each keyspace. Fixed at the founding.
    #[serde(default = "virtual_nodes")]
    #[schemars(range(min = 1, max = MAX_VIRTUAL_NODES))]
    #[x_kube(validation = Rule::new(rules::FIXED).message(rules::VIRTUAL_NODES_SAYS))]
    pub virtual_nodes: u32,
    /// Of the keyspace `default`, and of keyspaces that say nothing else.
    #[serde(default)]
    pub consistency: Consistency,
    /// Keyspaces beside `default`. They are made, and their copies changed; never removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub keyspaces: Vec<Keyspace>,
    /// How news travels among nodes.
    #[serde(default)]
    pub gossip: Gossip,
    /// Settings of all nodes.
    #[serde(default)]
    pub settings: NodeSettings,
    /// Encryption. Not there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Nothing is changed while this is set; the status is kept.
    #[serde(default)]
    pub paused: bool,
    /// No pods run while this is set; volumes stay.
    #[serde(default)]
    pub hibernate: bool,
    /// How much may be away for the sake of maintenance.
    #[serde(default)]
    pub disruption: Disruption,
    /// What happens when a node's volume is lost.
    #[serde(default)]
    pub replacement: Replacement,
    /// What becomes of volumes that are not used any more.
    #[serde(default)]
    pub volumes: Volumes,
    /// How clients reach the cluster.
    #[serde(default)]
    pub service: Service,
    /// Who may reach the nodes.
    #[serde(default)]
    pub network: Network,
    /// Objects for the Prometheus operator, where that is there.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// Take over the volumes of this cluster. Left out: they are recognised by their labels, or a cluster is founded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
        length(max = 36)
    )]
    pub cluster_id: Option<String>,
}

/// Copies, and how many of them answer.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::QUORUMS).message(rules::QUORUMS_SAYS))]
pub struct Consistency {
    /// Copies of each key.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub replicas: u32,
    /// Copies that acknowledge a write. Left out: more than half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub write_quorum: Option<u32>,
    /// Copies that answer a read. Left out: more than half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub read_quorum: Option<u32>,
}

impl Default for Consistency {
    fn default() -> Consistency {
        Consistency { replicas: three(), write_quorum: None, read_quorum: None }
    }
}

/// A keyspace that is to be there.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::KEYSPACE_QUORUMS).message(rules::KEYSPACE_QUORUMS_SAYS),
    validation = Rule::new(rules::TTL).message(rules::TTL_SAYS)
)]
pub struct Keyspace {
    /// Its name.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9][-A-Za-z0-9_.]*$"))]
    pub name: String,
    /// The order of its keys. Fixed when it is made.
    #[serde(default)]
    #[x_kube(validation = Rule::new(rules::FIXED).message(rules::PARTITIONER_SAYS))]
    pub partitioner: Partitioner,
    /// Copies of each key. Left out: as spec.consistency says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub replicas: Option<u32>,
    /// Copies that acknowledge a write. Left out: more than half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub write_quorum: Option<u32>,
    /// Copies that answer a read. Left out: more than half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_REPLICAS))]
    pub read_quorum: Option<u32>,
    /// How writes to a key are ordered.
    #[serde(default)]
    #[x_kube(validation = Rule::new(rules::LWW).message(rules::LWW_SAYS))]
    pub mode: Mode,
    /// How long entries live that say nothing else, such as 24h; 366000d at most. Left out: for ever. Used when the
    /// keyspace is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]+(ms|s|m|h|d)$"), length(max = 16))]
    pub default_ttl: Option<String>,
}

/// The order of a keyspace's keys.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Partitioner {
    /// By hash: load is even whatever the keys are.
    #[default]
    Hashed,
    /// By bytes: ranges can be scanned.
    Ordered,
}

/// How writes to a key are ordered.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// The last write wins.
    #[default]
    Lww,
    /// By consensus. Not there yet.
    Linearizable,
}

/// How news travels among nodes.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gossip {
    /// Off: nodes know each other from the ring alone.
    pub enabled: bool,
    /// Between two rounds, such as 200ms, from 10ms to 60s; shorter is faster news and more traffic.
    #[schemars(regex(pattern = "^[0-9]+(ms|s)$"), length(max = 16))]
    pub interval: String,
    /// Nodes told each round.
    #[schemars(range(min = 1, max = 100))]
    pub fanout: u32,
}

impl Default for Gossip {
    fn default() -> Gossip {
        Gossip { enabled: true, interval: "200ms".to_owned(), fanout: 3 }
    }
}

/// Settings of all nodes; see `god-node --help`. A change restarts nodes one by one.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSettings {
    /// When acknowledged writes are forced to the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Bytes a second that a node takes from others when data moves, such as 64MiB; 64KiB at least, or 0B for no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]+(B|KiB|MiB|GiB)$"), length(max = 16))]
    pub transfer_rate: Option<String>,
    /// How old deletions must be before they are forgotten, such as 1h, from 2s to 365d.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]+(s|m|h|d)$"), length(max = 16))]
    pub tombstone_age: Option<String>,
    /// What is logged, such as info.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub log: Option<String>,
    /// More settings by the names of god-node's flags, such as `hint-limit: 128MiB`; none that the operator gives, or
    /// that has a field. Where `request-memory` is left out it follows from the memory limit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, String>,
}

/// When acknowledged writes are forced to the disk.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Durability {
    /// When the operating system likes.
    None,
    /// In the background, every 100 ms.
    Interval,
    /// Before they are acknowledged.
    Always,
}

/// Encryption. Not there yet.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tls {
    /// Whether doors are encrypted. Not there yet.
    pub enabled: bool,
    /// A cert-manager issuer in the namespace. Left out: the operator's own authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub issuer: Option<String>,
}

/// How much may be away for the sake of maintenance.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Disruption {
    /// Pods that drains may take away at a time. Never more than every arc can spare.
    #[schemars(range(max = 15))]
    pub max_unavailable: u32,
    /// Restart nodes, and let them be drained, though some arcs are without a quorum meanwhile. A cluster whose quorums
    /// need all its copies can be upgraded in no other way.
    pub allow_downtime: bool,
}

impl Default for Disruption {
    fn default() -> Disruption {
        Disruption { max_unavailable: 1, allow_downtime: false }
    }
}

/// What happens when a node's volume is lost.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Replacement {
    /// Whether a node whose volume is gone is replaced without being asked.
    pub automatic: bool,
    /// How many within the window; beyond, somebody should look.
    #[schemars(range(max = 16))]
    pub max: u32,
    /// The window, such as 24h.
    #[schemars(regex(pattern = "^[0-9]+(s|m|h|d)$"), length(max = 16))]
    pub window: String,
}

impl Default for Replacement {
    fn default() -> Replacement {
        Replacement { automatic: true, max: 2, window: "24h".to_owned() }
    }
}

/// What becomes of volumes that are not used any more.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volumes {
    /// How long the volume of a node that left is kept, such as 1h.
    #[schemars(regex(pattern = "^[0-9]+(s|m|h|d)$"), length(max = 16))]
    pub quarantine: String,
    /// What becomes of volumes when the GodCluster is deleted.
    pub deletion_policy: DeletionPolicy,
}

impl Default for Volumes {
    fn default() -> Volumes {
        Volumes { quarantine: "1h".to_owned(), deletion_policy: DeletionPolicy::Retain }
    }
}

/// What becomes of volumes when the GodCluster is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeletionPolicy {
    /// They stay; a GodCluster of the same name takes them over.
    #[default]
    Retain,
    /// They are deleted.
    Delete,
}

/// How clients reach the cluster.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ServiceKind,
    /// Its annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The type of a service.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceKind {
    /// From within Kubernetes.
    #[default]
    ClusterIP,
    /// By a port of each Kubernetes node.
    NodePort,
    /// By a load balancer.
    LoadBalancer,
}

/// Who may reach the nodes.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Whether there is a NetworkPolicy: nodes and the operator reach all doors, clients theirs.
    pub policy: bool,
    /// Who may be a client. Empty: everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub clients: Vec<NetworkPolicyPeer>,
}

impl Default for Network {
    fn default() -> Network {
        Network { policy: true, clients: Vec::new() }
    }
}

/// Objects for the Prometheus operator.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// Whether there are a ServiceMonitor and alert rules.
    pub enabled: bool,
    /// More labels of them, by which Prometheus selects.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Default for Monitoring {
    fn default() -> Monitoring {
        Monitoring { enabled: true, labels: BTreeMap::new() }
    }
}

fn virtual_nodes() -> u32 {
    10
}

fn three() -> u32 {
    3
}
