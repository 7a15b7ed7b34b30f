//! Objects that are not as they should be are made so; those that should not be are removed.

use super::{Context, TurnError, blueprint, locked, replicas};
use crate::controller::{
    apply::{ActError, apply_object, remove_object, remove_own},
    build::{Object, ObjectKind, build, differs},
    observe::Look,
    plan::Blocked,
    world::Desired,
};
use crate::crd::GodCluster;
use kube::ResourceExt;

/// What the budget says now.
pub(super) fn present_spare(context: &Context, look: &Look) -> Option<u32> {
    let cluster = &look.objects.cluster;
    let namespace = cluster.namespace()?;
    let budget = context.cache.plain(ObjectKind::PodDisruptionBudget, &namespace, &cluster.name_any())?;
    u32::try_from(budget.pointer("/spec/maxUnavailable")?.as_u64()?).ok()
}

/// Objects that are not as they should be are made so; those that should not be are removed. Says what was refused: the
/// rest goes on.
pub(super) async fn apply_objects(
    context: &Context,
    look: &Look,
    desired: &Desired,
) -> Result<Option<Blocked>, TurnError> {
    let mut refused = None;
    let replicas = replicas(look);
    let objects = build(&blueprint(context, look, desired, &replicas));
    let namespace = look.objects.cluster.namespace().unwrap_or_default();
    for mut object in objects.iter().cloned() {
        let found = match object.kind {
            ObjectKind::StatefulSet => found_set(look, &mut object),
            ObjectKind::ServiceMonitor | ObjectKind::PrometheusRule => {
                let applied = locked(&context.applied);
                applied.get(&(object.kind, namespace.clone(), object.name.clone())).cloned()
            }
            kind => context.cache.plain(kind, &namespace, &object.name),
        };
        if found.is_some_and(|found| !differs(&object.body, &found)) {
            continue;
        }
        match apply_object(&context.client, &namespace, &object).await {
            // Based on what is old; the watch brings what is new.
            Err(ActError::Changed(why)) => {
                tracing::debug!(kind = ?object.kind, name = object.name, why, "it is applied anew");
                continue;
            }
            Err(ActError::Refused(why)) => {
                refused.get_or_insert(Blocked {
                    reason: "ObjectRefused",
                    message: format!("{:?} {}: {why}", object.kind, object.name),
                    action: "change what the message names in the spec".to_owned(),
                });
                continue;
            }
            applied => applied?,
        }
        tracing::info!(kind = ?object.kind, namespace, name = object.name, "applied");
        metrics::counter!("god_operator_applied_total").increment(1);
        if matches!(object.kind, ObjectKind::ServiceMonitor | ObjectKind::PrometheusRule) {
            let mut applied = locked(&context.applied);
            applied.insert((object.kind, namespace.clone(), object.name.clone()), object.body.clone());
        }
    }
    if context.monitored {
        for kind in [ObjectKind::ServiceMonitor, ObjectKind::PrometheusRule] {
            unmonitor(context, &look.objects.cluster, &objects, kind).await?;
        }
    }
    for kind in [ObjectKind::NetworkPolicy, ObjectKind::ConfigMap] {
        for name in context.cache.names(kind, &look.objects.cluster) {
            let is_wanted = objects.iter().any(|object| object.kind == kind && object.name == name);
            let is_used = replicas.keys().any(|pool| desired.set_name(pool) == name);
            if !is_wanted && !(kind == ObjectKind::ConfigMap && is_used) {
                remove_object(&context.client, &namespace, kind, &name).await?;
            }
        }
    }
    Ok(refused)
}

/// Monitoring was switched off: what was made for it goes. These objects are not watched, so it is remembered that they
/// are gone, and asked once in this process's life.
async fn unmonitor(
    context: &Context,
    cluster: &GodCluster,
    objects: &[Object],
    kind: ObjectKind,
) -> Result<(), TurnError> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let key = (kind, namespace.clone(), name.clone());
    let is_gone = locked(&context.applied).get(&key).is_some_and(serde_json::Value::is_null);
    if is_gone || objects.iter().any(|object| object.kind == kind) {
        return Ok(());
    }
    remove_own(&context.client, &namespace, kind, &name, &name).await?;
    locked(&context.applied).insert(key, serde_json::Value::Null);
    Ok(())
}

/// The set that is there, as JSON. What is wished for is based on its version, and keeps the volumes' size: that
/// changes by its own steps.
fn found_set(look: &Look, object: &mut Object) -> Option<serde_json::Value> {
    const SIZE: &str = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
    let found = look.objects.sets.iter().find(|set| set.name_any() == object.name)?;
    let found = serde_json::to_value(&**found).ok()?;
    if let (Some(size), Some(wished)) = (found.pointer(SIZE), object.body.pointer_mut(SIZE)) {
        wished.clone_from(size);
    }
    object.body["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
    Some(found)
}
