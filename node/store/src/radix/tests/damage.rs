//! One damaged record holds up nothing that is beside it.

use super::*;
use crate::{
    engine::{Batch, EngineError, SimulatedDisk, Table},
    radix::CommitError,
};
use std::collections::BTreeSet;

/// All of a test's records are in one bucket.
const LARGE: Limits = Limits { split_above: 64, split_bytes: 1 << 20, merge_below: 16, ..SMALL };

fn entry(n: u64, ms: u64) -> Entry {
    let version = Version::new(ms, 0, NodeId(1));
    Entry { position: Position::of_hash(KS, n << 40), record: Record::value(version, format!("at {ms}")) }
}

fn entries(ms: u64) -> Vec<Entry> {
    (0..40).map(|n| entry(n, ms)).collect()
}

/// How a record is damaged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    /// The engine refuses to read it.
    Checksum,
    /// What it reads is no record.
    Bytes,
}

/// A store with records 7 and 21 damaged, each in a bucket of its own.
fn damaged(how: Damage, closed: bool) -> (SimulatedDisk, Store) {
    damaged_with(how, closed, SMALL)
}

fn damaged_with(how: Damage, closed: bool, limits: Limits) -> (SimulatedDisk, Store) {
    let disk = SimulatedDisk::new();
    let store = open_with(disk.open(), limits);
    run(store.write(entries(10))).unwrap();
    if closed {
        run(store.close()).unwrap();
    }
    drop(store);
    for n in [7, 21] {
        damage(&disk, how, n);
    }
    let store = open_with(disk.open(), limits);
    (disk, store)
}

fn damage(disk: &SimulatedDisk, how: Damage, n: u64) {
    let position = entry(n, 0).position.into_bytes();
    match how {
        Damage::Checksum => disk.corrupt(Table::Data, position),
        Damage::Bytes => {
            let mut batch = Batch::default();
            batch.put(Table::Data, position, vec![77]);
            disk.open().commit(batch).unwrap();
        }
    }
}

/// Overwrites what is damaged, as the replica does.
fn overwrite(store: &Store, entries: Vec<Entry>) -> Result<Vec<Verdict>, CommitError> {
    let positions: Vec<Position> = entries.iter().map(|entry| entry.position.clone()).collect();
    let beside = run(store.damaged_beside(&positions)).unwrap();
    run(store.write_over_damage(entries, beside, u64::MAX))
}

fn is_damaged(n: usize) -> bool {
    [7, 21].contains(&n)
}

#[test]
fn a_damaged_record_fails_no_entry_beside_it() {
    for how in [Damage::Checksum, Damage::Bytes] {
        let (_disk, store) = damaged(how, true);
        let verdicts = run(store.write(entries(20))).unwrap();
        for (n, verdict) in verdicts.iter().enumerate() {
            let expected = if is_damaged(n) { Verdict::Damaged } else { Verdict::Applied };
            assert_eq!(*verdict, expected, "{how:?}: record {n}");
        }
        for n in 0..40 {
            let found = run(store.get(&entry(n, 0).position));
            match is_damaged(n as usize) {
                true => assert!(matches!(found, Err(EngineError::Corrupt(_))), "{how:?}: it is not served"),
                false => assert_eq!(found.unwrap(), Some(entry(n, 20).record)),
            }
        }
        let forgotten = run(store.forget(vec![(entry(7, 0).position, entry(7, 10).record.version)])).unwrap();
        assert_eq!(forgotten, [Verdict::Damaged], "{how:?}: whether it has that version is not known");
    }
}

#[test]
fn a_damaged_record_is_overwritten_by_who_says_so_and_its_bucket_is_counted_anew() {
    for how in [Damage::Checksum, Damage::Bytes] {
        let (disk, store) = damaged(how, true);
        // One after the other, so that the bucket is counted while another record in it may be damaged still.
        assert_eq!(overwrite(&store, vec![entry(7, 5)]).unwrap(), [Verdict::Applied]);
        assert_eq!(overwrite(&store, vec![entry(21, 5)]).unwrap(), [Verdict::Applied]);
        let view = store.view();
        view.verify().unwrap();
        let mut model = Model::default();
        let stored: Vec<Entry> =
            (0..40).map(|n| entry(n, if is_damaged(n as usize) { 5 } else { 10 })).collect();
        model.write(&stored);
        model.check(&view, &everything());
        // As after any write: the newer one wins, and a start finds the same.
        assert_eq!(
            run(store.write(vec![entry(7, 4)])).unwrap(),
            [Verdict::Superseded(entry(7, 5).record.version)]
        );
        assert_eq!(run(store.write(vec![entry(21, 6)])).unwrap(), [Verdict::Applied]);
        let sum = store.summary();
        drop(store);
        disk.crash_process();
        let store = open(disk.open());
        assert_eq!(store.summary(), sum);
        store.view().verify().unwrap();
    }
}

