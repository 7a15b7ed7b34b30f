//! The validated ring document, and lookups in it.
//!
//! [`Ring`] can only be made from a document that holds together: whoever has one may rely on its rules
//! (invariant RING-WELL-FORMED), and lookups cannot fail.

use crate::{
    ids::{ArcId, Epoch, KeyspaceId, MAX_NODE, NodeId},
    position::{Position, PositionRange},
    v1::{Arc as ArcMessage, Keyspace, Member, Mode, Operation, Partitioner, RingDocument, Terms},
};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};
use uuid::Uuid;

/// The layout of the ring document that this program writes, and the newest it reads.
pub const RING_FORMAT: u32 = 1;
/// The most nodes of a cluster.
pub const MAX_NODES: usize = 1_000;
/// The most keyspaces of a cluster.
pub const MAX_KEYSPACES: usize = 256;
/// The most arcs of a cluster.
pub const MAX_ARCS: usize = 100_000;
/// The most bytes of an encoded ring document: one message carries it, with room around it.
pub const MAX_RING_BYTES: usize = 10 << 20;
/// Beyond so many bytes of its document nothing is cut to make a ring more even.
pub const CUT_RING_BYTES: usize = 5 << 20;
/// Beyond so many, no keyspace is made.
pub const ROOMY_RING_BYTES: usize = 6 << 20;
/// Beyond so many, no node joins and no operation begins. What is left is for the steps of those.
pub const CROWDED_RING_BYTES: usize = 8 << 20;
/// The most keys at which a new keyspace is cut.
pub const MAX_SPLITS: usize = 4_096;
/// The longest of them, in bytes.
pub const MAX_SPLIT: usize = 1_024;
/// The most copies of a key.
pub const MAX_REPLICAS: u32 = 16;
/// The largest weight of a node, beside ordinary ones of weight 1.
pub const MAX_WEIGHT: f64 = 1_000.0;
/// The most arcs that a node of weight 1 leads in each keyspace, when a cluster is founded.
pub const MAX_VIRTUAL_NODES: u32 = 1_000;

/// The most operations that wait or are under way.
pub const MAX_OPERATIONS: usize = 64;
/// The most numbers of copies that the arcs of a keyspace have at the same time.
pub const MAX_FORMER: usize = 4;
/// How many operations that have ended are remembered.
pub const MAX_ENDED: usize = 64;
/// Most names of deleted keyspaces that are not free yet.
pub const MAX_DELETED: usize = 64;

/// Why a ring document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring of epoch {epoch} is refused: {problem}")]
pub struct RingError {
    /// The document's epoch.
    pub epoch: u64,
    /// The rule it breaks.
    pub problem: String,
}

/// A part of the order and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingArc {
    /// Its number.
    pub id: ArcId,
    /// Whose keys.
    pub keyspace: KeyspaceId,
    /// From where up to where.
    pub range: PositionRange,
    /// Who holds a copy; distinct, never empty; the first one leads.
    pub replicas: Vec<NodeId>,
    /// Who will hold a copy after the arc's transition. Writes and reads then need a quorum of both sets.
    pub next: Option<Vec<NodeId>>,
    /// The epoch in which the transition began; 0 without one.
    pub since: Epoch,
    /// The epoch in which it became what it is, or a later one, up to the ring's: who names the same one for an arc
    /// means the same arc (invariant ARC-EPOCH).
    pub changed: Epoch,
}

/// A ring document that holds together, with indexes for lookups.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    document: RingDocument,
    cluster: Uuid,
    arcs: Vec<RingArc>,
    names: HashMap<String, usize>,
    ids: BTreeMap<KeyspaceId, usize>,
    nodes: BTreeMap<NodeId, usize>,
    moving: bool,
}

impl Ring {
    /// Checks a document and indexes it; at most [`MAX_RING_BYTES`] of it (invariant RING-CARRIED). Cost: O(document).
    pub fn new(document: RingDocument) -> Result<Ring, RingError> {
        let epoch = document.epoch;
        check(document).map_err(|problem| RingError { epoch, problem })
    }

