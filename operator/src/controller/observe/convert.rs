//! Objects of the API server as plain values.

use crate::{
    controller::{
        build::POOL_LABEL,
        world::{Place, Pod, Recorded, Said, Set, Volume},
    },
    crd::{GodCluster, bytes_of},
};
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod as PodObject},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// On a volume claim: the node whose data are on it.
pub const NODE: &str = "god-db.io/node";
/// On a volume claim: the cluster that the node said it is a member of.
pub const CLUSTER_ID: &str = "god-db.io/cluster-id";
/// On a volume claim: until when it is kept, in seconds since 1970.
pub const QUARANTINED_UNTIL: &str = "god-db.io/quarantined-until";

fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    metadata.labels.as_ref()?.get(name)
}

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    metadata.annotations.as_ref()?.get(name)
}

fn place(metadata: &ObjectMeta) -> Option<Place> {
    let pool = label(metadata, POOL_LABEL)?.clone();
    let ordinal = metadata.name.as_ref()?.rsplit_once('-')?.1.parse().ok()?;
    Some(Place { pool, ordinal })
}

/// A set, and its pool.
pub fn set(object: &StatefulSet) -> Option<(String, Set)> {
    let metadata = &object.metadata;
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
    Some((label(metadata, POOL_LABEL)?.clone(), set))
}

/// A pod; who runs on it is asked for separately.
pub fn pod(object: &PodObject) -> Option<Pod> {
    let metadata = &object.metadata;
    let status = object.status.as_ref();
    let ready = status.and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    Some(Pod {
        place: place(metadata)?,
        uid: metadata.uid.clone()?,
        revision: label(metadata, "controller-revision-hash").cloned().unwrap_or_default(),
        ready,
        terminating: metadata.deletion_timestamp.is_some(),
        pending: status.and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Pending"),
        said: Said::Nothing,
    })
}

/// A volume claim.
pub fn volume(object: &PersistentVolumeClaim) -> Option<Volume> {
    let metadata = &object.metadata;
    let requests = object.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    Some(Volume {
        place: place(metadata)?,
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
        let (_, read) = set(&serde_json::from_value(object.clone()).unwrap()).unwrap();
        assert_eq!((read.revision, read.replicas, read.volume_bytes), (None, 3, 1 << 30));
        object["status"]["observedGeneration"] = json!(2);
        let (pool, read) = set(&serde_json::from_value(object).unwrap()).unwrap();
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
        let read = volume(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!((read.place.ordinal, read.bytes, read.quarantined_until), (12, 2 << 30, Some(77)));
        assert!(read.node.is_some() && read.cluster.is_none());
    }
}
