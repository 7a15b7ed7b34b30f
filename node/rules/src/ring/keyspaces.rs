//! Keyspaces in the ring: made, opened for writes, cut into arcs, deleted.

use super::{
    allocate::{allocate, leads_of},
    names::{check_name, note_deletion},
    next::{ChangeError, at_most, next},
    terms::keyspace_of,
};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    keyspace::{check_new, default_quorums},
    position::{Position, PositionRange},
    ring::{MAX_SPLIT, MAX_SPLITS, ROOMY_RING_BYTES, Ring, partitioner},
    v1::{Arc, Keyspace, Member, MemberState, Mode, Partitioner, RingDocument, Wish, wish},
};
use std::collections::BTreeSet;

/// The ring with one keyspace more. `splits` are the keys at which an ordered one is cut. Refused where a keyspace of
/// that name was deleted and too few have heard of it yet ([`super::free_names`]).
pub fn create_keyspace(ring: &Ring, wish: &Keyspace, splits: &[Vec<u8>]) -> Result<Ring, ChangeError> {
    let mut keyspace = Keyspace { live: false, id: ring.document().next_keyspace, ..wish.clone() };
    (keyspace.write_quorum, keyspace.read_quorum) =
        default_quorums(keyspace.replicas, keyspace.write_quorum, keyspace.read_quorum);
    check_new(&keyspace).map_err(ChangeError::Invalid)?;
    if keyspace.mode() != Mode::Lww {
        return Err(ChangeError::Invalid(format!(
            "mode linearizable of keyspace {} is not available in this version; use lww",
            keyspace.name
        )));
    }
    if ring.keyspace(&keyspace.name).is_some() {
        return Err(ChangeError::Exists(format!("keyspace {} exists already", keyspace.name)));
    }
    check_name(ring, &keyspace.name)?;
    let is_ordered = partitioner(&keyspace) == Partitioner::Ordered;
    if !splits.is_empty() && !is_ordered {
        return Err(ChangeError::Invalid(
            "splits need an ordered keyspace; a hashed one is cut by hash".to_owned(),
        ));
    }
    if splits.len() > MAX_SPLITS {
        return Err(ChangeError::Invalid(format!(
            "keyspace {} is to be cut at {} keys; the most is {MAX_SPLITS}. It is cut further by itself as it grows",
            keyspace.name,
            splits.len()
        )));
    }
    if let Some(long) = splits.iter().find(|split| split.len() > MAX_SPLIT) {
        return Err(ChangeError::Invalid(format!(
            "a key at which keyspace {} is to be cut has {} bytes; the most is {MAX_SPLIT}. The first bytes of it may do",
            keyspace.name,
            long.len()
        )));
    }
    let mut document = next(ring);
    document.next_keyspace += 1;
    let id = keyspace.id;
    let splits: BTreeSet<&[u8]> = splits.iter().map(Vec::as_slice).filter(|key| !key.is_empty()).collect();
    let splits: Vec<Position> =
        splits.into_iter().map(|key| Position::of_ordered_bound(KeyspaceId(id), key)).collect();
    document.keyspaces.push(keyspace);
    deal(&mut document, id, &splits);
    at_most(ROOMY_RING_BYTES, document)
}

/// The ring without a keyspace. `None`: the keyspace of this id is gone already. Nodes remove what they hold of it when
/// they meet this ring; since ids are never given again, nothing of it can come back (invariant GONE-BY-ID).
pub fn delete_keyspace(ring: &Ring, name: &str, id: KeyspaceId) -> Result<Option<Ring>, ChangeError> {
    let Some(found) = ring.keyspace_by_id(id) else {
        return match id.0 != 0 && id.0 < ring.document().next_keyspace {
            true => Ok(None),
            false => Err(ChangeError::NoKeyspace(format!("there is no keyspace {id}"))),
        };
    };
    if found.name != name {
        return Err(ChangeError::NoKeyspace(format!("keyspace {id} is {}, not {name}", found.name)));
    }
    let changes = |wish: &Option<Wish>| {
        matches!(wish.as_ref().and_then(|wish| wish.wish.as_ref()),
            Some(wish::Wish::Replicas(wish)) if wish.keyspace == id.0)
    };
    if let Some(busy) = ring.operations().iter().find(|operation| changes(&operation.wish)) {
        return Err(ChangeError::Exists(format!(
            "operation {} changes keyspace {name}; wait for it, or run `god ring cancel {}`",
            busy.id, busy.id
        )));
    }
    let mut document = next(ring);
    note_deletion(ring, &mut document, found)?;
    document.keyspaces.retain(|keyspace| keyspace.id != id.0);
    document.arcs.retain(|arc| Position::from_bytes(arc.start.clone()).keyspace() != Some(id));
    Ok(Some(Ring::new(document)?))
}

/// The positions of keyspaces that were deleted: in all gaps between those that there are, up to the next id to be
/// given. Nobody will ever own them again. Cost: O(keyspaces).
pub fn deleted(ring: &Ring) -> Vec<PositionRange> {
    let mut present: Vec<u32> = ring.keyspaces().iter().map(|keyspace| keyspace.id).collect();
    present.sort_unstable();
    present.push(ring.document().next_keyspace);
    let mut from = 1;
    let mut gaps = Vec::new();
    for id in present {
        if from < id {
            let bound = |id| Position::keyspace_start(KeyspaceId(id));
            gaps.push(PositionRange { start: bound(from), end: bound(id) });
        }
        from = id.saturating_add(1);
    }
    gaps
}