    /// The document itself.
    pub fn document(&self) -> &RingDocument {
        &self.document
    }

    /// The cluster it is of.
    pub fn cluster(&self) -> Uuid {
        self.cluster
    }

    /// Its number.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.document.epoch)
    }

    /// The nodes that decide the next epoch.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.document.voters.iter().copied().map(NodeId)
    }

    /// All nodes, in the order of the document.
    pub fn nodes(&self) -> &[Member] {
        &self.document.nodes
    }

    /// A node by its number.
    pub fn node(&self, id: NodeId) -> Option<&Member> {
        self.nodes.get(&id).map(|&at| &self.document.nodes[at])
    }

    /// A node by its UUID. Cost: O(nodes).
    pub fn node_by_uuid(&self, uuid: Uuid) -> Option<&Member> {
        self.document.nodes.iter().find(|node| node.uuid == uuid.as_bytes()[..])
    }

    /// Whether a node of this UUID left for good.
    pub fn is_retired(&self, uuid: Uuid) -> bool {
        self.document.retired.iter().any(|retired| retired[..] == uuid.as_bytes()[..])
    }

    /// All keyspaces.
    pub fn keyspaces(&self) -> &[Keyspace] {
        &self.document.keyspaces
    }

    /// A keyspace by its name.
    pub fn keyspace(&self, name: &str) -> Option<&Keyspace> {
        self.names.get(name).map(|&at| &self.document.keyspaces[at])
    }

    /// A keyspace by its number.
    pub fn keyspace_by_id(&self, id: KeyspaceId) -> Option<&Keyspace> {
        self.ids.get(&id).map(|&at| &self.document.keyspaces[at])
    }

    /// All arcs, in the order of their positions.
    pub fn arcs(&self) -> &[RingArc] {
        &self.arcs
    }

    /// The arc that a position is in; `None` where no keyspace is. Cost: O(log arcs).
    pub fn arc_at(&self, position: &Position) -> Option<&RingArc> {
        let after = self.arcs.partition_point(|arc| arc.range.start <= *position);
        self.arcs.get(after.checked_sub(1)?).filter(|arc| *position < arc.range.end)
    }

    /// The arcs that share a position with a range, in order. Cost: O(log arcs).
    pub fn arcs_in(&self, range: &PositionRange) -> &[RingArc] {
        let from = self.arcs.partition_point(|arc| arc.range.end <= range.start);
        let to = self.arcs.partition_point(|arc| arc.range.start < range.end);
        self.arcs.get(from..to).unwrap_or(&[])
    }

    /// An arc by its number. Cost: O(arcs).
    pub fn arc(&self, id: ArcId) -> Option<&RingArc> {
        self.arcs.iter().find(|arc| arc.id == id)
    }

    /// The operations that wait or are under way, in the order in which they were asked for.
    pub fn operations(&self) -> &[Operation] {
        &self.document.operations
    }

    /// Whether any arc changes hands.
    pub fn is_moving(&self) -> bool {
        self.moving
    }

    /// Whether a node holds a copy of an arc, or will.
    pub fn holds(arc: &RingArc, node: NodeId) -> bool {
        arc.replicas.contains(&node) || arc.next.as_ref().is_some_and(|next| next.contains(&node))
    }
}

impl RingArc {
    /// Everyone who must see a write: the replicas, then those of the next set that are not among them.
    pub fn all_replicas(&self) -> impl Iterator<Item = NodeId> + '_ {
        let next = self.next.iter().flatten().copied().filter(|node| !self.replicas.contains(node));
        self.replicas.iter().copied().chain(next)
    }

    /// Who must have copied before the next set takes over: those that are new. Where the sets differ in size all of
    /// the next one must: a write may be on fewer of those that stay than the quorums of that size count on.
    pub fn copiers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let other_size = self.next.as_ref().is_some_and(|next| next.len() != self.replicas.len());
        let next = self.next.iter().flatten().copied();
        next.filter(move |node| other_size || !self.replicas.contains(node))
    }
}

impl fmt::Display for RingArc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arc {} of keyspace {}", self.id, self.keyspace)
    }
}

