//! When the calls of a batch may go: those for one key after each other, as the batch has them, all others at once.
//! Pure.

use super::admit::PendingCall;
use god_proto::position::Position;
use std::collections::{HashMap, VecDeque};
use tokio::time::Instant;

/// Calls that wait for others of their batch.
#[derive(Default)]
pub(super) struct Stages {
    /// The line of each call that is in one, by its slot, until it is answered.
    places: HashMap<usize, usize>,
    lines: Vec<KeyQueue>,
}

/// The calls of one key, where some of them wait for others.
#[derive(Default)]
struct KeyQueue {
    under_way: usize,
    later: VecDeque<Vec<PendingCall>>,
}

impl Stages {
    /// The calls that may go at once, and those that wait: a write for what the batch has before it at its position, a
    /// read for the last write there.
    pub fn of(mut calls: Vec<PendingCall>) -> (Vec<PendingCall>, Stages) {
        if calls.len() < 2 {
            return (calls, Stages::default());
        }
        let mut last: HashMap<Position, (u32, bool)> = HashMap::with_capacity(calls.len());
        let mut highest = 0;
        for call in &mut calls {
            let write = call.is_write();
            match last.get_mut(&call.position) {
                Some((stage, written)) => {
                    *stage += u32::from(*written || write);
                    *written = write;
                    call.stage = *stage;
                    highest = highest.max(*stage);
                }
                None => {
                    last.insert(call.position.clone(), (0, write));
                }
            }
        }
        if highest == 0 {
            return (calls, Stages::default());
        }
        let (mut first, mut stages) = (Vec::with_capacity(calls.len()), Stages::default());
        let mut lines: HashMap<Position, usize> = HashMap::new();
        for call in calls {
            if last.get(&call.position).is_none_or(|(stage, _)| *stage == 0) {
                first.push(call);
                continue;
            }
            let at = *lines.entry(call.position.clone()).or_insert(stages.lines.len());
            if at == stages.lines.len() {
                stages.lines.push(KeyQueue::default());
            }
            stages.places.insert(call.slot, at);
            let Some(line) = stages.lines.get_mut(at) else { continue };
            if call.stage == 0 {
                line.under_way += 1;
                first.push(call);
                continue;
            }
            if line.later.len() < call.stage as usize {
                line.later.push_back(Vec::new());
            }
            if let Some(stage) = line.later.get_mut(call.stage as usize - 1) {
                stage.push(call);
            }
        }
        (first, stages)
    }

    /// Whether no call waited for another one.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// A call is answered: what may go now.
    pub fn ended(&mut self, slot: usize) -> Vec<PendingCall> {
        let line = self.places.remove(&slot).and_then(|at| self.lines.get_mut(at));
        let Some(line) = line else { return Vec::new() };
        line.under_way -= 1;
        while line.under_way == 0
            && let Some(next) = line.later.pop_front()
        {
            // Some of them may have gone, out of time.
            line.under_way = next.len();
            if !next.is_empty() {
                return next;
            }
        }
        Vec::new()
    }

    fn waiting(&self) -> impl Iterator<Item = &PendingCall> {
        self.lines.iter().flat_map(|line| line.later.iter().flatten())
    }

    /// When the first of those that wait is out of time.
    pub fn first_deadline(&self) -> Option<Instant> {
        self.waiting().map(|call| call.deadline).min()
    }

    /// Those that are out of time, and wait no more.
    pub fn late(&mut self, now: Instant) -> Vec<PendingCall> {
        let waiting = self.lines.iter_mut().flat_map(|line| line.later.iter_mut());
        let late: Vec<PendingCall> =
            waiting.flat_map(|calls| calls.extract_if(.., |call| call.deadline <= now)).collect();
        for call in &late {
            self.places.remove(&call.slot);
        }
        late
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::quorum::admit::What;
    use god_proto::{ids::KeyspaceId, record::Record, v1::Partitioner, version::Version};
    use god_rules::quorum::Need;
    use std::time::Duration;

    /// Reads are written small, writes large: "aAab" reads a, writes it, reads it again, and reads b.
    fn calls(keys: &str, now: Instant) -> Vec<PendingCall> {
        let one = |(slot, key): (usize, char)| {
            let name = key.to_ascii_lowercase().to_string();
            let position = Position::of_key(KeyspaceId(1), Partitioner::Ordered, name.as_bytes()).unwrap();
            let what = match key.is_uppercase() {
                true => What::Write { record: Record::tombstone(Version::ZERO), open: false },
                false => What::Read { at_least: Version::ZERO },
            };
            let deadline = now + Duration::from_secs(slot as u64);
            PendingCall { slot, position, need: Need::All, deadline, stage: 0, asleep: None, what }
        };
        keys.chars().enumerate().map(one).collect()
    }

    fn slots(calls: &[PendingCall]) -> Vec<usize> {
        calls.iter().map(|call| call.slot).collect()
    }

    #[test]
    fn calls_of_one_key_follow_each_other_and_wait_for_no_other_key() {
        let (first, mut stages) = Stages::of(calls("aaABbAab", Instant::now()));
        assert_eq!(slots(&first), [0, 1, 3]);
        assert!(stages.ended(0).is_empty());
        assert_eq!(slots(&stages.ended(1)), [2]);
        assert_eq!(slots(&stages.ended(3)), [4, 7]);
        assert_eq!(slots(&stages.ended(2)), [5]);
        assert_eq!(slots(&stages.ended(5)), [6]);
        for slot in [4, 6, 7, 99] {
            assert!(stages.ended(slot).is_empty());
        }
        assert_eq!(stages.first_deadline(), None);
    }

    #[test]
    fn where_none_shares_a_key_but_to_read_it_nothing_waits() {
        for keys in ["", "a", "A", "aab", "ABCd"] {
            let (first, stages) = Stages::of(calls(keys, Instant::now()));
            assert!(stages.is_empty(), "{keys}");
            assert_eq!(slots(&first), (0..keys.len()).collect::<Vec<_>>(), "{keys}");
        }
    }

    #[test]
    fn what_is_out_of_time_waits_no_more_and_holds_up_nothing_behind_it() {
        let now = Instant::now();
        let (_, mut stages) = Stages::of(calls("AAAaA", now));
        assert_eq!(stages.first_deadline(), Some(now + Duration::from_secs(1)));
        assert_eq!(slots(&stages.late(now + Duration::from_secs(2))), [1, 2]);
        assert_eq!(stages.first_deadline(), Some(now + Duration::from_secs(3)));
        assert!(stages.ended(1).is_empty());
        assert_eq!(slots(&stages.ended(0)), [3]);
        assert_eq!(slots(&stages.ended(3)), [4]);
    }
}
