//! What a user reads.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the cluster is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GodClusterStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// In a word.
    #[serde(default)]
    pub phase: Phase,
    /// Available: a quorum of every arc is up. Progressing: something is under way. Degraded: something is missing.
    /// Reconciled: everything is as the spec says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The cluster that the volumes belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The node that was told to found the cluster, written down before it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founder: Option<Founder>,
    /// Of the ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Pods there are. For `kubectl scale`.
    #[serde(default)]
    pub replicas: u32,
    /// Nodes that are up.
    #[serde(default)]
    pub ready_replicas: u32,
    /// The same, of those asked for, such as 3/3.
    #[serde(default)]
    pub nodes_ready: String,
    /// Selects the pods. For autoscalers.
    #[serde(default)]
    pub selector: String,
    /// Every member of the ring.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uuid".into()]))]
    pub nodes: Vec<NodeState>,
    /// What the ring is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationProgress>,
    /// Why it does not go on, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<BlockedStatus>,
    /// What is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// Volumes of nodes that left, kept for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<QuarantinedVolume>,
    /// Nodes that were replaced lately because their volumes were lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Replaced>,
}

/// A cluster in a word.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing is known yet.
    #[default]
    Pending,
    /// Pods start, the cluster is founded.
    Creating,
    /// As it should be.
    Ready,
    /// Nodes join.
    Growing,
    /// Nodes leave.
    Shrinking,
    /// Nodes restart with another image or configuration.
    Updating,
    /// Data moves.
    Moving,
    /// Something is missing, and is being waited for or made up for.
    Degraded,
    /// It does not go on without somebody.
    Blocked,
    /// The spec says so.
    Paused,
    /// No pods run.
    Hibernated,
    /// The spec breaks a rule.
    Invalid,
    /// It is being deleted.
    Deleting,
}

/// The node that founds the cluster.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Founder {
    /// UUID of the node.
    pub node: String,
    /// UID of its volume claim.
    pub volume: String,
}

/// A member of the ring.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// Drawn by the node when its volume was new.
    pub uuid: String,
    /// Its number in the ring, as `god status` shows it.
    pub number: u32,
    /// The pod that its volume belongs to; empty where its volume is gone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// up, unready, suspect, down or leaving.
    pub state: String,
    /// Its zone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Its weight.
    pub weight: f64,
    /// Arcs that it has a copy of.
    pub arcs: u32,
    /// Bytes that it stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Its version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// What the ring is doing.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationProgress {
    /// Its id.
    pub id: String,
    /// What it does, in words.
    pub what: String,
    /// waiting, moving, cleaning or cancelling.
    pub phase: String,
    /// Such as 45%.
    pub progress: String,
    /// Arcs that are where they should be.
    pub arcs_done: u32,
    /// Of so many.
    pub arcs_total: u32,
    /// Bytes copied, of the arcs that are changing hands.
    pub bytes_done: u64,
    /// Of so many.
    pub bytes_total: u64,
    /// How long the rest takes, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// Others behind it.
    pub queued: u32,
}

/// Why it does not go on, and what to do.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedStatus {
    /// In a word.
    pub reason: String,
    /// Why.
    pub message: String,
    /// What to do.
    pub action: String,
}

/// The volume of a node that left.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuarantinedVolume {
    /// The volume claim.
    pub volume: String,
    /// The node whose data are on it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// When it is deleted.
    pub until: String,
}

/// A node that was replaced because its volume was lost.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replaced {
    /// UUID of the node.
    pub node: String,
    /// When, in seconds since 1970.
    pub at: i64,
}
