//! Whom to ask next until enough replicas have answered. Pure.

use super::replicas::{JointReplicas, ReplicaMask, bits};

/// A search for a quorum of answers: asks no more replicas than are needed, another one for each that fails, and
/// another one, once, for each that is slow.
#[derive(Debug)]
pub struct ReplicaSelector<'a> {
    replicas: &'a JointReplicas,
    /// Members that may be asked, best first.
    order: Vec<usize>,
    asked: ReplicaMask,
    pending: ReplicaMask,
    answered: ReplicaMask,
}

impl<'a> ReplicaSelector<'a> {
    /// Over these replicas, asking those of `order`, best first.
    pub fn new(replicas: &'a JointReplicas, order: Vec<usize>) -> ReplicaSelector<'a> {
        ReplicaSelector { replicas, order, asked: 0, pending: 0, answered: 0 }
    }

    /// Whom to ask now, so that the answers under way could make a quorum; none where they could already.
    pub fn ask(&mut self) -> Vec<usize> {
        let mut out = Vec::new();
        for &at in &self.order {
            let hoped = self.answered | self.pending;
            if self.asked & 1 << at == 0 && self.replicas.helps(hoped, 1 << at) {
                self.asked |= 1 << at;
                self.pending |= 1 << at;
                out.push(at);
            }
        }
        out
    }

    /// Whom to ask in place of a slow one, while it goes on.
    pub fn hedge(&mut self, slow: usize) -> Option<usize> {
        let hoped = (self.answered | self.pending) & !(1 << slow);
        let fresh = |at: &&usize| self.asked & 1 << **at == 0 && self.replicas.helps(hoped, 1 << **at);
        let at = *self.order.iter().find(fresh)?;
        self.asked |= 1 << at;
        self.pending |= 1 << at;
        Some(at)
    }

    /// This one answered.
    pub fn answered(&mut self, at: usize) {
        self.pending &= !(1 << at);
        self.answered |= 1 << at;
    }

    /// This one will not answer.
    pub fn failed(&mut self, at: usize) {
        self.pending &= !(1 << at);
    }

    /// Whether the answers make a quorum.
    pub fn is_done(&self) -> bool {
        self.replicas.enough(self.answered)
    }

    /// Whether they can still come to. Ask [`ReplicaSelector::ask`] first.
    pub fn has_hope(&self) -> bool {
        self.replicas.enough(self.answered | self.pending)
    }

    /// Answers there are, and are needed.
    pub fn shortfall(&self) -> (u32, u32) {
        self.replicas.shortfall(self.answered)
    }

    /// Whether enough may be asked at all.
    pub fn reachable(&self) -> (bool, (u32, u32)) {
        let all = self.order.iter().map(|at| 1 << at).sum();
        (self.replicas.enough(all), self.replicas.shortfall(all))
    }

    /// Who is under way.
    pub fn pending(&self) -> impl Iterator<Item = usize> {
        bits(self.pending)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::replicas::tests::replicas, *};

    #[test]
    fn no_more_replicas_are_asked_than_are_needed() {
        let all = replicas(&[1, 2, 3], None, 2);
        let mut selector = ReplicaSelector::new(&all, vec![2, 0, 1]);
        assert_eq!(selector.ask(), [2, 0]);
        assert!(selector.ask().is_empty());
        selector.answered(0);
        selector.answered(2);
        assert!(selector.is_done());
    }

    #[test]
    fn one_that_fails_is_replaced_until_none_is_left() {
        let all = replicas(&[1, 2, 3], None, 2);
        let mut selector = ReplicaSelector::new(&all, vec![0, 1, 2]);
        selector.ask();
        selector.failed(0);
        assert_eq!(selector.ask(), [2]);
        assert!(selector.has_hope());
        selector.failed(1);
        assert!(selector.ask().is_empty());
        assert!(!selector.has_hope());
        selector.answered(2);
        assert_eq!(selector.shortfall(), (1, 2));
    }

    #[test]
    fn a_slow_one_is_hedged_and_may_still_win() {
        let all = replicas(&[1, 2, 3], None, 2);
        let mut selector = ReplicaSelector::new(&all, vec![0, 1, 2]);
        selector.ask();
        selector.answered(0);
        assert_eq!(selector.hedge(1), Some(2));
        assert_eq!(selector.hedge(1), None);
        assert_eq!(selector.pending().collect::<Vec<_>>(), [1, 2]);
        selector.answered(1);
        assert!(selector.is_done());
    }

    #[test]
    fn both_sets_of_an_arc_that_changes_hands_are_asked() {
        let all = replicas(&[1, 2, 3], Some(&[3, 4, 5]), 2);
        let mut selector = ReplicaSelector::new(&all, vec![0, 1, 2, 3, 4]);
        let asked: ReplicaMask = selector.ask().iter().map(|at| 1 << at).sum();
        assert!(all.enough(asked));
    }
}
