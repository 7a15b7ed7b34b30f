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

    /// Waits until what was taken so far is paid for. Paying afterwards, nothing that was fetched lies about meanwhile.
    pub(super) async fn wait_until_paid(&self) {
        let until = self.state.lock().free;
        sleep_until(until).await;
    }

    /// Notes that bytes were taken.
    pub(super) fn took(&self, bytes: u64) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let since = now.duration_since(state.as_of).as_secs_f64();
        state.rate = state.rate * (-since / MEMORY).exp() + bytes as f64 / MEMORY;
        state.as_of = now;
        if self.per_second > 0 {
            state.free = state.free.max(now) + Duration::from_secs_f64(bytes as f64 / self.per_second as f64);
        }
    }

    /// Bytes a second, lately.
    pub(super) fn rate(&self) -> u64 {
        let state = *self.state.lock();
        let since = Instant::now().duration_since(state.as_of).as_secs_f64();
        (state.rate * (-since / MEMORY).exp()) as u64
    }
}
