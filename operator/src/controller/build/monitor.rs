//! Objects for the Prometheus operator.

use super::{Blueprint, Object, ObjectKind, SERVICE_LABEL, selector, service};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn labelled(blueprint: &Blueprint, mut object: Object) -> Object {
    for (name, value) in &blueprint.object.spec.monitoring.labels {
        object.body["metadata"]["labels"][name] = json!(value);
    }
    object
}

/// Every node is scraped, ready or not, and once: by the service that has them all.
pub(super) fn scrapes(blueprint: &Blueprint) -> Object {
    let mut chosen = selector(blueprint.name(), None);
    chosen[SERVICE_LABEL] = json!(service::PEERS);
    let spec = json!({
        "selector": { "matchLabels": chosen },
        "namespaceSelector": { "matchNames": [blueprint.namespace()] },
        "endpoints": [{ "port": "http", "path": "/metrics", "interval": "15s" }],
        "jobLabel": "app.kubernetes.io/instance",
    });
    labelled(
        blueprint,
        blueprint.object(ObjectKind::ServiceMonitor, blueprint.name(), None, json!({ "spec": spec })),
    )
}

/// What somebody should look at.
pub(super) fn alerts(blueprint: &Blueprint) -> Object {
    // Another cluster's name may begin with this one's, and a pool that is not in the spec any more may have pods yet.
    let pools: BTreeSet<&String> =
        blueprint.desired.pools.iter().map(|pool| &pool.name).chain(blueprint.replicas.keys()).collect();
    let pools: Vec<&str> = pools.into_iter().map(String::as_str).collect();
    let pods = format!("{}-({})-[0-9]+", blueprint.name(), pools.join("|"));
    let of = format!("namespace=\"{}\",pod=~\"{pods}\"", blueprint.namespace());
    let alert = |name: &str, expression: String, minutes: u32, severity: &str, says: &str| -> Value {
        json!({
            "alert": name,
            "expr": expression,
            "for": format!("{minutes}m"),
            "labels": { "severity": severity, "god_cluster": blueprint.name() },
            "annotations": { "summary": says },
        })
    };
    let rules = [
        alert(
            "GodNodeNotReady",
            format!("god_node_ready{{{of}}} == 0"),
            5,
            "warning",
            "a node is not ready: /readyz says why",
        ),
        alert(
            "GodClockOff",
            format!("abs(god_version_clock_ahead_seconds{{{of}}}) > 0.25"),
            5,
            "warning",
            "a node's clock is off; at half a second it is refused",
        ),
        alert(
            "GodHintsPending",
            format!("god_quorum_hints_pending{{{of}}} > 0"),
            30,
            "warning",
            "writes wait for a node that has been away for long: see status.nodes",
        ),
        alert(
            "GodDiskNearlyFull",
            format!("god_engine_figure{{name=\"disk_free_bytes\",{of}}} < 1e9"),
            5,
            "critical",
            "a node's disk is nearly full: raise storage.size",
        ),
        alert(
            "GodRingsDiffer",
            format!("max(god_consensus_epoch{{{of}}}) - min(god_consensus_epoch{{{of}}}) > 5"),
            5,
            "warning",
            "a node does not learn of changes of the ring",
        ),
    ];
    let spec = json!({ "groups": [{ "name": format!("god.{}", blueprint.name()), "rules": rules }] });
    labelled(
        blueprint,
        blueprint.object(ObjectKind::PrometheusRule, blueprint.name(), None, json!({ "spec": spec })),
    )
}
