//! What may be asked of the ring, why it is refused, and what it makes of nodes and keyspaces.

use super::words::bytes;
use crate::ring::{change::held_by_both, keyspaces::stands_by, next::MAX_TEXT};
use god_proto::{
    ids::{ArcId, KeyspaceId, NodeId},
    ring::{MAX_WEIGHT, Ring, RingArc, check_keyspace, is_weight},
    v1::{
        JoinWish, Keyspace, LeaveWish, Member, MemberState, ReplaceWish, ReplicasWish, ReweightWish,
        RezoneWish, Wish as Message, wish::Wish as WishKind,
    },
};

/// What is asked of the ring.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// A member takes its part of what the others hold.
    Join(NodeId),
    /// A member gives all that it has to the others.
    Leave(NodeId),
    /// A member's data are gone: the others take what it held, as many copies as there are nodes for.
    Lost(NodeId),
    /// `new`, a member that holds little or nothing, takes exactly what `old` holds, in its places.
    Replace {
        /// Who gives everything.
        old: NodeId,
        /// Who takes it.
        new: NodeId,
    },
    /// A member takes more, or less.
    Reweight {
        /// Which one.
        node: NodeId,
        /// Above 0 and up to [`MAX_WEIGHT`]; a node of twice the weight holds twice as much.
        weight: f64,
    },
    /// A member fails together with others than before.
    Rezone {
        /// Which one.
        node: NodeId,
        /// What it fails together with.
        zone: String,
    },
    /// N, W and R of a keyspace.
    Replicas {
        /// Which one.
        keyspace: KeyspaceId,
        /// N.
        replicas: u32,
        /// W.
        write_quorum: u32,
        /// R.
        read_quorum: u32,
    },
    /// What grew uneven, in bytes, is made even, in all keyspaces.
    Rebalance,
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The ring does not know the node.
    #[error("there is no node {0}; `god status` lists them")]
    NoSuchNode(NodeId),
    /// The ring does not know the keyspace.
    #[error("there is no keyspace {0}; `god keyspace list` lists them")]
    NoSuchKeyspace(KeyspaceId),
    /// The node gives away what it has.
    #[error("node {0} is leaving and takes nothing more; cancel its leaving first, or name another node")]
    IsLeaving(NodeId),
    /// Too few nodes would be left for the copies of a keyspace.
    #[error(
        "node {node} cannot leave: {left} nodes would be left, and keyspace {keyspace} keeps {replicas} copies of each \
         key; add a node first, or lower its replicas"
    )]
    TooFewNodes {
        /// Who would leave.
        node: NodeId,
        /// How many would be left.
        left: usize,
        /// The keyspace with the most copies.
        keyspace: String,
        /// Its N.
        replicas: u32,
    },
    /// What must move has no place.
    #[error(
        "node {node} would have to take {} or more, and its disk has room for {}; add a node, or give it a larger disk, first",
        bytes(*.needed), bytes(*.free)
    )]
    NoRoom {
        /// The node that would be the best place.
        node: NodeId,
        /// Bytes that it would have to take.
        needed: u64,
        /// Bytes that it has room for.
        free: u64,
    },
    /// No such weight.
    #[error(
        "the weight {weight} of node {node} is not above 0 and up to {MAX_WEIGHT}; 1 is that of an ordinary node"
    )]
    Weight {
        /// Whose.
        node: NodeId,
        /// Which.
        weight: f64,
    },
    /// The name of the zone is too long.
    #[error("the zone of node {0} is longer than {MAX_TEXT} bytes; give it a shorter name")]
    Zone(NodeId),
    /// N, W or R break a rule of keyspaces.
    #[error("{0}")]
    Keyspace(String),
    /// A node would replace itself.
    #[error("node {0} cannot replace itself; name the new node that takes its place")]
    Itself(NodeId),
    /// The new node would hold two copies of an arc.
    #[error(
        "node {new} cannot replace node {old}: both hold copies of {shared} arcs, arc {arc} is one, and a node holds \
         one copy at most; name a node that holds nothing, or let node {old} leave"
    )]
    HoldsAlready {
        /// Who would be replaced.
        old: NodeId,
        /// Who would replace it.
        new: NodeId,
        /// How many arcs both hold.
        shared: usize,
        /// The first of them.
        arc: ArcId,
    },
    /// Something else is asked of the node already.
    #[error(
        "operation {operation} on node {node} comes first; wait for it, or run `god ring cancel {operation}`"
    )]
    Busy {
        /// Its id.
        operation: String,
        /// The node that both are about.
        node: NodeId,
    },
}

