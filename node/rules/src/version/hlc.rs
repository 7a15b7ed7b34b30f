//! The clock's rules, without a clock: time is handed in.

/// A hybrid logical time: milliseconds in the upper 48 bits, a counter in the lower 16.
///
/// After Kulkarni et al., *Logical Physical Clocks* (2014), figure 5, with the counter in the lower bits of one word,
/// so that "one more" carries into the milliseconds by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hlc {
    last: u64,
}

impl Hlc {
    /// A clock that stamps nothing at or below the given millisecond: what it promised before a restart.
    pub fn past(mark_ms: u64) -> Hlc {
        Hlc { last: mark_ms << 16 | 0xffff }
    }

    /// The first of `count` times, one apart, above all that was stamped or observed; not below the wall's.
    pub fn stamp(&mut self, now_ms: u64, count: u64) -> u64 {
        let first = (self.last + 1).max(now_ms << 16);
        self.last = first + count.saturating_sub(1);
        first
    }

    /// Moves past a time that was seen elsewhere.
    pub fn observe(&mut self, time: u64) {
        self.last = self.last.max(time);
    }

    /// The highest time stamped or observed, in milliseconds.
    pub fn last_ms(self) -> u64 {
        self.last >> 16
    }

    /// The millisecond that [`Hlc::stamp`] would begin with, without stamping.
    pub fn would_begin_ms(self, now_ms: u64) -> u64 {
        let mut ahead = self;
        ahead.stamp(now_ms, 1) >> 16
    }

    /// What [`Hlc::stamp`] would reach, in milliseconds, without stamping.
    pub fn would_reach_ms(self, now_ms: u64, count: u64) -> u64 {
        let mut ahead = self;
        ahead.stamp(now_ms, count.max(1));
        ahead.last_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Wall(u64),
        Stamp(u64),
        Observe(u64),
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u64..2_000).prop_map(Step::Wall),
            (1u64..100_000).prop_map(Step::Stamp),
            (0u64..2_000).prop_map(Step::Observe),
            Just(Step::Restart),
        ];
        proptest::collection::vec(step, 1..40)
    }

    proptest! {
        /// CLOCK-NEVER-BACK: whatever the wall does, and over restarts from the mark.
        #[test]
        fn stamps_only_grow_whatever_the_wall_does(steps in steps()) {
            let (mut hlc, mut wall, mut newest) = (Hlc::past(0), 0, 0);
            for step in steps {
                match step {
                    Step::Wall(ms) => wall = ms,
                    Step::Observe(ms) => hlc.observe(ms << 16 | 7),
                    Step::Stamp(count) => {
                        let reach = hlc.would_reach_ms(wall, count);
                        let first = hlc.stamp(wall, count);
                        prop_assert!(first > newest);
                        prop_assert!(first >> 16 >= wall);
                        newest = first + count - 1;
                        prop_assert_eq!(reach, newest >> 16);
                    }
                    Step::Restart => hlc = Hlc::past(newest >> 16),
                }
            }
        }
    }

    #[test]
    fn a_stamp_is_above_all_that_was_observed() {
        let mut hlc = Hlc::past(0);
        hlc.observe(500 << 16 | 0xffff);
        assert_eq!(hlc.stamp(100, 1), 501 << 16);
    }
}
