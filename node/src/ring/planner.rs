//! How rings change: pure functions from a ring to the next document.
//!
//! Each raises the epoch by one and gives a document that holds together (RING-WELL-FORMED), or says in a sentence
//! why not. The same request on the same ring gives the same document, on any node.

use super::{cut, deal::deal, quota::Share, voters::choose_voters};
use bytes::Bytes;
use god_proto::{
    DEFAULT_KEYSPACE, MAX_KEY,
    ids::KeyspaceId,
    position::{Part, Position},
    ring::{MAX_ARCS, MAX_KEYSPACES, MAX_NODES, RING_FORMAT, Ring, RingArc, check_keyspace, partitioner},
    v1::{Arc, Keyspace, Member, MemberState, Mode, Partitioner, RingDocument},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A longer address, zone or version is a mistake.
const MAX_TEXT: usize = 256;

/// Why a ring does not change as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingChangeError {
    /// What should be made is there.
    #[error("{0}")]
    Exists(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The keyspace it is about is not there.
    #[error("there is no keyspace {0}")]
    NoSuchKeyspace(String),
    /// The node it is about is not there.
    #[error("there is no node {0}")]
    NoSuchNode(String),
    /// The rules are against it.
    #[error("{0}")]
    Refused(String),
}

/// A node that wants in, or says anew where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Joiner {
    /// Who it is, for ever.
    pub uuid: Uuid,
    /// host:port of its node-to-node door.
    pub peer_address: String,
    /// host:port of its client gRPC door.
    pub grpc_address: String,
    /// host:port of its HTTP door.
    pub http_address: String,
    /// What it fails together with; nodes without a name share one zone.
    pub zone: String,
    /// Its part of the data, beside others': above 0, up to 1000.
    pub weight: f64,
    /// Version of its program.
    pub version: String,
}

/// What a new cluster starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOptions {
    /// N of the keyspace `default`.
    pub replicas: u32,
    /// W of it, where a call names none.
    pub write_quorum: u32,
    /// R of it, where a call names none.
    pub read_quorum: u32,
    /// Arcs a node of weight 1 leads in each keyspace. More is evener, and makes a larger document.
    pub virtual_nodes: u32,
}

impl Default for FoundOptions {
    fn default() -> Self {
        FoundOptions { replicas: 3, write_quorum: 2, read_quorum: 2, virtual_nodes: 16 }
    }
}

/// The first ring of a cluster: one node, which alone votes, and the keyspace `default`.
pub fn found(cluster: Uuid, first: &Joiner, options: FoundOptions) -> Result<RingDocument, RingChangeError> {
    check_joiner(first)?;
    if !(1..=1024).contains(&options.virtual_nodes) {
        return Err(RingChangeError::Invalid(format!(
            "virtual-nodes {} is not 1 to 1024",
            options.virtual_nodes
        )));
    }
    let keyspace = Keyspace {
        id: 1,
        name: DEFAULT_KEYSPACE.to_owned(),
        replicas: options.replicas,
        write_quorum: options.write_quorum,
        read_quorum: options.read_quorum,
        ..Keyspace::default()
    };
    check_keyspace(&keyspace).map_err(RingChangeError::Invalid)?;
    let mut document = RingDocument {
        format: RING_FORMAT,
        cluster: Bytes::copy_from_slice(cluster.as_bytes()),
        epoch: 0,
        voters: vec![1],
        nodes: vec![member(1, first)],
        next_node: 2,
        next_keyspace: 2,
        next_arc: 1,
        virtual_nodes: options.virtual_nodes,
        ..RingDocument::default()
    };
    let starts = cut::hashed(KeyspaceId(keyspace.id), arcs_wanted(&document)?);
    document.arcs = deal_out(&mut document, &keyspace, starts);
    document.keyspaces.push(keyspace);
    finish(document)
}

/// The ring with a node in it, as it says it is. `None`: it is in it just so already.
///
/// A node that the ring knows may say other addresses and another version at any time; the newest claim to a peer
/// address wins, and who had it before has none until it claims one. Its zone and weight change only while it holds
/// no data, see [`kept_back`]. Keyspaces that are not live are dealt out anew over all nodes (EMPTY-MOVES-FREE);
/// live ones stay where they are.
pub fn join(ring: &Ring, joiner: &Joiner) -> Result<Option<RingDocument>, RingChangeError> {
    check_joiner(joiner)?;
    if ring.is_retired(joiner.uuid) {
        return Err(RingChangeError::Refused(format!(
            "node {} left cluster {} for good; give it an empty data directory to join as a new node",
            joiner.uuid,
            ring.cluster()
        )));
    }
    let mut document = ring.document().clone();
    let number = match ring.node_by_uuid(joiner.uuid) {
        Some(known) => {
            let mut now = Member { state: known.state, ..member(known.number, joiner) };
            if kept_back(ring, joiner).is_some() {
                now.zone.clone_from(&known.zone);
                now.weight = known.weight;
            }
            if now == *known {
                return Ok(None);
            }
            let number = now.number;
            document.nodes.iter_mut().filter(|node| node.number == number).for_each(|node| {
                node.clone_from(&now);
            });
            if now.zone == known.zone && now.weight.total_cmp(&known.weight).is_eq() {
                take_over(&mut document, number, &joiner.peer_address);
                return finish(document).map(Some);
            }
            number
        }
        None => {
            if document.nodes.len() >= MAX_NODES {
                return Err(RingChangeError::Refused(format!(
                    "cluster {} has {MAX_NODES} nodes, which is the most",
                    ring.cluster()
                )));
            }
            let number = document.next_node;
            document.next_node += 1;
            document.nodes.push(member(number, joiner));
            number
        }
    };
    take_over(&mut document, number, &joiner.peer_address);
    document.voters = choose_voters(&document.nodes, &document.voters);
    deal_empty_anew(ring, &mut document)?;
    finish(document).map(Some)
}