impl Wish {
    /// A wish as the ring document has it. `None`: it is empty, or of a kind that this version does not know.
    pub fn of(message: &Message) -> Option<Wish> {
        Some(match message.wish.clone()? {
            WishKind::Join(JoinWish { node, .. }) => Wish::Join(NodeId(node)),
            WishKind::Leave(LeaveWish { node, lost: false }) => Wish::Leave(NodeId(node)),
            WishKind::Leave(LeaveWish { node, lost: true }) => Wish::Lost(NodeId(node)),
            WishKind::Replace(ReplaceWish { old, new, .. }) => {
                Wish::Replace { old: NodeId(old), new: NodeId(new) }
            }
            WishKind::Reweight(ReweightWish { node, weight }) => {
                Wish::Reweight { node: NodeId(node), weight }
            }
            WishKind::Rezone(RezoneWish { node, zone }) => Wish::Rezone { node: NodeId(node), zone },
            WishKind::Replicas(ReplicasWish { keyspace, replicas, write_quorum, read_quorum }) => {
                Wish::Replicas { keyspace: KeyspaceId(keyspace), replicas, write_quorum, read_quorum }
            }
            WishKind::Rebalance(_) => Wish::Rebalance,
        })
    }

    /// The nodes that it is about.
    fn nodes(&self) -> Vec<NodeId> {
        match self {
            Wish::Join(node)
            | Wish::Leave(node)
            | Wish::Lost(node)
            | Wish::Reweight { node, .. }
            | Wish::Rezone { node, .. } => vec![*node],
            Wish::Replace { old, new } => vec![*old, *new],
            Wish::Replicas { .. } | Wish::Rebalance => vec![],
        }
    }

    /// The node that holds nothing afterwards.
    pub(super) fn gives_all(&self) -> Option<NodeId> {
        match self {
            Wish::Leave(old) | Wish::Lost(old) | Wish::Replace { old, .. } => Some(*old),
            _ => None,
        }
    }

    /// The node that is told to take its part, or the place of another one.
    fn gets(&self) -> Option<NodeId> {
        match self {
            Wish::Join(new) | Wish::Replace { new, .. } => Some(*new),
            _ => None,
        }
    }

    /// Copies that are asked for of each arc of a keyspace.
    fn wanted(&self, keyspace: &Keyspace) -> usize {
        let wanted = match self {
            Wish::Replicas { keyspace: id, replicas, .. } if id.0 == keyspace.id => *replicas,
            _ => keyspace.replicas,
        };
        wanted as usize
    }
}

/// Whether a wish makes sense for this ring. An operation that is there for this very wish is no hindrance: it is the
/// one that is planned.
pub(super) fn check(ring: &Ring, wish: &Wish) -> Result<(), Refused> {
    for id in wish.nodes() {
        let node = ring.node(id).ok_or(Refused::NoSuchNode(id))?;
        if node.state() == MemberState::Leaving && wish.gives_all() != Some(id) {
            return Err(Refused::IsLeaving(id));
        }
        for operation in ring.operations() {
            let other = operation.wish.as_ref().and_then(Wish::of);
            if other.is_some_and(|other| other != *wish && other.nodes().contains(&id)) {
                return Err(Refused::Busy { operation: operation.id.clone(), node: id });
            }
        }
    }
    match wish {
        Wish::Leave(node) => check_left(ring, *node),
        Wish::Replace { old, new } => check_replace(ring, *old, *new),
        Wish::Reweight { node, weight } if !is_weight(*weight) => {
            Err(Refused::Weight { node: *node, weight: *weight })
        }
        Wish::Rezone { node, zone } if zone.len() > MAX_TEXT => Err(Refused::Zone(*node)),
        Wish::Replicas { keyspace, replicas, write_quorum, read_quorum } => {
            let found = ring.keyspace_by_id(*keyspace).ok_or(Refused::NoSuchKeyspace(*keyspace))?;
            let (replicas, write_quorum, read_quorum) = (*replicas, *write_quorum, *read_quorum);
            let (least_write_quorum, former) = (0, vec![]);
            let quorums = Keyspace { replicas, write_quorum, read_quorum, ..found.clone() };
            let wished = Keyspace { least_write_quorum, former, ..quorums };
            check_keyspace(&wished).map_err(Refused::Keyspace)
        }
        _ => Ok(()),
    }
}

