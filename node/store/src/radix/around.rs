//! Scans that go on after what cannot be read.
//!
//! An engine that finds a block damaged does not say which records were in it, and its scan ends there. The next place
//! from which it can be read is looked for by halves within the bucket: first in strides that double, so that of what
//! lies between two damaged places little is passed over. What can be read one by one only is passed over too.

use super::{gaps::Gaps, nibbles::range_end, tree::Tree};
use crate::engine::{Direction, EngineError, Reader, Table};
use bytes::Bytes;
use metrics::counter;

/// How often the place from which it can be read is looked for more narrowly, at the most. What shares more than 7
/// bytes for each with a damaged place is passed over with it. So is what shares more than 8 with two of them, where
/// those are the first and the last that share so much.
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
    /// bytes by which what lies around the damage is told apart, once or twice; more often only where nothing below it
    /// or above it in the bucket can be read.
    fn go_around(&mut self) -> Result<(), EngineError> {
        let below = self.last.take();
        if let Some(last) = &below {
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
        let first = |start: &[u8], end: &[u8], direction: Direction| match self
            .reader
            .scan(Table::Data, start, end, direction)
            .next()
        {
            Some(Err(EngineError::Corrupt(_))) => Ok(Met::Damage),
            Some(Err(error)) => Err(error),
            Some(Ok((position, _))) => Ok(Met::Record(position)),
            None => Ok(Met::Nothing),
        };
        let damaged_from =
            |from: &[u8]| first(from, &until, Direction::Forward).map(|met| met == Met::Damage);
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
            let told_apart_from = shared(&low, &high);
            let (damaged, readable) = approach(&low, &high, damaged_from)?;
            if damaged == low && readable == high {
                break;
            }
            (low, high) = (damaged, readable);
            // All that lies between share what those at both ends do, and were told apart by what follows on that: it
            // ends where what is right below cannot be read.
            if let Some(below) = &below
                && let Met::Record(above) = first(&high, &until, Direction::Forward)?
                && shared(below, &above) <= told_apart_from
                && first(&self.from, &high, Direction::Reverse)? == Met::Damage
            {
                break;
            }
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

/// What a scan comes upon first.
#[derive(PartialEq, Eq)]
enum Met {
    Record(Bytes),
    Damage,
    Nothing,
}

/// How many bytes two positions begin with both.
fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Two places nearer to each other than those given, that differ in eight bytes at most behind what those share: from
/// the first on it cannot be read, from the second on it can.
fn approach(
    low: &[u8],
    high: &[u8],
    is_damaged: impl Fn(&[u8]) -> Result<bool, EngineError>,
) -> Result<(Vec<u8>, Vec<u8>), EngineError> {
    let same = shared(low, high);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::{Batch, Engine as _, SimulatedDisk, SimulatedEngine};
    use std::{cell::Cell, sync::Arc};

    /// Counts how often a scan begins.
    struct Counting(Arc<SimulatedEngine>, Cell<usize>);

    impl Reader for Counting {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
            self.0.get(table, key)
        }

        fn scan<'a>(&'a self, table: Table, start: &[u8], end: &[u8], direction: Direction) -> Pairs<'a> {
            self.1.set(self.1.get() + 1);
            self.0.scan(table, start, end, direction)
        }
    }

    /// Numbers that look drawn.
    fn mixed(n: u64) -> u64 {
        let n = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (n ^ n >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    /// What follows the eight bytes by which keys are told apart makes nothing dearer.
    #[test]
    fn the_seeks_around_a_damaged_place_do_not_grow_with_the_keys_behind_it() {
        const KEYS: u64 = 60;
        for words in [1, 2, 8, 16] {
            let disk = SimulatedDisk::new();
            let engine = disk.open();
            let key = |n: u64| -> Vec<u8> {
                let words = (0..words).flat_map(|word| mixed(n * 100 + word).to_be_bytes());
                [1u32.to_be_bytes().to_vec(), words.collect()].concat()
            };
            let mut keys: Vec<_> = (0..KEYS).map(key).collect();
            keys.sort();
            let mut batch = Batch::default();
            keys.iter().for_each(|key| batch.put(Table::Data, key.clone(), "v"));
            engine.commit(batch).unwrap();
            // A block at a time, and single ones.
            let damaged = |at: usize| (10..20).contains(&at) || [30, 40, 50].contains(&at);
            let (lost, rest): (Vec<_>, Vec<_>) =
                keys.into_iter().enumerate().partition(|(at, _)| damaged(*at));
            lost.into_iter().for_each(|(_, key)| disk.corrupt(Table::Data, key));
            let (counting, tree) = (Counting(engine, Cell::new(0)), Tree::default());
            let found = Around::new(&counting, &tree, &[], &[2]).map(|pair| pair.unwrap().0.to_vec());
            let found: Vec<Vec<u8>> = found.collect();
            let rest: Vec<_> = rest.into_iter().map(|(_, key)| key).collect();
            assert_eq!(found.len(), rest.len(), "{words} words");
            let seeks = counting.1.get() / 4;
            assert!(seeks <= 300, "{words} words: {seeks} seeks for each of four places");
        }
    }
}
