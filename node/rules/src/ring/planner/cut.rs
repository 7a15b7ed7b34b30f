//! Where an arc is cut, and how many cuts a plan makes.

use super::Split;
use god_proto::{
    ids::{ArcId, KeyspaceId},
    position::{Position, PositionRange},
};

/// The most cuts of one plan.
pub(super) const MAX_CUTS: usize = 4_096;
/// The longest position at which an arc is cut, in bytes. Of a longer one the first bytes serve, where they tell the
/// parts apart.
const LONGEST: usize = 1_024;
/// What an arc takes in the ring's document beside its start, at most 16 replicas among it.
const ARC_BYTES: usize = 128;

/// What is known of where an arc can be cut.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cut {
    /// Nowhere that is known.
    Unknown,
    /// Here it falls into halves.
    At(Position),
    /// In the middle of its hashes: they are spread evenly.
    Hash,
}

impl Cut {
    /// How an arc can be cut whose middle may have been looked up.
    pub fn of(range: &PositionRange, hashed: Option<KeyspaceId>, middle: Option<&Position>) -> Cut {
        let middle = middle.map(shortened);
        match (middle, hashed) {
            (Some(middle), _) if range.start < middle && middle < range.end => Cut::At(middle),
            (None, Some(keyspace)) if width(range, keyspace) >= 2 => Cut::Hash,
            _ => Cut::Unknown,
        }
    }

    /// Where to cut, and how each part can be cut again.
    pub fn place(&self, range: &PositionRange, hashed: Option<KeyspaceId>) -> Option<(Position, [Cut; 2])> {
        let at = match (self, hashed) {
            (Cut::At(at), _) => at.clone(),
            (Cut::Hash, Some(keyspace)) => {
                let (low, high) = hashes(range, keyspace);
                Position::of_hash(keyspace, low.midpoint(high) as u64)
            }
            _ => return None,
        };
        let low = PositionRange { start: range.start.clone(), end: at.clone() };
        let high = PositionRange { start: at.clone(), end: range.end.clone() };
        // One key with much below it puts the middle of an arc out of the middle of its hashes. What such an arc's
        // parts hold is known only once they have been counted.
        let even = hashed.filter(|keyspace| {
            let [low, high] = [&low, &high].map(|part| width(part, *keyspace));
            low.max(high) <= 3 * low.min(high)
        });
        let part = |part| if even.is_some() { Cut::of(part, even, None) } else { Cut::Unknown };
        let parts = [part(&low), part(&high)];
        Some((at, parts))
    }
}

fn shortened(middle: &Position) -> Position {
    Position::from_bytes(middle.clone().into_bytes().slice(..middle.as_bytes().len().min(LONGEST)))
}

/// How many hashes a range spans.
pub(super) fn width(range: &PositionRange, keyspace: KeyspaceId) -> u128 {
    let (low, high) = hashes(range, keyspace);
    high.saturating_sub(low)
}

/// The hashes that a range of a hashed keyspace begins and ends with, the end not among them.
fn hashes(range: &PositionRange, keyspace: KeyspaceId) -> (u128, u128) {
    let hash = |position: &Position| {
        let digits = position.as_bytes().iter().skip(4).chain(std::iter::repeat(&0)).take(8);
        digits.fold(0u128, |hash, byte| hash << 8 | u128::from(*byte))
    };
    let whole = PositionRange::of_keyspace(keyspace);
    let end = if range.end == whole.end { 1 << 64 } else { hash(&range.end) };
    (hash(&range.start), end)
}

/// The cuts of a plan.
#[derive(Clone)]
pub(super) struct Cuts {
    pub splits: Vec<Split>,
    /// Whether more would have been of use.
    pub exhausted: bool,
    next: u64,
    left: usize,
    bytes: usize,
}

impl Cuts {
    /// None yet, and room for so many arcs, in so many bytes of the ring's document.
    pub fn new(next: u64, space: usize, bytes: usize) -> Cuts {
        Cuts { splits: Vec::new(), exhausted: false, next, left: space.min(MAX_CUTS), bytes }
    }

    /// Whether there may be one more.
    pub fn available(&mut self) -> bool {
        let space = self.left > 0 && self.bytes >= LONGEST + ARC_BYTES;
        self.exhausted |= !space;
        space
    }

    /// Notes a cut; gives the number of the upper part.
    pub fn make(&mut self, arc: ArcId, at: Position, reason: String) -> ArcId {
        let new = ArcId(self.next);
        self.next += 1;
        self.left = self.left.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(at.as_bytes().len() + ARC_BYTES);
        self.splits.push(Split { arc, at, new, reason });
        new
    }
}
