//! The schema's rules and their twins say the same.

use super::{
    GodCluster, short_pools,
    validate::{change_problems, problems},
};
use kube::core::cel;
use serde_json::{Value, json};

fn sound() -> Value {
    json!({
        "apiVersion": "god-db.io/v1alpha1",
        "kind": "GodCluster",
        "metadata": { "name": "store", "namespace": "a" },
        "spec": {
            "virtualNodes": 10,
            "consistency": { "replicas": 3, "writeQuorum": 2, "readQuorum": 2 },
            "gossip": { "interval": "10ms" },
            "settings": { "transferRate": "64KiB", "tombstoneAge": "365d", "more": { "hint-limit": "1GiB" } },
            "nodePools": [
                { "name": "a", "memory": "16MiB", "replicas": 3, "weight": 1.0, "storage": { "size": "10Gi", "class": "fast" } },
                { "name": "b", "replicas": 2, "weight": 2.0, "storage": { "size": "1Ti" } },
                { "name": "c", "replicas": 0, "weight": 2.0, "storage": { "size": "1Ti" } }
            ],
            "keyspaces": [{ "name": "k", "partitioner": "ordered", "mode": "lww", "replicas": 5, "writeQuorum": 3 }]
        }
    })
}

/// The sound one with the value at a path replaced; null removes it.
fn with(path: &str, value: Value) -> Value {
    let mut object = sound();
    let (parent, last) = path.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) if value.is_null() => {
            list.remove(last.parse().unwrap());
        }
        Value::Array(list) => list[last.parse::<usize>().unwrap()] = value,
        Value::Object(map) if value.is_null() => {
            map.remove(last);
        }
        other => other[last] = value,
    }
    object
}

fn read(object: &Value) -> GodCluster {
    serde_json::from_value(object.clone()).unwrap()
}

fn by_schema(new: &Value, old: Option<&Value>) -> Vec<String> {
    let (new, old) = (read(new), old.map(read));
    let checked = match &old {
        Some(old) => cel::validate_cel_update(&new, old),
        None => cel::validate_cel(&new),
    };
    checked.err().map_or_else(Vec::new, |errors| errors.into_iter().map(|error| error.message).collect())
}

fn sorted(mut sentences: Vec<String>) -> Vec<String> {
    sentences.sort();
    sentences.dedup();
    sentences
}

#[test]
fn a_sound_object_passes() {
    assert_eq!(by_schema(&sound(), None), Vec::<String>::new());
    assert_eq!(problems(&read(&sound())), Vec::<String>::new());
}

#[test]
fn an_object_that_breaks_a_rule_is_refused_with_a_way_out_by_schema_and_by_code() {
    let cases = [
        ("/metadata/name", json!("a-name-that-has-more-than-thirty-letters"), "choose another one"),
        ("/metadata/name", json!("a.b"), "choose another one"),
        ("/metadata/name", json!("1a"), "choose another one"),
        ("/metadata/name", json!("a-"), "choose another one"),
        ("/spec/gossip/interval", json!("0ms"), "such as 200ms"),
        ("/spec/gossip/interval", json!("61s"), "such as 200ms"),
        ("/spec/nodePools/0/memory", json!("1MiB"), "16MiB of memory"),
        ("/spec/nodePools/0/memory", json!("16383KiB"), "16MiB of memory"),
        ("/spec/settings/transferRate", json!("1B"), "0B for no bound"),
        ("/spec/settings/tombstoneAge", json!("1s"), "2s to 365d"),
        ("/spec/settings/tombstoneAge", json!("366d"), "2s to 365d"),
        ("/spec/settings/more", json!({ "grpc-address": "0.0.0.0:1" }), "use that field"),
        ("/spec/settings/more", json!({ "read-quorum": "1" }), "use that field"),
        ("/spec/settings/more", json!({ "seed": "a:1" }), "use that field"),
        ("/spec/keyspaces/0/name", json!("default"), "spec.consistency is about it"),
        ("/spec/nodePools/1", Value::Null, "spec: lower that keyspace's replicas first"),
        ("/spec/nodePools/0/replicas", json!(0), "lower spec.consistency.replicas first"),
        ("/spec/nodePools/0/replicas", Value::Null, "give spec.replicas, or replicas to every pool"),
        ("/spec/replicas", json!(3), "give spec.replicas, or replicas to every pool"),
        ("/spec/tls", json!({ "enabled": true }), "leave spec.tls out"),
        ("/spec/consistency/writeQuorum", json!(4), "lower them, or ask for more replicas"),
        ("/spec/keyspaces/0/writeQuorum", json!(6), "give replicas, or lower the quorums"),
        ("/spec/keyspaces/0/mode", json!("linearizable"), "use mode lww"),
        ("/spec/keyspaces/0/defaultTtl", json!("0s"), "1ms to 366000d"),
        ("/spec/keyspaces/0/defaultTtl", json!("31622400000001ms"), "1ms to 366000d"),
        ("/spec/keyspaces/0/defaultTtl", json!("31622400001s"), "1ms to 366000d"),
        ("/spec/keyspaces/0/defaultTtl", json!("527040001m"), "1ms to 366000d"),
        ("/spec/keyspaces/0/defaultTtl", json!("8784001h"), "1ms to 366000d"),
        ("/spec/keyspaces/0/defaultTtl", json!("366001d"), "1ms to 366000d"),
        ("/spec/keyspaces/0/defaultTtl", json!("999999999999999d"), "1ms to 366000d"),
        ("/spec/nodePools/0/storage/size", json!("ten"), "such as 100Gi"),
        ("/spec/nodePools/0/storage/size", json!("0"), "such as 100Gi"),
    ];
    for (path, value, says) in cases {
        let object = with(path, value);
        let says = says.trim_start_matches("spec: ");
        let (schema, code) = (sorted(by_schema(&object, None)), sorted(problems(&read(&object))));
        assert!(schema.iter().any(|said| said.contains(says)), "{path}: the schema says {schema:?}");
        assert_eq!(schema, code, "{path}");
    }
}

