//! Names under which pods are found.

use super::{Blueprint, GRPC_PORT, HTTP_PORT, Object, ObjectKind, PEER_PORT, SERVICE_LABEL, selector};
use serde_json::{Value, json};

/// The service that has every pod.
pub(super) const PEERS: &str = "peers";

fn port(name: &str, port: u16) -> Value {
    json!({ "name": name, "port": port, "targetPort": name, "protocol": "TCP" })
}

/// A stable name for each pod, ready or not: nodes must find each other before they are ready.
pub(super) fn peers(blueprint: &Blueprint) -> Object {
    let spec = json!({
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": selector(blueprint.name(), None),
        "ports": [port("grpc", GRPC_PORT), port("peer", PEER_PORT), port("http", HTTP_PORT)],
    });
    let mut object = blueprint.object(ObjectKind::Service, &blueprint.peers(), None, json!({ "spec": spec }));
    object.body["metadata"]["labels"][SERVICE_LABEL] = json!(PEERS);
    object
}

/// One name for clients; any ready node takes any request.
pub(super) fn clients(blueprint: &Blueprint) -> Object {
    let wish = &blueprint.object.spec.service;
    let spec = json!({
        "type": format!("{:?}", wish.kind),
        "selector": selector(blueprint.name(), None),
        "ports": [port("grpc", GRPC_PORT), port("http", HTTP_PORT)],
    });
    let mut object = blueprint.object(ObjectKind::Service, blueprint.name(), None, json!({ "spec": spec }));
    if !wish.annotations.is_empty() {
        object.body["metadata"]["annotations"] = json!(wish.annotations);
    }
    object
}
