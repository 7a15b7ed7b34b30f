//! The tree against a naive map: whatever order entries come and go in, sums over ranges are those of the map.

use crate::radix::{
    Summary,
    changes::{Change, Row, apply_changes},
    grow::Misfit,
    nibbles::{Path, TOP},
    tree::{Limits, Tree},
    walk::Bucket,
};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};
use std::collections::BTreeMap;

type Map = BTreeMap<Bytes, Summary>;

/// A tree, what it stands above, and its rows as they would be stored.
#[derive(Default)]
struct Grown {
    tree: Tree,
    data: Map,
    rows: BTreeMap<Bytes, Row>,
}

const SMALL: Limits =
    Limits { split_above: 4, split_bytes: 1 << 20, merge_below: 3, most_open: 2, remembered: 8 };

impl Grown {
    /// Sets or removes entries, as one group.
    fn apply(&mut self, limits: Limits, group: &BTreeMap<Bytes, Option<u128>>) {
        let changes: Vec<Change> = group
            .iter()
            .map(|(position, after)| Change {
                position: position.clone(),
                before: self.data.get(position).copied().unwrap_or_default(),
                after: after.map(|digest| summary(position, digest)).unwrap_or_default(),
            })
            .filter(|change| change.before != change.after)
            .collect();
        let mut rows = Vec::new();
        let scan = |start: &[u8], end: &[u8]| {
            let within = self
                .data
                .range::<[u8], _>((std::ops::Bound::Included(start), std::ops::Bound::Excluded(end)));
            Ok::<_, Misfit>(Some(within.map(|(position, sum)| (position.clone(), *sum)).collect()))
        };
        apply_changes(&mut self.tree, limits, &changes, scan, &mut rows).unwrap();
        for change in changes {
            if change.after.entries == 0 {
                self.data.remove(&change.position);
            } else {
                self.data.insert(change.position, change.after);
            }
        }
        for (key, row) in rows {
            match row {
                Row::Gone => drop(self.rows.remove(&key)),
                row => drop(self.rows.insert(key, row)),
            }
        }
    }

    fn check(&self, limits: Limits) {
        self.tree.check_shape().unwrap();
        assert_eq!(self.tree.sum, self.data.values().sum());
        let (mut covered, mut opened) = (0, 0);
        let mut rows = BTreeMap::new();
        for Bucket { path, sum, open } in self.tree.buckets() {
            let within: Vec<_> = self.data.range(between(path.bytes(), &path.end())).collect();
            assert_eq!(sum, within.iter().map(|(_, sum)| *sum).sum(), "bucket {path:?}");
            assert!(!within.is_empty() && !limits.too_much(&sum), "{sum:?} in {path:?}");
            covered += within.len();
            rows.insert(path.encode(), if open { Row::Open } else { Row::Sum(sum) });
            opened += usize::from(open);
        }
        assert_eq!(covered, self.data.len());
        assert_eq!(rows, self.rows);
        assert_eq!(opened, self.tree.open);
        assert!(opened <= limits.most_open);

        let loaded = self.load();
        loaded.check_shape().unwrap();
        assert!(loaded.buckets().eq(self.tree.buckets()));
    }

    /// The tree that comes of the rows and, where they are open, the data.
    fn load(&self) -> Tree {
        let mut loaded = Tree::default();
        for (key, row) in &self.rows {
            let path = Path::decode(key).unwrap();
            let sum = match row {
                Row::Sum(sum) => *sum,
                _ => self.data.range(between(path.bytes(), &path.end())).map(|(_, sum)| sum).sum(),
            };
            loaded.graft(&path, sum, *row == Row::Open).unwrap();
        }
        loaded
    }
}

fn between(start: &[u8], end: &[u8]) -> std::ops::Range<Bytes> {
    Bytes::copy_from_slice(start)..Bytes::copy_from_slice(end)
}

fn summary(position: &[u8], digest: u128) -> Summary {
    Summary {
        digest,
        entries: 1,
        live_keys: (digest % 2) as u64,
        live_members: (digest % 3) as u64,
        bytes: position.len() as u64,
    }
}

/// Short positions of few distinct half bytes, prefixes of one another among them.
fn positions() -> impl Strategy<Value = Bytes> {
    vec(select(vec![0u8, 1, 0x10, 0x11, 0xf0, 0xff]), 0..5)
        .prop_filter("above all", |position| position.as_slice() < &TOP[..])
        .prop_map(Bytes::from)
}

fn groups() -> impl Strategy<Value = Vec<BTreeMap<Bytes, Option<u128>>>> {
    let change = (positions(), prop_oneof![2 => any::<u128>().prop_map(Some), 1 => Just(None)]);
    vec(vec(change, 1..40).prop_map(|all| all.into_iter().collect()), 1..12)
}

