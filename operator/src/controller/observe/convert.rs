//! Objects of the API server as plain values. An object belongs to a cluster by its labels and by its name, both:
//! labels come along when somebody copies an object, and a name of a set, a pod or a claim says which place it is.

use crate::{
    controller::{
        build::{CLUSTER_LABEL, PEER_PORT, POOL_LABEL},
        world::{Place, Pod, Recorded, Said, Set, Volume},
    },
    crd::{GodCluster, bytes_of},
};
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod as PodObject, PodStatus},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use std::net::IpAddr;

/// On a volume claim: the node whose data are on it.
pub const NODE: &str = "god-db.io/node";
/// On a volume claim: the cluster that the node said it is a member of.
pub const CLUSTER_ID: &str = "god-db.io/cluster-id";
/// On a volume claim: until when it is kept, in seconds since 1970.
pub const QUARANTINED_UNTIL: &str = "god-db.io/quarantined-until";

/// What a container waits for in vain.
const STUCK: [&str; 6] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
/// For so many seconds a node may be silent after its start.
const SILENT_FOR: i64 = 30;
/// For so many seconds a pod may be without a machine (invariant TOLD-SOON).
const UNPLACED_FOR: i64 = 2;

fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    metadata.labels.as_ref()?.get(name)
}

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    metadata.annotations.as_ref()?.get(name)
}

/// The place that an object's name says, after so many letters: exactly as sets name their pods. Its pool is the one of
/// its label, or one of these.
fn place(metadata: &ObjectMeta, before: &str, cluster: &str, pools: &[String]) -> Option<Place> {
    if label(metadata, CLUSTER_LABEL).is_some_and(|other| other != cluster) {
        return None;
    }
    let name = metadata.name.as_ref()?;
    let ordinal: u32 = name.rsplit_once('-')?.1.parse().ok()?;
    let mut pools = label(metadata, POOL_LABEL).into_iter().chain(pools);
    let pool = pools.find(|pool| *name == format!("{before}{cluster}-{pool}-{ordinal}"))?;
    Some(Place { pool: pool.clone(), ordinal })
}

/// A set of a cluster, and its pool.
pub fn set(object: &StatefulSet, cluster: &str) -> Option<(String, Set)> {
    let metadata = &object.metadata;
    let pool = label(metadata, POOL_LABEL)?.clone();
    if metadata.name.as_ref()? != &format!("{cluster}-{pool}") {
        return None;
    }
    let spec = object.spec.as_ref()?;
    let status = object.status.as_ref();
    let is_seen = status.is_some_and(|status| status.observed_generation >= metadata.generation);
    let size = spec.volume_claim_templates.as_ref().and_then(|claims| {
        claims.first()?.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
    });
    let set = Set {
        uid: metadata.uid.clone()?,
        version: metadata.resource_version.clone()?,
        replicas: u32::try_from(spec.replicas.unwrap_or(1)).ok()?,
        revision: status.filter(|_| is_seen).and_then(|status| status.update_revision.clone()),
        volume_bytes: size.and_then(|size| bytes_of(&size.0)).unwrap_or(0),
        terminating: metadata.deletion_timestamp.is_some(),
    };
    Some((pool, set))
}

/// Why a pod does not start, once that is not about to change by itself: a pod that was made just now may wait for its
/// volume, and a first failure is followed by another try.
fn stuck(status: &PodStatus, now: i64) -> Option<String> {
    let told = |reason: &str, message: Option<&String>| match message {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    };
    let containers = status.container_statuses.iter().flatten();
    let mut waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let in_vain = waiting.find_map(|waiting| {
        let reason = waiting.reason.as_deref()?;
        STUCK.contains(&reason).then(|| told(reason, waiting.message.as_ref()))
    });
    let unplaced = || {
        let mut conditions = status.conditions.iter().flatten();
        let placed = conditions.find(|condition| condition.type_ == "PodScheduled")?;
        let since = placed.last_transition_time.as_ref().map_or(0, |time| time.0.as_second());
        let reason = placed.reason.as_deref().filter(|_| placed.status == "False")?;
        (now.saturating_sub(since) >= UNPLACED_FOR).then(|| told(reason, placed.message.as_ref()))
    };
    in_vain.or_else(unplaced)
}

/// What is wrong with a pod that has run for a while, is not ready, and does not say who it is.
pub fn silent(object: &PodObject, now: i64) -> Option<String> {
    let containers = object.status.as_ref()?.container_statuses.iter().flatten();
    let mut running = containers.filter_map(|container| container.state.as_ref()?.running.as_ref());
    let since = running.find_map(|running| running.started_at.as_ref()).map(|time| time.0.as_second())?;
    (now.saturating_sub(since) >= SILENT_FOR).then(|| {
        format!(
            "its node does not answer the operator at port {PEER_PORT}, though it has run for {SILENT_FOR} s and more; \
             a NetworkPolicy may be in the way"
        )
    })
}

