//! How RocksDB keeps up, read before it would stall, and how much room the disk has.

use god_store::engine::{EngineError, Pressure, Table};
use parking_lot::{Condvar, Mutex};
use rocksdb::{DB, properties};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a reading is good for: properties and file-system figures cost microseconds, and are asked for each job.
const FRESH: Duration = Duration::from_millis(20);
/// A disk that has not said for so long how much room it has does not answer.
const SILENT: Duration = Duration::from_secs(2);
/// Level-0 files from which on writes wait: well before RocksDB slows them down (20).
const LEVEL0_BUSY: u64 = 16;
/// Memtables that wait to be flushed from which on writes wait: of four, one is being written.
const MEMTABLES_BUSY: u64 = 3;
/// How long a refused writer should wait.
const RETRY_AFTER: Duration = Duration::from_millis(50);

struct Reading {
    at: Instant,
    /// Since when a newer one is wanted.
    wanted: Option<Instant>,
    ended: bool,
    pressure: Pressure,
    free: u64,
    /// A failure of RocksDB's that only opening it again can mend.
    failed: Option<String>,
}

/// Remembers a reading. A thread of its own takes them, so that whoever asks waits neither for the disk nor for
/// RocksDB.
pub struct Gauge {
    directory: PathBuf,
    reserve: u64,
    reading: Mutex<Reading>,
    wanted: Condvar,
    damage: Mutex<Option<String>>,
}

impl Gauge {
    /// A gauge that was read once.
    pub fn new(directory: &Path, reserve: u64, db: &DB) -> Gauge {
        let (pressure, free) = (Pressure::Fine, u64::MAX);
        let reading =
            Reading { at: Instant::now(), wanted: None, ended: false, pressure, free, failed: None };
        let (reading, wanted, damage) = (Mutex::new(reading), Condvar::new(), Mutex::default());
        let gauge = Gauge { directory: directory.to_owned(), reserve, reading, wanted, damage };
        gauge.take(db);
        gauge
    }

    /// Takes readings as they are wanted, until [`Gauge::end`].
    pub fn watch(&self, db: &DB) {
        loop {
            {
                let mut reading = self.reading.lock();
                while reading.wanted.is_none() && !reading.ended {
                    self.wanted.wait(&mut reading);
                }
                if reading.ended {
                    return;
                }
            }
            self.take(db);
        }
    }

    /// Has [`Gauge::watch`] return. Says whether it will: not while the disk does not answer.
    pub fn end(&self) -> bool {
        let mut reading = self.reading.lock();
        reading.ended = true;
        self.wanted.notify_all();
        !reading.is_silent()
    }

    fn take(&self, db: &DB) {
        let free = self.look_for_room();
        let pressure = self.look(db, free);
        let mut reading = self.reading.lock();
        (reading.pressure, reading.free) = (pressure, free);
        (reading.at, reading.wanted) = (Instant::now(), None);
    }

    /// Takes note that a write failed: RocksDB takes no more of them from then on.
    pub fn failed(&self, error: &EngineError) {
        let mut reading = self.reading.lock();
        reading.failed.get_or_insert_with(|| error.to_string());
    }

    /// Takes note that a read failed. Said once in the log: whoever reads may read the same again and again.
    pub fn unread(&self, error: &EngineError) {
        metrics::counter!("god_engine_read_errors_total").increment(1);
        if let EngineError::Corrupt(problem) = error {
            let mut damage = self.damage.lock();
            if damage.is_none() {
                tracing::error!(directory = %self.directory.display(), "{error}");
                *damage = Some(problem.clone());
            }
        }
    }

    /// The first damage that was come upon.
    pub fn damage(&self) -> Option<String> {
        self.damage.lock().clone()
    }

    /// The last reading; has a newer one taken where that is old.
    pub fn read(&self) -> Pressure {
        let mut reading = self.reading.lock();
        if let Some(problem) = &reading.failed {
            return Pressure::Failed(problem.clone());
        }
        if reading.is_silent() {
            return Pressure::Busy(RETRY_AFTER);
        }
        if reading.wanted.is_none() && reading.at.elapsed() >= FRESH {
            reading.wanted = Some(Instant::now());
            self.wanted.notify_all();
        }
        reading.pressure.clone()
    }

    /// Bytes free for this process, as last read; as good as endless where the file system does not say.
    pub fn disk_free(&self) -> u64 {
        self.reading.lock().free
    }

    fn look(&self, db: &DB, free: u64) -> Pressure {
        if free < self.reserve {
            let problem = format!(
                "{} has {} MiB free, and {} MiB are kept in reserve; make room and writes go on",
                self.directory.display(),
                free >> 20,
                self.reserve >> 20
            );
            // The other half is for what nobody asks leave for: the log, votes, compactions.
            return if free < self.reserve / 2 {
                Pressure::DiskSpent(problem)
            } else {
                Pressure::DiskFull(problem)
            };
        }
        // The memtables of any table may fill up, and then the writes of all wait.
        let memtables = |table: Table| {
            let family = db.cf_handle(table.name())?;
            db.property_int_value_cf(family, properties::NUM_IMMUTABLE_MEM_TABLE).ok().flatten()
        };
        let is_behind = db.property_int_value(properties::IS_WRITE_STOPPED).ok().flatten() == Some(1)
            || Table::ALL.into_iter().filter_map(memtables).any(|count| count >= MEMTABLES_BUSY)
            || Self::level0_files(db) >= LEVEL0_BUSY;
        if is_behind { Pressure::Busy(RETRY_AFTER) } else { Pressure::Fine }
    }

    /// Files that compaction has not sorted in yet.
    pub fn level0_files(db: &DB) -> u64 {
        let count = |table: Table| {
            let family = db.cf_handle(table.name())?;
            db.property_value_cf(family, properties::num_files_at_level(0)).ok()??.parse::<u64>().ok()
        };
        Table::ALL.into_iter().filter_map(count).max().unwrap_or(0)
    }

    fn look_for_room(&self) -> u64 {
        rustix::fs::statvfs(&self.directory)
            .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

impl Reading {
    fn is_silent(&self) -> bool {
        self.wanted.is_some_and(|since| since.elapsed() >= SILENT)
    }
}
