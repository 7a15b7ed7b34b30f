//! A store over the simulated engine, against the model.

use super::*;
use crate::engine::{Batch, EngineError, Pressure, SimulatedDisk, Table};
use crate::radix::CommitError;
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

fn fresh() -> Store {
    open(SimulatedDisk::new().open())
}

proptest! {
    #[test]
    fn a_store_answers_as_a_naive_map_does(
        groups in vec(vec(entries(), 1..30), 1..8),
        ranges in vec(ranges(), 1..6),
    ) {
        let (store, mut model) = (fresh(), Model::default());
        for group in groups {
            let expected = model.write(&group);
            let positions: Vec<Position> = group.iter().map(|entry| entry.position.clone()).collect();
            prop_assert_eq!(run(store.write(group)).unwrap(), expected);
            let there: Vec<Option<Record>> = positions.iter().map(|p| model.0.get(p).cloned()).collect();
            prop_assert_eq!(run(store.get_many(&positions, usize::MAX)).unwrap(), there);
        }
        let view = store.view();
        view.verify().unwrap();
        prop_assert_eq!(store.summary(), model.summary(&everything()));
        prop_assert_eq!(view.total(), store.summary());
        ranges.iter().chain([&everything()]).for_each(|range| model.check(&view, range));
        for (position, record) in &model.0 {
            prop_assert_eq!(run(store.get(position)).unwrap(), Some(record.clone()));
            prop_assert_eq!(view.get(position).unwrap(), Some(record.clone()));
            prop_assert_eq!(run(store.get(&position.next())).unwrap(), None);
        }
    }

    #[test]
    fn every_order_of_writing_ends_in_the_same_store(
        entries in vec(entries(), 1..80),
        seed: u64,
        size in 1usize..20,
        range in ranges(),
    ) {
        let (one, other) = (fresh(), fresh());
        run(one.write(entries.clone())).unwrap();
        let mut shuffled = entries;
        shuffled.shuffle(&mut SmallRng::seed_from_u64(seed));
        for group in shuffled.chunks(size) {
            run(other.write(group.to_vec())).unwrap();
        }
        let (one, other) = (one.view(), other.view());
        prop_assert_eq!(one.total(), other.total());
        prop_assert_eq!(one.summary(&range).unwrap(), other.summary(&range).unwrap());
        prop_assert_eq!(one.split_point(&range).unwrap(), other.split_point(&range).unwrap());
        let all = |view: &View| view.scan(&everything(), Direction::Forward).map(Result::unwrap).collect::<Vec<_>>();
        prop_assert_eq!(all(&one), all(&other));
    }

    #[test]
    fn digests_are_equal_just_where_states_are(
        entries in vec((entries(), 0u8..8), 1..40),
        range in ranges(),
    ) {
        let (one, other) = (fresh(), fresh());
        let (mut left, mut right) = (Model::default(), Model::default());
        for (entry, misses) in entries {
            if misses != 0 {
                left.write(std::slice::from_ref(&entry));
                run(one.write(vec![entry.clone()])).unwrap();
            }
            if misses != 1 {
                right.write(std::slice::from_ref(&entry));
                run(other.write(vec![entry])).unwrap();
            }
        }
        let equal = left.within(&range).eq(right.within(&range));
        let digest = |store: &Store| store.view().summary(&range).unwrap().digest;
        prop_assert_eq!(digest(&one) == digest(&other), equal);
    }

    #[test]
    fn a_view_stays_as_it_was_while_writes_go_on(groups in vec(vec(entries(), 1..20), 1..8), range in ranges()) {
        let (store, mut model) = (fresh(), Model::default());
        let mut kept = vec![(store.view(), model.clone())];
        for group in groups {
            model.write(&group);
            run(store.write(group)).unwrap();
            kept.push((store.view(), model.clone()));
        }
        for (view, model) in kept {
            view.verify().unwrap();
            model.check(&view, &range);
        }
    }

    #[test]
    fn what_is_forgotten_leaves_no_trace(
        entries in vec(entries(), 1..80),
        forgotten in vec((positions(), versions()), 1..40),
        some in vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let (store, mut model) = (fresh(), Model::default());
        model.write(&entries);
        run(store.write(entries)).unwrap();
        let stored: Vec<(Position, Version)> = model.0.iter().map(|(p, r)| (p.clone(), r.version)).collect();
        let mut which = forgotten;
        which.extend(some.iter().map(|at| at.get(&stored).clone()));
        let expected: Vec<Verdict> = which
            .iter()
            .map(|(position, version)| match model.0.get(position).map(|record| record.version) {
                None => Verdict::Equal,
                Some(there) if there == *version => {
                    model.0.remove(position);
                    Verdict::Applied
                }
                Some(there) => Verdict::Superseded(there),
            })
            .collect();
        prop_assert_eq!(run(store.forget(which)).unwrap(), expected);
        let view = store.view();
        view.verify().unwrap();
        model.check(&view, &everything());

        let untouched = fresh();
        run(untouched.write(model.within(&everything()).collect())).unwrap();
        prop_assert_eq!(untouched.summary(), store.summary());
    }
}

