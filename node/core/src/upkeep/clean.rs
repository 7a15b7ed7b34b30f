//! What this node holds and should not goes to its owners, and is then forgotten.
//!
//! Each owner compares what is here with its copy and takes what is newer. Only when a write quorum of them, and every
//! one that can be reached, has done so, is the range removed (invariant OWNERS-FIRST): a write that reached fewer
//! replicas than it was asked for may be nowhere else.

use super::{Upkeep, blocked::in_short, sizes::foreign};
use crate::{
    engine::EngineError,
    peer::CallError,
    radix::{CommitError, View},
    ring::{deleted, given_up},
};
use futures::future::join_all;
use god_proto::{
    ids::{Epoch, NodeId},
    peer::{self, Kept, Pull, request, response},
    position::PositionRange,
    ring::{Ring, RingArc, quorums},
};
use metrics::counter;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How long after a change of the ring it is looked for what is misplaced: soon, as from then on owners take writes
/// that this node does not, and the more of them, the more differs. Not at once: changes come together, and owners have
/// to hear of them too.
const SOON: Duration = Duration::from_millis(20);
/// How often it is looked while something is misplaced, and once nothing is.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long an owner may take to compare one range.
const TIMEOUT: Duration = Duration::from_secs(20);

fn kept(owners: &[NodeId], error: &impl ToString) -> Kept {
    Kept { owners: owners.iter().map(|owner| owner.0).collect(), error: in_short(error) }
}

impl Upkeep {
    pub(super) async fn clean(&self) {
        let mut changes = self.ring.changes();
        // Under which ring nothing was found, and when.
        let mut clean = None;
        loop {
            tokio::select! {
                biased;
                _ = changes.changed() => sleep(SOON).await,
                () = sleep(LOOK) => {}
            }
            let Some(ring) = self.ring.get() else { continue };
            let is_clean = |(at, since): (Epoch, Instant)| at == ring.epoch() && since.elapsed() < LOOK_AGAIN;
            if !clean.is_some_and(is_clean) {
                clean = self.clean_once(&ring).await.then(|| (ring.epoch(), Instant::now()));
            }
        }
    }

    /// Says whether there was nothing to be cleaned.
    async fn clean_once(&self, ring: &Arc<Ring>) -> bool {
        // What was begun under an older ring is seen, and offered with all else.
        self.replica.drained().await;
        let dropped = self.drop_deleted(ring).await;
        if let Err(error) = &dropped {
            tracing::warn!(%error, "data of deleted keyspaces could not be removed");
        }
        let misplaced = match self.misplaced(ring).await {
            Ok(misplaced) => misplaced,
            Err(error) => {
                tracing::warn!(%error, "cannot look for misplaced data");
                self.kept.is(Some(kept(&[], &error)));
                return false;
            }
        };
        let (mut why, is_clean) = (None, dropped.is_ok() && misplaced.is_empty());
        let mut rest = Duration::ZERO;
        for range in misplaced {
            self.rest(rest).await;
            // The ring may have changed since; what is misplaced now is found at the next look.
            if self.ring.epoch() != ring.epoch() {
                break;
            }
            let began = Instant::now();
            rest = match self.hand_over(ring, &range).await {
                // Its owners compared all of it, which takes processors that clients may be waiting for.
                Ok(()) => self.rest_after(began.elapsed(), 0),
                Err(reason) => {
                    // Told at once: of many ranges each may take long.
                    self.kept.is(Some(reason.clone()));
                    why = Some(reason);
                    Duration::ZERO
                }
            };
        }
        self.kept.is(why);
        is_clean
    }

    /// Removes what is stored of keyspaces that were deleted, and their floors. Cost, where nothing is: O(deleted
    /// keyspaces × depth).
    async fn drop_deleted(&self, ring: &Ring) -> Result<(), CommitError> {
        let gone = deleted(ring);
        if gone.is_empty() {
            return Ok(());
        }
        let asked = gone.clone();
        let stored = self.stored(|| asked).await?;
        let is_stored = |range: &PositionRange| stored.iter().any(|(stored, _)| stored == range);
        for range in gone.into_iter().filter(|range| is_stored(range) || self.replica.floors().meets(range)) {
            if self.replica.drop_deleted(&range).await? {
                counter!("god_upkeep_deleted_ranges_total").increment(1);
                tracing::info!(?range, "data of deleted keyspaces were removed");
            }
        }
        Ok(())
    }

