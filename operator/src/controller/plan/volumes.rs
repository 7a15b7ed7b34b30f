//! Quarantine, deletion (invariant VOLUME-KEPT), expansion.

use super::{Blocked, Decision, Step, VolumeRef, blocked, size::wanted};
use crate::{
    controller::world::{Desired, Observed, Pod, Volume},
    crd::bytes,
};

/// The least that a volume is kept on which no node ever was: longer than any look at the world may be old.
const LEAST_QUARANTINE: i64 = 60;

/// Volumes without a pod: what nobody needs is kept for a while, then goes; what is needed again is taken back.
pub(super) fn tidy(observed: &Observed, desired: &Desired) -> Decision {
    if observed.agreed_ring().is_none() {
        return Decision::Pass;
    }
    for volume in observed.volumes.iter().filter(|volume| !volume.terminating) {
        let pods = observed.sets.get(&volume.place.pool).map_or(0, |set| set.replicas);
        let has_place = volume.place.ordinal < pods;
        let is_wanted = volume.place.ordinal < wanted(observed, desired, &volume.place.pool);
        let is_retired = observed.is_retired(volume);
        if !is_retired
            && volume.quarantined_until.is_some()
            && (has_place || is_wanted || observed.is_held(volume))
        {
            return Decision::Do(Step::Unquarantine { volume: VolumeRef::to(volume) });
        }
        let is_idle = !has_place && observed.pod_at(&volume.place).is_none();
        if !is_idle || observed.is_held(volume) || (is_wanted && !is_retired) {
            continue;
        }
        let least = if is_retired { 0 } else { LEAST_QUARANTINE };
        match expire(volume, observed, desired, least) {
            Decision::Pass => {}
            decision => return decision,
        }
    }
    Decision::Pass
}

/// A node that runs without a claim is let be: its data are there until its pod ends. Who leaves, or is replaced,
/// will not need it.
pub(super) fn unclaimed(observed: &Observed, desired: &Desired) -> Decision {
    if observed.agreed_ring().is_none() {
        return Decision::Pass;
    }
    let pod = observed.pods.iter().find(|pod| {
        let is_leaving = pod.said.node().is_some_and(|node| desired.replace.contains(&node))
            || pod.place.ordinal >= wanted(observed, desired, &pod.place.pool);
        observed.is_irreplaceable(pod) && !is_leaving
    });
    match pod {
        Some(pod) => Decision::Blocked(claim_missing(desired, pod)),
        None => Decision::Pass,
    }
}

/// A pod must not end, as nothing of its node would be left.
pub(super) fn claim_missing(desired: &Desired, pod: &Pod) -> Blocked {
    let (name, claim) = (desired.pod_name(&pod.place), desired.volume_name(&pod.place));
    let labelled = format!("if kubectl get pvc {claim} shows it, give it its labels back");
    let (message, action) = match pod.said.node() {
        Some(node) => (
            format!("pod {name} runs node {node}, and its volume claim {claim} is not there"),
            format!(
                "{labelled}; else ask for a new node before the pod ends: annotate this GodCluster with \
                 god-db.io/replace={node}"
            ),
        ),
        None => (
            format!("pod {name} keeps silent, and its volume claim {claim} is not there: it may run a node"),
            format!("{labelled}; if its machine is gone for good, kubectl delete pod {name} --force"),
        ),
    };
    blocked("ClaimMissing", message, action)
}

/// A volume that is wanted again, and is a retired node's, goes after its quarantine, and its pod with it: the pod then
/// starts anew as a new node.
pub(super) fn recycle(observed: &Observed, desired: &Desired) -> Decision {
    for volume in observed.volumes.iter().filter(|volume| !volume.terminating && observed.is_retired(volume))
    {
        let pods = observed.sets.get(&volume.place.pool).map_or(0, |set| set.replicas);
        if volume.place.ordinal >= pods {
            continue;
        }
        match expire(volume, observed, desired, 0) {
            Decision::Pass => {}
            decision => return decision,
        }
        let name = desired.volume_name(&volume.place);
        return Decision::Blocked(blocked(
            "VolumeInQuarantine",
            format!(
                "pod {} is of a node that left for good; a new one takes its place when volume claim {name} goes",
                desired.pod_name(&volume.place)
            ),
            format!(
                "wait until its quarantine ends, or annotate this GodCluster with god-db.io/release={name}"
            ),
        ));
    }
    Decision::Pass
}

/// Quarantine first, deletion after it. Who asked for a node to be replaced has no use for its old volume.
fn expire(volume: &Volume, observed: &Observed, desired: &Desired, least: i64) -> Decision {
    let named = desired.volume_name(&volume.place);
    let is_released = volume.node.is_some_and(|node| desired.replace.contains(&node))
        || desired.release.contains("all")
        || desired.release.contains(&named);
    match volume.quarantined_until {
        None => {
            let until = observed.now.saturating_add(desired.quarantine.max(least));
            Decision::Do(Step::Quarantine { volume: VolumeRef::to(volume), until })
        }
        Some(until) if observed.now >= until || (is_released && least == 0) => {
            Decision::Do(Step::DeleteVolume { volume: VolumeRef::to(volume), node: volume.node })
        }
        Some(_) => Decision::Pass,
    }
}

/// Volumes get as large as the spec says: each claim, then the set that makes new ones.
pub(super) fn expand(observed: &Observed, desired: &Desired) -> Decision {
    for pool in &desired.pools {
        let Some(set) = observed.sets.get(&pool.name) else { continue };
        if set.volume_bytes > pool.volume_bytes {
            return Decision::Blocked(blocked(
                "VolumeCannotShrink",
                format!("volumes of pool {} have {} already", pool.name, bytes(set.volume_bytes)),
                "put the old size back, or add a pool with smaller volumes and shrink this one to 0",
            ));
        }
        let small = observed.volumes.iter().find(|volume| {
            volume.place.pool == pool.name
                && volume.place.ordinal < set.replicas
                && !volume.terminating
                && volume.bytes < pool.volume_bytes
        });
        if let Some(volume) = small {
            return Decision::Do(Step::Expand { volume: VolumeRef::to(volume), bytes: pool.volume_bytes });
        }
        if set.volume_bytes < pool.volume_bytes {
            return Decision::Do(Step::OrphanSet { pool: pool.name.clone(), uid: set.uid.clone() });
        }
    }
    Decision::Pass
}
