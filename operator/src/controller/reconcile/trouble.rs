//! What does not go on though nobody said no: calls that are not answered, turns that fail, steps that find the world
//! changed each time. People are told of it as they are of what is refused (invariant TOLD-SOON).

use super::{Context, Key, LONGEST, SOON, TurnError, backoff, key, locked, tell};
use crate::controller::{
    observe::Look,
    plan::{Blocked, Plan, Step},
    world::{
        Desired, Observed, Place,
        ring::{MemberHealth, RingMember},
    },
};
use crate::crd::{GodClusterSpec, short_pools};
use futures::{FutureExt as _, future::BoxFuture};
use std::{
    collections::HashMap,
    pin::pin,
    sync::Mutex,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Within so long people are told why it does not go on, and what to do.
#[cfg(test)]
pub(super) const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// What takes longer is told while it goes on.
const SLOW: Duration = Duration::from_secs(2);
/// So often in a row a step may find the world changed before somebody is told, and pauses grow.
const PATIENCE: u32 = 5;
/// A turn failed, and the one before it, too.
pub(super) const TURN_FAILED: &str = "TurnFailed";

/// Waits for what asks the API server or the nodes. Where that takes long, people are told meanwhile; nothing is cut
/// short.
pub(super) fn patiently<'a, T: Send + 'a>(
    work: impl Future<Output = T> + Send + 'a,
    told: impl Future<Output = Result<(), TurnError>> + Send + 'a,
) -> BoxFuture<'a, T> {
    async move {
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(SLOW, &mut work).await {
            return done;
        }
        let (done, told) = futures::join!(work, told);
        if let Err(error) = told {
            tracing::debug!(%error, "the status was not taken");
        }
        done
    }
    .boxed()
}

/// What somebody should look at while nobody answers.
pub(super) fn unanswered(what: &str) -> Blocked {
    Blocked {
        reason: "StepUnanswered",
        message: format!("{what}: nobody has answered for {} s", SLOW.as_secs()),
        action: "see whether nodes are up (status.nodes), and whether the API server's webhooks answer"
            .to_owned(),
    }
}

/// Tells of a turn that ends with an error, from the second one in a row on: it is tried again, later and later.
pub(super) async fn failed(
    context: &Context,
    look: &Look,
    desired: &Desired,
    plan: Option<&Plan>,
    what: &str,
    error: impl Into<TurnError>,
) -> TurnError {
    let error = error.into();
    let before = locked(&context.failures).get(&key(&*look.objects.cluster)).copied().unwrap_or(0);
    let blocked = (before > 0).then(|| Blocked {
        reason: TURN_FAILED,
        message: format!("{what}: {error}"),
        action: "see what the message names; it is tried again by itself, a minute later at most".to_owned(),
    });
    if (plan.is_some() || blocked.is_some())
        && let Err(error) = tell(context, look, desired, plan, &[], blocked.as_ref()).await
    {
        tracing::debug!(%error, "the status was not taken");
    }
    error
}

/// What somebody should look at when a set has made no pod for a while: what a quota, or a rule for pods, is in the way
/// of, is told in the set's own events only.
pub(super) fn unmade(
    waits: &Mutex<HashMap<Key, Instant>>,
    key: Key,
    observed: &Observed,
    desired: &Desired,
    now: Instant,
) -> Option<Blocked> {
    let missing = observed.sets.iter().filter(|(_, set)| !set.terminating).find_map(|(pool, set)| {
        let mut places = (0..set.replicas).map(|ordinal| Place { pool: pool.clone(), ordinal });
        places.find(|place| observed.pod_at(place).is_none())
    });
    let place = lasting(waits, key, missing, now)?;
    Some(Blocked {
        reason: "PodNotMade",
        message: format!("pod {} has not been made for {} s", desired.pod_name(&place), SLOW.as_secs()),
        action: format!(
            "see why: kubectl describe statefulset {}. A quota, a rule for pods or a volume that does not go may be in \
             the way",
            desired.set_name(&place.pool)
        ),
    })
}

/// What somebody should look at where the memory of a pool's pods does not hold what their nodes may take.
pub(super) fn short(spec: &GodClusterSpec) -> Option<Blocked> {
    let pool = &short_pools(spec).next()?.name;
    Some(Blocked {
        reason: "MemoryTooSmall",
        message: format!(
            "the memory limit of pool {pool} is too small: its nodes may be killed for it"
        ),
        action: "raise the limit: a node takes its memory (16MiB at least), request-memory (32MiB at least) and 150MiB \
                 beside; or lower what is given of the two"
            .to_owned(),
    })
}

