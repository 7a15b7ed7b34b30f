//! How the ring changes: pure functions from a ring and a wish to the next ring.

use super::{
    allocate::{allocate, leads_of},
    transition::begin,
};
use god_proto::{
    ids::{ArcId, KeyspaceId, NodeId},
    position::Position,
    ring::{RING_FORMAT, Ring, RingError, check_keyspace, partitioner},
    v1::{Arc, JoinWish, Keyspace, Member, MemberState, Mode, Partitioner, Reason, RingDocument, Wish, wish},
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Why a ring does not change as wished.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The wish itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It is there already.
    #[error("{0}")]
    Exists(String),
    /// The node left for good.
    #[error(
        "node {0} was retired from this cluster; give it a new data directory, and it joins as a new node"
    )]
    Retired(Uuid),
    /// The result would break a rule: a defect of this program.
    #[error(transparent)]
    Broken(#[from] RingError),
}

impl ChangeError {
    /// What clients are told.
    pub fn reason(&self) -> Reason {
        match self {
            ChangeError::Exists(_) => Reason::Exists,
            _ => Reason::Invalid,
        }
    }
}

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
}

/// The ring of a new cluster: one node, which is the one voter, and the keyspace `default`.
pub fn found(cluster: Uuid, first: &Joiner, founding: Founding) -> Result<Ring, ChangeError> {
    if !(1..=1_000).contains(&founding.virtual_nodes) {
        return Err(ChangeError::Invalid(format!(
            "virtual-nodes {} is not 1 to 1000",
            founding.virtual_nodes
        )));
    }
    let keyspace = Keyspace {
        id: 1,
        name: god_proto::DEFAULT_KEYSPACE.to_owned(),
        replicas: founding.replicas,
        write_quorum: founding.write_quorum,
        read_quorum: founding.read_quorum,
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
pub fn join(ring: &Ring, joiner: &Joiner) -> Result<Option<Ring>, ChangeError> {
    if ring.is_retired(joiner.uuid) {
        return Err(ChangeError::Retired(joiner.uuid));
    }
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
    document.voters = choose_voters(&document.nodes, &document.voters);
    let empty: Vec<u32> =
        document.keyspaces.iter().filter(|keyspace| !keyspace.live).map(|it| it.id).collect();
    for id in empty {
        let splits = splits_of(ring, KeyspaceId(id));
        deal(&mut document, id, &splits);
    }
    let ring = Ring::new(document)?;
    if joiner.takes_part && live {
        return Ok(Some(with_join(&ring, number)?));
    }
    Ok(Some(ring))
}

/// The same ring, with the operation by which a new member takes its part.
fn with_join(ring: &Ring, number: u32) -> Result<Ring, ChangeError> {
    let wish = Wish { wish: Some(wish::Wish::Join(JoinWish { node: number })) };
    match begin(ring, &format!("join-{number}"), &wish) {
        Ok(Some(begun)) => {
            let mut document = begun.document().clone();
            document.epoch = ring.epoch().0;
            Ok(Ring::new(document)?)
        }
        // Too many wait: it is a member, and takes its part when it is asked to.
        _ => Ok(ring.clone()),
    }
}

/// The ring with one keyspace more. `splits` are the keys at which an ordered one is cut.
pub fn create_keyspace(ring: &Ring, wish: &Keyspace, splits: &[Vec<u8>]) -> Result<Ring, ChangeError> {
    let mut keyspace = Keyspace { live: false, id: ring.document().next_keyspace, ..wish.clone() };
    for (quorum, replicas) in
        [(&mut keyspace.write_quorum, keyspace.replicas), (&mut keyspace.read_quorum, keyspace.replicas)]
    {
        if *quorum == 0 {
            *quorum = replicas / 2 + 1;
        }
    }
    check_keyspace(&keyspace).map_err(ChangeError::Invalid)?;
    if keyspace.mode() != Mode::Lww {
        return Err(ChangeError::Invalid(format!(
            "mode linearizable of keyspace {} is not available in this version; use lww",
            keyspace.name
        )));
    }
    if ring.keyspace(&keyspace.name).is_some() {
        return Err(ChangeError::Exists(format!("keyspace {} exists already", keyspace.name)));
    }
    let is_ordered = partitioner(&keyspace) == Partitioner::Ordered;
    if !splits.is_empty() && !is_ordered {
        return Err(ChangeError::Invalid(
            "splits need an ordered keyspace; a hashed one is cut by hash".to_owned(),
        ));
    }
    let mut document = next(ring);
    document.next_keyspace += 1;
    let id = keyspace.id;
    let splits: BTreeSet<&[u8]> = splits.iter().map(Vec::as_slice).filter(|key| !key.is_empty()).collect();
    let splits: Vec<Position> =
        splits.into_iter().map(|key| Position::of_ordered_bound(KeyspaceId(id), key)).collect();
    document.keyspaces.push(keyspace);
    deal(&mut document, id, &splits);
    Ok(Ring::new(document)?)
}

/// The ring in which a keyspace may hold data: decided before its first write. `None`: it is live already.
pub fn mark_live(ring: &Ring, keyspace: KeyspaceId) -> Result<Option<Ring>, ChangeError> {
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

/// Who decides the next epoch: one below three nodes, three below five, then five. Those who do already stay, others
/// come from zones that have none. An even number would need more of them up and bear no more of them down.
pub fn choose_voters(nodes: &[Member], present: &[u32]) -> Vec<u32> {
    let wanted = match nodes.len() {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    };
    let active = |node: &&Member| node.state() == MemberState::Active;
    let mut chosen: Vec<&Member> =
        nodes.iter().filter(active).filter(|node| present.contains(&node.number)).take(wanted).collect();
    while chosen.len() < wanted {
        let in_zone = |zone: &str| chosen.iter().filter(|node| node.zone == zone).count();
        let rest =
            nodes.iter().filter(active).filter(|node| !chosen.iter().any(|it| it.number == node.number));
        match rest.min_by_key(|node| (in_zone(&node.zone), node.number)) {
            Some(node) => chosen.push(node),
            None => break,
        }
    }
    let mut voters: Vec<u32> = chosen.iter().map(|node| node.number).collect();
    if voters.len().is_multiple_of(2) {
        voters.pop();
    }
    voters.sort_unstable();
    voters
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

pub(super) fn next(ring: &Ring) -> RingDocument {
    let mut document = ring.document().clone();
    document.epoch += 1;
    document
}

fn member(number: u32, joiner: &Joiner) -> Result<Member, ChangeError> {
    let Joiner { uuid, weight, .. } = joiner;
    if !(weight.is_finite() && *weight > 0.0 && *weight <= 1_000.0) {
        return Err(ChangeError::Invalid(format!("weight {weight} is not above 0 and up to 1000")));
    }
    for (what, text) in [
        ("peer address", &joiner.peer_address),
        ("gRPC address", &joiner.grpc_address),
        ("HTTP address", &joiner.http_address),
        ("zone", &joiner.zone),
        ("version", &joiner.version),
    ] {
        if text.len() > 256 {
            return Err(ChangeError::Invalid(format!("the {what} of node {uuid} is longer than 256 bytes")));
        }
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

/// Cuts a keyspace into arcs and deals them out to all active nodes, in place of those it has.
pub(super) fn deal(document: &mut RingDocument, id: u32, splits: &[Position]) {
    let Some(keyspace) = document.keyspaces.iter().find(|keyspace| keyspace.id == id) else { return };
    let members: Vec<Member> =
        document.nodes.iter().filter(|node| node.state() == MemberState::Active).cloned().collect();
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
        });
        document.next_arc += 1;
    }
    document.arcs.sort_by(|a, b| a.start.cmp(&b.start));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn joiner(number: u128, zone: &str, weight: f64) -> Joiner {
        Joiner {
            uuid: Uuid::from_u128(number),
            peer_address: format!("node-{number}:7100"),
            grpc_address: format!("node-{number}:7000"),
            http_address: format!("node-{number}:7200"),
            zone: zone.to_owned(),
            weight,
            version: "1".to_owned(),
            takes_part: false,
        }
    }

    fn founded() -> Ring {
        let founding = Founding { replicas: 3, write_quorum: 2, read_quorum: 2, virtual_nodes: 2 };
        found(Uuid::from_u128(9), &joiner(1, "a", 1.0), founding).unwrap()
    }

    fn joined(ring: &Ring, joiner: &Joiner) -> Ring {
        join(ring, joiner).unwrap().expect("the ring should change")
    }

    fn show(ring: &Ring) -> String {
        let mut out = format!("epoch {}  voters {:?}\n", ring.epoch(), ring.document().voters);
        for node in ring.nodes() {
            writeln!(
                out,
                "node {}  zone {}  weight {}  {}",
                node.number, node.zone, node.weight, node.peer_address
            )
            .unwrap();
        }
        for keyspace in ring.keyspaces() {
            let live = if keyspace.live { "live" } else { "empty" };
            writeln!(out, "keyspace {}  {live}  N {}", keyspace.name, keyspace.replicas).unwrap();
            for arc in ring.arcs().iter().filter(|arc| arc.keyspace.0 == keyspace.id) {
                let replicas: Vec<u32> = arc.replicas.iter().map(|node| node.0).collect();
                writeln!(out, "  arc {:2}  from {:?}  on {replicas:?}", arc.id.0, arc.range.start).unwrap();
            }
        }
        out
    }

    /// Compares with a file that a person can read; `UPDATE_GOLDEN=1` writes it anew.
    fn golden(name: &str, shown: &str) {
        let path = format!("{}/src/ring/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, shown).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(shown, expected, "{path} differs; UPDATE_GOLDEN=1 writes it anew");
    }

    #[test]
    fn a_cluster_grows_from_one_node_to_five_over_three_zones() {
        let mut ring = founded();
        let mut shown = format!("# founded by node 1\n{}", show(&ring));
        for (number, zone, weight) in [(2, "a", 1.0), (3, "b", 1.0), (4, "c", 2.0), (5, "c", 1.0)] {
            ring = joined(&ring, &joiner(number, zone, weight));
            write!(shown, "\n# node {number} of weight {weight} joins from zone {zone}\n{}", show(&ring))
                .unwrap();
        }
        golden("growing", &shown);
    }

    #[test]
    fn a_voter_that_is_gone_gives_its_vote_to_a_node_that_is_up() {
        let mut ring = founded();
        for (number, zone) in [(2, "a"), (3, "b"), (4, "b"), (5, "a")] {
            ring = joined(&ring, &joiner(number, zone, 1.0));
        }
        // Of five all decide. With four, one does not.
        assert_eq!(replace_voter(&ring, NodeId(2), |_| true), Ok(None), "nobody is left who could");
        let mut document = next(&ring);
        document.voters = vec![1, 2, 3];
        let ring = Ring::new(document).unwrap();
        let voters = |gone, is_up: &dyn Fn(NodeId) -> bool| {
            replace_voter(&ring, NodeId(gone), is_up).unwrap().map(|ring| ring.document().voters.clone())
        };
        assert_eq!(voters(3, &|_| true), Some(vec![1, 2, 4]), "its zone has no other one");
        assert_eq!(voters(1, &|_| true), Some(vec![2, 3, 4]));
        assert_eq!(voters(1, &|node| node.0 != 4), Some(vec![2, 3, 5]));
        assert_eq!(voters(1, &|_| false), None);
        assert_eq!(voters(4, &|_| true), None, "it is no voter");
    }

    #[test]
    fn a_live_keyspace_stays_where_it_is_and_an_empty_one_is_dealt_anew() {
        let ring = joined(&founded(), &joiner(2, "a", 1.0));
        let ring = mark_live(&ring, KeyspaceId(1)).unwrap().unwrap();
        let wish = Keyspace {
            name: "names".to_owned(),
            replicas: 2,
            partitioner: Partitioner::Ordered.into(),
            ..Keyspace::default()
        };
        let ring = create_keyspace(&ring, &wish, &[b"m".to_vec(), b"c".to_vec()]).unwrap();
        let mut shown = format!("# `default` is live, `names` is cut at c and m\n{}", show(&ring));
        let ring = joined(&ring, &joiner(3, "b", 1.0));
        write!(shown, "\n# node 3 joins\n{}", show(&ring)).unwrap();
        golden("live_and_empty", &shown);
    }

    #[test]
    fn a_member_that_comes_back_with_other_addresses_keeps_its_number_and_arcs() {
        let ring = joined(&founded(), &joiner(2, "a", 1.0));
        assert_eq!(join(&ring, &joiner(2, "a", 1.0)), Ok(None));
        let moved =
            Joiner { peer_address: "elsewhere:1".to_owned(), zone: "z".to_owned(), ..joiner(2, "a", 9.0) };
        let after = joined(&ring, &moved);
        assert_eq!(after.arcs(), ring.arcs());
        let node = after.node(NodeId(2)).unwrap();
        assert_eq!((node.peer_address.as_str(), node.zone.as_str(), node.weight), ("elsewhere:1", "a", 1.0));
    }

    #[test]
    fn an_address_belongs_to_whoever_claimed_it_last() {
        let ring = joined(&founded(), &joiner(2, "a", 1.0));
        let taken = Joiner { peer_address: "node-2:7100".to_owned(), ..joiner(3, "a", 1.0) };
        let after = joined(&ring, &taken);
        assert_eq!(after.node(NodeId(2)).unwrap().peer_address, "");
        assert_eq!(after.node(NodeId(3)).unwrap().peer_address, "node-2:7100");
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name() {
        let ring = founded();
        let wish = |name: &str, replicas, write_quorum| Keyspace {
            name: name.to_owned(),
            replicas,
            write_quorum,
            ..Keyspace::default()
        };
        let says = |wish: Keyspace, splits: &[Vec<u8>]| {
            create_keyspace(&ring, &wish, splits).unwrap_err().to_string()
        };
        assert!(says(wish("default", 3, 2), &[]).contains("exists already"));
        assert!(says(wish("x", 3, 4), &[]).contains("write-quorum 4 exceeds replicas 3"));
        assert!(says(wish("x", 3, 2), &[b"a".to_vec()]).contains("ordered"));
        assert!(
            says(Keyspace { mode: Mode::Linearizable.into(), ..wish("x", 3, 2) }, &[])
                .contains("linearizable")
        );
        assert!(says(wish("a b", 3, 2), &[]).contains("letters"));
        assert!(join(&ring, &joiner(2, "", f64::INFINITY)).unwrap_err().to_string().contains("weight"));
    }

    #[test]
    fn a_retired_node_is_refused() {
        let mut document = founded().document().clone();
        document.retired.push(Uuid::from_u128(5).as_bytes().to_vec().into());
        let ring = Ring::new(document).unwrap();
        assert_eq!(join(&ring, &joiner(5, "", 1.0)), Err(ChangeError::Retired(Uuid::from_u128(5))));
    }

    #[test]
    fn a_cluster_smaller_than_n_says_which_arcs_lack_copies() {
        let ring = joined(&founded(), &joiner(2, "a", 1.0));
        let lacking = under_replicated(&ring, |_| true);
        assert_eq!(lacking.len(), ring.arcs().len());
        assert!(lacking.iter().all(|(_, up, wanted)| (*up, *wanted) == (2, 3)));
        let ring = joined(&ring, &joiner(3, "a", 1.0));
        assert_eq!(under_replicated(&ring, |_| true), []);
        assert!(!under_replicated(&ring, |node| node != NodeId(2)).is_empty());
    }
}
