//! Writes that wait for a replica to come back: a bounded log a target, never counted toward a quorum.
//!
//! - `damage`: gives up what cannot be read of the log.
//! - `row`: how they are stored: pure.
//! - `replay`: sends them when their target is there again.

mod damage;
mod replay;
mod row;

use self::{
    damage::Targets,
    row::{Row, SUSPECT, SUSPECT_END, decode_key, suspect_key},
};
use crate::{
    engine::{Batch, Direction, Engine, EngineError, Table},
    membership::Liveness,
    peer::Transport,
    ring::CurrentRing,
    seam::Offload,
    stop::Stop,
};
use bytes::Bytes;
use god_proto::{
    ids::NodeId,
    position::{Position, PositionRange},
    record::Entry,
};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// How hints are kept.
#[derive(Clone, Debug)]
pub struct HintSettings {
    /// Bytes kept for one target. What does not fit is dropped, and its arc compared later.
    pub max_bytes_per_target: u64,
    /// Bytes kept for all targets.
    pub max_bytes: u64,
    /// Bytes that may wait in memory for the disk.
    pub max_queued_bytes: u64,
    /// Bytes a second sent to returning targets, all together. Higher brings them level sooner, and leaves less for
    /// clients meanwhile.
    pub replay_bytes_per_second: u64,
}

impl Default for HintSettings {
    fn default() -> HintSettings {
        HintSettings {
            max_bytes_per_target: 64 << 20,
            max_bytes: 256 << 20,
            max_queued_bytes: 16 << 20,
            replay_bytes_per_second: 16 << 20,
        }
    }
}

/// The log. Share it behind an `Arc`, and have one task do [`Hints::run`].
pub struct Hints {
    engine: Arc<dyn Engine>,
    ring: CurrentRing,
    offload: Offload,
    settings: HintSettings,
    state: Mutex<State>,
    work: Notify,
    /// One batch is written at a time.
    flushing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    counts: BTreeMap<NodeId, HintCount>,
    rows: u64,
    bytes: u64,
    sequence: u64,
    queue: Vec<Row>,
    queued_bytes: u64,
    /// First positions of arcs that lost hints, and how many had been lost when each last did.
    suspects: BTreeMap<Bytes, u64>,
    /// How many were lost since the node started.
    losses: u64,
    /// Those of them that are not on the disk yet.
    unsaved: Vec<Bytes>,
    /// Those that were compared since, and are still on the disk.
    forgiven: Vec<Bytes>,
    /// First positions of arcs that got hints lately, and when the first one came.
    recent: BTreeMap<Bytes, Instant>,
    /// First positions of arcs of which a replica has not answered a write for long.
    late: BTreeSet<Bytes>,
    /// Targets of which something could not be read when the log was opened.
    broken: Vec<Targets>,
    dropped: u64,
    replayed: u64,
}

/// What waits for one target.
#[derive(Clone, Copy, Debug, Default)]
struct HintCount {
    rows: u64,
    bytes: u64,
}

impl Hints {
    /// Opens the log that an engine holds. What of it cannot be read is given up by [`Hints::run`]. Cost: one pass over
    /// what is kept. Blocks on the disk.
    pub fn open(
        engine: Arc<dyn Engine>,
        ring: CurrentRing,
        offload: Offload,
        settings: HintSettings,
    ) -> Result<Hints, EngineError> {
        let mut state = State::default();
        state.count(&*engine)?;
        for pair in engine.scan(Table::System, SUSPECT, SUSPECT_END, Direction::Forward) {
            let (key, _) = pair?;
            state.suspects.insert(key.slice(SUSPECT.len()..), 0);
        }
        state.show();
        let (work, flushing) = (Notify::new(), tokio::sync::Mutex::new(()));
        Ok(Hints { engine, ring, offload, settings, state: Mutex::new(state), work, flushing })
    }

    /// Keeps writes for a target. Does not wait: where there is no room, they are dropped, and their arcs are marked
    /// as suspect.
    pub fn add(&self, target: NodeId, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if let Some(ring) = self.ring.get() {
            let now = Instant::now();
            let arcs = entries.iter().filter_map(|entry| ring.arc_at(&entry.position));
            for arc in arcs {
                state.recent.entry(arc.range.start.clone().into_bytes()).or_insert(now);
            }
        }
        for entry in entries {
            let bytes = Row::bytes_of(entry);
            let count = state.counts.get(&target).copied().unwrap_or_default();
            let fits = count.bytes + bytes <= self.settings.max_bytes_per_target
                && state.bytes + bytes <= self.settings.max_bytes
                && state.queued_bytes + bytes <= self.settings.max_queued_bytes;
            if fits {
                state.sequence += 1;
                let row = Row::new(target, state.sequence, entry);
                state.queue.push(row);
                state.queued_bytes += bytes;
                state.take(target, bytes);
            } else {
                self.lose(&mut state, &entry.position);
            }
        }
        state.show();
        drop(state);
        self.work.notify_one();
    }

    /// Hints that wait.
    pub fn pending(&self) -> u64 {
        self.state.lock().rows
    }

