//! Who a node is, to gossip.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most that one renewal adds to an incarnation, as a power of two: 50 days.
const MOST_STEP: u8 = 32;

/// A node as gossip knows it. Its UUID tells nodes apart; its address may change from start to start. Of two with the
/// same UUID the one with the higher incarnation counts.
#[derive(Clone, Serialize, Deserialize)]
pub struct GossipIdentity {
    /// The node's UUID.
    pub uuid: Uuid,
    /// Its number in the cluster.
    pub number: u32,
    /// `host:port` of its peer door.
    pub peer_address: String,
    /// Grows with each start and each return from being taken for dead: the wall's milliseconds at the start.
    pub incarnation: u64,
    /// How often this process renewed it. Only the owner counts, so it is neither sent nor compared.
    #[serde(skip)]
    renewals: u8,
}

impl GossipIdentity {
    /// A node that starts now.
    pub fn new(uuid: Uuid, number: u32, peer_address: String, now_ms: u64) -> GossipIdentity {
        GossipIdentity { uuid, number, peer_address, incarnation: now_ms, renewals: 0 }
    }
}

impl PartialEq for GossipIdentity {
    fn eq(&self, other: &GossipIdentity) -> bool {
        (self.uuid, self.number, self.incarnation) == (other.uuid, other.number, other.incarnation)
            && self.peer_address == other.peer_address
    }
}

impl Eq for GossipIdentity {}

impl std::fmt::Debug for GossipIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}#{}", self.number, self.peer_address, self.incarnation)
    }
}

impl foca::Identity for GossipIdentity {
    type Addr = Uuid;

    /// Each renewal goes twice as far: a node whose wall was set back before it started, so that the others remember
    /// a later start, is past that after a few.
    fn renew(&self) -> Option<GossipIdentity> {
        let incarnation = self.incarnation.saturating_add(1 << self.renewals.min(MOST_STEP));
        Some(GossipIdentity { incarnation, renewals: self.renewals.saturating_add(1), ..self.clone() })
    }

    fn addr(&self) -> Uuid {
        self.uuid
    }

    fn win_addr_conflict(&self, other: &GossipIdentity) -> bool {
        // Equal incarnations with other contents come from two processes on copies of one data directory; any order
        // will do, so long as all take the same.
        (self.incarnation, self.number, &self.peer_address)
            > (other.incarnation, other.number, &other.peer_address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foca::Identity;

    #[test]
    fn a_node_whose_clock_was_set_back_an_hour_soon_wins_over_its_former_self() {
        let hour_ms = 3_600_000;
        let former = GossipIdentity::new(Uuid::from_u128(1), 1, "a:1".to_owned(), 10 * hour_ms);
        let mut now = GossipIdentity::new(Uuid::from_u128(1), 1, "b:1".to_owned(), 9 * hour_ms);
        let mut renewals = 0;
        while !now.win_addr_conflict(&former) {
            now = now.renew().unwrap();
            renewals += 1;
        }
        assert!(renewals <= 22, "{renewals}");
    }

    #[test]
    fn a_node_recognises_its_renewed_self_when_others_speak_of_it() {
        let renewed = GossipIdentity::new(Uuid::from_u128(1), 1, "a:1".to_owned(), 5).renew().unwrap();
        let heard: GossipIdentity = serde_json::from_str(&serde_json::to_string(&renewed).unwrap()).unwrap();
        assert_eq!(heard, renewed);
    }
}