#[test]
fn both_damaged_records_of_a_bucket_may_be_overwritten_at_once_and_with_others() {
    for how in [Damage::Checksum, Damage::Bytes] {
        let (_disk, store) = damaged(how, true);
        let verdicts = overwrite(&store, entries(20)).unwrap();
        assert_eq!(verdicts, [Verdict::Applied; 40], "{how:?}");
        store.view().verify().unwrap();
        let mut model = Model::default();
        model.write(&entries(20));
        model.check(&store.view(), &everything());
    }
}

#[test]
fn a_bucket_with_a_damaged_record_takes_new_ones() {
    for how in [Damage::Checksum, Damage::Bytes] {
        let (_disk, store) = damaged(how, true);
        // More than a bucket may hold, all beside the damaged one: it would be split.
        let beside = |n: u64| {
            let position = Position::of_hash(KS, (7 << 40) + n);
            Entry { position, record: Record::value(Version::new(30, 0, NodeId(1)), "beside") }
        };
        for n in 1..30 {
            assert_eq!(run(store.write(vec![beside(n)])).unwrap(), [Verdict::Applied], "{how:?}");
        }
        assert_eq!(overwrite(&store, vec![entry(7, 40)]).unwrap(), [Verdict::Applied]);
        assert_eq!(overwrite(&store, vec![entry(21, 40)]).unwrap(), [Verdict::Applied]);
        let view = store.view();
        view.verify().unwrap();
        assert_eq!(view.total().entries, 40 + 29);
    }
}

#[test]
fn what_is_remembered_of_a_damaged_record_counts_no_more_once_its_bucket_was_counted() {
    for (remembered, at_once) in [(1, true), (8, true), (8, false), (64, true), (64, false)] {
        let engine: Arc<dyn Engine> = SimulatedDisk::new().open();
        // Not opened again: what was written last is remembered.
        let store = open_with(Arc::clone(&engine), Limits { remembered, ..LARGE });
        run(store.write(entries(10))).unwrap();
        run(store.write(vec![entry(9, 11)])).unwrap();
        let mut batch = Batch::default();
        for entry in entries(10) {
            batch.put(Table::Data, entry.position.into_bytes(), vec![77]);
        }
        engine.commit(batch).unwrap();
        let groups: Vec<Vec<Entry>> = match at_once {
            true => vec![entries(20)],
            false => entries(20).into_iter().map(|entry| vec![entry]).collect(),
        };
        for group in groups {
            let verdicts = overwrite(&store, group).unwrap();
            assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Applied));
        }
        store.view().verify().unwrap();
        let mut model = Model::default();
        model.write(&entries(20));
        model.check(&store.view(), &everything());
    }
}

#[test]
fn what_is_beside_damage_is_read_in_one_scan() {
    for how in [Damage::Checksum, Damage::Bytes] {
        for limits in [SMALL, LARGE] {
            let (_disk, store) = damaged_with(how, true, limits);
            let view = store.view();
            let range =
                |from, to| PositionRange { start: entry(from, 0).position, end: entry(to, 0).position };
            for (from, to) in [(0, 40), (7, 8), (8, 40), (0, 22), (7, 22)] {
                let found: Result<Vec<Entry>, EngineError> = view.readable(&range(from, to)).collect();
                let expected: Vec<Entry> =
                    (from..to).filter(|n| !is_damaged(*n as usize)).map(|n| entry(n, 10)).collect();
                assert_eq!(found.unwrap(), expected, "{how:?}: {from}..{to}");
            }
            assert_eq!(view.estimate(&range(0, 40)).unwrap().entries, 40);
            assert_eq!(view.estimate(&range(6, 9)).unwrap().entries, 3);
            let parts = [range(0, 6), range(6, 9), range(9, 9), range(9, 22), range(22, 40)];
            let estimate = |part: &PositionRange| view.estimate(part).unwrap();
            let estimates: Vec<Summary> = parts.iter().map(estimate).collect();
            assert_eq!(view.estimates(&parts).unwrap(), estimates, "{how:?}");
        }
    }
}