/// The quorums of a set of replicas of a keyspace, by how many they are. Each set of a joint arc has its own (invariant
/// OVERLAP): while the number of copies changes, arcs that have the old one keep the old quorums.
pub fn quorums(keyspace: &Keyspace, replicas: usize) -> Terms {
    let own = Terms {
        replicas: keyspace.replicas,
        write_quorum: keyspace.write_quorum,
        read_quorum: keyspace.read_quorum,
        least_write_quorum: match keyspace.least_write_quorum {
            0 => keyspace.write_quorum,
            least => least.min(keyspace.write_quorum),
        },
    };
    if own.replicas as usize == replicas {
        return own;
    }
    if let Some(former) = keyspace.former.iter().find(|former| former.replicas as usize == replicas) {
        return *former;
    }
    // There were too few nodes for either number. What holds for both is safe beside each.
    keyspace.former.iter().fold(own, |all, former| Terms {
        replicas: all.replicas.max(former.replicas),
        write_quorum: all.write_quorum.max(former.write_quorum),
        read_quorum: all.read_quorum.max(former.read_quorum),
        least_write_quorum: all.least_write_quorum.min(former.least_write_quorum),
    })
}

/// The bytes of an encoded ring document. Cost: O(document).
pub fn ring_bytes(document: &RingDocument) -> usize {
    document.encoded_len()
}

/// How a keyspace cuts its keys.
pub fn partitioner(keyspace: &Keyspace) -> Partitioner {
    Partitioner::try_from(keyspace.partitioner).unwrap_or(Partitioner::Hashed)
}

/// Whether a node may have this weight: above 0, and up to [`MAX_WEIGHT`].
pub fn is_weight(weight: f64) -> bool {
    weight > 0.0 && weight <= MAX_WEIGHT
}

/// Rules for a keyspace, as sentences for who asked for it.
pub fn check_keyspace(keyspace: &Keyspace) -> Result<(), String> {
    let Keyspace { name, replicas, write_quorum, read_quorum, least_write_quorum, former, .. } = keyspace;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(format!("keyspace name {name:?} is not 1 to 64 letters, digits, '-', '_' or '.'"));
    }
    if !(1..=MAX_REPLICAS).contains(replicas) {
        return Err(format!("replicas {replicas} of keyspace {name} is not 1 to {MAX_REPLICAS}"));
    }
    for (what, quorum) in [("write-quorum", write_quorum), ("read-quorum", read_quorum)] {
        if *quorum == 0 {
            return Err(format!("{what} of keyspace {name} is 0; at least one replica must answer"));
        }
        if quorum > replicas {
            return Err(format!("{what} {quorum} exceeds replicas {replicas} in keyspace {name}"));
        }
    }
    let mut widths = BTreeSet::from([*replicas]);
    let sound = |terms: &Terms| {
        [terms.write_quorum, terms.read_quorum, terms.least_write_quorum]
            .iter()
            .all(|quorum| (1..=terms.replicas).contains(quorum))
            && terms.replicas <= MAX_REPLICAS
    };
    if former.len() > MAX_FORMER || !former.iter().all(|terms| sound(terms) && widths.insert(terms.replicas))
    {
        return Err(format!(
            "the former quorums of keyspace {name} are not {MAX_FORMER} or fewer sound ones"
        ));
    }
    if least_write_quorum > write_quorum {
        return Err(format!(
            "the least write-quorum {least_write_quorum} of keyspace {name} exceeds its write-quorum {write_quorum}"
        ));
    }
    if Partitioner::try_from(keyspace.partitioner).is_err() {
        return Err(format!(
            "partitioner {} of keyspace {name} is not known to this version",
            keyspace.partitioner
        ));
    }
    if Mode::try_from(keyspace.mode).is_err() {
        return Err(format!("mode {} of keyspace {name} is not known to this version", keyspace.mode));
    }
    Ok(())
}

