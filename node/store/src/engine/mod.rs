//! The storage seam: an ordered map in a few tables, changed in atomic batches, with snapshots.
//!
//! Nothing outside this room knows which engine is behind it. Two are: RocksDB, and a simulated one that loses its
//! unsynced tail at a crash. Calls may block on the disk; see [`crate::seam::Offload`].

mod identity;
mod simulated;

pub use identity::{Identity, IdentityStore, SimulatedIdentity};
pub use simulated::{SimulatedDisk, SimulatedEngine};

use crate::seam::Crowded;
use bytes::Bytes;
use std::{ops::ControlFlow, path::PathBuf, time::Duration};

/// The tables. Each is a map of its own, in the order of its keys' bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Position → encoded record. Written by the committer alone.
    Data,
    /// Nibble path of a bucket → its digest and counts. Written by the committer alone, with the data.
    Index,
    /// What the node must remember about itself: ring, promises, clock mark, suspicions.
    System,
    /// Writes that wait for a replica to come back.
    Hints,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 4] = [Table::Data, Table::Index, Table::System, Table::Hints];

    /// Its name, on disk and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Table::Data => "data",
            Table::Index => "index",
            Table::System => "system",
            Table::Hints => "hints",
        }
    }
}

/// Changes that become visible together, and survive together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In the order in which they take effect.
    pub ops: Vec<BatchOp>,
}

/// One change.
#[derive(Clone, Debug)]
pub enum BatchOp {
    /// Sets a key.
    Put(Table, Bytes, Bytes),
    /// Removes a key, if it is there.
    Delete(Table, Bytes),
    /// Removes the keys from the first up to, and without, the second.
    DeleteRange(Table, Bytes, Bytes),
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(BatchOp::Put(table, key.into(), value.into()));
    }

    /// Removes a key.
    pub fn delete(&mut self, table: Table, key: impl Into<Bytes>) {
        self.ops.push(BatchOp::Delete(table, key.into()));
    }

    /// Removes the keys of a range.
    pub fn delete_range(&mut self, table: Table, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        self.ops.push(BatchOp::DeleteRange(table, start.into(), end.into()));
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// Why storage could not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// Stored bytes fail their checksum, or cannot be what they should be. They are refused, never served.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// No room is left, or less than the reserve.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// The engine failed and takes no more writes until it is opened again.
    #[error("storage failed: {0}")]
    Failed(String),
    /// Too many reads wait for the disk. Nothing was read.
    #[error(transparent)]
    Crowded(#[from] Crowded),
}

/// Whether the engine wants more work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// It keeps up.
    Fine,
    /// It is behind; come back after this long. Said before the engine itself would stall.
    Busy(Duration),
    /// Less room is left on the disk than the reserve: what makes room is taken, and nothing else. Reads go on.
    DiskFull(String),
    /// What of the reserve is for making room is spent as well: of that, only what brings nothing to the disk is taken.
    DiskSpent(String),
    /// It takes no more writes until it is opened again.
    Failed(String),
}

/// What came of a read that may not touch the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached<T> {
    /// The answer.
    Hit(T),
    /// The disk must be asked.
    Miss,
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest key up.
    Forward,
    /// From the highest key down.
    Reverse,
}

/// Is lent a pair, and says whether to go on.
pub type See<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Reads, of the present or of a snapshot.
pub trait Reader {
    /// A key's value.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The pairs from `start` up to, and without, `end`, in the given direction. Errors end the scan.
    fn scan<'a>(
        &'a self,
        table: Table,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<(Bytes, Bytes), EngineError>> + 'a>;

    /// As [`Reader::scan`] forward, of pairs that are lent: nothing is copied for who keeps none of them. Ends where
    /// `see` breaks off, too.
    fn visit(&self, table: Table, start: &[u8], end: &[u8], see: See<'_>) -> Result<(), EngineError> {
        for pair in self.scan(table, start, end, Direction::Forward) {
            let (key, value) = pair?;
            if see(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The engine as it was at one moment.
pub trait Snapshot: Reader + Send + Sync {
    /// A key's value, if it can be had without waiting for the disk.
    fn get_cached(&self, table: Table, key: &[u8]) -> Result<Cached<Option<Bytes>>, EngineError>;

    /// The values of many keys, in the order asked. `keys` sorted is fastest.
    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError>;
}

/// An ordered, crash-safe store of tables.
pub trait Engine: Reader + Send + Sync {
    /// The values of many keys, in the order asked. `keys` sorted is fastest.
    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError>;

    /// The present, held still. Cheap; holds old data back from removal while it lives.
    fn snapshot(&self) -> Box<dyn Snapshot>;

    /// Makes a batch visible. It survives a crash of the process at once, and a crash of the machine from the next
    /// [`Engine::sync`] on. After an error its outcome is open until the engine is opened again.
    fn commit(&self, batch: Batch) -> Result<(), EngineError>;

    /// Makes a batch survive a crash of the machine, and all that was committed before, and then visible: what a read
    /// finds of it is on the disk. After an error nothing of it is visible; whether it survives is open.
    fn commit_synced(&self, batch: Batch) -> Result<(), EngineError>;

    /// Makes all that was committed before survive a crash of the machine.
    fn sync(&self) -> Result<(), EngineError>;

    /// Whether it wants more work. Cheap: asked for each group of writes.
    fn pressure(&self) -> Pressure;

    /// The first damage that a read came upon since the engine was opened, for an operator. What is damaged is refused,
    /// and the rest is served.
    fn damage(&self) -> Option<String> {
        None
    }

    /// A consistent copy in a new directory, by hard links where that is possible.
    fn checkpoint(&self, to: PathBuf) -> Result<(), EngineError>;

    /// Adds pairs, sorted by key and not there yet, faster than batches would.
    fn ingest(&self, table: Table, pairs: Vec<(Bytes, Bytes)>) -> Result<(), EngineError>;

    /// Key figures by name, for metrics.
    fn figures(&self) -> Vec<(&'static str, f64)>;
}

/// When acknowledged writes are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Never: the operating system writes when it likes. Survives a crash of the process, not of the machine.
    None,
    /// In the background, so often. A crash of the machine loses at most so much, on this replica.
    Interval(Duration),
    /// Before each group of writes is acknowledged.
    Always,
}
