//! Carries a step out: one write, under the conditions that the plan was made with. A condition that does not hold any
//! more is no error: the world is looked at anew.

use super::{
    build::{Blueprint, CLUSTER_LABEL, MANAGER, Object, ObjectKind, POOL_LABEL, build_set},
    nodes::{self, NodeError},
    observe::{Look, convert, resource},
    plan::{Step, VolumeRef},
    world::Desired,
};
use crate::crd::{Founder, GodCluster, GodClusterStatus, Replaced};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
};
use serde_json::{Value, json};

/// Who manages the status.
const STATUS_MANAGER: &str = "god-operator-status";
/// Replacements that the status remembers.
const REMEMBERED: usize = 16;

/// Why a step was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// What the plan was made with is not so any more.
    #[error("the world changed meanwhile: {0}")]
    Changed(String),
    /// The API server or the ring does not want it.
    #[error("{0}")]
    Refused(String),
    /// It may be tried again.
    #[error("{0}")]
    Unavailable(String),
}

impl From<kube::Error> for ActError {
    fn from(error: kube::Error) -> ActError {
        match &error {
            kube::Error::Api(status) => match status.code {
                404 | 409 => ActError::Changed(status.message.clone()),
                400 | 403 | 405 | 422 => ActError::Refused(status.message.clone()),
                _ => ActError::Unavailable(status.message.clone()),
            },
            _ => ActError::Unavailable(error.to_string()),
        }
    }
}

impl From<NodeError> for ActError {
    fn from(error: NodeError) -> ActError {
        match error {
            NodeError::Refused(message) => ActError::Refused(message),
            NodeError::Later(_) | NodeError::Unavailable(_) => ActError::Unavailable(error.to_string()),
        }
    }
}

/// A keyspace that is not made now is so for as long as a node is down, perhaps, that has not heard of the deletion of
/// the one before it: no other matter waits for that.
fn refused_for_now(error: NodeError) -> ActError {
    match error {
        NodeError::Later(why) => ActError::Refused(why),
        error => error.into(),
    }
}

/// Carries a step out that was planned from this look.
pub async fn act(
    client: &Client,
    step: &Step,
    look: &Look,
    desired: &Desired,
    blueprint: &Blueprint<'_>,
) -> Result<(), ActError> {
    let cluster = &look.objects.cluster;
    let namespace = cluster.namespace().unwrap_or_default();
    let sets = || Api::<StatefulSet>::namespaced(client.clone(), &namespace);
    let members = || look.members();
    match step {
        Step::RecordCluster(_) | Step::RecordFounder { .. } | Step::RecordReplaced { .. } => {
            let mut status = cluster.status.clone().unwrap_or_default();
            remember(&mut status, step);
            write_status(client, cluster, &status).await?;
        }
        Step::Mark { volume, node, cluster } => {
            let mut marks = json!({ convert::NODE: node });
            if let Some(cluster) = cluster {
                marks[convert::CLUSTER_ID] = json!(cluster);
            }
            annotate(client, &namespace, desired, volume, marks).await?;
        }
        Step::Quarantine { volume, until } => {
            let mark = json!({ convert::QUARANTINED_UNTIL: until.to_string() });
            annotate(client, &namespace, desired, volume, mark).await?;
        }
        Step::Unquarantine { volume } => {
            annotate(client, &namespace, desired, volume, json!({ convert::QUARANTINED_UNTIL: null }))
                .await?;
        }
        Step::Expand { volume, .. } => {
            let pool = cluster.spec.node_pools.iter().find(|pool| pool.name == volume.place.pool);
            let size = pool.map(|pool| pool.storage.size.clone()).unwrap_or_default();
            let rest = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
            change_volume(client, &namespace, desired, volume, rest).await?;
        }
        Step::DeleteVolume { volume, .. } => {
            let volumes = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
            let name = desired.volume_name(&volume.place);
            volumes.delete(&name, &only(&volume.uid, Some(&volume.version))).await?;
        }
        Step::CreateSet { pool, replicas } => {
            let Some(object) = build_set(blueprint, pool, *replicas) else { return Ok(()) };
            // Applied, as everything else is: what a POST writes, no later apply would take away. An apply would change
            // a set that is there, so it is looked for first; one that another object owns is refused to us anyway.
            if let Some(found) = sets().get_opt(&object.name).await? {
                return Err(ActError::Refused(taken(&found, desired)));
            }
            apply_object(client, &namespace, &object).await?;
        }
        Step::Scale { pool, version, to, .. } => {
            let change = json!({ "metadata": { "resourceVersion": version }, "spec": { "replicas": to } });
            sets()
                .patch(&desired.set_name(pool), &PatchParams::apply(MANAGER), &Patch::Merge(change))
                .await?;
        }
        Step::OrphanSet { pool, uid } => {
            let mut how = only(uid, None);
            how.propagation_policy = Some(PropagationPolicy::Orphan);
            sets().delete(&desired.set_name(pool), &how).await?;
        }
        Step::DeleteSet { pool, uid, version } => {
            sets().delete(&desired.set_name(pool), &only(uid, Some(version))).await?;
        }
        Step::Restart { place, uid, .. } => {
            let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
            pods.delete(&desired.pod_name(place), &only(uid, None)).await?;
        }
        Step::Init { node } => {
            let address = look.addresses.get(node);
            let address = address.ok_or_else(|| ActError::Changed(format!("node {node} does not answer")))?;
            let default = desired.keyspaces.first();
            let default = default.ok_or_else(|| ActError::Refused("there is no keyspace".to_owned()))?;
            nodes::init(address, default, desired.virtual_nodes).await?;
        }
        Step::Begin { id, wish } => nodes::begin(&members(), id, wish).await?,
        Step::Cancel { id } => nodes::cancel(&members(), id).await?,
        Step::CreateKeyspace(wish) => {
            nodes::create_keyspace(&members(), wish).await.map_err(refused_for_now)?;
        }
    }
    Ok(())
}