fn check(document: RingDocument) -> Result<Ring, String> {
    if document.format == 0 || document.format > RING_FORMAT {
        return Err(format!(
            "its format is {}, this program knows up to {RING_FORMAT}; run a newer version of it",
            document.format
        ));
    }
    let bytes = ring_bytes(&document);
    if bytes > MAX_RING_BYTES {
        return Err(format!("it has {bytes} bytes, the most is {MAX_RING_BYTES}"));
    }
    let cluster =
        Uuid::from_slice(&document.cluster).map_err(|_| "its cluster id is not 16 bytes".to_owned())?;
    if document.epoch == 0 {
        return Err("its epoch is 0".to_owned());
    }
    for (what, is, most) in [
        ("nodes", document.nodes.len(), MAX_NODES),
        ("keyspaces", document.keyspaces.len(), MAX_KEYSPACES),
        ("arcs", document.arcs.len(), MAX_ARCS),
    ] {
        if is > most {
            return Err(format!("it has {is} {what}, the most is {most}"));
        }
    }

    if document.next_node > MAX_NODE {
        return Err(format!(
            "its next node would be {}, the highest number is {MAX_NODE}",
            document.next_node
        ));
    }
    let mut nodes = BTreeMap::new();
    let mut uuids = BTreeSet::new();
    for (at, node) in document.nodes.iter().enumerate() {
        if node.number == 0
            || node.number >= document.next_node
            || nodes.insert(NodeId(node.number), at).is_some()
        {
            return Err(format!("node number {} was not given once", node.number));
        }
        let uuid = Uuid::from_slice(&node.uuid)
            .map_err(|_| format!("the UUID of node {} is not 16 bytes", node.number))?;
        if !uuids.insert(uuid) {
            return Err(format!("node {uuid} is in it twice"));
        }
        if !(node.weight.is_finite() && node.weight > 0.0 && node.weight <= 1_000.0) {
            return Err(format!(
                "the weight {} of node {} is not above 0 and up to 1000",
                node.weight, node.number
            ));
        }
    }

    let mut voters = BTreeSet::new();
    if !document.voters.iter().all(|&voter| nodes.contains_key(&NodeId(voter)) && voters.insert(voter)) {
        return Err("its voters are not distinct nodes of it".to_owned());
    }
    if !matches!(voters.len(), 1 | 3 | 5) {
        return Err(format!("it has {} voters, not 1, 3 or 5", voters.len()));
    }

    let mut names = HashMap::new();
    let mut ids = BTreeMap::new();
    for (at, keyspace) in document.keyspaces.iter().enumerate() {
        check_keyspace(keyspace)?;
        if keyspace.id == 0 || keyspace.id >= document.next_keyspace || keyspace.id == u32::MAX {
            return Err(format!("keyspace id {} was never given", keyspace.id));
        }
        if ids.insert(KeyspaceId(keyspace.id), at).is_some()
            || names.insert(keyspace.name.clone(), at).is_some()
        {
            return Err(format!("keyspace {} is in it twice", keyspace.name));
        }
    }

    let arcs = check_arcs(&document, &nodes, &ids)?;
    check_operations(&document, &nodes)?;
    if document.deleted.len() > MAX_DELETED {
        let is = document.deleted.len();
        return Err(format!("it has {is} names of deleted keyspaces, the most is {MAX_DELETED}"));
    }
    let moving = arcs.iter().any(|arc| arc.next.is_some());
    Ok(Ring { document, cluster, arcs, names, ids, nodes, moving })
}

