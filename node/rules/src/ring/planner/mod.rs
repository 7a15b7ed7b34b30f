//! Who should hold what: a pure function from a ring, a wish and sizes to steps with reasons in words.
//!
//! Rules, in this order (`docs/ARCHITECTURE.md`, "The planner"):
//! 1. the copies of an arc are on distinct nodes, N of them or as many as there are nodes;
//! 2. they are in as many zones as there are;
//! 3. no node is given more than its disk has room for;
//! 4. a node holds at most 1.05 times its share of each keyspace, as far as arcs can be cut that fine; bytes count, and
//!    where there are many, requests as much; who joins takes what it can reach, and may hold less;
//! 5. as little is copied as that allows: who joins takes, who leaves gives, nothing else moves;
//! 6. where choices tie, arcs gather on replica sets that exist already, so that few sets of nodes can lose data
//!    together (Cidon et al., "Copysets", 2013);
//! 7. leads follow weight, which copies nothing, as far as copies allow it.
//!
//! Nothing is drawn at random and no order is left to chance: the same input gives the same plan.
//!
//! - `wish`: what may be asked, and why it is refused
//! - `share`: what each node should hold
//! - `space`: what disks have room for
//! - `layout`, `edit`: one keyspace while it is planned, and what is changed in it
//! - `place`: what must move, whatever it costs
//! - `level`: what moves so that nodes are even
//! - `pass`: what a copy that moves is worth
//! - `chain`: what moves through others where nothing else helps
//! - `detour`: what moves for nothing
//! - `cut`: where arcs are cut
//! - `merge`: what was cut and is small again
//! - `lead`: who leads
//! - `words`: why arcs move
//! - `notes`: what could not be met

mod chain;
mod cut;
mod detour;
mod edit;
mod layout;
mod lead;
mod level;
mod merge;
mod notes;
mod pass;
mod place;
mod share;
mod space;
mod wish;
mod words;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use {
    merge::small_arcs,
    wish::{Refused, Wish},
};

use cut::Cuts;
use god_proto::{
    ids::{ArcId, NodeId},
    position::Position,
    ring::{CUT_RING_BYTES, MAX_ARCS, Ring, ring_bytes},
    v1::{Arc, RingDocument},
};
use layout::KeyspaceLayout;
use notes::Notes;
use share::Shares;
use space::DiskSpace;
use std::collections::BTreeMap;
use wish::{Node, Outlook};

/// A node that holds up to this many times its share is even enough, and so is one that lacks as much.
const EVEN: f64 = 0.05;
/// Whoever is not is brought this near to its share: a little growth later does not move it again.
const NEAR: f64 = 0.03;
/// Below so many requests a second of all arcs, each copy's counted once, load moves nothing.
const BUSY: f64 = 1_000.0;

/// What is known of arcs and disks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sizes {
    /// What arcs hold. One that is not in it counts as empty.
    pub arcs: BTreeMap<ArcId, ArcSize>,
    /// Bytes of room that are left on a node's disk. One that is not in it has enough.
    pub free: BTreeMap<NodeId, u64>,
    /// The load of some arcs is not known, that of others is. What is even by the one may be uneven by the other: data
    /// had better not be moved for evenness alone until all are known.
    pub unsettled: bool,
}

impl Sizes {
    /// Bytes that weigh as much as one request a second: all requests together as much as all bytes, if there are so
    /// many that it matters where they go.
    fn bytes_per_request(&self) -> f64 {
        let load: f64 = self.arcs.values().map(|arc| arc.load.max(0.0)).sum();
        let bytes: f64 = self.arcs.values().map(|arc| arc.bytes as f64).sum();
        if load >= BUSY { bytes / load } else { 0.0 }
    }
}

/// What one copy of an arc holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArcSize {
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Records. An arc of one is never cut.
    pub entries: u64,
    /// Requests a second.
    pub load: f64,
    /// Where to cut it into halves. `None`: not known; an arc of a hashed keyspace is then cut in the middle.
    pub middle: Option<Position>,
}

