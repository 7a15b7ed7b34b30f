//! A replica: answers what coordinators ask of this node's own copy.
//!
//! - [`Replica`]: checks that the question is for this node and under its ring, and asks the store.
//! - `pages`: what of a range fits in one answer.

mod check;
mod pages;

#[cfg(test)]
mod tests;

use self::check::{Touch, stale};
use crate::{
    engine::{CommitError, EngineError},
    peer::{Call, failure},
    radix::{Store, Summary, Verdict},
    ring::CurrentRing,
    seam::Offload,
    version::Clock,
};
use god_proto::{
    MAX_MESSAGE,
    ids::NodeId,
    peer::{self, Cause, Failure, request, response},
    position::{Position, PositionRange},
    record::Entry,
    version::Version,
};
use std::sync::Arc;

/// The most entries in one write, positions in one read, or ranges in one comparison.
const MAX_ENTRIES: usize = 10_000;
/// The most bytes of records in one answer, but for a larger single one.
const MAX_ANSWER: usize = MAX_MESSAGE - (2 << 20);

/// This node's copy, seen from coordinators.
pub struct Replica {
    me: NodeId,
    store: Arc<Store>,
    ring: CurrentRing,
    clock: Arc<Clock>,
    offload: Offload,
}

impl Replica {
    /// The copy of the node of this number.
    pub fn new(
        me: NodeId,
        store: Arc<Store>,
        ring: CurrentRing,
        clock: Arc<Clock>,
        offload: Offload,
    ) -> Replica {
        Replica { me, store, ring, clock, offload }
    }

    /// Answers one question about data. A refusal left nothing behind, but one with `CAUSE_STORAGE`.
    pub async fn handle(&self, call: Call) -> Result<response::Body, Failure> {
        let touch = self.touch(call.epoch)?;
        match call.body {
            request::Body::Write(write) => self.write(&touch, write).await,
            request::Body::Read(read) => self.read(&touch, read).await,
            request::Body::Scan(scan) => self.scan(&touch, scan).await,
            request::Body::Summarize(ask) => self.summarize(&touch, ask).await,
            request::Body::Split(ask) => {
                let range = touch.range(ask.range)?;
                let at = self.look(move |store| store.view().split_point(&range)).await?;
                let position = at.map(Position::into_bytes).unwrap_or_default();
                Ok(response::Body::Split(peer::SplitDone { position }))
            }
            request::Body::Select(ask) => {
                let (range, rank) = (touch.range(ask.range)?, ask.rank);
                let at = self.look(move |store| store.view().select(&range, rank)).await?;
                let position = at.map(Position::into_bytes).unwrap_or_default();
                Ok(response::Body::Select(peer::SelectDone { position }))
            }
            _ => Err(failure(Cause::Invalid, "this is no question about data")),
        }
    }

    /// The ring, if the caller's is the same one. Who holds what must not be in doubt (invariant ONE-EPOCH).
    fn touch(&self, epoch: u64) -> Result<Touch, Failure> {
        match self.ring.get() {
            Some(ring) if ring.epoch().0 == epoch => Ok(Touch { me: self.me, ring }),
            ring => Err(stale(ring.map_or(0, |ring| ring.epoch().0), epoch)),
        }
    }

    async fn write(&self, touch: &Touch, write: peer::Write) -> Result<response::Body, Failure> {
        at_most("entries", write.entries.len())?;
        let mut entries = Vec::with_capacity(write.entries.len());
        let mut newest = Version::ZERO;
        for entry in write.entries {
            let entry = Entry::try_from(entry).map_err(|error| failure(Cause::Invalid, error.to_string()))?;
            touch.writable(&entry)?;
            newest = newest.max(entry.record.version);
            entries.push(entry);
        }
        // The newest is within the limit where any is beyond it.
        self.clock.observe(newest).map_err(|error| failure(Cause::Clock, error.to_string()))?;
        let verdicts = self.store.write(entries).await.map_err(|error| refused(&error))?;
        let said = |verdict: Verdict| peer::Verdict {
            superseded_by: match verdict {
                Verdict::Applied | Verdict::Equal => None,
                Verdict::Superseded(version) => Some(version.into()),
            },
        };
        Ok(response::Body::Write(peer::WriteDone { verdicts: verdicts.into_iter().map(said).collect() }))
    }

