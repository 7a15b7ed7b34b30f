//! The radix room against naive models.

#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod hang;
mod store;
mod tree;

use super::{CommitterSettings, Limits, Store, StoreSettings, Summary, Verdict, View, summary::Scale};
use crate::{
    engine::{Direction, Engine},
    seam::Offload,
};
use bytes::Bytes;
use god_proto::{
    ids::{KeyspaceId, NodeId},
    position::{Position, PositionRange},
    record::{Entry, Kind, Record},
    v1::Partitioner,
    version::Version,
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

const KS: KeyspaceId = KeyspaceId(7);
const KEY: [u8; 16] = *b"a cluster's name";
const SMALL: Limits =
    Limits { split_above: 4, split_bytes: 800, merge_below: 3, most_open: 2, remembered: 8 };

fn open(engine: Arc<dyn Engine>) -> Store {
    try_open(engine).unwrap()
}

fn open_with(engine: Arc<dyn Engine>, limits: Limits) -> Store {
    try_open_with(engine, limits).unwrap()
}

fn try_open(engine: Arc<dyn Engine>) -> Result<Store, crate::engine::EngineError> {
    try_open_with(engine, SMALL)
}

fn try_open_with(engine: Arc<dyn Engine>, limits: Limits) -> Result<Store, crate::engine::EngineError> {
    let settings = StoreSettings {
        committer: CommitterSettings::default(),
        offload: Offload::Inline,
        threaded: false,
        limits,
    };
    Store::open(engine, KEY, settings)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(work)
}

/// What a store should be, slowly.
#[derive(Clone, Default, PartialEq, Debug)]
struct Model(BTreeMap<Position, Record>);

impl Model {
    fn write(&mut self, entries: &[Entry]) -> Vec<Verdict> {
        let verdict = |entry: &Entry| match self.0.entry(entry.position.clone()) {
            btree_map::Entry::Occupied(there) if there.get().version == entry.record.version => {
                Verdict::Equal
            }
            btree_map::Entry::Occupied(there) if there.get().version > entry.record.version => {
                Verdict::Superseded(there.get().version)
            }
            slot => {
                slot.insert_entry(entry.record.clone());
                Verdict::Applied
            }
        };
        entries.iter().map(verdict).collect()
    }

    fn within<'a>(&'a self, range: &'a PositionRange) -> impl DoubleEndedIterator<Item = Entry> + 'a {
        let all = self.0.iter().filter(|(position, _)| range.contains(position));
        all.map(|(position, record)| Entry { position: position.clone(), record: record.clone() })
    }

    fn summary(&self, range: &PositionRange) -> Summary {
        let scale = Scale::new(&KEY);
        let mut sum = Summary::default();
        for Entry { position, record } in self.within(range) {
            sum += &scale.weigh(position.as_bytes(), record.version, record.kind, record.encode().len());
        }
        sum
    }

    fn check(&self, view: &View, range: &PositionRange) {
        let entries: Vec<Entry> = self.within(range).collect();
        let summary = view.summary(range).unwrap();
        assert_eq!(summary, self.summary(range));
        assert_eq!(summary.entries, entries.len() as u64);
        assert_eq!(view.estimate(range).unwrap(), summary);
        let cuts = entries.iter().step_by(7).map(|entry| &entry.position);
        let bounds: Vec<&Position> = std::iter::once(&range.start).chain(cuts).chain([&range.end]).collect();
        let part = |[start, end]: &[&Position; 2]| PositionRange {
            start: Position::clone(start),
            end: Position::clone(end),
        };
        let parts: Vec<PositionRange> = bounds.array_windows().map(part).collect();
        let sums: Vec<Summary> = parts.iter().map(|part| self.summary(part)).collect();
        assert_eq!(view.estimates(&parts).unwrap(), sums);

        let forward: Vec<Entry> = view.scan(range, Direction::Forward).collect::<Result<_, _>>().unwrap();
        assert_eq!(forward, entries);
        let mut reverse: Vec<Entry> = view.scan(range, Direction::Reverse).collect::<Result<_, _>>().unwrap();
        reverse.reverse();
        assert_eq!(reverse, entries);

        let live = entries.iter().filter(|entry| entry.record.is_live() && entry.position.is_own());
        let mut ranks = 0;
        for (rank, entry) in live.enumerate() {
            assert_eq!(view.select(range, rank as u64).unwrap().as_ref(), Some(&entry.position));
            let up_to = PositionRange { start: range.start.clone(), end: entry.position.clone() };
            assert_eq!(view.summary(&up_to).unwrap().live_keys, rank as u64);
            ranks += 1;
        }
        assert_eq!(summary.live_keys, ranks);
        assert_eq!(view.select(range, ranks).unwrap(), None);
        assert_eq!(view.select(range, u64::MAX).unwrap(), None);

        let cut = view.split_point(range).unwrap();
        assert_eq!(
            cut.as_ref(),
            entries.get(entries.len() / 2).filter(|_| entries.len() > 1).map(|e| &e.position)
        );

        for most in [2, 3, 8] {
            let parts = view.parts(range, summary.entries, most).unwrap();
            assert!(parts.len() <= most && (summary.entries < 2 || parts.len() > 1), "{parts:?}");
            let is_cut = parts.array_windows().all(|[(a, _), (b, _)]| a.end == b.start && a.start < a.end);
            assert!(is_cut, "{parts:?}");
            let (first, last) = (&parts[0].0, &parts[parts.len() - 1].0);
            assert_eq!((&first.start, &last.end), (&range.start, &range.end));
            for (part, sum) in &parts {
                assert!(sum.is_none_or(|sum| sum == self.summary(part)), "{part:?}: {sum:?}");
            }
        }
    }
}

/// The range of all positions.
fn everything() -> PositionRange {
    PositionRange { start: Position::default(), end: Position::from_bytes(&[0xff; 8][..]) }
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    vec(select(vec![0u8, 1, b'a', b'b', 0xff]), 1..5)
}

/// A key's own record, its sub-tree's header, or a member.
fn positions() -> impl Strategy<Value = Position> {
    let parts = select(vec![&[0u8][..], &[0], &[0], &[1], b"\x02m\0\x01", b"\x02n\0\x01"]);
    (keys(), parts).prop_map(|(key, part)| {
        let own = Position::of_key(KS, Partitioner::Ordered, &key).unwrap().into_bytes();
        Position::from_bytes(Bytes::from([&own[..own.len() - 1], part].concat()))
    })
}

/// Few versions, so that they meet; some differ only in the node.
fn versions() -> impl Strategy<Value = Version> {
    (1u64..4, 0u16..2, 1u32..4).prop_map(|(ms, counter, node)| Version::new(ms, counter, NodeId(node)))
}

/// An entry whose content follows from its version: tombstones, empty values, expiring ones.
fn entries() -> impl Strategy<Value = Entry> {
    (positions(), versions()).prop_map(|(position, version)| {
        let record = match (version.ms() + u64::from(version.node.0)) % 4 {
            0 => Record::tombstone(version),
            1 => Record::value(version, Bytes::new()),
            2 => Record { expires_at_ms: Some(9), ..Record::value(version, "soon gone") },
            _ => Record::value(version, format!("value {version}")),
        };
        assert!(record.kind == Kind::Value || record.value.is_empty());
        Entry { position, record }
    })
}

/// Any bounds: positions, what is beside them, and what is no position at all.
fn ranges() -> impl Strategy<Value = PositionRange> {
    let bound = prop_oneof![
        positions(),
        positions().prop_map(|position| position.next()),
        keys().prop_map(|key| Position::of_ordered_bound(KS, &key)),
        keys().prop_map(|key| Position::from_bytes([&[0, 0, 0, 7], &key[..]].concat())),
        vec(any::<u8>(), 0..3).prop_map(Position::from_bytes),
        Just(everything().end),
    ];
    let bound = bound.boxed();
    (bound.clone(), bound).prop_map(|(a, b)| PositionRange { start: a.clone().min(b.clone()), end: a.max(b) })
}