/// Steps that grant a wish. All splits come first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Arcs to cut, in this order: one may cut what an earlier one made.
    pub splits: Vec<Split>,
    /// Arcs to change hands, what is needed most first.
    pub moves: Vec<Move>,
    /// Bytes to be copied by all moves.
    pub bytes: u64,
    /// The least that any plan could copy that leaves every node as full of each keyspace as this one does: what
    /// nodes gain, without what is only passed on.
    pub ideal_bytes: u64,
    /// Afterwards: what the fullest node holds over what it should hold. 1 is even.
    pub unevenness: f64,
    /// What could not be met, and why.
    pub notes: Vec<String>,
}

/// An arc becomes two, which both keep its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The arc; it keeps the lower part.
    pub arc: ArcId,
    /// Where the upper part begins.
    pub at: Position,
    /// The number of the upper part.
    pub new: ArcId,
    /// Why.
    pub reason: String,
}

/// An arc changes hands, or only its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The arc; it may be one that a split made.
    pub arc: ArcId,
    /// Who holds it, the leader first.
    pub from: Vec<NodeId>,
    /// Who is to hold it, the leader first.
    pub to: Vec<NodeId>,
    /// Bytes to be copied to all nodes that are new to it.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

/// What a node holds, and what it should hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The node.
    pub node: NodeId,
    /// Arcs of which it holds a copy.
    pub arcs: usize,
    /// Arcs that it leads.
    pub leads: usize,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Those bytes as the planner weighs them: an empty arc counts for a little.
    pub held: f64,
    /// What it should hold, likewise weighed.
    pub share: f64,
}

impl Share {
    /// What it holds over what it should hold; 1 where it should hold nothing and does.
    pub fn ratio(&self) -> f64 {
        layout::ratio(self.held, self.share)
    }
}

impl Plan {
    /// The ring document with all steps done at once. (A live ring gets there arc by arc, by transitions. What the wish
    /// changes in nodes and keyspaces is not done here.)
    #[must_use]
    pub fn apply(&self, document: &RingDocument) -> RingDocument {
        let mut document = document.clone();
        for split in &self.splits {
            let Some(lower) = document.arcs.iter().find(|arc| arc.id == split.arc.0) else { continue };
            let upper = Arc { id: split.new.0, start: split.at.as_bytes().to_vec().into(), ..lower.clone() };
            document.next_arc = document.next_arc.max(split.new.0 + 1);
            document.arcs.push(upper);
        }
        document.arcs.sort_by(|a, b| a.start.cmp(&b.start));
        let moves: BTreeMap<u64, &Move> = self.moves.iter().map(|step| (step.arc.0, step)).collect();
        for arc in &mut document.arcs {
            if let Some(step) = moves.get(&arc.id) {
                arc.replicas = step.to.iter().map(|node| node.0).collect();
            }
        }
        document
    }
}

