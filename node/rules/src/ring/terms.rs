//! Which quorums hold for arcs of a number of copies, while that number changes. Pure.

use super::next::ChangeError;
use god_proto::{
    ids::{KeyspaceId, NodeId},
    position::Position,
    ring::{Ring, check_keyspace, quorums},
    v1::{Arc, Keyspace, ReplicasWish, RingDocument},
};
use std::collections::BTreeSet;

/// Whether a keyspace has the number of copies and the quorums that a wish asks for.
pub fn has_terms(keyspace: &Keyspace, wish: &ReplicasWish) -> bool {
    (keyspace.replicas, keyspace.write_quorum, keyspace.read_quorum)
        == (wish.replicas, wish.write_quorum, wish.read_quorum)
}

/// OVERLAP, where the number of copies stays: reads after the change meet writes of before it, which are on as few
/// as the least write quorum of the copies. (Where that number changes, every member of the new set copies before it
/// takes over.)
pub(super) fn overlaps(ring: &Ring, wish: &ReplicasWish) -> Result<(), ChangeError> {
    let Some(old) = ring.keyspace_by_id(KeyspaceId(wish.keyspace)) else {
        return Err(ChangeError::Invalid(format!("there is no keyspace {}", wish.keyspace)));
    };
    if has_terms(old, wish) {
        return Ok(());
    }
    let terms = quorums(old, wish.replicas as usize);
    let is_there = terms.replicas == wish.replicas;
    if old.live && is_there && wish.read_quorum + terms.least_write_quorum <= terms.replicas {
        return Err(ChangeError::Invalid(format!(
            "writes of before are on as few as {} of {} copies, and {} may miss all of these: ask for a read quorum of \
             {} or more",
            terms.least_write_quorum,
            terms.replicas,
            wish.read_quorum,
            terms.replicas + 1 - terms.least_write_quorum
        )));
    }
    Ok(())
}

/// The quorums that hold first, where others are wished for of copies that are there already: as many as the old ones
/// and the new ones ask for, so that each reads what the other writes. The wish itself holds once so many replicas have
/// heard of these that the old ones are reached nowhere any more (invariant QUORUMS-HEARD).
pub(super) fn first_terms(document: &RingDocument, wish: ReplicasWish) -> ReplicasWish {
    let keyspace = document.keyspaces.iter().find(|keyspace| keyspace.id == wish.keyspace);
    let there = keyspace.filter(|keyspace| keyspace.live).map(|it| quorums(it, wish.replicas as usize));
    match there.filter(|there| there.replicas == wish.replicas) {
        Some(there) => ReplicasWish {
            write_quorum: wish.write_quorum.max(there.write_quorum),
            read_quorum: wish.read_quorum.max(there.read_quorum),
            ..wish
        },
        None => wish,
    }
}

/// Whether a change to the quorums of a wish, from those of before, `was`, is over: they hold, and nobody who has not
/// heard of them reads from fewer. What only asks for more holds at once, and another change that follows waits for
/// those alone whom it finds, so that this one waits for its own (invariant QUORUMS-HEARD). Where the number of copies
/// changes, `moved` says which arcs did not have it before. One that did has it from a change that was called off, and
/// what was read of it then is not known any more.
pub(super) fn is_over(
    document: &RingDocument,
    was: Option<&ReplicasWish>,
    wish: &ReplicasWish,
    moved: impl Fn(u64) -> bool,
) -> bool {
    let Some(keyspace) = document.keyspaces.iter().find(|keyspace| keyspace.id == wish.keyspace) else {
        return true;
    };
    let stayed = || {
        let has = |arc: &Arc| arc.replicas.len() == wish.replicas as usize && !moved(arc.id);
        document.arcs.iter().any(|arc| is_of(arc, wish.keyspace) && has(arc))
    };
    let reads_fewer = |was: &ReplicasWish| match was.replicas == wish.replicas {
        true => was.read_quorum < wish.read_quorum,
        false => stayed(),
    };
    has_terms(keyspace, wish) && !(keyspace.live && was.is_some_and(reads_fewer))
}

