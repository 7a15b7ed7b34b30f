//! One turn for one cluster: observe, validate, plan, build, apply, status.

//!
//! - `objects`: what the API server should have is brought to it.
//! - `tell`: status and events.
//! - `trouble`: what does not go on though nobody said no.
//! - `end`: the finalizer, and what becomes of volumes.

mod end;
mod objects;
mod tell;
mod trouble;

use super::{
    apply::{ActError, act},
    build::{Blueprint, ObjectKind, spare},
    observe::{self, Cache, Look},
    plan::{Next, OPERATION_REFUSED, Plan, Refusal, plan_past},
    world::{Desired, Observed},
};
use crate::crd::{GodCluster, validate::problems};
use end::{end, hold};
use kube::{
    Client, Resource,
    core::DeserializeGuard,
    runtime::{
        controller::Action,
        events::{EventType, Recorder},
    },
};
use objects::apply_objects;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tell::{announce, announce_unreadable, tell};
use trouble::{Overtaken, astray, failed, overtaken, patiently, pause, short, unanswered, unmade};

/// Between two looks at a cluster at rest, which cost the API server nothing. What only the nodes know is seen by them,
/// and told soon enough (invariant TOLD-SOON).
const AT_REST: Duration = Duration::from_secs(3);
/// While something is waited for.
const WAITING: Duration = Duration::from_secs(1);
/// After a step.
const SOON: Duration = Duration::from_millis(100);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(60);
/// After so long an operation that the ring refused several times is asked for again.
const ASKED_AGAIN_AFTER: Duration = Duration::from_mins(5);
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
    /// Steps in a row that found the world changed.
    pub overtaken: Mutex<HashMap<Key, Overtaken>>,
    /// Since when a set lacks a pod.
    pub unmade: Mutex<HashMap<Key, Instant>>,
    /// Since when a member is up that no pod of the cluster runs.
    pub astray: Mutex<HashMap<Key, Instant>>,
    /// When the status was written last.
    pub told: Mutex<HashMap<Key, Instant>>,
    /// Operations that the ring refused.
    pub first_refusals: Mutex<HashMap<Key, FirstRefusal>>,
    /// Steps that were refused, and when.
    pub refusals: Mutex<HashMap<Key, (Refusal, Instant)>>,
    /// Objects that are not watched, as they were applied last.
    pub applied: Mutex<HashMap<(ObjectKind, String, String), serde_json::Value>>,
}

/// Namespace and name of a cluster.
pub type Key = (String, String);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// What turns share before any is taken.
    pub fn new(client: Client, cache: Cache, recorder: Recorder, image: &str, monitored: bool) -> Context {
        Context {
            client,
            cache,
            recorder,
            image: image.to_owned(),
            monitored,
            failures: Mutex::default(),
            overtaken: Mutex::default(),
            unmade: Mutex::default(),
            astray: Mutex::default(),
            told: Mutex::default(),
            first_refusals: Mutex::default(),
            refusals: Mutex::default(),
            applied: Mutex::default(),
        }
    }

    /// What was refused a moment ago.
    fn refusal(&self, key: &Key) -> Option<Refusal> {
        let mut refusals = locked(&self.refusals);
        refusals.retain(|_, (_, since)| since.elapsed() < REFUSED_FOR);
        refusals.get(key).map(|(refusal, _)| refusal.clone())
    }
}

/// That the ring refused an operation several times, as it was seen first.
#[derive(Clone, Copy, Debug)]
pub struct FirstRefusal {
    /// Epoch of the ring.
    epoch: u64,
    /// Generation of the spec.
    generation: Option<i64>,
    /// When.
    since: Instant,
}

impl FirstRefusal {
    /// Up to which epoch refusals count no more: they are long past, or somebody changed the spec.
    fn excused(self, generation: Option<i64>, now: Instant) -> u64 {
        let is_over = self.generation != generation || now.duration_since(self.since) >= ASKED_AGAIN_AFTER;
        if is_over { self.epoch } else { 0 }
    }
}

impl Context {
    /// Refusals of the ring that count no more.
    fn excused(&self, cluster: &GodCluster) -> u64 {
        let first = locked(&self.first_refusals).get(&key(cluster)).copied();
        first.map_or(0, |first| first.excused(cluster.metadata.generation, Instant::now()))
    }