/// A pod of a cluster; who runs on it is asked for separately.
pub fn pod(object: &PodObject, cluster: &str, now: i64) -> Option<Pod> {
    let metadata = &object.metadata;
    let status = object.status.as_ref();
    let ready = status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    Some(Pod {
        place: place(metadata, "", cluster, &[])?,
        uid: metadata.uid.clone()?,
        revision: label(metadata, "controller-revision-hash").cloned().unwrap_or_default(),
        ready,
        terminating: metadata.deletion_timestamp.is_some(),
        pending: status.and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Pending"),
        stuck: status.and_then(|status| stuck(status, now)),
        said: Said::Nothing,
    })
}

/// Where a pod's node may be asked. A pod that has ended keeps its address in its status, and somebody else may have
/// it.
pub fn address(object: &PodObject) -> Option<IpAddr> {
    let status = object.status.as_ref()?;
    status.phase.as_deref().filter(|phase| *phase == "Running")?;
    status.pod_ip.as_deref()?.parse().ok()
}

/// A volume claim of a cluster. Sets take claims by their names: one of these pools that has lost its labels is in use
/// as before.
pub fn volume(object: &PersistentVolumeClaim, cluster: &str, pools: &[String]) -> Option<Volume> {
    let metadata = &object.metadata;
    let requests = object.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Some(Volume {
        place: place(metadata, "data-", cluster, pools)?,
        uid: metadata.uid.clone()?,
        version: metadata.resource_version.clone()?,
        bytes: requests.get("storage").and_then(|size| bytes_of(&size.0)).unwrap_or(0),
        node: annotation(metadata, NODE).and_then(|text| text.parse().ok()),
        cluster: annotation(metadata, CLUSTER_ID).and_then(|text| text.parse().ok()),
        quarantined_until: annotation(metadata, QUARANTINED_UNTIL).and_then(|text| text.parse().ok()),
        terminating: metadata.deletion_timestamp.is_some(),
    })
}

