//! What a replica says of what it holds: to reads, scans and comparisons.

use super::{Replica, at_most, broken, check::Touch, pages};
use crate::{
    budget::Paid,
    engine::EngineError,
    peer::{Damaged, Held, failure, to_entry},
    radix::{Store, Summary, View},
};
use god_proto::{
    MAX_MESSAGE, MAX_VALUE,
    peer::{self, Cause, Failure, response},
    position::{Position, PositionRange},
    record::Record,
    version::Version,
};
use std::{collections::BTreeSet, slice, sync::Arc};

/// The most bytes of records in one answer, but for a larger single one.
const MAX_ANSWER: usize = MAX_MESSAGE - (2 << 20);
/// The most positions of a read that are looked up together.
const READ_AT_ONCE: usize = 64;
/// The most bytes that are read before they are paid for, but for one value that goes beyond: as much as one may be, so
/// that most reads are done in one go.
const READ_UNPAID: usize = MAX_VALUE;
/// So much of what was read is paid for at a time.
const PAID_AT: usize = 64 << 10;

impl Replica {
    /// Does what may block on the disk; `background`: on threads that stand back where others have work.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        background: bool,
        work: impl FnOnce(&Store) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = Arc::clone(&self.store);
        let offload = if background { self.offload.behind() } else { self.offload };
        let done = offload.run_if_free(move || work(&store)).await;
        done.map_err(EngineError::from).flatten().map_err(|error| broken(&error))
    }

    /// What stands at each of the first of some positions, of as many as are no more than [`READ_UNPAID`] together, but
    /// for the last one; of one in any case. What cannot be read fails nothing beside it (DAMAGE-APART). Cost: one
    /// look, or one a position where something is damaged.
    async fn held_at(&self, positions: &[Position]) -> Result<Vec<Held>, Failure> {
        match self.store.get_many(positions, READ_UNPAID).await {
            Ok(all) => return Ok(all.into_iter().map(Ok).collect()),
            Err(EngineError::Corrupt(_)) => {}
            Err(error) => return Err(broken(&error)),
        }
        let (mut all, mut bytes) = (Vec::with_capacity(positions.len()), 0);
        for position in positions {
            if bytes >= READ_UNPAID {
                break;
            }
            // As above: what is large among them waits as long as it may take, and refuses nothing beside it.
            all.push(match self.store.get_many(slice::from_ref(position), READ_UNPAID).await {
                Ok(mut one) => {
                    let record = one.pop().flatten();
                    bytes += record.as_ref().map_or(0, |record| record.value.len());
                    Ok(record)
                }
                Err(EngineError::Corrupt(_)) => Err(Damaged),
                Err(error) => return Err(broken(&error)),
            });
        }
        Ok(all)
    }

    /// The version of what stands at each of some positions.
    pub(super) async fn versions_at(
        &self,
        positions: &[Position],
    ) -> Result<Vec<Result<Option<Version>, Damaged>>, Failure> {
        let mut versions = Vec::with_capacity(positions.len());
        while let Some(rest) = positions.get(versions.len()..)
            && !rest.is_empty()
        {
            let held = self.held_at(rest).await?;
            versions.extend(held.into_iter().map(|held| held.map(|record| record.map(|it| it.version))));
        }
        Ok(versions)
    }

    pub(super) async fn read(&self, touch: &Touch, read: peer::Read) -> Result<response::Body, Failure> {
        at_most("positions", read.positions.len())?;
        let positions: Vec<Position> = read.positions.into_iter().map(Position::from_bytes).collect();
        self.loads.count_calls(positions.len() as u64);
        for position in &positions {
            self.loads.count(touch.holds(position)?.id, 1);
        }
        // LAPSED-IS-NO-VOTE: of what is lapsed nothing is said, as of what is damaged, and of the rest what it is.
        let mut lapsed = BTreeSet::new();
        let vote = self.vote(|lapse| {
            if !lapse.is_whole() {
                lapsed.extend(positions.iter().filter(|position| lapse.holds(position)).cloned());
            }
            positions.iter().all(|position| lapsed.contains(position))
        })?;
        // FAR-IS-NOT-THERE
        let ceiling_ms = self.clock.ceiling_ms();
        let near = |record: Option<Record>| record.filter(|record| record.version.ms() <= ceiling_ms);
        let mut entries = Vec::with_capacity(positions.len());
        if let [position] = &positions[..] {
            // A message of one position has one verdict.
            let record = self.store.get(position).await.map_err(|error| broken(&error))?;
            entries.push(to_entry(Ok(near(record)), read.largest_bytes));
        } else {
            let (mut bytes, mut looked) = (0, 0);
            // While the other parts are read; then whoever takes the answer pays for it, and is refused where there is
            // no memory. One value is read all the same: who asks may be the one that goes beyond what there is
            // (BUDGET).
            let (mut paid, mut first, mut kept) = (Paid::default(), None, 0);
            // In parts, so that what does not fit is not read, and little of what cannot be paid for; where nothing is
            // left, no more of the first than is answered all the same.
            let mut rest = &positions[..];
            let mut size = if self.budget.is_spent() { 1 } else { READ_AT_ONCE };
            'all: while !rest.is_empty() {
                if looked > bytes && first.is_some() && self.budget.is_spent() {
                    break;
                }
                let held = self.held_at(rest.get(..size).unwrap_or(rest)).await?;
                let (part, after) = rest.split_at(held.len().min(rest.len()));
                rest = after;
                let mut left = part.len();
                for (held, position) in held.into_iter().zip(part) {
                    let held = if lapsed.contains(position) { Err(Damaged) } else { held.map(near) };
                    let is_readable = held.is_ok();
                    looked += held.as_ref().map_or(0, |held| held.as_ref().map_or(0, |it| it.value.len()));
                    let entry = to_entry(held, read.largest_bytes);
                    bytes += 32 + entry.value.len();
                    // What is only looked at takes the disk as what is told does.
                    if !entries.is_empty() && bytes.max(looked) > MAX_ANSWER {
                        break 'all;
                    }
                    entries.push(entry);
                    first = first.or(is_readable.then_some(entries.len()));
                    left -= 1;
                    let owed = bytes - paid.bytes();
                    if owed < PAID_AT && left > 0 {
                        continue;
                    }
                    if paid.pay(&self.budget, owed) {
                        kept = entries.len();
                    } else if let Some(first) = first {
                        entries.truncate(first.max(kept));
                        break 'all;
                    }
                }
                if first.is_some() {
                    size = READ_AT_ONCE.min(size * 2);
                }
            }
            if first.is_none() && !entries.is_empty() {
                return Err(failure(
                    Cause::Corrupt,
                    "all that is asked for is damaged, or may have been lost",
                ));
            }
        }
        if let Some(now) = self.again(touch)? {
            positions.iter().try_for_each(|position| now.holds(position).map(drop))?;
        }
        self.still(vote, |now| positions.contains(now) && !lapsed.contains(now))?;
        Ok(response::Body::Read(peer::ReadDone { entries }))
    }

    pub(super) async fn scan(&self, touch: &Touch, scan: peer::Scan) -> Result<response::Body, Failure> {
        let range = touch.range(scan.range.clone(), scan.as_stored)?;
        let votes = !scan.as_stored && !scan.compares;
        let vote = self.vote(|lapse| votes && lapse.meets(&range))?;
        // What is compared, recalled or handed over no client waits for.
        if votes && !scan.background {
            self.loads.count_calls(1);
            touch.ring.arcs_in(&range).iter().for_each(|arc| self.loads.count(arc.id, 1));
        }
        let ceiling_ms = self.clock.ceiling_ms();
        let (asked, as_stored, background) = (range.clone(), scan.as_stored, scan.background);
        let budget = self.budget.clone();
        let page = move |store: &Store| {
            let mut paid = Paid::default();
            let pay = |bytes| paid.pay(&budget, bytes);
            let done = pages::page(&store.view(), &range, &scan, ceiling_ms, pay)?;
            Ok((done, paid))
        };
        // Until whoever takes the answer pays for it.
        let (done, _paid) = self.look(background, page).await?;
        self.holds_still(touch, &asked, as_stored)?;
        if votes {
            self.still(vote, |lapsed| asked.contains(lapsed))?;
        }
        Ok(response::Body::Scan(done))
    }

    pub(super) async fn summarize(
        &self,
        touch: &Touch,
        ask: peer::Summarize,
    ) -> Result<response::Body, Failure> {
        at_most("ranges", ask.ranges.len())?;
        let ranges = ask
            .ranges
            .into_iter()
            .map(|range| touch.range(Some(range), ask.as_stored))
            .collect::<Result<Vec<PositionRange>, Failure>>()?;
        let votes = !ask.as_stored && !ask.compares;
        let vote = self.vote(|lapse| votes && ranges.iter().any(|range| lapse.meets(range)))?;
        // OWNERS-FIRST: what cannot be read can be handed over to nobody, and the rest can.
        let summary = if ask.as_stored { View::estimate } else { View::summary };
        let asked = ranges.clone();
        let sum = move |store: &Store| {
            // One view for all, so that they add up.
            let view = store.view();
            ranges.iter().map(|range| summary(&view, range)).collect::<Result<Vec<Summary>, EngineError>>()
        };
        let summaries = self.look(ask.background, sum).await?.into_iter().map(peer::Summary::from).collect();
        asked.iter().try_for_each(|range| self.holds_still(touch, range, ask.as_stored))?;
        if votes {
            self.still(vote, |lapsed| asked.iter().any(|range| range.contains(lapsed)))?;
        }
        Ok(response::Body::Summarize(peer::SummarizeDone { summaries }))
    }

    /// Whether a range that was looked at is this node's by the ring that is there now; `as_stored`: it need not be.
    fn holds_still(&self, touch: &Touch, range: &PositionRange, as_stored: bool) -> Result<(), Failure> {
        if as_stored {
            return Ok(());
        }
        match self.again(touch)? {
            Some(now) => now.range(Some(peer::Range::from(range)), false).map(drop),
            None => Ok(()),
        }
    }
}