fn check_arcs(
    document: &RingDocument,
    nodes: &BTreeMap<NodeId, usize>,
    keyspaces: &BTreeMap<KeyspaceId, usize>,
) -> Result<Vec<RingArc>, String> {
    let replica_set = |arc: &ArcMessage, numbers: &[u32]| {
        let set: Vec<NodeId> = numbers.iter().copied().map(NodeId).collect();
        let distinct: BTreeSet<_> = set.iter().collect();
        if set.is_empty() || distinct.len() != set.len() || !set.iter().all(|node| nodes.contains_key(node)) {
            return Err(format!("the replicas of arc {} are not distinct nodes of it", arc.id));
        }
        Ok(set)
    };
    let mut arcs: Vec<RingArc> = Vec::with_capacity(document.arcs.len());
    let mut seen = BTreeSet::new();
    let mut uncovered: BTreeSet<KeyspaceId> = keyspaces.keys().copied().collect();
    for arc in &document.arcs {
        if arc.id == 0 || arc.id >= document.next_arc || !seen.insert(arc.id) {
            return Err(format!("arc number {} was not given once", arc.id));
        }
        let start = Position::from_bytes(arc.start.clone());
        let keyspace = start.keyspace().filter(|id| keyspaces.contains_key(id));
        let keyspace = keyspace.ok_or_else(|| format!("arc {} starts in no keyspace", arc.id))?;
        let whole = PositionRange::of_keyspace(keyspace);
        match arcs.last_mut() {
            Some(last) if last.keyspace == keyspace => {
                if start <= last.range.start {
                    return Err(format!("arc {} does not start after arc {}", arc.id, last.id));
                }
                last.range.end = start.clone();
            }
            last => {
                if last.is_some_and(|last| last.keyspace > keyspace) {
                    return Err(format!("arc {} is out of order", arc.id));
                }
                if start != whole.start {
                    return Err(format!("keyspace {keyspace} is not covered from its start"));
                }
                uncovered.remove(&keyspace);
            }
        }
        let next = match &arc.transition {
            Some(transition) => Some(replica_set(arc, &transition.next)?),
            None => None,
        };
        let replicas = replica_set(arc, &arc.replicas)?;
        let range = PositionRange { start, end: whole.end };
        let since = Epoch(arc.transition.as_ref().map_or(0, |transition| transition.since));
        if next.is_some() && (since.0 == 0 || since.0 > document.epoch) {
            return Err(format!("the transition of arc {} began in epoch {since}", arc.id));
        }
        if arc.changed > document.epoch {
            return Err(format!("arc {} changed in epoch {}", arc.id, arc.changed));
        }
        let changed = Epoch(if arc.changed == 0 { document.epoch } else { arc.changed });
        arcs.push(RingArc { id: ArcId(arc.id), keyspace, range, replicas, next, since, changed });
    }
    match uncovered.first() {
        Some(keyspace) => Err(format!("keyspace {keyspace} has no arcs")),
        None => Ok(arcs),
    }
}

/// Rules for the id of an operation, as a sentence for who asked for it.
pub fn check_operation_id(id: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !id.is_empty() && id.len() <= 64 && id.chars().all(plain) {
        true => Ok(()),
        false => Err(format!("operation id {id:?} is not 1 to 64 letters, digits, '-', '_' or '.'")),
    }
}

