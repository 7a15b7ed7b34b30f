//! The status: a pure function from what was seen and planned. It says nothing that was not seen.

use super::{
    build::CLUSTER_LABEL,
    plan::{Blocked, Next, Plan, Step},
    world::{
        Desired, Observed,
        ring::{self, MemberHealth, Ring, RingMember, Wish},
    },
};
use crate::crd::{
    BlockedStatus, GodCluster, GodClusterStatus, NodeState, OperationProgress, Phase, QuarantinedVolume,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// What the status is made of.
pub struct Facts<'a> {
    /// The object as it was read.
    pub cluster: &'a GodCluster,
    /// What was seen.
    pub observed: &'a Observed,
    /// What is wished for.
    pub desired: &'a Desired,
    /// What was planned; nothing where the spec breaks a rule.
    pub plan: Option<&'a Plan>,
    /// What is wrong with the spec.
    pub problems: &'a [String],
    /// What the API server or the ring did not want to do.
    pub refused: Option<&'a Blocked>,
}

/// The status, from now on.
pub fn status(facts: &Facts) -> GodClusterStatus {
    let Facts { cluster, observed, desired, .. } = facts;
    let previous = cluster.status.clone().unwrap_or_default();
    let ring = observed.ring();
    let blocked = blocked(facts);
    let up = ring
        .map_or(0, |ring| ring.members.values().filter(|member| member.state == MemberHealth::Up).count());
    let mut status = GodClusterStatus {
        observed_generation: cluster.metadata.generation,
        phase: phase(facts, ring, blocked.is_some()),
        conditions: Vec::new(),
        epoch: ring.map(|ring| ring.epoch).or(previous.epoch),
        replicas: observed.pods.len() as u32,
        ready_replicas: up as u32,
        nodes_ready: format!("{up}/{}", desired.nodes()),
        selector: format!("{CLUSTER_LABEL}={}", desired.name),
        // Nobody to ask is no reason to forget who there is.
        nodes: ring.map_or_else(|| previous.nodes.clone(), |ring| nodes(ring, observed, desired)),
        operation: ring.and_then(operation),
        waiting: match facts.plan.map(|plan| &plan.next) {
            Some(Next::Wait(why)) if blocked.is_none() => Some(why.clone()),
            Some(Next::Do(step)) => Some(step.describe()),
            _ => None,
        },
        blocked,
        quarantine: quarantine(observed, desired),
        ..previous.clone()
    };
    status.conditions = conditions(facts, ring, &status, &previous.conditions);
    status
}

fn blocked(facts: &Facts) -> Option<BlockedStatus> {
    let shown = |blocked: &Blocked| BlockedStatus {
        reason: blocked.reason.to_owned(),
        message: blocked.message.clone(),
        action: blocked.action.clone(),
    };
    if let Some(problem) = facts.problems.first() {
        let (message, action) = problem.split_once(": ").unwrap_or((problem, "change the spec"));
        return Some(BlockedStatus {
            reason: "SpecInvalid".to_owned(),
            message: message.to_owned(),
            action: action.to_owned(),
        });
    }
    facts.refused.or_else(|| facts.plan?.blocked.as_ref()).map(shown)
}

