//! Settings of a pool's nodes, as `god-node --config` takes them.

use super::{Blueprint, Object, ObjectKind, PEER_PORT, stamp};
use crate::crd::{Durability, NodePool, REQUEST_MEMORY, shares};
use serde_json::{Map, Value, json};

/// The file's name in its folder.
pub(super) const FILE: &str = "god.yaml";
/// Where nodes keep data: below the mount, as the root of a file system has things of its own.
const DATA: &str = "/data/god";
/// Settings that a running node does not go by: the ring does, and is told by operations.
const NOT_AFTER_JOINING: [&str; 2] = ["weight", "zone"];

/// The settings of a pool.
pub(super) fn settings(blueprint: &Blueprint, pool: &NodePool) -> Object {
    let text = file(blueprint, pool, &[]);
    let name = blueprint.desired.set_name(&pool.name);
    blueprint.object(ObjectKind::ConfigMap, &name, Some(&pool.name), json!({ "data": { FILE: text } }))
}

/// Stands for what a node must be restarted for.
pub(super) fn fingerprint(blueprint: &Blueprint, pool: &NodePool) -> String {
    stamp::hash(&file(blueprint, pool, &NOT_AFTER_JOINING))
}

fn file(blueprint: &Blueprint, pool: &NodePool, without: &[&str]) -> String {
    let spec = &blueprint.object.spec;
    let mut settings: Map<String, Value> = Map::new();
    for (name, value) in &spec.settings.more {
        settings.insert(name.clone(), scalar(value));
    }
    let mut set = |name: &str, value: Value| settings.insert(name.to_owned(), value);
    let seed = format!("{}.{}.svc:{PEER_PORT}", blueprint.peers(), blueprint.namespace());
    set("data", json!(DATA));
    set("cluster", json!(blueprint.cluster));
    set("seeds", json!([seed]));
    // The operator says when a node takes its part.
    set("join", json!("manual"));
    set("weight", json!(pool.weight));
    set("zone", json!(pool.zone.clone().unwrap_or_default()));
    let shares = shares(spec, pool);
    let memory = shares.map_or_else(|| json!("256MiB"), |shares| mib(shares.storage));
    set("memory", pool.memory.as_ref().map_or(memory, |said| json!(said)));
    if let Some(shares) = shares
        && !spec.settings.more.contains_key(REQUEST_MEMORY)
    {
        set(REQUEST_MEMORY, mib(shares.requests));
    }
    set("gossip", json!(if spec.gossip.enabled { "on" } else { "off" }));
    set("gossip-interval", json!(spec.gossip.interval));
    set("gossip-fanout", json!(spec.gossip.fanout));
    if let Some(durability) = spec.settings.durability {
        let word = match durability {
            Durability::None => "none",
            Durability::Interval => "interval",
            Durability::Always => "always",
        };
        set("durability", json!(word));
    }
    for (name, value) in [
        ("transfer-rate", &spec.settings.transfer_rate),
        ("tombstone-age", &spec.settings.tombstone_age),
        ("log", &spec.settings.log),
    ] {
        if let Some(value) = value {
            set(name, json!(value));
        }
    }
    settings.retain(|name, _| !without.contains(&name.as_str()));
    // Maps of strings always become YAML.
    serde_yaml::to_string(&settings).unwrap_or_default()
}

/// A setting as it would have been typed into the file: a number is one.
fn scalar(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
}

/// Nodes' way to write bytes.
fn mib(bytes: u64) -> Value {
    json!(format!("{}MiB", bytes >> 20))
}