/// Why a set cannot be made: its name is taken by one that was not seen among the cluster's own.
fn taken(found: &StatefulSet, desired: &Desired) -> String {
    let name = found.name_any();
    let owner = found.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) if owner.name != desired.name => {
            format!("StatefulSet {name} belongs to {} {}: give the pool another name", owner.kind, owner.name)
        }
        _ => format!(
            "StatefulSet {name} is there without the labels of this cluster: give it its labels \
             {CLUSTER_LABEL}={} and {POOL_LABEL} back, or remove it",
            desired.name
        ),
    }
}

fn only(uid: &str, version: Option<&str>) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: version.map(str::to_owned),
        }),
        ..DeleteParams::default()
    }
}

async fn annotate(
    client: &Client,
    namespace: &str,
    desired: &Desired,
    volume: &VolumeRef,
    annotations: Value,
) -> Result<(), ActError> {
    change_volume(client, namespace, desired, volume, json!({ "metadata": { "annotations": annotations } }))
        .await
}

async fn change_volume(
    client: &Client,
    namespace: &str,
    desired: &Desired,
    volume: &VolumeRef,
    mut change: Value,
) -> Result<(), ActError> {
    // Both are conditions: another version, or another object of that name, is refused.
    change["metadata"]["resourceVersion"] = json!(volume.version);
    change["metadata"]["uid"] = json!(volume.uid);
    let volumes = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    let name = desired.volume_name(&volume.place);
    volumes.patch(&name, &PatchParams::apply(MANAGER), &Patch::Merge(change)).await?;
    Ok(())
}

fn remember(status: &mut GodClusterStatus, step: &Step) {
    match step {
        Step::RecordCluster(cluster) => status.cluster_id = Some(cluster.to_string()),
        Step::RecordFounder { node, volume } => {
            status.founder = Some(Founder { node: node.to_string(), volume: volume.clone() });
        }
        Step::RecordReplaced { node, at } => {
            status.replaced.push(Replaced { node: node.to_string(), at: *at });
            let surplus = status.replaced.len().saturating_sub(REMEMBERED);
            status.replaced.drain(..surplus);
        }
        _ => {}
    }
}

/// Writes the status that was made from this very version of the object, and from no other: what it remembers is never
/// overwritten by something older.
pub async fn write_status(
    client: &Client,
    cluster: &GodCluster,
    status: &GodClusterStatus,
) -> Result<(), kube::Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let api = Api::<GodCluster>::namespaced(client.clone(), &namespace);
    let body = json!({
        "apiVersion": "god-db.io/v1alpha1",
        "kind": "GodCluster",
        "metadata": { "name": cluster.name_any(), "resourceVersion": cluster.metadata.resource_version },
        "status": status,
    });
    api.patch_status(&cluster.name_any(), &PatchParams::apply(STATUS_MANAGER).force(), &Patch::Apply(body))
        .await?;
    Ok(())
}

/// Makes an object what it should be.
pub async fn apply_object(client: &Client, namespace: &str, object: &Object) -> Result<(), ActError> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource(object.kind));
    api.patch(&object.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object.body)).await?;
    Ok(())
}