    /// Arcs that this node holds no copy of, and stores something of. Cost: O(arcs × depth).
    async fn misplaced(&self, ring: &Arc<Ring>) -> Result<Vec<PositionRange>, EngineError> {
        let (ring, me) = (Arc::clone(ring), self.me);
        let found = self.stored(move || foreign(&ring, me).collect()).await?;
        self.misplaced.store(found.iter().map(|(_, entries)| entries).sum(), Relaxed);
        Ok(found.into_iter().map(|(range, _)| range).collect())
    }

    /// Those of some ranges of which this node stores something, and how many entries. Cost: O(ranges × depth),
    /// and a seek in each bucket that one ends in.
    async fn stored(
        &self,
        ranges: impl FnOnce() -> Vec<PositionRange> + Send + 'static,
    ) -> Result<Vec<(PositionRange, u64)>, EngineError> {
        let find = |view: &View| {
            let counted = ranges().into_iter().map(|range| {
                let entries = if view.is_empty(&range)? { 0 } else { view.estimate(&range)?.entries };
                Ok((range, entries))
            });
            counted.filter(|found| !matches!(found, Ok((_, 0)))).collect()
        };
        self.look(true, find).await
    }

    /// Hands one arc's range over to its owners, and removes it; or says what is in the way.
    async fn hand_over(&self, ring: &Ring, range: &PositionRange) -> Result<(), Kept> {
        let [arc] = ring.arcs_in(range) else { return Ok(()) };
        // While it changes hands it is not settled who its owners are.
        if arc.next.is_some() {
            return Ok(());
        }
        let quorum = ring
            .keyspace_by_id(arc.keyspace)
            .map_or(1, |keyspace| quorums(keyspace, arc.replicas.len()).write_quorum as usize);
        // One whose data are given up is waited for by nobody. There is another one, or it would not be misplaced.
        let gone = given_up(ring);
        let owners: Vec<NodeId> =
            arc.replicas.iter().copied().filter(|owner| !gone.contains(owner)).collect();
        let offered = owners.iter().map(|owner| self.offer(ring, arc, *owner));
        let mut away = Vec::new();
        for (owner, answer) in owners.iter().zip(join_all(offered).await) {
            match answer {
                Ok(()) => {}
                Err(error) if self.is_down(*owner) => {
                    tracing::debug!(%owner, %error, "an owner is away; the others must do");
                    away.push(*owner);
                }
                Err(error) => {
                    tracing::debug!(%owner, %error, "misplaced data is kept for now");
                    return Err(kept(&[*owner], &error));
                }
            }
        }
        let (took, needed) = (owners.len() - away.len(), quorum.clamp(1, owners.len().max(1)));
        if took < needed {
            let all = owners.len();
            let error = format!("{needed} of its {all} owners have to take it, and {took} can");
            return Err(kept(&away, &error));
        }
        match self.replica.drop_misplaced(range, &arc.replicas).await {
            Ok(true) => {
                counter!("god_upkeep_cleaned_ranges_total").increment(1);
                tracing::info!(%arc, "misplaced data was handed over and removed");
            }
            Ok(false) if self.ring.epoch() == ring.epoch() => {
                let error =
                    "damaged records share their place in the index with what stays: replace the node";
                return Err(kept(&[], &error));
            }
            // It is looked at anew by the ring that came meanwhile.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "misplaced data could not be removed");
                return Err(kept(&[], &error));
            }
        }
        Ok(())
    }

    /// Has an owner take what is newer here.
    async fn offer(&self, ring: &Ring, arc: &RingArc, owner: NodeId) -> Result<(), CallError> {
        let range = Some(peer::Range::from(&arc.range));
        let pull = Pull { range, from: self.me.0, as_stored: true, ..Pull::default() };
        match self.ask_node(owner, ring.epoch().0, TIMEOUT, request::Body::Pull(pull)).await? {
            response::Body::Pull(done) => {
                counter!("god_upkeep_handed_over_entries_total").increment(done.entries);
                Ok(())
            }
            _ => Err(CallError::Lost("its answer is not that to a pull".to_owned())),
        }
    }
}
