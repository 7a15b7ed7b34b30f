//! Counts what replicas say to one write, and says what the client is told. Pure.

use super::replicas::{JointReplicas, ReplicaMask};

/// The rounds in which a write may meet newer ones before it gives up.
pub const MAX_ROUNDS: u8 = 8;

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is on a quorum (invariant QUORUM-COUNTED).
    Committed {
        /// Replicas that have it, as far as was waited for; of a joint arc, those of the set that has fewer of them.
        acks: u32,
    },
    /// It is, or may come to be, on some replica.
    Unknown {
        /// Replicas that said that they have it.
        acks: u32,
    },
    /// It is on no replica, and will be on none (invariant REJECTED-MEANS-NOTHING).
    Rejected,
}

/// How one write stands. Each round asks for the write under a newer version; what is said in an earlier round does
/// not count toward the quorum.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    round: u8,
    pending: ReplicaMask,
    acks: ReplicaMask,
    failed: ReplicaMask,
    open: bool,
}

impl Tally {
    /// A write that some replica may hold already.
    pub fn resumed(open: bool) -> Tally {
        Tally { open, ..Tally::default() }
    }

    /// Which round it is; 0 before the first.
    pub fn round(&self) -> u8 {
        self.round
    }

    /// Begins a round: `asked` were sent the write, `missed` are taken to be gone.
    pub fn begin(&mut self, asked: ReplicaMask, missed: ReplicaMask) {
        // What is under way in an older round may still be applied.
        self.open |= self.may_surface() || self.pending != 0;
        self.round += 1;
        (self.pending, self.acks, self.failed) = (asked, 0, missed);
    }

    /// A replica holds the write.
    pub fn acked(&mut self, who: ReplicaMask) {
        self.pending &= !who;
        self.acks |= who;
    }

    /// A replica holds a newer one and did not write.
    pub fn superseded(&mut self, who: ReplicaMask) {
        self.pending &= !who;
    }

    /// A replica did not acknowledge; `open`: it may have written, or may yet.
    pub fn failed(&mut self, who: ReplicaMask, open: bool) {
        self.pending &= !who;
        self.failed |= who;
        self.open |= open;
    }

    /// In an older round a replica wrote, or may have.
    pub fn reopen(&mut self) {
        self.open = true;
    }

    /// Whether any replica may hold the write under any version, leaving aside those under way.
    fn may_surface(&self) -> bool {
        self.open || self.acks != 0
    }

    /// Whether the write may come to be read, as far as is known.
    pub fn is_open(&self) -> bool {
        self.may_surface() || self.pending != 0
    }

    /// Replicas that lack the write and could be hinted.
    pub fn missed(&self) -> ReplicaMask {
        self.failed
    }

    /// Replicas that were asked and did not answer yet.
    pub fn pending(&self) -> ReplicaMask {
        self.pending
    }

    /// The outcome, as soon as nothing can change it.
    pub fn decide(&self, replicas: &JointReplicas) -> Option<WriteOutcome> {
        if replicas.enough(self.acks) {
            return Some(WriteOutcome::Committed { acks: replicas.fewest(self.acks) });
        }
        if replicas.enough(self.acks | self.pending) {
            return None;
        }
        // The quorum is out of reach.
        if self.may_surface() {
            Some(WriteOutcome::Unknown { acks: self.acks.count_ones() })
        } else if self.pending == 0 {
            Some(WriteOutcome::Rejected)
        } else {
            None
        }
    }

    /// The outcome when there is no more time.
    pub fn give_up(&self) -> WriteOutcome {
        if self.is_open() {
            WriteOutcome::Unknown { acks: self.acks.count_ones() }
        } else {
            WriteOutcome::Rejected
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::replicas::tests::replicas, *};

    fn three() -> (JointReplicas, Tally) {
        let mut tally = Tally::default();
        tally.begin(0b111, 0);
        (replicas(&[1, 2, 3], None, 2), tally)
    }

    #[test]
    fn a_write_is_committed_when_the_quorum_is_reached_and_not_before() {
        let (all, mut tally) = three();
        tally.acked(0b001);
        assert_eq!(tally.decide(&all), None);
        tally.acked(0b100);
        assert_eq!(tally.decide(&all), Some(WriteOutcome::Committed { acks: 2 }));
    }

    #[test]
    fn a_write_is_rejected_only_when_every_replica_refused_before_acting() {
        let (all, mut tally) = three();
        tally.failed(0b001, false);
        tally.failed(0b010, false);
        assert_eq!(tally.decide(&all), None, "the third may have written");
        let mut refused = tally.clone();
        refused.failed(0b100, false);
        assert_eq!(refused.decide(&all), Some(WriteOutcome::Rejected));
        tally.failed(0b100, true);
        assert_eq!(tally.decide(&all), Some(WriteOutcome::Unknown { acks: 0 }));
    }

    #[test]
    fn one_acknowledgement_short_of_the_quorum_is_unknown() {
        let (all, mut tally) = three();
        tally.acked(0b001);
        tally.failed(0b010, false);
        assert_eq!(tally.decide(&all), None);
        tally.failed(0b100, false);
        assert_eq!(tally.decide(&all), Some(WriteOutcome::Unknown { acks: 1 }));
    }

    #[test]
    fn acknowledgements_of_an_older_round_do_not_count_but_leave_the_write_open() {
        let (_, mut tally) = three();
        let all = replicas(&[1, 2, 3], None, 1);
        tally.acked(0b001);
        tally.superseded(0b010);
        tally.begin(0b111, 0);
        assert_eq!(tally.decide(&all), None);
        for who in [0b001, 0b010, 0b100] {
            tally.failed(who, false);
        }
        assert_eq!(tally.decide(&all), Some(WriteOutcome::Unknown { acks: 0 }));
    }

    #[test]
    fn with_no_time_left_a_write_under_way_is_unknown() {
        let (_, mut tally) = three();
        assert_eq!(tally.give_up(), WriteOutcome::Unknown { acks: 0 });
        for who in [0b001, 0b010, 0b100] {
            tally.failed(who, false);
        }
        assert_eq!(tally.give_up(), WriteOutcome::Rejected);
    }

    #[test]
    fn a_round_that_only_met_newer_writes_left_nothing_behind() {
        let (all, mut tally) = three();
        for who in [0b001, 0b010, 0b100] {
            tally.superseded(who);
        }
        assert_eq!(tally.decide(&all), Some(WriteOutcome::Rejected));
    }
}
