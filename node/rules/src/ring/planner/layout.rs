//! One keyspace while it is planned: who holds which arc, and how far each node is from its share.

use super::{
    ArcSize, Sizes,
    cut::{Cut, Cuts},
    space::DiskSpace,
    wish::{Node, Outlook},
};
use god_proto::{
    ids::{ArcId, KeyspaceId, NodeId},
    position::PositionRange,
    ring::{Ring, partitioner},
    v1::{Keyspace, Partitioner},
};
use std::collections::{BTreeMap, BTreeSet};

/// All of a keyspace that is empty weighs this part of what it does otherwise: enough for empty arcs to be dealt out
/// evenly, too little to upset those that hold something.
const EMPTY: f64 = 1.0 / 64.0;

/// Why the copies of an arc are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// It has fewer than it should.
    Copies,
    /// They are in fewer zones than could be.
    Zones,
    /// One is on a node that leaves.
    Leaves,
    /// One is on a node that is replaced.
    Replaced,
    /// A node joins.
    Joins,
    /// A node holds more than its share, or less.
    Even,
    /// It has more than it should.
    Surplus,
}

/// An arc while it is planned. Nodes are indexes of the layout's list of nodes.
#[derive(Clone, Debug)]
pub(super) struct PlannedArc {
    pub id: ArcId,
    pub range: PositionRange,
    /// Its part of the keyspace, by hash, or by number where there are none.
    pub extent: f64,
    pub size: ArcSize,
    /// Its bytes, or what an empty arc weighs, and its requests, as bytes.
    pub weight: f64,
    pub cut: Cut,
    /// Whether it stays as it is: it is changing hands.
    pub fixed: bool,
    /// Who held it before, the leader first.
    pub was: Vec<usize>,
    /// The same, while what is planned counts as what was before.
    pub origin: Vec<usize>,
    /// Who is to hold it, the leader first.
    pub now: Vec<usize>,
    /// How many are to hold it who did not.
    pub news: usize,
    /// How many of those there may be.
    pub fresh: usize,
    /// Why it is moved, by the first reason there was.
    pub cause: Option<Cause>,
}

/// A keyspace while it is planned.
pub(super) struct KeyspaceLayout<'a> {
    pub keyspace: &'a Keyspace,
    pub nodes: &'a [Node],
    pub zones: &'a [&'a str],
    /// In the order of positions; what is cut off comes last.
    pub arcs: Vec<PlannedArc>,
    /// Copies that are asked for.
    pub wanted: usize,
    /// Copies that each arc should have: those, or as many as there are nodes.
    pub copies: usize,
    /// Zones that they should be in.
    pub spread: usize,
    /// The weight of the arcs that each node is to hold.
    pub held: Vec<f64>,
    /// The weight of the arcs that each node held.
    pub before: Vec<f64>,
    /// Which arcs each node is to hold.
    pub on: Vec<Vec<usize>>,
    /// Which arcs each node held.
    pub was_on: Vec<Vec<usize>>,
    /// The weight of all arcs.
    pub total: f64,
    /// The only node that may take what it did not hold.
    pub taker: Option<usize>,
    /// Whether arcs may be cut for evenness.
    pub may_cut: bool,
    pub space: &'a mut DiskSpace,
    pub cuts: &'a mut Cuts,
    /// Set if it is hashed.
    pub hashed: Option<KeyspaceId>,
    /// What all of the keyspace would weigh if it were empty.
    pub base: f64,
    /// Bytes that weigh as much as one request a second.
    pub per_request: f64,
    /// Each node's share, as a part of one copy of everything.
    parts: &'a [f64],
    /// Those that may hold something, the emptiest first: by the bits of their ratio, which sort as it does.
    pub order: BTreeSet<(u64, usize)>,
    /// How many arcs are on each set of nodes, by the set's fingerprint.
    pub sets: BTreeMap<u64, usize>,
}

