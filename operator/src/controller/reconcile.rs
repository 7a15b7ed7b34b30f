//! One turn for one cluster: observe, validate, plan, build, apply, status.

use super::{
    apply::{ActError, act, apply_object, remove_object, write_status},
    build::{Blueprint, Kind, Object, build, differs, spare},
    observe::{self, Cache, Look},
    plan::{Blocked, Next, Plan, Refusal, plan_past},
    status::{Facts, status},
    world::Desired,
};
use crate::crd::{DeletionPolicy, GodCluster, validate::problems};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    core::DeserializeGuard,
    runtime::{
        controller::Action,
        events::{Event, EventType, Recorder},
    },
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Holds the object until its volumes are asked to go. Only where the spec says that they go.
const FINALIZER: &str = "god-db.io/volumes";
/// Between two looks at a cluster at rest, which cost the API server nothing.
const AT_REST: Duration = Duration::from_secs(15);
/// While something is waited for.
const WAITING: Duration = Duration::from_secs(2);
/// After a step.
const SOON: Duration = Duration::from_millis(100);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(60);
/// For so long a step that was refused is not tried again.
const REFUSED_FOR: Duration = Duration::from_secs(15);

/// Why a turn failed. It is taken again, later and later.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The API server did not do what it was asked for.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    /// A step or an object was not taken.
    #[error(transparent)]
    Act(#[from] ActError),
}

/// What turns share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What is watched.
    pub cache: Cache,
    /// Tells people.
    pub recorder: Recorder,
    /// The image where the spec names none.
    pub image: String,
    /// The Prometheus operator's types are there.
    pub monitored: bool,
    /// Turns that failed in a row, by namespace and name.
    pub failures: Mutex<HashMap<Key, u32>>,
    /// Steps that were refused, and when.
    pub refusals: Mutex<HashMap<Key, (Refusal, Instant)>>,
    /// Objects that are not watched, as they were applied last.
    pub applied: Mutex<HashMap<(Kind, String, String), serde_json::Value>>,
}

/// Namespace and name of a cluster.
pub type Key = (String, String);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// What was refused a moment ago.
    fn refusal(&self, key: &Key) -> Option<Refusal> {
        let mut refusals = locked(&self.refusals);
        refusals.retain(|_, (_, since)| since.elapsed() < REFUSED_FOR);
        refusals.get(key).map(|(refusal, _)| refusal.clone())
    }
}