    /// Remembers that the ring refuses, from the first time on that it was seen since the last excuse.
    fn note_refusals(&self, cluster: &GodCluster, observed: &Observed, plan: &Plan) {
        let is_refused = plan.blocked.as_ref().is_some_and(|blocked| blocked.reason == OPERATION_REFUSED);
        let Some(ring) = observed.ring().filter(|_| is_refused) else { return };
        let mut refusals = locked(&self.first_refusals);
        let known = refusals.get(&key(cluster));
        if known.is_none_or(|known| known.epoch <= observed.excused) {
            let generation = cluster.metadata.generation;
            refusals
                .insert(key(cluster), FirstRefusal { epoch: ring.epoch, generation, since: Instant::now() });
        }
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
        Ok(cluster) => Box::pin(turn(Arc::new(cluster.clone()), &context)).await,
        Err(invalid) => {
            tracing::warn!(name = ?invalid.metadata.name, error = %invalid.error, "a GodCluster cannot be read");
            announce_unreadable(&context, &invalid.metadata, &invalid.error).await;
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
    let held = hold(&cluster, context).await;
    if let Ok(true) = held {
        // The object changed: its watch says so.
        return Ok(Action::requeue(SOON));
    }
    let mut look = observe::look(context.cache.objects(Arc::clone(&cluster))).await;
    look.observed.excused = context.excused(&cluster);
    let problems = problems(&cluster);
    let mut desired = Desired::of(&cluster);
    if let Err(error) = held {
        return Err(failed(context, &look, &desired, None, "the finalizer", error).await);
    }
    if !problems.is_empty() {
        tell(context, &look, &desired, None, &problems, None).await?;
        return Ok(Action::requeue(LONGEST));
    }
    // What is applied follows the record: without it, pods would not know which cluster they are of.
    let is_recorded = look.observed.recorded.cluster.is_some();
    let mut refused = None;
    if is_recorded && !desired.paused {
        let applied = patiently(apply_objects(context, &look, &desired), async {
            let late = unanswered("the cluster's objects are applied");
            tell(context, &look, &desired, None, &[], Some(&late)).await
        });
        refused = match applied.await {
            Ok(refused) => refused,
            Err(error) => {
                return Err(failed(context, &look, &desired, None, "the cluster's objects", error).await);
            }
        };
    }
    let refusal = context.refusal(&key(&*cluster));
    let mut made = plan_past(&look.observed, &desired, refusal.as_ref());
    let mut acted = false;
    if let Next::Do(_) = made.next {
        // What was planned from memory is planned again from what the API server says itself.
        let objects = match observe::read(&context.client, &cluster).await {
            Ok(Some(objects)) => objects,
            Ok(None) => return Ok(Action::await_change()),
            Err(error) => {
                return Err(failed(context, &look, &desired, Some(&made), "reading it anew", error).await);
            }
        };
        look = observe::look(objects).await;
        look.observed.excused = context.excused(&look.objects.cluster);
        desired = Desired::of(&look.objects.cluster);
        made = plan_past(&look.observed, &desired, refusal.as_ref());
        if let Next::Do(step) = &made.next {
            let replicas = replicas(&look);
            let blueprint = blueprint(context, &look, &desired, &replicas);
            let step = &step.clone();
            let done = patiently(act(&context.client, step, &look, &desired, &blueprint), async {
                let late = unanswered(&step.describe());
                tell(context, &look, &desired, Some(&made), &[], Some(&late)).await
            });
            match done.await {
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
                    let so_far = Overtaken::again(&context.overtaken, key(&*cluster));
                    if let Some(stuck) = overtaken(step, &why, so_far, Instant::now()) {
                        tell(context, &look, &desired, Some(&made), &[], Some(&stuck)).await?;
                    }
                    return Ok(Action::requeue(pause(so_far.times)));
                }
                Err(ActError::Refused(why)) => {
                    let refusal = Refusal { step: step.clone(), why };
                    made = plan_past(&look.observed, &desired, Some(&refusal));
                    locked(&context.refusals).insert(key(&*cluster), (refusal, Instant::now()));
                }
                Err(error) => {
                    let what = step.describe();
                    return Err(failed(context, &look, &desired, Some(&made), &what, error).await);
                }
            }
        }
    }
    context.note_refusals(&cluster, &look.observed, &made);
    if refused.is_none() && made.blocked.is_none() && !desired.paused {
        let (key, now) = (key(&*cluster), Instant::now());
        // Both are asked each time: each remembers since when.
        let astray = astray(&context.astray, key.clone(), &look.observed, &desired, now);
        let unmade = unmade(&context.unmade, key, &look.observed, &desired, now);
        refused = astray.or(unmade).or_else(|| short(&look.objects.cluster.spec));
    }
    locked(&context.overtaken).remove(&key(&*cluster));
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
        spare: spare(look.observed.ring(), &look.objects.cluster, objects::present_spare(context, look)),
        monitored: context.monitored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_ring_refused_is_asked_again_after_a_while_or_when_the_spec_is_changed() {
        let since = Instant::now();
        let first = FirstRefusal { epoch: 9, generation: Some(2), since };
        assert_eq!(first.excused(Some(2), since), 0);
        assert_eq!(first.excused(Some(3), since), 9);
        assert_eq!(first.excused(Some(2), since + ASKED_AGAIN_AFTER), 9);
    }

    #[test]
    fn pauses_after_failures_grow_and_have_a_bound() {
        assert!(backoff(1) < backoff(2) && backoff(2) < backoff(5));
        assert_eq!([backoff(30), backoff(u32::MAX)], [LONGEST, LONGEST]);
    }

    /// The longest way from something that is in the way to its being told, while one node of a cluster keeps silent: a
    /// turn had looked just before, the pause after it passes, and the next one looks.
    #[test]
    fn pauses_leave_room_for_looks_within_the_time_in_which_people_are_told() {
        let look = crate::controller::nodes::LOOK;
        for (pause, look_before) in [(WAITING, look), (AT_REST, Duration::ZERO), (SOON, look)] {
            assert!(look_before + pause + look <= trouble::TOLD_WITHIN, "{pause:?}");
        }
    }
}