#[test]
fn a_change_that_breaks_a_rule_is_refused_with_a_way_out_by_schema_and_by_code() {
    let cases = [
        ("/spec/virtualNodes", json!(20), "put the old value back"),
        ("/spec/nodePools/0/storage/class", json!("slow"), "add a pool with the new class"),
        ("/spec/nodePools/0/storage/class", Value::Null, "add a pool with the new class"),
        ("/spec/nodePools/0/storage/size", json!("9Gi"), "a volume cannot shrink"),
        ("/spec/keyspaces/0/partitioner", json!("hashed"), "make another keyspace"),
        ("/spec/keyspaces/0", Value::Null, "put it back"),
        (
            "/spec/nodePools/0",
            json!({ "name": "z", "replicas": 3, "weight": 1.0, "storage": { "size": "10Gi", "class": "fast" } }),
            "then remove it",
        ),
    ];
    for (path, value, says) in cases {
        let object = with(path, value);
        let schema = sorted(by_schema(&object, Some(&sound())));
        let code = sorted(change_problems(&read(&sound()).spec, &read(&object).spec));
        assert!(schema.iter().any(|said| said.contains(says)), "{path}: the schema says {schema:?}");
        assert_eq!(schema, code, "{path}");
    }
    let mut adopted = sound();
    adopted["spec"]["clusterId"] = json!("0d5a4a2e-9f3c-4a4e-8f55-9d2f0f4a9b11");
    let schema = by_schema(&sound(), Some(&adopted));
    assert_eq!(schema, change_problems(&read(&adopted).spec, &read(&sound()).spec));
    assert!(schema.iter().any(|said| said.contains("make another GodCluster")), "{schema:?}");
}

#[test]
fn a_cluster_that_is_known_cannot_be_named_otherwise() {
    let id = "0d5a4a2e-9f3c-4a4e-8f55-9d2f0f4a9b11";
    let mut founded = sound();
    founded["status"] = json!({ "clusterId": id });
    let mut named = founded.clone();
    named["spec"]["clusterId"] = json!(id);
    assert_eq!(by_schema(&named, Some(&founded)), Vec::<String>::new());
    assert_eq!(by_schema(&founded, Some(&founded)), Vec::<String>::new());
    named["spec"]["clusterId"] = json!("7d5a4a2e-9f3c-4a4e-8f55-9d2f0f4a9b11");
    let says = by_schema(&named, Some(&founded));
    assert!(says.iter().any(|said| said.contains("make another GodCluster")), "{says:?}");
}