fn entry(key: &str, ms: u64, value: &str) -> Entry {
    let position = Position::of_key(KS, Partitioner::Hashed, key.as_bytes()).unwrap();
    Entry { position, record: Record::value(Version::new(ms, 0, NodeId(1)), value.to_owned()) }
}

fn many(count: usize) -> Vec<Entry> {
    (0..count).map(|n| entry(&format!("key {n}"), 1, "value")).collect()
}

#[test]
fn the_newest_of_a_group_stands_and_the_others_learn_of_it() {
    let store = fresh();
    let group = vec![entry("k", 2, "b"), entry("k", 1, "a"), entry("k", 3, "c"), entry("k", 2, "b")];
    let verdicts = run(store.write(group)).unwrap();
    let at = |ms| Version::new(ms, 0, NodeId(1));
    assert_eq!(
        verdicts,
        [Verdict::Applied, Verdict::Superseded(at(2)), Verdict::Applied, Verdict::Superseded(at(3))]
    );
    assert_eq!(store.summary().entries, 1);
    assert_eq!(run(store.write(vec![entry("k", 3, "c")])).unwrap(), [Verdict::Equal]);
    assert_eq!(run(store.write(Vec::new())).unwrap(), []);
}

#[test]
fn of_two_records_with_one_version_the_first_stays() {
    let store = fresh();
    run(store.write(vec![entry("k", 1, "first")])).unwrap();
    assert_eq!(run(store.write(vec![entry("k", 1, "second")])).unwrap(), [Verdict::Equal]);
    let position = entry("k", 1, "").position;
    assert_eq!(run(store.get(&position)).unwrap().unwrap().value, "first");
}

#[test]
fn a_position_above_all_keyspaces_is_refused() {
    let store = fresh();
    let record = Record::tombstone(Version::new(1, 0, NodeId(1)));
    let above = Entry { position: Position::from_bytes(&[0xff; 9][..]), record };
    assert!(run(store.write(vec![entry("k", 1, "v"), above])).is_err());
    assert_eq!(store.summary().entries, 0);
}

#[test]
fn missing_and_damaged_rows_are_refused_and_can_be_rebuilt() {
    let disk = SimulatedDisk::new();
    let engine: Arc<dyn Engine> = disk.open();
    let store = open(Arc::clone(&engine));
    run(store.write(many(500))).unwrap();
    let sum = store.summary();
    store.stop();
    drop(store);
    let first_row = || {
        let mut rows = engine.scan(Table::Index, &[], &[0xff; 4], Direction::Forward);
        rows.next().unwrap().unwrap()
    };
    type Damage<'a> = Box<dyn Fn(&mut Batch) + 'a>;
    let damages: Vec<Damage<'_>> = vec![
        Box::new(|batch| batch.delete_range(Table::Index, Bytes::new(), vec![0xff; 4])),
        Box::new(|batch| batch.put(Table::Index, first_row().0, vec![0; 47])),
        Box::new(|batch| batch.put(Table::Index, first_row().0, vec![0; 48])),
        Box::new(|batch| batch.put(Table::Index, vec![9, 9], first_row().1)),
        Box::new(|batch| batch.put(Table::Index, vec![0, 0], first_row().1)),
    ];
    for damage in damages {
        let mut batch = Batch::default();
        damage(&mut batch);
        engine.commit(batch).unwrap();
        let refused = try_open(Arc::clone(&engine)).map(|_| ()).unwrap_err();
        assert!(matches!(&refused, EngineError::Corrupt(why) if why.contains("rebuild")), "{refused}");
        assert_eq!(Store::rebuild(&*engine, KEY).unwrap(), sum);
        let store = open(Arc::clone(&engine));
        assert_eq!(store.summary(), sum);
        store.view().verify().unwrap();
        store.stop();
    }
}

