//! Brings this node's copy of a range up to another node's: what is newer there is taken.
//!
//! Both sides' digests are compared, unless this node has nothing, and where they differ the range is cut, in about
//! equal parts of what this node has of it, down to lists. What it has hardly anything of is listed as a whole, however
//! much the other one has there.
//! So a pull that was cut short goes on where it was, by itself; and one that ends without an error has shown that this
//! node lacks nothing that the other had when it began (invariant PULL-COVERS): each part was equal, or listed and
//! merged.

use super::{Upkeep, lists::Lists, sync::may_go};
use crate::{
    engine::EngineError,
    peer::{Call, CallError, Target},
    radix::{CommitError, Summary, Verdict, View},
    replica::Floor,
    ring::changed_in,
};
use god_proto::{
    ids::NodeId,
    peer::{self, Cause, request, response},
    position::{Position, PositionRange},
    record::Entry,
    ring::Ring,
    v1,
    version::Version,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Ranges of which this node has up to so many entries are listed, not cut further.
const LIST_BELOW: u64 = 64;
/// Into how many parts a range is cut at the most.
const PARTS: u64 = 8;
/// The most ranges in one comparison.
const RANGES_AT_ONCE: usize = 64;
/// The most entries, and about the most bytes, in one page.
const PAGE: u32 = 4_096;
const PAGE_BYTES: u32 = 1 << 20;
/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most ranges that wait to be compared; what waits beyond is compared as one.
const MAX_WAITING: usize = 65_536;

/// Why a pull ended early. It may be begun again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PullError {
    /// What it was for is no more so.
    #[error("it is not wanted any more")]
    Over,
    /// The other node did not answer, or refused.
    #[error("node {0}: {1}")]
    Source(NodeId, String),
    /// The other node has something there that it cannot read.
    #[error("node {0}: {1}")]
    Unreadable(NodeId, String),
    /// This node's storage failed.
    #[error("{0}")]
    Own(String),
    /// This node's storage takes no more, for about so long.
    #[error("this node's storage is busy")]
    Busy(Duration),
    /// All was taken but so many records: what stands there is damaged, and cannot be overwritten yet.
    #[error("{0} records are damaged here, and cannot be overwritten yet")]
    Damaged(u64),
}

/// What is pulled, and how.
pub struct PullRequest<'a> {
    /// What of.
    pub range: PositionRange,
    /// Whom from.
    pub from: NodeId,
    /// The other one may hold no copy by the ring, and hands over what it has.
    pub as_stored: bool,
    /// Its copy must be whole: it stands for one of those that a write is on.
    pub votes: bool,
    /// Up to this version the other one's copy is the truth: what only this node has goes. For new replicas.
    pub exact_to: Version,
    /// Whether to go on; asked before each page.
    pub still: &'a (dyn Fn() -> bool + Send + Sync),
    /// Told of what was done: entries and bytes compared or taken.
    pub done: &'a (dyn Fn(u64, u64) + Send + Sync),
    /// Somebody waits for the end of it, perhaps a client: no rest follows on its last page.
    pub is_awaited: bool,
    /// No client waits for what comes of it: it is looked for on threads that stand back.
    pub background: bool,
}

impl PullRequest<'_> {
    /// What must be the same on both sides for an answer to count, and while it is taken in: the arcs of this; nothing:
    /// the whole ring, as what is stored may be anybody's (ARC-EPOCH).
    fn arcs(&self) -> Option<&PositionRange> {
        (!self.as_stored).then_some(&self.range)
    }
}

/// Up to where another one's copy is the truth for who takes all of it, whatever its age: to where all were found
/// equal, and never zero, so that what was purged there goes here as well.
pub(super) fn exact_to(repaired: Version) -> Version {
    repaired.max(Version::new(0, 0, NodeId(1)))
}

