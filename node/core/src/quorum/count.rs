//! Exact counts at a quorum, by comparing digests and descending only where they differ.
//!
//! Counts are of live records: keys with a value. One that has expired counts until its end is there: until it is read,
//! listed or swept.

use super::{
    Shared,
    fan::{QuorumError, QuorumScope, strange, whole},
    refusal::{grew_too_large, not_initialised, ring_moves},
    scan::PageRequest,
};
use crate::{peer::CallError, radix::Summary};
use futures::{StreamExt, stream};
use god_proto::{
    MAX_PAGE, PAGE_BYTES,
    ids::NodeId,
    peer::{self, request, response},
    position::{Position, PositionRange},
    v1::Rejected,
};
use god_rules::quorum::Need;
use tokio::time::Instant;

/// Ranges of up to so many entries are listed, not cut further.
pub(super) const LIST_BELOW: u64 = 64;
/// The most cuts on the way from an arc down to lists: with halves, enough for 2^64 entries.
pub(super) const MAX_CUTS: usize = 64;
/// The most ranges in one question.
const RANGES_AT_ONCE: usize = 128;
/// Questions under way at the same time for one count.
const AT_ONCE: usize = 8;

/// What a quorum says of a range.
pub(super) enum Sum {
    /// All are alike: these members, so many live keys.
    Alike { members: Vec<usize>, live_keys: u64 },
    /// They differ. This member holds the most entries, so many.
    Differ { member: usize, entries: u64 },
}

/// What became of a range that differs.
enum Narrowed {
    Listed(u64),
    /// With how many cuts there are above each half.
    Cut(PositionRange, PositionRange, usize),
}

impl Shared {
    /// Live keys of a range of one keyspace.
    pub(super) async fn count_range(
        &self,
        range: PositionRange,
        need: Need,
        deadline: Instant,
    ) -> Result<u64, Rejected> {
        let (mut total, mut left) = (0, vec![range]);
        for _ in 0..super::batch::MAX_RINGS {
            let ring = self.ring.get().ok_or_else(not_initialised)?;
            let parts = left.iter().flat_map(|range| {
                let scope = |arc| QuorumScope::new(&ring, arc, need, deadline);
                ring.arcs_in(range).iter().map(move |arc| (arc.range.intersect(range), scope(arc)))
            });
            let counts =
                parts.map(|(part, scope)| async move { (self.count_arc(&scope, part.clone()).await, part) });
            let counts: Vec<_> = counts.collect();
            let mut counts = stream::iter(counts).buffered(AT_ONCE);
            let mut moved = Vec::new();
            while let Some((count, part)) = counts.next().await {
                match count {
                    Ok(count) => total += count,
                    Err(QuorumError::Moved) => moved.push(part),
                    Err(QuorumError::Failed(rejected)) => return Err(rejected),
                }
            }
            drop(counts);
            if moved.is_empty() {
                return Ok(total);
            }
            left = moved;
        }
        Err(ring_moves())
    }

    /// Live keys of a part of one arc. Goes down into the first ranges that differ before it looks at the others: what
    /// is listed is repaired, so that a count which runs out of time leaves less for the next one.
    pub(super) async fn count_arc(
        &self,
        scope: &QuorumScope,
        range: PositionRange,
    ) -> Result<u64, QuorumError> {
        // Each with the cuts above it; the next one last. No more than what each cut leaves: RANGES_AT_ONCE × MAX_CUTS.
        let (mut total, mut pending) = (0, vec![(range, 0)]);
        while !pending.is_empty() {
            let now = pending.split_off(pending.len().saturating_sub(RANGES_AT_ONCE));
            let (ranges, cuts): (Vec<PositionRange>, Vec<usize>) = now.into_iter().unzip();
            let mut torn = Vec::new();
            for ((sum, range), cuts) in self.compare(scope, &ranges).await?.into_iter().zip(&ranges).zip(cuts)
            {
                match sum {
                    Sum::Alike { live_keys, .. } => total += live_keys,
                    Sum::Differ { member, entries } => torn.push((range.clone(), member, entries, cuts)),
                }
            }
            let torn: Vec<_> = torn.into_iter().map(|torn| self.descend(scope, torn)).collect();
            let mut torn = stream::iter(torn).buffered(AT_ONCE);
            while let Some(torn) = torn.next().await {
                match torn? {
                    Narrowed::Listed(live) => total += live,
                    Narrowed::Cut(low, high, cuts) => pending.extend([(low, cuts), (high, cuts)]),
                }
            }
        }
        Ok(total)
    }