    /// Hints that were dropped since the node started.
    pub fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }

    /// Hints that were delivered since the node started.
    pub fn replayed(&self) -> u64 {
        self.state.lock().replayed
    }

    /// Arcs that lost hints and must be compared before they count as equal.
    pub fn suspect_arcs(&self) -> usize {
        self.state.lock().suspects.len()
    }

    /// First positions of the arcs that lost hints.
    pub fn suspects(&self) -> Vec<Bytes> {
        self.state.lock().suspects.keys().cloned().collect()
    }

    /// How many hints were lost since the node started. Ask before arcs are compared, for [`Hints::forgive`].
    pub fn losses(&self) -> u64 {
        self.state.lock().losses
    }

    /// A range was compared after so many losses, and its replicas are equal. Arcs may have been cut or joined since:
    /// what counts is where they begin.
    pub fn forgive(&self, range: &PositionRange, losses: u64) {
        let mut state = self.state.lock();
        let (start, end) = (range.start.as_bytes(), range.end.as_bytes());
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let equal = state.suspects.range::<[u8], _>(bounds).filter(|(_, lost)| **lost <= losses);
        let equal: Vec<Bytes> = equal.map(|(start, _)| start.clone()).collect();
        if equal.is_empty() {
            return;
        }
        for start in equal {
            state.suspects.remove(&start);
            state.unsaved.retain(|unsaved| *unsaved != start);
            state.forgiven.push(start);
        }
        state.show();
        drop(state);
        self.work.notify_one();
    }

    /// A replica of the arc at a position has not answered a write for long. Whether it has it is not known, and may
    /// not be for as long as the call lasts.
    pub fn late(&self, position: &Position) {
        if let Some(ring) = self.ring.get()
            && let Some(arc) = ring.arc_at(position)
        {
            self.state.lock().late.insert(arc.range.start.clone().into_bytes());
        }
    }

    /// First positions of arcs that got hints which still wait after so long, or whose replicas are late. Each is told
    /// once for each time.
    pub fn stuck(&self, after: Duration) -> Vec<Bytes> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.rows == 0 {
            state.recent.clear();
        }
        let late = std::mem::take(&mut state.late);
        let stuck = state.recent.extract_if(.., |_, since| now.duration_since(*since) >= after);
        stuck.map(|(start, _)| start).chain(late).collect()
    }

    /// Writes what is added to the disk, and sends it to targets that are there again, until it is told to stop. Run
    /// it once.
    pub async fn run(self: Arc<Self>, transport: Arc<dyn Transport>, liveness: Arc<Liveness>, stop: Stop) {
        let replay = async {
            tokio::select! {
                biased;
                () = stop.clone().stopped() => {}
                () = self.replay(&*transport, &liveness) => {}
            }
        };
        tokio::join!(self.keep(stop.clone()), replay);
    }

    /// Writes what is added, until it is told to stop. What is being written then is written to its end.
    async fn keep(&self, stop: Stop) {
        let stopped = stop.stopped();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = self.work.notified() => {}
            }
            self.flush().await;
        }
        self.flush().await;
    }

    /// Writes what is queued. When it returns, what was queued before is written, by whomever.
    pub(super) async fn flush(&self) {
        let _turn = self.flushing.lock().await;
        let (rows, suspects, forgiven) = {
            let mut state = self.state.lock();
            state.queued_bytes = 0;
            let forgiven = std::mem::take(&mut state.forgiven);
            (std::mem::take(&mut state.queue), std::mem::take(&mut state.unsaved), forgiven)
        };
        if rows.is_empty() && suspects.is_empty() && forgiven.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        for arc in &forgiven {
            batch.delete(Table::System, suspect_key(arc));
        }
        for row in &rows {
            batch.put(Table::Hints, row.key.clone(), row.value.clone());
        }
        for arc in &suspects {
            batch.put(Table::System, suspect_key(arc), Bytes::new());
        }
        let engine = Arc::clone(&self.engine);
        if let Err(error) = self.offload.run(move || engine.commit(batch)).await {
            tracing::warn!(%error, rows = rows.len(), "hints could not be stored and are dropped");
            let mut state = self.state.lock();
            for row in &rows {
                state.release(row);
                if let Some(entry) = row::decode_value(&row.value) {
                    self.lose(&mut state, &entry.position);
                }
            }
            // Marked in memory, and tried again with the next ones.
            state.unsaved.extend(suspects);
            state.forgiven.extend(forgiven);
            state.show();
        }
    }

    /// Drops a hint: its arc must be compared some day.
    fn lose(&self, state: &mut State, position: &Position) {
        let ring = self.ring.get();
        let arc = ring.as_ref().and_then(|ring| ring.arc_at(position));
        let start = arc.map_or_else(
            || Bytes::copy_from_slice(position.as_bytes().get(..4).unwrap_or(position.as_bytes())),
            |arc| arc.range.start.clone().into_bytes(),
        );
        state.dropped += 1;
        counter!("god_quorum_hints_dropped_total").increment(1);
        state.suspect(start);
    }
}

impl State {
    /// An arc with this first position lost a hint.
    fn suspect(&mut self, start: Bytes) {
        self.losses += 1;
        if self.suspects.insert(start.clone(), self.losses).is_none() {
            self.forgiven.retain(|forgiven| *forgiven != start);
            self.unsaved.push(start);
        }
    }

    /// A row is there.
    fn take(&mut self, target: NodeId, bytes: u64) {
        self.rows += 1;
        self.bytes += bytes;
        let count = self.counts.entry(target).or_default();
        count.rows += 1;
        count.bytes += bytes;
    }

    /// A row is no longer there.
    fn release(&mut self, row: &Row) {
        let Some((target, _)) = decode_key(&row.key) else { return };
        let bytes = row.bytes();
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(count) = self.counts.get_mut(&target) {
            count.rows = count.rows.saturating_sub(1);
            count.bytes = count.bytes.saturating_sub(bytes);
            if count.rows == 0 {
                self.counts.remove(&target);
            }
        }
    }

    fn show(&self) {
        gauge!("god_quorum_hints_pending").set(self.rows as f64);
        gauge!("god_quorum_hints_bytes").set(self.bytes as f64);
        gauge!("god_quorum_suspect_arcs").set(self.suspects.len() as f64);
    }
}
