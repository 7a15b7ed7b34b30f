//! How operations change the ring, a step at a time: pure functions from a ring to the next one.
//!
//! An operation waits until those before it have ended, is planned, moves its arcs, cleans, and ends. An arc moves in
//! two steps: *joint*, in which writes and reads need a quorum of the old and of the new set, and the switch to the
//! new set, once every new replica has what it must have. All that is needed to go on is in the document, so any node
//! may take the next step, and two that do so at once only contend for the epoch.

use super::{
    carry::{bring_back, carry_out, deal_empty, wait_again},
    change::{held_by_both, pass_vote_on},
    names::{Hearing, check_unheard},
    next::{ChangeError, MAX_TEXT, at_most, next},
    parts::same_nodes,
    planner::Plan,
    terms::{forget_terms, is_over, overlaps, take_terms, unheard},
    wishes::{current, given_up, has_begun, lost_by, nodes_of, retires, stays},
};
use god_proto::{
    ids::{ArcId, KeyspaceId, NodeId},
    ring::{
        CROWDED_RING_BYTES, MAX_ENDED, MAX_OPERATIONS, MAX_RING_BYTES, Ring, RingArc, check_operation_id,
        quorums, ring_bytes,
    },
    v1::{
        Arc, Departure, EndedOperation, LeaveWish, MemberState, Move, Operation, OperationPhase,
        RebalanceWish, ReplaceWish, RingDocument, Transition, Wish, wish,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// How many nodes that left are remembered with what is known of them.
const MAX_DEPARTURES: usize = 64;

/// What is known beyond the document when a step is taken.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Arcs whose new replicas all have what they must have, for the transition that the document names.
    pub ready: &'a BTreeSet<ArcId>,
    /// Who leaves has handed over all that it had, or is gone for good; or all have heard who must
    /// ([`unheard_of`]).
    pub clean: bool,
    /// Who leaves was seen to have handed over. (Else it is gone, and nobody can see what it holds.)
    pub seen_clean: bool,
    /// How many arcs may change hands at the same time.
    pub budget: usize,
    /// Nodes that still hold something they should not, or do not say. No arc begins to move to them (invariant
    /// CLEAN-BEFORE-JOINT): what they kept from an earlier time may be older than a deletion that is forgotten, and a
    /// replica answers reads from the moment its arc is joint.
    pub unclean: &'a BTreeSet<NodeId>,
    /// Nodes that are not known to be up: no vote goes to them (invariant VOTES-LIVE).
    pub away: &'a BTreeSet<NodeId>,
    /// Who is known to have heard of keyspaces that were deleted (invariant NAME-HEARD).
    pub hearing: &'a Hearing,
}

/// The ring with an operation in it that waits for its turn. `None`: the same one is there, or has ended well, already.
/// Nodes that are `away`, not known to be up, get no vote, here and in all that follow.
pub fn begin(
    ring: &Ring,
    id: &str,
    wish: &Wish,
    away: &BTreeSet<NodeId>,
) -> Result<Option<Ring>, ChangeError> {
    check_operation_id(id).map_err(ChangeError::Invalid)?;
    if is_known(ring, id, wish)? {
        return Ok(None);
    }
    if ring.operations().len() >= MAX_OPERATIONS {
        return Err(ChangeError::Invalid(format!(
            "{MAX_OPERATIONS} operations wait already; cancel some, or wait for them to end"
        )));
    }
    if let Some(wish::Wish::Replicas(wish)) = &wish.wish {
        overlaps(ring, wish)?;
    }
    if let Some(wish::Wish::Rezone(wish)) = &wish.wish
        && wish.zone.len() > MAX_TEXT
    {
        let bytes = wish.zone.len();
        return Err(ChangeError::Invalid(format!("the zone has {bytes} bytes; the most is {MAX_TEXT}")));
    }
    let gone = lost_by(wish);
    for node in nodes_of(wish) {
        if ring.node(node).is_none() {
            return Err(ChangeError::Invalid(format!("there is no node {node}; `god status` lists them")));
        }
        let other = ring
            .operations()
            .iter()
            .find(|other| other.wish.as_ref().is_some_and(|wish| nodes_of(wish).contains(&node)));
        // What goes back ends where it is when data are gone: perhaps it waits for the very node that is gone.
        let ends = |other: &Operation| gone.is_some() && other.phase() == OperationPhase::Cancelling;
        if let Some(other) = other.filter(|other| gone != Some(node) && !ends(other)) {
            return Err(ChangeError::Exists(format!(
                "operation {} on node {node} is under way; wait for it, or run `god ring cancel {}`",
                other.id, other.id
            )));
        }
    }
    // What was begun of the node before goes on: it is not unsaid by asking again.
    let goes_on = |other: &Operation| {
        has_begun(other) && gone.is_some() && other.wish.as_ref().and_then(retires) == gone
    };
    let goes_on = ring.operations().iter().any(goes_on);
    let mut document = next(ring);
    let at = match gone {
        Some(node) => {
            make_way(ring, &mut document, node, away)?;
            0
        }
        None => document.operations.len(),
    };
    let operation = Operation {
        id: id.to_owned(),
        wish: Some(wish.clone()),
        phase: OperationPhase::Waiting.into(),
        undo: goes_on.then(|| wish.clone()),
        ..Operation::default()
    };
    document.operations.insert(at, operation);
    Ok(Some(at_most(CROWDED_RING_BYTES, document)?))
}

/// Whether the same was asked for under this id, and goes on or has ended well. Under that of one that was cancelled or
/// refused nothing is begun again: who repeats what it asked for would take the one for the other.
fn is_known(ring: &Ring, id: &str, wish: &Wish) -> Result<bool, ChangeError> {
    let known = ring.operations().iter().find(|operation| operation.id == id);
    let ended = ring.document().ended.iter().find(|operation| operation.id == id);
    let asked = known.map(|operation| &operation.wish).or_else(|| ended.map(|operation| &operation.wish));
    let why = match (asked.map(Option::as_ref), known, ended) {
        (None, ..) => return Ok(false),
        (Some(asked), ..) if asked != Some(wish) => "was asked for before, and for another end".to_owned(),
        (_, Some(known), _) if known.phase() == OperationPhase::Cancelling => "is being undone".to_owned(),
        (_, None, Some(ended)) if ended.cancelled => "was cancelled".to_owned(),
        (_, None, Some(ended)) if !ended.refused.is_empty() => format!("was refused ({})", ended.refused),
        _ => return Ok(true),
    };
    Err(ChangeError::Exists(format!("operation {id} {why}; choose another id")))
}

/// Copies that are gone are made up for first. What is under way stops where it is, and is planned anew afterwards;
/// what goes back ends there, neither done nor undone; what was asked of the node itself has no sense any more.
fn make_way(
    ring: &Ring,
    document: &mut RingDocument,
    gone: NodeId,
    away: &BTreeSet<NodeId>,
) -> Result<(), ChangeError> {
    for operation in ring.operations() {
        let wish = operation.wish.clone().unwrap_or_default();
        if !nodes_of(&wish).contains(&gone) {
            if operation.phase() == OperationPhase::Cancelling {
                bring_back(ring, document, &operation.id, away)?;
                let why = format!(
                    "it was cancelled, and stopped where it was, to make way for what makes up for node {gone}"
                );
                end(document, &operation.id, true, &why);
            }
            continue;
        }
        let old = retires(&wish).filter(|old| *old != gone);
        // One that is lost, too, leaves without the node that was to replace it.
        if let Some(old) = old.filter(|_| stays(operation)) {
            leave_without(document, &operation.id, old);
            continue;
        }
        // One that was to be replaced by the node that is gone stays. The node itself gets nothing back.
        if old.is_some() {
            bring_back(ring, document, &operation.id, away)?;
        }
        if retires(&wish) == Some(gone) {
            wait_again(ring, document, &wish);
        }
        end(document, &operation.id, false, &format!("the data of node {gone} are gone"));
    }
    for operation in &mut document.operations {
        if operation.phase() == OperationPhase::Moving {
            operation.phase = OperationPhase::Waiting.into();
            operation.moves.clear();
        }
    }
    for arc in &mut document.arcs {
        arc.transition = None;
    }
    Ok(())
}

/// Who must hear of the ring before the quorums may hold that the operation whose turn it is asks for, but for those
/// who have `heard`; none where it asks for no other quorums, or is not as far. Cost: O(arcs).
pub fn unheard_of(ring: &Ring, heard: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let cleaning = current(ring).filter(|operation| operation.phase() == OperationPhase::Cleaning);
    match cleaning.and_then(|operation| operation.undo.as_ref()?.wish.as_ref()) {
        Some(wish::Wish::Replicas(was)) => unheard(ring, was, heard, &given_up(ring)),
        _ => BTreeSet::new(),
    }
}

/// The ring in which the operation whose turn it is moves, by a plan that was made for this ring.
pub fn start(
    ring: &Ring,
    id: &str,
    plan: &Plan,
    away: &BTreeSet<NodeId>,
) -> Result<Option<Ring>, ChangeError> {
    let mut document = next(ring);
    let Some(operation) = document.operations.first_mut() else { return Ok(None) };
    if operation.id != id || operation.phase() != OperationPhase::Waiting {
        return Ok(None);
    }
    let wish = operation.wish.clone().unwrap_or_default();
    // What was asked for before it may have changed what it was checked against.
    if let Some(wish::Wish::Replicas(wish)) = &wish.wish
        && let Err(ChangeError::Invalid(why)) = overlaps(ring, wish)
    {
        return refuse(ring, id, &why, away);
    }
    operation.phase = OperationPhase::Moving.into();
    operation.moves = plan
        .moves
        .iter()
        .map(|step| Move {
            arc: step.arc.0,
            from: step.from.iter().map(|node| node.0).collect(),
            to: step.to.iter().map(|node| node.0).collect(),
        })
        .collect();
    let undo = carry_out(&mut document, &wish, away)?;
    // One that was begun before and made way keeps what it was to go back to then.
    if let Some(operation) = document.operations.first_mut() {
        operation.undo.get_or_insert(undo);
    }
    // Who copies from now on waits for none whose data are said to be gone: that cannot be unsaid any more.
    for at in 1..document.operations.len() {
        let waits = document.operations.get(at).filter(|operation| !has_begun(operation));
        let said = waits.and_then(|operation| operation.wish.clone()).filter(|wish| lost_by(wish).is_some());
        let Some(said) = said else { continue };
        let undo = carry_out(&mut document, &said, away)?;
        if let Some(operation) = document.operations.get_mut(at) {
            operation.undo = Some(undo);
        }
    }
    for split in &plan.splits {
        let Some(arc) = document.arcs.iter().find(|arc| arc.id == split.arc.0) else { continue };
        let upper = Arc { id: split.new.0, start: split.at.clone().into_bytes(), ..arc.clone() };
        document.next_arc = document.next_arc.max(split.new.0 + 1);
        document.arcs.push(upper);
    }
    document.arcs.sort_by(|a, b| a.start.cmp(&b.start));
    deal_empty(ring, &mut document);
    let bytes = ring_bytes(&document);
    if bytes > MAX_RING_BYTES {
        let why =
            format!("its steps do not fit into the ring, which would have {bytes} of {MAX_RING_BYTES} bytes");
        return refuse(ring, id, &why, away);
    }
    Ok(Some(Ring::new(document)?))
}

/// The next step of the operation whose turn it is; `None`: nothing can be done yet. One step may switch some arcs
/// and begin to move others.
pub fn step(ring: &Ring, evidence: Evidence<'_>) -> Result<Option<Ring>, ChangeError> {
    let Some(operation) = current(ring) else { return Ok(None) };
    let wish = operation.wish.clone().unwrap_or_default();
    let (phase, id) = (operation.phase(), operation.id.clone());
    let mut document = next(ring);
    match phase {
        OperationPhase::Waiting => return Ok(None),
        OperationPhase::Moving | OperationPhase::Cancelling => {
            let back = phase == OperationPhase::Cancelling;
            if !move_arcs(&mut document, operation, back, evidence) {
                end_moves(ring, &mut document, &wish, &id, back.then_some(evidence.away))?;
            }
        }
        OperationPhase::Cleaning => {
            if !evidence.clean {
                return Ok(None);
            }
            if let Some(old) = retires(&wish) {
                if !evidence.seen_clean && lost_by(&wish).is_none() {
                    check_unheard(ring, old, evidence.hearing)?;
                }
                retire(ring, &mut document, old, evidence)?;
            }
            if let Some(wish::Wish::Replicas(wish)) = wish.wish {
                take_terms(&mut document, wish)?;
                forget_terms(&mut document, wish.keyspace);
            }
            end(&mut document, &id, false, "");
        }
    }
    let same = document.arcs == ring.document().arcs && document.operations == ring.document().operations;
    if same { Ok(None) } else { Ok(Some(Ring::new(document)?)) }
}

/// Takes what steps can be taken; says whether any arc is not where it should be.
fn move_arcs(document: &mut RingDocument, operation: &Operation, back: bool, evidence: Evidence<'_>) -> bool {
    let since = document.epoch;
    let places: BTreeMap<u64, usize> =
        document.arcs.iter().enumerate().map(|(at, arc)| (arc.id, at)).collect();
    let mut room = evidence
        .budget
        .max(1)
        .saturating_sub(document.arcs.iter().filter(|arc| arc.transition.is_some()).count());
    let mut unfinished = false;
    for step in &operation.moves {
        let target = if back { &step.from } else { &step.to };
        // An arc that is no more belonged to a keyspace that was dealt out anew.
        let Some(arc) = places.get(&step.arc).and_then(|at| document.arcs.get_mut(*at)) else { continue };
        match &arc.transition {
            Some(transition) if transition.next == *target => {
                let ready = evidence.ready.contains(&ArcId(arc.id));
                if ready {
                    arc.replicas.clone_from(target);
                    arc.transition = None;
                    room += 1;
                } else {
                    unfinished = true;
                }
            }
            // Another target: the operation was cancelled. What is under way has changed nothing for good.
            Some(_) => {
                arc.transition = None;
                room += 1;
                unfinished |= arc.replicas != *target;
            }
            None if arc.replicas == *target => {}
            None if same_nodes(&arc.replicas, target) => arc.replicas.clone_from(target),
            None => {
                unfinished = true;
                let fresh = |node: &&u32| !arc.replicas.contains(node);
                let clean =
                    !target.iter().filter(fresh).any(|node| evidence.unclean.contains(&NodeId(*node)));
                if room > 0 && clean {
                    room -= 1;
                    arc.transition = Some(Transition { next: target.clone(), since });
                }
            }
        }
    }
    unfinished
}

/// All arcs are where they should be. `back`: where they were, with the nodes that are away.
fn end_moves(
    ring: &Ring,
    document: &mut RingDocument,
    wish: &Wish,
    id: &str,
    back: Option<&BTreeSet<NodeId>>,
) -> Result<(), ChangeError> {
    if let Some(away) = back {
        bring_back(ring, document, id, away)?;
        end(document, id, true, "");
        return Ok(());
    }
    // What is on a node that is to be retired, and was in no plan, is planned for now.
    let left = retires(wish).is_some_and(|old| document.arcs.iter().any(|arc| arc.replicas.contains(&old.0)));
    if left {
        if let Some(operation) = document.operations.first_mut() {
            operation.phase = OperationPhase::Waiting.into();
            operation.moves.clear();
        }
        return Ok(());
    }
    if let Some(wish::Wish::Replicas(wish)) = wish.wish {
        forget_terms(document, wish.keyspace);
    }
    let was = match current(ring).and_then(|operation| operation.undo.as_ref()?.wish.as_ref()) {
        Some(wish::Wish::Replicas(was)) => Some(was),
        _ => None,
    };
    let moves = current(ring).map_or(&[][..], |operation| &operation.moves);
    let moved: BTreeSet<u64> =
        moves.iter().filter(|step| step.from.len() != step.to.len()).map(|step| step.arc).collect();
    let moved = |arc| moved.contains(&arc);
    let to_be_heard =
        matches!(&wish.wish, Some(wish::Wish::Replicas(wish)) if !is_over(document, was, wish, moved));
    if retires(wish).is_some() || to_be_heard {
        if let Some(operation) = document.operations.first_mut() {
            operation.phase = OperationPhase::Cleaning.into();
        }
    } else {
        end(document, id, false, "");
    }
    Ok(())
}

/// Takes a node out for good: it holds nothing by the ring any more.
fn retire(
    ring: &Ring,
    document: &mut RingDocument,
    old: NodeId,
    evidence: Evidence<'_>,
) -> Result<(), ChangeError> {
    let Some(node) = ring.node(old) else { return Ok(()) };
    document.retired.push(node.uuid.clone());
    document.departures.push(Departure {
        uuid: node.uuid.clone(),
        epoch: document.epoch,
        handed_over: evidence.seen_clean,
    });
    let surplus = document.departures.len().saturating_sub(MAX_DEPARTURES);
    document.departures.drain(..surplus);
    document.nodes.retain(|node| node.number != old.0);
    // Nothing can go back to it.
    for operation in &mut document.operations {
        operation.moves.retain(|step| !step.from.contains(&old.0) && !step.to.contains(&old.0));
    }
    pass_vote_on(document, old, evidence.away)
}

fn end(document: &mut RingDocument, id: &str, cancelled: bool, refused: &str) {
    let Some(at) = document.operations.iter().position(|operation| operation.id == id) else { return };
    let operation = document.operations.remove(at);
    document.ended.push(EndedOperation {
        id: operation.id,
        wish: operation.wish,
        cancelled,
        epoch: document.epoch,
        refused: refused.to_owned(),
    });
    let surplus = document.ended.len().saturating_sub(MAX_ENDED);
    document.ended.drain(..surplus);
}

/// The ring without an operation that cannot be carried out, and the reason. What was done of it before it made way
/// for another one stays where it is; what it changed of nodes is brought back. `None`: it does not wait; or it makes
/// up for data without which others have copied, which cannot be unsaid (invariant BARRIER), and waits until it can be
/// planned. Where a node is to take a lost one's place and never can, all others take what is gone.
pub fn refuse(
    ring: &Ring,
    id: &str,
    why: &str,
    away: &BTreeSet<NodeId>,
) -> Result<Option<Ring>, ChangeError> {
    let waits = |operation: &&Operation| operation.id == id && operation.phase() == OperationPhase::Waiting;
    let Some(operation) = ring.operations().iter().find(waits) else { return Ok(None) };
    let mut document = next(ring);
    if !stays(operation) {
        bring_back(ring, &mut document, id, away)?;
        end(&mut document, id, false, why);
        return Ok(Some(Ring::new(document)?));
    }
    match operation.wish.as_ref().and_then(|wish| wish.wish.as_ref()) {
        Some(wish::Wish::Replace(wish)) if !may_replace(ring, wish) => {
            leave_without(&mut document, id, NodeId(wish.old));
            Ok(Some(Ring::new(document)?))
        }
        _ => Ok(None),
    }
}

/// Whether a node can take the very places of another one, if it has room for it. Of what is not live nothing moves.
fn may_replace(ring: &Ring, wish: &ReplaceWish) -> bool {
    let (old, new) = (NodeId(wish.old), NodeId(wish.new));
    let is_live = |arc: &RingArc| ring.keyspace_by_id(arc.keyspace).is_some_and(|keyspace| keyspace.live);
    ring.node(new).is_some_and(|node| node.state() == MemberState::Active)
        && !held_by_both(ring, old, new).any(is_live)
}

/// Has a node that is lost leave without the one that was to replace it.
fn leave_without(document: &mut RingDocument, id: &str, old: NodeId) {
    let wish = Wish { wish: Some(wish::Wish::Leave(LeaveWish { node: old.0, lost: true })) };
    if let Some(known) = document.operations.iter_mut().find(|known| known.id == id) {
        known.wish = Some(wish);
    }
}

/// The ring in which an operation goes back. `None`: it does already, or was cancelled.
pub fn cancel(ring: &Ring, id: &str, away: &BTreeSet<NodeId>) -> Result<Option<Ring>, ChangeError> {
    let mut document = next(ring);
    let Some(operation) = document.operations.iter_mut().find(|operation| operation.id == id) else {
        return match ring.document().ended.iter().find(|ended| ended.id == id) {
            Some(ended) if ended.cancelled => Ok(None),
            Some(_) => {
                Err(ChangeError::Invalid(format!("operation {id} has ended; ask for its opposite instead")))
            }
            None => {
                Err(ChangeError::Invalid(format!("there is no operation {id}; `god ring show` lists them")))
            }
        };
    };
    match operation.phase() {
        _ if stays(operation) => {
            return Err(ChangeError::Invalid(format!(
                "operation {id} makes up for data that are gone, and cannot be undone; let it end"
            )));
        }
        OperationPhase::Waiting => {
            let why = match has_begun(operation) {
                true => {
                    "it was cancelled while it waited for another plan, and what it had moved stays where it is"
                }
                false => "",
            };
            // Who joins by itself has not waited until now.
            let wish = operation.wish.clone().unwrap_or_default();
            wait_again(ring, &mut document, &wish);
            bring_back(ring, &mut document, id, away)?;
            end(&mut document, id, true, why);
        }
        OperationPhase::Cancelling => return Ok(None),
        OperationPhase::Moving | OperationPhase::Cleaning => {
            operation.phase = OperationPhase::Cancelling.into();
            // What was to go last comes back first.
            operation.moves.reverse();
        }
    }
    Ok(Some(Ring::new(document)?))
}

/// How many old replicas of an arc a member of its next set must have copied from, itself among them if it is one:
/// one more than a write may have missed, and so many that too few are left for a read that does not know that the
/// arc has changed hands: who was copied from does. Counts with the lowest write quorum under which they may hold
/// data, and with a majority where that is less, as calls may ask for that (invariant BARRIER). A node whose data are
/// given up is waited for by nobody: what only it had is gone. (That they are lost may be unsaid until that has begun:
/// see [`given_up`].) Where all are gone that is everything, and none is needed.
pub fn sources_needed(ring: &Ring, keyspace: KeyspaceId, old: &[NodeId]) -> usize {
    let replicas = old.len();
    let gone = given_up(ring).iter().filter(|node| old.contains(node)).count();
    let least = ring.keyspace_by_id(keyspace).map_or(1, |keyspace| {
        let terms = quorums(keyspace, replicas);
        terms.least_write_quorum.min(terms.read_quorum).min(terms.replicas / 2 + 1) as usize
    });
    (replicas + 1 - least.clamp(1, replicas.max(1))).min(replicas.saturating_sub(gone))
}

/// A wish from its parts, for whoever asks for operations.
pub fn rebalance() -> Wish {
    Wish { wish: Some(wish::Wish::Rebalance(RebalanceWish {})) }
}
