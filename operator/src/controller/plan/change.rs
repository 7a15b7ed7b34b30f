//! Operations on the ring. One at a time; each is named by the number of its node, which is never given twice.

use super::{Decision, Step, blocked, size::wanted};
use crate::controller::world::{
    Desired, Observed,
    ring::{Ended, MemberHealth, OperationPhase, Ring, RingMember, Wish},
};
use uuid::Uuid;

/// How often what the ring refused is asked again before somebody should look.
const ATTEMPTS: usize = 3;
/// What the ring refused several times waits; it is asked again after a while, or when the spec is changed.
pub const OPERATION_REFUSED: &str = "OperationRefused";

/// Whatever is to change, the ring does not, while too few of those are up that decide it.
pub(super) fn undecided(observed: &Observed, _: &Desired) -> Decision {
    let Some(ring) = observed.ring() else { return Decision::Pass };
    let is_there =
        |number: u32| ring.numbered(number).is_some_and(|(_, member)| member.state != MemberHealth::Down);
    if ring.decides(is_there) {
        return Decision::Pass;
    }
    let down: Vec<String> =
        ring.voters.iter().filter(|voter| !is_there(**voter)).map(ToString::to_string).collect();
    Decision::Blocked(blocked(
        "NoMajority",
        format!(
            "of the {} nodes that decide the ring too many are down: {}",
            ring.voters.len(),
            down.join(", ")
        ),
        "see why their pods are not up (kubectl get pods; status.nodes has the nodes); where their data are gone for \
         good, kubectl god run NAME recover",
    ))
}

/// A leave is undone when the node is wanted again, a join when it is not.
pub(super) fn cancel(observed: &Observed, desired: &Desired) -> Decision {
    let Some(ring) = observed.ring() else { return Decision::Pass };
    for operation in ring.operations.iter().filter(|operation| operation.phase != OperationPhase::Cancelling)
    {
        let ours = ["leave-", "join-", "replace-"].iter().any(|base| operation.id.starts_with(base));
        let turned = match operation.wish {
            _ if !ours => false,
            Wish::Leave { node, lost: false } => is_wanted(observed, desired, ring, node) == Some(true),
            Wish::Join(node) => is_wanted(observed, desired, ring, node) == Some(false),
            Wish::Replace { old, lost: false, .. } => {
                ring.numbered(old).is_some_and(|(uuid, _)| !desired.replace.contains(&uuid))
            }
            _ => false,
        };
        if turned {
            return Decision::Do(Step::Cancel { id: operation.id.clone() });
        }
    }
    Decision::Pass
}

/// Whether the place of a node's volume is one that the spec asks for. `None`: where it is, is not known.
fn is_wanted(observed: &Observed, desired: &Desired, ring: &Ring, number: u32) -> Option<bool> {
    let (uuid, _) = ring.numbered(number)?;
    let place = observed.place_of(uuid)?;
    Some(place.ordinal < wanted(observed, desired, &place.pool))
}

/// Nothing else is asked of the ring while it is busy.
pub(super) fn under_way(observed: &Observed, _: &Desired) -> Decision {
    let Some(ring) = observed.ring() else { return Decision::Wait("the ring is not known".to_owned()) };
    let Some(first) = ring.operations.first() else { return Decision::Pass };
    if !first.blocked.is_empty() {
        return Decision::Stop(blocked(
            "OperationBlocked",
            format!("operation {} ({}) does not go on: {}", first.id, first.wish.describe(), first.blocked),
            "bring the nodes back that it waits for, or undo what was asked: see status.nodes",
        ));
    }
    Decision::Wait(format!("operation {} ends: {}", first.id, first.wish.describe()))
}

/// A member that has no arcs though there are data, and was never given its part.
fn is_unused(ring: &Ring, member: &RingMember) -> bool {
    let joined = |ended: &&Ended| !ended.cancelled && ended.refused.is_empty();
    !member.leaving
        && ring.has_data()
        && ring.arcs_of(member.number) == 0
        && ring.ended(&format!("join-{}", member.number)).find(joined).is_none()
}

/// Unused members that are up, on volumes that are known and wanted.
fn unused<'a>(
    observed: &'a Observed,
    desired: &'a Desired,
    ring: &'a Ring,
) -> impl Iterator<Item = (Uuid, &'a RingMember)> {
    ring.members.iter().map(|(uuid, member)| (*uuid, member)).filter(move |(_, member)| {
        is_unused(ring, member)
            && member.state == MemberHealth::Up
            && is_wanted(observed, desired, ring, member.number) == Some(true)
    })
}

/// An operation is about it.
fn is_busy(ring: &Ring, number: u32) -> bool {
    ring.operations.iter().any(|operation| operation.wish.nodes().contains(&number))
}

/// Who is to take a node's place: of its zone if there is one.
fn successor(observed: &Observed, desired: &Desired, ring: &Ring, old: &RingMember) -> Option<u32> {
    unused(observed, desired, ring)
        .map(|(_, member)| (member.zone != old.zone, member.number))
        .filter(|(_, number)| *number != old.number && !is_busy(ring, *number))
        .min()
        .map(|(_, number)| number)
}

