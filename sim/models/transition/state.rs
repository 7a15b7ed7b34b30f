//! What there is: epochs, nodes, attempts, and what has been acknowledged.

use crate::{Mask, nodes, swap};

pub const NODES: usize = 5;
pub const QUORUM: u32 = 2;
/// N - W + 1.
pub const SOURCES: u32 = 2;
pub const MAX_EPOCHS: usize = 5;
pub const MAX_VERSIONS: usize = 2;
pub const MAX_ATTEMPTS: usize = 3;

/// Who holds the arc by an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ring {
    pub replicas: Mask,
    /// The next set of a joint arc, and the epoch since which it is joint; 0: it is not.
    pub next: Mask,
    pub since: usize,
}

impl Ring {
    pub fn all(self) -> Mask {
        self.replicas | self.next
    }

    pub fn is_joint(self) -> bool {
        self.next != 0
    }

    pub fn enough(self, who: Mask) -> bool {
        let quorum = |set: Mask| (who & set).count_ones() >= QUORUM;
        quorum(self.replicas) && (!self.is_joint() || quorum(self.next))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The epoch that it knows.
    pub known: usize,
    /// The version that it stores; 0: nothing.
    pub stored: usize,
    /// As a new replica: from whom it has copied in this transition.
    pub copied: Mask,
    /// As one that holds the arc no more: which owners took what it stores.
    pub offered: Mask,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// 0: there is none.
    pub version: usize,
    pub epoch: usize,
    /// Where its request is under way, where it was admitted and is not applied yet, and where it was applied.
    pub sent: Mask,
    pub admitted: Mask,
    pub acks: Mask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// By epoch, up to the latest.
    pub rings: [Ring; MAX_EPOCHS],
    pub latest: usize,
    pub nodes: [Node; NODES],
    /// New replicas that have copied enough in the latest ring's transition.
    pub ready: Mask,
    pub attempts: [Attempt; MAX_ATTEMPTS],
    /// Attempts yet to begin, and versions that have been.
    pub left: usize,
    pub versions: usize,
    /// The newest version that any node has stored.
    pub stored: usize,
    /// By version: whether it was acknowledged; and by epoch, who has answered a read with less since then.
    pub acknowledged: [bool; MAX_VERSIONS + 1],
    pub stale: [[Mask; MAX_EPOCHS]; MAX_VERSIONS + 1],
}

pub fn store(state: &mut State, node: usize, version: usize) {
    let node = &mut state.nodes[node];
    if version > node.stored {
        node.stored = version;
        node.offered = 0;
        state.stored = state.stored.max(version);
    }
}

/// Notes who answers reads with too little, and makes one of all states that differ in nothing that matters.
pub fn tidy(state: &mut State) {
    for attempt in &mut state.attempts {
        if state.acknowledged[attempt.version] {
            attempt.acks = 0;
        }
        let open = attempt.sent | attempt.admitted;
        if open == 0 {
            *attempt = Attempt::default();
        }
    }
    state.attempts.sort_unstable();
    for version in 1..=MAX_VERSIONS {
        if !state.acknowledged[version] {
            continue;
        }
        for epoch in 0..=state.latest {
            let ring = state.rings[epoch];
            let who = |of: &dyn Fn(&Node) -> bool| -> Mask {
                nodes(ring.all()).filter(|node| of(&state.nodes[*node])).map(|node| 1 << node).sum()
            };
            let now = who(&|node| node.known == epoch && node.stored < version);
            let later = who(&|node| node.known < epoch);
            let stale = &mut state.stale[version][epoch];
            *stale |= now;
            // A read at that epoch can get no quorum of such answers any more.
            if !ring.enough(*stale | later) {
                *stale = 0;
            }
        }
    }
}

/// The state with two nodes renamed.
pub fn renamed(state: &State, a: usize, b: usize) -> State {
    let mut other = *state;
    let swap = |mask: &mut Mask| swap(mask, a, b);
    other.nodes.swap(a, b);
    for node in &mut other.nodes {
        swap(&mut node.copied);
        swap(&mut node.offered);
    }
    swap(&mut other.ready);
    for attempt in &mut other.attempts {
        swap(&mut attempt.sent);
        swap(&mut attempt.admitted);
        swap(&mut attempt.acks);
    }
    other.attempts.sort_unstable();
    other.stale.iter_mut().flatten().for_each(swap);
    other
}