/// Steps that grant a wish, or why there are none. Cost: about O(copies that move × (nodes + arcs of a node)): well
/// below a second for 200 nodes and 6,000 arcs.
pub fn plan(ring: &Ring, wish: &Wish, sizes: &Sizes) -> Result<Plan, Refused> {
    wish::check(ring, wish)?;
    let (outlook, with_spares) = (Outlook::new(ring, wish, false), Outlook::new(ring, wish, true));
    let (mut shares, mut spare_shares) = (Shares::new(&outlook.nodes), Shares::new(&with_spares.nodes));
    let mut space = DiskSpace::new(&outlook.nodes, &sizes.free);
    let mut cuts = Cuts::new(
        ring.document().next_arc,
        MAX_ARCS.saturating_sub(ring.arcs().len()),
        CUT_RING_BYTES.saturating_sub(ring_bytes(ring.document())),
    );
    let whole = sizes.arcs.values().fold(0u64, |sum, arc| sum.saturating_add(arc.bytes));
    // Nothing is cut to make a keyspace even that is small among the others.
    let little = whole / (4 * ring.keyspaces().len().max(1) as u64);

    let mut plan = Plan::default();
    let mut moves = Vec::new();
    let mut notes = Notes::default();
    let mut weighed = vec![(0.0, 0.0); outlook.nodes.len()];
    for keyspace in ring.keyspaces() {
        // Who waits takes copies for which there are too few others, or too little room on them.
        let mut with_them = outlook.takers() < outlook.wanted(keyspace);
        let before = (with_spares.takers() > outlook.takers()).then(|| (space.clone(), cuts.clone()));
        let mut layout = loop {
            let (outlook, shares) = match with_them {
                true => (&with_spares, &mut spare_shares),
                false => (&outlook, &mut shares),
            };
            let parts = shares.of(outlook.copies(keyspace));
            let mut layout =
                KeyspaceLayout::new(ring, keyspace, sizes, outlook, parts, &mut space, &mut cuts);
            layout.may_cut = layout.bytes() > little || layout.per_request > 0.0;
            match (place::grant(&mut layout, ring.document(), wish), &before) {
                (Err(Refused::NoRoom { .. }), Some(before)) if !with_them => {
                    (space, cuts) = before.clone();
                    with_them = true;
                }
                (granted, _) => {
                    granted?;
                    break layout;
                }
            }
        };
        // Who replaces takes the very places.
        if !matches!(wish, Wish::Replace { .. }) {
            lead::even_out(&mut layout);
        }
        moves.extend(words::moves(&layout, wish));
        notes.of(&layout, wish);
        plan.ideal_bytes += layout.gained();
        for (node, (held, share)) in weighed.iter_mut().enumerate() {
            *held += layout.held[node];
            *share += layout.share(node);
        }
    }
    notes.all(&outlook.nodes, &weighed, &space, cuts.exhausted);
    moves.sort_by_key(|(urgency, _)| *urgency);
    plan.splits = cuts.splits;
    plan.moves = moves.into_iter().map(|(_, step)| step).collect();
    plan.bytes = plan.moves.iter().map(|step| step.bytes).sum();
    let ratios = weighed.iter().filter(|(_, share)| *share > 0.0).map(|(held, share)| held / share);
    plan.unevenness = ratios.fold(0.0, f64::max);
    plan.notes = notes.sentences();
    Ok(plan)
}

/// What each node holds and should hold, in the order of their numbers.
pub fn shares(ring: &Ring, sizes: &Sizes) -> Vec<Share> {
    let outlook = Outlook::new(ring, &Wish::Rebalance, false);
    let mut known = Shares::new(&outlook.nodes);
    let mut space = DiskSpace::new(&outlook.nodes, &BTreeMap::new());
    let mut cuts = Cuts::new(0, 0, 0);
    let none = |node: &Node| Share { node: node.id, arcs: 0, leads: 0, bytes: 0, held: 0.0, share: 0.0 };
    let mut shares: Vec<Share> = outlook.nodes.iter().map(none).collect();
    for keyspace in ring.keyspaces() {
        let parts = known.of(outlook.copies(keyspace));
        let layout = KeyspaceLayout::new(ring, keyspace, sizes, &outlook, parts, &mut space, &mut cuts);
        for (at, share) in shares.iter_mut().enumerate() {
            let arcs = layout.on[at].iter().filter_map(|arc| layout.arcs.get(*arc));
            share.arcs += layout.on[at].len();
            share.leads += arcs.clone().filter(|arc| arc.now.first() == Some(&at)).count();
            share.bytes = arcs.fold(share.bytes, |sum, arc| sum.saturating_add(arc.size.bytes));
            share.held += layout.held[at];
            share.share += layout.share(at);
        }
    }
    shares
}