#[test]
fn a_row_that_does_not_sum_up_its_data_is_found() {
    let engine: Arc<dyn Engine> = SimulatedDisk::new().open();
    let store = open(Arc::clone(&engine));
    run(store.write(many(50))).unwrap();
    store.stop();
    drop(store);
    let (key, value) =
        engine.scan(Table::Index, &[], &[0xff; 4], Direction::Forward).next().unwrap().unwrap();
    let mut wrong = value.to_vec();
    wrong[0] ^= 1;
    let mut batch = Batch::default();
    batch.put(Table::Index, key, wrong);
    engine.commit(batch).unwrap();
    let found = open(engine).view().verify().unwrap_err();
    assert!(matches!(found, EngineError::Corrupt(_)), "{found}");
}

#[test]
fn no_more_of_many_is_read_at_once_than_was_asked_for_in_bytes_but_for_one() {
    const MOST: usize = 100 << 10;
    for is_cold in [false, true] {
        let disk = SimulatedDisk::new();
        disk.be_cold(is_cold);
        let store = open(disk.open());
        let entries: Vec<Entry> =
            (0..40).map(|n| entry(&format!("key {n}"), 1, &"v".repeat(10 << 10))).collect();
        let positions: Vec<Position> = entries.iter().map(|entry| entry.position.clone()).collect();
        run(store.write(entries)).unwrap();
        let all = run(store.get_many(&positions, usize::MAX)).unwrap();
        assert!(all.len() == 40 && all.iter().all(Option::is_some));
        let mut in_parts = Vec::new();
        while in_parts.len() < positions.len() {
            let before = disk.reads();
            let part = run(store.get_many(&positions[in_parts.len()..], MOST)).unwrap();
            assert!((1..=10).contains(&part.len()) && disk.reads() - before == part.len(), "{}", part.len());
            in_parts.extend(part);
        }
        assert_eq!(in_parts, all);
        assert_eq!(run(store.get_many(&positions, 0)).unwrap(), all[..1]);
    }
    // Where buckets are large, what they hold is read by what it turns out to be, in more than one go.
    let disk = SimulatedDisk::new();
    disk.be_cold(true);
    let store = open_with(disk.open(), Limits::default());
    let entries: Vec<Entry> = (0..400).map(|n| entry(&format!("key {n}"), 1, &"v".repeat(100))).collect();
    let positions: Vec<Position> = entries[..40].iter().map(|entry| entry.position.clone()).collect();
    run(store.write(entries)).unwrap();
    assert_eq!(run(store.get_many(&positions, MOST)).unwrap().len(), 40);
}

#[test]
fn a_damaged_record_is_refused_and_not_served() {
    let engine: Arc<dyn Engine> = SimulatedDisk::new().open();
    let store = open(Arc::clone(&engine));
    run(store.write(many(10))).unwrap();
    let position = many(1).remove(0).position;
    let mut batch = Batch::default();
    batch.put(Table::Data, position.clone().into_bytes(), vec![77]);
    run(store.close()).unwrap();
    engine.commit(batch).unwrap();
    let store = open(engine);
    assert!(matches!(run(store.get(&position)), Err(EngineError::Corrupt(_))));
    assert!(run(store.get_many(&[position], usize::MAX)).is_err());
    assert!(store.view().verify().is_err());
    assert!(run(store.get(&many(2).remove(1).position)).unwrap().is_some());
}