/// What a pull took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Entries that were newer there.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that went over the network for comparing and listing.
    pub compared: u64,
    /// Entries that are not taken: what stands there is damaged, and cannot be overwritten.
    damaged: u64,
    /// How long to rest before the next page.
    rest: Duration,
}

impl Pulled {
    fn took(&mut self, entry: &Entry) {
        self.entries += 1;
        self.bytes += (entry.position.as_bytes().len() + entry.record.encoded_len()) as u64;
    }
}

impl Upkeep {
    /// See the module. Cost: O(differences × depth) messages' worth, or one scan where this node has hardly anything.
    pub(super) async fn pull(&self, wanted: &PullRequest<'_>) -> Result<Pulled, PullError> {
        let mut pulled = Pulled::default();
        let mut unreadable = None;
        let own =
            self.own_sums(wanted, std::slice::from_ref(&wanted.range), vec![None]).await?.pop().flatten();
        // With what this node has of each, where that is known.
        let mut waiting = Vec::new();
        if own.is_some_and(|own| own.entries == 0) {
            // There is nothing to compare with what the other one would count.
            unreadable = self.take_parts(wanted, vec![wanted.range.clone()], &mut pulled).await?;
        } else {
            waiting.push((wanted.range.clone(), own));
        }
        while !waiting.is_empty() {
            let (batch, known): (Vec<PositionRange>, Vec<Option<Summary>>) =
                waiting.drain(waiting.len().saturating_sub(RANGES_AT_ONCE)..).unzip();
            // At once: what is written between looking here and there is taken for a difference.
            let (mine, theirs) =
                tokio::try_join!(self.own_sums(wanted, &batch, known), self.their_sums(wanted, &batch))?;
            pulled.compared += batch.len() as u64 * 2 * Summary::SIZE as u64;
            let (mut lists, mut cut) = (Lists::default(), Vec::new());
            for ((range, mine), theirs) in batch.into_iter().zip(mine).zip(theirs) {
                let entries = |sum: &Option<Summary>| sum.as_ref().map_or(0, |sum| sum.entries);
                let most = entries(&mine).max(entries(&theirs));
                if let Some(theirs) = &theirs {
                    let is_equal =
                        |mine: &Summary| mine.digest == theirs.digest && mine.entries == theirs.entries;
                    let nothing_there = theirs.entries == 0 && wanted.exact_to == Version::ZERO;
                    if mine.as_ref().is_some_and(is_equal) || nothing_there {
                        (wanted.done)(theirs.entries, theirs.bytes);
                        continue;
                    }
                }
                let here = entries(&mine);
                if here <= LIST_BELOW || waiting.len() > MAX_WAITING {
                    lists.add(range, most);
                    continue;
                }
                cut.push((range, here, most));
            }
            for (parts, (range, _, most)) in self.cut(wanted, &cut).await?.into_iter().zip(cut) {
                match parts.len() > 1 {
                    true => waiting.extend(parts.into_iter().rev()),
                    false => lists.add(range, most),
                }
            }
            for parts in lists.joined(PAGE.into()) {
                unreadable = self.take_parts(wanted, parts, &mut pulled).await?.or(unreadable);
            }
        }
        if !wanted.is_awaited {
            self.rest(std::mem::take(&mut pulled.rest)).await;
        }
        // PULL-COVERS
        match (unreadable, pulled.damaged) {
            (Some(unreadable), _) => Err(unreadable),
            (None, 0) => Ok(pulled),
            (None, damaged) => Err(PullError::Damaged(damaged)),
        }
    }