/// Removes all that stands in a range, as the replica does. Says whether it is gone.
fn drop_all(store: &Store, range: PositionRange) -> bool {
    let noted = Arc::new(run(store.damaged_outside(&range)).unwrap());
    let mut rest = range;
    let mut all = true;
    while !rest.is_empty() {
        let part = store.first_part(&rest);
        rest.start = part.end.clone();
        all &= run(store.drop_part(part, &noted)).unwrap();
    }
    all
}

#[test]
fn what_is_dropped_takes_damaged_records_along_and_leaves_the_others() {
    for how in [Damage::Checksum, Damage::Bytes] {
        let ranges = [(0, 40), (5, 30), (7, 22), (6, 9), (7, 8), (20, 22), (21, 40)];
        for (limits, (from, to)) in
            [SMALL, LARGE].into_iter().flat_map(|limits| ranges.map(|range| (limits, range)))
        {
            let (disk, store) = damaged_with(how, true, limits);
            let range = PositionRange { start: entry(from, 0).position, end: entry(to, 0).position };
            // A bucket of which neither what goes nor what stays can be counted stays as it is.
            let counts = limits == SMALL || how == Damage::Bytes || from <= 7 && to > 21;
            let before = store.summary();
            assert_eq!(drop_all(&store, range.clone()), counts, "{how:?}: {from}..{to}");
            if !counts {
                assert_eq!(store.summary(), before);
                continue;
            }
            let kept: Vec<u64> = (0..40).filter(|n| !(from..to).contains(n)).collect();
            for n in 0..40 {
                let found = run(store.get(&entry(n, 0).position));
                match (kept.contains(&n), is_damaged(n as usize)) {
                    (false, _) => assert_eq!(found.unwrap(), None, "{how:?}: {from}..{to}: record {n}"),
                    (true, true) => assert!(found.is_err()),
                    (true, false) => assert_eq!(found.unwrap(), Some(entry(n, 10).record)),
                }
            }
            let again: Vec<Entry> = kept.iter().map(|n| entry(*n, 30)).collect();
            overwrite(&store, again.clone()).unwrap();
            let mut model = Model::default();
            model.write(&again);
            store.view().verify().unwrap();
            model.check(&store.view(), &everything());
            // And what a start finds is the same.
            drop(store);
            disk.crash_process();
            open(disk.open()).view().verify().unwrap();
        }
    }
}

#[test]
fn a_store_with_damaged_records_in_open_buckets_opens_and_says_that_it_is_short() {
    // All buckets may be open.
    let wide = |limits| Limits { most_open: 64, split_bytes: 1 << 20, ..limits };
    let hows = [Damage::Checksum, Damage::Bytes].into_iter();
    for (how, limits) in hows.flat_map(|how| [SMALL, LARGE].map(|limits| (how, wide(limits)))) {
        // None of a bucket, one, all of one, all beside one another, all there is.
        for which in [0..0, 7..8, 4..8, 3..30, 0..40] {
            let disk = SimulatedDisk::new();
            let store = open_with(disk.open(), limits);
            run(store.write(entries(5))).unwrap();
            run(store.write(entries(10))).unwrap();
            which.clone().for_each(|n| damage(&disk, how, n));
            let said = format!("{how:?} with {} a bucket: {which:?}", limits.split_above);
            let mut starts = 0;
            // Again and again: it is there still.
            let store = loop {
                disk.crash_process();
                let store = open_with(disk.open(), limits);
                assert_eq!(store.is_short(), !which.is_empty(), "{said}");
                assert_eq!(store.summary().entries, 40 - which.clone().count() as u64, "{said}");
                for n in 0..40 {
                    let found = run(store.get(&entry(n, 0).position));
                    match which.contains(&n) {
                        true => assert!(matches!(found, Err(EngineError::Corrupt(_))), "{said}"),
                        false => assert_eq!(found.unwrap(), Some(entry(n, 10).record), "{said}"),
                    }
                }
                starts += 1;
                if starts == 3 {
                    break store;
                }
            };
            assert_eq!(store.view().verify().is_ok(), which.is_empty(), "it is told: {said}");
            // Beside what is damaged, then over it.
            let beside: Vec<Entry> = (0..40).filter(|n| !which.contains(n)).map(|n| entry(n, 15)).collect();
            assert!(run(store.write(beside)).unwrap().iter().all(|verdict| *verdict == Verdict::Applied));
            assert_eq!(overwrite(&store, entries(20)).unwrap(), [Verdict::Applied; 40]);
            let mut model = Model::default();
            model.write(&entries(20));
            store.view().verify().unwrap();
            model.check(&store.view(), &everything());
            drop(store);
            disk.crash_process();
            let store = open_with(disk.open(), limits);
            assert!(!store.is_short(), "{said}");
            store.view().verify().unwrap();
            model.check(&store.view(), &everything());
        }
    }
}

