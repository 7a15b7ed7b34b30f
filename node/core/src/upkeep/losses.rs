//! Hints that were dropped for arcs of which this node holds no copy: those who do are asked to compare them.

use super::{
    Upkeep,
    sync::{LATER, LOOK, PULL_TIMEOUT},
};
use crate::peer::{failure, no_cluster};
use bytes::Bytes;
use god_proto::{
    peer::{self, Cause, Failure, Suspect, SuspectDone, request, response},
    position::{Position, PositionRange},
    ring::{Ring, RingArc},
};
use std::time::Duration;
use tokio::time::sleep;

impl Upkeep {
    /// Asks about an arc at a time, in turn. What this node compares itself does not wait for the answers.
    pub(super) async fn ask_about_losses(&self) {
        if !self.settings.compares {
            return;
        }
        // In each round another replica of an arc is asked: it may be just the first one that does not answer.
        let (mut last, mut round) = (Bytes::new(), 0);
        loop {
            sleep(LOOK).await;
            let Some(ring) = self.ring.get() else { continue };
            let losses = self.hints.losses();
            let Some((start, arc)) = self.next_foreign(&ring, &last, losses) else { continue };
            round += usize::from(start <= last);
            last = start;
            let Some(replica) = arc.replicas.get(round % arc.replicas.len().max(1)) else { continue };
            let range = Some(peer::Range::from(&arc.range));
            let body = request::Body::Suspect(Suspect { range, answer: true });
            match self.ask_noting(*replica, ring.epoch().0, PULL_TIMEOUT, body).await {
                Ok(response::Body::Suspect(done)) if done.equal => self.hints.forgive(&arc.range, losses),
                answer => {
                    tracing::debug!(%arc, ?answer, "an arc that lost hints is not known to be equal yet");
                    sleep(LATER).await;
                }
            }
        }
    }

    /// The arc to ask about after the `last` one, and where hints of it were lost. Those of keyspaces that are gone are
    /// forgiven.
    fn next_foreign(&self, ring: &Ring, last: &Bytes, losses: u64) -> Option<(Bytes, RingArc)> {
        let mut foreign = Vec::new();
        for lost in self.hints.suspects() {
            let start = Position::from_bytes(lost.clone());
            let Some(arc) = ring.arc_at(&start) else {
                // Its keyspace is gone, and with it what was lost.
                self.hints.forgive(&PositionRange::of_position(&start), losses);
                continue;
            };
            // One whose replicas are not all there keeps no other one waiting.
            let at_rest = arc.next.is_none() && !arc.replicas.iter().any(|node| self.is_silent(*node));
            if at_rest && !arc.replicas.contains(&self.me) {
                foreign.push((lost, arc));
            }
        }
        let next = foreign.iter().find(|(lost, _)| lost > last).or_else(|| foreign.first());
        next.map(|(lost, arc)| (lost.clone(), (*arc).clone()))
    }

    /// Another node lost hints for an arc that this one holds: says whether its replicas are equal now.
    pub(super) async fn level_for(
        &self,
        range: &PositionRange,
        timeout: Duration,
    ) -> Result<SuspectDone, Failure> {
        let ring = self.ring.get().ok_or_else(no_cluster)?;
        let arc = match ring.arcs_in(range) {
            [arc] if arc.replicas.contains(&self.me) && arc.next.is_none() => arc.clone(),
            _ => {
                return Err(failure(
                    Cause::NotReplica,
                    "the range is not part of one arc of this node at rest",
                ));
            }
        };
        match tokio::time::timeout(timeout, self.level(&ring, &arc)).await {
            Ok(Ok(equal)) => Ok(SuspectDone { equal }),
            Ok(Err(error)) => Err(failure(Cause::Busy, error.to_string())),
            Err(_) => Err(failure(Cause::Deadline, "the comparison did not end in time")),
        }
    }
}
