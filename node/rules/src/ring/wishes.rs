//! What operations ask of nodes. Pure.

use god_proto::{
    ids::NodeId,
    ring::Ring,
    v1::{JoinWish, LeaveWish, Operation, OperationPhase, ReplaceWish, ReweightWish, RezoneWish, Wish, wish},
};
use std::collections::BTreeSet;

/// The node whose data an operation takes for gone.
pub fn lost_by(wish: &Wish) -> Option<NodeId> {
    match wish.wish {
        Some(
            wish::Wish::Leave(LeaveWish { node: old, lost: true })
            | wish::Wish::Replace(ReplaceWish { old, lost: true, .. }),
        ) => Some(NodeId(old)),
        _ => None,
    }
}

/// The nodes that an operation is about.
pub fn nodes_of(wish: &Wish) -> Vec<NodeId> {
    match &wish.wish {
        Some(
            wish::Wish::Join(JoinWish { node })
            | wish::Wish::Leave(LeaveWish { node, .. })
            | wish::Wish::Reweight(ReweightWish { node, .. })
            | wish::Wish::Rezone(RezoneWish { node, .. }),
        ) => vec![NodeId(*node)],
        Some(wish::Wish::Replace(ReplaceWish { old, new, .. })) => vec![NodeId(*old), NodeId(*new)],
        Some(wish::Wish::Replicas(_) | wish::Wish::Rebalance(_)) | None => vec![],
    }
}

/// The node that is told to take its part, or the place of another one.
pub(super) fn gets(wish: &Wish) -> Option<NodeId> {
    match &wish.wish {
        Some(wish::Wish::Join(JoinWish { node }) | wish::Wish::Replace(ReplaceWish { new: node, .. })) => {
            Some(NodeId(*node))
        }
        _ => None,
    }
}

/// The node that an operation retires.
pub fn retires(wish: &Wish) -> Option<NodeId> {
    match &wish.wish {
        Some(
            wish::Wish::Leave(LeaveWish { node: old, .. }) | wish::Wish::Replace(ReplaceWish { old, .. }),
        ) => Some(NodeId(*old)),
        _ => None,
    }
}

/// The nodes whose data operations take for gone, and have begun: nobody waits for what only these had. Of one whose
/// operation has not begun it may be unsaid, and nobody may have gone on without it by then.
pub fn given_up(ring: &Ring) -> BTreeSet<NodeId> {
    let begun = ring.operations().iter().filter(|operation| stays(operation));
    begun.filter_map(|operation| lost_by(operation.wish.as_ref()?)).collect()
}

/// Whether an operation has begun. It may wait again, for one that came before it since.
pub fn has_begun(operation: &Operation) -> bool {
    operation.phase() != OperationPhase::Waiting || operation.undo.is_some()
}

/// Whether an operation takes data for lost, and has begun: it stays until they are made up for.
pub fn stays(operation: &Operation) -> bool {
    has_begun(operation) && operation.wish.as_ref().is_some_and(|wish| lost_by(wish).is_some())
}

/// The operation whose turn it is.
pub fn current(ring: &Ring) -> Option<&Operation> {
    ring.operations().first()
}
