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