impl<'a> KeyspaceLayout<'a> {
    pub fn new(
        ring: &Ring,
        keyspace: &'a Keyspace,
        sizes: &Sizes,
        outlook: &'a Outlook<'a>,
        parts: &'a [f64],
        space: &'a mut DiskSpace,
        cuts: &'a mut Cuts,
    ) -> KeyspaceLayout<'a> {
        let id = KeyspaceId(keyspace.id);
        let arcs = ring.arcs_in(&PositionRange::of_keyspace(id));
        let size = |arc: &god_proto::ring::RingArc| sizes.arcs.get(&arc.id).cloned().unwrap_or_default();
        let bytes = arcs.iter().fold(0u64, |sum, arc| sum.saturating_add(size(arc).bytes));
        let copies = outlook.copies(keyspace);
        let mut zones: Vec<usize> = outlook.nodes.iter().filter(|it| it.takes).map(|it| it.zone).collect();
        zones.sort_unstable();
        zones.dedup();
        let count = outlook.nodes.len();
        let mut layout = KeyspaceLayout {
            keyspace,
            nodes: &outlook.nodes,
            zones: &outlook.zones,
            arcs: Vec::with_capacity(arcs.len()),
            wanted: outlook.wanted(keyspace),
            copies,
            spread: copies.min(zones.len()),
            held: vec![0.0; count],
            before: Vec::new(),
            on: vec![Vec::new(); count],
            was_on: vec![Vec::new(); count],
            total: 0.0,
            taker: None,
            may_cut: false,
            space,
            cuts,
            hashed: (partitioner(keyspace) == Partitioner::Hashed).then_some(id),
            base: (bytes as f64 * EMPTY).max(1.0),
            per_request: sizes.bytes_per_request(),
            parts,
            order: BTreeSet::new(),
            sets: BTreeMap::new(),
        };
        for arc in arcs {
            let places =
                |set: &[NodeId]| set.iter().filter_map(|node| outlook.place(*node)).collect::<Vec<_>>();
            let was = places(arc.next.as_ref().unwrap_or(&arc.replicas));
            let size = size(arc);
            let cut = match size.entries {
                1 => Cut::Unknown,
                _ => Cut::of(&arc.range, layout.hashed, size.middle.as_ref()),
            };
            let mut arc = PlannedArc {
                id: arc.id,
                range: arc.range.clone(),
                extent: 1.0 / arcs.len() as f64,
                size,
                weight: 0.0,
                cut,
                fixed: arc.next.is_some(),
                now: was.clone(),
                origin: was.clone(),
                was,
                news: 0,
                fresh: usize::MAX,
                cause: None,
            };
            layout.weigh(&mut arc);
            layout.hold(arc);
        }
        layout.before.clone_from(&layout.held);
        layout.put_in_order();
        layout
    }

    /// What a node should hold.
    pub fn share(&self, node: usize) -> f64 {
        self.parts[node] * self.total
    }

    /// What the node of average weight should hold.
    pub fn mean(&self) -> f64 {
        let takers = self.nodes.iter().filter(|node| node.takes).count().max(1);
        self.total * self.copies as f64 / takers as f64
    }

    /// What a node is to hold over what it should hold.
    pub fn ratio(&self, node: usize) -> f64 {
        ratio(self.held[node], self.share(node))
    }

    /// Bytes of one copy of everything.
    pub fn bytes(&self) -> u64 {
        self.arcs.iter().fold(0, |sum, arc| sum.saturating_add(arc.size.bytes))
    }

    /// Places of the nodes that may hold something.
    pub fn takers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].takes)
    }

    /// Those that may hold something, the emptiest first.
    pub fn emptiest(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.order.iter().map(|(_, node)| *node)
    }

    /// Who may take a node's copy of an arc, where it is not just anyone: who gave one up, and who joins.
    pub fn choices(&self, arc: usize, from: usize) -> Option<Vec<usize>> {
        let planned = &self.arcs[arc];
        let more = planned.news < planned.fresh || !planned.was.contains(&from);
        if self.taker.is_none() && more {
            return None;
        }
        let back = planned.was.iter().chain(&self.taker).copied();
        Some(back.filter(|node| !planned.now.contains(node)).collect())
    }

    /// How many zones an arc is to be in, if this node's copy were on that one. Without the one it has a copy less,
    /// without the other a copy more.
    pub fn zones_with(&self, arc: usize, from: Option<usize>, to: Option<usize>) -> usize {
        let stay = self.arcs[arc].now.iter().copied().filter(|node| Some(*node) != from);
        let mut zones: Vec<usize> = stay.chain(to).map(|node| self.nodes[node].zone).collect();
        zones.sort_unstable();
        zones.dedup();
        zones.len()
    }

    /// How many zones an arc is to be in.
    pub fn zones_of(&self, arc: usize) -> usize {
        self.zones_with(arc, None, None)
    }

    /// Whether a node may be given a copy, instead of another one or in addition: it is to hold none, it did or may be
    /// given what it did not, and has the room.
    pub fn may_take(&self, arc: usize, from: Option<usize>, to: usize) -> bool {
        let planned = &self.arcs[arc];
        if planned.fixed || !self.nodes[to].takes || planned.now.contains(&to) {
            return false;
        }
        if planned.was.contains(&to) {
            return true;
        }
        if self.taker.is_some_and(|taker| taker != to) {
            return false;
        }
        let one_more = from.is_none_or(|from| planned.was.contains(&from));
        if planned.news >= planned.fresh && one_more {
            return false;
        }
        self.space.fits(to, planned.size.bytes)
    }

    /// Whether a copy may pass from one node to another without leaving a zone that it is needed in.
    pub fn may_pass(&self, arc: usize, from: usize, to: usize) -> bool {
        self.may_take(arc, Some(from), to) && self.may_enter(arc, from, self.nodes[to].zone)
    }

    /// Whether a copy may pass from a node to a zone without leaving one that it is needed in.
    pub fn may_enter(&self, arc: usize, from: usize, zone: usize) -> bool {
        let now = &self.arcs[arc].now;
        let (mut leaving, mut there) = (0, false);
        for node in now {
            leaving += usize::from(self.nodes[*node].zone == self.nodes[from].zone);
            there |= self.nodes[*node].zone == zone;
        }
        // Where a zone is lost and none is won, there must be more than needed.
        let stays = leaving > 1 || !there || self.nodes[from].zone == zone;
        stays || now.len() > self.spread && self.zones_of(arc) > self.spread
    }

    /// Whether other arcs are on just the nodes that this one would be on.
    pub fn is_known_set(&self, arc: usize, from: Option<usize>, to: usize) -> bool {
        let (now, gone) = (self.fingerprint(&self.arcs[arc].now), self.fingerprint(from.as_slice()));
        self.sets.contains_key(&now.wrapping_sub(gone).wrapping_add(self.fingerprint(&[to])))
    }

    /// Bytes that nodes hold more of afterwards than before, all together.
    pub fn gained(&self) -> u64 {
        let mut change = vec![0i128; self.nodes.len()];
        for arc in &self.arcs {
            arc.now.iter().for_each(|node| change[*node] += i128::from(arc.size.bytes));
            arc.was.iter().for_each(|node| change[*node] -= i128::from(arc.size.bytes));
        }
        change.iter().map(|bytes| u64::try_from(*bytes).unwrap_or_default()).sum()
    }

    /// The same for the same nodes in any order. (Two sets could share one; then a tie is broken less well.)
    pub fn fingerprint(&self, nodes: &[usize]) -> u64 {
        // The finalizer of SplitMix64: nodes next to each other must not add up to others.
        let mix = |node: &usize| {
            let mut it = u64::from(self.nodes[*node].id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            it ^ (it >> 31)
        };
        nodes.iter().map(mix).fold(0, u64::wrapping_add)
    }
}

/// What is held over what should be; 1 where nothing is and nothing should be.
pub(super) fn ratio(held: f64, share: f64) -> f64 {
    if share > 0.0 {
        held / share
    } else if held > 0.0 {
        f64::INFINITY
    } else {
        1.0
    }
}