/// What is beside a damaged record is told from it however much their keys share.
#[test]
fn of_keys_that_share_much_no_more_is_passed_over_than_is_damaged() {
    let limits = Limits { most_open: 64, ..LARGE };
    for shared in [0, 1, 7, 8, 9, 30, 100] {
        let of = |n: u64| {
            let key = format!("{:a>shared$}{n:03}", "");
            let position = Position::of_ordered_bound(KS, key.as_bytes());
            Entry { position, record: Record::value(Version::new(10, 0, NodeId(1)), "v") }
        };
        let disk = SimulatedDisk::new();
        let store = open_with(disk.open(), limits);
        run(store.write((0..12).map(of).collect())).unwrap();
        drop(store);
        disk.crash_process();
        for n in [0, 5, 6, 9] {
            disk.corrupt(Table::Data, of(n).position.into_bytes());
        }
        let store = open_with(disk.open(), limits);
        assert!(store.is_short());
        assert_eq!(store.summary().entries, 8, "{shared} bytes are shared");
        let others: Vec<Entry> = (0..12).filter(|n| ![0, 5, 6, 9].contains(n)).map(of).collect();
        assert!(run(store.write(others)).unwrap().iter().all(|verdict| *verdict == Verdict::Equal));
    }
}

/// A bucket of which nothing is left but what a start passed over is there for the next start.
#[test]
fn what_was_passed_over_is_found_again_though_nothing_is_left_beside_it() {
    for (limits, count) in [(LARGE, 3), (LARGE, 40), (SMALL, 3), (SMALL, 40)] {
        let limits = Limits { most_open: 64, split_bytes: 1 << 20, ..limits };
        let disk = SimulatedDisk::new();
        let store = open_with(disk.open(), limits);
        // Twice, so that no row says what its bucket holds.
        for ms in [5, 10] {
            run(store.write((0..count).map(|n| entry(n, ms)).collect())).unwrap();
        }
        drop(store);
        disk.crash_process();
        damage(&disk, Damage::Checksum, 1);
        let store = open_with(disk.open(), limits);
        assert!(store.is_short());
        let others: Vec<u64> = (0..count).filter(|n| *n != 1).collect();
        let version = entry(0, 10).record.version;
        for n in others {
            let forgotten = run(store.forget(vec![(entry(n, 0).position, version)])).unwrap();
            assert_eq!(forgotten, [Verdict::Applied]);
        }
        assert_eq!(store.summary().entries, 0);
        drop(store);
        for _ in 0..2 {
            disk.crash_process();
            let store = open_with(disk.open(), limits);
            assert!(store.is_short(), "{count} records: what is damaged is not looked for any more");
        }
        // Once it is overwritten, all is as it was.
        let store = open_with(disk.open(), limits);
        assert_eq!(overwrite(&store, vec![entry(1, 20)]).unwrap(), [Verdict::Applied]);
        store.view().verify().unwrap();
        drop(store);
        disk.crash_process();
        let store = open_with(disk.open(), limits);
        assert!(!store.is_short() && store.summary().entries == 1);
        store.view().verify().unwrap();
    }
}

#[test]
fn a_store_whose_damaged_records_are_in_closed_buckets_is_not_short() {
    for how in [Damage::Checksum, Damage::Bytes] {
        let (_disk, store) = damaged(how, true);
        assert!(!store.is_short());
        assert_eq!(store.summary().entries, 40, "what they add is known");
    }
}

