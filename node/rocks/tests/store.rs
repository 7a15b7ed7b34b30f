//! The store over RocksDB, with a writer's thread, beside the same store over the simulated engine.
#![allow(clippy::unwrap_used)]

use god_proto::{
    ids::{KeyspaceId, NodeId},
    position::{Position, PositionRange},
    record::{Entry, Record},
    v1::Partitioner,
    version::Version,
};
use god_rocks::{RocksEngine, RocksSettings};
use god_store::{
    engine::{Batch, Direction, Engine, EngineError, SimulatedDisk, Table},
    radix::{CommitterSettings, Limits, Store, StoreSettings, Verdict},
    seam::Offload,
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const KS: KeyspaceId = KeyspaceId(7);
const KEY: [u8; 16] = *b"a cluster's name";
const LIMITS: Limits =
    Limits { split_above: 64, split_bytes: 1 << 20, merge_below: 16, most_open: 20, remembered: 64 };

fn open(engine: Arc<dyn Engine>, threaded: bool) -> Arc<Store> {
    let offload = if threaded { Offload::threads() } else { Offload::Inline };
    let settings =
        StoreSettings { committer: CommitterSettings::default(), offload, threaded, limits: LIMITS };
    Arc::new(Store::open(engine, KEY, settings).unwrap())
}

fn open_rocks(dir: &Path) -> Arc<Store> {
    open(RocksEngine::open(dir, &RocksSettings::default()).unwrap(), true)
}

fn entry(n: usize, ms: u64) -> Entry {
    let position = Position::of_key(KS, Partitioner::Hashed, format!("key {n}").as_bytes()).unwrap();
    let version = Version::new(ms, 0, NodeId(1));
    let record = if (n as u64 + ms).is_multiple_of(5) {
        Record::tombstone(version)
    } else {
        Record::value(version, format!("value {ms}"))
    };
    Entry { position, record }
}

fn group(writer: usize, ms: u64) -> Vec<Entry> {
    let from = (writer * 300 + ms as usize * 71) % 3_000;
    (from..from + 200).map(|n| entry(n, ms)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_rocksdb_views_are_whole_while_writers_write_and_a_reopened_store_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_rocks(dir.path());
    let done = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        tokio::task::spawn_blocking(move || {
            let mut looks = 0;
            while !done.load(Ordering::Acquire) || looks == 0 {
                store.view().verify().unwrap();
                looks += 1;
            }
        })
    };
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for ms in 1..20 {
                    store.write(group(writer, ms)).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Release);
    watcher.await.unwrap();

    // The simulated engine's store is held against a naive model by tests of its own.
    let model = open(SimulatedDisk::new().open(), false);
    for writer in 0..4 {
        for ms in 1..20 {
            model.write(group(writer, ms)).await.unwrap();
        }
    }
    let before = store.summary();
    assert!(before.entries > 2_000);
    assert_eq!(before, model.summary());
    assert!(store.figures().buckets > 10);
    store.close().await.unwrap();
    drop(store);

    let store = open_rocks(dir.path());
    assert_eq!(store.summary(), before);
    let (view, expected) = (store.view(), model.view());
    view.verify().unwrap();
    let half = PositionRange { start: Position::of_hash(KS, 1 << 62), end: Position::of_hash(KS, 3 << 62) };
    let sum = view.summary(&half).unwrap();
    assert_eq!(sum, expected.summary(&half).unwrap());
    for direction in [Direction::Forward, Direction::Reverse] {
        let all = |view: &god_store::radix::View| view.scan(&half, direction).collect::<Result<Vec<_>, _>>();
        assert_eq!(all(&view).unwrap(), all(&expected).unwrap());
    }
    for rank in [0, 1, sum.live_keys / 2, sum.live_keys - 1, sum.live_keys] {
        assert_eq!(view.select(&half, rank).unwrap(), expected.select(&half, rank).unwrap());
    }
    let positions: Vec<Position> = (0..4_000).map(|n| entry(n, 1).position).collect();
    let expected = model.get_many(&positions, usize::MAX).await.unwrap();
    assert_eq!(store.get_many(&positions, usize::MAX).await.unwrap(), expected);
    let mut in_parts = Vec::new();
    while in_parts.len() < positions.len() {
        in_parts.extend(store.get_many(&positions[in_parts.len()..], 16 << 10).await.unwrap());
    }
    assert_eq!(in_parts, expected);
    store.stop();
}

/// Flips a bit in the middle of the largest table file.
fn damage(dir: &Path) {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sst"));
    files.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let file = fs::OpenOptions::new().read(true).write(true).open(files.pop().unwrap()).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_beside_a_damaged_block_is_read_in_one_scan() {
    const COUNT: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open_rocks(dir.path());
    for from in (0..COUNT).step_by(1_000) {
        store.write((from..from + 1_000).map(|n| entry(n, 3)).collect()).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    // A start puts what the log has into a file.
    open_rocks(dir.path()).close().await.unwrap();
    damage(dir.path());

    let store = open_rocks(dir.path());
    let view = store.view();
    let all =
        PositionRange { start: Position::keyspace_start(KS), end: Position::keyspace_start(KeyspaceId(8)) };
    let scan = view.scan(&all, Direction::Forward).collect::<Result<Vec<_>, _>>();
    assert!(matches!(scan, Err(EngineError::Corrupt(_))), "a block is damaged");
    let readable = view.readable(&all).collect::<Result<Vec<_>, _>>().unwrap();
    assert!(readable.array_windows().all(|[a, b]| a.position < b.position));
    let mut single = 0;
    for n in 0..COUNT {
        single += usize::from(store.get(&entry(n, 3).position).await.is_ok());
    }
    assert!(single < COUNT && readable.len() == single, "{} of {single}", readable.len());
    let counted = (0..COUNT).filter(|n| {
        let start = entry(*n, 3).position;
        let end = start.next();
        match view.summary(&PositionRange { start, end }) {
            Ok(sum) => sum.entries == 1,
            Err(error) => !matches!(error, EngineError::Corrupt(_)),
        }
    });
    assert_eq!(counted.count(), single, "what is lent is checked as what is given");
    store.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_a_damaged_block_under_open_buckets_opens_and_goes_on_with_the_rest() {
    const COUNT: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { most_open: COUNT, ..LIMITS };
    let open = || {
        let engine = RocksEngine::open(dir.path(), &RocksSettings::default()).unwrap();
        let settings = StoreSettings {
            committer: CommitterSettings::default(),
            offload: Offload::threads(),
            threaded: true,
            limits,
        };
        Store::open(engine, KEY, settings).unwrap()
    };
    let store = open();
    // Twice: what a bucket is split into is closed until it is written to.
    for (ms, from) in [2, 3].into_iter().flat_map(|ms| (0..COUNT).step_by(1_000).map(move |from| (ms, from)))
    {
        store.write((from..from + 1_000).map(|n| entry(n, ms)).collect()).await.unwrap();
    }
    // No clean end: all that is written to is counted at the next start, which puts the log into a file.
    store.stop();
    drop(store);
    let store = open();
    assert!(!store.is_short());
    // Some of it is found in a newer file, whatever becomes of this one.
    store.write((0..COUNT).step_by(7).map(|n| entry(n, 4)).collect()).await.unwrap();
    store.stop();
    drop(store);
    damage(dir.path());

    let store = open();
    assert!(store.is_short());
    let counted = store.summary().entries;
    assert!(counted < COUNT as u64 && counted > COUNT as u64 / 2, "{counted}");
    // What is not counted is not written either, though some of it can be read one by one.
    let verdicts = store.write((0..COUNT).map(|n| entry(n, 9)).collect()).await.unwrap();
    let refused = |n: &usize| verdicts[*n] == Verdict::Damaged;
    assert_eq!((0..COUNT).filter(refused).count() as u64, COUNT as u64 - counted);
    let mut single = 0;
    for n in (0..COUNT).filter(refused) {
        single += usize::from(store.get(&entry(n, 4).position).await.is_ok());
    }
    assert!(single > 0, "none of it");
    let sum = store.summary();
    assert_eq!(sum.entries, counted);
    store.stop();
    drop(store);
    // Not often: RocksDB would begin to make one file of them all.
    let store = open();
    assert_eq!(store.summary(), sum, "a start counts what was counted as it was written");
    store.stop();
}

/// The files with a database's sorted tables.
fn sorted_tables(directory: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| Path::new(name).extension().is_some_and(|it| it == "sst")).collect()
}

#[test]
fn a_file_that_was_written_while_a_snapshot_was_held_is_not_written_again_for_that() {
    let directory = tempfile::tempdir().unwrap();
    // Memtables of 1 MiB at the most.
    let settings = RocksSettings { memory: 8 << 20, ..RocksSettings::default() };
    let engine = RocksEngine::open(directory.path(), &settings).unwrap();
    let write = |round: usize| {
        for key in 0..1_000_usize {
            let mut batch = Batch::default();
            batch.put(Table::Data, key.to_be_bytes().to_vec(), vec![round as u8; 1_000]);
            engine.commit(batch).unwrap();
        }
    };
    write(0);
    let held = engine.snapshot();
    write(1);
    let figure = |wanted: &str| engine.figures().into_iter().find(|(name, _)| *name == wanted).unwrap().1;
    let patience = Instant::now() + Duration::from_secs(30);
    while figure("running_flushes") + figure("immutable_memtables") > 0.0
        || sorted_tables(directory.path()).is_empty()
    {
        assert!(Instant::now() < patience, "nothing was flushed");
        thread::sleep(Duration::from_millis(20));
    }
    let before = sorted_tables(directory.path());
    drop(held);
    thread::sleep(Duration::from_secs(1));
    assert!(sorted_tables(directory.path()).is_superset(&before), "{before:?} was written again");
}
