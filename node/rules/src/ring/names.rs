//! When the name of a keyspace that was deleted comes free (invariant NAME-HEARD). Pure.
//!
//! Who has not heard of a deletion still finds the old keyspace under its name, reads from it and writes into it, where
//! as many replicas as a quorum have not heard of it either. So the name is given again only once fewer are left. (Its
//! id never is: nothing of the old one gets into the new one.)

use super::{next::ChangeError, wishes::given_up};
use god_proto::{
    ids::{Epoch, KeyspaceId, NodeId},
    ring::{MAX_DELETED, Ring, quorums},
    v1::{DeletedKeyspace, Keyspace, RingDocument},
};
use std::collections::BTreeSet;

/// Who knows the ring of an epoch, or a later one.
#[derive(Clone, Debug, Default)]
pub struct Hearing {
    /// That epoch.
    pub epoch: Epoch,
    /// Nodes that know it.
    pub by: BTreeSet<NodeId>,
}

/// Notes that a keyspace is deleted by this document, which is to follow a ring in which it still is. One that is not
/// live needs no note: nobody has written into it, and who reads from it asks the voters first (EMPTY-CONFIRMED).
pub(super) fn note_deletion(
    ring: &Ring,
    document: &mut RingDocument,
    keyspace: &Keyspace,
) -> Result<(), ChangeError> {
    if !keyspace.live {
        return Ok(());
    }
    if document.deleted.len() >= MAX_DELETED {
        return Err(ChangeError::Unheard(format!(
            "{MAX_DELETED} keyspaces were deleted of which nodes have not heard that were away; start those, or take them \
             out (`god ring change --leave NODE --lost`)"
        )));
    }
    let mut replicas = BTreeSet::new();
    let mut least = u32::MAX;
    for arc in ring.arcs().iter().filter(|arc| arc.keyspace == KeyspaceId(keyspace.id)) {
        for set in std::iter::once(&arc.replicas).chain(&arc.next) {
            let copies = set.len();
            let terms = quorums(keyspace, copies);
            // Calls may ask for a majority, whatever the keyspace says.
            let majority = copies as u32 / 2 + 1;
            least = least.min(terms.least_write_quorum).min(terms.read_quorum).min(majority);
            replicas.extend(set.iter().map(|node| node.0));
        }
    }
    document.deleted.push(DeletedKeyspace {
        name: keyspace.name.clone(),
        epoch: document.epoch,
        replicas: replicas.into_iter().collect(),
        least_quorum: least.max(1),
    });
    Ok(())
}

/// Replicas of a deleted keyspace that are not known to have heard of that; those that were retired are none any more.
fn left(ring: &Ring, deleted: &DeletedKeyspace, hearing: &Hearing) -> BTreeSet<NodeId> {
    let has_heard = |node: &NodeId| hearing.epoch.0 >= deleted.epoch && hearing.by.contains(node);
    let replicas = deleted.replicas.iter().map(|node| NodeId(*node));
    replicas.filter(|node| ring.node(*node).is_some() && !has_heard(node)).collect()
}

/// Those of them by which it may still be reached; empty once its name is free. Whose data are taken for lost, and
/// cannot be called anything else any more, is waited for by nobody. Cost: O(its replicas).
fn unheard(ring: &Ring, deleted: &DeletedKeyspace, hearing: &Hearing) -> BTreeSet<NodeId> {
    let given_up = given_up(ring);
    let left: BTreeSet<NodeId> = left(ring, deleted, hearing).difference(&given_up).copied().collect();
    if left.len() < deleted.least_quorum.max(1) as usize { BTreeSet::new() } else { left }
}

/// Replicas of deleted keyspaces that must hear of that before all names of them, or this one, are free.
pub fn names_wait_for(ring: &Ring, name: Option<&str>, hearing: &Hearing) -> BTreeSet<NodeId> {
    let asked = ring.document().deleted.iter().filter(|deleted| name.is_none_or(|name| deleted.name == name));
    asked.flat_map(|deleted| unheard(ring, deleted, hearing)).collect()
}

/// Refuses to retire a node that went silently, and whose data are not said to be lost, while a name waits for it: it
/// may be cut off, and answer for what was deleted.
pub(super) fn check_unheard(ring: &Ring, gone: NodeId, hearing: &Hearing) -> Result<(), ChangeError> {
    match names_wait_for(ring, None, hearing).contains(&gone) {
        true => Err(ChangeError::Unheard(format!(
            "node {gone} is not known to have heard of keyspaces that were deleted, and may answer for them: start it, or \
             say that its data are lost (`god ring change --leave {gone} --lost`)"
        ))),
        false => Ok(()),
    }
}

/// The same ring, in which names are free of which enough have heard, and others wait for the rest only;
/// [`super::create_keyspace`] and [`super::delete_keyspace`] begin from it. Cost: O(document).
pub fn free_names(ring: &Ring, hearing: &Hearing) -> Result<Ring, ChangeError> {
    let mut document = ring.document().clone();
    document.deleted.retain_mut(|deleted| {
        let waits = !unheard(ring, deleted, hearing).is_empty();
        deleted.replicas = left(ring, deleted, hearing).into_iter().map(|node| node.0).collect();
        waits
    });
    Ok(Ring::new(document)?)
}

/// Refuses a name that is not free yet.
pub(super) fn check_name(ring: &Ring, name: &str) -> Result<(), ChangeError> {
    let Some(deleted) = ring.document().deleted.iter().find(|deleted| deleted.name == name) else {
        return Ok(());
    };
    let nodes: Vec<String> = deleted.replicas.iter().map(ToString::to_string).collect();
    Err(ChangeError::Unheard(format!(
        "a keyspace {name} was deleted, and nodes {} held it and are not known to have heard of that: enough of them to \
         answer for it still. The name is free once they are up, or taken out (`god ring change --leave NODE --lost`); \
         any other name is free now",
        nodes.join(", ")
    )))
}
