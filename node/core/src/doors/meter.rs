//! Rate, errors and duration of what comes through a door.

use metrics::{Counter, Histogram, counter, histogram};
use tokio::time::Instant;

/// Of one method of one door. The handles are looked up once.
pub(super) struct Method {
    door: &'static str,
    name: &'static str,
    requests: Counter,
    seconds: Histogram,
}

impl Method {
    pub fn new(door: &'static str, name: &'static str) -> Method {
        Method {
            door,
            name,
            requests: counter!("god_doors_requests_total", "door" => door, "method" => name),
            seconds: histogram!("god_doors_seconds", "door" => door, "method" => name),
        }
    }

    /// Counts that many requests, which were answered together.
    pub fn answered(&self, requests: usize, since: Instant) {
        self.requests.increment(requests as u64);
        self.seconds.record(since.elapsed());
    }

    /// Counts a request that failed, by the name of its reason. Errors are rare: the lookup may cost something.
    pub fn failed(&self, reason: &'static str) {
        counter!("god_doors_errors_total", "door" => self.door, "method" => self.name, "reason" => reason)
            .increment(1);
    }
}