fn phase(facts: &Facts, ring: Option<&Ring>, is_blocked: bool) -> Phase {
    let Facts { cluster, observed, desired, plan, .. } = facts;
    if cluster.metadata.deletion_timestamp.is_some() {
        return Phase::Deleting;
    }
    if !facts.problems.is_empty() {
        return Phase::Invalid;
    }
    if desired.paused {
        return Phase::Paused;
    }
    if desired.hibernate && observed.pods.is_empty() {
        return Phase::Hibernated;
    }
    if is_blocked {
        return Phase::Blocked;
    }
    let Some(ring) = ring else {
        let was_there = observed.volumes.iter().any(|volume| volume.cluster.is_some());
        return match (was_there, observed.sets.is_empty()) {
            (true, _) => Phase::Degraded,
            (false, true) => Phase::Pending,
            (false, false) => Phase::Creating,
        };
    };
    match ring.operations.first().map(|operation| &operation.wish) {
        Some(Wish::Join(_)) => return Phase::Growing,
        Some(Wish::Leave { lost: false, .. }) => return Phase::Shrinking,
        Some(_) => return Phase::Moving,
        None => {}
    }
    let step = match plan.map(|plan| &plan.next) {
        Some(Next::Do(step)) => Some(step),
        _ => None,
    };
    let pods: u32 = observed.sets.values().map(|set| set.replicas).sum();
    let outdated = observed.pods.iter().any(|pod| {
        observed
            .sets
            .get(&pod.place.pool)
            .and_then(|set| set.revision.as_ref())
            .is_some_and(|it| *it != pod.revision)
    });
    let all_up = ring.members.values().all(|member| member.state == MemberHealth::Up);
    match step {
        _ if pods > desired.nodes() => Phase::Shrinking,
        _ if pods < desired.nodes() || (ring.members.len() as u32) < desired.nodes() => Phase::Growing,
        Some(
            Step::Restart { .. } | Step::Expand { .. } | Step::OrphanSet { .. } | Step::CreateSet { .. },
        ) => Phase::Updating,
        _ if outdated => Phase::Updating,
        _ if !all_up || (observed.pods.len() as u32) < pods => missing(cluster),
        Some(Step::Begin { .. }) => Phase::Moving,
        // All members are up, and services do not reach all of them.
        _ if observed.pods.iter().any(|pod| !pod.ready) => missing(cluster),
        _ => Phase::Ready,
    }
}

/// A node is not there, or not yet: what brings it goes on, or something took it away.
fn missing(cluster: &GodCluster) -> Phase {
    match cluster.status.as_ref().map(|status| status.phase).unwrap_or_default() {
        Phase::Pending | Phase::Creating => Phase::Creating,
        before @ (Phase::Growing | Phase::Shrinking | Phase::Updating) => before,
        _ => Phase::Degraded,
    }
}

fn nodes(ring: &Ring, observed: &Observed, desired: &Desired) -> Vec<NodeState> {
    let state = |member: &RingMember| match (member.leaving, member.state) {
        (true, _) => "leaving",
        (_, MemberHealth::Up) => "up",
        (_, MemberHealth::Unready) => "unready",
        (_, MemberHealth::Suspect) => "suspect",
        (_, MemberHealth::Down) => "down",
    };
    let mut nodes: Vec<NodeState> = ring
        .members
        .iter()
        .map(|(uuid, member)| NodeState {
            uuid: uuid.to_string(),
            number: member.number,
            pod: observed.place_of(*uuid).map(|place| desired.pod_name(place)).unwrap_or_default(),
            state: state(member).to_owned(),
            zone: member.zone.clone(),
            weight: f64::from(member.weight) / 1_000.0,
            arcs: ring.arcs_of(member.number) as u32,
            bytes: member.report.as_ref().map(|report| rounded(report.bytes)),
            version: member.version.clone(),
            reasons: member.report.as_ref().map(|report| report.reasons.clone()).unwrap_or_default(),
        })
        .collect();
    nodes.sort_by_key(|node| node.number);
    nodes
}

/// Two digits: the status is not written for every key that is.
fn rounded(bytes: u64) -> u64 {
    let mut unit = 1;
    while bytes / unit >= 100 {
        unit *= 10;
    }
    bytes / unit * unit
}

