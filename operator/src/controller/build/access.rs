//! Who pods are, who reaches them, who may take them away.

use super::{Blueprint, GRPC_PORT, HTTP_PORT, MANAGER, Object, ObjectKind, PEER_PORT, selector};
use serde_json::json;

/// Pods ask nothing of Kubernetes.
pub(super) fn account(blueprint: &Blueprint) -> Object {
    let rest = json!({ "automountServiceAccountToken": false });
    blueprint.object(ObjectKind::ServiceAccount, blueprint.name(), None, rest)
}

/// Drains take as many as can be spared. A pod that is not ready can always be drained: it holds nothing up.
pub(super) fn budget(blueprint: &Blueprint) -> Object {
    let spec = json!({
        "maxUnavailable": blueprint.spare,
        "selector": { "matchLabels": selector(blueprint.name(), None) },
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    blueprint.object(ObjectKind::PodDisruptionBudget, blueprint.name(), None, json!({ "spec": spec }))
}

/// Nodes and the operator reach all doors; clients reach theirs.
pub(super) fn policy(blueprint: &Blueprint) -> Option<Object> {
    let wish = &blueprint.object.spec.network;
    if !wish.policy {
        return None;
    }
    let ports = |ports: &[u16]| {
        json!(ports.iter().map(|port| json!({ "port": port, "protocol": "TCP" })).collect::<Vec<_>>())
    };
    let mut clients = json!({ "ports": ports(&[GRPC_PORT, HTTP_PORT]) });
    if !wish.clients.is_empty() {
        clients["from"] = json!(wish.clients);
    }
    let spec = json!({
        "podSelector": { "matchLabels": selector(blueprint.name(), None) },
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [
                    { "podSelector": { "matchLabels": selector(blueprint.name(), None) } },
                    {
                        "namespaceSelector": {},
                        "podSelector": { "matchLabels": { "app.kubernetes.io/name": MANAGER } },
                    },
                ],
                "ports": ports(&[GRPC_PORT, PEER_PORT, HTTP_PORT]),
            },
            clients,
        ],
    });
    Some(blueprint.object(ObjectKind::NetworkPolicy, blueprint.name(), None, json!({ "spec": spec })))
}