/// Removes an object that should not be.
pub async fn remove_object(
    client: &Client,
    namespace: &str,
    kind: ObjectKind,
    name: &str,
) -> Result<(), ActError> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource(kind));
    match api.delete(name, &DeleteParams::default()).await.map_err(ActError::from) {
        Err(ActError::Changed(_)) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes an object that should not be, if it is there and bears the label of the cluster.
pub async fn remove_own(
    client: &Client,
    namespace: &str,
    kind: ObjectKind,
    name: &str,
    cluster: &str,
) -> Result<(), ActError> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource(kind));
    let found = api.get_opt(name).await?;
    let is_own = found.is_some_and(|found| found.labels().get(CLUSTER_LABEL).is_some_and(|it| it == cluster));
    if is_own { remove_object(client, namespace, kind, name).await } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{observe::Objects, plan::model::World};
    use axum::{Json, Router, http::StatusCode, response::IntoResponse};
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    type Calls = Arc<Mutex<Vec<String>>>;

    /// An API server that has one object, or none, and takes whatever it is told.
    fn server(found: Option<Value>) -> (Client, Calls) {
        let calls = Calls::default();
        let noted = Arc::clone(&calls);
        let answer = move |request: axum::http::Request<axum::body::Body>| {
            let (found, noted) = (found.clone(), Arc::clone(&noted));
            async move {
                noted.lock().unwrap().push(request.method().to_string());
                match found {
                    None if request.method() == "GET" => {
                        let gone = json!({
                            "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "gone"
                        });
                        (StatusCode::NOT_FOUND, Json(gone)).into_response()
                    }
                    found => Json(found.unwrap_or_else(|| json!({ "metadata": { "name": "store-a" } })))
                        .into_response(),
                }
            }
        };
        (Client::new(Router::new().fallback(answer), "shop"), calls)
    }

    fn cluster() -> GodCluster {
        serde_json::from_value(json!({
            "apiVersion": "god-db.io/v1alpha1", "kind": "GodCluster",
            "metadata": { "name": "store", "namespace": "shop", "uid": "u" },
            "spec": { "nodePools": [{ "name": "a", "replicas": 3, "storage": { "size": "1Gi" } }] }
        }))
        .unwrap()
    }

    async fn made_a_set(found: Option<Value>) -> (Result<(), ActError>, Vec<String>) {
        let (client, calls) = server(found);
        let object = cluster();
        let desired = Desired::of(&object);
        let replicas = BTreeMap::new();
        let blueprint = Blueprint {
            object: &object,
            desired: &desired,
            cluster: desired.cluster,
            image: "god:1",
            replicas: &replicas,
            spare: 1,
            monitored: false,
        };
        let look = Look {
            observed: World::empty().observe(),
            objects: Objects {
                cluster: Arc::new(object.clone()),
                sets: vec![],
                pods: vec![],
                volumes: vec![],
            },
            addresses: BTreeMap::new(),
        };
        let step = Step::CreateSet { pool: "a".to_owned(), replicas: 3 };
        let done = act(&client, &step, &look, &desired, &blueprint).await;
        let calls = calls.lock().unwrap().clone();
        (done, calls)
    }

    #[test]
    fn a_keyspace_whose_name_is_not_free_yet_stands_in_the_way_of_itself_only() {
        let later = || NodeError::Later("nodes 3 and 4 have yet to hear".to_owned());
        assert!(matches!(refused_for_now(later()), ActError::Refused(why) if why.contains("nodes 3 and 4")));
        assert!(
            matches!(ActError::from(later()), ActError::Unavailable(_)),
            "an operation is asked for again"
        );
        let silent = NodeError::Unavailable("it is silent".to_owned());
        assert!(matches!(refused_for_now(silent), ActError::Unavailable(_)));
    }

    #[tokio::test]
    async fn a_set_is_made_by_an_apply() {
        let (done, calls) = made_a_set(None).await;
        assert!(done.is_ok(), "{done:?}");
        assert_eq!(calls, ["GET", "PATCH"]);
    }

    #[tokio::test]
    async fn what_monitored_a_cluster_goes_unless_it_is_somebody_elses() {
        for (labels, expected) in
            [(json!({ CLUSTER_LABEL: "store" }), vec!["GET", "DELETE"]), (json!({}), vec!["GET"])]
        {
            let (client, calls) = server(Some(json!({ "metadata": { "name": "store", "labels": labels } })));
            remove_own(&client, "shop", ObjectKind::ServiceMonitor, "store", "store").await.unwrap();
            assert_eq!(*calls.lock().unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_set_whose_name_is_taken_is_refused_and_left_alone() {
        let owned = json!({ "metadata": { "name": "store-a", "ownerReferences": [{
            "apiVersion": "god-db.io/v1alpha1", "kind": "GodCluster", "name": "other", "uid": "v", "controller": true
        }] } });
        for (found, says) in
            [(owned, "belongs to GodCluster other"), (json!({ "metadata": { "name": "store-a" } }), "labels")]
        {
            let (done, calls) = made_a_set(Some(found)).await;
            assert!(matches!(&done, Err(ActError::Refused(why)) if why.contains(says)), "{done:?}");
            assert_eq!(calls, ["GET"]);
        }
    }
}
