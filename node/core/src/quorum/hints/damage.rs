//! Gives up what cannot be read of the log.
//!
//! An engine that finds a block damaged does not say whose hints were in it. All those of a target of which something
//! cannot be read are removed, and as nobody knows which arcs they were of, all arcs are compared
//! (NOTHING-OWED-IS-FORGOTTEN).

use super::{
    Hints, State,
    row::{Row, decode_key, range_of_targets, suspect_key},
};
use crate::engine::{Batch, Direction, Engine, EngineError, Table};
use bytes::Bytes;
use god_proto::{ids::NodeId, ring::Ring};
use metrics::counter;
use std::{ops::RangeInclusive, sync::Arc};

/// Neighbours among all targets that there may be.
pub(super) type Targets = RangeInclusive<u32>;

impl State {
    /// Counts what an engine holds, and notes of whom it holds what cannot be read. Cost: one pass, and up to 64 seeks
    /// for each place that is damaged.
    pub(super) fn count(&mut self, engine: &dyn Engine) -> Result<(), EngineError> {
        let mut next = Some(0);
        while let Some(mut from) = next.take() {
            let (start, end) = range_of_targets(&(from..=u32::MAX));
            for pair in engine.scan(Table::Hints, &start, &end, Direction::Forward) {
                let (key, value) = match pair {
                    Ok(pair) => pair,
                    Err(EngineError::Corrupt(problem)) => {
                        let (last, readable) = damaged_to(engine, from)?;
                        tracing::error!(
                            problem,
                            "hints cannot be read: those of nodes {from} to {last} are dropped"
                        );
                        self.broken.push(from..=last);
                        next = readable;
                        break;
                    }
                    Err(error) => return Err(error),
                };
                if let Some((target, sequence)) = decode_key(&key) {
                    from = target.0;
                    self.take(target, Row { key, value }.bytes());
                    self.sequence = self.sequence.max(sequence);
                } else {
                    // Of whom it is, is all that can be told of it.
                    let target = key
                        .iter()
                        .chain(&[0; 4])
                        .take(4)
                        .fold(0, |target, byte| (target << 8) | u32::from(*byte));
                    tracing::error!(
                        "the key of a hint has {} bytes, not 12: all those of node {target} are dropped",
                        key.len()
                    );
                    if self.broken.last() != Some(&(target..=target)) {
                        self.broken.push(target..=target);
                    }
                }
            }
        }
        Ok(())
    }

    /// The rows of some targets are no longer there, but for those that wait for the disk. Gives how many were.
    fn release_all(&mut self, targets: &Targets) -> u64 {
        let mut waiting: Vec<(NodeId, u64)> = Vec::new();
        for row in &self.queue {
            waiting.extend(
                decode_key(&row.key)
                    .filter(|(to, _)| targets.contains(&to.0))
                    .map(|(to, _)| (to, row.bytes())),
            );
        }
        let all: Vec<NodeId> = self
            .counts
            .range(NodeId(*targets.start())..=NodeId(*targets.end()))
            .map(|(target, _)| *target)
            .collect();
        let mut gone = 0;
        for count in all.iter().filter_map(|target| self.counts.remove(target)) {
            self.rows = self.rows.saturating_sub(count.rows);
            self.bytes = self.bytes.saturating_sub(count.bytes);
            gone += count.rows;
        }
        gone = gone.saturating_sub(waiting.len() as u64);
        waiting.into_iter().for_each(|(target, bytes)| self.take(target, bytes));
        gone
    }
}

/// Up to which target from one on it cannot be read, and the first from which it can again.
fn damaged_to(reader: &dyn Engine, from: u32) -> Result<(u32, Option<u32>), EngineError> {
    let is_damaged = |target: u32| {
        let (start, end) = range_of_targets(&(target..=u32::MAX));
        match reader.scan(Table::Hints, &start, &end, Direction::Forward).next() {
            Some(Err(EngineError::Corrupt(_))) => Ok(true),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(false),
        }
    };
    let (mut low, mut stride) = (from, 1_u32);
    let mut high = loop {
        let Some(at) = low.checked_add(stride) else { return Ok((u32::MAX, None)) };
        if !is_damaged(at)? {
            break at;
        }
        (low, stride) = (at, stride.saturating_mul(2));
    };
    while high - low > 1 {
        let at = low + (high - low) / 2;
        if is_damaged(at)? { low = at } else { high = at }
    }
    Ok((high - 1, Some(high)))
}

impl Hints {
    /// Gives up what could not be read when the log was opened, once it is known which arcs there are.
    pub(super) async fn give_up_broken(&self, ring: &Ring) {
        let broken = self.state.lock().broken.clone();
        for targets in broken {
            match self.give_up(ring, &targets).await {
                Ok(()) => self.state.lock().broken.retain(|other| *other != targets),
                Err(error) => tracing::debug!(%error, "damaged hints are dropped later"),
            }
        }
    }

    /// Removes all hints of some targets, and marks all arcs as suspect: both or neither is on the disk.
    pub(super) async fn give_up(&self, ring: &Ring, targets: &Targets) -> Result<(), EngineError> {
        // What is being written is removed too, or waits.
        let _turn = self.flushing.lock().await;
        let arcs = || ring.arcs().iter().map(|arc| arc.range.start.clone().into_bytes());
        let (start, end) = range_of_targets(targets);
        let mut batch = Batch::default();
        batch.delete_range(Table::Hints, start, end);
        for arc in arcs() {
            batch.put(Table::System, suspect_key(&arc), Bytes::new());
        }
        let engine = Arc::clone(&self.engine);
        self.offload.run(move || engine.commit(batch)).await?;
        let mut state = self.state.lock();
        let gone = state.release_all(targets);
        state.dropped += gone;
        counter!("god_quorum_hints_dropped_total").increment(gone);
        counter!("god_quorum_hints_damaged_total").increment(1);
        arcs().for_each(|arc| state.suspect(arc));
        state.show();
        Ok(())
    }
}