proptest! {
    #[test]
    fn a_tree_always_sums_up_what_it_stands_above(groups in groups(), most in 1usize..8, most_open in 0usize..6, split_bytes in 4u64..40) {
        let limits = Limits { split_above: most, split_bytes, merge_below: most.div_ceil(2), most_open, remembered: 8 };
        let mut grown = Grown::default();
        for group in &groups {
            grown.apply(limits, group);
            grown.check(limits);
        }
        for (path, sum) in grown.tree.close() {
            grown.rows.insert(path.encode(), Row::Sum(sum));
        }
        prop_assert_eq!(grown.tree.open, 0);
        grown.check(limits);
    }

    #[test]
    fn a_place_has_before_it_what_is_below(groups in groups(), bound in positions()) {
        let mut grown = Grown::default();
        groups.iter().for_each(|group| grown.apply(SMALL, group));
        let prefix = grown.tree.locate(&bound);
        let before: Summary = match prefix.bucket {
            Some((depth, sum)) => {
                let path = Path::of(&bound, depth);
                let within = grown.data.range(between(path.bytes(), &path.end()));
                prop_assert_eq!(sum, within.map(|(_, sum)| sum).sum());
                prop_assert_eq!(grown.tree.bucket_depth(&bound), depth);
                prop_assert_eq!(grown.tree.bytes_at(&bound), sum.bytes);
                grown.data.range(..Bytes::copy_from_slice(path.bytes())).map(|(_, sum)| sum).sum()
            }
            None => {
                prop_assert_eq!(grown.tree.bytes_at(&bound), 0);
                grown.data.range(..bound).map(|(_, sum)| sum).sum()
            }
        };
        prop_assert_eq!(prefix.before, before);
    }

    #[test]
    fn the_bucket_at_a_rank_holds_that_rank(groups in groups(), rank in 0u64..40) {
        let mut grown = Grown::default();
        groups.iter().for_each(|group| grown.apply(SMALL, group));
        let all: Vec<&Bytes> = grown.data.keys().collect();
        match grown.tree.bucket_at(rank, |sum| sum.entries) {
            Some((path, left)) => {
                let within: Vec<_> = grown.data.range(between(path.bytes(), &path.end())).collect();
                prop_assert_eq!(within[left as usize].0, all[rank as usize]);
            }
            None => prop_assert!(rank as usize >= all.len()),
        }
    }

    #[test]
    fn an_older_tree_stays_as_it_was(groups in groups()) {
        let mut grown = Grown::default();
        let mut kept: Vec<(Tree, Vec<Bucket>)> = Vec::new();
        for group in &groups {
            grown.apply(SMALL, group);
            kept.push((grown.tree.clone(), grown.tree.buckets().collect()));
        }
        for (tree, buckets) in kept {
            tree.check_shape().unwrap();
            prop_assert!(tree.buckets().eq(buckets));
        }
    }

    #[test]
    fn rows_that_overlap_are_refused(groups in groups(), at: prop::sample::Index, cut in 1usize..9) {
        let mut grown = Grown::default();
        groups.iter().for_each(|group| grown.apply(SMALL, group));
        let rows: Vec<Path> = grown.rows.keys().map(|key| Path::decode(key).unwrap()).collect();
        prop_assume!(!rows.is_empty());
        let row = at.get(&rows);
        let above = Path::of(row.bytes(), cut.min(row.depth()));
        prop_assert!(grown.tree.graft(&above, Summary::default(), false).is_err());
    }
}

#[test]
fn all_that_came_can_go() {
    let mut grown = Grown::default();
    let all: Vec<Bytes> = (0..5_000u32)
        .map(|n| Bytes::copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes()[..3]))
        .collect();
    let group = |digest: Option<u128>, part: &[Bytes]| part.iter().map(|p| (p.clone(), digest)).collect();
    for part in all.chunks(700) {
        grown.apply(SMALL, &group(Some(7), part));
    }
    grown.check(SMALL);
    for part in all.chunks(300) {
        grown.apply(SMALL, &group(None, part));
        grown.check(SMALL);
    }
    assert_eq!(grown.tree.buckets().count(), 0);
    assert_eq!(grown.tree.sum, Summary::default());
}

#[test]
fn a_bucket_that_merged_and_splits_again_in_one_group_counts_what_left_it() {
    let at = |bytes: &'static [u8], digest: Option<u128>| (Bytes::from_static(bytes), digest);
    let mut grown = Grown::default();
    for group in [
        vec![at(b"\xf0", Some(1)), at(b"\xf0\0", Some(2)), at(b"\xf0\0\0", Some(3))],
        vec![at(b"\xf0\x01", Some(4)), at(b"\xf0\x01\0", Some(5))],
        vec![at(b"\xf0", None), at(b"\xff", Some(6))],
    ] {
        grown.apply(SMALL, &group.into_iter().collect());
        grown.check(SMALL);
    }
}

#[test]
fn long_common_prefixes_cost_neither_stack_nor_time() {
    // Keys a, aa, aaa… below a common prefix: the deepest tree there is, one node for each.
    let limits =
        Limits { split_above: 8, split_bytes: 1 << 20, merge_below: 4, most_open: 100, remembered: 8 };
    let prefix = vec![b'p'; 4 << 10];
    let position = move |n: usize| Bytes::from([prefix.as_slice(), &vec![b'a'; n], &[0, 1, 0]].concat());
    let mut grown = Grown::default();
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    let work = move || {
        for from in (0..4_000).step_by(500) {
            let group = (from..from + 500).map(|n| (position(n), Some(n as u128))).collect();
            grown.apply(limits, &group);
        }
        grown.tree.check_shape().unwrap();
        assert_eq!(grown.tree.sum.entries, 4_000);
        assert_eq!(grown.tree.locate(&position(2_000)).before.entries, 2_000);
        let loaded = grown.load();
        assert_eq!(loaded.sum, grown.tree.sum);
        let (buckets, memory) = loaded.measure();
        assert!(buckets > 3_900, "{buckets}");
        assert!(memory < 2 << 20, "{memory} bytes: the prefix is kept once, not once a node");
        let group = (0..4_000).map(|n| (position(n), None)).collect();
        grown.apply(limits, &group);
        assert_eq!(grown.tree.buckets().count(), 0);
    };
    thread.spawn(work).unwrap().join().unwrap();
}