fn check_operations(document: &RingDocument, nodes: &BTreeMap<NodeId, usize>) -> Result<(), String> {
    for (what, is, most) in [
        ("operations", document.operations.len(), MAX_OPERATIONS),
        ("ended operations", document.ended.len(), MAX_ENDED),
    ] {
        if is > most {
            return Err(format!("it has {is} {what}, the most is {most}"));
        }
    }
    let mut ids = BTreeSet::new();
    for operation in &document.operations {
        check_operation_id(&operation.id)?;
        if !ids.insert(&operation.id) {
            return Err(format!("operation {} is in it twice", operation.id));
        }
        if operation.moves.len() > 2 * MAX_ARCS {
            return Err(format!("operation {} moves {} arcs", operation.id, operation.moves.len()));
        }
        for step in &operation.moves {
            let fits = |set: &[u32]| {
                let distinct: BTreeSet<_> = set.iter().collect();
                distinct.len() == set.len()
                    && !set.is_empty()
                    && set.iter().all(|at| nodes.contains_key(&NodeId(*at)))
            };
            if !fits(&step.from) || !fits(&step.to) {
                return Err(format!(
                    "operation {} moves arc {} between replicas that are not distinct nodes of it",
                    operation.id, step.arc
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::MemberState;

    fn document() -> RingDocument {
        let node = |number: u32| Member {
            number,
            uuid: vec![number as u8; 16].into(),
            weight: 1.0,
            state: MemberState::Active.into(),
            ..Member::default()
        };
        let keyspace = Keyspace {
            id: 1,
            name: "default".to_owned(),
            replicas: 3,
            write_quorum: 2,
            read_quorum: 2,
            ..Keyspace::default()
        };
        let arc = |id: u64, start: Position, replicas: &[u32]| ArcMessage {
            id,
            start: start.into_bytes(),
            replicas: replicas.to_vec(),
            transition: None,
            changed: 0,
        };
        RingDocument {
            format: RING_FORMAT,
            cluster: vec![9; 16].into(),
            epoch: 4,
            voters: vec![1],
            keyspaces: vec![keyspace],
            nodes: vec![node(1), node(2)],
            arcs: vec![
                arc(1, Position::keyspace_start(KeyspaceId(1)), &[1, 2]),
                arc(2, Position::of_hash(KeyspaceId(1), 1 << 63), &[2, 1]),
            ],
            next_node: 3,
            next_keyspace: 2,
            next_arc: 3,
            virtual_nodes: 1,
            ..RingDocument::default()
        }
    }

    /// What fuzzing of rings begins with is a ring.
    #[test]
    fn the_corpus_holds_the_ring_of_these_tests() {
        let seed = RingDocument::decode(&include_bytes!("../fuzz/corpus/ring/two-nodes")[..]).unwrap();
        assert_eq!(seed, document());
        Ring::new(seed).unwrap();
    }

    fn refusal(change: impl FnOnce(&mut RingDocument)) -> String {
        let mut document = document();
        change(&mut document);
        Ring::new(document).expect_err("it should be refused").problem
    }

    #[test]
    fn every_position_of_a_keyspace_is_in_just_one_arc() {
        let ring = Ring::new(document()).unwrap();
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let position = Position::of_key(KeyspaceId(1), Partitioner::Hashed, key.as_bytes()).unwrap();
            let arc = ring.arc_at(&position).unwrap();
            assert!(arc.range.contains(&position));
            assert_eq!(ring.arcs().iter().filter(|arc| arc.range.contains(&position)).count(), 1);
            let alone = PositionRange::of_position(&position);
            assert_eq!(ring.arcs_in(&alone), std::slice::from_ref(arc));
        }
        assert_eq!(ring.arcs_in(&PositionRange::of_keyspace(KeyspaceId(1))).len(), 2);
        assert_eq!(ring.arc_at(&Position::keyspace_start(KeyspaceId(2))), None);
        assert_eq!(ring.arc_at(&Position::keyspace_start(KeyspaceId(0))), None);
    }

    #[test]
    fn a_document_that_does_not_hold_together_is_refused_by_the_rule_it_breaks() {
        assert!(refusal(|d| d.format = 2).contains("format is 2, this program knows up to 1; run a newer"));
        assert!(refusal(|d| d.voters = vec![1, 2]).contains("not 1, 3 or 5"));
        assert!(refusal(|d| d.voters = vec![3]).contains("voters"));
        assert!(refusal(|d| d.arcs[0].replicas = vec![1, 1]).contains("distinct"));
        assert!(refusal(|d| d.arcs[1].replicas = vec![]).contains("distinct"));
        assert!(refusal(|d| d.arcs[1].replicas = vec![3]).contains("distinct"));
        assert!(refusal(|d| d.arcs.swap(0, 1)).contains("from its start"));
        assert!(refusal(|d| d.arcs[1].id = 1).contains("given once"));
        assert!(refusal(|d| d.arcs.clear()).contains("no arcs"));
        assert!(refusal(|d| d.nodes[0].weight = f64::NAN).contains("weight"));
        assert!(refusal(|d| d.nodes[1].uuid = vec![1; 16].into()).contains("twice"));
        assert!(refusal(|d| d.keyspaces[0].write_quorum = 4).contains("write-quorum 4 exceeds replicas 3"));
        assert!(refusal(|d| d.arcs[0].changed = 5).contains("changed in epoch 5"));
        assert!(refusal(|d| d.next_node = 2).contains("node number 2"));
        assert!(refusal(|d| d.next_node = 1 << 31).contains("the highest number is 2147483647"));
    }
}