#[test]
fn what_may_change_may_change() {
    for (path, value) in [
        ("/spec/nodePools/2", Value::Null),
        ("/spec/nodePools/0/storage/size", json!("10737418240")),
        ("/spec/nodePools/0/storage/size", json!("20Gi")),
        ("/spec/nodePools/0/replicas", json!(5)),
        ("/spec/clusterId", json!("0d5a4a2e-9f3c-4a4e-8f55-9d2f0f4a9b11")),
    ] {
        let object = with(path, value);
        assert_eq!(by_schema(&object, Some(&sound())), Vec::<String>::new(), "{path}");
        assert_eq!(
            change_problems(&read(&sound()).spec, &read(&object).spec),
            Vec::<String>::new(),
            "{path}"
        );
    }
}

#[test]
fn every_name_that_the_schema_keeps_out_of_more_settings_is_kept_out_by_code() {
    let listed: Vec<&str> = super::rules::MORE.split('\'').skip(1).step_by(2).collect();
    assert_eq!(listed, super::rules::OWN_SETTINGS);
}

/// Not by the schema: what quantities may cost there has a bound, and resources are many.
#[test]
fn a_memory_limit_that_does_not_hold_what_nodes_are_given_is_refused_by_code() {
    for (pool, more, is_refused) in [
        (json!({ "limits": { "memory": "197Mi" } }), json!({}), true),
        (json!({ "limits": { "memory": "198Mi" } }), json!({}), false),
        (json!({ "limits": { "memory": "256Mi" } }), json!({ "request-memory": "91MiB" }), true),
        (json!({ "limits": { "memory": "256Mi" } }), json!({ "request-memory": "90MiB" }), false),
        (json!({ "limits": { "memory": "256Mi" } }), json!({ "request-memory": "95420416" }), true),
        (json!({ "limits": { "cpu": "1" } }), json!({}), false),
        (json!({ "requests": { "memory": "1Mi" } }), json!({}), false),
    ] {
        let mut object = with("/spec/nodePools/0/resources", pool.clone());
        object["spec"]["settings"]["more"] = more.clone();
        let said = problems(&read(&object));
        assert_eq!(
            said.iter().any(|said| said.contains("raise the limit")),
            is_refused,
            "{pool} {more}: {said:?}"
        );
        assert_eq!(by_schema(&object, None), Vec::<String>::new());
        // One that is there goes on to be looked after.
        let mut there = read(&object);
        there.status.get_or_insert_default().cluster_id = Some("is recorded".to_owned());
        assert_eq!(problems(&there), Vec::<String>::new(), "{pool} {more}");
        assert_eq!(short_pools(&there.spec).count(), usize::from(is_refused), "{pool} {more}");
    }
}

#[test]
fn a_keyspace_gets_the_time_to_live_that_is_written() {
    for (text, ms) in [("1ms", 1), ("500ms", 500), ("24h", 86_400_000), ("366000d", 31_622_400_000_000)] {
        let object = with("/spec/keyspaces/0/defaultTtl", json!(text));
        assert_eq!(by_schema(&object, None), Vec::<String>::new(), "{text}");
        assert_eq!(problems(&read(&object)), Vec::<String>::new(), "{text}");
        assert_eq!(crate::controller::world::Desired::of(&read(&object)).keyspaces[1].ttl_ms, ms, "{text}");
    }
}

#[test]
fn quorums_that_are_left_out_are_more_than_half() {
    for (copies, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
        let object = with("/spec/consistency", json!({ "replicas": copies }));
        assert_eq!(by_schema(&object, None), Vec::<String>::new());
        let made = crate::controller::world::Desired::of(&read(&object)).keyspaces[0].copies;
        assert_eq!((made.write_quorum, made.read_quorum), (quorum, quorum), "of {copies}");
    }
}

#[test]
fn what_is_left_out_is_filled_in_as_the_documents_say() {
    let least = json!({
        "apiVersion": "god-db.io/v1alpha1", "kind": "GodCluster", "metadata": { "name": "store" },
        "spec": { "nodePools": [{ "name": "a", "replicas": 3, "storage": { "size": "1Gi" } }] }
    });
    let spec = read(&least).spec;
    let numbers = (spec.consistency.replicas, spec.consistency.write_quorum, spec.virtual_nodes);
    assert_eq!((numbers, spec.node_pools[0].weight.to_string()), ((3, None, 10), "1".to_owned()));
    assert_eq!((spec.volumes.quarantine.as_str(), spec.replacement.max), ("1h", 2));
}
