//! Settings of a pool's nodes, as `god-node --config` takes them.

use super::{Blueprint, Kind, Object, PEER_PORT, stamp};
use crate::crd::{Durability, NodePool, bytes_of};
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
    blueprint.object(Kind::ConfigMap, &name, Some(&pool.name), json!({ "data": { FILE: text } }))
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
    set("memory", json!(memory(pool)));
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

/// Memory for caches: what the pool says, or a third of its limit.
fn memory(pool: &NodePool) -> String {
    if let Some(memory) = &pool.memory {
        return memory.clone();
    }
    let limits = pool.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let limit = limits.and_then(|limits| limits.get("memory")).and_then(|quantity| bytes_of(&quantity.0));
    format!("{}MiB", limit.map_or(256, |bytes| ((bytes / 3) >> 20).max(16)))
}