/// The ring in which a keyspace may hold data: decided before its first write. `None`: it is live already.
///
/// COPIES-FIRST: every arc has N replicas by then, or W where the keyspace was made so. Before that "committed" would
/// mean fewer copies than were asked for, and what is live stays where it is.
pub fn mark_live(ring: &Ring, keyspace: KeyspaceId) -> Result<Option<Ring>, ChangeError> {
    if let Some(found) = ring.keyspace_by_id(keyspace).filter(|found| !found.live) {
        let wanted = if found.under_replicated { found.write_quorum } else { found.replicas };
        let arcs = ring.arcs().iter().filter(|arc| arc.keyspace == keyspace);
        let copies = arcs.map(|arc| arc.replicas.len()).min().unwrap_or_default();
        if copies < wanted as usize {
            return Err(ChangeError::TooFew(too_few(found, wanted, copies)));
        }
    }
    let mut document = next(ring);
    match document.keyspaces.iter_mut().find(|found| found.id == keyspace.0) {
        None => Err(ChangeError::Invalid(format!("there is no keyspace {keyspace}"))),
        Some(found) if found.live => Ok(None),
        Some(found) => {
            found.live = true;
            Ok(Some(Ring::new(document)?))
        }
    }
}

/// What whoever writes into a keyspace hears that has too few nodes for its copies.
fn too_few(keyspace: &Keyspace, wanted: u32, nodes: usize) -> String {
    let Keyspace { name, replicas, .. } = keyspace;
    let of = if wanted < *replicas { format!(" of its {replicas}") } else { String::new() };
    let are = if nodes == 1 { "is 1 node" } else { &format!("are {nodes} nodes") };
    format!(
        "keyspace {name} takes its first write once there are nodes for {wanted}{of} copies, and there {are}: start \
         more with --seed, or ask for fewer copies with `god ring change -k {name} --replicas {nodes}`"
    )
}

/// Where an ordered keyspace was cut by its maker; empty where it was cut evenly.
pub(super) fn splits_of(ring: &Ring, id: KeyspaceId) -> Vec<Position> {
    let Some(keyspace) = ring.keyspace_by_id(id) else { return Vec::new() };
    let starts: Vec<Position> =
        ring.arcs().iter().filter(|arc| arc.keyspace == id).map(|arc| arc.range.start.clone()).collect();
    if partitioner(keyspace) == Partitioner::Hashed || starts == even_starts(keyspace, starts.len()) {
        return Vec::new();
    }
    starts.into_iter().skip(1).collect()
}

/// Where so many arcs of a keyspace start when it is cut evenly: by hash, or by the first two bytes of the key.
fn even_starts(keyspace: &Keyspace, arcs: usize) -> Vec<Position> {
    let id = KeyspaceId(keyspace.id);
    let at = |arc: usize, space: u128| space * arc as u128 / arcs as u128;
    (0..arcs)
        .map(|arc| match partitioner(keyspace) {
            _ if arc == 0 => Position::keyspace_start(id),
            Partitioner::Hashed => Position::of_hash(id, at(arc, 1 << 64) as u64),
            Partitioner::Ordered => Position::of_ordered_bound(id, &(at(arc, 1 << 16) as u16).to_be_bytes()),
        })
        .collect()
}

/// The nodes that hold copies of what may hold data.
pub(super) fn holders(document: &RingDocument) -> BTreeSet<NodeId> {
    let live: BTreeSet<KeyspaceId> =
        document.keyspaces.iter().filter(|keyspace| keyspace.live).map(|it| KeyspaceId(it.id)).collect();
    let has_data = |arc: &&Arc| keyspace_of(arc).is_some_and(|keyspace| live.contains(&keyspace));
    document.arcs.iter().filter(has_data).flat_map(|arc| &arc.replicas).map(|node| NodeId(*node)).collect()
}

/// Whether a node takes no copies until it is told to, unless there are too few others: it waits, and is none of those
/// that hold some.
pub(super) fn stands_by(node: &Member, holders: &BTreeSet<NodeId>) -> bool {
    node.waits && !holders.contains(&NodeId(node.number))
}

/// Cuts a keyspace into arcs and deals them out to all active nodes, in place of those it has; not to those that wait
/// until they are told, unless there are too few others for its copies.
pub(super) fn deal(document: &mut RingDocument, id: u32, splits: &[Position]) {
    let Some(keyspace) = document.keyspaces.iter().find(|keyspace| keyspace.id == id) else { return };
    let holders = holders(document);
    let active = || document.nodes.iter().filter(|node| node.state() == MemberState::Active);
    let others = active().filter(|node| !stands_by(node, &holders)).count();
    let too_few = others < keyspace.replicas as usize;
    let members = active().filter(|node| too_few || !stands_by(node, &holders)).cloned();
    let members: Vec<Member> = members.collect();
    let starts = if splits.is_empty() {
        let leads: usize = members.iter().map(|node| leads_of(node, document.virtual_nodes)).sum();
        // Two bytes of a key tell that many places apart.
        even_starts(keyspace, leads.clamp(1, 1 << 14))
    } else {
        std::iter::once(Position::keyspace_start(KeyspaceId(id))).chain(splits.iter().cloned()).collect()
    };
    let replicas = allocate(&members, starts.len(), keyspace.replicas as usize);
    document.arcs.retain(|arc| Position::from_bytes(arc.start.clone()).keyspace() != Some(KeyspaceId(id)));
    for (start, replicas) in starts.into_iter().zip(replicas) {
        let replicas = replicas.into_iter().map(|node| node.0).collect();
        document.arcs.push(Arc {
            id: document.next_arc,
            start: start.into_bytes(),
            replicas,
            transition: None,
            changed: 0,
        });
        document.next_arc += 1;
    }
    document.arcs.sort_by(|a, b| a.start.cmp(&b.start));
}
