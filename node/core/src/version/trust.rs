//! Whether this node may go by its own wall clock.
//!
//! It may not from a step of the wall (it moved otherwise than the time that only counts) until the peers' clocks were
//! measured anew, and not while it is further from their median than CLOCK-BOUND. A node that starts knows nothing of
//! its wall, which is as good as a step.

use super::ClockError;
use crate::seam::Wall;
use god_proto::MAX_AHEAD_MS;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// By how much more or less than the time that counts the wall may move between two looks, in microseconds. Half of
/// what clocks may be apart: less is for the measurements to find.
const STEP_US: u64 = MAX_AHEAD_MS * 1_000 / 2;

/// What is believed of the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    /// It is near the others', or nobody compares it.
    Right,
    /// It was not compared since it was last set.
    Doubted,
    /// It is so many milliseconds ahead of the others' median.
    Off(i64),
    /// It or the others' are off: so many milliseconds lie between them.
    Apart(i64),
}

/// One look at the wall. Who goes by the belief goes by this time: the wall may be set before the next look.
struct Look {
    now_us: u64,
    belief: Belief,
    steps: u64,
}

struct State {
    belief: Belief,
    /// Whether somebody compares it. Until then it is believed.
    watched: bool,
    /// The wall when it was last looked at, in microseconds, and when that was.
    last: Option<(u64, Instant)>,
    steps: u64,
}

/// The belief, kept by whoever compares clocks.
pub(super) struct Trust {
    state: Mutex<State>,
    settled: Notify,
}

impl Trust {
    pub fn new() -> Trust {
        let state = State { belief: Belief::Right, watched: false, last: None, steps: 0 };
        Trust { state: Mutex::new(state), settled: Notify::new() }
    }

    /// From now on somebody compares the wall: it is doubted until that was done.
    pub fn watch(&self) {
        let mut state = self.state.lock();
        (state.watched, state.belief) = (true, Belief::Doubted);
        state.steps += 1;
    }

    /// Looks at the wall, and says what it showed, in microseconds, what is believed of it and how often it was set so
    /// far.
    fn look(&self, wall: &dyn Wall) -> Look {
        let mut state = self.state.lock();
        // Read under the lock, so that nobody looks with a time from before another one's.
        let (now_us, now) = (wall.now_us(), Instant::now());
        let stepped = state.last.is_some_and(|(wall_us, at)| {
            (wall_us + now.duration_since(at).as_micros() as u64).abs_diff(now_us) > STEP_US
        });
        state.last = Some((now_us, now));
        if stepped {
            state.steps += 1;
            if state.watched {
                tracing::warn!("this node's wall clock was set: it stamps nothing until it is compared");
                state.belief = Belief::Doubted;
            }
        }
        Look { now_us, belief: state.belief, steps: state.steps }
    }

    /// How often the wall was set, for [`Trust::judge`].
    pub fn steps(&self, wall: &dyn Wall) -> u64 {
        self.look(wall).steps
    }

    /// The clocks were compared after so many steps. `ahead_ms`: how far this one is ahead of the middle one or, with
    /// an even number of clocks, of the two middle ones, the nearer first; `None`: no other was measured. `alone`:
    /// there is no other one.
    pub fn judge(&self, wall: &dyn Wall, steps: u64, ahead_ms: Option<(i64, i64)>, alone: bool) {
        if self.look(wall).steps != steps {
            return;
        }
        let within = |ms: i64| ms.unsigned_abs() <= MAX_AHEAD_MS;
        let mut state = self.state.lock();
        state.belief = match (ahead_ms, state.belief) {
            (None, _) if alone => Belief::Right,
            (None, belief) => belief,
            (Some((_, far)), _) if within(far) => Belief::Right,
            (Some((near, _)), _) if !within(near) => Belief::Off(near),
            // Which of two is off cannot be told. One that was right and was not set since is.
            (Some(_), Belief::Right) => Belief::Right,
            (Some((_, far)), _) => Belief::Apart(far),
        };
        drop(state);
        self.settled.notify_waiters();
    }

    /// What the wall shows, in microseconds, if it may be gone by.
    pub fn now_us(&self, wall: &dyn Wall) -> Option<u64> {
        let look = self.look(wall);
        (look.belief == Belief::Right).then_some(look.now_us)
    }

    /// Waits while the wall is doubted, until a time at most; says what it shows then, in microseconds, or why it may
    /// not be gone by.
    pub async fn trusted_us(&self, wall: &dyn Wall, until: Instant) -> Result<u64, ClockError> {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let look = self.look(wall);
            match look.belief {
                Belief::Right => return Ok(look.now_us),
                Belief::Off(ms) => return Err(ClockError::Off(ms)),
                Belief::Apart(ms) => return Err(ClockError::Apart(ms.unsigned_abs())),
                Belief::Doubted => {}
            }
            if timeout_at(until, settled).await.is_err() {
                return Err(ClockError::Doubted);
            }
        }
    }

    /// What an operator should know. A node that is merely not compared yet has nothing to complain of.
    pub fn trouble(&self, wall: &dyn Wall) -> Option<ClockError> {
        match self.look(wall).belief {
            Belief::Right | Belief::Doubted => None,
            Belief::Off(ms) => Some(ClockError::Off(ms)),
            Belief::Apart(ms) => Some(ClockError::Apart(ms.unsigned_abs())),
        }
    }
}