    async fn descend(
        &self,
        scope: &QuorumScope,
        (range, member, entries, cuts): (PositionRange, usize, u64, usize),
    ) -> Result<Narrowed, QuorumError> {
        if entries > LIST_BELOW
            && cuts < MAX_CUTS
            && let Some((low, high)) = self.cut(scope, &range, member).await?
        {
            return Ok(Narrowed::Cut(low, high, cuts + 1));
        }
        Ok(Narrowed::Listed(self.list(scope, &range).await?.len() as u64))
    }

    /// Compares what a quorum holds of ranges of one arc.
    pub(super) async fn compare(
        &self,
        scope: &QuorumScope,
        ranges: &[PositionRange],
    ) -> Result<Vec<Sum>, QuorumError> {
        let body = |_| {
            let ranges = ranges.iter().map(peer::Range::from).collect();
            request::Body::Summarize(peer::Summarize { ranges, ..peer::Summarize::default() })
        };
        let answers = self.gather(scope, &[], body, |reply| decode(reply, ranges.len()), whole).await?;
        let said = &answers.said;
        let compared = (0..ranges.len()).map(|at| {
            // Those who only come to be replicas confirm the ring by answering. What they have is not all yet.
            let full = || said.iter().filter(|(member, _)| scope.replicas.outgoing() & 1 << *member != 0);
            let mut sums = full().filter_map(|(member, sums)| Some((*member, sums.get(at)?)));
            let Some((first, reference)) = sums.next() else { return Sum::Differ { member: 0, entries: 0 } };
            let (mut alike, mut most) = (true, (first, reference.entries));
            for (member, sum) in sums {
                alike &= sum.digest == reference.digest && sum.entries == reference.entries;
                if sum.entries > most.1 {
                    most = (member, sum.entries);
                }
            }
            if alike {
                let members = full().map(|(member, _)| *member).collect();
                Sum::Alike { members, live_keys: reference.live_keys }
            } else {
                metrics::counter!("god_quorum_torn_ranges_total").increment(1);
                Sum::Differ { member: most.0, entries: most.1 }
            }
        });
        Ok(compared.collect())
    }

    /// Cuts a range where a member, or another one in its place, has half of its entries; `None`: it is too small.
    pub(super) async fn cut(
        &self,
        scope: &QuorumScope,
        range: &PositionRange,
        member: usize,
    ) -> Result<Option<(PositionRange, PositionRange)>, QuorumError> {
        let prefer: Vec<NodeId> = scope.nodes(std::iter::once(member));
        let one = QuorumScope { replicas: scope.replicas.any_one(), ..scope.clone() };
        let body =
            |_| request::Body::Split(peer::Split { range: Some(peer::Range::from(range)), as_stored: false });
        let decode = |reply| match reply {
            response::Body::Split(done) => Ok(Position::from_bytes(done.position)),
            _ => Err(strange("is not that to a split")),
        };
        let points = self.gather(&one, &prefer, body, decode, whole).await?;
        let inner = points.said.into_iter().map(|(_, at)| at).find(|at| *at > range.start && *at < range.end);
        Ok(inner.map(|at| {
            let low = PositionRange { start: range.start.clone(), end: at.clone() };
            (low, PositionRange { start: at, end: range.end.clone() })
        }))
    }

    /// The live keys of a range, merged from a quorum. Replicas that are found behind are repaired.
    pub(super) async fn list(
        &self,
        scope: &QuorumScope,
        range: &PositionRange,
    ) -> Result<Vec<Position>, QuorumError> {
        let wanted = PageRequest { reverse: false, keys_only: true, limit: MAX_PAGE, max_bytes: PAGE_BYTES };
        let (mut keys, mut rest) = (Vec::new(), range.clone());
        for _ in 0..MAX_CUTS {
            let (merged, _paid) = self.page(scope, &rest, wanted).await?;
            let live = merged.entries.into_iter().filter(|entry| entry.record.is_live());
            keys.extend(live.map(|entry| entry.position).filter(Position::is_own));
            if merged.rest.is_empty() {
                return Ok(keys);
            }
            rest = merged.rest;
        }
        Err(grew_too_large().into())
    }
}

fn decode(body: response::Body, count: usize) -> Result<Vec<Summary>, CallError> {
    match body {
        response::Body::Summarize(done) if done.summaries.len() == count => {
            let sums = done.summaries.into_iter().map(Summary::try_from).collect::<Result<_, _>>();
            sums.map_err(strange)
        }
        _ => Err(strange("is not that to a comparison")),
    }
}
