//! The replicas of an arc, and when some of them are enough. Pure.

use super::need::Need;
use god_proto::{
    ids::NodeId,
    ring::{Ring, RingArc, quorums},
};

/// Some members of [`JointReplicas`], a bit each.
pub type ReplicaMask = u64;

/// Who must see what is done at an arc, and how many of them: its replicas and, while it changes hands, those of the
/// next set. Each set has a quorum of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JointReplicas {
    members: Vec<NodeId>,
    outgoing: Quorum,
    incoming: Option<Quorum>,
}

/// So many of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Quorum {
    set: ReplicaMask,
    need: u32,
    /// So many that every quorum of the keyspace's reads meets one of them, by other quorums that come after these as
    /// well: as many as hold a write. Never fewer than `need`.
    cover: u32,
}

impl Quorum {
    fn is_in(self, who: ReplicaMask) -> bool {
        self.has(who) >= self.need
    }

    fn has(self, who: ReplicaMask) -> u32 {
        (who & self.set).count_ones()
    }
}

impl JointReplicas {
    /// The sets of an arc of this ring. A set smaller than what is needed serves with what it has.
    pub fn of(ring: &Ring, arc: &RingArc, needed: Need) -> JointReplicas {
        let members: Vec<NodeId> = arc.all_replicas().take(ReplicaMask::BITS as usize).collect();
        let keyspace = ring.keyspace_by_id(arc.keyspace);
        let quorum = |nodes: &[NodeId]| {
            let bit = |(at, node): (usize, &NodeId)| if nodes.contains(node) { 1 << at } else { 0 };
            let set: ReplicaMask = members.iter().enumerate().map(bit).sum();
            let count = set.count_ones();
            let terms = keyspace.map(|keyspace| quorums(keyspace, nodes.len()));
            let need = terms.map_or(u32::MAX, |terms| needed.of(terms)).min(count);
            // Who asks fewer than the keyspace's reads do is promised nothing about other reads; nor is anybody whose
            // reads need not meet writes.
            let cover = match terms {
                Some(terms)
                    if terms.read_quorum <= need && terms.read_quorum + terms.write_quorum > count =>
                {
                    need.max(terms.write_quorum.min(count))
                }
                _ => need,
            };
            Quorum { set, need, cover }
        };
        let (outgoing, incoming) = (quorum(&arc.replicas), arc.next.as_deref().map(quorum));
        JointReplicas { members, outgoing, incoming }
    }

    /// The same members, any one of which is enough.
    #[must_use]
    pub fn any_one(&self) -> JointReplicas {
        self.one_of(self.all())
    }

    /// The same members, of which one of these is enough, and no other one is any.
    #[must_use]
    pub fn one_of(&self, who: ReplicaMask) -> JointReplicas {
        JointReplicas {
            members: self.members.clone(),
            outgoing: Quorum { set: who, need: 1, cover: 1 },
            incoming: None,
        }
    }

    /// All of them, the replicas first.
    pub fn members(&self) -> &[NodeId] {
        &self.members
    }

    /// The member of this bit.
    pub fn node(&self, at: usize) -> Option<NodeId> {
        self.members.get(at).copied()
    }

    /// Those members of which something holds.
    pub fn those(&self, holds: impl Fn(NodeId) -> bool) -> ReplicaMask {
        self.members.iter().enumerate().filter(|(_, node)| holds(**node)).map(|(at, _)| 1 << at).sum()
    }

    /// Every member.
    pub fn all(&self) -> ReplicaMask {
        self.outgoing.set | self.incoming.map_or(0, |new| new.set)
    }

    /// The replicas, without those who only come to be some.
    pub fn outgoing(&self) -> ReplicaMask {
        self.outgoing.set
    }

    /// Whether these are a quorum in each set (invariant JOINT-QUORUM).
    pub fn enough(&self, who: ReplicaMask) -> bool {
        self.each().all(|quorum| quorum.is_in(who))
    }

