//! How RocksDB keeps up, read before it would stall, and how much room the disk has.

use god_store::engine::{EngineError, Pressure, Table};
use parking_lot::Mutex;
use rocksdb::{DB, properties};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a reading is good for: properties and file-system figures cost microseconds, and are asked for each job.
const FRESH: Duration = Duration::from_millis(20);
/// Level-0 files from which on writes wait: well before RocksDB slows them down (20).
const LEVEL0_BUSY: u64 = 16;
/// Memtables that wait to be flushed from which on writes wait: of four, one is being written.
const MEMTABLES_BUSY: u64 = 3;
/// How long a refused writer should wait.
const RETRY_AFTER: Duration = Duration::from_millis(50);

struct Reading {
    at: Option<Instant>,
    pressure: Pressure,
    /// A failure of RocksDB's that only opening it again can mend.
    failed: Option<String>,
}

/// Remembers a reading for a short while.
pub struct Gauge {
    directory: PathBuf,
    reserve: u64,
    reading: Mutex<Reading>,
    damage: Mutex<Option<String>>,
}

impl Gauge {
    pub fn new(directory: &Path, reserve: u64) -> Gauge {
        let reading = Mutex::new(Reading { at: None, pressure: Pressure::Fine, failed: None });
        Gauge { directory: directory.to_owned(), reserve, reading, damage: Mutex::default() }
    }

    /// Takes note that a write failed: RocksDB takes no more of them from then on.
    pub fn failed(&self, error: &EngineError) {
        let mut reading = self.reading.lock();
        reading.failed.get_or_insert_with(|| error.to_string());
        reading.at = None;
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

    pub fn read(&self, db: &DB) -> Pressure {
        let mut reading = self.reading.lock();
        if reading.at.is_none_or(|at| at.elapsed() >= FRESH) {
            reading.pressure = match &reading.failed {
                Some(problem) => Pressure::Failed(problem.clone()),
                None => self.look(db),
            };
            reading.at = Some(Instant::now());
        }
        reading.pressure.clone()
    }

    fn look(&self, db: &DB) -> Pressure {
        let free = self.disk_free();
        if free < self.reserve {
            return Pressure::DiskFull(format!(
                "{} has {} MiB free, and {} MiB are kept in reserve; make room and writes go on",
                self.directory.display(),
                free >> 20,
                self.reserve >> 20
            ));
        }
        let data = db.cf_handle(Table::Data.name());
        let of_data = |name: &properties::PropName| {
            data.and_then(|data| db.property_int_value_cf(data, name).ok().flatten()).unwrap_or(0)
        };
        let is_behind = db.property_int_value(properties::IS_WRITE_STOPPED).ok().flatten() == Some(1)
            || of_data(properties::NUM_IMMUTABLE_MEM_TABLE) >= MEMTABLES_BUSY
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

    /// Bytes free for this process; as good as endless where the file system does not say.
    pub fn disk_free(&self) -> u64 {
        rustix::fs::statvfs(&self.directory)
            .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}
