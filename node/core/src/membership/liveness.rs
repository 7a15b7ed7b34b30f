//! What this node believes about the others, in one table that every room may read.

use god_proto::{ids::NodeId, ring::Ring, v1::Member};
use metrics::gauge;
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// After so many pings in a row without an answer, a node is suspect.
const SUSPECT_AFTER: u32 = 2;
/// After so many, nothing is promised to clients that needs it.
const SILENT_AFTER: u32 = 4;
/// After so many, it is taken to be gone.
const DOWN_AFTER: u32 = 5;

/// Whether a node seems to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerState {
    /// It answers, or nothing is known against it.
    #[default]
    Up,
    /// It did not answer lately.
    Suspect,
    /// It is taken to be gone until it says otherwise.
    Down,
}

impl PeerState {
    /// All of them.
    pub const ALL: [PeerState; 3] = [PeerState::Up, PeerState::Suspect, PeerState::Down];

    /// Its name, for people and metrics.
    pub fn name(self) -> &'static str {
        match self {
            PeerState::Up => "up",
            PeerState::Suspect => "suspect",
            PeerState::Down => "down",
        }
    }
}

/// What is known of one peer.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Whether it seems to be there.
    pub state: PeerState,
    /// Whether it said that it is ready, when it last answered; `None`: it was not heard of yet, or is down.
    pub is_ready: Option<bool>,
    /// Smoothed time from request to answer.
    pub round_trip: Option<Duration>,
    /// Microseconds its clock is ahead of this node's, from the fastest of the latest exchanges.
    pub clock_ahead_us: Option<i64>,
}

/// A peer, and the evidence for its state.
#[derive(Debug, Default)]
struct Evidence {
    peer: Peer,
    /// Until when an answer of its own outweighs what others say.
    trusted_until: Option<Instant>,
    /// Pings in a row without an answer.
    missed: u32,
    /// What gossip says.
    rumour: PeerState,
}

impl Evidence {
    /// A node's own answer beats what others say of it, for as long as it is fresh; then the worse of the two beliefs
    /// holds: it cannot be called, or the others cannot reach it.
    fn judge(&mut self) {
        let own = match self.missed {
            0..SUSPECT_AFTER => PeerState::Up,
            SUSPECT_AFTER..DOWN_AFTER => PeerState::Suspect,
            DOWN_AFTER.. => PeerState::Down,
        };
        let trusted = self.trusted_until.is_some_and(|until| Instant::now() < until);
        self.peer.state = if trusted { own } else { own.max(self.rumour) };
    }
}

/// The table. A belief, never an authority: only the ring says who holds what.
#[derive(Debug, Default)]
pub struct Liveness(RwLock<BTreeMap<NodeId, Evidence>>);

impl Liveness {
    /// What is known of a node.
    pub fn peer(&self, node: NodeId) -> Peer {
        self.0.read().get(&node).map(|entry| entry.peer.clone()).unwrap_or_default()
    }

    /// Whether a node seems to be there.
    pub fn state(&self, node: NodeId) -> PeerState {
        self.0.read().get(&node).map_or(PeerState::Up, |entry| entry.peer.state)
    }

    /// Whether a node is known to be up: it answers, and said that it is ready. Who was not heard of yet is not, nor is
    /// one whose disk is full: it answers, and decides nothing.
    pub fn is_there(&self, node: NodeId) -> bool {
        let peer = self.peer(node);
        peer.state == PeerState::Up && peer.is_ready == Some(true)
    }

    /// Those of a ring that are taken to be gone; this node is not, whatever others say.
    pub fn down(&self, ring: &Ring, me: impl Fn(&Member) -> bool) -> BTreeSet<NodeId> {
        others(ring, me).filter(|node| self.state(*node) == PeerState::Down).collect()
    }

    /// Those of a ring that are not known to be up; this node is, whatever others say.
    pub fn away(&self, ring: &Ring, me: impl Fn(&Member) -> bool) -> BTreeSet<NodeId> {
        others(ring, me).filter(|node| !self.is_there(*node)).collect()
    }

    /// Whether a node has not answered for so long that clients should not wait for it: sooner than it is taken to be
    /// gone, and later than it is suspect.
    pub fn is_silent(&self, node: NodeId) -> bool {
        let all = self.0.read();
        all.get(&node)
            .is_some_and(|entry| entry.missed >= SILENT_AFTER || entry.peer.state == PeerState::Down)
    }

    /// Changes what is known of a node. A state set here holds until there is new evidence.
    pub fn update(&self, node: NodeId, change: impl FnOnce(&mut Peer)) {
        change(&mut self.0.write().entry(node).or_default().peer);
    }

