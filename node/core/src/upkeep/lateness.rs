//! How late tasks of this node are woken while clients wait for it, and how long copies rest for that.
//!
//! Copying takes all the processor time there is. Where clients need that, here or on the node that is copied from,
//! a page is followed by a rest: the longer the later tasks are woken there. A rest has a bound, so that copies always
//! go on, and is none where nobody is waited for.

use parking_lot::Mutex;
use std::time::Duration;

/// How often it is looked.
pub(super) const TICK: Duration = Duration::from_millis(20);
/// A task is woken so late though nothing is in its way: timers have a grain of a millisecond.
const GRACE: Duration = Duration::from_millis(3);
/// A page is followed by at most so many times as long as it took.
const MOST_TIMES: f64 = 8.0;
/// And by at most this.
const MOST_REST: Duration = Duration::from_millis(500);
/// Ticks without a call after which nobody waits for this node.
const QUIET_TICKS: u32 = 10;

/// How late tasks were woken, lately.
#[derive(Default)]
pub(super) struct Lateness(Mutex<State>);

struct State {
    late: Duration,
    /// Calls that had been served at the last tick, and ticks since there were fewer.
    calls: u64,
    ticks: u32,
}

impl Default for State {
    /// None was served yet.
    fn default() -> State {
        State { late: Duration::ZERO, calls: 0, ticks: QUIET_TICKS }
    }
}

impl State {
    fn is_waited_for(&self) -> bool {
        self.ticks < QUIET_TICKS
    }
}

impl Lateness {
    /// Notes that a tick came so late, when so many calls had been served since the start. A late one counts for some
    /// ticks, less and less.
    pub(super) fn note(&self, late: Duration, calls: u64) {
        let mut state = self.0.lock();
        state.ticks = if state.calls == calls { state.ticks.saturating_add(1) } else { 0 };
        state.calls = calls;
        state.late = if state.is_waited_for() { late.max(state.late * 7 / 8) } else { Duration::ZERO };
    }

    /// Whether clients wait.
    pub(super) fn is_waited_for(&self) -> bool {
        self.0.lock().is_waited_for()
    }

    /// How late, while clients wait; 0 where none does.
    pub(super) fn get(&self) -> Duration {
        self.0.lock().late
    }
}

/// How long to rest after a page that took so long, where tasks are so late.
pub(super) fn rest(took: Duration, late: Duration) -> Duration {
    let times = (late.as_secs_f64() / GRACE.as_secs_f64() - 1.0).clamp(0.0, MOST_TIMES);
    took.mul_f64(times).min(MOST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn copies_rest_the_longer_the_later_tasks_are_woken_and_never_for_ever() {
        assert_eq!(rest(MS * 10, Duration::ZERO), Duration::ZERO);
        assert_eq!(rest(MS * 10, MS * 3), Duration::ZERO, "timers have a grain");
        assert_eq!(rest(MS * 10, MS * 6), MS * 10);
        assert_eq!(rest(MS * 10, MS * 12), MS * 30);
        assert_eq!(rest(MS * 10, Duration::from_secs(60)), MS * 80);
        assert_eq!(rest(Duration::from_secs(1 << 40), Duration::MAX), MOST_REST);
    }

    #[test]
    fn nobody_is_late_for_whom_nobody_waits() {
        let lateness = Lateness::default();
        lateness.note(MS * 50, 0);
        assert_eq!((lateness.get(), lateness.is_waited_for()), (Duration::ZERO, false));
        lateness.note(MS * 50, 1);
        assert_eq!((lateness.get(), lateness.is_waited_for()), (MS * 50, true));
        for _ in 0..QUIET_TICKS {
            lateness.note(MS * 50, 1);
        }
        assert_eq!(
            (lateness.get(), lateness.is_waited_for()),
            (Duration::ZERO, false),
            "none was served meanwhile"
        );
        lateness.note(MS * 40, 2);
        lateness.note(MS, 3);
        let then = lateness.get();
        assert_eq!(then, MS * 35, "it counts for a while");
        for calls in 4..60 {
            lateness.note(MS, calls);
        }
        assert_eq!(lateness.get(), MS);
    }
}
