//! The same over RocksDB, with a writer's thread.

use super::*;
use crate::engine::{RocksEngine, RocksSettings};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

fn settings() -> StoreSettings {
    StoreSettings {
        committer: CommitterSettings::default(),
        offload: Offload::Threads,
        threaded: true,
        limits: Limits {
            split_above: 64,
            split_bytes: 1 << 20,
            merge_below: 16,
            most_open: 20,
            remembered: 64,
        },
    }
}

fn open_rocks(dir: &Path) -> Arc<Store> {
    let engine = RocksEngine::open(dir, &RocksSettings::default()).unwrap();
    Arc::new(Store::open(engine, KEY, settings()).unwrap())
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
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for ms in 1..20 {
                    let from = (writer as usize * 300 + ms as usize * 71) % 3_000;
                    let group = (from..from + 200).map(|n| entry(n, ms)).collect();
                    store.write(group).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Release);
    watcher.await.unwrap();

    let mut model = Model::default();
    for writer in 0..4usize {
        for ms in 1..20u64 {
            let from = (writer * 300 + ms as usize * 71) % 3_000;
            model.write(&(from..from + 200).map(|n| entry(n, ms)).collect::<Vec<_>>());
        }
    }
    let before = store.summary();
    assert_eq!(before, model.summary(&everything()));
    assert!(store.figures().buckets > 10);
    store.close().await.unwrap();
    drop(store);

    let store = open_rocks(dir.path());
    assert_eq!(store.summary(), before);
    let view = store.view();
    view.verify().unwrap();
    let half = PositionRange { start: Position::of_hash(KS, 1 << 62), end: Position::of_hash(KS, 3 << 62) };
    model.check(&view, &half);
    let positions: Vec<Position> = (0..4_000).map(|n| entry(n, 1).position).collect();
    let found = store.get_many(&positions).await.unwrap();
    let expected: Vec<Option<Record>> = positions.iter().map(|p| model.0.get(p).cloned()).collect();
    assert_eq!(found, expected);
    store.stop();
}