fn key(object: &impl Resource<DynamicType = ()>) -> Key {
    (object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
}

/// Takes a turn.
pub async fn reconcile(
    object: Arc<DeserializeGuard<GodCluster>>,
    context: Arc<Context>,
) -> Result<Action, TurnError> {
    let since = Instant::now();
    let turned = match &object.0 {
        Ok(cluster) => turn(Arc::new(cluster.clone()), &context).await,
        Err(invalid) => {
            tracing::warn!(name = ?invalid.metadata.name, error = %invalid.error, "a GodCluster cannot be read");
            Ok(Action::requeue(LONGEST))
        }
    };
    metrics::histogram!("god_operator_turn_seconds").record(since.elapsed());
    let (namespace, name) = match &object.0 {
        Ok(cluster) => key(cluster),
        Err(_) => return turned,
    };
    let mut failures = locked(&context.failures);
    match &turned {
        Ok(_) => drop(failures.remove(&(namespace, name))),
        Err(error) => {
            metrics::counter!("god_operator_failed_turns_total").increment(1);
            tracing::warn!(namespace, name, %error, "a turn failed");
            *failures.entry((namespace, name)).or_default() += 1;
        }
    }
    turned
}

/// When a failed turn is taken again: later for each failure in a row of the same cluster.
pub fn after_failure(
    object: Arc<DeserializeGuard<GodCluster>>,
    _: &TurnError,
    context: Arc<Context>,
) -> Action {
    let key = match &object.0 {
        Ok(cluster) => key(cluster),
        Err(_) => return Action::requeue(LONGEST),
    };
    let failures = locked(&context.failures);
    let times = failures.get(&key).copied().unwrap_or(1);
    Action::requeue(backoff(times))
}

fn backoff(failures: u32) -> Duration {
    Duration::from_millis(250).saturating_mul(1 << failures.min(10)).min(LONGEST)
}

async fn turn(cluster: Arc<GodCluster>, context: &Context) -> Result<Action, TurnError> {
    if cluster.metadata.deletion_timestamp.is_some() {
        return end(&cluster, context).await;
    }
    if hold(&cluster, context).await? {
        // The object changed: its watch says so.
        return Ok(Action::requeue(SOON));
    }
    let mut look = observe::look(context.cache.objects(Arc::clone(&cluster))).await;
    let problems = problems(&cluster);
    let mut desired = Desired::of(&cluster);
    if !problems.is_empty() {
        tell(context, &look, &desired, None, &problems, None).await?;
        return Ok(Action::requeue(LONGEST));
    }
    // What is applied follows the record: without it, pods would not know which cluster they are of.
    let is_recorded = look.observed.recorded.cluster.is_some();
    let mut refused = None;
    if is_recorded && !desired.paused {
        refused = apply_objects(context, &look, &desired).await?;
    }
    let refusal = context.refusal(&key(&*cluster));
    let mut made = plan_past(&look.observed, &desired, refusal.as_ref());
    let mut acted = false;
    if let Next::Do(_) = made.next {
        // What was planned from memory is planned again from what the API server says itself.
        let Some(objects) = observe::read(&context.client, &cluster).await? else {
            return Ok(Action::await_change());
        };
        look = observe::look(objects).await;
        desired = Desired::of(&look.objects.cluster);
        made = plan_past(&look.observed, &desired, refusal.as_ref());
        if let Next::Do(step) = &made.next {
            let replicas = replicas(&look);
            let blueprint = blueprint(context, &look, &desired, &replicas);
            let step = &step.clone();
            let done = act(&context.client, step, &look, &desired, &blueprint).await;
            match done {
                Ok(()) => {
                    acted = true;
                    metrics::counter!("god_operator_steps_total", "step" => step.reason()).increment(1);
                    tracing::info!(cluster = %desired.name, step = step.reason(), "{}", step.describe());
                    announce(
                        context,
                        &look.objects.cluster,
                        EventType::Normal,
                        step.reason(),
                        step.describe(),
                    )
                    .await;
                }
                Err(ActError::Changed(why)) => {
                    tracing::debug!(cluster = %desired.name, step = step.reason(), why, "a step is planned anew");
                    return Ok(Action::requeue(SOON));
                }
                Err(ActError::Refused(why)) => {
                    let refusal = Refusal { step: step.clone(), why };
                    made = plan_past(&look.observed, &desired, Some(&refusal));
                    locked(&context.refusals).insert(key(&*cluster), (refusal, Instant::now()));
                }
                Err(error) => {
                    tell(context, &look, &desired, Some(&made), &[], None).await?;
                    return Err(error.into());
                }
            }
        }
    }
    tell(context, &look, &desired, Some(&made), &[], refused.as_ref()).await?;
    Ok(Action::requeue(match &made.next {
        Next::Do(_) if acted => SOON,
        Next::Do(_) | Next::Wait(_) => WAITING,
        Next::Rest if made.blocked.is_some() => WAITING,
        Next::Rest => AT_REST,
    }))
}

fn replicas(look: &Look) -> BTreeMap<String, u32> {
    look.observed.sets.iter().map(|(pool, set)| (pool.clone(), set.replicas)).collect()
}

fn blueprint<'a>(
    context: &'a Context,
    look: &'a Look,
    desired: &'a Desired,
    replicas: &'a BTreeMap<String, u32>,
) -> Blueprint<'a> {
    Blueprint {
        object: &look.objects.cluster,
        desired,
        cluster: look.observed.cluster().unwrap_or(desired.cluster),
        image: &context.image,
        replicas,
        spare: spare(look.observed.ring(), &look.objects.cluster, present_spare(context, look)),
        monitored: context.monitored,
    }
}

/// What the budget says now.
fn present_spare(context: &Context, look: &Look) -> Option<u32> {
    let cluster = &look.objects.cluster;
    let namespace = cluster.namespace()?;
    let budget = context.cache.plain(Kind::PodDisruptionBudget, &namespace, &cluster.name_any())?;
    u32::try_from(budget.pointer("/spec/maxUnavailable")?.as_u64()?).ok()
}