    /// What this node has of each range, where it is not known already; `None`: it cannot count all of that.
    async fn own_sums(
        &self,
        wanted: &PullRequest<'_>,
        ranges: &[PositionRange],
        known: Vec<Option<Summary>>,
    ) -> Result<Vec<Option<Summary>>, PullError> {
        if known.iter().all(Option::is_some) {
            return Ok(known);
        }
        let ranges = ranges.to_vec();
        let sums = move |view: &View| {
            // What cannot be counted is listed: what it is there is overwritten here (DAMAGE-APART).
            let sum = |(range, known): (&PositionRange, Option<Summary>)| match known {
                Some(_) => Ok(known),
                None => match view.summary(range) {
                    Err(EngineError::Corrupt(_)) => Ok(None),
                    sum => sum.map(Some),
                },
            };
            ranges.iter().zip(known).map(sum).collect()
        };
        self.look(wanted.background, sums).await.map_err(own)
    }

    /// What the other one has of each range; `None`: it cannot count all of that.
    async fn their_sums(
        &self,
        wanted: &PullRequest<'_>,
        ranges: &[PositionRange],
    ) -> Result<Vec<Option<Summary>>, PullError> {
        match self.sums_of(wanted, ranges).await {
            Ok(sums) => return Ok(sums.into_iter().map(Some).collect()),
            Err(PullError::Unreadable(..)) => {}
            Err(error) => return Err(error),
        }
        if ranges.len() == 1 {
            return Ok(vec![None]);
        }
        let mut sums = Vec::with_capacity(ranges.len());
        for range in ranges {
            match self.sums_of(wanted, std::slice::from_ref(range)).await {
                Ok(mut sum) => sums.push(sum.pop()),
                Err(PullError::Unreadable(..)) => sums.push(None),
                Err(error) => return Err(error),
            }
        }
        Ok(sums)
    }

    async fn sums_of(
        &self,
        wanted: &PullRequest<'_>,
        ranges: &[PositionRange],
    ) -> Result<Vec<Summary>, PullError> {
        let asked = ranges.iter().map(peer::Range::from).collect();
        let body = request::Body::Summarize(peer::Summarize {
            ranges: asked,
            as_stored: wanted.as_stored,
            compares: !wanted.votes,
            background: wanted.background,
        });
        match self.ask_about(wanted.arcs(), wanted.from, wanted.still, body).await? {
            response::Body::Summarize(done) if done.summaries.len() == ranges.len() => done
                .summaries
                .into_iter()
                .map(|sum| Summary::try_from(sum).map_err(|problem| odd(wanted.from, problem)))
                .collect(),
            _ => Err(odd(wanted.from, "its answer is not that to a comparison")),
        }
    }

    /// Cuts ranges where this node has about equal parts of its entries, which come with them, and says what it has of
    /// each part where that is known. All in one look: a thread may rest after each.
    async fn cut(
        &self,
        wanted: &PullRequest<'_>,
        ranges: &[(PositionRange, u64, u64)],
    ) -> Result<Vec<Vec<(PositionRange, Option<Summary>)>>, PullError> {
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let ranges: Vec<(PositionRange, u64)> =
            ranges.iter().map(|(range, entries, _)| (range.clone(), *entries)).collect();
        let cut = move |view: &View| {
            let parts = |(range, entries): &(PositionRange, u64)| {
                view.parts(range, *entries, entries.div_ceil(LIST_BELOW).min(PARTS) as usize)
            };
            ranges.iter().map(parts).collect()
        };
        self.look(wanted.background, cut).await.map_err(own)
    }

    /// Takes what is newer of ranges that follow on each other, all together; where the other one has something among
    /// it that it cannot read, of each alone, so that nothing is held up but what shares a range with that
    /// (DAMAGE-APART). Gives what could not be read.
    async fn take_parts(
        &self,
        wanted: &PullRequest<'_>,
        parts: Vec<PositionRange>,
        pulled: &mut Pulled,
    ) -> Result<Option<PullError>, PullError> {
        let whole = parts
            .first()
            .zip(parts.last())
            .map(|(first, last)| PositionRange { start: first.start.clone(), end: last.end.clone() });
        let Some(mut rest) = whole else { return Ok(None) };
        let mut unreadable = match self.take(wanted, &mut rest, pulled).await {
            Err(error @ PullError::Unreadable(..)) => Some(error),
            done => return done.map(|()| None),
        };
        if parts.len() > 1 {
            for mut part in parts.into_iter().map(|part| part.intersect(&rest)) {
                match self.take(wanted, &mut part, pulled).await {
                    Err(error @ PullError::Unreadable(..)) => unreadable = Some(error),
                    done => done?,
                }
            }
        }
        Ok(unreadable)
    }

