//! Puts deletions in the place of records whose time is up, so that they are counted no more and, later, go.
//!
//! Nobody is asked: the deletion follows from the record (invariant EXPIRY-DERIVED), and is put there only once no
//! clock that is trusted says that the record can still be read. So replicas differ for no longer than it takes all of
//! them to come by, and are then alike.

use super::Upkeep;
use crate::{
    engine::EngineError,
    radix::{CommitError, Verdict, View},
};
use god_proto::{
    ids::NodeId,
    position::{Position, PositionRange},
    record::Entry,
    ring::Ring,
};
use metrics::counter;
use std::time::Duration;
use tokio::time::sleep;

/// Records in one step.
const STEP: usize = 1_024;
/// Bytes in one step, but for a larger single record.
const STEP_BYTES: usize = 1 << 20;
/// Bytes a second that are looked through. More finds what has expired sooner, and leaves less of the disk for clients.
const BYTES_PER_SECOND: u64 = 8 << 20;

/// What a part of a range holds.
#[derive(Default)]
struct Found {
    /// Deletions of what has expired.
    ended: Vec<Entry>,
    /// When the next one expires.
    next_ms: Option<u64>,
    bytes: u64,
}

/// What was found so far, in all arcs.
struct Pass {
    /// How many records that expire had been taken in when it began.
    taken: u64,
    /// When the next one expires.
    next_ms: Option<u64>,
}

impl Upkeep {
    /// Looks through all that this node holds, again and again, unless it is known that nothing has expired.
    pub(super) async fn sweep(&self) {
        // Of an empty node all was looked through: whatever expires is taken in after this.
        let start = Pass { taken: self.replica.expiring(), next_ms: None };
        let mut last = (self.store.view().total().entries == 0).then_some(start);
        loop {
            sleep(self.settings.sync_interval).await;
            let sure_ms = self.replica.clock().sure_ms();
            let is_due = last.as_ref().is_none_or(|last| {
                last.taken != self.replica.expiring() || last.next_ms.is_some_and(|at| at <= sure_ms)
            });
            if !is_due || sure_ms == 0 {
                continue;
            }
            let mut pass = Pass { taken: self.replica.expiring(), next_ms: None };
            match self.sweep_all(&mut pass).await {
                Ok(true) => last = Some(pass),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "what has expired could not be swept"),
            }
        }
    }

    /// Says whether all was looked through under one ring. Under another one it goes on where it is: a pass over a
    /// large node takes hours, and what lies last would never be reached.
    async fn sweep_all(&self, pass: &mut Pass) -> Result<bool, EngineError> {
        let began = self.ring.epoch();
        let mut from = Position::default();
        while let Some(ring) = self.ring.get() {
            let Some(range) = next_held(&ring, self.me, &from) else { return Ok(ring.epoch() == began) };
            let sure_ms = self.replica.clock().sure_ms();
            let (found, end) = self.look(true, move |view| look(view, &range, sure_ms)).await?;
            if !found.ended.is_empty() {
                // What is handed over meanwhile is not swept here.
                let admitted = self.replica.admit().await;
                if self.ring.epoch() != ring.epoch() {
                    continue;
                }
                match self.replica.take(found.ended, self.replica.clock().ceiling_ms()).await {
                    Ok(verdicts) => {
                        let applied = verdicts.iter().filter(|verdict| **verdict == Verdict::Applied).count();
                        counter!("god_upkeep_expired_total").increment(applied as u64);
                    }
                    Err(CommitError::Busy { retry_after }) => {
                        drop(admitted);
                        sleep(retry_after).await;
                        continue;
                    }
                    Err(error) => return Err(EngineError::Failed(error.to_string())),
                }
            }
            pass.next_ms = pass.next_ms.into_iter().chain(found.next_ms).min();
            from = end;
            sleep(Duration::from_secs_f64(found.bytes as f64 / BYTES_PER_SECOND as f64)).await;
        }
        Ok(false)
    }
}

/// What lies from a position on of the first arc there that a node holds.
fn next_held(ring: &Ring, me: NodeId, from: &Position) -> Option<PositionRange> {
    let first = ring.arcs().partition_point(|arc| arc.range.end <= *from);
    let held = ring.arcs().get(first..)?.iter().find(|arc| Ring::holds(arc, me))?;
    Some(PositionRange { start: held.range.start.clone().max(from.clone()), ..held.range.clone() })
}

/// The first records of a range, and where the next ones begin. What cannot be read is passed over (DAMAGE-APART): what
/// takes its place is looked at. Blocks on the disk.
fn look(view: &View, range: &PositionRange, sure_ms: u64) -> Result<(Found, Position), EngineError> {
    let mut found = Found::default();
    // Nothing live, nothing to look for.
    let sum = view.estimate(range)?;
    if sum.live_keys + sum.live_members == 0 {
        return Ok((found, range.end.clone()));
    }
    for (count, entry) in view.readable(range).enumerate() {
        let Entry { position, record } = entry?;
        let bytes = position.as_bytes().len() + record.encoded_len();
        if count == STEP || (count > 0 && found.bytes as usize + bytes > STEP_BYTES) {
            return Ok((found, position));
        }
        found.bytes += bytes as u64;
        match record.ended(sure_ms) {
            Some(record) => found.ended.push(Entry { position, record }),
            None if record.is_live() => {
                found.next_ms = found.next_ms.into_iter().chain(record.expires_at_ms).min();
            }
            None => {}
        }
    }
    Ok((found, range.end.clone()))
}