fn check_left(ring: &Ring, node: NodeId) -> Result<(), Refused> {
    let left =
        ring.nodes().iter().filter(|it| it.number != node.0 && it.state() == MemberState::Active).count();
    // The first of those with the most copies.
    let most = ring.keyspaces().iter().rev().max_by_key(|keyspace| keyspace.replicas);
    match most {
        Some(most) if left < most.replicas as usize => {
            Err(Refused::TooFewNodes { node, left, keyspace: most.name.clone(), replicas: most.replicas })
        }
        _ => Ok(()),
    }
}

fn check_replace(ring: &Ring, old: NodeId, new: NodeId) -> Result<(), Refused> {
    if old == new {
        return Err(Refused::Itself(old));
    }
    let mut shared = held_by_both(ring, old, new);
    match shared.next() {
        Some(first) => Err(Refused::HoldsAlready { old, new, shared: 1 + shared.count(), arc: first.id }),
        None => Ok(()),
    }
}

/// A node as it will be once the wish is granted.
pub(super) struct Node {
    pub id: NodeId,
    /// Which of the zones, in the order of their names.
    pub zone: usize,
    pub weight: f64,
    /// Whether it may hold anything.
    pub takes: bool,
    /// Whether it waits to be told to join, or to replace another one, and holds nothing: it takes what nobody else
    /// can.
    pub waits: bool,
}

/// Nodes and keyspaces as they will be once the wish is granted.
pub(super) struct Outlook<'a> {
    /// In the order of their numbers.
    pub nodes: Vec<Node>,
    /// The names of all zones, in order.
    pub zones: Vec<&'a str>,
    wish: &'a Wish,
}

impl<'a> Outlook<'a> {
    /// Who waits to be told to join, or to replace another one, takes nothing but what it is told to; with `spares` it
    /// does, but for evening out.
    pub fn new(ring: &'a Ring, wish: &'a Wish, spares: bool) -> Outlook<'a> {
        let zone_of = |member: &'a Member| match wish {
            Wish::Rezone { node, zone } if node.0 == member.number => zone.as_str(),
            _ => member.zone.as_str(),
        };
        let mut zones: Vec<&str> = ring.nodes().iter().map(zone_of).collect();
        zones.sort_unstable();
        zones.dedup();
        let holders = ring.arcs().iter().flat_map(RingArc::all_replicas).collect();
        let evens_out = matches!(wish, Wish::Rebalance | Wish::Reweight { .. } | Wish::Rezone { .. });
        let node = |member: &'a Member| {
            let id = NodeId(member.number);
            let waits = wish.gets() != Some(id) && stands_by(member, &holders);
            let stays = member.state() == MemberState::Active && wish.gives_all() != Some(id);
            Node {
                id,
                zone: zones.binary_search(&zone_of(member)).unwrap_or_default(),
                weight: match wish {
                    Wish::Reweight { node, weight } if *node == id => *weight,
                    _ => member.weight,
                },
                takes: stays && (!waits || spares && !evens_out),
                waits,
            }
        };
        let mut nodes: Vec<Node> = ring.nodes().iter().map(node).collect();
        nodes.sort_by_key(|node| node.id);
        Outlook { nodes, zones, wish }
    }

    /// Copies that are asked for of each arc of a keyspace.
    pub fn wanted(&self, keyspace: &Keyspace) -> usize {
        self.wish.wanted(keyspace)
    }

    /// Copies of each arc of a keyspace: those, or as many as there are nodes.
    pub fn copies(&self, keyspace: &Keyspace) -> usize {
        self.wanted(keyspace).min(self.takers())
    }

    /// How many nodes may hold something.
    pub fn takers(&self) -> usize {
        self.nodes.iter().filter(|node| node.takes).count()
    }

    /// Where a node is in `nodes`.
    pub fn place(&self, id: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok()
    }
}