    /// The same members, so many of each set that every quorum of the keyspace's reads meets one of them, now and under
    /// quorums that come after these. Where a call needs fewer than those reads do, it needs no more for this.
    #[must_use]
    pub fn covering(&self) -> JointReplicas {
        let covering = |quorum: Quorum| Quorum { need: quorum.cover, ..quorum };
        JointReplicas {
            members: self.members.clone(),
            outgoing: covering(self.outgoing),
            incoming: self.incoming.map(covering),
        }
    }

    /// Whether one more member of this bit would bring a set that lacks some nearer to its quorum.
    pub fn helps(&self, who: ReplicaMask, bit: ReplicaMask) -> bool {
        self.each().any(|quorum| quorum.set & bit != 0 && !quorum.is_in(who))
    }

    /// How many there are, and are needed, in the set that lacks most.
    pub fn shortfall(&self, who: ReplicaMask) -> (u32, u32) {
        let count = |quorum: Quorum| (quorum.has(who), quorum.need);
        self.each().map(count).max_by_key(|(is, needed)| needed.saturating_sub(*is)).unwrap_or((0, 0))
    }

    /// How many there are in the set that has the fewest: so many there are whichever set counts alone afterwards.
    pub fn fewest(&self, who: ReplicaMask) -> u32 {
        self.each().map(|quorum| quorum.has(who)).min().unwrap_or(0)
    }

    fn each(&self) -> impl Iterator<Item = Quorum> {
        std::iter::once(self.outgoing).chain(self.incoming)
    }
}

/// The members of a mask.
pub fn bits(mut who: ReplicaMask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = who.trailing_zeros();
        who &= who.checked_sub(1)?;
        Some(at as usize)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// JointReplicas of which `need` are needed each.
    pub fn replicas(old: &[u32], new: Option<&[u32]>, need: u32) -> JointReplicas {
        let nodes = |numbers: &[u32]| numbers.iter().copied().map(NodeId).collect::<Vec<_>>();
        let (old, new) = (nodes(old), new.map(nodes));
        let mut members = old.clone();
        members.extend(new.iter().flatten().filter(|node| !old.contains(node)));
        let quorum = |set: &[NodeId]| {
            let bit = |(at, node): (usize, &NodeId)| if set.contains(node) { 1 << at } else { 0 };
            let need = need.min(set.len() as u32);
            Quorum { set: members.iter().enumerate().map(bit).sum(), need, cover: need }
        };
        let (outgoing, incoming) = (quorum(&old), new.as_deref().map(quorum));
        JointReplicas { members, outgoing, incoming }
    }

    #[test]
    fn an_arc_that_changes_hands_needs_a_quorum_of_both_sets() {
        let all = replicas(&[1, 2, 3], Some(&[3, 4, 5]), 2);
        assert_eq!(all.members(), [1, 2, 3, 4, 5].map(NodeId));
        assert!(!all.enough(0b00111), "one of the next set");
        assert!(!all.enough(0b11100), "one of the old set");
        assert!(all.enough(0b01101));
        assert_eq!(all.shortfall(0b00011), (0, 2));
        assert!(all.helps(0b00011, 0b01000));
        assert!(!all.helps(0b00011, 0b00000));
    }

    #[test]
    fn a_set_smaller_than_the_quorum_serves_with_what_it_has() {
        let all = replicas(&[1], None, 2);
        assert!(all.enough(0b1));
        assert!(!all.enough(0b0));
        assert_eq!(all.shortfall(0), (0, 1));
    }

    #[test]
    fn any_one_member_is_enough_where_that_is_asked() {
        let all = replicas(&[1, 2, 3], Some(&[3, 4, 5]), 2).any_one();
        assert!(all.enough(0b10000) && all.enough(0b1) && !all.enough(0));
        let one = all.one_of(0b00110);
        assert!(one.enough(0b00100) && !one.enough(0b11001) && !one.helps(0, 0b1));
    }

    #[test]
    fn bits_are_the_members_of_a_mask() {
        assert_eq!(bits(0b1011).collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!(bits(0).count(), 0);
        assert_eq!(bits(1 << 63).collect::<Vec<_>>(), [63]);
    }
}
