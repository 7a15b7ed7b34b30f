//! Tells people: the status, and events.

use super::{Context, Key, TurnError, key, locked};
use crate::{
    controller::{
        apply::write_status,
        observe::Look,
        plan::{Blocked, Next, Plan, Step},
        status::{Facts, status},
        world::Desired,
    },
    crd::{GodCluster, GodClusterStatus},
};
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
    let reason = |status: Option<&GodClusterStatus>| {
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

pub(super) async fn announce(
    context: &Context,
    cluster: &GodCluster,
    kind: EventType,
    reason: &str,
    note: String,
) {
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
