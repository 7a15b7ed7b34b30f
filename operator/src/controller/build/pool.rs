//! The StatefulSet of a pool.

use super::{Blueprint, GRPC_PORT, HTTP_PORT, Object, ObjectKind, PEER_PORT, config, labels, selector};
use crate::crd::NodePool;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A user without rights, as the image has it.
const USER: u32 = 65_532;
/// Carries a person's wish for a restart on to the pods.
const RESTART: &str = "god-db.io/restart";
const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// Its pods start in parallel, and are restarted by nobody but us: `plan` knows whether the ring can bear it.
pub(super) fn set(blueprint: &Blueprint, pool: &NodePool, replicas: u32) -> Object {
    let name = blueprint.desired.set_name(&pool.name);
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": "data", "labels": labels(blueprint.name(), Some(&pool.name)) },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": pool.storage.size } },
            "volumeMode": "Filesystem",
        },
    });
    if let Some(class) = &pool.storage.class {
        claim["spec"]["storageClassName"] = json!(class);
    }
    let spec = json!({
        "replicas": replicas,
        "serviceName": blueprint.peers(),
        "podManagementPolicy": "Parallel",
        "updateStrategy": { "type": "OnDelete" },
        "revisionHistoryLimit": 5,
        "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": "Retain" },
        "selector": { "matchLabels": selector(blueprint.name(), Some(&pool.name)) },
        "template": template(blueprint, pool),
        "volumeClaimTemplates": [claim],
    });
    blueprint.object(ObjectKind::StatefulSet, &name, Some(&pool.name), json!({ "spec": spec }))
}

fn template(blueprint: &Blueprint, pool: &NodePool) -> Value {
    let spec = &blueprint.object.spec;
    let wish = &pool.pod;
    let mut pod = json!({
        "serviceAccountName": blueprint.name(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": wish.termination_grace_period_seconds.unwrap_or(60),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container(blueprint, pool)],
        "volumes": [
            { "name": "config", "configMap": { "name": blueprint.desired.set_name(&pool.name) } },
            { "name": "tmp", "emptyDir": {} },
        ],
    });
    let mut node_selector = wish.node_selector.clone();
    if let Some(zone) = pool.zone.as_ref().filter(|_| pool.place_by_zone) {
        node_selector.insert(ZONE.to_owned(), zone.clone());
    }
    if !node_selector.is_empty() {
        pod["nodeSelector"] = json!(node_selector);
    }
    if !wish.tolerations.is_empty() {
        pod["tolerations"] = json!(wish.tolerations);
    }
    if let Some(priority) = &wish.priority_class_name {
        pod["priorityClassName"] = json!(priority);
    }
    if !spec.image_pull_secrets.is_empty() {
        pod["imagePullSecrets"] = json!(spec.image_pull_secrets);
    }
    match &wish.affinity {
        Some(affinity) => pod["affinity"] = json!(affinity),
        None => {
            let spread = |key: &str| {
                json!({
                    "maxSkew": 1,
                    "topologyKey": key,
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": { "matchLabels": selector(blueprint.name(), None) },
                })
            };
            pod["topologySpreadConstraints"] = json!([spread(HOST), spread(ZONE)]);
        }
    }
    let mut annotations: BTreeMap<&str, &str> =
        wish.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let fingerprint = config::fingerprint(blueprint, pool);
    annotations.insert("god-db.io/config", &fingerprint);
    let asked = blueprint.object.metadata.annotations.as_ref();
    if let Some(restart) = asked.and_then(|annotations| annotations.get(RESTART)) {
        annotations.insert(RESTART, restart);
    }
    let mut all: Map<String, Value> =
        wish.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    if let Value::Object(own) = labels(blueprint.name(), Some(&pool.name)) {
        all.extend(own);
    }
    json!({ "metadata": { "labels": all, "annotations": annotations }, "spec": pod })
}

fn container(blueprint: &Blueprint, pool: &NodePool) -> Value {
    let spec = &blueprint.object.spec;
    let host = format!("$(POD_NAME).{}.{}.svc", blueprint.peers(), blueprint.namespace());
    let variable = |name: &str, value: String| json!({ "name": name, "value": value });
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": "http" },
            "periodSeconds": period,
            "timeoutSeconds": 3,
            "failureThreshold": failures,
        })
    };
    let mut container = json!({
        "name": "god-node",
        "image": spec.image.as_deref().unwrap_or(blueprint.image),
        "command": ["god-node"],
        "args": ["--config", format!("/etc/god/{}", config::FILE)],
        "env": [
            { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            variable("GOD_ADVERTISE_GRPC", format!("{host}:{GRPC_PORT}")),
            variable("GOD_ADVERTISE_PEER", format!("{host}:{PEER_PORT}")),
            variable("GOD_ADVERTISE_HTTP", format!("{host}:{HTTP_PORT}")),
        ],
        "ports": [
            { "name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP" },
            { "name": "peer", "containerPort": PEER_PORT, "protocol": "TCP" },
            { "name": "http", "containerPort": HTTP_PORT, "protocol": "TCP" },
        ],
        // A large index is counted before doors open: ten minutes.
        "startupProbe": probe("/healthz", 2, 300),
        "livenessProbe": probe("/healthz", 10, 6),
        "readinessProbe": probe("/readyz", 3, 2),
        // Clients and services look elsewhere before the doors close.
        "lifecycle": { "preStop": { "sleep": { "seconds": 3 } } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            { "name": "data", "mountPath": "/data" },
            { "name": "config", "mountPath": "/etc/god", "readOnly": true },
            { "name": "tmp", "mountPath": "/tmp" },
        ],
    });
    if let Some(policy) = &spec.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if let Some(resources) = &pool.resources {
        container["resources"] = json!(resources);
    }
    container
}
