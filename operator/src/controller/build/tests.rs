//! Each object is what the API's types say, and goldens show a person what a cluster is made of.

use super::{Blueprint, Object, ObjectKind, build, build_set, differs, spare};
use crate::{
    controller::{
        plan::model::World,
        world::{Desired, RingView},
    },
    crd::GodCluster,
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};
use uuid::Uuid;

fn cluster() -> GodCluster {
    serde_json::from_value(json!({
        "apiVersion": "god-db.io/v1alpha1",
        "kind": "GodCluster",
        "metadata": {
            "name": "store", "namespace": "shop", "uid": "0d5a4a2e-9f3c-4a4e-8f55-9d2f0f4a9b11",
            "annotations": { "god-db.io/restart": "once" }
        },
        "spec": {
            "image": "god:1",
            "nodePools": [{
                "name": "a", "replicas": 3, "zone": "z1", "storage": { "size": "10Gi", "class": "fast" },
                "resources": { "requests": { "cpu": "500m", "memory": "1Gi" }, "limits": { "memory": "3Gi" } },
                "pod": { "labels": { "team": "x" }, "priorityClassName": "high" }
            }],
            "settings": { "durability": "always", "more": { "hint-limit": "128MiB", "worker-threads": "4" } }
        }
    }))
    .unwrap()
}

fn built(object: &GodCluster) -> Vec<Object> {
    let desired = Desired::of(object);
    let replicas = BTreeMap::from([("a".to_owned(), 3)]);
    build(&Blueprint {
        object,
        desired: &desired,
        cluster: Uuid::from_u128(7),
        image: "god:default",
        replicas: &replicas,
        spare: 1,
        monitored: true,
    })
}

/// Of each object: whether what was found, as an older wish made it, differs from what is wished for now.
fn differing(before: &GodCluster, after: &GodCluster) -> Vec<ObjectKind> {
    let found = built(before);
    let mut kinds: Vec<ObjectKind> = built(after)
        .iter()
        .zip(&found)
        .filter(|(wished, found)| differs(&wished.body, &found.body))
        .map(|(wished, _)| wished.kind)
        .collect();
    kinds.sort();
    kinds
}

#[test]
fn what_is_taken_out_of_the_spec_makes_a_difference() {
    let mut full = cluster();
    full.spec.service.annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    assert_eq!(differing(&full, &full), []);
    let without = |take: fn(&mut GodCluster)| {
        let mut less = full.clone();
        take(&mut less);
        differing(&full, &less)
    };
    assert_eq!(without(|it| it.spec.service.annotations.clear()), [ObjectKind::Service]);
    assert_eq!(without(|it| it.spec.node_pools[0].pod.labels.clear()), [ObjectKind::StatefulSet]);
    assert_eq!(without(|it| it.spec.node_pools[0].pod.priority_class_name = None), [ObjectKind::StatefulSet]);
    // Memory follows the limit.
    assert_eq!(
        without(|it| it.spec.node_pools[0].resources = None),
        [ObjectKind::ConfigMap, ObjectKind::StatefulSet]
    );
}

#[test]
fn what_nodes_may_hold_for_storage_and_requests_follows_the_limit_of_their_pods() {
    let settings = |change: fn(&mut GodCluster)| {
        let mut object = cluster();
        change(&mut object);
        let made = built(&object);
        let map = made.iter().find(|object| object.kind == ObjectKind::ConfigMap).unwrap();
        let text = map.body["data"]["god.yaml"].as_str().unwrap();
        let read: Value = serde_yaml::from_str(text).unwrap();
        (read["memory"].clone(), read["request-memory"].clone())
    };
    assert_eq!(settings(|_| ()), (json!("1024MiB"), json!("768MiB")));
    assert_eq!(settings(|it| it.spec.node_pools[0].resources = None), (json!("256MiB"), Value::Null));
    let said = |it: &mut GodCluster| {
        it.spec.node_pools[0].memory = Some("2GiB".to_owned());
        it.spec.settings.more.insert("request-memory".to_owned(), "64MiB".to_owned());
    };
    assert_eq!(settings(said), (json!("2GiB"), json!("64MiB")));
    // 3,072 MiB but for 150 and 2,900.
    let tight = |it: &mut GodCluster| {
        it.spec.settings.more = [("request-memory".to_owned(), "2900MiB".to_owned())].into()
    };
    assert_eq!(settings(tight), (json!("22MiB"), json!("2900MiB")));
}