    /// A node answered; for `trust` from now, that outweighs what others say of it.
    pub fn answered(&self, node: NodeId, trust: Duration) {
        self.weigh(node, |entry| {
            entry.missed = 0;
            entry.trusted_until = Some(Instant::now() + trust);
        });
    }

    /// A node did not answer in time.
    pub fn missed(&self, node: NodeId) {
        self.weigh(node, |entry| entry.missed = entry.missed.saturating_add(1));
    }

    /// Gossip says so of a node. One that gossip raises from the dead is suspect until it answers: worth a call, as a
    /// last choice.
    pub fn rumour(&self, node: NodeId, state: PeerState) {
        self.weigh(node, |entry| {
            if entry.rumour == PeerState::Down && state == PeerState::Up {
                entry.missed = entry.missed.min(SUSPECT_AFTER);
            }
            entry.rumour = state;
        });
    }

    /// Forgets all nodes but those.
    pub fn keep(&self, wanted: impl Fn(NodeId) -> bool) {
        self.0.write().retain(|node, _| wanted(*node));
    }

    /// All that is known.
    pub fn all(&self) -> Vec<(NodeId, Peer)> {
        self.0.read().iter().map(|(node, entry)| (*node, entry.peer.clone())).collect()
    }

    /// Sets the gauges: members by state, and how far each one's clock is ahead.
    pub fn show(&self) {
        let all = self.all();
        for state in PeerState::ALL {
            let count = all.iter().filter(|(_, peer)| peer.state == state).count();
            gauge!("god_membership_peers", "state" => state.name()).set(count as f64);
        }
        for (node, peer) in all {
            if let Some(ahead_us) = peer.clock_ahead_us {
                let node = node.to_string();
                gauge!("god_membership_clock_ahead_seconds", "peer" => node).set(ahead_us as f64 / 1e6);
            }
        }
    }

    fn weigh(&self, node: NodeId, evidence: impl FnOnce(&mut Evidence)) {
        let mut all = self.0.write();
        let entry = all.entry(node).or_default();
        let before = entry.peer.state;
        evidence(entry);
        entry.judge();
        if entry.peer.state != before {
            tracing::info!(%node, before = before.name(), now = entry.peer.state.name(), "a peer's state changed");
        }
    }
}

fn others(ring: &Ring, me: impl Fn(&Member) -> bool) -> impl Iterator<Item = NodeId> {
    ring.nodes().iter().filter(move |node| !me(node)).map(|node| NodeId(node.number))
}

#[cfg(test)]
mod tests {
    use super::{
        PeerState::{Down, Suspect, Up},
        *,
    };
    use tokio::time::advance;

    const NODE: NodeId = NodeId(7);
    const TRUST: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn missed_pings_make_a_node_suspect_then_down_and_an_answer_makes_it_up() {
        let liveness = Liveness::default();
        let states: Vec<PeerState> = (0..5)
            .map(|_| {
                liveness.missed(NODE);
                liveness.state(NODE)
            })
            .collect();
        assert_eq!(states, [Up, Suspect, Suspect, Suspect, Down]);
        liveness.answered(NODE, TRUST);
        assert_eq!(liveness.state(NODE), Up);
        let silent: Vec<bool> = (0..4)
            .map(|_| {
                liveness.missed(NODE);
                liveness.is_silent(NODE)
            })
            .collect();
        assert_eq!(silent, [false, false, false, true]);
        liveness.answered(NODE, TRUST);
        assert!(!liveness.is_silent(NODE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_answer_beats_gossip_and_a_stale_one_does_not() {
        let liveness = Liveness::default();
        liveness.answered(NODE, TRUST);
        liveness.rumour(NODE, PeerState::Down);
        assert_eq!(liveness.state(NODE), PeerState::Up);
        advance(TRUST * 2).await;
        liveness.missed(NODE);
        assert_eq!(liveness.state(NODE), PeerState::Down);
        liveness.answered(NODE, TRUST);
        assert_eq!(liveness.state(NODE), PeerState::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_gossip_raises_from_the_dead_is_worth_a_call() {
        let liveness = Liveness::default();
        for _ in 0..9 {
            liveness.missed(NODE);
        }
        liveness.rumour(NODE, PeerState::Down);
        liveness.rumour(NODE, PeerState::Up);
        assert_eq!(liveness.state(NODE), PeerState::Suspect);
    }

    #[test]
    fn nodes_that_left_are_forgotten() {
        let liveness = Liveness::default();
        liveness.missed(NodeId(1));
        liveness.missed(NodeId(2));
        liveness.keep(|node| node == NodeId(2));
        assert_eq!(liveness.all().len(), 1);
    }
}