    /// Lists what the other one has of a range, page by page, and takes what is newer; `rest` is what is left of it.
    async fn take(
        &self,
        wanted: &PullRequest<'_>,
        rest: &mut PositionRange,
        pulled: &mut Pulled,
    ) -> Result<(), PullError> {
        let (mut stale, mut busy) = (0, 0);
        while !rest.is_empty() {
            self.rest(std::mem::take(&mut pulled.rest)).await;
            self.pace.wait_until_paid().await;
            let (epoch, began) = (self.ring.epoch(), Instant::now());
            let scan = peer::Scan {
                range: Some(peer::Range::from(&*rest)),
                limit: PAGE,
                max_bytes: PAGE_BYTES,
                as_stored: wanted.as_stored,
                compares: !wanted.votes,
                background: wanted.background,
                ..peer::Scan::default()
            };
            let peer::ScanDone { entries, more, late_us } = match self
                .ask_about(wanted.arcs(), wanted.from, wanted.still, request::Body::Scan(scan))
                .await?
            {
                response::Body::Scan(page) => page,
                _ => return Err(odd(wanted.from, "its answer is not that to a scan")),
            };
            let entries = entries
                .into_iter()
                .map(Entry::try_from)
                .collect::<Result<Vec<Entry>, _>>()
                .map_err(|error| odd(wanted.from, &error.to_string()))?;
            let sorted = entries.array_windows().all(|[a, b]| a.position < b.position);
            if !sorted || !entries.iter().all(|entry| rest.contains(&entry.position)) {
                return Err(odd(wanted.from, "its page holds what was not asked for"));
            }
            let end = match entries.last() {
                Some(last) if more => last.position.next(),
                None if more => return Err(odd(wanted.from, "its page is empty and not the last")),
                _ => rest.end.clone(),
            };
            let part = PositionRange { start: rest.start.clone(), end: end.clone() };
            let bytes: u64 = entries.iter().map(weight).sum();
            pulled.compared += bytes;
            self.pace.took(bytes);
            // Under one ring: what this node is found to hold under the next one holds all of this or nothing.
            let admitted = self.replica.admit().await;
            if !(wanted.still)() {
                return Err(PullError::Over);
            }
            // PAGE-EPOCH: floors may have risen since the other one was asked, and what they let go would come back.
            let stood_still = |ring: Arc<Ring>| (1..=epoch.0).contains(&changed_in(&ring, &part).0);
            let may_move = || wanted.arcs().is_some() && self.ring.get().is_some_and(stood_still);
            if self.ring.epoch() != epoch && !may_move() {
                drop(admitted);
                stale += 1;
                if stale > MAX_TRIES {
                    return Err(PullError::Own("the ring changes faster than a page arrives".to_owned()));
                }
                continue;
            }
            stale = 0;
            let count = entries.len() as u64;
            match self.admit(wanted, &part, entries, pulled).await {
                // Whoever settles does not wait for this node's disk.
                Err(PullError::Busy(for_now)) if busy < MAX_TRIES => {
                    drop(admitted);
                    busy += 1;
                    tokio::time::sleep(for_now).await;
                    continue;
                }
                done => done?,
            }
            busy = 0;
            (wanted.done)(count, bytes);
            rest.start = end;
            drop(admitted);
            pulled.rest = self.rest_after(began.elapsed(), late_us);
        }
        Ok(())
    }

