//! RocksDB behind the engine's trait.

use crate::{
    options::{WHEN_OPEN, cf_options, db_options, drawn_part, shared_memory},
    pressure::Gauge,
};
use bytes::Bytes;
use god_store::engine::{
    Batch, BatchOp, Cached, Direction, Engine, EngineError, Pressure, Reader, See, Snapshot, Table,
};
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBPinnableSlice, ErrorKind, IngestExternalFileOptions,
    IteratorMode, ReadOptions, ReadTier, SnapshotWithThreadMode, SstFileWriter, WriteBatch, WriteOptions,
    checkpoint::Checkpoint, properties,
};
use self_cell::self_cell;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

/// How RocksDB is opened.
#[derive(Clone, Debug)]
pub struct RocksSettings {
    /// Bytes of memory for blocks, filters and memtables, all together. More reads without the disk.
    pub memory: u64,
    /// Bytes that stay free on the disk: below, writes are refused before RocksDB would fail.
    pub disk_reserve: u64,
}

impl Default for RocksSettings {
    fn default() -> Self {
        RocksSettings { memory: 256 << 20, disk_reserve: 64 << 20 }
    }
}

/// A RocksDB database in a directory of its own.
pub struct RocksEngine {
    db: Arc<DB>,
    watch: Option<JoinHandle<()>>,
    cache: Cache,
    directory: PathBuf,
    gauge: Arc<Gauge>,
    ingested: AtomicU64,
}

impl RocksEngine {
    /// Opens a database, or makes one. Reads the manifest and the write-ahead log: after a crash, as long as that
    /// takes. A torn end of the log is what a crash leaves, and is cut off; damage before its end is an error.
    pub fn open(directory: &Path, settings: &RocksSettings) -> Result<Arc<RocksEngine>, EngineError> {
        let (cache, buffers) = shared_memory(settings.memory);
        let part = drawn_part();
        let families = Table::ALL.map(|table| {
            ColumnFamilyDescriptor::new(table.name(), cf_options(table, settings.memory, part, &cache))
        });
        let db = DB::open_cf_descriptors(&db_options(settings.memory, &buffers), directory, families)
            .map_err(|error| explain(&error, Some(directory)))?;
        for table in Table::ALL {
            db.set_options_cf(family(&db, table)?, &WHEN_OPEN)
                .map_err(|error| explain(&error, Some(directory)))?;
        }
        let db = Arc::new(db);
        let gauge = Arc::new(Gauge::new(directory, settings.disk_reserve, &db));
        let watch = {
            let (gauge, db) = (Arc::clone(&gauge), Arc::clone(&db));
            thread::Builder::new().name("pressure".to_owned()).spawn(move || gauge.watch(&db))
        };
        let watch = watch.map_err(|error| {
            EngineError::Failed(format!("cannot start the thread that watches the disk: {error}"))
        })?;
        Ok(Arc::new(RocksEngine {
            db,
            watch: Some(watch),
            cache,
            directory: directory.to_owned(),
            gauge,
            ingested: AtomicU64::new(0),
        }))
    }