/// Why a known node's other zone or weight is not taken, as a sentence for its log; `None` where it is.
pub fn kept_back(ring: &Ring, joiner: &Joiner) -> Option<String> {
    let known = ring.node_by_uuid(joiner.uuid)?;
    let same = known.zone == joiner.zone && known.weight.total_cmp(&joiner.weight).is_eq();
    let id = god_proto::ids::NodeId(known.number);
    let holds_data = |arc: &RingArc| {
        Ring::holds(arc, id) && ring.keyspace_by_id(arc.keyspace).is_some_and(|keyspace| keyspace.live)
    };
    (!same && ring.arcs().iter().any(holds_data)).then(|| {
        format!(
            "node {} keeps zone {:?} and weight {}, not {:?} and {}: it holds data, which this version does not move",
            known.number, known.zone, known.weight, joiner.zone, joiner.weight
        )
    })
}

/// The ring with one more keyspace; `spec.id` and `spec.live` are set here. An ordered one is cut at `splits`, and
/// between them evenly.
pub fn create_keyspace(
    ring: &Ring,
    spec: &Keyspace,
    splits: &[Bytes],
) -> Result<RingDocument, RingChangeError> {
    let invalid = |why: String| Err(RingChangeError::Invalid(why));
    check_keyspace(spec).map_err(RingChangeError::Invalid)?;
    let name = &spec.name;
    if spec.mode == i32::from(Mode::Linearizable) {
        return invalid(format!("keyspace {name}: mode linearizable is not available in this version"));
    }
    if ring.keyspace(name).is_some() {
        return Err(RingChangeError::Exists(format!("keyspace {name} exists")));
    }
    if ring.keyspaces().len() >= MAX_KEYSPACES {
        return Err(RingChangeError::Refused(format!(
            "there are {MAX_KEYSPACES} keyspaces, which is the most"
        )));
    }
    if partitioner(spec) == Partitioner::Hashed && !splits.is_empty() {
        return invalid(format!("keyspace {name} is hashed: only an ordered one can be split at keys"));
    }
    let mut sorted = splits.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != splits.len() {
        return invalid(format!("keyspace {name}: a split is given twice"));
    }
    if sorted.len() >= MAX_ARCS {
        return invalid(format!("keyspace {name}: {} splits; the most is {}", sorted.len(), MAX_ARCS - 1));
    }
    if let Some(split) = sorted.iter().find(|split| split.is_empty() || split.len() > MAX_KEY) {
        return invalid(format!("keyspace {name}: a split has {} bytes, not 1 to {MAX_KEY}", split.len()));
    }
    let mut document = ring.document().clone();
    let keyspace = Keyspace { id: document.next_keyspace, live: false, ..spec.clone() };
    document.next_keyspace += 1;
    let wanted = arcs_wanted(&document)?;
    let starts = match partitioner(&keyspace) {
        Partitioner::Hashed => cut::hashed(KeyspaceId(keyspace.id), wanted),
        Partitioner::Ordered => cut::ordered(KeyspaceId(keyspace.id), &sorted, wanted),
    };
    // The new id is the highest, so its arcs stand last.
    let arcs = deal_out(&mut document, &keyspace, starts);
    document.arcs.extend(arcs);
    document.keyspaces.push(keyspace);
    finish(document)
}

/// The ring with these keyspaces live: from then on they may hold data, and their arcs stay. `None`: all that are
/// there are live already. Called before a first write is taken.
pub fn mark_live(ring: &Ring, keyspaces: &[KeyspaceId]) -> Option<RingDocument> {
    let mut document = ring.document().clone();
    let mut changed = false;
    for keyspace in &mut document.keyspaces {
        let marks = !keyspace.live && keyspaces.contains(&KeyspaceId(keyspace.id));
        keyspace.live |= marks;
        changed |= marks;
    }
    document.epoch += 1;
    changed.then_some(document)
}

