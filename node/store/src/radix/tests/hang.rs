//! A disk that hangs keeps nobody waiting but those who write.

use super::*;
use crate::engine::{Durability, SimulatedDisk};
use std::{sync::mpsc, thread, time::Duration};

/// Longer than anything takes that does not wait for the disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does work on a thread of its own; `None`: it does not end.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, waits) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    waits.recv_timeout(PATIENCE).ok()
}

#[test]
fn while_the_disk_hangs_all_that_is_written_is_read_and_counted() {
    for durability in [Durability::None, Durability::Interval(Duration::from_secs(3_600)), Durability::Always]
    {
        let disk = SimulatedDisk::new();
        let committer = CommitterSettings { durability, ..CommitterSettings::default() };
        let settings =
            StoreSettings { committer, offload: Offload::threads(), threaded: true, limits: SMALL };
        let store = Arc::new(Store::open(disk.open(), KEY, settings).unwrap());
        let entry = |ms: u64| Entry {
            position: Position::of_hash(KS, 1 << 40),
            record: Record::value(Version::new(ms, 0, NodeId(1)), "v"),
        };
        run(store.write(vec![entry(1)])).unwrap();
        disk.hang(true);
        let writer = {
            let store = Arc::clone(&store);
            thread::spawn(move || run(store.write(vec![entry(2)])))
        };
        while disk.waiting() == 0 {
            thread::yield_now();
        }
        let reader = Arc::clone(&store);
        let read = ends(move || {
            let view = reader.view();
            let scanned = view.scan(&everything(), Direction::Forward).count();
            let found = run(reader.get(&entry(0).position)).unwrap();
            let many = run(reader.get_many(&[entry(0).position], usize::MAX)).unwrap();
            (scanned, found, many, reader.summary().entries, reader.figures().total.entries)
        });
        disk.hang(false);
        let old = Some(entry(1).record);
        assert_eq!(read, Some((1, old.clone(), vec![old], 1, 1)), "{durability:?}");
        assert_eq!(writer.join().unwrap().unwrap(), [Verdict::Applied]);
        assert_eq!(run(store.get(&entry(0).position)).unwrap(), Some(entry(2).record));
    }
}

/// THREADS-BOUNDED: what takes memory as thousands of others do is read by few at a time, and holds up none of them.
#[tokio::test]
async fn large_values_wait_for_threads_of_their_own_and_small_ones_for_none_of_those() {
    let offload = Offload::threads();
    let settings = StoreSettings {
        committer: CommitterSettings::default(),
        offload,
        threaded: true,
        limits: Limits { split_bytes: 1 << 20, ..SMALL },
    };
    let store = Store::open(SimulatedDisk::new().open(), KEY, settings).unwrap();
    let entry = |at: u64, bytes: usize| Entry {
        position: Position::of_hash(KS, at << 40),
        record: Record::value(Version::new(1, 0, NodeId(1)), vec![7; bytes]),
    };
    let sizes = [(1, 2 << 20), (2, 10), (3, 2 << 20), (4, 900 << 10)];
    store.write(sizes.map(|(at, bytes)| entry(at, bytes)).to_vec()).await.unwrap();
    let (go_on, hangs) = mpsc::channel::<()>();
    let hangs = Arc::new(parking_lot::Mutex::new(hangs));
    let hung = (0..crate::seam::LARGE_THREADS).map(|_| {
        let hangs = Arc::clone(&hangs);
        offload.large().run(move || hangs.lock().recv())
    });
    let hung = futures::future::join_all(hung);
    tokio::pin!(hung);
    assert!(futures::poll!(&mut hung).is_pending());
    for (at, bytes) in [(2, 10), (4, 900 << 10)] {
        let found = tokio::time::timeout(PATIENCE, store.get(&entry(at, 0).position)).await;
        assert_eq!(found.unwrap().unwrap().unwrap().value.len(), bytes);
    }
    let (first, third) = (entry(1, 0).position, entry(3, 0).position);
    let large = async { (store.get(&first).await, store.get(&third).await) };
    tokio::pin!(large);
    assert!(futures::poll!(&mut large).is_pending());
    drop(go_on);
    hung.await;
    let (first, third) = large.await;
    assert_eq!(first.unwrap().unwrap().value.len() + third.unwrap().unwrap().value.len(), 4 << 20);
}