    fn write(&self, batch: Batch, synced: bool) -> Result<(), EngineError> {
        let mut writes = WriteBatch::default();
        for op in &batch.ops {
            match op {
                BatchOp::Put(table, key, value) => writes.put_cf(family(&self.db, *table)?, key, value),
                BatchOp::Delete(table, key) => writes.delete_cf(family(&self.db, *table)?, key),
                BatchOp::DeleteRange(table, start, end) => {
                    writes.delete_range_cf(family(&self.db, *table)?, start, end);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(synced);
        self.db.write_opt(writes, &options).map_err(|error| {
            let error = explain(&error, None);
            self.gauge.failed(&error);
            error
        })
    }
}

impl Drop for RocksEngine {
    fn drop(&mut self) {
        // It holds the database, which whoever opens it next must not find in use.
        if self.gauge.end() {
            let _ = self.watch.take().map(JoinHandle::join);
        }
    }
}

/// Explains why a read failed, and takes note of it.
fn unread(error: &rocksdb::Error, gauge: &Gauge) -> EngineError {
    let error = explain(error, None);
    gauge.unread(&error);
    error
}

/// Makes an error of RocksDB one that names what happened, where, and what to do.
fn explain(error: &rocksdb::Error, opening: Option<&Path>) -> EngineError {
    let text = error.to_string();
    let at = opening.map_or_else(String::new, |path| format!(" (opening {})", path.display()));
    if text.contains("No space left on device") {
        return EngineError::DiskFull(format!("{text}{at}; make room, then start the node again"));
    }
    match error.kind() {
        ErrorKind::Corruption => EngineError::Corrupt(format!(
            "{text}{at}; the other replicas hold this data: replace this node's data directory, or restore its disk"
        )),
        _ => EngineError::Failed(format!("{text}{at}")),
    }
}

fn family(db: &DB, table: Table) -> Result<&ColumnFamily, EngineError> {
    db.cf_handle(table.name())
        .ok_or_else(|| EngineError::Corrupt(format!("table {} is missing", table.name())))
}

fn owned(found: Option<DBPinnableSlice<'_>>) -> Option<Bytes> {
    found.map(|slice| Bytes::copy_from_slice(&slice))
}

type Pairs<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), EngineError>> + 'a>;

fn scan<'a>(
    db: &'a DB,
    gauge: &'a Gauge,
    mut options: ReadOptions,
    table: Table,
    start: &[u8],
    end: &[u8],
    direction: Direction,
) -> Pairs<'a> {
    if start >= end {
        return Box::new(std::iter::empty());
    }
    let family = match family(db, table) {
        Ok(family) => family,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    options.set_iterate_lower_bound(start);
    options.set_iterate_upper_bound(end);
    let mode = match direction {
        Direction::Forward => IteratorMode::Start,
        Direction::Reverse => IteratorMode::End,
    };
    let pairs = db.iterator_cf_opt(family, options, mode);
    Box::new(pairs.map(|pair| match pair {
        Ok((key, value)) => Ok((Bytes::from(key), Bytes::from(value))),
        Err(error) => Err(unread(&error, gauge)),
    }))
}

fn visit(
    db: &DB,
    gauge: &Gauge,
    mut options: ReadOptions,
    table: Table,
    (start, end): (&[u8], &[u8]),
    see: See<'_>,
) -> Result<(), EngineError> {
    if start >= end {
        return Ok(());
    }
    options.set_iterate_lower_bound(start);
    options.set_iterate_upper_bound(end);
    let mut pairs = db.raw_iterator_cf_opt(family(db, table)?, options);
    pairs.seek_to_first();
    while let Some((key, value)) = pairs.item() {
        if see(key, value).is_break() {
            return Ok(());
        }
        pairs.next();
    }
    pairs.status().map_err(|error| unread(&error, gauge))
}

fn multi_get(
    db: &DB,
    gauge: &Gauge,
    options: &ReadOptions,
    table: Table,
    keys: &[&[u8]],
) -> Result<Vec<Option<Bytes>>, EngineError> {
    let found =
        db.batched_multi_get_cf_opt(family(db, table)?, keys.iter().copied(), keys.is_sorted(), options);
    found.into_iter().map(|found| found.map(owned).map_err(|error| unread(&error, gauge))).collect()
}

impl Reader for RocksEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.db.get_pinned_cf(family(&self.db, table)?, key);
        found.map(owned).map_err(|error| unread(&error, &self.gauge))
    }

    fn scan<'a>(&'a self, table: Table, start: &[u8], end: &[u8], direction: Direction) -> Pairs<'a> {
        scan(&self.db, &self.gauge, ReadOptions::default(), table, start, end, direction)
    }

    fn visit(&self, table: Table, start: &[u8], end: &[u8], see: See<'_>) -> Result<(), EngineError> {
        visit(&self.db, &self.gauge, ReadOptions::default(), table, (start, end), see)
    }
}