    /// Writes what is newer than what is here.
    async fn admit(
        &self,
        wanted: &PullRequest<'_>,
        part: &PositionRange,
        mut entries: Vec<Entry>,
        pulled: &mut Pulled,
    ) -> Result<(), PullError> {
        // A tombstone that may go is as good as gone: it is not spread any more.
        let sure_ms = self.replica.clock().sure_ms();
        let may_go = |entry: &Entry| may_go(&entry.record, wanted.exact_to, sure_ms);
        // What a wrong clock stamped is not spread either (FAR-IS-NOT-THERE).
        let ceiling_ms = self.replica.clock().ceiling_ms();
        entries.retain(|entry| !may_go(entry) && entry.record.version.ms() <= ceiling_ms);
        if wanted.exact_to != Version::ZERO {
            self.forget_others(part, &entries, wanted.exact_to).await?;
        }
        // A handed-over entry at or below a promised floor is on all replicas, or was never acknowledged. One that
        // comes by sync at or below a repaired floor was purged here.
        let is_low = |entry: &mut Entry| {
            let version = entry.record.version;
            wanted.exact_to == Version::ZERO
                && if wanted.as_stored {
                    version <= self.replica.promised_at(&entry.position)
                } else {
                    version <= self.replica.repaired_at(&entry.position)
                }
        };
        let low: Vec<Position> = entries.extract_if(.., is_low).map(|entry| entry.position).collect();
        if !low.is_empty() {
            let damaged = self.replica.damaged_below_floors(&low).await;
            let damaged = damaged.map_err(|failure| PullError::Own(failure.message))?;
            // What is handed over is elsewhere as well: who leaves does not wait for this node to be mended.
            pulled.damaged += if wanted.as_stored { 0 } else { damaged };
        }
        if entries.is_empty() {
            return Ok(());
        }
        let entries = Arc::new(entries);
        let verdicts = self.replica.take(Arc::clone(&entries), ceiling_ms).await.map_err(refused)?;
        for (entry, verdict) in entries.iter().zip(verdicts) {
            match verdict {
                Verdict::Applied => pulled.took(entry),
                Verdict::Damaged => pulled.damaged += 1,
                Verdict::Equal | Verdict::Superseded(_) => {}
            }
        }
        Ok(())
    }

    /// Removes what is here, up to a version, and not among `theirs`; but for what cannot be read, which is overwritten
    /// or stays.
    async fn forget_others(
        &self,
        part: &PositionRange,
        theirs: &[Entry],
        up_to: Version,
    ) -> Result<(), PullError> {
        let range = part.clone();
        let mine = move |view: &View| {
            let found = view.readable(&range).filter_map(|entry| match entry {
                Ok(entry) if entry.record.version > up_to => None,
                entry => Some(entry.map(|entry| (entry.position, entry.record.version))),
            });
            found.collect::<Result<Vec<(Position, Version)>, EngineError>>()
        };
        // Not behind: writes may wait for who admitted this.
        let mut mine = self.look(false, mine).await.map_err(own)?;
        mine.retain(|(position, _)| theirs.binary_search_by(|entry| entry.position.cmp(position)).is_err());
        self.store.forget(mine).await.map_err(refused)?;
        Ok(())
    }

    /// Asks the other node under this node's ring; where that changes meanwhile, under the new one.
    pub(super) async fn ask(
        &self,
        from: NodeId,
        still: &(dyn Fn() -> bool + Send + Sync),
        body: request::Body,
    ) -> Result<response::Body, PullError> {
        self.ask_about(None, from, still, body).await
    }