/// A lost volume is made up for while something else is under way: that may wait for the very node whose data are gone,
/// and for ever. The ring lets what makes up for lost data go first. One at a time, as ever.
pub(super) fn make_up_meanwhile(observed: &Observed, desired: &Desired) -> Decision {
    let Some(ring) = observed.agreed_ring() else { return Decision::Pass };
    if ring.operations.is_empty() || ring.operations.iter().any(|it| it.wish.is_for_lost()) {
        return Decision::Pass;
    }
    match make_up(observed, desired) {
        // What is under way says more of what is waited for.
        Decision::Wait(_) => Decision::Pass,
        decision => decision,
    }
}

/// A member whose volume is gone is made up for: by a new node on a new volume in its place, or by the others where the
/// spec asks for fewer nodes. That it is gone is written down first; what is seen afterwards must still say so.
pub(super) fn make_up(observed: &Observed, desired: &Desired) -> Decision {
    let Some(ring) = observed.agreed_ring() else {
        // A new pod takes nothing away, and may be what is lacking.
        return match super::size::grow(observed, desired) {
            Decision::Pass => {
                Decision::Wait("a majority of the nodes does not know the newest ring yet".to_owned())
            }
            decision => decision,
        };
    };
    let gone = ring.members.iter().find(|(uuid, _)| observed.is_homeless(**uuid));
    let Some((uuid, member)) = gone else { return Decision::Pass };
    let number = member.number;
    if matches!(member.state, MemberHealth::Up | MemberHealth::Unready) {
        return Decision::Wait(format!("node {number} was up just now, though its volume claim is gone"));
    }
    if member.state != MemberHealth::Down {
        return Decision::Wait(format!("it is not sure yet that node {number} is down"));
    }
    let asked = desired.replace.contains(uuid);
    let recorded = observed.recorded.replaced.iter().any(|(node, _)| node == uuid);
    let how = "annotate this GodCluster with god-db.io/replace=";
    if !asked && !desired.replace_automatically {
        return Decision::Blocked(blocked(
            "VolumeLost",
            format!("the volume of node {number} ({uuid}) is gone, and spec.replacement.automatic is off"),
            format!("{how}{uuid}"),
        ));
    }
    let since = observed.now.saturating_sub(desired.replace_window);
    let lately = observed.recorded.replaced.iter().filter(|(_, at)| *at > since).count() as u32;
    if !asked && !recorded && lately >= desired.replace_max {
        return Decision::Blocked(blocked(
            "ReplacementBudget",
            format!("the volume of node {number} ({uuid}) is gone, and {lately} others were lately"),
            format!("see why volumes are lost; to replace it nevertheless, {how}{uuid}"),
        ));
    }
    let is_up = |other: u32| ring.numbered(other).is_some_and(|(_, member)| member.state == MemberHealth::Up);
    let without = ring.arcs_without_quorum(is_up);
    if !asked && without > 0 {
        return Decision::Blocked(blocked(
            "DataAtRisk",
            format!(
                "the volume of node {number} ({uuid}) is gone, and {without} arcs have no quorum without it"
            ),
            format!("bring the other nodes back; to give up what only it had, {how}{uuid}"),
        ));
    }
    let wish = match successor(observed, desired, ring, member) {
        Some(new) => Wish::Replace { old: number, new, lost: true },
        None if !ring.has_data() || ring.members.len() as u32 > desired.nodes().max(ring.most_copies()) => {
            // Everybody who is wanted is there, and has its part or is being given it: that may wait for what is gone.
            let settled = ring.members.iter().all(|(other, it)| {
                observed.is_homeless(*other)
                    || is_wanted(observed, desired, ring, it.number) == Some(false)
                    || (it.state == MemberHealth::Up && (!is_unused(ring, it) || is_busy(ring, it.number)))
            });
            if !settled {
                return Decision::Wait(format!("a new node takes the place of node {number}"));
            }
            Wish::Leave { node: number, lost: true }
        }
        None => {
            // The place is made again by its set, or by growing. Or a pod runs a node that left, and must give way.
            let grown = super::size::grow(observed, desired);
            let grown =
                if let Decision::Pass = grown { super::volumes::recycle(observed, desired) } else { grown };
            return match grown {
                Decision::Pass => Decision::Wait(format!("a new node takes the place of node {number}")),
                decision => decision,
            };
        }
    };
    if !recorded {
        return Decision::Do(Step::RecordReplaced { node: *uuid, at: observed.now });
    }
    begin(observed, ring, wish)
}