#[test]
fn a_write_that_fails_leaves_data_and_index_as_they_were() {
    let disk = SimulatedDisk::new();
    let store = open(disk.open());
    run(store.write(many(20))).unwrap();
    let before = store.summary();
    disk.fail_writes(Some(EngineError::DiskFull("no room".to_owned())));
    let newer = (0..40).map(|n| entry(&format!("key {n}"), 2, "newer")).collect::<Vec<_>>();
    run(store.write(newer.clone())).unwrap_err();
    assert_eq!(store.summary(), before);
    store.view().verify().unwrap();
    disk.fail_writes(None);
    assert_eq!(run(store.write(newer)).unwrap(), [Verdict::Applied; 40]);
    store.view().verify().unwrap();
}

#[test]
fn keys_of_four_kib_with_a_common_prefix_are_counted_and_found() {
    let engine: Arc<dyn Engine> = SimulatedDisk::new().open();
    let store = open(Arc::clone(&engine));
    // Half of the prefix is zeros, which positions write as two bytes each.
    let prefix = [vec![0u8; 2000], vec![b'p'; 2000]].concat();
    let mut model = Model::default();
    for part in 0..6u8 {
        let group: Vec<Entry> = (0..40u8)
            .map(|n| {
                let key = [&prefix[..], &vec![n.wrapping_mul(37); usize::from(part) + 1]].concat();
                let position = Position::of_key(KS, Partitioner::Ordered, &key).unwrap();
                Entry { position, record: Record::value(Version::new(1, 0, NodeId(1)), vec![part; 3]) }
            })
            .collect();
        model.write(&group);
        run(store.write(group)).unwrap();
    }
    store.view().verify().unwrap();
    store.stop();
    let view = open(engine).view();
    view.verify().unwrap();
    model.check(&view, &everything());
    let middle = model.0.keys().nth(100).unwrap().clone();
    model.check(&view, &PositionRange { start: middle, end: everything().end });
}

#[test]
fn what_is_above_the_ceiling_gives_way_in_data_and_index() {
    let store = open(SimulatedDisk::new().open());
    let entry = |ms: u64| Entry {
        position: Position::of_hash(KS, 1 << 40),
        record: Record::value(Version::new(ms, 0, NodeId(1)), Bytes::new()),
    };
    run(store.write(vec![entry(9_000)])).unwrap();
    assert_eq!(run(store.write(vec![entry(5)])).unwrap(), [Verdict::Superseded(entry(9_000).record.version)]);
    assert_eq!(run(store.write_below(vec![entry(9_000)], 100)).unwrap(), [Verdict::Equal]);
    let written = run(store.write_below(vec![entry(7), entry(6), entry(8)], 100)).unwrap();
    assert_eq!(written, [Verdict::Applied, Verdict::Superseded(entry(7).record.version), Verdict::Applied]);
    assert_eq!(run(store.get(&entry(0).position)).unwrap(), Some(entry(8).record));
    store.view().verify().unwrap();
}

#[test]
fn a_full_disk_takes_what_makes_room_and_nothing_else() {
    let disk = SimulatedDisk::new();
    let store = open(disk.open());
    let at = |ms| Version::new(ms, 0, NodeId(1));
    let position = |key: &[u8]| Position::of_key(KS, Partitioner::Ordered, key).unwrap();
    let value = |key, ms| Entry { position: position(key), record: Record::value(at(ms), "v") };
    let expiring = Record { expires_at_ms: Some(9), ..Record::value(at(1), "v") };
    let expiring = Entry { position: position(b"c"), record: expiring };
    run(store.write(vec![value(b"a", 1), value(b"b", 1), expiring.clone()])).unwrap();

    disk.set_pressure(Some(Pressure::DiskFull("no room".to_owned())));
    let full = |done| matches!(done, Err(CommitError::DiskFull(_)));
    assert!(full(run(store.write(vec![value(b"a", 2)]))));
    let deletion = Entry { position: position(b"b"), record: Record::tombstone(at(2)) };
    assert!(full(run(store.write(vec![deletion.clone(), value(b"a", 2)]))), "not all of it makes room");
    assert_eq!(run(store.write(vec![deletion])).unwrap(), [Verdict::Applied]);
    let end = Entry { record: expiring.record.ended(9).unwrap(), ..expiring };
    assert_eq!(run(store.write(vec![end])).unwrap(), [Verdict::Applied]);
    assert_eq!(run(store.forget(vec![(position(b"a"), at(1))])).unwrap(), [Verdict::Applied]);
    store.view().verify().unwrap();
}
