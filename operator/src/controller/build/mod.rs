//! The objects of a cluster: a pure function from what it should be. Knows no client.
//!
//! One small file an object. Objects are JSON as the API server takes it; a test holds each against the API's types.

mod access;
mod config;
mod difference;
mod monitor;
mod names;
mod pool;
mod service;
mod stamp;

#[cfg(test)]
mod tests;

pub use difference::differs;
pub use names::{CLUSTER_LABEL, MANAGER, POOL_LABEL, SERVICE_LABEL, labels, selector};

pub use god_proto::address::{GRPC_PORT, HTTP_PORT, PEER_PORT};

use super::world::{Desired, ring::Ring};
use crate::crd::GodCluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What objects are made of.
pub struct Blueprint<'a> {
    /// What the user wrote.
    pub object: &'a GodCluster,
    /// The same, worked out.
    pub desired: &'a Desired,
    /// The cluster that pods join, and no other.
    pub cluster: Uuid,
    /// The image where the spec names none.
    pub image: &'a str,
    /// Pods of each pool that has a set.
    pub replicas: &'a BTreeMap<String, u32>,
    /// Pods that may be away at a time.
    pub spare: u32,
    /// The Prometheus operator's types are there.
    pub monitored: bool,
}

/// An object's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// Pods' identity, without rights.
    ServiceAccount,
    /// Settings of a pool.
    ConfigMap,
    /// A name for many pods.
    Service,
    /// Pods of a pool.
    StatefulSet,
    /// How many pods drains may take.
    PodDisruptionBudget,
    /// Who may reach pods.
    NetworkPolicy,
    /// What Prometheus scrapes.
    ServiceMonitor,
    /// What Prometheus alerts about.
    PrometheusRule,
}

impl ObjectKind {
    /// Group and version, and plural.
    pub fn api(self) -> (&'static str, &'static str) {
        match self {
            ObjectKind::ServiceAccount => ("v1", "serviceaccounts"),
            ObjectKind::ConfigMap => ("v1", "configmaps"),
            ObjectKind::Service => ("v1", "services"),
            ObjectKind::StatefulSet => ("apps/v1", "statefulsets"),
            ObjectKind::PodDisruptionBudget => ("policy/v1", "poddisruptionbudgets"),
            ObjectKind::NetworkPolicy => ("networking.k8s.io/v1", "networkpolicies"),
            ObjectKind::ServiceMonitor => ("monitoring.coreos.com/v1", "servicemonitors"),
            ObjectKind::PrometheusRule => ("monitoring.coreos.com/v1", "prometheusrules"),
        }
    }
}

/// An object as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its type.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
    /// All of it.
    pub body: Value,
}

impl Blueprint<'_> {
    fn name(&self) -> &str {
        &self.desired.name
    }

    fn namespace(&self) -> &str {
        self.object.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn peers(&self) -> String {
        format!("{}-peers", self.name())
    }

    /// An object of this cluster: named, labelled, and gone with it.
    fn object(&self, kind: ObjectKind, name: &str, pool: Option<&str>, rest: Value) -> Object {
        let (api_version, _) = kind.api();
        let mut body = json!({
            "apiVersion": api_version,
            "kind": format!("{kind:?}"),
            "metadata": {
                "name": name,
                "namespace": self.namespace(),
                "labels": labels(self.name(), pool),
                "ownerReferences": [{
                    "apiVersion": "god-db.io/v1alpha1",
                    "kind": "GodCluster",
                    "name": self.name(),
                    "uid": self.object.metadata.uid.clone().unwrap_or_default(),
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
        });
        if let (Some(body), Value::Object(rest)) = (body.as_object_mut(), rest) {
            body.extend(rest);
        }
        Object { kind, name: name.to_owned(), body }
    }
}

/// All objects of a cluster, in the order in which they are needed. Sets are only among them for pools in `replicas`:
/// `plan` says when a pool gets one.
pub fn build(blueprint: &Blueprint) -> Vec<Object> {
    let mut objects = vec![
        access::account(blueprint),
        service::peers(blueprint),
        service::clients(blueprint),
        access::budget(blueprint),
    ];
    objects.extend(access::policy(blueprint));
    for pool in &blueprint.object.spec.node_pools {
        objects.push(config::settings(blueprint, pool));
        if let Some(replicas) = blueprint.replicas.get(&pool.name) {
            objects.push(pool::set(blueprint, pool, *replicas));
        }
    }
    if blueprint.monitored && blueprint.object.spec.monitoring.enabled {
        objects.push(monitor::scrapes(blueprint));
        objects.push(monitor::alerts(blueprint));
    }
    objects.into_iter().map(stamp::stamped).collect()
}

/// The set of one pool.
pub fn build_set(blueprint: &Blueprint, pool: &str, replicas: u32) -> Option<Object> {
    let wish = blueprint.object.spec.node_pools.iter().find(|wish| wish.name == pool)?;
    Some(stamp::stamped(pool::set(blueprint, wish, replicas)))
}

/// Pods that may be away at a time: as many as every keyspace's copies can spare, and none while copies are missing.
/// `present` is what was said before: it stays while nobody knows better.
pub fn spare(ring: Option<&Ring>, object: &GodCluster, present: Option<u32>) -> u32 {
    let most = object.spec.disruption.max_unavailable;
    if object.spec.disruption.allow_downtime {
        return most.max(1);
    }
    let Some(ring) = ring else { return present.unwrap_or(0).min(most) };
    let copies_missing = ring
        .members
        .values()
        .any(|member| member.report.as_ref().is_some_and(|report| report.suspect_arcs > 0))
        || ring.operations.iter().any(|operation| operation.wish.is_for_lost());
    if copies_missing {
        return 0;
    }
    let spare = |arc: &super::world::ring::RingArc| {
        let needed = ring.keyspace(arc.keyspace).map_or(u32::MAX, |keyspace| keyspace.copies.needed());
        let held =
            arc.next.as_ref().map_or(arc.replicas.len(), |next| next.len().min(arc.replicas.len())) as u32;
        held.saturating_sub(needed)
    };
    ring.arcs.iter().map(spare).min().unwrap_or(0).min(most)
}
