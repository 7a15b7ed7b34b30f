//! What there is: epochs, nodes, attempts, and what has been acknowledged.

use crate::{Members, nodes, swap};

pub const NODES: usize = 5;
pub const MAX_EPOCHS: usize = 5;
pub const MAX_VERSIONS: usize = 2;
pub const MAX_ATTEMPTS: usize = 3;

/// Who holds the arc by an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ring {
    pub replicas: Members,
    /// The next set of a joint arc, and the epoch since which it is joint; 0: it is not.
    pub next: Members,
    pub since: usize,
}

impl Ring {
    pub fn all(self) -> Members {
        self.replicas | self.next
    }

    pub fn is_joint(self) -> bool {
        self.next != 0
    }

    /// The nodes that must have copied before the next set takes over: those that are new, or all where it has
    /// another size.
    pub fn copiers(self) -> Members {
        match self.replicas.count_ones() == self.next.count_ones() {
            true => self.next & !self.replicas,
            false => self.next,
        }
    }
}

/// A set of replicas, and how many of it a write and a read need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    pub nodes: Members,
    pub write: u32,
    pub read: u32,
}

impl Set {
    /// How many must be copied from, so that those left are too few for a write, or where `reads` also for a read, that
    /// does not know of the change.
    pub fn sources(self, reads: bool) -> u32 {
        let least = if reads { self.write.min(self.read) } else { self.write };
        self.nodes.count_ones() + 1 - least
    }
}

/// The two sets between which the arc changes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sets {
    pub old: Set,
    pub new: Set,
}

impl Sets {
    pub fn of(&self, nodes: Members) -> Set {
        if nodes == self.old.nodes { self.old } else { self.new }
    }

    /// Whether these are enough for a write to be acknowledged.
    pub fn write(&self, ring: Ring, who: Members) -> bool {
        self.enough(ring, who, |set| set.write)
    }

    /// Whether these are enough for a read to be answered.
    pub fn read(&self, ring: Ring, who: Members) -> bool {
        self.enough(ring, who, |set| set.read)
    }

    fn enough(&self, ring: Ring, who: Members, needed: fn(Set) -> u32) -> bool {
        let quorum = |nodes: Members| (who & nodes).count_ones() >= needed(self.of(nodes));
        quorum(ring.replicas) && (!ring.is_joint() || quorum(ring.next))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The epoch that it knows.
    pub known: usize,
    /// The version that it stores; 0: nothing.
    pub stored: usize,
    /// As a new replica: from whom it has copied in this transition.
    pub copied: Members,
    /// As one that holds the arc no more: which owners took what it stores.
    pub offered: Members,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// 0: there is none.
    pub version: usize,
    pub epoch: usize,
    /// Where its request is under way, where it was admitted and is not applied yet, and where it was applied.
    pub sent: Members,
    pub admitted: Members,
    pub acks: Members,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// By epoch, up to the latest.
    pub rings: [Ring; MAX_EPOCHS],
    pub latest: usize,
    pub nodes: [Node; NODES],
    /// New replicas that have copied enough in the latest ring's transition.
    pub ready: Members,
    pub attempts: [Attempt; MAX_ATTEMPTS],
    /// Attempts yet to begin, and versions that have been.
    pub left: usize,
    pub versions: usize,
    /// The newest version that any node has stored.
    pub stored: usize,
    /// By version: whether it was acknowledged; and by epoch, who has answered a read with less since then.
    pub acknowledged: [bool; MAX_VERSIONS + 1],
    pub stale: [[Members; MAX_EPOCHS]; MAX_VERSIONS + 1],
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
pub fn tidy(state: &mut State, may_read: impl Fn(Ring, Members) -> bool) {
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
            let who = |of: &dyn Fn(&Node) -> bool| -> Members {
                nodes(ring.all()).filter(|node| of(&state.nodes[*node])).map(|node| 1 << node).sum()
            };
            let now = who(&|node| node.known == epoch && node.stored < version);
            let later = who(&|node| node.known < epoch);
            let stale = &mut state.stale[version][epoch];
            *stale |= now;
            // A read at that epoch can get no quorum of such answers any more.
            if !may_read(ring, *stale | later) {
                *stale = 0;
            }
        }
    }
}

/// The state with two nodes renamed.
pub fn renamed(state: &State, a: usize, b: usize) -> State {
    let mut other = *state;
    let swap = |mask: &mut Members| swap(mask, a, b);
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
