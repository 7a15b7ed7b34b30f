//! Sets, waking and hibernating, the founding (invariant FOUNDED-ONCE).

use super::{Decision, Step, blocked, size::wanted};
use crate::controller::world::{Desired, Observed, RingView, Said};

/// For so many seconds nodes may keep silent before somebody should look: as they all do when they start.
const SILENT_FOR: i64 = 30;

/// No pods run while the cluster hibernates. Volumes stay, whoever's they are.
pub(super) fn hibernate(observed: &Observed, desired: &Desired) -> Decision {
    if !desired.hibernate {
        return Decision::Pass;
    }
    if let Some(operation) = observed.ring().and_then(|ring| ring.operations.first()) {
        return Decision::Wait(format!("operation {} ends before the cluster hibernates", operation.id));
    }
    if let Some(pod) = observed.pods.iter().find(|pod| !pod.terminating && observed.is_irreplaceable(pod)) {
        return Decision::Stop(super::volumes::claim_missing(desired, pod));
    }
    for (pool, set) in &observed.sets {
        if set.replicas > 0 {
            return Decision::Do(Step::Scale {
                pool: pool.clone(),
                version: set.version.clone(),
                from: set.replicas,
                to: 0,
            });
        }
    }
    match observed.pods.len() {
        0 => Decision::Wait("the cluster hibernates: spec.hibernate is set".to_owned()),
        pods => Decision::Wait(format!("{pods} pods end")),
    }
}

/// Every pool has its set.
pub(super) fn sets(observed: &Observed, desired: &Desired) -> Decision {
    if let Some((pool, _)) = observed.sets.iter().find(|(_, set)| set.terminating) {
        return Decision::Wait(format!("the StatefulSet of pool {pool} is being deleted"));
    }
    for pool in &desired.pools {
        if observed.sets.contains_key(&pool.name) {
            continue;
        }
        // Volumes that are there may be needed; only where there are none at all it is a new pool.
        let held = observed.held(&pool.name);
        let is_new = observed.volumes.iter().all(|volume| volume.place.pool != pool.name);
        let replicas = if is_new { pool.nodes } else { held };
        return Decision::Do(Step::CreateSet { pool: pool.name.clone(), replicas });
    }
    let lost = observed.volumes.iter().find(|volume| {
        !observed.sets.contains_key(&volume.place.pool)
            && desired.pool(&volume.place.pool).is_none()
            && observed.agreed_ring().is_some()
            && observed.is_held(volume)
    });
    match lost {
        Some(volume) => Decision::Blocked(blocked(
            "PoolMissing",
            format!(
                "pool {} is not in the spec, and one of its volumes holds a member's data",
                volume.place.pool
            ),
            "put the pool back with 0 replicas: its nodes leave in order",
        )),
        None => Decision::Pass,
    }
}

/// Every volume that is or may be needed has its pod: after hibernating, or when somebody scaled a set down by hand.
pub(super) fn wake(observed: &Observed, _: &Desired) -> Decision {
    for (pool, set) in &observed.sets {
        let held = observed.held(pool);
        if set.replicas < held {
            return Decision::Do(Step::Scale {
                pool: pool.clone(),
                version: set.version.clone(),
                from: set.replicas,
                to: held,
            });
        }
    }
    Decision::Pass
}

/// The cluster is founded once: who is to do so is written down first, and only that node, on that volume, is told.
/// Past this rule the ring is known.
pub(super) fn found(observed: &Observed, desired: &Desired) -> Decision {
    let why = match &observed.ring {
        RingView::Known(_) => return Decision::Pass,
        RingView::Unknown(why) => why,
    };
    let was_member = observed.volumes.iter().any(|volume| volume.cluster.is_some());
    let is_member = observed.pods.iter().any(|pod| matches!(pod.said, Said::Member { .. }));
    let is_silent = observed.recorded.silent_since.is_some_and(|since| observed.now - since >= SILENT_FOR);
    if (was_member || is_member) && is_silent {
        return Decision::Stop(blocked(
            "RingUnknown",
            format!("no node has told of the ring for a while: {why}"),
            format!("see why the pods do not answer: kubectl logs -l god-db.io/cluster={}", desired.name),
        ));
    }
    if was_member || is_member {
        return Decision::Wait(format!("the ring is not known: {why}"));
    }
    let fresh = |pod: &&crate::controller::world::Pod| matches!(pod.said, Said::Fresh(_)) && !pod.terminating;
    if let Some((node, volume)) = &observed.recorded.founder {
        let is_there = observed.volumes.iter().any(|found| found.uid == *volume);
        if is_there {
            let mut pods = observed.pods.iter().filter(fresh);
            return match pods.find(|pod| pod.said == Said::Fresh(*node)) {
                Some(_) => Decision::Do(Step::Init { node: *node }),
                None => {
                    Decision::Wait(format!("node {node}, which is to found the cluster, does not answer yet"))
                }
            };
        }
        // Its volume is gone. Nobody else is a member only where each says so.
        let all_fresh = !observed.pods.is_empty()
            && observed.pods.iter().all(|pod| fresh(&pod))
            && observed.volumes.iter().all(|volume| observed.pod_at(&volume.place).is_some());
        if !all_fresh {
            return Decision::Wait(format!(
                "the volume of node {node}, which was to found the cluster, is gone; another one is chosen when all \
                 pods say that they are in no cluster"
            ));
        }
    }
    let first = desired.pools.iter().find_map(|pool| {
        observed.pods.iter().filter(fresh).find(|pod| pod.place.pool == pool.name && pod.place.ordinal == 0)
    });
    let known = first.and_then(|pod| {
        let volume = observed.volume_at(&pod.place)?;
        (volume.node.is_some() && volume.node == pod.said.node() && !volume.terminating).then_some(volume)
    });
    match known.and_then(|volume| Some((volume.node?, volume.uid.clone()))) {
        Some((node, volume)) => Decision::Do(Step::RecordFounder { node, volume }),
        None => Decision::Wait("the first pod starts, and founds the cluster".to_owned()),
    }
}

/// A pool that is not in the spec and has neither pods nor wanted volumes has no set.
pub(super) fn remove_sets(observed: &Observed, desired: &Desired) -> Decision {
    let empty = observed.sets.iter().find(|(pool, set)| {
        desired.pool(pool).is_none()
            && set.replicas == 0
            && wanted(observed, desired, pool) == 0
            && observed.pods.iter().all(|pod| pod.place.pool != **pool)
    });
    match empty {
        Some((pool, set)) => Decision::Do(Step::DeleteSet {
            pool: pool.clone(),
            uid: set.uid.clone(),
            version: set.version.clone(),
        }),
        None => Decision::Pass,
    }
}