/// What somebody should look at when a member has been up for a while though no claim and no pod of this cluster is
/// its: it cannot be made up for while it runs, and nothing is done to what others started. Who stops is noticed a
/// moment later, so that at first this is no trouble.
pub(super) fn astray(
    waits: &Mutex<HashMap<Key, Instant>>,
    key: Key,
    observed: &Observed,
    desired: &Desired,
    now: Instant,
) -> Option<Blocked> {
    let found = observed.agreed_ring().and_then(|ring| {
        let is_astray = |(uuid, member): &(&Uuid, &RingMember)| {
            matches!(member.state, MemberHealth::Up | MemberHealth::Unready) && observed.is_homeless(**uuid)
        };
        ring.members.iter().find(is_astray).map(|(uuid, member)| (*uuid, member.number))
    });
    let (uuid, number) = lasting(waits, key, found, now)?;
    let name = &desired.name;
    Some(Blocked {
        reason: "NodeAstray",
        message: format!(
            "node {number} ({uuid}) is up, and no volume claim and no pod of this cluster is its"
        ),
        action: format!(
            "if it was started by hand, let it leave: kubectl god run {name} ring change --leave {number}; if its pod or \
             its claim lost its labels, give them back (god-db.io/cluster={name}); else stop it, and it is made up for"
        ),
    })
}

/// What has been seen at each look for long enough to be told.
fn lasting<T>(waits: &Mutex<HashMap<Key, Instant>>, key: Key, seen: Option<T>, now: Instant) -> Option<T> {
    let mut waits = locked(waits);
    if seen.is_none() {
        waits.remove(&key);
        return None;
    }
    let since = *waits.entry(key).or_insert(now);
    seen.filter(|_| now.duration_since(since) >= SLOW)
}

/// Steps in a row that found the world changed.
#[derive(Clone, Copy, Debug)]
pub struct Overtaken {
    /// How many.
    pub(super) times: u32,
    /// Since when.
    since: Instant,
}

impl Overtaken {
    /// One more.
    pub(super) fn again(all: &Mutex<HashMap<Key, Overtaken>>, key: Key) -> Overtaken {
        let mut all = locked(all);
        let so_far = all.entry(key).or_insert_with(|| Overtaken { times: 0, since: Instant::now() });
        so_far.times = so_far.times.saturating_add(1);
        *so_far
    }
}

/// After a step that found the world changed: it is planned anew at once, but not for ever.
pub(super) fn pause(times: u32) -> Duration {
    match times.checked_sub(PATIENCE) {
        None => SOON,
        Some(more) => backoff(more).min(LONGEST),
    }
}

