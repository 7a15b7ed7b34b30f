//! How long a thread that stands back rests.

use std::time::Duration;

/// A thread rests for so many times as long as what it did took, and for so long at most: those who wait for it are
/// served in time.
const REST_TIMES: u32 = 8;
const MOST_REST: Duration = Duration::from_millis(100);

/// Processor time of this thread.
pub(super) fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// How long to rest after what took so long, of which so long was work: nothing, unless others had the processor
/// meanwhile, or the disk was waited for.
pub(super) fn rest(took: Duration, worked: Duration) -> Duration {
    match took > worked + worked / 2 {
        true => took.saturating_mul(REST_TIMES).min(MOST_REST),
        false => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_its_processor_taken_rests_and_never_for_long() {
        const MS: Duration = Duration::from_millis(1);
        assert_eq!(rest(MS * 3, MS * 3), Duration::ZERO);
        assert_eq!(rest(MS * 3, MS * 2), Duration::ZERO);
        assert_eq!(rest(MS * 4, MS * 2), MS * 32);
        assert_eq!(rest(MS * 40, MS * 2), MOST_REST);
        assert_eq!(rest(Duration::MAX, Duration::ZERO), MOST_REST);
    }
}
