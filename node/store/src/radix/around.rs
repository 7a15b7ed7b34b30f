//! Scans that go on after what cannot be read.
//!
//! An engine that finds a block damaged does not say which records were in it, and its scan ends there. The next place
//! from which it can be read is looked for by halves within the bucket: first in strides that double, so that of what
//! lies between two damaged places little is passed over. What can be read one by one only is passed over too.

use super::{gaps::Gaps, nibbles::range_end, tree::Tree};
use crate::engine::{Direction, EngineError, Reader, Table};
use bytes::Bytes;
use metrics::counter;

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

    /// Moves on to where it can be read again, at the end of the bucket at the latest. Cost: up to 128 seeks.
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
        let same = self.from.iter().zip(&until).take_while(|(a, b)| a == b).count();
        let window = |of: &[u8]| {
            let mut window = [0; 8];
            let rest = of.get(same..).unwrap_or_default();
            window.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            u64::from_be_bytes(window)
        };
        let (first, last) = (window(&self.from), window(&until));
        let place = |at: u64| {
            let bytes = at.to_be_bytes();
            let used = bytes.iter().rposition(|byte| *byte > 0).map_or(0, |last| last + 1);
            [self.from.get(..same).unwrap_or_default(), bytes.get(..used).unwrap_or_default()].concat()
        };
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
        let is_damaged = |at: u64| damaged_from(&place(at));
        // From the first of them on it cannot be read, from the second on it can.
        let (mut low, mut high) = (first, last);
        let mut stride = 1;
        while let Some(at) = low.checked_add(stride).filter(|at| *at < last) {
            if !is_damaged(at)? {
                high = at;
                break;
            }
            (low, stride) = (at, stride.saturating_mul(2));
        }
        while high - low > 1 {
            let at = low + (high - low) / 2;
            if is_damaged(at)? { low = at } else { high = at }
        }
        let readable = place(high);
        let readable = if high == last { until } else { readable };
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
