//! How the ring changes: pure functions from a ring and a wish to the next ring.

use super::{
    keyspaces::{deal, splits_of, stands_by},
    next::{ChangeError, MAX_TEXT, at_most, next},
    transition::begin,
};
use crate::paxos::majority;
use god_proto::{
    ids::{ArcId, KeyspaceId, NodeId},
    ring::{
        CROWDED_RING_BYTES, MAX_VIRTUAL_NODES, MAX_WEIGHT, RING_FORMAT, Ring, RingArc, check_keyspace,
        is_weight,
    },
    v1::{JoinWish, Keyspace, Member, MemberState, RingDocument, Wish, wish},
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A node that wants in, or whose addresses changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Joiner {
    /// Who it is.
    pub uuid: Uuid,
    /// `host:port` of its door for nodes.
    pub peer_address: String,
    /// `host:port` of its door for clients.
    pub grpc_address: String,
    /// `host:port` of its HTTP door.
    pub http_address: String,
    /// What fails together with it.
    pub zone: String,
    /// How much it takes.
    pub weight: f64,
    /// Version of its program.
    pub version: String,
    /// Whether it takes its part of the data when it is taken in.
    pub takes_part: bool,
}

/// What a new cluster is founded with.
#[derive(Clone, Copy, Debug)]
pub struct Founding {
    /// N, W and R of the keyspace `default`.
    pub replicas: u32,
    /// See `replicas`.
    pub write_quorum: u32,
    /// See `replicas`.
    pub read_quorum: u32,
    /// Arcs a node of weight 1 leads.
    pub virtual_nodes: u32,
    /// Whether the keyspace `default` may go live with fewer than N nodes, but at least W.
    pub under_replicated: bool,
}

/// The ring of a new cluster: one node, which is the one voter, and the keyspace `default`.
pub fn found(cluster: Uuid, first: &Joiner, founding: Founding) -> Result<Ring, ChangeError> {
    check_texts(first)?;
    if !(1..=MAX_VIRTUAL_NODES).contains(&founding.virtual_nodes) {
        return Err(ChangeError::Invalid(format!(
            "virtual-nodes {} is not 1 to {MAX_VIRTUAL_NODES}",
            founding.virtual_nodes
        )));
    }
    let keyspace = Keyspace {
        id: 1,
        name: god_proto::DEFAULT_KEYSPACE.to_owned(),
        replicas: founding.replicas,
        write_quorum: founding.write_quorum,
        read_quorum: founding.read_quorum,
        under_replicated: founding.under_replicated,
        ..Keyspace::default()
    };
    check_keyspace(&keyspace).map_err(ChangeError::Invalid)?;
    let mut document = RingDocument {
        format: RING_FORMAT,
        cluster: cluster.as_bytes().to_vec().into(),
        epoch: 1,
        voters: vec![1],
        keyspaces: vec![keyspace],
        nodes: vec![member(1, first)?],
        next_node: 2,
        next_keyspace: 2,
        next_arc: 1,
        virtual_nodes: founding.virtual_nodes,
        ..RingDocument::default()
    };
    deal(&mut document, 1, &[]);
    Ok(Ring::new(document)?)
}

/// The ring with a node in it, or with its new addresses. `None`: it is there just so. A member keeps its zone and
/// weight: changing those moves data. EMPTY-MOVES-FREE: the arcs of keyspaces that are not live are dealt out anew.
/// `away` are nodes that are not known to be up; those of them that are `down`, known to be gone, get no vote, and the
/// others do where more than half of all voters are known to be up: a cluster in the making is heard of bit by bit.
pub fn join(
    ring: &Ring,
    joiner: &Joiner,
    down: &BTreeSet<NodeId>,
    away: &BTreeSet<NodeId>,
) -> Result<Option<Ring>, ChangeError> {
    if ring.is_retired(joiner.uuid) {
        return Err(ChangeError::Retired(joiner.uuid));
    }
    check_texts(joiner)?;
    let mut document = next(ring);
    // An address belongs to whoever claimed it last: its former owner comes back with another one, or not at all.
    for node in &mut document.nodes {
        if node.uuid != joiner.uuid.as_bytes()[..] && node.peer_address == joiner.peer_address {
            node.peer_address.clear();
        }
    }
    let known = document.nodes.iter_mut().find(|node| node.uuid == joiner.uuid.as_bytes()[..]);
    if let Some(node) = known {
        node.peer_address.clone_from(&joiner.peer_address);
        node.grpc_address.clone_from(&joiner.grpc_address);
        node.http_address.clone_from(&joiner.http_address);
        node.version.clone_from(&joiner.version);
        if document.nodes == ring.nodes() {
            return Ok(None);
        }
        return Ok(Some(Ring::new(document)?));
    }
    let number = document.next_node;
    document.next_node += 1;
    let live = document.keyspaces.iter().any(|keyspace| keyspace.live);
    let waits = live && !joiner.takes_part;
    document.nodes.push(Member { waits, ..member(number, joiner)? });
    let (nodes, present) = (&document.nodes, &document.voters);
    let least = must_bear(nodes.len(), present, away);
    let heard_of = choose_voters(nodes, present, down).filter(|voters| may_fail_of(voters, away) >= least);
    if let Some(voters) = heard_of.or_else(|| choose_voters(nodes, present, away)) {
        document.voters = voters;
    }
    let empty: Vec<u32> =
        document.keyspaces.iter().filter(|keyspace| !keyspace.live).map(|it| it.id).collect();
    for id in empty {
        let splits = splits_of(ring, KeyspaceId(id));
        deal(&mut document, id, &splits);
    }
    let ring = at_most(CROWDED_RING_BYTES, document)?;
    if joiner.takes_part && live {
        return Ok(Some(with_join(&ring, number, away)?));
    }
    Ok(Some(ring))
}

/// The same ring, with the operation by which a new member takes its part.
fn with_join(ring: &Ring, number: u32, away: &BTreeSet<NodeId>) -> Result<Ring, ChangeError> {
    let wish = Wish { wish: Some(wish::Wish::Join(JoinWish { node: number })) };
    match begin(ring, &format!("join-{number}"), &wish, away) {
        Ok(Some(begun)) => {
            let mut document = begun.document().clone();
            document.epoch = ring.epoch().0;
            Ok(Ring::new(document)?)
        }
        // Too many wait: it is a member, and takes its part when it is asked to.
        _ => Ok(ring.clone()),
    }
}

/// How many nodes decide the next epoch: one below three nodes, three below five, then five. An even number would need
/// more of them up and bear no more of them down.
fn voters_wanted(nodes: usize) -> usize {
    match nodes {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    }
}

/// Who decides the next epoch, or `None`: those who do now. They stay, others come from zones that have none; whichever
/// are `away` (not known to be up: more than those that are down) get no new vote, and are the first to lose one where
/// there are too many. Where too few are up for a larger set there are fewer voters, until [`add_voters`] finds more.
///
/// Any voters may follow upon any others, as each epoch is decided by the majority of its own alone. What must be is
/// that a majority of the new ones is up (invariant VOTES-LIVE), or nothing would be decided any more. So they are
/// others than before only where more than half of them are not away, and as many of them may fail as of those who
/// decide now, unless there are fewer nodes: that somebody is not heard of must not leave it to one alone. Else those
/// who decide now go on to do so, one that leaves too.
pub fn choose_voters(nodes: &[Member], present: &[u32], away: &BTreeSet<NodeId>) -> Option<Vec<u32>> {
    let wanted = voters_wanted(nodes.len());
    let is_away = |node: &Member| away.contains(&NodeId(node.number));
    let active = || nodes.iter().filter(|node| node.state() == MemberState::Active);
    let is_present = |node: &Member| present.contains(&node.number);
    let mut chosen: Vec<&Member> = active().filter(|node| is_present(node)).collect();
    chosen.sort_by_key(|node| is_away(node));
    chosen.truncate(wanted);
    while chosen.len() < wanted {
        let in_zone = |zone: &str| chosen.iter().filter(|node| node.zone == zone).count();
        let may = |node: &&Member| !is_away(node) && !chosen.iter().any(|it| it.number == node.number);
        match active().filter(may).min_by_key(|node| (in_zone(&node.zone), node.number)) {
            Some(node) => chosen.push(node),
            None => break,
        }
    }
    if chosen.len().is_multiple_of(2) {
        let last_away = chosen.iter().rposition(|node| is_away(node));
        let goes = last_away.unwrap_or(chosen.len().saturating_sub(1));
        chosen = chosen.into_iter().enumerate().filter(|(at, _)| *at != goes).map(|(_, node)| node).collect();
    }
    let mut voters: Vec<u32> = chosen.iter().map(|node| node.number).collect();
    voters.sort_unstable();
    (may_fail_of(&voters, away) >= must_bear(nodes.len(), present, away)).then_some(voters)
}

/// How many failures voters of so many nodes have to bear: as many as the present ones, if so many nodes can.
fn must_bear(nodes: usize, present: &[u32], away: &BTreeSet<NodeId>) -> isize {
    // Below 0 nothing could be decided now, so that what is known of the present ones is wrong.
    may_fail_of(present, away).clamp(0, most_failures(nodes) as isize)
}

/// How many of the voters of so many nodes may fail at the most.
pub fn most_failures(nodes: usize) -> usize {
    voters_wanted(nodes) - majority(voters_wanted(nodes))
}

/// How many more of so many voters, of whom these are up, may fail until nothing is decided any more; below 0, nothing
/// is now.
pub fn may_fail(voters: usize, up: usize) -> isize {
    up as isize - majority(voters) as isize
}

/// The same of voters of whom those that are not `away` are up.
fn may_fail_of(voters: &[u32], away: &BTreeSet<NodeId>) -> isize {
    let up = voters.iter().filter(|voter| !away.contains(&NodeId(**voter))).count();
    may_fail(voters.len(), up)
}

/// Has those decide who should by what the nodes are now, if they may.
pub fn take_votes(document: &mut RingDocument, away: &BTreeSet<NodeId>) {
    if let Some(voters) = choose_voters(&document.nodes, &document.voters, away) {
        document.voters = voters;
    }
}

/// Has others decide without a node that is no more among the members.
pub fn pass_vote_on(
    document: &mut RingDocument,
    gone: NodeId,
    away: &BTreeSet<NodeId>,
) -> Result<(), ChangeError> {
    if !document.voters.contains(&gone.0) {
        return Ok(());
    }
    // Others that leave are not counted among those who are to come.
    let is_active = |node: &&Member| node.state() == MemberState::Active;
    let active: Vec<Member> = document.nodes.iter().filter(is_active).cloned().collect();
    document.voters = choose_voters(&active, &document.voters, away).ok_or_else(|| {
        ChangeError::TooFew(format!(
            "node {gone} goes on to vote: nobody may take its vote while nodes {} are not known to be up and ready; \
             start them, or take them out first with `god ring change --leave N --lost`",
            away.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ))
    })?;
    Ok(())
}

/// The ring in which more nodes decide, where there were too few that were up, or others in place of one that leaves.
/// `None`: there are enough, or still too few.
pub fn add_voters(ring: &Ring, away: &BTreeSet<NodeId>) -> Result<Option<Ring>, ChangeError> {
    let present = &ring.document().voters;
    let leaves =
        |voter: &u32| ring.node(NodeId(*voter)).is_some_and(|node| node.state() != MemberState::Active);
    let has_leaver = present.iter().any(leaves);
    if present.len() >= voters_wanted(ring.nodes().len()) && !has_leaver {
        return Ok(None);
    }
    let Some(voters) = choose_voters(ring.nodes(), present, away) else { return Ok(None) };
    // Who is away for long passes its vote on by itself, and one at a time.
    let keeps = present.iter().all(|voter| leaves(voter) || voters.contains(voter));
    let least = if has_leaver { present.len() } else { present.len() + 1 };
    if !keeps || voters.len() < least || voters == *present {
        return Ok(None);
    }
    let mut document = next(ring);
    document.voters = voters;
    Ok(Some(Ring::new(document)?))
}

/// The ring in which another node decides in place of a voter that is gone, from a zone with the fewest of them.
/// `None`: it is none, or nobody can take its place. One at a time: more are up in the new set than were in the old
/// one, which must decide this (invariant VOTES-FOLLOW).
pub fn replace_voter(
    ring: &Ring,
    gone: NodeId,
    is_up: impl Fn(NodeId) -> bool,
) -> Result<Option<Ring>, ChangeError> {
    if !ring.voters().any(|voter| voter == gone) {
        return Ok(None);
    }
    let mut document = next(ring);
    document.voters.retain(|voter| *voter != gone.0);
    let is_voter = |node: &Member| document.voters.contains(&node.number);
    let in_zone = |zone: &str| ring.nodes().iter().filter(|node| is_voter(node) && node.zone == zone).count();
    let may = |node: &&Member| {
        node.state() == MemberState::Active
            && !is_voter(node)
            && node.number != gone.0
            && is_up(NodeId(node.number))
    };
    let Some(best) = ring.nodes().iter().filter(may).min_by_key(|node| (in_zone(&node.zone), node.number))
    else {
        return Ok(None);
    };
    document.voters.push(best.number);
    document.voters.sort_unstable();
    Ok(Some(Ring::new(document)?))
}

/// Arcs with fewer copies than their keyspace asks for, or with a copy on a node that is not up: which, how many are
/// up, and how many there should be.
pub fn under_replicated(ring: &Ring, is_up: impl Fn(NodeId) -> bool) -> Vec<(ArcId, usize, usize)> {
    let wanted = |keyspace| ring.keyspace_by_id(keyspace).map_or(0, |keyspace| keyspace.replicas as usize);
    ring.arcs()
        .iter()
        .map(|arc| (arc.id, arc.replicas.iter().filter(|node| is_up(**node)).count(), wanted(arc.keyspace)))
        .filter(|(_, up, wanted)| up < wanted)
        .collect()
}

/// The arcs that two nodes hold, or are about to: neither can take the other's place there.
pub(super) fn held_by_both(ring: &Ring, one: NodeId, other: NodeId) -> impl Iterator<Item = &RingArc> {
    ring.arcs().iter().filter(move |arc| Ring::holds(arc, one) && Ring::holds(arc, other))
}

/// Whether arcs that hold data have fewer copies than they should though there are nodes for more, as a lost node left
/// them; or more than they should, as a change of their number did that stopped where it was. A rebalance mends either.
/// Cost: O(arcs).
pub fn has_wrong_copies(ring: &Ring) -> bool {
    let copies = ring.arcs().iter().filter_map(|arc| {
        let keyspace = ring.keyspace_by_id(arc.keyspace).filter(|keyspace| keyspace.live)?;
        Some((&*arc.replicas, keyspace.replicas as usize))
    });
    let copies: Vec<(&[NodeId], usize)> = copies.collect();
    // As the planner has it: who waits takes nothing, unless it holds something already.
    let holders = copies.iter().flat_map(|(replicas, _)| *replicas).copied().collect();
    let takes = |node: &&Member| node.state() == MemberState::Active && !stands_by(node, &holders);
    let nodes = ring.nodes().iter().filter(takes).count();
    copies.iter().any(|(replicas, wanted)| replicas.len() < nodes.min(*wanted) || replicas.len() > *wanted)
}

/// For each node: arcs it holds a copy of, and its part of all copies.
pub fn shares(ring: &Ring) -> BTreeMap<NodeId, (u32, f64)> {
    let mut counts: BTreeMap<NodeId, u32> =
        ring.nodes().iter().map(|node| (NodeId(node.number), 0)).collect();
    for node in ring.arcs().iter().flat_map(|arc| &arc.replicas) {
        *counts.entry(*node).or_default() += 1;
    }
    let all = f64::from(counts.values().sum::<u32>()).max(1.0);
    counts.into_iter().map(|(node, count)| (node, (count, f64::from(count) / all))).collect()
}

fn member(number: u32, joiner: &Joiner) -> Result<Member, ChangeError> {
    let Joiner { uuid, weight, .. } = joiner;
    if !is_weight(*weight) {
        return Err(ChangeError::Invalid(format!("weight {weight} is not above 0 and up to {MAX_WEIGHT}")));
    }
    Ok(Member {
        number,
        uuid: uuid.as_bytes().to_vec().into(),
        peer_address: joiner.peer_address.clone(),
        grpc_address: joiner.grpc_address.clone(),
        http_address: joiner.http_address.clone(),
        zone: joiner.zone.clone(),
        weight: *weight,
        state: MemberState::Active.into(),
        waits: false,
        version: joiner.version.clone(),
    })
}

/// What a node says of itself goes into the ring, whose size has a bound.
///
/// # Errors
///
/// `Invalid`: which text is too long.
pub fn check_texts(joiner: &Joiner) -> Result<(), ChangeError> {
    let texts = [
        ("peer address", &joiner.peer_address),
        ("gRPC address", &joiner.grpc_address),
        ("HTTP address", &joiner.http_address),
        ("zone", &joiner.zone),
        ("version", &joiner.version),
    ];
    match texts.into_iter().find(|(_, text)| text.len() > MAX_TEXT) {
        None => Ok(()),
        Some((what, _)) => Err(ChangeError::Invalid(format!(
            "the {what} of node {} is longer than {MAX_TEXT} bytes",
            joiner.uuid
        ))),
    }
}
