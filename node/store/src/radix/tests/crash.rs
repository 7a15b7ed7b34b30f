//! After any crash, the index is that of the data that survived.

use super::*;
use crate::engine::{Durability, EngineError, SimulatedDisk, Table};

proptest! {
    #[test]
    fn a_crash_of_the_process_loses_nothing(groups in vec((vec(entries(), 1..20), any::<bool>()), 1..8)) {
        let (disk, mut model) = (SimulatedDisk::new(), Model::default());
        for (group, stops) in groups {
            let store = open(disk.open());
            prop_assert_eq!(store.summary(), model.summary(&everything()));
            model.write(&group);
            run(store.write(group)).unwrap();
            if stops {
                run(store.close()).unwrap();
            }
            drop(store);
            disk.crash_process();
        }
        let view = open(disk.open()).view();
        view.verify().unwrap();
        model.check(&view, &everything());
    }

    #[test]
    fn a_crash_of_the_machine_leaves_an_index_of_what_survived(
        groups in vec((vec(entries(), 1..20), any::<bool>()), 1..8),
        keep in 0usize..10,
    ) {
        let disk = SimulatedDisk::new();
        let engine: Arc<dyn Engine> = disk.open();
        let store = open(Arc::clone(&engine));
        let mut states = vec![Model::default()];
        let mut synced = 0;
        for (group, sync) in groups {
            let mut model = states.last().unwrap().clone();
            model.write(&group);
            states.push(model);
            run(store.write(group)).unwrap();
            if sync {
                engine.sync().unwrap();
                synced = states.len() - 1;
            }
        }
        drop((store, engine));
        disk.crash_machine(keep);
        let view = open(disk.open()).view();
        view.verify().unwrap();
        let survived = Model(view.scan(&everything(), Direction::Forward).map(|entry| {
            let Entry { position, record } = entry.unwrap();
            (position, record)
        }).collect());
        prop_assert!(states[synced..].contains(&survived), "what survived is no state that was after the last sync");
        survived.check(&view, &everything());
    }
}

#[test]
fn a_store_that_was_closed_opens_without_counting() {
    let engine: Arc<dyn Engine> = SimulatedDisk::new().open();
    let store = open(Arc::clone(&engine));
    let entry = |n: u64| {
        let position = Position::of_hash(KS, n << 40);
        Entry { position, record: Record::value(Version::new(1, 0, NodeId(1)), Bytes::new()) }
    };
    run(store.write((1..100).map(entry).collect())).unwrap();
    run(store.write(vec![entry(100)])).unwrap();
    run(store.write(vec![entry(300)])).unwrap();
    let open_rows = || {
        let rows = engine.scan(Table::Index, &[], &[0xff; 4], Direction::Forward).map(Result::unwrap);
        rows.filter(|(_, value)| value.is_empty()).count()
    };
    assert!(open_rows() > 0);
    run(store.close()).unwrap();
    assert_eq!(open_rows(), 0);
    open(engine).view().verify().unwrap();
}

/// A store that syncs before it acknowledges.
fn open_synced(disk: &SimulatedDisk, threaded: bool) -> Store {
    let committer = CommitterSettings { durability: Durability::Always, ..CommitterSettings::default() };
    let settings = StoreSettings { committer, offload: Offload::Inline, threaded, limits: SMALL };
    Store::open(disk.open(), KEY, settings).unwrap()
}

#[test]
fn under_always_nothing_is_read_that_was_not_synced() {
    for threaded in [false, true] {
        let disk = SimulatedDisk::new();
        let store = open_synced(&disk, threaded);
        let entry = |n: u64, ms: u64| {
            let position = Position::of_hash(KS, n << 40);
            Entry { position, record: Record::value(Version::new(ms, 0, NodeId(1)), Bytes::new()) }
        };
        run(store.write(vec![entry(1, 1)])).unwrap();
        let before = store.view().total();
        disk.fail_syncs(Some(EngineError::Failed("the cable is out".to_owned())));
        assert!(run(store.write(vec![entry(1, 2), entry(2, 2)])).is_err());
        // READ-SYNCED: not in any way of reading, since a power cut would unread it.
        assert_eq!(run(store.get(&entry(1, 0).position)).unwrap(), Some(entry(1, 1).record));
        assert_eq!(run(store.get_many(&[entry(2, 0).position], usize::MAX)).unwrap(), [None]);
        assert_eq!((store.view().total(), store.summary()), (before, before));
        let seen: Vec<Entry> =
            store.view().scan(&everything(), Direction::Forward).map(Result::unwrap).collect();
        assert_eq!(seen, [entry(1, 1)]);
        store.view().verify().unwrap();
        assert!(store.view().get(&entry(2, 0).position).unwrap().is_none());
    }
}

#[test]
fn what_an_open_store_finds_is_synced_before_it_is_read_under_always() {
    let disk = SimulatedDisk::new();
    let position = Position::of_hash(KS, 1 << 40);
    let entry = Entry { position, record: Record::value(Version::new(1, 0, NodeId(1)), Bytes::new()) };
    // Interval: the process dies before it has synced, and the next one is set to `always`.
    run(open(disk.open()).write(vec![entry.clone()])).unwrap();
    disk.crash_process();
    let store = open_synced(&disk, false);
    assert_eq!(run(store.get(&entry.position)).unwrap(), Some(entry.record.clone()));
    drop(store);
    disk.crash_machine(0);
    assert_eq!(run(open(disk.open()).get(&entry.position)).unwrap(), Some(entry.record));
}
