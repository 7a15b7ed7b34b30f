//! A simulated engine: ordered maps in memory, with the crash semantics of a disk.
//!
//! A [`SimulatedDisk`] outlives the engines opened on it. A crash of the machine loses what was committed after the
//! last sync, except for a prefix: batches are lost from the end, whole, and never reordered.

use super::{Batch, BatchOp, Cached, Direction, Engine, EngineError, Pressure, Reader, Snapshot, Table};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

type Map = BTreeMap<Bytes, Bytes>;

/// What the tables hold. Shared with snapshots, and copied when it changes while one lives.
#[derive(Clone, Default)]
struct Tables([Arc<Map>; Table::ALL.len()]);

impl Tables {
    fn of(&self, table: Table) -> &Map {
        &self.0[table as usize]
    }

    fn apply(&mut self, batch: &Batch) {
        for op in &batch.ops {
            match op {
                BatchOp::Put(table, key, value) => {
                    Arc::make_mut(&mut self.0[*table as usize]).insert(key.clone(), value.clone());
                }
                BatchOp::Delete(table, key) => {
                    Arc::make_mut(&mut self.0[*table as usize]).remove(key);
                }
                BatchOp::DeleteRange(table, start, end) => {
                    let map = Arc::make_mut(&mut self.0[*table as usize]);
                    let doomed: Vec<Bytes> = within(map, start, end).map(|(key, _)| key.clone()).collect();
                    for key in doomed {
                        map.remove(&key);
                    }
                }
            }
        }
    }
}

fn within<'a>(
    map: &'a Map,
    start: &[u8],
    end: &[u8],
) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Bytes)> + use<'a> {
    // BTreeMap panics where a range ends before it starts; here that is just empty.
    let end = end.max(start);
    map.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)))
}

#[derive(Default)]
struct State {
    tables: Tables,
    /// What survives a crash of the machine.
    synced: Tables,
    /// Committed since the last sync, in order.
    unsynced: Vec<Batch>,
    /// Grows at each crash: engines opened before it are dead.
    generation: u64,
    write_error: Option<EngineError>,
    sync_error: Option<EngineError>,
    pressure: Option<Pressure>,
    corrupt: BTreeSet<(Table, Bytes)>,
    cold: bool,
    reads: Arc<AtomicUsize>,
}

/// A disk: what a node finds again after a crash. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>, Arc<Hang>);