fn operation(ring: &Ring) -> Option<OperationProgress> {
    let first = ring.operations.first()?;
    let figures = first.progress;
    let phase = match first.phase {
        ring::OperationPhase::Waiting => "waiting",
        ring::OperationPhase::Moving => "moving",
        ring::OperationPhase::Cleaning => "cleaning",
        ring::OperationPhase::Cancelling => "cancelling",
    };
    let percent =
        (u64::from(figures.arcs_done) * 100).checked_div(u64::from(figures.arcs_total)).unwrap_or(0);
    Some(OperationProgress {
        id: first.id.clone(),
        what: first.wish.describe(),
        phase: phase.to_owned(),
        progress: format!("{percent}%"),
        arcs_done: figures.arcs_done,
        arcs_total: figures.arcs_total,
        bytes_done: figures.bytes_done,
        bytes_total: figures.bytes_total,
        eta_seconds: (figures.eta_ms > 0).then(|| figures.eta_ms.div_ceil(1_000)),
        queued: ring.operations.len().saturating_sub(1) as u32,
    })
}

fn quarantine(observed: &Observed, desired: &Desired) -> Vec<QuarantinedVolume> {
    let shown = |at: i64| Timestamp::from_second(at).map(|time| time.to_string()).unwrap_or_default();
    observed
        .volumes
        .iter()
        .filter_map(|volume| {
            Some(QuarantinedVolume {
                volume: desired.volume_name(&volume.place),
                node: volume.node.map(|node| node.to_string()).unwrap_or_default(),
                until: shown(volume.quarantined_until?),
            })
        })
        .collect()
}

fn conditions(
    facts: &Facts,
    ring: Option<&Ring>,
    status: &GodClusterStatus,
    previous: &[Condition],
) -> Vec<Condition> {
    let rests = matches!(facts.plan.map(|plan| &plan.next), Some(Next::Rest));
    let is_blocked = status.blocked.is_some();
    let up = |ring: &Ring, number: u32| {
        ring.numbered(number).is_some_and(|(_, member)| member.state == MemberHealth::Up)
    };
    let without = ring.map(|ring| ring.arcs_without_quorum(|number| up(ring, number)));
    let available = match without {
        Some(0) => ("True", "QuorumUp", "every arc has a quorum".to_owned()),
        Some(arcs) => ("False", "QuorumLost", format!("{arcs} arcs have no quorum")),
        // Nobody is asked: it is known that nobody answers.
        None if facts.desired.hibernate => ("False", "Hibernates", "no pods run".to_owned()),
        None => ("Unknown", "RingUnknown", "no node told of the ring".to_owned()),
    };
    let away = ring.and_then(|ring| ring.members.values().find(|member| member.state != MemberHealth::Up));
    let degraded = match (away, ring) {
        (Some(member), _) => ("True", "NodeAway", format!("node {} is not up", member.number)),
        (None, Some(_)) => ("False", "AllUp", "all members are up".to_owned()),
        (None, None) => ("Unknown", "RingUnknown", "no node told of the ring".to_owned()),
    };
    let why = status.waiting.clone().unwrap_or_default();
    let progressing = match (rests, is_blocked) {
        (true, _) => ("False", "AtRest", "there is nothing to do".to_owned()),
        (false, true) => ("False", "Blocked", "it does not go on: see status.blocked".to_owned()),
        (false, false) => ("True", "UnderWay", why),
    };
    let reconciled = match &status.blocked {
        Some(blocked) => {
            ("False", blocked.reason.as_str(), format!("{}: {}", blocked.message, blocked.action))
        }
        None if rests => ("True", "AsWished", "everything is as the spec says".to_owned()),
        None => ("False", "UnderWay", "not everything is as the spec says yet".to_owned()),
    };
    let made = [
        ("Available", available),
        ("Progressing", progressing),
        ("Degraded", degraded),
        ("Reconciled", reconciled),
    ];
    made.into_iter()
        .map(|(kind, (value, reason, message))| {
            let known = previous.iter().find(|known| known.type_ == kind && known.status == value);
            Condition {
                type_: kind.to_owned(),
                status: value.to_owned(),
                reason: reason.to_owned(),
                message,
                observed_generation: facts.cluster.metadata.generation,
                last_transition_time: known.map_or_else(
                    || Time(Timestamp::from_second(facts.observed.now).unwrap_or_default()),
                    |known| known.last_transition_time.clone(),
                ),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