/// What the status remembers.
pub fn recorded(object: &GodCluster) -> Recorded {
    let Some(status) = &object.status else { return Recorded::default() };
    Recorded {
        cluster: status.cluster_id.as_deref().and_then(|text| text.parse().ok()),
        founder: status
            .founder
            .as_ref()
            .and_then(|founder| Some((founder.node.parse().ok()?, founder.volume.clone()))),
        replaced: status
            .replaced
            .iter()
            .filter_map(|replaced| Some((replaced.node.parse().ok()?, replaced.at)))
            .collect(),
        silent_since: status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Available" && condition.status == "Unknown")
            .map(|condition| condition.last_transition_time.0.as_second()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_set_whose_controller_lags_has_no_revision_yet() {
        let mut object = json!({
            "metadata": {
                "name": "s-a", "uid": "u", "resourceVersion": "5", "generation": 2,
                "labels": { "god-db.io/pool": "a" }
            },
            "spec": {
                "replicas": 3, "serviceName": "x", "selector": {}, "template": {},
                "volumeClaimTemplates": [{ "spec": { "resources": { "requests": { "storage": "1Gi" } } } }]
            },
            "status": { "observedGeneration": 1, "updateRevision": "r", "replicas": 3 }
        });
        let (_, read) = set(&serde_json::from_value(object.clone()).unwrap(), "s").unwrap();
        assert_eq!((read.revision, read.replicas, read.volume_bytes), (None, 3, 1 << 30));
        object["status"]["observedGeneration"] = json!(2);
        let (pool, read) = set(&serde_json::from_value(object).unwrap(), "s").unwrap();
        assert_eq!((pool.as_str(), read.revision), ("a", Some("r".to_owned())));
    }

    #[test]
    fn a_volume_says_whose_data_are_on_it() {
        let object = json!({
            "metadata": {
                "name": "data-s-a-12", "uid": "u", "resourceVersion": "5", "labels": { "god-db.io/pool": "a" },
                "annotations": {
                    NODE: "0d5a4a2e-9f3c-4a4e-8f55-9d2f0f4a9b11", CLUSTER_ID: "nonsense", QUARANTINED_UNTIL: "77"
                }
            },
            "spec": { "resources": { "requests": { "storage": "2Gi" } } }
        });
        let read = volume(&serde_json::from_value(object).unwrap(), "s", &[]).unwrap();
        assert_eq!((read.place.ordinal, read.bytes, read.quarantined_until), (12, 2 << 30, Some(77)));
        assert!(read.node.is_some() && read.cluster.is_none());
    }

    #[test]
    fn a_claim_that_was_copied_with_its_labels_is_no_place_of_the_cluster() {
        let named = |name: &str, cluster: &str| {
            let object = json!({
                "metadata": {
                    "name": name, "uid": "u", "resourceVersion": "5", "labels": { "god-db.io/pool": "a" }
                },
                "spec": { "resources": { "requests": { "storage": "2Gi" } } }
            });
            volume(&serde_json::from_value(object).unwrap(), cluster, &[]).map(|volume| volume.place.ordinal)
        };
        assert_eq!(named("data-s-a-7", "s"), Some(7));
        for other in
            ["restore-7", "data-s-a-7-20261125", "data-s-b-7", "data-s-a-07", "data-t-a-7", "data-s-a-x"]
        {
            assert_eq!(named(other, "s"), None, "{other}");
        }
        assert_eq!(named("data-s-b-a-7", "s-b"), Some(7), "names of clusters and pools may have dashes");
    }

    #[test]
    fn a_claim_that_lost_its_labels_is_known_by_its_name_and_one_of_another_cluster_is_not() {
        let read = |labels: serde_json::Value, pools: &[String]| {
            let object = json!({
                "metadata": { "name": "data-s-a-2", "uid": "u", "resourceVersion": "5", "labels": labels },
                "spec": { "resources": { "requests": { "storage": "2Gi" } } }
            });
            volume(&serde_json::from_value(object).unwrap(), "s", pools).map(|volume| volume.place.ordinal)
        };
        let pools = ["b".to_owned(), "a".to_owned()];
        assert_eq!(read(json!({}), &pools), Some(2));
        assert_eq!(read(json!({}), &pools[..1]), None);
        assert_eq!(read(json!({ CLUSTER_LABEL: "other" }), &pools), None);
    }

    #[test]
    fn pods_and_sets_are_known_by_their_names_too() {
        let made = |name: &str| {
            json!({
                "metadata": {
                    "name": name, "uid": "u", "resourceVersion": "5", "labels": { "god-db.io/pool": "a" }
                },
                "spec": { "containers": [], "selector": {}, "template": {} }
            })
        };
        let is_pod = |name: &str| pod(&serde_json::from_value(made(name)).unwrap(), "s", 0).is_some();
        let is_set = |name: &str| set(&serde_json::from_value(made(name)).unwrap(), "s").is_some();
        assert_eq!(["s-a-0", "debug-0", "s-a-0-copy"].map(is_pod), [true, false, false]);
        assert_eq!(["s-a", "s-b", "mine"].map(is_set), [true, false, false]);
    }

    #[test]
    fn a_pod_says_why_it_does_not_start() {
        let told = |status: serde_json::Value| stuck(&serde_json::from_value(status).unwrap(), 1_000_000_000);
        let waiting = |reason: &str| {
            told(json!({ "containerStatuses": [{
                "name": "god-node", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": { "reason": reason, "message": "no such image" } }
            }] }))
        };
        assert_eq!(waiting("ImagePullBackOff").as_deref(), Some("ImagePullBackOff: no such image"));
        assert_eq!(waiting("ContainerCreating"), None);
        let unplaced = |since: &str| {
            told(json!({ "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room",
                "lastTransitionTime": since
            }] }))
        };
        assert_eq!(unplaced("2001-09-09T01:46:30Z").as_deref(), Some("Unschedulable: no room"));
        assert_eq!(unplaced("2001-09-09T01:46:39Z"), None, "it may be placed at once");
    }

    #[test]
    fn a_pod_that_runs_and_does_not_answer_is_told_after_a_while() {
        let told = |started: &str| {
            let object = json!({ "metadata": {}, "status": { "containerStatuses": [{
                "name": "god-node", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "running": { "startedAt": started } }
            }] } });
            silent(&serde_json::from_value(object).unwrap(), 1_000_000_000)
        };
        assert!(told("2001-09-09T01:46:10Z").unwrap().contains("7100"));
        assert_eq!(told("2001-09-09T01:46:30Z"), None, "it may open its doors at once");
        assert_eq!(silent(&serde_json::from_value(json!({ "metadata": {} })).unwrap(), 1_000_000_000), None);
    }

    #[test]
    fn a_pod_that_has_ended_is_not_asked_at_an_address_that_somebody_else_may_have() {
        let at = |phase: &str| {
            let object = json!({ "metadata": {}, "status": { "phase": phase, "podIP": "10.0.0.7" } });
            address(&serde_json::from_value(object).unwrap())
        };
        assert!(at("Running").is_some());
        assert_eq!(["Pending", "Failed", "Succeeded", "Unknown"].map(at), [None; 4]);
    }
}