/// Whether the disk takes nothing, and answers nothing.
#[derive(Default)]
struct Hang {
    hangs: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Hang {
    fn wait(&self) {
        let mut hangs = self.hangs.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while *hangs {
            self.changed.wait(&mut hangs);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    /// Opens what is on it. Engines opened before stay alive until a crash.
    pub fn open(&self) -> Arc<SimulatedEngine> {
        let generation = self.0.lock().generation;
        Arc::new(SimulatedEngine { disk: self.clone(), generation })
    }

    /// The process dies: nothing that was committed is lost, and engines opened before answer no more.
    pub fn crash_process(&self) {
        self.0.lock().generation += 1;
    }

    /// The machine dies: of what was committed after the last sync only the first `keep` batches survive.
    pub fn crash_machine(&self, keep: usize) {
        let mut state = self.0.lock();
        state.generation += 1;
        let kept: Vec<Batch> = state.unsynced.drain(..).take(keep).collect();
        for batch in &kept {
            state.synced.apply(batch);
        }
        state.tables = state.synced.clone();
    }

    /// How many batches a crash of the machine could lose.
    pub fn unsynced(&self) -> usize {
        self.0.lock().unsynced.len()
    }

    /// Makes every commit and sync wait, or go on. What is in memory is read meanwhile.
    pub fn hang(&self, hangs: bool) {
        *self.1.hangs.lock() = hangs;
        self.1.changed.notify_all();
    }

    /// How many commits and syncs wait because it hangs.
    pub fn waiting(&self) -> usize {
        self.1.waiting.load(Ordering::SeqCst)
    }

    /// Makes every commit and sync fail so, or work again.
    pub fn fail_writes(&self, error: Option<EngineError>) {
        self.0.lock().write_error = error;
    }

    /// Makes every sync fail so, and no other write, or work again.
    pub fn fail_syncs(&self, error: Option<EngineError>) {
        self.0.lock().sync_error = error;
    }

    /// Makes the engine say that it is under this pressure, or under none.
    pub fn set_pressure(&self, pressure: Option<Pressure>) {
        self.0.lock().pressure = pressure;
    }

    /// Damages what is stored at a key: reads of it are refused until it is written again.
    pub fn corrupt(&self, table: Table, key: impl Into<Bytes>) {
        self.0.lock().corrupt.insert((table, key.into()));
    }

    /// Makes whatever snapshots are asked for wait for the disk, from the next snapshot on, or nothing.
    pub fn be_cold(&self, cold: bool) {
        self.0.lock().cold = cold;
    }

    /// How many keys were looked up, but for those that a scan came by.
    pub fn reads(&self) -> usize {
        self.0.lock().reads.load(Ordering::Relaxed)
    }

    /// What is stored at a key is read again, if the engine refused it.
    pub fn heal(&self, table: Table, key: &Bytes) {
        self.0.lock().corrupt.remove(&(table, key.clone()));
    }
}

/// An engine on a simulated disk.
pub struct SimulatedEngine {
    disk: SimulatedDisk,
    generation: u64,
}

impl SimulatedEngine {
    fn alive<T>(&self, work: impl FnOnce(&mut State) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let mut state = self.disk.0.lock();
        if state.generation != self.generation {
            return Err(EngineError::Failed("the machine or the process crashed".to_owned()));
        }
        work(&mut state)
    }

    fn read(state: &State, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        state.reads.fetch_add(1, Ordering::Relaxed);
        let found = state.tables.of(table).get_key_value(key);
        match found {
            Some((key, _)) if state.corrupt.contains(&(table, key.clone())) => Err(damaged(table, key)),
            found => Ok(found.map(|(_, value)| value.clone())),
        }
    }
}

fn damaged(table: Table, key: &[u8]) -> EngineError {
    EngineError::Corrupt(format!("the checksum of {key:02x?} in table {} is wrong", table.name()))
}

type Pairs<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), EngineError>> + 'a>;

/// Tables held still.
struct SimulatedSnapshot {
    tables: Tables,
    corrupt: BTreeSet<(Table, Bytes)>,
    cold: bool,
    reads: Arc<AtomicUsize>,
    dead: Option<EngineError>,
}

impl Reader for SimulatedSnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if let Some(error) = &self.dead {
            return Err(error.clone());
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        match self.tables.of(table).get_key_value(key) {
            Some((key, _)) if self.corrupt.contains(&(table, key.clone())) => Err(damaged(table, key)),
            found => Ok(found.map(|(_, value)| value.clone())),
        }
    }

    fn scan<'a>(&'a self, table: Table, start: &[u8], end: &[u8], direction: Direction) -> Pairs<'a> {
        if let Some(error) = &self.dead {
            return Box::new(std::iter::once(Err(error.clone())));
        }
        let pairs = within(self.tables.of(table), start, end);
        let checked = move |(key, value): (&Bytes, &Bytes)| match self.corrupt.contains(&(table, key.clone()))
        {
            true => Err(damaged(table, key)),
            false => Ok((key.clone(), value.clone())),
        };
        match direction {
            Direction::Forward => Box::new(pairs.map(checked)),
            Direction::Reverse => Box::new(pairs.rev().map(checked)),
        }
    }
}

impl Snapshot for SimulatedSnapshot {
    fn get_cached(&self, table: Table, key: &[u8]) -> Result<Cached<Option<Bytes>>, EngineError> {
        if self.cold { Ok(Cached::Miss) } else { self.get(table, key).map(Cached::Hit) }
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        keys.iter().map(|key| self.get(table, key)).collect()
    }
}

impl SimulatedEngine {
    fn hold(&self) -> SimulatedSnapshot {
        let held = |state: &mut State| {
            let (tables, corrupt) = (state.tables.clone(), state.corrupt.clone());
            let (cold, reads) = (state.cold, Arc::clone(&state.reads));
            Ok(SimulatedSnapshot { tables, corrupt, cold, reads, dead: None })
        };
        let dead = |error| SimulatedSnapshot {
            tables: Tables::default(),
            corrupt: BTreeSet::new(),
            cold: false,
            reads: Arc::default(),
            dead: Some(error),
        };
        self.alive(held).unwrap_or_else(dead)
    }
}

