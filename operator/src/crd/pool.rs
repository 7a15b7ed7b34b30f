//! A pool of nodes that are alike.

use super::rules;
use god_proto::ring::MAX_WEIGHT;
use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Nodes that are alike: one StatefulSet.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePool {
    /// Part of its pods' names. It cannot be changed: it would be another pool.
    #[schemars(length(min = 1, max = 20), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// How many nodes. Left out, the pool gets its part of spec.replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 500))]
    pub replicas: Option<u32>,
    /// How much of the data each node takes, beside nodes of weight 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0.01, max = MAX_WEIGHT))]
    pub weight: f64,
    /// What fails together with these nodes; copies are spread over zones. Pods go to Kubernetes nodes whose label
    /// topology.kubernetes.io/zone has this value, unless placeByZone is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub zone: Option<String>,
    /// Whether the zone also says on which Kubernetes nodes pods run.
    #[serde(default = "yes")]
    pub place_by_zone: bool,
    /// Each node's volume.
    pub storage: Storage,
    /// What each pod asks for and may use. A memory limit is 198MiB at least: nodes get a third of it as memory and a
    /// quarter as request-memory, where nothing else is said, or less where 150MiB would not be left beside both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Memory for a node's caches and buffers, such as 1GiB; 16MiB at least. Left out: by the memory limit, or 256MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]+(KiB|MiB|GiB)$"), length(max = 16))]
    pub memory: Option<String>,
    /// Where pods run, and what else they carry.
    #[serde(default, skip_serializing_if = "PodOverrides::is_default")]
    pub pod: PodOverrides,
}

/// A node's volume.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::CLASS_STAYS).message(rules::CLASS_STAYS_SAYS))]
pub struct Storage {
    /// How large. It may be raised where the storage class allows it.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(
        validation = Rule::new(rules::SIZE_GOOD).message(rules::SIZE_GOOD_SAYS),
        validation = Rule::new(rules::SIZE_GROWS).message(rules::SIZE_GROWS_SAYS)
    )]
    pub size: String,
    /// The storage class. Left out: the cluster's default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class: Option<String>,
}

/// Where a pool's pods run, and what else they carry.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodOverrides {
    /// Labels of the Kubernetes nodes that pods may run on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that pods tolerate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Replaces the spreading over hosts that pods have by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// What pods push aside when there is no room.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// More labels of pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// More annotations of pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// How long a pod may take to end, in seconds. Left out: 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 3_600))]
    pub termination_grace_period_seconds: Option<i64>,
}

impl PodOverrides {
    fn is_default(&self) -> bool {
        *self == PodOverrides::default()
    }
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}