    /// As [`Upkeep::ask`]; where it is about `arcs`, what changes elsewhere is in no way.
    async fn ask_about(
        &self,
        arcs: Option<&PositionRange>,
        from: NodeId,
        still: &(dyn Fn() -> bool + Send + Sync),
        body: request::Body,
    ) -> Result<response::Body, PullError> {
        let mut problem = String::new();
        for attempt in 0..MAX_TRIES {
            if !still() {
                return Err(PullError::Over);
            }
            let Some(ring) = self.ring.get() else { return Err(PullError::Over) };
            let arcs = arcs.map_or(0, |range| changed_in(&ring, range).0);
            let call = Call { epoch: ring.epoch().0, arcs, timeout: TIMEOUT, body: body.clone() };
            match self.transport.call(Target::Node(from), call).await {
                Ok(answer) => return Ok(answer),
                Err(CallError::Refused(failure)) if failure.cause() == Cause::StaleEpoch => {
                    self.meet(from, failure.epoch, &ring).await;
                    problem = failure.message;
                }
                Err(CallError::Refused(failure)) if failure.cause() == Cause::Busy => {
                    problem = failure.message;
                    tokio::time::sleep(Duration::from_millis(20 << attempt.min(5))).await;
                }
                Err(CallError::Refused(failure)) if failure.cause() == Cause::Corrupt => {
                    let error = CallError::Refused(failure).to_string();
                    return Err(PullError::Unreadable(from, error));
                }
                Err(error) => return Err(PullError::Source(from, error.to_string())),
            }
        }
        Err(PullError::Source(from, problem))
    }

    /// Another node's floors in each part of a range, in order, and whether any of it is lapsed there. Where arcs
    /// became one, its parts have floors of their own: the lowest says too little of the others. An earlier version
    /// tells the lowest alone.
    pub(super) async fn floors_of(
        &self,
        from: NodeId,
        range: &PositionRange,
        still: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<(Vec<(PositionRange, Floor)>, bool), PullError> {
        let (mut rest, mut floors, mut lapsed) = (range.clone(), Vec::new(), false);
        while !rest.is_empty() {
            let asked = Some(peer::Range::from(&rest));
            let ask = peer::Floor { range: asked, parts: true, ..peer::Floor::default() };
            let response::Body::Floor(done) = self.ask(from, still, request::Body::Floor(ask)).await? else {
                return Err(odd(from, "its answer is not that to a floor"));
            };
            lapsed |= done.lapsed;
            if done.parts.is_empty() {
                let end = rest.end.clone();
                floors.push((
                    PositionRange { start: rest.start, end: end.clone() },
                    floor(done.promised, done.repaired),
                ));
                rest.start = end;
                continue;
            }
            for part in done.parts {
                let end = Position::from_bytes(part.end);
                if end <= rest.start || end > rest.end {
                    return Err(odd(from, "the parts of its floors are in no order"));
                }
                let start = std::mem::replace(&mut rest.start, end.clone());
                floors.push((PositionRange { start, end }, floor(part.promised, part.repaired)));
            }
        }
        Ok((floors, lapsed))
    }

    /// Waits until writes that another node admitted under an older ring are applied there.
    pub(super) async fn fence(
        &self,
        from: NodeId,
        still: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<(), PullError> {
        match self.ask(from, still, request::Body::Fence(peer::Fence {})).await? {
            response::Body::Fence(_) => Ok(()),
            _ => Err(odd(from, "its answer is not that to a fence")),
        }
    }
}

/// How often one question is asked before the pull ends.
const MAX_TRIES: u32 = 12;

fn floor(promised: Option<v1::Version>, repaired: Option<v1::Version>) -> Floor {
    let version = |version: Option<v1::Version>| version.map_or(Version::ZERO, Version::from);
    Floor { promised: version(promised), repaired: version(repaired) }
}

fn refused(error: CommitError) -> PullError {
    match error {
        CommitError::Busy { retry_after } => PullError::Busy(retry_after),
        error => PullError::Own(error.to_string()),
    }
}

fn weight(entry: &Entry) -> u64 {
    (entry.position.as_bytes().len() + entry.record.encoded_len()) as u64
}

fn own(error: EngineError) -> PullError {
    PullError::Own(error.to_string())
}

fn odd(from: NodeId, problem: &str) -> PullError {
    PullError::Source(from, problem.to_owned())
}