/// What is done to a store.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<u64>),
    Over(Vec<u64>),
    Forget(u64),
    Damage(Damage, u64),
    /// What the engine refused it reads again.
    Heal(u64),
    Kill,
    Close,
    Drop(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || vec(0u64..12, 1..4);
    let step = prop_oneof![
        4 => some().prop_map(Step::Write),
        2 => some().prop_map(Step::Over),
        1 => (0u64..12).prop_map(Step::Forget),
        3 => (select(vec![Damage::Checksum, Damage::Bytes]), 0u64..12).prop_map(|(how, n)| Step::Damage(how, n)),
        2 => (0u64..12).prop_map(Step::Heal),
        3 => Just(Step::Kill),
        1 => Just(Step::Close),
        1 => (0u64..12, 0u64..12).prop_map(|(a, b)| Step::Drop(a.min(b), a.max(b))),
    ];
    vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever was damaged and when, it starts, and once all is written anew the index says what the data say.
    #[test]
    fn damage_leaves_nothing_wrong_behind(steps in steps(), large in any::<bool>()) {
        let limits = if large { LARGE } else { SMALL };
        let disk = SimulatedDisk::new();
        let mut store = open_with(disk.open(), limits);
        for (ms, step) in (1..).zip(steps) {
            let written = |which: Vec<u64>| -> Vec<Entry> { which.into_iter().map(|n| entry(n, ms)).collect() };
            match step {
                Step::Write(which) => drop(run(store.write(written(which))).unwrap()),
                Step::Over(which) => drop(overwrite(&store, written(which)).unwrap()),
                Step::Forget(n) => {
                    if let Ok(Some(record)) = run(store.get(&entry(n, 0).position)) {
                        run(store.forget(vec![(entry(n, 0).position, record.version)])).unwrap();
                    }
                }
                Step::Damage(how, n) => {
                    if matches!(run(store.get(&entry(n, 0).position)), Ok(Some(_))) {
                        damage(&disk, how, n);
                    }
                }
                Step::Heal(n) => disk.heal(Table::Data, &entry(n, 0).position.into_bytes()),
                Step::Close => {
                    run(store.close()).unwrap();
                    store = open_with(disk.open(), limits);
                }
                Step::Kill => {
                    disk.crash_process();
                    store = open_with(disk.open(), limits);
                }
                Step::Drop(from, to) => {
                    let range = PositionRange { start: entry(from, 0).position, end: entry(to, 0).position };
                    drop_all(&store, range);
                }
            }
        }
        let all: Vec<Entry> = (0..12).map(|n| entry(n, 1_000)).collect();
        prop_assert_eq!(overwrite(&store, all.clone()).unwrap(), [Verdict::Applied; 12]);
        let mut model = Model::default();
        model.write(&all);
        store.view().verify().unwrap();
        model.check(&store.view(), &everything());
        disk.crash_process();
        let store = open_with(disk.open(), limits);
        prop_assert!(!store.is_short());
        store.view().verify().unwrap();
        model.check(&store.view(), &everything());
    }
}

#[test]
fn rows_are_rebuilt_around_a_damaged_record() {
    let (disk, store) = damaged(Damage::Bytes, true);
    drop(store);
    let engine: Arc<dyn Engine> = disk.open();
    assert_eq!(Store::rebuild(&*engine, KEY).unwrap().entries, 38);
    let store = open(engine);
    assert_eq!(overwrite(&store, entries(20)).unwrap(), [Verdict::Applied; 40]);
    store.view().verify().unwrap();
}

#[test]
fn a_damaged_record_is_not_overwritten_before_those_beside_it_are_noted() {
    let (_disk, store) = damaged_with(Damage::Bytes, true, LARGE);
    let over = |noted: &[u64]| {
        let noted: BTreeSet<Position> = noted.iter().map(|n| entry(*n, 0).position).collect();
        run(store.write_over_damage(vec![entry(7, 20)], noted, u64::MAX)).unwrap()
    };
    let before = store.summary();
    assert_eq!(over(&[]), [Verdict::Damaged]);
    assert_eq!(over(&[7]), [Verdict::Damaged]);
    assert_eq!(store.summary(), before, "what is beside it counts");
    let beside = run(store.damaged_beside(&[entry(7, 0).position, entry(9, 0).position])).unwrap();
    assert_eq!(beside, BTreeSet::from([entry(21, 0).position]));
    assert_eq!(over(&[21]), [Verdict::Applied]);
    assert_eq!(store.summary().entries, 39, "it does not any more");
}

#[test]
fn a_damaged_record_is_not_dropped_before_those_beside_its_range_are_noted() {
    let (_disk, store) = damaged_with(Damage::Bytes, true, LARGE);
    for (from, to, outside) in [(0, 10, 21), (20, 40, 7)] {
        let range = PositionRange { start: entry(from, 0).position, end: entry(to, 0).position };
        let before = store.summary();
        assert!(!run(store.drop_part(range.clone(), &Arc::default())).unwrap());
        assert_eq!(store.summary(), before);
        let noted = run(store.damaged_outside(&range)).unwrap();
        assert_eq!(noted, BTreeSet::from([entry(outside, 0).position]));
        assert!(run(store.damaged_beside(&[entry(outside, 0).position])).unwrap().len() == 1);
    }
    let range = PositionRange { start: entry(0, 0).position, end: entry(10, 0).position };
    let noted = Arc::new(run(store.damaged_outside(&range)).unwrap());
    assert!(run(store.drop_part(range, &noted)).unwrap());
    assert_eq!(store.summary().entries, 29);
}
