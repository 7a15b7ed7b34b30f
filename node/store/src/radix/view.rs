//! Data and index as they were at one moment.

use super::{
    Summary,
    around::Around,
    nibbles::{agree, range_end, range_start},
    rows::{bad_record, verify, weighed},
    summary::Scale,
    tree::{PrefixSum, Tree},
};
use crate::engine::{Direction, EngineError, Reader, Snapshot, Table};
use bytes::Bytes;
use god_proto::{
    position::{Position, PositionRange},
    record::{Entry, Record},
};
use std::{ops::ControlFlow, sync::Arc};

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
        self.summed(range, |start, end| match self.scan_sum(start, end) {
            Err(EngineError::Corrupt(_)) => self.scan_around(start, end),
            sum => sum,
        })
    }

    /// Whether [`View::estimate`] finds nothing in a range. Cost: O(depth), and a seek in the bucket at each end, which
    /// goes no further than that: beyond it there may be much that was removed.
    pub fn is_empty(&self, range: &PositionRange) -> Result<bool, EngineError> {
        let first = |start: &[u8], end: &[u8]| {
            let mut first = Summary::default();
            let visited = self.reader().visit(Table::Data, start, end, &mut |_, _| {
                first.entries = 1;
                ControlFlow::Break(())
            });
            match visited {
                Err(EngineError::Corrupt(_)) => Ok(Summary { entries: 1, ..first }),
                visited => visited.map(|()| first),
            }
        };
        Ok(self.summed(range, first)?.entries == 0)
    }

    /// As [`View::estimate`], of each of some ranges. Cost: O(depth) and a scan of a part of one bucket for each bound,
    /// but for the one at which the range before ends.
    pub fn estimates<'a>(
        &self,
        ranges: impl IntoIterator<Item = &'a PositionRange>,
    ) -> Result<Vec<Summary>, EngineError> {
        let mut known = None;
        let estimate = |range: &'a PositionRange| match self.between(range, &mut known) {
            Ok(Some(sum)) => Ok(sum),
            Ok(None) | Err(EngineError::Corrupt(_)) => self.estimate(range),
            Err(error) => Err(error),
        };
        ranges.into_iter().map(estimate).collect()
    }

    /// What a range holds, by what lies below its bounds. `known` is that of the bound that was looked at last. `None`
    /// where the index knows of less than is there.
    fn between<'a>(
        &self,
        range: &'a PositionRange,
        known: &mut Option<(&'a [u8], Summary)>,
    ) -> Result<Option<Summary>, EngineError> {
        let (start, end) = (range.start.as_bytes(), range.end.as_bytes());
        if start >= end {
            return Ok(Some(Summary::default()));
        }
        let before = self.below(start, known.take())?;
        let mut sum = self.below(end, Some((start, before)))?;
        let adds_up = sum.entries >= before.entries && sum.bytes >= before.bytes;
        *known = adds_up.then_some((end, sum));
        sum -= &before;
        Ok(adds_up.then_some(sum))
    }

    /// What lies below a bound. `known` is that of another one: within a bucket the scan goes on from there.
    fn below(&self, bound: &[u8], known: Option<(&[u8], Summary)>) -> Result<Summary, EngineError> {
        if let Some((other, sum)) = known
            && other == bound
        {
            return Ok(sum);
        }
        let PrefixSum { before, bucket } = self.0.tree.locate(bound);
        let Some((depth, _)) = bucket else { return Ok(before) };
        let first = range_start(bound, depth);
        let known = known.filter(|(other, _)| first.as_slice() <= *other && *other < bound);
        let (from, mut sum) = known.unwrap_or((&first, before));
        sum += &self.scan_sum(from, bound)?;
        Ok(sum)
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

    /// Cuts a range, which holds so many `entries`, into up to `most` parts of about as many each, between buckets
    /// where that is possible: what such parts hold is known without a scan. Where all is in one bucket it says what
    /// each part holds, as far as it can be read; there are fewer parts where something cannot. Cost: O(most × depth),
    /// and where the range lies in one bucket a scan of it.
    pub fn parts(
        &self,
        range: &PositionRange,
        entries: u64,
        most: usize,
    ) -> Result<Vec<(PositionRange, Option<Summary>)>, EngineError> {
        let within = |bound: &[u8]| {
            let bound = Position::from_bytes(Bytes::copy_from_slice(bound));
            (range.start < bound && bound < range.end).then_some(bound)
        };
        let (start, end, tree) = (range.start.as_bytes(), range.end.as_bytes(), &self.0.tree);
        let (low, high) = (tree.locate(start), tree.locate(end));
        let most = most.max(2);
        // Of the buckets that lie between those at the ends; where none does, the start of the last one.
        let first = low.before.entries + low.bucket.map_or(0, |(_, sum)| sum.entries);
        let inside = high.before.entries.saturating_sub(first);
        let ranks = (1..most as u64).map(|part| first + inside * part / most as u64);
        let starts = ranks.filter_map(|rank| Some(tree.bucket_at(rank, |sum| sum.entries)?.0));
        let mut cuts: Vec<Position> = starts.filter_map(|path| within(path.bytes())).collect();
        cuts.dedup();
        let mut from = range.start.clone();
        let mut part =
            |end: Position| PositionRange { start: std::mem::replace(&mut from, end.clone()), end };
        if !cuts.is_empty() || range.is_empty() {
            return Ok(cuts.into_iter().chain([range.end.clone()]).map(|end| (part(end), None)).collect());
        }
        let step = entries.div_ceil(most as u64).max(1);
        let (mut parts, mut sum, mut count) = (Vec::with_capacity(most), Some(Summary::default()), 0);
        let scanned = self.reader().visit(Table::Data, start, end, &mut |position, record| {
            if count == step && parts.len() + 1 < most {
                let end = Position::from_bytes(Bytes::copy_from_slice(position));
                parts.push((part(end), sum.replace(Summary::default())));
                count = 0;
            }
            count += 1;
            match (&mut sum, self.0.scale.weigh_stored(position, record)) {
                (Some(sum), Ok(one)) => *sum += &one,
                _ => sum = None,
            }
            ControlFlow::Continue(())
        });
        match scanned {
            Ok(()) => {}
            Err(EngineError::Corrupt(_)) => sum = None,
            Err(error) => return Err(error),
        }
        parts.push((part(range.end.clone()), sum));
        Ok(parts)
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
        let (mut sum, mut bad) = (Summary::default(), None);
        if start < end {
            self.reader().visit(Table::Data, start, end, &mut |position, record| {
                match self.0.scale.weigh_stored(position, record) {
                    Ok(one) => sum += &one,
                    Err(error) => {
                        bad = Some(bad_record(position, &error));
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })?;
        }
        bad.map_or(Ok(sum), Err)
    }

    /// As [`View::scan_sum`], with one entry for each place that cannot be read.
    fn scan_around(&self, start: &[u8], end: &[u8]) -> Result<Summary, EngineError> {
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

    const KEYS: u64 = 20_000;

    /// So many small records all over the keyspace.
    fn scattered() -> (View, Arc<AtomicUsize>) {
        let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec();
        counting(&(0..KEYS).map(key).collect::<Vec<_>>(), |_| 5, Limits::default())
    }

    fn range(start: &[u8], end: &[u8]) -> PositionRange {
        let bound = |key: &[u8]| Position::from_bytes([&[0, 0, 0, 7], key].concat());
        PositionRange { start: bound(start), end: bound(end) }
    }

    /// Who compares two copies cuts down to lists again and again, while clients wait for the same processors.
    #[test]
    fn cutting_a_range_down_to_lists_reads_each_row_once() {
        const LIST: u64 = 64;
        let (view, rows) = scattered();
        let whole = range(&[0x3a], &[0xc5]);
        let all = view.summary(&whole).unwrap().entries;
        assert!(all > KEYS / 2, "{all}");
        rows.store(0, Relaxed);
        let (mut waiting, mut lists) = (vec![(whole, None)], 0);
        while let Some((range, sum)) = waiting.pop() {
            let entries = sum.unwrap_or_else(|| view.summary(&range).unwrap()).entries;
            if entries <= LIST {
                lists += 1;
                continue;
            }
            let parts = view.parts(&range, entries, entries.div_ceil(LIST).min(8) as usize).unwrap();
            assert!(parts.len() > 1, "{entries} entries are not cut");
            waiting.extend(parts);
        }
        let read = rows.load(Relaxed) as u64;
        assert!(lists <= 4 * all.div_ceil(LIST), "{lists} lists");
        assert!(read <= all + all / 20, "{read} rows read of {all}");
    }

    /// All nodes measure their arcs again and again.
    #[test]
    fn what_lies_between_bounds_is_measured_by_one_part_of_a_bucket_each() {
        const BOUNDS: u64 = 100;
        let (view, rows) = scattered();
        let bound = |n: u64| (u64::MAX / BOUNDS * n).to_be_bytes();
        let parts: Vec<PositionRange> = (0..BOUNDS).map(|n| range(&bound(n), &bound(n + 1))).collect();
        let measured = |sums: Vec<Summary>| (sums, rows.swap(0, Relaxed));
        let (alone, rows_alone) = measured(parts.iter().map(|part| view.estimate(part).unwrap()).collect());
        let (together, rows_together) = measured(view.estimates(&parts).unwrap());
        assert_eq!(together, alone);
        assert!(rows_together * 5 < rows_alone * 3, "{rows_together} rows, {rows_alone} one by one");
    }

    /// All nodes look at each change of the ring whether they have something that is not theirs.
    #[test]
    fn whether_a_range_is_empty_is_known_from_a_row_at_each_end_at_the_most() {
        let half =
            |n: u64| ((n % 2) << 63 | n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2).to_be_bytes().to_vec();
        let (view, rows) = counting(&(0..KEYS).map(half).collect::<Vec<_>>(), |_| 5, Limits::default());
        let bounds: Vec<u64> =
            (0..=64).map(|n| (u64::MAX / 64).saturating_mul(n)).chain([1, 7, u64::MAX]).collect();
        let (mut empty, mut full) = (0, 0);
        for (at, start) in bounds.iter().enumerate() {
            for end in &bounds[at..] {
                let range = range(&start.to_be_bytes(), &end.to_be_bytes());
                let entries = view.estimate(&range).unwrap().entries;
                rows.store(0, Relaxed);
                assert_eq!(view.is_empty(&range).unwrap(), entries == 0, "{range:?}");
                assert!(rows.load(Relaxed) <= 2);
                *(if entries == 0 { &mut empty } else { &mut full }) += 1;
            }
        }
        assert!(empty > 100 && full > 100, "{empty} and {full}");
    }

    /// A bucket of many small records, of which few are in the range, and behind it large ones in one bucket each.
    #[test]
    fn parts_of_large_records_are_told_apart_without_reading_one() {
        let small = (0..1_000u16).map(|n| [&[0x11], &n.to_be_bytes()[..]].concat());
        let large = (0..100u8).map(|n| vec![0x20, n, 1]);
        let keys: Vec<Vec<u8>> = small.chain(large).collect();
        let limits = Limits { split_bytes: 1 << 16, ..Limits::default() };
        let (view, rows) = counting(&keys, |at| if at < 1_000 { 5 } else { 1 << 16 }, limits);
        let from = [&[0x11][..], &966u16.to_be_bytes()[..]].concat();
        let range = range(&from, &[0x30]);
        let parts = view.parts(&range, 134, 3).unwrap();
        assert_eq!((parts.len(), rows.load(Relaxed)), (3, 0), "{parts:?}");
    }
}
