//! How far the peers' clocks are off, from exchanges there are anyway.

use god_proto::MAX_AHEAD_MS;
use god_proto::ids::NodeId;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// How many exchanges with a peer are remembered.
const WINDOW: usize = 8;

/// One exchange with a peer: its clock's lead over ours, and how long it took. The error of the lead is at most half
/// the round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Microseconds the peer's clock is ahead of this node's.
    pub ahead_us: i64,
    /// From request to answer, without the peer's own work.
    pub round_trip: Duration,
}

impl Sample {
    /// From the four times of an exchange, in microseconds since 1970: sent and heard on our clock, received and
    /// replied on the peer's. The offset is that of NTP (RFC 5905, section 8).
    pub fn of(sent: u64, received: u64, replied: u64, heard: u64) -> Sample {
        let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        let there = signed(received).saturating_sub(signed(sent));
        let back = signed(replied).saturating_sub(signed(heard));
        let whole = heard.saturating_sub(sent);
        let work = replied.saturating_sub(received);
        Sample {
            ahead_us: there / 2 + back / 2,
            round_trip: Duration::from_micros(whole.saturating_sub(work)),
        }
    }
}

/// Estimates for all peers: of each one's latest exchanges, the fastest.
#[derive(Debug, Default)]
pub struct Offsets(Mutex<BTreeMap<NodeId, VecDeque<Sample>>>);

impl Offsets {
    /// Takes an exchange; gives the estimate it leads to.
    pub fn add(&self, node: NodeId, sample: Sample) -> Sample {
        let mut peers = self.0.lock();
        let window = peers.entry(node).or_default();
        if window.len() == WINDOW {
            window.pop_front();
        }
        window.push_back(sample);
        window.iter().copied().min_by_key(|sample| sample.round_trip).unwrap_or(sample)
    }

    /// Forgets all nodes but those.
    pub fn keep(&self, wanted: impl Fn(NodeId) -> bool) {
        self.0.lock().retain(|node, _| wanted(*node));
    }

    /// Microseconds this node's clock is ahead of the median of all clocks, its own among them. With an even number
    /// of clocks, the middle one nearer to its own: of two clocks neither can tell which is off.
    pub fn own_ahead_us(&self) -> i64 {
        self.own_ahead_of_middle_us().map_or(0, |(near, _)| near)
    }

    /// Microseconds this node's clock is ahead of the middle one of all clocks or, with an even number of them, of the
    /// two middle ones, the nearer first. `None` where no other clock was measured.
    pub fn own_ahead_of_middle_us(&self) -> Option<(i64, i64)> {
        let peers = self.0.lock();
        let fastest =
            |window: &VecDeque<Sample>| window.iter().min_by_key(|sample| sample.round_trip).copied();
        let mut clocks: Vec<i64> = peers.values().filter_map(fastest).map(|sample| sample.ahead_us).collect();
        if clocks.is_empty() {
            return None;
        }
        clocks.push(0);
        clocks.sort_unstable();
        let (low, high) = (clocks[(clocks.len() - 1) / 2], clocks[clocks.len() / 2]);
        Some(if low.abs() <= high.abs() { (-low, -high) } else { (-high, -low) })
    }

    /// Says, for an operator, that this node's clock is the one that is off, if it is: the node is not ready.
    pub fn trouble(&self) -> Option<String> {
        self.off_by_more_than(MAX_AHEAD_MS)
    }

    /// Says the same from half of the limit on: while there is time to set the clock.
    pub fn alarm(&self) -> Option<String> {
        self.off_by_more_than(MAX_AHEAD_MS / 2)
    }

    fn off_by_more_than(&self, limit_ms: u64) -> Option<String> {
        let ahead_ms = self.own_ahead_us() / 1_000;
        (ahead_ms.unsigned_abs() > limit_ms).then(|| {
            let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
            let off_ms = ahead_ms.unsigned_abs();
            format!("this node's clock is {off_ms} ms {side} the others', and {MAX_AHEAD_MS} ms is the most; set its clock")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(ahead_ms: &[i64]) -> Offsets {
        let offsets = Offsets::default();
        for (at, ahead_ms) in ahead_ms.iter().enumerate() {
            let sample = Sample { ahead_us: ahead_ms * 1_000, round_trip: Duration::from_millis(1) };
            offsets.add(NodeId(at as u32 + 2), sample);
        }
        offsets
    }

    #[test]
    fn of_three_clocks_the_one_that_is_off_knows_it() {
        assert!(with(&[-2_000, -2_001]).trouble().is_some_and(|says| says.contains("2000 ms ahead")));
        assert!(with(&[2_000, 2_001]).trouble().is_some_and(|says| says.contains("2000 ms behind")));
        assert_eq!(with(&[2_000, 1]).trouble(), None);
        assert_eq!(with(&[400, 401]).trouble(), None);
        assert!(with(&[400, 401]).alarm().is_some_and(|says| says.contains("400 ms behind")));
        assert_eq!(with(&[200, 201]).alarm(), None);
    }

    #[test]
    fn a_slow_exchange_does_not_move_the_estimate() {
        let offsets = Offsets::default();
        let fast = Sample { ahead_us: 10, round_trip: Duration::from_micros(100) };
        offsets.add(NodeId(2), fast);
        let slow = Sample { ahead_us: 900_000, round_trip: Duration::from_secs(2) };
        assert_eq!(offsets.add(NodeId(2), slow), fast);
    }

    #[test]
    fn the_offset_of_an_exchange_is_that_of_ntp() {
        // The peer is 50 µs ahead; 10 µs there, 5 µs of work, 10 µs back.
        let sample = Sample::of(1_000, 1_060, 1_065, 1_025);
        assert_eq!(sample, Sample { ahead_us: 50, round_trip: Duration::from_micros(20) });
    }
}
