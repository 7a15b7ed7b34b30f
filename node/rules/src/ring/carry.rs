//! What an operation changes of nodes and keyspaces when it starts, and how that is brought back. Pure.

use super::{
    change::take_votes,
    keyspaces::{deal, holders, splits_of},
    next::ChangeError,
    terms::{first_terms, forget_terms, take_terms},
    wishes::gets,
};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    ring::Ring,
    v1::{
        LeaveWish, Member, MemberState, ReplaceWish, ReplicasWish, ReweightWish, RezoneWish, RingDocument,
        Wish, wish,
    },
};
use std::collections::BTreeSet;

/// Changes what the wish says of nodes and keyspaces, but for what must wait until the end; gives the wish that would
/// bring back what was there.
pub(super) fn carry_out(
    document: &mut RingDocument,
    wish: &Wish,
    away: &BTreeSet<NodeId>,
) -> Result<Wish, ChangeError> {
    let gone = |node: u32| ChangeError::Invalid(format!("there is no node {node}"));
    let undo = match wish.wish.clone() {
        Some(
            wish::Wish::Leave(LeaveWish { node: old, .. }) | wish::Wish::Replace(ReplaceWish { old, .. }),
        ) => {
            member(document, old).ok_or_else(|| gone(old))?.state = MemberState::Leaving.into();
            take_votes(document, away);
            wish.wish.clone()
        }
        Some(wish::Wish::Reweight(ReweightWish { node, weight })) => {
            let member = member(document, node).ok_or_else(|| gone(node))?;
            let weight = std::mem::replace(&mut member.weight, weight);
            Some(wish::Wish::Reweight(ReweightWish { node, weight }))
        }
        Some(wish::Wish::Rezone(RezoneWish { node, zone })) => {
            let member = member(document, node).ok_or_else(|| gone(node))?;
            let zone = std::mem::replace(&mut member.zone, zone);
            Some(wish::Wish::Rezone(RezoneWish { node, zone }))
        }
        Some(wish::Wish::Replicas(wish)) => {
            let found = document.keyspaces.iter_mut().find(|keyspace| keyspace.id == wish.keyspace);
            let Some(keyspace) = found else {
                return Err(ChangeError::Invalid(format!("there is no keyspace {}", wish.keyspace)));
            };
            let was = ReplicasWish {
                keyspace: keyspace.id,
                replicas: keyspace.replicas,
                write_quorum: keyspace.write_quorum,
                read_quorum: keyspace.read_quorum,
            };
            let first = first_terms(document, wish);
            take_terms(document, first)?;
            Some(wish::Wish::Replicas(was))
        }
        Some(wish @ (wish::Wish::Join(_) | wish::Wish::Rebalance(_))) => Some(wish),
        None => None,
    };
    if let Some(member) = gets(wish).and_then(|node| member(document, node.0)) {
        member.waits = false;
    }
    Ok(Wish { wish: undo })
}

/// Brings back what an operation changed of nodes and keyspaces when it was started. Arcs that moved stay where they
/// are.
pub(super) fn bring_back(
    ring: &Ring,
    document: &mut RingDocument,
    id: &str,
    away: &BTreeSet<NodeId>,
) -> Result<(), ChangeError> {
    let operation = ring.operations().iter().find(|operation| operation.id == id);
    let Some(undo) = operation.and_then(|operation| operation.undo.clone()) else { return Ok(()) };
    match undo.wish {
        Some(
            wish::Wish::Leave(LeaveWish { node: old, .. }) | wish::Wish::Replace(ReplaceWish { old, .. }),
        ) => {
            if let Some(member) = member(document, old) {
                member.state = MemberState::Active.into();
            }
            take_votes(document, away);
        }
        Some(wish::Wish::Replicas(was)) => {
            take_terms(document, was)?;
            forget_terms(document, was.keyspace);
        }
        Some(wish::Wish::Reweight(_) | wish::Wish::Rezone(_)) => {
            carry_out(document, &undo, away)?;
        }
        _ => {}
    }
    wait_again(ring, document, &undo);
    deal_empty(ring, document);
    Ok(())
}

/// Has the node wait again that a wish told to take its part, or the place of another one, and that got nothing: it
/// gets nothing by evening out either, which would do after all what was taken back, and nothing of keyspaces that are
/// empty, which may be written to. What held data before goes on.
pub(super) fn wait_again(ring: &Ring, document: &mut RingDocument, wish: &Wish) {
    let Some(node) = gets(wish) else { return };
    let (live, holds) = (ring.keyspaces().iter().any(|it| it.live), holders(document).contains(&node));
    if let Some(member) = member(document, node.0).filter(|_| live && !holds) {
        member.waits = true;
        deal_empty(ring, document);
    }
}

/// EMPTY-MOVES-FREE: keyspaces that are not live are dealt out anew instead of being moved.
pub(super) fn deal_empty(ring: &Ring, document: &mut RingDocument) {
    let empty: Vec<u32> =
        document.keyspaces.iter().filter(|keyspace| !keyspace.live).map(|it| it.id).collect();
    for id in empty {
        let splits = splits_of(ring, KeyspaceId(id));
        deal(document, id, &splits);
    }
}

pub(super) fn member(document: &mut RingDocument, number: u32) -> Option<&mut Member> {
    document.nodes.iter_mut().find(|node| node.number == number)
}