#[test]
fn pods_and_sizes_of_volumes_have_their_own_steps_and_make_no_difference_of_stamps() {
    let stamp = |object: &GodCluster, replicas: u32| {
        let desired = Desired::of(object);
        let blueprint = Blueprint {
            object,
            desired: &desired,
            cluster: Uuid::from_u128(7),
            image: "god:default",
            replicas: &BTreeMap::new(),
            spare: 1,
            monitored: false,
        };
        build_set(&blueprint, "a", replicas).unwrap().body["metadata"]["annotations"].clone()
    };
    let mut larger = cluster();
    larger.spec.node_pools[0].storage.size = "20Gi".to_owned();
    assert_eq!(stamp(&cluster(), 3), stamp(&larger, 5));
}

fn through<T: serde::Serialize + serde::de::DeserializeOwned>(body: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(body.clone()).unwrap()).unwrap()
}

#[test]
fn every_object_is_what_the_types_of_the_api_say() {
    for Object { kind, name, body } in built(&cluster()) {
        let typed = match kind {
            ObjectKind::ServiceAccount => through::<ServiceAccount>(&body),
            ObjectKind::ConfigMap => through::<ConfigMap>(&body),
            ObjectKind::Service => through::<Service>(&body),
            ObjectKind::StatefulSet => through::<StatefulSet>(&body),
            ObjectKind::PodDisruptionBudget => through::<PodDisruptionBudget>(&body),
            ObjectKind::NetworkPolicy => through::<NetworkPolicy>(&body),
            // Their types are not among Kubernetes' own.
            ObjectKind::ServiceMonitor | ObjectKind::PrometheusRule => continue,
        };
        assert_eq!(typed, body, "{kind:?} {name} has a field that the API does not know");
    }
}

/// `UPDATE_GOLDEN=1 cargo test` writes the file anew.
#[test]
fn a_cluster_is_made_of_what_the_golden_file_shows() {
    let objects: Vec<String> =
        built(&cluster()).into_iter().map(|object| serde_yaml::to_string(&object.body).unwrap()).collect();
    let made = objects.join("---\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controller/build/testdata/cluster.yaml");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &made).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&path).unwrap_or_default(),
        made,
        "run the test with UPDATE_GOLDEN=1 to take it over"
    );
}

fn fingerprint_of(change: impl Fn(&mut GodCluster)) -> Value {
    let mut object = cluster();
    change(&mut object);
    let set = built(&object).into_iter().find(|object| object.kind == ObjectKind::StatefulSet).unwrap();
    set.body["spec"]["template"].clone()
}

#[test]
fn nodes_are_restarted_for_settings_and_not_for_weight() {
    let before = fingerprint_of(|_| {});
    assert_eq!(before, fingerprint_of(|object| object.spec.node_pools[0].weight = 3.0));
    assert_ne!(before, fingerprint_of(|object| object.spec.gossip.interval = "1s".to_owned()));
    assert_ne!(before, fingerprint_of(|object| object.spec.image = Some("god:2".to_owned())));
}

#[test]
fn no_pod_runs_as_root_or_writes_outside_its_volumes() {
    let template = fingerprint_of(|_| {});
    let container = &template["spec"]["containers"][0]["securityContext"];
    assert_eq!(template["spec"]["securityContext"]["runAsNonRoot"], json!(true));
    assert_eq!(container["readOnlyRootFilesystem"], json!(true));
    assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(template["spec"]["securityContext"]["seccompProfile"]["type"], json!("RuntimeDefault"));
}

#[test]
fn each_node_is_scraped_once_and_alerts_are_of_this_cluster() {
    let objects = built(&cluster());
    let of = |kind: ObjectKind| objects.iter().filter(move |object| object.kind == kind);
    let monitor = of(ObjectKind::ServiceMonitor).next().unwrap();
    let Value::Object(chosen) = &monitor.body["spec"]["selector"]["matchLabels"] else { panic!("labels") };
    let scraped: Vec<&str> = of(ObjectKind::Service)
        .filter(|service| {
            chosen.iter().all(|(name, value)| service.body["metadata"]["labels"][name] == *value)
        })
        .map(|service| service.name.as_str())
        .collect();
    assert_eq!(scraped, ["store-peers"]);
    let rules = of(ObjectKind::PrometheusRule).next().unwrap().body.to_string();
    assert!(rules.contains("store-(a)-[0-9]+") && !rules.contains("store-.*"), "{rules}");
}

#[test]
fn drains_may_take_what_every_arc_can_spare_and_nothing_while_copies_are_missing() {
    let RingView::Known(mut ring) = World::running(3).view() else { panic!("the ring is known") };
    let mut object = cluster();
    assert_eq!(spare(Some(&ring), &object, None), 1, "one of two copies is enough");
    ring.keyspaces[0].copies.write_quorum = 2;
    assert_eq!(spare(Some(&ring), &object, Some(1)), 0, "both are needed");
    assert_eq!((spare(None, &object, Some(1)), spare(None, &object, None)), (1, 0), "nobody knows better");
    object.spec.disruption.allow_downtime = true;
    assert_eq!(spare(Some(&ring), &object, None), 1);
}
