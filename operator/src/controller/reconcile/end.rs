//! The finalizer, and what becomes of volumes when a cluster's object goes.

use super::{Context, TurnError};
use crate::{
    controller::{build::CLUSTER_LABEL, observe::convert},
    crd::{DeletionPolicy, GodCluster},
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    runtime::controller::Action,
};
use serde_json::json;

/// Holds the object until its volumes are asked to go. Only where the spec says that they go.
const FINALIZER: &str = "god-db.io/volumes";

/// Keeps the finalizer in step with the deletion policy. Says whether the object changed.
pub(super) async fn hold(cluster: &GodCluster, context: &Context) -> Result<bool, TurnError> {
    let wanted = cluster.spec.volumes.deletion_policy == DeletionPolicy::Delete;
    let held = cluster.finalizers().iter().any(|name| name == FINALIZER);
    if wanted == held {
        return Ok(false);
    }
    set_finalizer(cluster, context, wanted).await?;
    Ok(true)
}

async fn set_finalizer(cluster: &GodCluster, context: &Context, held: bool) -> Result<(), kube::Error> {
    let mut finalizers: Vec<&String> =
        cluster.finalizers().iter().filter(|name| *name != FINALIZER).collect();
    let own = FINALIZER.to_owned();
    if held {
        finalizers.push(&own);
    }
    let change = json!({
        "metadata": { "resourceVersion": cluster.metadata.resource_version, "finalizers": finalizers }
    });
    let api = Api::<GodCluster>::namespaced(context.client.clone(), &cluster.namespace().unwrap_or_default());
    match api.patch(&cluster.name_any(), &PatchParams::default(), &Patch::Merge(change)).await {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        changed => changed.map(drop),
    }
}

/// The object is being deleted: its volumes are asked to go where the spec says so, and the object is let go whatever
/// comes of that. Everything else goes with its owner.
pub(super) async fn end(cluster: &GodCluster, context: &Context) -> Result<Action, TurnError> {
    if !cluster.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(Action::await_change());
    }
    let api = Api::<PersistentVolumeClaim>::namespaced(
        context.client.clone(),
        &cluster.namespace().unwrap_or_default(),
    );
    let mine = format!("{}={}", CLUSTER_LABEL, cluster.name_any());
    match api.list(&ListParams::default().labels(&mine)).await {
        Ok(volumes) => {
            // A claim that was copied with its labels is somebody else's.
            let mine =
                |volume: &PersistentVolumeClaim| convert::volume(volume, &cluster.name_any(), &[]).is_some();
            for volume in volumes.into_iter().filter(mine) {
                let how = DeleteParams {
                    preconditions: Some(Preconditions { uid: volume.uid(), resource_version: None }),
                    ..DeleteParams::default()
                };
                if let Err(error) = api.delete(&volume.name_any(), &how).await {
                    tracing::warn!(volume = volume.name_any(), %error, "a volume claim stays");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "volume claims stay"),
    }
    set_finalizer(cluster, context, false).await?;
    Ok(Action::await_change())
}
