//! Scans that go on after what cannot be read.
//!
//! An engine that finds a block damaged does not say which records were in it, and its scan ends there. The next place
//! from which it can be read is looked for by halves within the bucket: first in strides that double, so that of what
//! lies between two damaged places little is passed over. What can be read one by one only is passed over too.

use super::{gaps::Gaps, nibbles::range_end, tree::Tree};
use crate::engine::{Direction, EngineError, Reader, Table};
use bytes::Bytes;
use metrics::counter;

/// How often the place from which it can be read is looked for more narrowly. What shares more than 7 bytes for each
/// with a damaged place is passed over with it.
const LEVELS: usize = 16;

type Pairs<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), EngineError>> + 'a>;

/// The pairs of the data table in a range, without what cannot be read. Errors are those of other kinds.
pub(super) struct Around<'a> {
    reader: &'a dyn Reader,
    tree: &'a Tree,
    /// All below was given, or passed over, but for what came after and is counted in `last`.
    from: Vec<u8>,
    /// What was given last.
    last: Option<Bytes>,
    end: Vec<u8>,
    pairs: Option<Pairs<'a>>,
    passed: u64,
    /// What was passed over, for who asks for it.
    gaps: Option<&'a mut Gaps>,
}

impl<'a> Around<'a> {
    pub(super) fn new(reader: &'a dyn Reader, tree: &'a Tree, start: &[u8], end: &[u8]) -> Around<'a> {
        let (from, end) = (start.to_vec(), end.to_vec());
        Around { reader, tree, from, last: None, end, pairs: None, passed: 0, gaps: None }
    }

    /// Also notes the ranges that it passes over because the engine refuses them.
    pub(super) fn noting(self, gaps: &'a mut Gaps) -> Around<'a> {
        Around { gaps: Some(gaps), ..self }
    }

    /// How many places were passed over so far.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Takes note that a record is none.
    pub(super) fn pass(&mut self) {
        self.passed += 1;
        counter!("god_radix_damaged_total", "what" => "passed over").increment(1);
    }

    /// Moves on to where it can be read again, at the end of the bucket at the latest. Cost: up to 128 seeks for each 8
    /// bytes by which what lies around the damage is told apart, and one for each 7 that all of it shares.
    fn go_around(&mut self) -> Result<(), EngineError> {
        if let Some(last) = self.last.take() {
            self.from = [&last[..], &[0]].concat();
        }
        if self.from >= self.end {
            return Ok(());
        }
        let until = match self.tree.locate(&self.from).bucket {
            Some((depth, _)) => range_end(&self.from, depth),
            None => self.tree.bucket_from(&self.from).map_or_else(|| self.end.clone(), |path| path.end()),
        };
        let until = until.min(self.end.clone());
        let damaged_from =
            |from: &[u8]| match self.reader.scan(Table::Data, from, &until, Direction::Forward).next() {
                Some(Err(EngineError::Corrupt(_))) => Ok(true),
                Some(Err(error)) => Err(error),
                Some(Ok(_)) | None => Ok(false),
            };
        if !damaged_from(&self.from)? {
            // It is in a bucket above; or it can be read by now, and how much of it nobody knows.
            if until == self.end {
                self.note(&until);
                self.pass();
            }
            self.from = until;
            return Ok(());
        }
        // From the first of them on it cannot be read, from the second on it can.
        let (mut low, mut high) = (self.from.clone(), until.clone());
        for _ in 0..LEVELS {
            let (damaged, readable) = approach(&low, &high, damaged_from)?;
            if damaged == low && readable == high {
                break;
            }
            (low, high) = (damaged, readable);
        }
        let readable = high;
        self.note(&readable);
        self.from = readable;
        self.pass();
        Ok(())
    }

    fn note(&mut self, until: &[u8]) {
        if let Some(gaps) = &mut self.gaps {
            gaps.add(self.from.clone(), until.to_vec());
        }
    }
}

/// Two places nearer to each other than those given, that differ in eight bytes at most behind what those share: from
/// the first on it cannot be read, from the second on it can.
fn approach(
    low: &[u8],
    high: &[u8],
    is_damaged: impl Fn(&[u8]) -> Result<bool, EngineError>,
) -> Result<(Vec<u8>, Vec<u8>), EngineError> {
    let same = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    let window = |of: &[u8]| {
        let mut window = [0; 8];
        let rest = of.get(same..).unwrap_or_default();
        window.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        u64::from_be_bytes(window)
    };
    let (first, last) = (window(low), window(high));
    let place = |at: u64| {
        let bytes = at.to_be_bytes();
        let used = bytes.iter().rposition(|byte| *byte > 0).map_or(0, |last| last + 1);
        [low.get(..same).unwrap_or_default(), bytes.get(..used).unwrap_or_default()].concat()
    };
    let (mut damaged, mut readable) = (first, last);
    let mut stride = 1;
    while let Some(at) = damaged.checked_add(stride).filter(|at| *at < last) {
        if !is_damaged(&place(at))? {
            readable = at;
            break;
        }
        (damaged, stride) = (at, stride.saturating_mul(2));
    }
    while readable.saturating_sub(damaged) > 1 {
        let at = damaged + (readable - damaged) / 2;
        if is_damaged(&place(at))? { damaged = at } else { readable = at }
    }
    let damaged = if damaged == first { low.to_vec() } else { place(damaged) };
    let readable = if readable == last { high.to_vec() } else { place(readable) };
    Ok((damaged, readable))
}

impl Iterator for Around<'_> {
    type Item = Result<(Bytes, Bytes), EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.from < self.end {
            let (reader, from, end) = (self.reader, &self.from, &self.end);
            let pairs =
                self.pairs.get_or_insert_with(|| reader.scan(Table::Data, from, end, Direction::Forward));
            let failed = match pairs.next() {
                Some(Ok((position, record))) => {
                    self.last = Some(position.clone());
                    return Some(Ok((position, record)));
                }
                Some(Err(EngineError::Corrupt(_))) => {
                    self.pairs = None;
                    self.go_around().err()
                }
                Some(Err(error)) => Some(error),
                None => {
                    self.from.clone_from(&self.end);
                    None
                }
            };
            if let Some(error) = failed {
                self.from.clone_from(&self.end);
                return Some(Err(error));
            }
        }
        None
    }
}
