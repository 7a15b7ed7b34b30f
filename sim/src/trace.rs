//! What happened in a run, event by event: a fingerprint to compare runs by, and the last lines for people.

use parking_lot::Mutex;
use std::{
    collections::{VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};
use tokio::time::Instant;

/// How many lines are kept.
const KEPT: usize = 200_000;

/// One event.
#[derive(Clone, Debug)]
struct TraceEvent {
    at_us: u64,
    /// The keys it is about; none: it is about the world.
    keys: Vec<u32>,
    text: String,
}

struct State {
    /// SipHash with fixed keys: the same on every machine.
    hash: DefaultHasher,
    lines: VecDeque<TraceEvent>,
}

/// The events of one run.
pub struct Trace {
    began: Instant,
    state: Mutex<State>,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace::new()
    }
}

impl Trace {
    /// An empty trace of a run that begins now.
    pub fn new() -> Trace {
        let state = State { hash: DefaultHasher::new(), lines: VecDeque::new() };
        Trace { began: Instant::now(), state: Mutex::new(state) }
    }

    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Notes an event about some keys, or about the world.
    pub fn note(&self, keys: Vec<u32>, text: impl Into<String>) {
        let (at_us, text) = (self.now_us(), text.into());
        let mut state = self.state.lock();
        (at_us, &text).hash(&mut state.hash);
        if state.lines.len() == KEPT {
            state.lines.pop_front();
        }
        state.lines.push_back(TraceEvent { at_us, keys, text });
    }

    /// Notes an event that only counts for the fingerprint.
    pub fn count(&self, what: impl Hash) {
        let at_us = self.now_us();
        let mut state = self.state.lock();
        (at_us, what).hash(&mut state.hash);
    }

    /// Two runs that did the same have the same one.
    pub fn fingerprint(&self) -> u64 {
        self.state.lock().hash.finish()
    }

    /// The last so many events that concern any of these keys, or the world.
    pub fn last(&self, keys: &[u32], count: usize) -> Vec<String> {
        let state = self.state.lock();
        let concerns =
            |line: &&TraceEvent| line.keys.is_empty() || line.keys.iter().any(|key| keys.contains(key));
        let mut last: Vec<String> = state
            .lines
            .iter()
            .rev()
            .filter(concerns)
            .take(count)
            .map(|line| format!("{:12.6}  {}", line.at_us as f64 / 1e6, line.text))
            .collect();
        last.reverse();
        last
    }
}
