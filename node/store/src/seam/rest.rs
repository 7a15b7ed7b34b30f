//! How long a thread that stands back rests.

use std::time::Duration;

/// A thread rests for so many times as long as what it did took, and for so long at most: those who wait for it are
/// served in time.
const REST_TIMES: u32 = 8;
const MOST_REST: Duration = Duration::from_millis(100);
/// What took less is followed by no rest: the processor is not given away for less than it takes to take it.
const LEAST: Duration = Duration::from_micros(100);

/// What this thread has done so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Spent {
    worked: Duration,
    waited: Duration,
}

impl Spent {
    pub(super) fn now() -> Spent {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let worked = Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32);
        Spent { worked, waited: waited().unwrap_or_default() }
    }

    /// Whether this system says how long a thread waits; where it does not, none rests.
    #[cfg(test)]
    pub(super) fn is_known() -> bool {
        waited().is_some()
    }

    pub(super) fn since(self, before: Spent) -> Spent {
        let worked = self.worked.saturating_sub(before.worked);
        Spent { worked, waited: self.waited.saturating_sub(before.waited) }
    }

    /// How long to rest after it: nothing, unless others had the processor for a third of the time.
    pub(super) fn rest(self) -> Duration {
        let took = self.worked.saturating_add(self.waited);
        match took >= LEAST && self.waited.saturating_mul(2) > self.worked {
            true => took.saturating_mul(REST_TIMES).min(MOST_REST),
            false => Duration::ZERO,
        }
    }
}

/// For how long this thread has waited for a processor, though it could have gone on, which who waits for the disk
/// could not. `None`: this system does not say. Cost: three system calls. Source: the kernel's
/// Documentation/scheduler/sched-stats: nanoseconds on a processor, nanoseconds of waiting for one, and turns.
fn waited() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_its_processor_taken_rests_and_never_for_long() {
        const US: Duration = Duration::from_micros(1);
        let rest = |worked: Duration, waited: Duration| Spent { worked, waited }.rest();
        assert_eq!(rest(US * 3_000, Duration::ZERO), Duration::ZERO);
        assert_eq!(rest(US * 2_000, US * 1_000), Duration::ZERO);
        assert_eq!(rest(US * 2_000, US * 2_000), US * 32_000);
        assert_eq!(rest(US * 40, US * 50), Duration::ZERO, "it is not worth it");
        assert_eq!(rest(US * 2_000, US * 38_000), MOST_REST);
        assert_eq!(rest(Duration::ZERO, Duration::MAX), MOST_REST);
    }
}
