//! Whom to ask next until enough replicas have answered. Pure.

use super::sets::{Mask, Sets, bits};

/// A search for a quorum of answers: asks no more replicas than are needed, another one for each that fails, and
/// another one, once, for each that is slow.
#[derive(Debug)]
pub struct Hunt<'a> {
    sets: &'a Sets,
    /// Members that may be asked, best first.
    order: Vec<usize>,
    asked: Mask,
    pending: Mask,
    answered: Mask,
}

impl<'a> Hunt<'a> {
    /// Over these sets, asking those of `order`, best first.
    pub fn new(sets: &'a Sets, order: Vec<usize>) -> Hunt<'a> {
        Hunt { sets, order, asked: 0, pending: 0, answered: 0 }
    }

    /// Whom to ask now, so that the answers under way could make a quorum; none where they could already.
    pub fn ask(&mut self) -> Vec<usize> {
        let mut out = Vec::new();
        for &at in &self.order {
            let hoped = self.answered | self.pending;
            if self.asked & 1 << at == 0 && self.sets.helps(hoped, 1 << at) {
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
        let fresh = |at: &&usize| self.asked & 1 << **at == 0 && self.sets.helps(hoped, 1 << **at);
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
        self.sets.enough(self.answered)
    }

    /// Whether they can still come to. Ask [`Hunt::ask`] first.
    pub fn has_hope(&self) -> bool {
        self.sets.enough(self.answered | self.pending)
    }

    /// Answers there are, and are needed.
    pub fn shortfall(&self) -> (u32, u32) {
        self.sets.shortfall(self.answered)
    }

    /// Whether enough may be asked at all.
    pub fn reachable(&self) -> (bool, (u32, u32)) {
        let all = self.order.iter().map(|at| 1 << at).sum();
        (self.sets.enough(all), self.sets.shortfall(all))
    }

    /// Who is under way.
    pub fn pending(&self) -> impl Iterator<Item = usize> {
        bits(self.pending)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sets::tests::sets, *};

    #[test]
    fn no_more_replicas_are_asked_than_are_needed() {
        let sets = sets(&[1, 2, 3], None, 2);
        let mut hunt = Hunt::new(&sets, vec![2, 0, 1]);
        assert_eq!(hunt.ask(), [2, 0]);
        assert!(hunt.ask().is_empty());
        hunt.answered(0);
        hunt.answered(2);
        assert!(hunt.is_done());
    }

    #[test]
    fn one_that_fails_is_replaced_until_none_is_left() {
        let sets = sets(&[1, 2, 3], None, 2);
        let mut hunt = Hunt::new(&sets, vec![0, 1, 2]);
        hunt.ask();
        hunt.failed(0);
        assert_eq!(hunt.ask(), [2]);
        assert!(hunt.has_hope());
        hunt.failed(1);
        assert!(hunt.ask().is_empty());
        assert!(!hunt.has_hope());
        hunt.answered(2);
        assert_eq!(hunt.shortfall(), (1, 2));
    }

    #[test]
    fn a_slow_one_is_hedged_and_may_still_win() {
        let sets = sets(&[1, 2, 3], None, 2);
        let mut hunt = Hunt::new(&sets, vec![0, 1, 2]);
        hunt.ask();
        hunt.answered(0);
        assert_eq!(hunt.hedge(1), Some(2));
        assert_eq!(hunt.hedge(1), None);
        assert_eq!(hunt.pending().collect::<Vec<_>>(), [1, 2]);
        hunt.answered(1);
        assert!(hunt.is_done());
    }

    #[test]
    fn both_sets_of_an_arc_that_changes_hands_are_asked() {
        let sets = sets(&[1, 2, 3], Some(&[3, 4, 5]), 2);
        let mut hunt = Hunt::new(&sets, vec![0, 1, 2, 3, 4]);
        let asked: Mask = hunt.ask().iter().map(|at| 1 << at).sum();
        assert!(sets.enough(asked));
    }
}
