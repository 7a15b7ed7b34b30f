//! Data and index as they were at one moment.

use super::{
    Summary,
    around::Around,
    nibbles::{agree, range_end, range_start},
    rows::{bad_record, verify, weighed},
    summary::Scale,
    tree::Tree,
};
use crate::engine::{Direction, EngineError, Reader, Snapshot, Table};
use bytes::Bytes;
use god_proto::{
    position::{Position, PositionRange},
    record::{Entry, Record},
};
use std::sync::Arc;

/// Data and index as they were between two groups of writes (invariant VIEW-CONSISTENT). Clones are the same view.
///
/// Cheap to take and to hold, though it keeps replaced data from being freed. Its calls may block on the disk; see
/// [`crate::seam::Offload`].
#[derive(Clone)]
pub struct View(Arc<ViewState>);

struct ViewState {
    snapshot: Arc<dyn Snapshot>,
    tree: Tree,
    scale: Scale,
}

impl View {
    pub(super) fn new(snapshot: Arc<dyn Snapshot>, tree: Tree, scale: Scale) -> View {
        View(Arc::new(ViewState { snapshot, tree, scale }))
    }

    fn reader(&self) -> &dyn Reader {
        &*self.0.snapshot
    }

    /// What stands at a position.
    pub fn get(&self, position: &Position) -> Result<Option<Record>, EngineError> {
        let stored = self.reader().get(Table::Data, position.as_bytes())?;
        stored
            .map(|bytes| Record::decode(&bytes).map_err(|error| bad_record(position.as_bytes(), &error)))
            .transpose()
    }

