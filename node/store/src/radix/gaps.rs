//! Places of which a start could not count what stands in them.
//!
//! What an engine refuses to scan is passed over where a bucket is counted at a start, with all that stands among it. A
//! record there may be read by itself all the same, now or later, and its bucket's sum does not have it. So within a
//! gap no record counts as read: each is as good as damaged, and overwritten as such is (DAMAGE-APART). A bucket that
//! was counted anew for that has no gap any more. Rows of buckets that have one stay open: a start is to find it again.

/// The most gaps that are told apart; beyond it those that follow are one with the last.
const MOST: usize = 4_096;

/// Ranges of positions, sorted, apart from each other. Most stores have none.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps(Vec<(Vec<u8>, Vec<u8>)>);

impl Gaps {
    /// Adds a range. Cost: O(gaps).
    pub(super) fn add(&mut self, start: Vec<u8>, end: Vec<u8>) {
        if start >= end {
            return;
        }
        // One with all that it meets or touches.
        let touching: Vec<_> = self.0.extract_if(.., |(from, to)| *from <= end && *to >= start).collect();
        let (start, end) = touching
            .into_iter()
            .fold((start, end), |(start, end), (from, to)| (start.min(from), end.max(to)));
        let at = self.0.partition_point(|(from, _)| *from < start);
        self.0.insert(at, (start, end));
        if self.0.len() > MOST
            && let Some((_, end)) = self.0.pop()
            && let Some(last) = self.0.last_mut()
        {
            last.1 = end;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn holds(&self, position: &[u8]) -> bool {
        let next = self.0.partition_point(|(_, end)| end.as_slice() <= position);
        self.0.get(next).is_some_and(|(start, _)| start.as_slice() <= position)
    }

    /// Whether some gap has some of a range.
    pub(super) fn meets(&self, start: &[u8], end: &[u8]) -> bool {
        let next = self.0.partition_point(|(_, to)| to.as_slice() <= start);
        self.0.get(next).is_some_and(|(from, to)| from.as_slice().max(start) < to.as_slice().min(end))
    }

    /// A range was counted, or has nothing any more. Where that would make too many of them, it stays: it is counted
    /// once more then. Cost: O(gaps).
    pub(super) fn close(&mut self, start: &[u8], end: &[u8]) {
        if !self.meets(start, end) {
            return;
        }
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for (from, to) in &self.0 {
            let below = (from.clone(), to.as_slice().min(start).to_vec());
            let above = (from.as_slice().max(end).to_vec(), to.clone());
            left.extend([below, above].into_iter().filter(|(from, to)| from < to));
        }
        if left.len() <= MOST {
            self.0 = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(ranges: &[(u16, u16)]) -> Gaps {
        let mut gaps = Gaps::default();
        for (start, end) in ranges {
            gaps.add(start.to_be_bytes().to_vec(), end.to_be_bytes().to_vec());
        }
        gaps
    }

    #[test]
    fn gaps_hold_what_was_added_and_not_what_was_closed() {
        let mut gaps = gaps(&[(10, 20), (40, 50), (15, 30), (5, 5)]);
        assert_eq!(gaps.0.len(), 2);
        let held = |gaps: &Gaps| (0..60u16).filter(|at| gaps.holds(&at.to_be_bytes())).collect::<Vec<u16>>();
        assert_eq!(held(&gaps), (10..30).chain(40..50).collect::<Vec<u16>>());
        let meets = |gaps: &Gaps, start: u16, end: u16| gaps.meets(&start.to_be_bytes(), &end.to_be_bytes());
        assert!(meets(&gaps, 0, 11) && meets(&gaps, 29, 31) && meets(&gaps, 0, 60) && meets(&gaps, 12, 13));
        assert!(
            !meets(&gaps, 0, 10) && !meets(&gaps, 30, 40) && !meets(&gaps, 50, 60) && !meets(&gaps, 12, 12)
        );
        gaps.close(&12u16.to_be_bytes(), &14u16.to_be_bytes());
        gaps.close(&28u16.to_be_bytes(), &42u16.to_be_bytes());
        assert_eq!(held(&gaps), (10..12).chain(14..28).chain(42..50).collect::<Vec<u16>>());
        gaps.close(&[], &60u16.to_be_bytes());
        assert!(gaps.is_empty());
    }

    #[test]
    fn too_many_gaps_hold_more_and_never_less() {
        let all: Vec<(u16, u16)> = (0..MOST as u16 + 9).map(|at| (2 * at, 2 * at + 1)).collect();
        let mut gaps = gaps(&all);
        assert_eq!(gaps.0.len(), MOST);
        assert!(all.iter().all(|(start, _)| gaps.holds(&start.to_be_bytes())));
        let last = 2 * (MOST as u16 + 4);
        gaps.close(&last.to_be_bytes(), &(last + 1).to_be_bytes());
        assert!(gaps.holds(&last.to_be_bytes()), "there is no room for one more");
    }
}