    async fn read(&self, touch: &Touch, read: peer::Read) -> Result<response::Body, Failure> {
        at_most("positions", read.positions.len())?;
        let mut positions: Vec<Position> = read.positions.into_iter().map(Position::from_bytes).collect();
        for position in &positions {
            touch.holds(position)?;
        }
        let mut entries = Vec::with_capacity(positions.len());
        if positions.len() == 1
            && let Some(position) = positions.pop()
        {
            let record = self.store.get(&position).await.map_err(|error| broken(&error))?;
            entries.push(record.map(peer::Entry::from).unwrap_or_default());
        } else {
            let mut bytes = 0;
            // In parts, so that what does not fit is not read.
            'all: for part in positions.chunks(64) {
                for record in self.store.get_many(part).await.map_err(|error| broken(&error))? {
                    bytes += record.as_ref().map_or(0, |record| record.value.len()) + 32;
                    if !entries.is_empty() && bytes > MAX_ANSWER {
                        break 'all;
                    }
                    entries.push(record.map(peer::Entry::from).unwrap_or_default());
                }
            }
        }
        Ok(response::Body::Read(peer::ReadDone { entries }))
    }

    async fn scan(&self, touch: &Touch, scan: peer::Scan) -> Result<response::Body, Failure> {
        let range = touch.range(scan.range.clone())?;
        let done = self.look(move |store| pages::page(&store.view(), &range, &scan)).await?;
        Ok(response::Body::Scan(done))
    }

    async fn summarize(&self, touch: &Touch, ask: peer::Summarize) -> Result<response::Body, Failure> {
        at_most("ranges", ask.ranges.len())?;
        let ranges = ask
            .ranges
            .into_iter()
            .map(|range| touch.range(Some(range)))
            .collect::<Result<Vec<PositionRange>, Failure>>()?;
        let sum = move |store: &Store| {
            // One view for all, so that they add up.
            let view = store.view();
            ranges.iter().map(|range| view.summary(range)).collect::<Result<Vec<Summary>, EngineError>>()
        };
        let summaries = self.look(sum).await?.into_iter().map(peer::Summary::from).collect();
        Ok(response::Body::Summarize(peer::SummarizeDone { summaries }))
    }

    /// Does what may block on the disk.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = Arc::clone(&self.store);
        self.offload.run(move || work(&store)).await.map_err(|error| broken(&error))
    }
}

fn at_most(what: &str, count: usize) -> Result<(), Failure> {
    match count {
        0 => Err(failure(Cause::Invalid, format!("there are no {what}"))),
        1..=MAX_ENTRIES => Ok(()),
        _ => Err(failure(Cause::Invalid, format!("there are {count} {what}; the most is {MAX_ENTRIES}"))),
    }
}

fn broken(error: &EngineError) -> Failure {
    let cause = match error {
        EngineError::Corrupt(_) => Cause::Corrupt,
        EngineError::DiskFull(_) => Cause::DiskFull,
        EngineError::Failed(_) => Cause::Storage,
    };
    failure(cause, error.to_string())
}

/// Why a write was not done. What failed in the engine may survive a restart, so that its outcome is open.
fn refused(error: &CommitError) -> Failure {
    let cause = match error {
        CommitError::Busy { .. } => Cause::Busy,
        CommitError::DiskFull(_) => Cause::DiskFull,
        CommitError::Engine(_) => Cause::Storage,
        CommitError::Stopped => Cause::NotMember,
    };
    let retry_after_ms = match error {
        CommitError::Busy { retry_after } => retry_after.as_millis().clamp(1, 60_000) as u32,
        _ => 0,
    };
    Failure { retry_after_ms, ..failure(cause, error.to_string()) }
}