    /// What stands in a range, tombstones among it. An error ends the scan.
    pub fn scan(
        &self,
        range: &PositionRange,
        direction: Direction,
    ) -> impl Iterator<Item = Result<Entry, EngineError>> + '_ {
        // Some engines refuse a range that ends before it starts.
        let end = range.end.as_bytes().max(range.start.as_bytes());
        self.reader().scan(Table::Data, range.start.as_bytes(), end, direction).map(|pair| {
            let (position, bytes) = pair?;
            let record = Record::decode(&bytes).map_err(|error| bad_record(&position, &error))?;
            Ok(Entry { position: Position::from_bytes(position), record })
        })
    }

    /// As [`View::scan`] forward, without what cannot be read (DAMAGE-APART). Not for who must know all there is.
    pub fn readable(&self, range: &PositionRange) -> impl Iterator<Item = Result<Entry, EngineError>> + '_ {
        let mut pairs = self.around(range.start.as_bytes(), range.end.as_bytes());
        std::iter::from_fn(move || {
            loop {
                let (position, bytes) = match pairs.next()? {
                    Ok(pair) => pair,
                    Err(error) => return Some(Err(error)),
                };
                match Record::decode(&bytes) {
                    Ok(record) => {
                        return Some(Ok(Entry { position: Position::from_bytes(position), record }));
                    }
                    Err(_) => pairs.pass(),
                }
            }
        })
    }

    fn around(&self, start: &[u8], end: &[u8]) -> Around<'_> {
        Around::new(self.reader(), &self.0.tree, start, end)
    }

    /// What a range holds. Cost: O(depth), and a scan of the part within of the bucket at each end.
    pub fn summary(&self, range: &PositionRange) -> Result<Summary, EngineError> {
        self.summed(range, |start, end| self.scan_sum(start, end))
    }

    /// As [`View::summary`], for who only asks how much there is: where something at an end cannot be read, each place
    /// of that is one entry more.
    pub fn estimate(&self, range: &PositionRange) -> Result<Summary, EngineError> {
        self.summed(range, |start, end| {
            let mut pairs = self.around(start, end);
            let mut sum = Summary::default();
            while let Some(pair) = pairs.next() {
                let (position, record) = pair?;
                match self.0.scale.weigh_stored(&position, &record) {
                    Ok(one) => sum += &one,
                    Err(_) => pairs.pass(),
                }
            }
            sum += &Summary { entries: pairs.passed(), ..Summary::default() };
            Ok(sum)
        })
    }

    /// What a range holds; `part` says it of parts of buckets.
    fn summed(
        &self,
        range: &PositionRange,
        part: impl Fn(&[u8], &[u8]) -> Result<Summary, EngineError>,
    ) -> Result<Summary, EngineError> {
        if range.is_empty() {
            return Ok(Summary::default());
        }
        let (start, end) = (range.start.as_bytes(), range.end.as_bytes());
        let (low, high) = (self.0.tree.locate(start), self.0.tree.locate(end));
        let mut sum = high.before;
        sum -= &low.before;
        if let Some((depth, all)) = low.bucket {
            if agree(start, end, depth) {
                return part(start, end);
            }
            let first = range_start(start, depth);
            if start > first.as_slice() {
                sum -= &all;
                sum += &part(start, &range_end(start, depth))?;
            }
        }
        if let Some((depth, _)) = high.bucket {
            sum += &part(&range_start(end, depth), end)?;
        }
        Ok(sum)
    }

    /// The live key (a value at a key's own position) that has `rank` others before it within the range. Cost:
    /// O(depth), and a scan of two buckets. Its inverse is [`View::summary`]'s `live_keys` of the range up to it.
    pub fn select(&self, range: &PositionRange, rank: u64) -> Result<Option<Position>, EngineError> {
        self.nth(range, rank, |sum| sum.live_keys)
    }

    /// The position that cuts a range into two parts of the same number of entries, or one more above. `None` where
    /// there are fewer than two entries: neither part is empty. Cost: O(depth), and a scan of four buckets.
    pub fn split_point(&self, range: &PositionRange) -> Result<Option<Position>, EngineError> {
        match self.summary(range)?.entries {
            0 | 1 => Ok(None),
            entries => self.nth(range, entries / 2, |sum| sum.entries),
        }
    }

    /// Bounds that cut a range, which holds so many `entries`, into up to `most` parts of about as many each. They lie
    /// between buckets where they can: what such parts hold is known without a scan. Fewer where something within a
    /// bucket cannot be read. Cost: O(most × depth), and where the range lies in one bucket a scan of it.
    pub fn cuts(
        &self,
        range: &PositionRange,
        entries: u64,
        most: usize,
    ) -> Result<Vec<Position>, EngineError> {
        let within = |bound: &[u8]| {
            let bound = Position::from_bytes(Bytes::copy_from_slice(bound));
            (range.start < bound && bound < range.end).then_some(bound)
        };
        let (start, end, tree) = (range.start.as_bytes(), range.end.as_bytes(), &self.0.tree);
        let (low, high) = (tree.locate(start), tree.locate(end));
        let parts = most.max(2) as u64;
        // Of the buckets that lie between those at the ends; where none does, the start of the last one.
        let first = low.before.entries + low.bucket.map_or(0, |(_, sum)| sum.entries);
        let inside = high.before.entries.saturating_sub(first);
        let ranks = (1..parts).map(|part| first + inside * part / parts);
        let starts = ranks.filter_map(|rank| Some(tree.bucket_at(rank, |sum| sum.entries)?.0));
        let mut cuts: Vec<Position> = starts.filter_map(|path| within(path.bytes())).collect();
        cuts.dedup();
        if !cuts.is_empty() || range.is_empty() {
            return Ok(cuts);
        }
        let step = entries.div_ceil(parts).max(1) as usize;
        for (at, pair) in self.reader().scan(Table::Data, start, end, Direction::Forward).enumerate() {
            match pair {
                Ok((position, _)) if at > 0 && at.is_multiple_of(step) => {
                    cuts.push(Position::from_bytes(position));
                }
                Ok(_) => {}
                Err(EngineError::Corrupt(_)) => break,
                Err(error) => return Err(error),
            }
            if cuts.len() as u64 == parts - 1 {
                break;
            }
        }
        Ok(cuts)
    }

    /// The record with `rank` counted ones before it within the range.
    fn nth(
        &self,
        range: &PositionRange,
        rank: u64,
        count: fn(&Summary) -> u64,
    ) -> Result<Option<Position>, EngineError> {
        if range.is_empty() {
            return Ok(None);
        }
        let start = range.start.as_bytes();
        let prefix = self.0.tree.locate(start);
        let mut before = prefix.before;
        if let Some((depth, _)) = prefix.bucket {
            before += &self.scan_sum(&range_start(start, depth), start)?;
        }
        let Some(overall) = count(&before).checked_add(rank) else { return Ok(None) };
        let Some((path, mut left)) = self.0.tree.bucket_at(overall, count) else { return Ok(None) };
        for entry in weighed(self.reader(), &self.0.scale, path.bytes(), &path.end(), Direction::Forward) {
            let (position, one) = entry?;
            if count(&one) > left {
                let position = Position::from_bytes(position);
                return Ok(range.contains(&position).then_some(position));
            }
            left -= count(&one);
        }
        Err(EngineError::Corrupt(format!("bucket {path:?} holds fewer records than the radix index says")))
    }

    /// What the whole store holds. Cost: none.
    pub fn total(&self) -> Summary {
        self.0.tree.sum
    }

    /// Compares the index with the data, all of both. Cost: one pass over the data.
    pub fn verify(&self) -> Result<(), EngineError> {
        verify(self.reader(), &self.0.scale, &self.0.tree)
    }

    fn scan_sum(&self, start: &[u8], end: &[u8]) -> Result<Summary, EngineError> {
        let mut sum = Summary::default();
        if start < end {
            for entry in weighed(self.reader(), &self.0.scale, start, end, Direction::Forward) {
                sum += &entry?.1;
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        engine::{Cached, SimulatedDisk},
        radix::{CommitterSettings, Limits, Store, StoreSettings},
        seam::Offload,
    };
    use god_proto::{
        ids::{KeyspaceId, NodeId},
        v1::Partitioner,
        version::Version,
    };
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Counts the rows that scans give.
    struct Counting(Arc<dyn Snapshot>, Arc<AtomicUsize>);

    impl Reader for Counting {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
            self.0.get(table, key)
        }

        fn scan<'a>(
            &'a self,
            table: Table,
            start: &[u8],
            end: &[u8],
            direction: Direction,
        ) -> Box<dyn Iterator<Item = Result<(Bytes, Bytes), EngineError>> + 'a> {
            let rows = self.0.scan(table, start, end, direction);
            Box::new(rows.inspect(|_| {
                self.1.fetch_add(1, Relaxed);
            }))
        }
    }

    impl Snapshot for Counting {
        fn get_cached(&self, table: Table, key: &[u8]) -> Result<Cached<Option<Bytes>>, EngineError> {
            self.0.get_cached(table, key)
        }

        fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
            self.0.multi_get(table, keys)
        }
    }

    /// A store that holds some keys, and a view of it that counts the rows it reads.
    fn counting(
        keys: &[Vec<u8>],
        value: impl Fn(usize) -> usize,
        limits: Limits,
    ) -> (View, Arc<AtomicUsize>) {
        let settings = StoreSettings {
            committer: CommitterSettings::default(),
            offload: Offload::Inline,
            threaded: false,
            limits,
        };
        let store = Store::open(SimulatedDisk::new().open(), *b"a cluster's name", settings).unwrap();
        let entry = |(at, key): (usize, &Vec<u8>)| {
            let position = Position::of_key(KeyspaceId(7), Partitioner::Ordered, key).unwrap();
            let record = Record::value(Version::new(1, 0, NodeId(1)), vec![7; value(at)]);
            Entry { position, record }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(store.write(keys.iter().enumerate().map(entry).collect())).unwrap();
        let (view, rows) = (store.view(), Arc::new(AtomicUsize::new(0)));
        let counting = Counting(Arc::clone(&view.0.snapshot), Arc::clone(&rows));
        (View::new(Arc::new(counting), view.0.tree.clone(), view.0.scale), rows)
    }

    fn range(start: &[u8], end: &[u8]) -> PositionRange {
        let bound = |key: &[u8]| Position::from_bytes([&[0, 0, 0, 7], key].concat());
        PositionRange { start: bound(start), end: bound(end) }
    }

    /// Who compares two copies cuts down to lists again and again, while clients wait for the same processors.
    #[test]
    fn cutting_a_range_down_to_lists_reads_each_row_three_times_at_most() {
        const KEYS: u64 = 20_000;
        const LIST: u64 = 64;
        let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec();
        let keys: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
        let (view, rows) = counting(&keys, |_| 5, Limits::default());
        let whole = range(&[0x3a], &[0xc5]);
        let all = view.summary(&whole).unwrap().entries;
        assert!(all > KEYS / 2, "{all}");
        rows.store(0, Relaxed);
        let (mut waiting, mut lists) = (vec![whole], 0);
        while let Some(range) = waiting.pop() {
            let entries = view.summary(&range).unwrap().entries;
            if entries <= LIST {
                lists += 1;
                continue;
            }
            let cuts = view.cuts(&range, entries, entries.div_ceil(LIST).min(8) as usize).unwrap();
            assert!(!cuts.is_empty(), "{entries} entries are not cut");
            let starts = std::iter::once(&range.start).chain(&cuts);
            let parts = starts.zip(cuts.iter().chain([&range.end]));
            waiting
                .extend(parts.map(|(start, end)| PositionRange { start: start.clone(), end: end.clone() }));
        }
        let read = rows.load(Relaxed) as u64;
        assert!(lists <= 4 * all.div_ceil(LIST), "{lists} lists");
        assert!(read <= 3 * all, "{read} rows read of {all}");
    }

    /// A bucket of many small records, of which few are in the range, and behind it large ones in one bucket each.
    #[test]
    fn cuts_between_large_records_read_none_of_them() {
        let small = (0..1_000u16).map(|n| [&[0x11], &n.to_be_bytes()[..]].concat());
        let large = (0..100u8).map(|n| vec![0x20, n, 1]);
        let keys: Vec<Vec<u8>> = small.chain(large).collect();
        let limits = Limits { split_bytes: 1 << 16, ..Limits::default() };
        let (view, rows) = counting(&keys, |at| if at < 1_000 { 5 } else { 1 << 16 }, limits);
        let from = [&[0x11][..], &966u16.to_be_bytes()[..]].concat();
        let range = range(&from, &[0x30]);
        let cuts = view.cuts(&range, 134, 3).unwrap();
        assert_eq!((cuts.len(), rows.load(Relaxed)), (2, 0), "{cuts:?}");
    }
}
