//! Tells people: the status, and events.

use super::{Context, Key, TurnError, key, locked, trouble::TURN_FAILED};
use crate::{
    controller::{
        apply::write_status,
        observe::Look,
        plan::{Blocked, Next, Plan, Step},
        status::{Facts, status},
        world::Desired,
    },
    crd::{GodCluster, GodClusterStatus, OperationProgress},
};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Resource,
    runtime::events::{Event, EventType},
};
use std::time::{Duration, Instant};

/// Between two statuses that differ in figures only.
const FIGURES_EVERY: Duration = Duration::from_secs(3);

pub(super) async fn tell(
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
        Some(Next::Do(Step::RecordCluster(_) | Step::RecordFounder { .. } | Step::RecordReplaced { .. }))
    ) {
        return Ok(());
    }
    let made = status(&Facts { cluster, observed: &look.observed, desired, plan, problems, refused });
    let before = cluster.status.as_ref();
    if before == Some(&made) {
        return Ok(());
    }
    let key = key(&**cluster);
    if before.is_some_and(|before| differ_in_figures_only(before, &made))
        && !is_time_for_figures(context, &key)
    {
        return Ok(());
    }
    let reason = |status: Option<&GodClusterStatus>| {
        status.and_then(|status| status.blocked.as_ref()).map(|blocked| blocked.reason.clone())
    };
    if let Some(blocked) = made.blocked.as_ref().filter(|_| reason(before) != reason(Some(&made))) {
        let note = format!("{}: {}", blocked.message, blocked.action);
        announce(context, cluster, EventType::Warning, &blocked.reason, note).await;
    }
    locked(&context.told).insert(key, Instant::now());
    match write_status(&context.client, cluster, &made).await {
        // Somebody changed the object: the next turn knows.
        Err(kube::Error::Api(error)) if error.code == 409 || error.code == 404 => Ok(()),
        written => Ok(written?),
    }
}

/// An object that cannot be read has no status that could be written: an event has to do.
pub(super) async fn announce_unreadable(context: &Context, metadata: &ObjectMeta, why: &str) {
    let about = ObjectReference {
        api_version: Some(GodCluster::api_version(&()).into_owned()),
        kind: Some(GodCluster::kind(&()).into_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    };
    let note =
        format!("it cannot be read: {why}: put it right, or bring the CustomResourceDefinition up to date");
    publish(context, &about, EventType::Warning, "SpecUnreadable", note).await;
}

pub(super) async fn announce(
    context: &Context,
    cluster: &GodCluster,
    kind: EventType,
    reason: &str,
    note: String,
) {
    publish(context, &cluster.object_ref(&()), kind, reason, note).await;
}

async fn publish(context: &Context, about: &ObjectReference, kind: EventType, reason: &str, note: String) {
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
    if let Err(error) = context.recorder.publish(&event, about).await {
        tracing::debug!(%error, "an event was not taken");
    }
}

/// Whether nothing but figures changed that change all the time while data move. Each write of the status makes for a
/// turn, so such figures would make for turn after turn.
fn differ_in_figures_only(before: &GodClusterStatus, after: &GodClusterStatus) -> bool {
    let without = |status: &GodClusterStatus| {
        let mut status = status.clone();
        if let Some(operation) = &mut status.operation {
            *operation = OperationProgress {
                id: std::mem::take(&mut operation.id),
                what: std::mem::take(&mut operation.what),
                phase: std::mem::take(&mut operation.phase),
                queued: operation.queued,
                ..OperationProgress::default()
            };
        }
        status.nodes.iter_mut().for_each(|node| node.bytes = None);
        // Errors may name a port or a time, and so differ each time.
        if let Some(blocked) = status.blocked.as_mut().filter(|blocked| blocked.reason == TURN_FAILED) {
            blocked.message.clear();
            status.conditions.iter_mut().for_each(|condition| condition.message.clear());
        }
        status
    };
    without(before) == without(after)
}

/// The last status was written long enough ago. What was long ago is forgotten.
fn is_time_for_figures(context: &Context, key: &Key) -> bool {
    let mut told = locked(&context.told);
    told.retain(|_, at| at.elapsed() < FIGURES_EVERY);
    !told.contains_key(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{BlockedStatus, NodeState, Phase};

    #[test]
    fn figures_alone_are_told_less_often_than_what_happens() {
        let operation = OperationProgress {
            id: "join-4.1".to_owned(),
            phase: "moving".to_owned(),
            bytes_done: 5,
            progress: "1%".to_owned(),
            ..OperationProgress::default()
        };
        let node = NodeState { number: 1, bytes: Some(10), ..NodeState::default() };
        let before =
            GodClusterStatus { operation: Some(operation), nodes: vec![node], ..GodClusterStatus::default() };
        let after = |change: fn(&mut GodClusterStatus)| {
            let mut after = before.clone();
            change(&mut after);
            differ_in_figures_only(&before, &after)
        };
        assert!(after(|it| it.nodes[0].bytes = Some(20)));
        assert!(after(|it| {
            let operation = it.operation.as_mut().unwrap();
            (operation.bytes_done, operation.eta_seconds, operation.progress) = (9, Some(3), "2%".to_owned());
        }));
        assert!(!after(|it| it.operation.as_mut().unwrap().phase = "cleaning".to_owned()));
        assert!(!after(|it| it.operation = None));
        assert!(!after(|it| it.phase = Phase::Blocked));
        assert!(!after(|it| it.nodes[0].state = "down".to_owned()));
    }

    #[test]
    fn errors_that_differ_each_time_are_told_less_often_than_other_ones() {
        let blocked = |reason: &str, message: &str| GodClusterStatus {
            blocked: Some(BlockedStatus {
                reason: reason.to_owned(),
                message: message.to_owned(),
                action: String::new(),
            }),
            ..GodClusterStatus::default()
        };
        let differ = |reason: &str| {
            differ_in_figures_only(&blocked(reason, "at port 1"), &blocked(reason, "at port 2"))
        };
        assert!(differ(TURN_FAILED) && !differ("NodeNotUp"));
    }
}