/// What somebody should look at when a step finds the world changed again and again. It says the same each time, so
/// that it is written once.
pub(super) fn overtaken(step: &Step, why: &str, so_far: Overtaken, now: Instant) -> Option<Blocked> {
    let is_slow = so_far.times > 1 && now.duration_since(so_far.since) >= SLOW;
    (so_far.times >= PATIENCE || is_slow).then(|| Blocked {
        reason: "StepOvertaken",
        message: format!(
            "{}: each time it is tried, the API server says that things changed: {why}",
            step.describe()
        ),
        action: "see who else changes or removes the cluster's objects: kubectl get events".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        controller::{
            observe::{Cache, Scope},
            plan::model::{World, desired},
            reconcile::reconcile,
            world::RingView,
        },
        crd::GodCluster,
    };
    use axum::{
        Json, Router,
        body::to_bytes,
        http::{Method, Request, StatusCode},
        response::{IntoResponse, Response},
    };
    use kube::{
        Client,
        core::DeserializeGuard,
        runtime::events::{Recorder, Reporter},
    };
    use serde_json::{Value, json};
    use std::sync::Arc;

    #[test]
    fn a_step_that_is_overtaken_again_and_again_pauses_and_is_told() {
        let step = Step::Cancel { id: "leave-3.1".to_owned() };
        let since = Instant::now();
        let told = |times, now| overtaken(&step, "gone", Overtaken { times, since }, now);
        assert_eq!((pause(1), told(1, since + SLOW), told(2, since)), (SOON, None, None));
        assert!(told(2, since + SLOW).is_some(), "turns may take long");
        let first = told(PATIENCE, since).unwrap();
        assert_eq!((first.reason, told(100, since)), ("StepOvertaken", Some(first.clone())));
        assert!(pause(PATIENCE) > SOON && pause(PATIENCE + 3) > pause(PATIENCE));
        assert_eq!(pause(u32::MAX), LONGEST);
    }

    #[test]
    fn a_set_that_makes_no_pod_is_told_after_a_while_and_forgotten_once_it_does() {
        let waits = Mutex::default();
        let since = Instant::now();
        let whole = World::running(3).observe();
        let mut lacking = whole.clone();
        lacking.pods.remove(1);
        let told = |observed: &Observed, now| {
            unmade(&waits, Key::default(), observed, &desired(3), now).map(|blocked| blocked.message)
        };
        assert_eq!(told(&lacking, since), None, "it may be on its way");
        assert!(told(&lacking, since + SLOW).unwrap().contains("god-a-1"));
        assert_eq!([told(&whole, since + SLOW), told(&lacking, since + SLOW)], [None, None]);
    }

    /// It was waited for in silence: nobody started it, so that nobody here will stop it.
    #[test]
    fn a_member_that_runs_elsewhere_is_told_after_a_while_and_forgotten_once_it_is_down() {
        let waits = Mutex::default();
        let since = Instant::now();
        let mut seen = World::running(3).observe();
        let elsewhere = seen.volumes.remove(1).node.unwrap();
        seen.pods.remove(1);
        let told = |seen: &Observed, now| astray(&waits, Key::default(), seen, &desired(3), now);
        assert_eq!(told(&seen, since), None, "it may be about to be seen as down");
        let blocked = told(&seen, since + SLOW).unwrap();
        assert_eq!(blocked.reason, "NodeAstray");
        assert!(blocked.message.contains(&elsewhere.to_string()), "{}", blocked.message);
        let RingView::Known(ring) = &mut seen.ring else { unreachable!("it runs") };
        ring.members.get_mut(&elsewhere).unwrap().state = MemberHealth::Down;
        assert_eq!(told(&seen, since + SLOW), None);
        let whole = World::running(3).observe();
        assert_eq!(told(&whole, since + SLOW), None);
    }

    /// What becomes of objects that an operator applies.
    #[derive(Clone, Copy, PartialEq)]
    enum Server {
        /// A webhook is in the way.
        Fails,
        /// A webhook does not answer.
        Hangs,
    }

    /// A test that waits for something fails after so long.
    const DEADLINE: Duration = Duration::from_secs(60);

    type Statuses = Arc<Mutex<Vec<Value>>>;

    fn object() -> Value {
        json!({
            "apiVersion": "god-db.io/v1alpha1", "kind": "GodCluster",
            "metadata": { "name": "store", "namespace": "shop", "uid": "u", "resourceVersion": "1" },
            "spec": { "nodePools": [{ "name": "a", "replicas": 3, "storage": { "size": "1Gi" } }] },
            "status": { "clusterId": "0d5a4a2e-9f3c-4a4e-8f55-9d2f0f4a9b11" }
        })
    }

    async fn answer(server: Server, statuses: Statuses, request: Request<axum::body::Body>) -> Response {
        let (parts, body) = request.into_parts();
        let body: Value =
            serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap_or(Value::Null);
        let path = parts.uri.path();
        if path.ends_with("/status") {
            statuses.lock().unwrap().push(body["status"].clone());
            return Json(object()).into_response();
        }
        match (parts.method, server) {
            (Method::PATCH, Server::Fails) => {
                let failed = json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500,
                    "reason": "InternalError", "message": "failed calling webhook guard.example.com"
                });
                (StatusCode::INTERNAL_SERVER_ERROR, Json(failed)).into_response()
            }
            (Method::PATCH, Server::Hangs) => std::future::pending().await,
            (Method::POST, _) => Json(body).into_response(),
            _ if path.ends_with("/store") => Json(object()).into_response(),
            _ => Json(json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": [] }))
                .into_response(),
        }
    }

    /// An operator whose API server does not take objects, and the statuses that it writes.
    fn operator(server: Server) -> (Arc<Context>, Statuses) {
        let statuses = Statuses::default();
        let noted = Arc::clone(&statuses);
        let service = move |request| answer(server, Arc::clone(&noted), request);
        let client = Client::new(Router::new().fallback(service), "shop");
        let (cache, _) = Cache::start(&client, &Scope::Namespace("shop".to_owned()));
        let reporter = Reporter { controller: "god-operator".into(), instance: None };
        (
            Arc::new(Context::new(client.clone(), cache, Recorder::new(client, reporter), "god:1", false)),
            statuses,
        )
    }

    fn cluster() -> Arc<DeserializeGuard<GodCluster>> {
        Arc::new(DeserializeGuard(Ok(serde_json::from_value(object()).unwrap())))
    }

    #[tokio::test]
    async fn a_cluster_whose_objects_are_not_taken_is_told_why_from_the_second_failure_on() {
        let (context, statuses) = operator(Server::Fails);
        reconcile(cluster(), Arc::clone(&context)).await.unwrap_err();
        assert!(statuses.lock().unwrap().is_empty(), "it may be over at once");
        reconcile(cluster(), context).await.unwrap_err();
        let told = statuses.lock().unwrap().last().unwrap()["blocked"].clone();
        assert_eq!(told["reason"], TURN_FAILED);
        assert!(told["message"].as_str().unwrap().contains("guard.example.com"), "{told}");
        assert!(!told["action"].as_str().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_cluster_whose_objects_nobody_answers_for_is_told_so_while_they_are_waited_for() {
        let (context, statuses) = operator(Server::Hangs);
        let told = async {
            loop {
                if let Some(told) = statuses.lock().unwrap().last() {
                    return told["blocked"].clone();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let told = tokio::select! {
            told = tokio::time::timeout(DEADLINE, told) => told.expect("it is told while it is waited for"),
            turned = reconcile(cluster(), context) => panic!("objects are waited for: {turned:?}"),
        };
        assert_eq!(told["reason"], "StepUnanswered");
    }
}
