//! Bounds a rate of bytes.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Gives out bytes at a rate, and remembers how many went lately.
pub(super) struct Pace {
    per_second: u64,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct State {
    /// When what was taken so far is paid for.
    free: Instant,
    /// Smoothed bytes a second, as of a moment.
    rate: f64,
    as_of: Instant,
}

/// Over about how long the rate is smoothed, in seconds.
const MEMORY: f64 = 2.0;

impl Pace {
    /// `per_second` 0: no bound.
    pub(super) fn new(per_second: u64) -> Pace {
        let now = Instant::now();
        Pace { per_second, state: Mutex::new(State { free: now, rate: 0.0, as_of: now }) }
    }

    /// Takes bytes; waits until they may go.
    pub(super) async fn take(&self, bytes: u64) {
        let until = {
            let mut state = self.state.lock();
            let now = Instant::now();
            let since = now.duration_since(state.as_of).as_secs_f64();
            state.rate = state.rate * (-since / MEMORY).exp() + bytes as f64 / MEMORY;
            state.as_of = now;
            if self.per_second == 0 {
                return;
            }
            state.free = state.free.max(now) + Duration::from_secs_f64(bytes as f64 / self.per_second as f64);
            state.free
        };
        sleep_until(until).await;
    }

    /// Bytes a second, lately.
    pub(super) fn rate(&self) -> u64 {
        let state = *self.state.lock();
        let since = Instant::now().duration_since(state.as_of).as_secs_f64();
        (state.rate * (-since / MEMORY).exp()) as u64
    }
}