impl Reader for SimulatedEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.alive(|state| Self::read(state, table, key))
    }

    fn scan<'a>(&'a self, table: Table, start: &[u8], end: &[u8], direction: Direction) -> Pairs<'a> {
        let held = self.hold();
        let pairs: Vec<_> = held.scan(table, start, end, direction).collect();
        Box::new(pairs.into_iter())
    }
}

impl Engine for SimulatedEngine {
    fn multi_get(&self, table: Table, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.alive(|state| keys.iter().map(|key| Self::read(state, table, key)).collect())
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        Box::new(self.hold())
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        self.disk.1.wait();
        self.alive(|state| {
            if let Some(error) = &state.write_error {
                return Err(error.clone());
            }
            state.tables.apply(&batch);
            for op in &batch.ops {
                if let BatchOp::Put(table, key, _) = op {
                    state.corrupt.remove(&(*table, key.clone()));
                }
            }
            state.unsynced.push(batch);
            Ok(())
        })
    }

    fn commit_synced(&self, batch: Batch) -> Result<(), EngineError> {
        // What is not visible here may survive on a real disk. Each outcome is open, and this is one of them.
        self.sync()?;
        self.commit(batch)?;
        self.sync()
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.disk.1.wait();
        self.alive(|state| {
            if let Some(error) = state.write_error.as_ref().or(state.sync_error.as_ref()) {
                return Err(error.clone());
            }
            // Not a clone of the tables: a shared map would be copied whole at the next commit.
            for batch in std::mem::take(&mut state.unsynced) {
                state.synced.apply(&batch);
            }
            Ok(())
        })
    }

    fn pressure(&self) -> Pressure {
        let state = self.disk.0.lock();
        if state.generation != self.generation {
            return Pressure::Failed("the machine or the process crashed".to_owned());
        }
        state.pressure.clone().unwrap_or(Pressure::Fine)
    }

    fn checkpoint(&self, to: PathBuf) -> Result<(), EngineError> {
        Err(EngineError::Failed(format!("a simulated engine has no files to copy to {}", to.display())))
    }

    fn ingest(&self, table: Table, pairs: Vec<(Bytes, Bytes)>) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        for (key, value) in pairs {
            batch.put(table, key, value);
        }
        self.commit(batch)?;
        self.sync()
    }

    fn figures(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(engine: &SimulatedEngine, key: &'static str) {
        let mut batch = Batch::default();
        batch.put(Table::System, key, "x");
        engine.commit(batch).unwrap();
    }

    #[test]
    fn a_crash_of_the_machine_loses_the_unsynced_tail_and_nothing_else() {
        let disk = SimulatedDisk::new();
        let engine = disk.open();
        put(&engine, "a");
        engine.sync().unwrap();
        put(&engine, "b");
        put(&engine, "c");
        disk.crash_machine(1);
        assert!(engine.get(Table::System, b"a").is_err(), "a dead engine answers");
        let engine = disk.open();
        let keys: Vec<Bytes> = engine
            .scan(Table::System, b"", b"\xff", Direction::Forward)
            .map(|pair| pair.unwrap().0)
            .collect();
        assert_eq!(keys, ["a", "b"]);
    }

    #[test]
    fn a_crash_of_the_process_loses_nothing() {
        let disk = SimulatedDisk::new();
        put(&disk.open(), "a");
        disk.crash_process();
        assert!(disk.open().get(Table::System, b"a").unwrap().is_some());
    }

    #[test]
    fn a_snapshot_stands_still() {
        let disk = SimulatedDisk::new();
        let engine = disk.open();
        put(&engine, "a");
        let snapshot = engine.snapshot();
        put(&engine, "b");
        assert!(snapshot.get(Table::System, b"b").unwrap().is_none());
        assert!(snapshot.get(Table::System, b"a").unwrap().is_some());
    }

    #[test]
    fn damage_is_refused_until_it_is_overwritten() {
        let disk = SimulatedDisk::new();
        let engine = disk.open();
        put(&engine, "a");
        disk.corrupt(Table::System, "a");
        assert!(matches!(engine.get(Table::System, b"a"), Err(EngineError::Corrupt(_))));
        put(&engine, "a");
        assert!(engine.get(Table::System, b"a").is_ok());
    }
}