/// Objects that are not as they should be are made so; those that should not be are removed. Says what was refused: the
/// rest goes on.
async fn apply_objects(
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
            Kind::StatefulSet => found_set(look, &mut object),
            Kind::ServiceMonitor | Kind::PrometheusRule => {
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
        if matches!(object.kind, Kind::ServiceMonitor | Kind::PrometheusRule) {
            let mut applied = locked(&context.applied);
            applied.insert((object.kind, namespace.clone(), object.name.clone()), object.body.clone());
        }
    }
    for kind in [Kind::NetworkPolicy, Kind::ConfigMap] {
        for name in context.cache.names(kind, &look.objects.cluster) {
            let is_wanted = objects.iter().any(|object| object.kind == kind && object.name == name);
            let is_used = replicas.keys().any(|pool| desired.set_name(pool) == name);
            if !is_wanted && !(kind == Kind::ConfigMap && is_used) {
                remove_object(&context.client, &namespace, kind, &name).await?;
            }
        }
    }
    Ok(refused)
}

/// The set that is there, as JSON. What is wished for is based on its version, and keeps the volumes' size: that changes
/// by its own steps.
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

async fn tell(
    context: &Context,
    look: &Look,
    desired: &Desired,
    plan: Option<&Plan>,
    problems: &[String],
    refused: Option<&Blocked>,
) -> Result<(), TurnError> {
    let cluster = &look.objects.cluster;
    // A step may have changed the status itself.
    if matches!(
        plan.map(|plan| &plan.next),
        Some(Next::Do(
            super::plan::Step::RecordCluster(_)
                | super::plan::Step::RecordFounder { .. }
                | super::plan::Step::RecordReplaced { .. }
        ))
    ) {
        return Ok(());
    }
    let made = status(&Facts { cluster, observed: &look.observed, desired, plan, problems, refused });
    let before = cluster.status.as_ref();
    if before == Some(&made) {
        return Ok(());
    }
    let reason = |status: Option<&crate::crd::GodClusterStatus>| {
        status.and_then(|status| status.blocked.as_ref()).map(|blocked| blocked.reason.clone())
    };
    if let Some(blocked) = made.blocked.as_ref().filter(|_| reason(before) != reason(Some(&made))) {
        let note = format!("{}: {}", blocked.message, blocked.action);
        announce(context, cluster, EventType::Warning, &blocked.reason, note).await;
    }
    match write_status(&context.client, cluster, &made).await {
        // Somebody changed the object: the next turn knows.
        Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 => Ok(()),
        written => Ok(written?),
    }
}

async fn announce(context: &Context, cluster: &GodCluster, kind: EventType, reason: &str, note: String) {
    let mut note = note;
    let end = note.char_indices().map(|(at, _)| at).take_while(|at| *at <= 1_000).last().unwrap_or(0);
    if note.len() > 1_000 {
        note.truncate(end);
    }
    let event = Event {
        type_: kind,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    // An event that is not heard changes nothing.
    if let Err(error) = context.recorder.publish(&event, &cluster.object_ref(&())).await {
        tracing::debug!(%error, "an event was not taken");
    }
}

/// Keeps the finalizer in step with the deletion policy. Says whether the object changed.
async fn hold(cluster: &GodCluster, context: &Context) -> Result<bool, TurnError> {
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
async fn end(cluster: &GodCluster, context: &Context) -> Result<Action, TurnError> {
    if !cluster.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(Action::await_change());
    }
    let api = Api::<PersistentVolumeClaim>::namespaced(
        context.client.clone(),
        &cluster.namespace().unwrap_or_default(),
    );
    let mine = format!("{}={}", super::build::CLUSTER_LABEL, cluster.name_any());
    match api.list(&ListParams::default().labels(&mine)).await {
        Ok(volumes) => {
            // A claim that was copied with its labels is somebody else's.
            let mine = |volume: &PersistentVolumeClaim| {
                observe::convert::volume(volume, &cluster.name_any()).is_some()
            };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_after_failures_grow_and_have_a_bound() {
        assert!(backoff(1) < backoff(2) && backoff(2) < backoff(5));
        assert_eq!([backoff(30), backoff(u32::MAX)], [LONGEST, LONGEST]);
    }
}