fn member(number: u32, joiner: &Joiner) -> Member {
    Member {
        number,
        uuid: Bytes::copy_from_slice(joiner.uuid.as_bytes()),
        peer_address: joiner.peer_address.clone(),
        grpc_address: joiner.grpc_address.clone(),
        http_address: joiner.http_address.clone(),
        zone: joiner.zone.clone(),
        weight: joiner.weight,
        state: MemberState::Active.into(),
        version: joiner.version.clone(),
    }
}

fn check_joiner(joiner: &Joiner) -> Result<(), RingChangeError> {
    let Joiner { peer_address, grpc_address, http_address, zone, version, weight, uuid } = joiner;
    let texts = [
        ("peer address", peer_address),
        ("gRPC address", grpc_address),
        ("HTTP address", http_address),
        ("zone", zone),
        ("version", version),
    ];
    if let Some((what, text)) = texts.into_iter().find(|(_, text)| text.len() > MAX_TEXT) {
        return Err(RingChangeError::Invalid(format!(
            "the {what} of node {uuid} has {} bytes; the most is {MAX_TEXT}",
            text.len()
        )));
    }
    if peer_address.is_empty() {
        return Err(RingChangeError::Invalid(format!("node {uuid} names no peer address")));
    }
    if !(weight.is_finite() && *weight > 0.0 && *weight <= 1_000.0) {
        return Err(RingChangeError::Invalid(format!(
            "the weight {weight} of node {uuid} is not above 0 and up to 1000"
        )));
    }
    Ok(())
}

fn take_over(document: &mut RingDocument, number: u32, address: &str) {
    let others = document.nodes.iter_mut().filter(|node| node.number != number);
    others.filter(|node| node.peer_address == address).for_each(|node| node.peer_address.clear());
}

fn active(document: &RingDocument) -> Vec<Share> {
    let leaving = i32::from(MemberState::Leaving);
    let share = |node: &Member| Share { node: node.number, weight: node.weight, zone: node.zone.clone() };
    document.nodes.iter().filter(|node| node.state != leaving).map(share).collect()
}

/// Arcs of a keyspace: for each node as many as its weight says, and at least one.
fn arcs_wanted(document: &RingDocument) -> Result<usize, RingChangeError> {
    let of = |share: &Share| (f64::from(document.virtual_nodes) * share.weight).round().max(1.0) as usize;
    let wanted: usize = active(document).iter().map(of).sum();
    if wanted == 0 {
        return Err(RingChangeError::Refused("every node is leaving: none can take arcs".to_owned()));
    }
    if wanted > MAX_ARCS {
        return Err(RingChangeError::Refused(format!(
            "virtual nodes and weights ask for {wanted} arcs in a keyspace; the most is {MAX_ARCS}"
        )));
    }
    Ok(wanted)
}

/// Arcs with these starts, new numbers, and replicas of all active nodes.
fn deal_out(document: &mut RingDocument, keyspace: &Keyspace, starts: Vec<Bytes>) -> Vec<Arc> {
    let sets = deal(&active(document), starts.len(), keyspace.replicas as usize);
    let arc = |(start, replicas)| {
        let id = document.next_arc;
        document.next_arc += 1;
        Arc { id, start, replicas, transition: None }
    };
    starts.into_iter().zip(sets).map(arc).collect()
}

fn deal_empty_anew(ring: &Ring, document: &mut RingDocument) -> Result<(), RingChangeError> {
    let wanted = arcs_wanted(document)?;
    let mut arcs: BTreeMap<u32, Vec<Arc>> = BTreeMap::new();
    for (arc, of) in document.arcs.drain(..).zip(ring.arcs()) {
        arcs.entry(of.keyspace.0).or_default().push(arc);
    }
    for keyspace in ring.keyspaces().iter().filter(|keyspace| !keyspace.live) {
        let id = KeyspaceId(keyspace.id);
        let starts = match partitioner(keyspace) {
            Partitioner::Hashed => cut::hashed(id, wanted),
            // Cuts that were asked for stay, so those that are there are kept, and more are made between them.
            Partitioner::Ordered => {
                let old = arcs.get(&keyspace.id).map_or(&[][..], |arcs| &arcs[..]);
                let splits: Vec<Bytes> = old.iter().filter_map(|arc| key_of(&arc.start)).collect();
                cut::ordered(id, &splits, wanted)
            }
        };
        let dealt = deal_out(document, keyspace, starts);
        arcs.insert(keyspace.id, dealt);
    }
    document.arcs = arcs.into_values().flatten().collect();
    Ok(())
}

/// The key at which an arc of an ordered keyspace starts; `None` for the first one.
fn key_of(start: &[u8]) -> Option<Bytes> {
    let own = [start, &[0]].concat();
    match Position::from_bytes(own).decode(Partitioner::Ordered) {
        Ok((_, key, Part::Own)) => Some(key),
        _ => None,
    }
}

/// Raises the epoch, and checks the whole.
fn finish(mut document: RingDocument) -> Result<RingDocument, RingChangeError> {
    document.epoch += 1;
    let ring = Ring::new(document).map_err(|error| RingChangeError::Invalid(error.to_string()))?;
    Ok(ring.document().clone())
}