/// Replicas that are yet to hear of a keyspace's quorums, where those of before, `was`, may still be reached without
/// them (invariant QUORUMS-HEARD). `heard`: who has the ring; `lost`: who is waited for by nobody.
pub(super) fn unheard(
    ring: &Ring,
    was: &ReplicasWish,
    heard: &BTreeSet<NodeId>,
    lost: &BTreeSet<NodeId>,
) -> BTreeSet<NodeId> {
    let mut waiting = BTreeSet::new();
    for arc in ring.arcs().iter().filter(|arc| arc.keyspace.0 == was.keyspace) {
        let copies = arc.replicas.len();
        // Calls may ask for a majority, whatever the keyspace says.
        let least = match was.replicas as usize == copies {
            true => (was.write_quorum.min(was.read_quorum) as usize).min(copies / 2 + 1),
            false => 1,
        };
        let gone = arc.replicas.iter().filter(|node| lost.contains(node)).count();
        let needed = (copies + 1).saturating_sub(least.max(1)).min(copies - gone);
        if arc.replicas.iter().filter(|node| heard.contains(node)).count() < needed {
            waiting.extend(arc.replicas.iter().filter(|node| !heard.contains(node) && !lost.contains(node)));
        }
    }
    waiting
}

/// Gives a keyspace other quorums. Arcs that have the number of copies of before keep those of before.
pub(super) fn take_terms(document: &mut RingDocument, wish: ReplicasWish) -> Result<(), ChangeError> {
    let widths: BTreeSet<usize> = widths(document, wish.keyspace);
    let Some(keyspace) = document.keyspaces.iter_mut().find(|keyspace| keyspace.id == wish.keyspace) else {
        return Err(ChangeError::Invalid(format!("there is no keyspace {}", wish.keyspace)));
    };
    let was = quorums(keyspace, keyspace.replicas as usize);
    let mut known = std::mem::take(&mut keyspace.former);
    known.push(was);
    // Where arcs have that number of copies already, what is on them counts.
    let there = known.extract_if(.., |terms| terms.replicas == wish.replicas).last();
    let least = there.map_or(wish.write_quorum, |there| there.least_write_quorum.min(wish.write_quorum));
    // Arcs of no known number of copies keep what holds for all.
    let is_known = |width: &usize| {
        let width = *width as u32;
        width == wish.replicas || known.iter().any(|terms| terms.replicas == width)
    };
    if widths.iter().all(is_known) {
        known.retain(|terms| widths.contains(&(terms.replicas as usize)));
    }
    keyspace.former = known;
    keyspace.replicas = wish.replicas;
    keyspace.write_quorum = wish.write_quorum;
    keyspace.read_quorum = wish.read_quorum;
    keyspace.least_write_quorum = if least == wish.write_quorum { 0 } else { least };
    check_keyspace(keyspace).map_err(ChangeError::Invalid)
}

/// The keyspace that an arc is part of.
pub(super) fn keyspace_of(arc: &Arc) -> Option<KeyspaceId> {
    Position::from_bytes(arc.start.clone()).keyspace()
}

fn is_of(arc: &Arc, keyspace: u32) -> bool {
    keyspace_of(arc) == Some(KeyspaceId(keyspace))
}

/// How many copies arcs of a keyspace have, or are about to have.
fn widths(document: &RingDocument, keyspace: u32) -> BTreeSet<usize> {
    let of = |arc: &&Arc| is_of(arc, keyspace);
    let sizes = |arc: &Arc| {
        let next = arc.transition.as_ref().map(|transition| transition.next.len());
        std::iter::once(arc.replicas.len()).chain(next)
    };
    document.arcs.iter().filter(of).flat_map(sizes).collect()
}

/// Forgets the quorums of numbers of copies that no arc has any more.
pub(super) fn forget_terms(document: &mut RingDocument, keyspace: u32) {
    let widths = widths(document, keyspace);
    if let Some(keyspace) = document.keyspaces.iter_mut().find(|it| it.id == keyspace)
        && widths.iter().all(|width| *width as u32 == keyspace.replicas)
    {
        keyspace.former.clear();
    }
}
