//! The replicas of an arc, and when some of them are enough. Pure.

use god_proto::{ids::NodeId, ring::RingArc};

/// Some members of [`Sets`], a bit each.
pub(super) type Mask = u64;

/// Who must see what is done at an arc: its replicas and, while it changes hands, those of the next set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sets {
    members: Vec<NodeId>,
    old: Mask,
    new: Option<Mask>,
}

impl Sets {
    pub(super) fn of(arc: &RingArc) -> Sets {
        let members: Vec<NodeId> = arc.all_replicas().take(Mask::BITS as usize).collect();
        let mask = |set: &[NodeId]| {
            let bit = |(at, node): (usize, &NodeId)| if set.contains(node) { 1 << at } else { 0 };
            members.iter().enumerate().map(bit).sum()
        };
        let (old, new) = (mask(&arc.replicas), arc.next.as_deref().map(mask));
        Sets { members, old, new }
    }

    /// All of them, the replicas first.
    pub(super) fn members(&self) -> &[NodeId] {
        &self.members
    }

    pub(super) fn node(&self, at: usize) -> Option<NodeId> {
        self.members.get(at).copied()
    }

    pub(super) fn all(&self) -> Mask {
        self.old | self.new.unwrap_or(0)
    }

    /// Whether these are a quorum in each set (invariant JOINT-QUORUM). A set smaller than `need` serves with what
    /// it has.
    pub(super) fn enough(&self, who: Mask, need: u32) -> bool {
        self.each().all(|set| (who & set).count_ones() >= need.min(set.count_ones()))
    }

    /// Whether one more member of this bit would bring a set that lacks some nearer to its quorum.
    pub(super) fn helps(&self, who: Mask, bit: Mask, need: u32) -> bool {
        self.each().any(|set| set & bit != 0 && (who & set).count_ones() < need.min(set.count_ones()))
    }

    /// How many there are, and are needed, in the set that lacks most.
    pub(super) fn shortfall(&self, who: Mask, need: u32) -> (u32, u32) {
        let count = |set: Mask| ((who & set).count_ones(), need.min(set.count_ones()));
        self.each().map(count).max_by_key(|(is, needed)| needed.saturating_sub(*is)).unwrap_or((0, need))
    }

    fn each(&self) -> impl Iterator<Item = Mask> {
        std::iter::once(self.old).chain(self.new)
    }
}

/// The members of a mask.
pub(super) fn bits(mut who: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = who.trailing_zeros();
        who &= who.checked_sub(1)?;
        Some(at as usize)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use god_proto::{
        ids::{ArcId, KeyspaceId},
        position::PositionRange,
    };

    pub fn sets(old: &[u32], new: Option<&[u32]>) -> Sets {
        let nodes = |numbers: &[u32]| numbers.iter().copied().map(NodeId).collect::<Vec<_>>();
        Sets::of(&RingArc {
            id: ArcId(1),
            keyspace: KeyspaceId(1),
            range: PositionRange::of_keyspace(KeyspaceId(1)),
            replicas: nodes(old),
            next: new.map(nodes),
            since: god_proto::ids::Epoch(u64::from(new.is_some())),
        })
    }

    #[test]
    fn an_arc_that_changes_hands_needs_a_quorum_of_both_sets() {
        let sets = sets(&[1, 2, 3], Some(&[3, 4, 5]));
        assert_eq!(sets.members(), [1, 2, 3, 4, 5].map(NodeId));
        assert!(!sets.enough(0b00111, 2), "one of the next set");
        assert!(!sets.enough(0b11100, 2), "one of the old set");
        assert!(sets.enough(0b01101, 2));
        assert_eq!(sets.shortfall(0b00011, 2), (0, 2));
        assert!(sets.helps(0b00011, 0b01000, 2));
        assert!(!sets.helps(0b00011, 0b00000, 2));
    }

    #[test]
    fn a_set_smaller_than_the_quorum_serves_with_what_it_has() {
        let sets = sets(&[1], None);
        assert!(sets.enough(0b1, 2));
        assert!(!sets.enough(0b0, 2));
        assert_eq!(sets.shortfall(0, 2), (0, 1));
    }

    #[test]
    fn bits_are_the_members_of_a_mask() {
        assert_eq!(bits(0b1011).collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!(bits(0).count(), 0);
        assert_eq!(bits(1 << 63).collect::<Vec<_>>(), [63]);
    }
}