impl Engine for RocksEngine {
    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        multi_get(&self.db, &self.gauge, &ReadOptions::default(), table, keys)
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        let snapshot = OwnedSnapshot::new(Arc::clone(&self.db), |db| Frozen(db.snapshot()));
        Box::new(RocksSnapshot { snapshot, gauge: Arc::clone(&self.gauge) })
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        self.write(batch, false)
    }

    fn commit_synced(&self, batch: Batch) -> Result<(), EngineError> {
        // RocksDB syncs its log before it puts a batch into its memtables.
        self.write(batch, true)
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.db.flush_wal(true).map_err(|error| {
            let error = explain(&error, None);
            self.gauge.failed(&error);
            error
        })
    }

    fn pressure(&self) -> Pressure {
        self.gauge.read()
    }

    fn damage(&self) -> Option<String> {
        self.gauge.damage()
    }

    fn checkpoint(&self, to: PathBuf) -> Result<(), EngineError> {
        let checkpoint = Checkpoint::new(&self.db).map_err(|error| explain(&error, None))?;
        checkpoint.create_checkpoint(&to).map_err(|error| explain(&error, None))
    }

    fn ingest(&self, table: Table, pairs: Vec<(Bytes, Bytes)>) -> Result<(), EngineError> {
        if pairs.is_empty() {
            return Ok(());
        }
        let file =
            self.directory.join(format!("ingest-{}.sst", self.ingested.fetch_add(1, Ordering::Relaxed)));
        let (cache, _) = shared_memory(1 << 20);
        let options = cf_options(table, 1 << 20, 1.0, &cache);
        let mut writer = SstFileWriter::create(&options);
        let written = writer.open(&file).and_then(|()| {
            pairs.iter().try_for_each(|(key, value)| writer.put(key, value))?;
            writer.finish()
        });
        let mut how = IngestExternalFileOptions::default();
        how.set_move_files(true);
        let result = written.map_err(|error| explain(&error, None)).and_then(|()| {
            self.db
                .ingest_external_file_cf_opts(family(&self.db, table)?, &how, vec![&file])
                .map_err(|error| explain(&error, None))
        });
        if result.is_err() {
            // Best effort: a left-over file is harmless, and the next ingest overwrites it.
            let _ = std::fs::remove_file(&file);
        }
        result
    }

    fn figures(&self) -> Vec<(&'static str, f64)> {
        let sum = |name: &properties::PropName| {
            let of = |table: Table| {
                let family = self.db.cf_handle(table.name())?;
                self.db.property_int_value_cf(family, name).ok().flatten()
            };
            Table::ALL.into_iter().filter_map(of).sum::<u64>() as f64
        };
        let whole =
            |name: &properties::PropName| self.db.property_int_value(name).ok().flatten().unwrap_or(0) as f64;
        vec![
            ("estimated_keys", sum(properties::ESTIMATE_NUM_KEYS)),
            ("live_sst_bytes", sum(properties::LIVE_SST_FILES_SIZE)),
            ("memtable_bytes", sum(properties::SIZE_ALL_MEM_TABLES)),
            ("immutable_memtables", sum(properties::NUM_IMMUTABLE_MEM_TABLE)),
            ("pending_compaction_bytes", sum(properties::ESTIMATE_PENDING_COMPACTION_BYTES)),
            ("running_compactions", whole(properties::NUM_RUNNING_COMPACTIONS)),
            ("running_flushes", whole(properties::NUM_RUNNING_FLUSHES)),
            ("background_errors", whole(properties::BACKGROUND_ERRORS)),
            ("delayed_write_rate", whole(properties::ACTUAL_DELAYED_WRITE_RATE)),
            ("snapshots", whole(properties::NUM_SNAPSHOTS)),
            ("level0_files", Gauge::level0_files(&self.db) as f64),
            ("block_cache_bytes", self.cache.get_usage() as f64),
            ("block_cache_pinned_bytes", self.cache.get_pinned_usage() as f64),
            ("disk_free_bytes", self.gauge.disk_free() as f64),
        ]
    }
}

/// A snapshot of a database.
struct Frozen<'a>(SnapshotWithThreadMode<'a, DB>);

self_cell!(
    struct OwnedSnapshot {
        owner: Arc<DB>,
        #[covariant]
        dependent: Frozen,
    }
);

/// A snapshot that keeps its database open.
struct RocksSnapshot {
    snapshot: OwnedSnapshot,
    gauge: Arc<Gauge>,
}

impl RocksSnapshot {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot.borrow_dependent().0);
        options
    }
}

impl Reader for RocksSnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let family = family(self.snapshot.borrow_owner(), table)?;
        let found = self.snapshot.borrow_dependent().0.get_pinned_cf(family, key);
        found.map(owned).map_err(|error| unread(&error, &self.gauge))
    }

    fn scan<'a>(&'a self, table: Table, start: &[u8], end: &[u8], direction: Direction) -> Pairs<'a> {
        scan(self.snapshot.borrow_owner(), &self.gauge, self.options(), table, start, end, direction)
    }

    fn visit(&self, table: Table, start: &[u8], end: &[u8], see: See<'_>) -> Result<(), EngineError> {
        visit(self.snapshot.borrow_owner(), &self.gauge, self.options(), table, (start, end), see)
    }
}

impl Snapshot for RocksSnapshot {
    fn get_cached(&self, table: Table, key: &[u8]) -> Result<Cached<Option<Bytes>>, EngineError> {
        let db = self.snapshot.borrow_owner();
        let mut options = self.options();
        options.set_read_tier(ReadTier::BlockCache);
        match db.get_pinned_cf_opt(family(db, table)?, key, &options) {
            Ok(found) => Ok(Cached::Hit(owned(found))),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::Miss),
            Err(error) => Err(unread(&error, &self.gauge)),
        }
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        multi_get(self.snapshot.borrow_owner(), &self.gauge, &self.options(), table, keys)
    }
}
