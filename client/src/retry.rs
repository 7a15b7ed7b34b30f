//! When to try again: never so often that trying again becomes the trouble.

use god_stream::backoff;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const WHOLE: u64 = 1_000;
const BACKOFF_MIN: Duration = Duration::from_millis(4);
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// A bucket of tokens: each call adds a part of one, each try again takes one. When all calls fail, the nodes get
/// `1 + share` times the load, not many times it.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    thousandths: AtomicU64,
    share: u64,
    most: u64,
}

impl RetryBudget {
    /// A full bucket of `burst` tokens, to which each call adds `share` of one.
    pub fn new(share: f64, burst: u32) -> RetryBudget {
        let most = u64::from(burst) * WHOLE;
        RetryBudget { thousandths: AtomicU64::new(most), share: (share * WHOLE as f64) as u64, most }
    }

    /// A call is made. Two at once may go past the brim by a part of a token.
    pub fn call(&self) {
        if self.thousandths.load(Ordering::Relaxed) < self.most {
            self.thousandths.fetch_add(self.share, Ordering::Relaxed);
        }
    }

    /// Takes a token for a try again, if there is one.
    pub fn take(&self) -> bool {
        let taken = |left: u64| left.checked_sub(WHOLE);
        self.thousandths.try_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

/// How long to wait before the try of this number, from 1: twice as long each time, or as long as the node said, and
/// up to half as long again at random, so that clients do not come back in step.
pub(crate) fn wait(attempt: u32, asked: Option<Duration>) -> Duration {
    let doubled = backoff(BACKOFF_MIN, BACKOFF_MAX, attempt);
    let wait = asked.map_or(doubled, |asked| asked.max(doubled));
    wait + (wait / 2).mul_f64(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_again_are_a_burst_and_then_a_share_of_the_calls() {
        let budget = RetryBudget::new(0.1, 5);
        assert_eq!((0..100).filter(|_| budget.take()).count(), 5);
        let again = (0..1_000).filter(|_| {
            budget.call();
            budget.take()
        });
        assert_eq!(again.count(), 100);
    }

    #[test]
    fn calls_that_go_well_do_not_save_up_more_than_a_burst() {
        let budget = RetryBudget::new(0.1, 5);
        for _ in 0..1_000 {
            budget.call();
        }
        assert_eq!((0..100).filter(|_| budget.take()).count(), 5);
    }

    #[test]
    fn a_node_that_says_how_long_to_wait_is_not_asked_sooner() {
        let asked = Duration::from_secs(1);
        let waits: Vec<Duration> = (1..100).map(|attempt| wait(attempt, Some(asked))).collect();
        assert!(waits.iter().all(|wait| *wait >= asked && *wait <= asked * 3 / 2), "{waits:?}");
        assert!((1..100).map(|attempt| wait(attempt, None)).all(|wait| wait <= BACKOFF_MAX * 3 / 2));
    }
}