/// A node that somebody asked to be replaced while its volume is there: its successor is one more node, and takes over
/// from it, or from the others where it is down.
pub(super) fn replace(observed: &Observed, desired: &Desired) -> Decision {
    let Some(ring) = observed.ring() else { return Decision::Pass };
    for uuid in &desired.replace {
        let Some(member) = ring.members.get(uuid).filter(|_| observed.place_of(*uuid).is_some()) else {
            continue;
        };
        let others = |other: u32| {
            other != member.number && ring.numbered(other).is_some_and(|(_, it)| it.state == MemberHealth::Up)
        };
        let lost = member.state == MemberHealth::Down;
        if lost && ring.arcs_without_quorum(others) > 0 {
            return Decision::Blocked(blocked(
                "DataAtRisk",
                format!("node {} is down, and some arcs have no quorum without it", member.number),
                "bring it or the other nodes back; or delete its volume claim to give up what only it had",
            ));
        }
        let Some(new) = successor(observed, desired, ring, member) else { continue };
        let wish = Wish::Replace { old: member.number, new, lost };
        return begin(observed, ring, wish);
    }
    Decision::Pass
}

/// Weights and zones are as the pools say.
pub(super) fn weigh(observed: &Observed, desired: &Desired) -> Decision {
    let Some(ring) = observed.ring() else { return Decision::Pass };
    for (uuid, member) in ring.members.iter().filter(|(_, member)| !member.leaving) {
        let Some(pool) = observed.place_of(*uuid).and_then(|place| desired.pool(&place.pool)) else {
            continue;
        };
        let wish = if member.weight != pool.weight {
            Wish::Reweight(member.number, pool.weight)
        } else if member.zone != pool.zone {
            Wish::Rezone(member.number, pool.zone.clone())
        } else {
            continue;
        };
        return begin(observed, ring, wish);
    }
    Decision::Pass
}

/// New members take their part, one after the other.
pub(super) fn join(observed: &Observed, desired: &Desired) -> Decision {
    let Some(ring) = observed.ring() else { return Decision::Pass };
    // A node that is to take somebody's place does not take a part of its own.
    let kept = ring.members.iter().any(|(uuid, _)| {
        observed.is_homeless(*uuid) || (desired.replace.contains(uuid) && observed.place_of(*uuid).is_some())
    });
    let next = unused(observed, desired, ring).map(|(_, member)| member.number).min();
    match next {
        Some(number) if !kept => begin(observed, ring, Wish::Join(number)),
        _ => Decision::Pass,
    }
}

/// Keyspaces are there, with as many copies as they should have.
pub(super) fn keyspaces(observed: &Observed, desired: &Desired) -> Decision {
    let Some(ring) = observed.ring() else { return Decision::Pass };
    for wish in &desired.keyspaces {
        let Some(found) = ring.keyspaces.iter().find(|found| found.name == wish.name) else {
            return Decision::Do(Step::CreateKeyspace(wish.clone()));
        };
        if found.ordered != wish.ordered {
            return Decision::Blocked(blocked(
                "KeyspaceDiffers",
                format!("keyspace {} was made with another partitioner", wish.name),
                "put its partitioner into the spec as it is, or choose another name",
            ));
        }
        let nodes = ring.members.values().filter(|member| !member.leaving).count() as u32;
        if found.copies != wish.copies {
            if nodes < wish.copies.replicas {
                return Decision::Wait(format!("{} nodes for keyspace {}", wish.copies.replicas, wish.name));
            }
            let asked = Wish::Replicas(found.id, wish.copies);
            return begin(observed, ring, asked);
        }
    }
    Decision::Pass
}

fn base_of(wish: &Wish) -> String {
    match wish {
        Wish::Join(node) => format!("join-{node}"),
        Wish::Leave { node, lost: false } => format!("leave-{node}"),
        Wish::Leave { node, lost: true } => format!("lost-{node}"),
        Wish::Replace { old, new, lost: false } => format!("replace-{old}-{new}"),
        Wish::Replace { old, new, lost: true } => format!("replace-lost-{old}-{new}"),
        Wish::Reweight(node, weight) => format!("weight-{node}-{weight}"),
        Wish::Rezone(node, _) => format!("zone-{node}"),
        Wish::Replicas(keyspace, copies) => {
            format!("copies-{keyspace}-{}-{}-{}", copies.replicas, copies.write_quorum, copies.read_quorum)
        }
        Wish::Rebalance => "rebalance".to_owned(),
    }
}

/// Asks for an operation; not again for what the ring has refused several times lately.
pub(super) fn begin(observed: &Observed, ring: &Ring, wish: Wish) -> Decision {
    let base = &base_of(&wish);
    let is_lately =
        |ended: &&Ended| !ended.cancelled && !ended.refused.is_empty() && ended.epoch > observed.excused;
    let refused: Vec<_> = ring.ended(base).filter(is_lately).collect();
    if refused.len() >= ATTEMPTS {
        let why = refused.last().map(|ended| ended.refused.clone()).unwrap_or_default();
        return Decision::Blocked(blocked(
            OPERATION_REFUSED,
            format!("{}: refused, as {why}", wish.describe()),
            "change what stands in the way, and wait for the next attempt, or change the spec",
        ));
    }
    Decision::Do(Step::Begin { id: ring.operation_id(base), wish })
}
