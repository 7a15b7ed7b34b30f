//! Growing, and the way out: leave, a committed ring without the node, one pod fewer (invariants SPEC-SIZE,
//! POD-KEPT).

use super::{Decision, Step, blocked};
use crate::{
    controller::world::{
        Desired, Observed, Place,
        ring::{MemberHealth, Wish},
    },
    crd::bytes,
};

/// Pods that a pool should have: as the spec says, and one more for each member that is to be replaced while its volume
/// is there.
pub(super) fn wanted(observed: &Observed, desired: &Desired, pool: &str) -> u32 {
    let nodes = desired.pool(pool).map_or(0, |pool| pool.nodes);
    let Some(ring) = observed.ring() else { return nodes };
    let replaced = desired.replace.iter().filter(|node| {
        ring.members.contains_key(node) && observed.place_of(**node).is_some_and(|place| place.pool == pool)
    });
    nodes + replaced.count() as u32
}

/// More pods, where their places are free.
pub(super) fn grow(observed: &Observed, desired: &Desired) -> Decision {
    for pool in &desired.pools {
        let Some(set) = observed.sets.get(&pool.name) else { continue };
        let wanted = wanted(observed, desired, &pool.name);
        for ordinal in set.replicas..wanted {
            let place = Place { pool: pool.name.clone(), ordinal };
            let Some(volume) = observed.volume_at(&place) else { continue };
            if volume.terminating {
                return Decision::Wait(format!("volume {} goes", desired.volume_name(&place)));
            }
            if !observed.is_retired(volume) {
                continue;
            }
            let name = desired.volume_name(&place);
            return Decision::Blocked(blocked(
                "VolumeInQuarantine",
                format!(
                    "pool {} cannot grow: volume claim {name} of a node that left is kept for a while",
                    pool.name
                ),
                format!(
                    "wait until its quarantine ends, or annotate this GodCluster with god-db.io/release={name}"
                ),
            ));
        }
        if set.replicas < wanted {
            return Decision::Do(Step::Scale {
                pool: pool.name.clone(),
                version: set.version.clone(),
                from: set.replicas,
                to: wanted,
            });
        }
    }
    Decision::Pass
}

/// The last pod of each pool that has more than it should.
fn surplus<'a>(observed: &'a Observed, desired: &'a Desired) -> impl Iterator<Item = Place> + 'a {
    observed.sets.iter().filter_map(|(pool, set)| {
        let wanted = wanted(observed, desired, pool);
        (set.replicas > wanted).then(|| Place { pool: pool.clone(), ordinal: set.replicas - 1 })
    })
}

/// One pod fewer, once nobody needs the last one: its node left for good, or never became a member.
pub(super) fn drop_last(observed: &Observed, desired: &Desired) -> Decision {
    if observed.agreed_ring().is_none() {
        return Decision::Pass;
    }
    for place in surplus(observed, desired) {
        let Some(set) = observed.sets.get(&place.pool) else { continue };
        let is_needed = match observed.volume_at(&place) {
            Some(volume) => observed.is_held(volume),
            // A claim that is not seen says nothing about a node that runs.
            None => observed.pod_at(&place).is_some_and(|pod| observed.may_be_member(pod)),
        };
        if !is_needed {
            return Decision::Do(Step::Scale {
                pool: place.pool,
                version: set.version.clone(),
                from: set.replicas,
                to: place.ordinal,
            });
        }
    }
    Decision::Pass
}

/// The node of the last pod leaves, where the others can bear it.
pub(super) fn leave(observed: &Observed, desired: &Desired) -> Decision {
    let Some(place) = surplus(observed, desired).next() else { return Decision::Pass };
    let Some(ring) = observed.agreed_ring() else {
        return Decision::Wait("a majority of the nodes does not know the newest ring yet".to_owned());
    };
    let pod = desired.pod_name(&place);
    let leaver = observed.node_at(&place);
    let Some((uuid, member)) = leaver.and_then(|uuid| Some((uuid, ring.members.get(&uuid)?))) else {
        return Decision::Blocked(blocked(
            "NodeUnknown",
            format!("pod {pod} is to go, and which node runs on it is not known"),
            format!("see why pod {pod} does not answer: kubectl describe pod {pod}"),
        ));
    };
    if member.leaving {
        return Decision::Wait(format!("node {} leaves", member.number));
    }
    let left = ring.members.values().filter(|other| !other.leaving).count() as u32 - 1;
    if left < ring.most_copies() {
        return Decision::Blocked(blocked(
            "TooFewNodes",
            format!("{left} nodes would be left for {} copies of each key", ring.most_copies()),
            "ask for more nodes, or lower the replicas of the keyspaces first",
        ));
    }
    let away = ring.members.values().find(|other| other.state != MemberHealth::Up);
    if let Some(away) = away {
        return Decision::Blocked(blocked(
            "NodeNotUp",
            format!("node {} is not up, and no node leaves meanwhile", away.number),
            "bring it back, or replace it: see status.nodes",
        ));
    }
    let free: u64 = ring
        .members
        .iter()
        .filter(|(other, _)| **other != uuid)
        .filter_map(|(_, other)| other.report.as_ref())
        .map(|report| report.disk_free)
        .sum();
    let held = member.report.as_ref().map_or(0, |report| report.bytes);
    if free < held {
        return Decision::Blocked(blocked(
            "NoRoom",
            format!("node {} holds {}, and the others have {} free", member.number, bytes(held), bytes(free)),
            "give the pools larger volumes, or keep the node",
        ));
    }
    super::change::begin(observed, ring, Wish::Leave { node: member.number, lost: false })
}
