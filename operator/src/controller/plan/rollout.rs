//! Restarts: another image, configuration or wish, one node at a time, while every arc keeps a quorum.

use super::{Decision, Step, blocked, size::wanted};
use crate::controller::world::{Desired, Observed, Place, Pod, ring::MemberHealth};

fn is_outdated(observed: &Observed, pod: &Pod) -> bool {
    let revision = observed.sets.get(&pod.place.pool).and_then(|set| set.revision.as_ref());
    revision.is_some_and(|revision| *revision != pod.revision)
}

/// Pods that stand in their own way: of an older template and not up anyway, or waiting for a volume that is gone or
/// goes. Restarting them takes nothing away.
pub(super) fn unstick(observed: &Observed, _: &Desired) -> Decision {
    let ending = observed.pods.iter().any(|pod| pod.terminating);
    for pod in observed.pods.iter().filter(|pod| !pod.terminating) {
        let volume = observed.volume_at(&pod.place);
        let why = match volume {
            Some(volume) if volume.terminating => "its volume goes",
            // The set makes the volume together with the pod.
            None if pod.pending => "its volume is gone",
            None if pod.said.node().is_some_and(|node| observed.has_left(node)) => {
                "its node left for good, and its volume is gone"
            }
            // Its data would go with it.
            None if observed.may_be_member(pod) => continue,
            _ if !ending && !pod.ready && is_outdated(observed, pod) && !is_up(observed, pod) => {
                "it is not up, and outdated"
            }
            _ => continue,
        };
        return restart_of(pod, why);
    }
    Decision::Pass
}

/// Pods that do not start by themselves are for somebody to look at; the rest goes on.
pub(super) fn stuck(observed: &Observed, desired: &Desired) -> Decision {
    let found =
        observed.pods.iter().filter(|pod| !pod.terminating).find_map(|pod| Some((pod, pod.stuck.as_ref()?)));
    let Some((pod, why)) = found else { return Decision::Pass };
    let name = desired.pod_name(&pod.place);
    Decision::Blocked(blocked(
        "PodStuck",
        format!("pod {name} does not start: {why}"),
        format!(
            "see kubectl describe pod {name}, and kubectl logs {name}; what the spec says of it may be changed, and \
             the pod follows at once"
        ),
    ))
}

/// Nothing is as it should be before each place that is asked for has a pod that is ready, and whose node is up.
pub(super) fn missing(observed: &Observed, desired: &Desired) -> Decision {
    for pool in &desired.pools {
        for ordinal in 0..wanted(observed, desired, &pool.name) {
            let place = Place { pool: pool.name.clone(), ordinal };
            let name = desired.pod_name(&place);
            let Some(pod) = observed.pod_at(&place) else {
                return Decision::Wait(format!("pod {name} is made"));
            };
            if !pod.ready || pod.terminating || !is_up(observed, pod) {
                return Decision::Wait(format!("pod {name} is ready, and its node up"));
            }
        }
    }
    Decision::Pass
}

/// The others find its node.
fn is_up(observed: &Observed, pod: &Pod) -> bool {
    let node = observed.node_at(&pod.place);
    node.and_then(|node| observed.ring()?.members.get(&node))
        .is_some_and(|member| member.state == MemberHealth::Up)
}

fn restart_of(pod: &Pod, why: &str) -> Decision {
    Decision::Do(Step::Restart { place: pod.place.clone(), uid: pod.uid.clone(), why: why.to_owned() })
}

/// The next of the outdated pods, when all are back.
pub(super) fn restart(observed: &Observed, desired: &Desired) -> Decision {
    let outdated = observed.pods.iter().filter(|pod| !pod.terminating && is_outdated(observed, pod));
    let Some(pod) = outdated.max_by_key(|pod| &pod.place) else { return Decision::Pass };
    let Some(ring) = observed.agreed_ring() else {
        return Decision::Wait("a majority of the nodes does not know the newest ring yet".to_owned());
    };
    if let Some(skew) = skew(observed, desired) {
        return Decision::Blocked(skew);
    }
    let name = desired.pod_name(&pod.place);
    let pods: u32 = observed.sets.values().map(|set| set.replicas).sum();
    let others = observed.pods.iter().filter(|other| other.uid != pod.uid && !other.terminating);
    if (others.clone().filter(|other| other.ready).count() as u32) + 1 < pods {
        return Decision::Wait(format!("all other pods are ready before {name} restarts"));
    }
    if observed.is_irreplaceable(pod) {
        return Decision::Blocked(super::volumes::claim_missing(desired, pod));
    }
    let node = observed.node_at(&pod.place);
    let number = node.and_then(|node| ring.members.get(&node)).map(|member| member.number);
    let Some(number) = number else {
        if observed.volume_at(&pod.place).is_some_and(|volume| observed.is_held(volume)) {
            return Decision::Wait(format!("it is known which node runs in {name} before it restarts"));
        }
        // It is no member: nobody misses it.
        return restart_of(pod, "its template changed");
    };
    let others_up = |other: u32| {
        other != number && ring.numbered(other).is_some_and(|(_, member)| member.state == MemberHealth::Up)
    };
    if let Some(away) = ring.members.values().find(|other| other.number != number && !others_up(other.number))
    {
        return Decision::Wait(format!("node {} is up again before {name} restarts", away.number));
    }
    let behind = ring.members.values().find(|member| {
        member.report.as_ref().is_some_and(|report| report.hints > 0 || report.suspect_arcs > 0)
    });
    if let Some(behind) = behind {
        return Decision::Wait(format!(
            "node {} hands over what others missed before {name} restarts",
            behind.number
        ));
    }
    let without = ring.arcs_without_quorum(others_up);
    // Where one node decides alone, the ring stands still while it restarts; reads and writes go on.
    let undecided = ring.voters.len() > 1 && !ring.decides(others_up);
    if (without > 0 || undecided) && !desired.allow_downtime {
        return Decision::Blocked(blocked(
            "NoQuorumToSpare",
            format!(
                "{name} is outdated, and without node {number} {without} arcs, or the ring, would have no quorum"
            ),
            "add nodes or lower quorums, or set spec.disruption.allowDowntime",
        ));
    }
    restart_of(pod, "its template changed")
}

/// Versions that do not go together: nodes go to the next minor version at most, and not back.
fn skew(observed: &Observed, desired: &Desired) -> Option<super::Blocked> {
    let parts = |text: &str| -> Option<(u64, u64)> {
        let mut numbers = text.split('.').map(|part| part.parse::<u64>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    let target = desired.version.as_deref()?;
    let (major, minor) = parts(target)?;
    let far = observed.ring()?.members.values().find(|member| {
        parts(&member.version).is_some_and(|(at, step)| at != major || minor < step || minor > step + 1)
    })?;
    Some(blocked(
        "VersionSkew",
        format!("node {} runs {}, and {target} is not the next minor version", far.number, far.version),
        "go through each minor version in turn, and back to none",
    ))
}
