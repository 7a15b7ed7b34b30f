//! Pages of keys in order, across arcs.

use super::{
    Coordinator, Shared,
    admit::{bad_continuation, find, invalid, need, too_long_a_page},
    fan::{Answers, QuorumError, QuorumScope, strange},
    fit::shorten,
    merge::{Merged, Page, PageEntry, check, merge},
    read::{is_fresh, is_unsure, may_end},
    refusal::{keyspace_gone, no_memory, not_initialised, ring_moves, undecodable},
};
use crate::{
    budget::Paid,
    peer::{CallError, Told, from_entry},
};
use bytes::{BufMut, Bytes, BytesMut};
use god_proto::{
    DEFAULT_PAGE, MAX_PAGE, PAGE_BYTES,
    ids::KeyspaceId,
    peer::{self, request, response},
    position::{MAX_POSITION, Position, PositionRange},
    record::{Entry, Record},
    ring::{Ring, RingArc, partitioner},
    v1::{KeyValue, Partitioner, Rejected, ScanReply, ScanRequest},
    version::Version,
};
use god_rules::quorum::{Need, Use};
use std::collections::BTreeSet;
use tokio::time::Instant;

/// The longest bound that a page resumes at: the next after the longest position.
const MAX_BOUND: usize = MAX_POSITION + 1;
/// Entries asked for at least, once a page of replicas gave fewer keys than were wanted.
const ENTRIES_AGAIN: u32 = 256;
/// The most questions to replicas for one page; then it ends where it is.
const MAX_QUESTIONS: usize = 256;
/// The first byte of a continuation: its layout.
const CONTINUATION: u8 = 1;

/// A page in the making.
struct Scan {
    keyspace: KeyspaceId,
    partitioner: Partitioner,
    reverse: bool,
    keys_only: bool,
    limit: u32,
    need: Need,
    deadline: Instant,
    /// What is left to scan.
    range: PositionRange,
    found: Vec<KeyValue>,
    bytes: usize,
}

/// How to ask replicas for a page.
#[derive(Clone, Copy)]
pub(super) struct PageRequest {
    pub reverse: bool,
    pub keys_only: bool,
    pub limit: u32,
    pub max_bytes: usize,
}

impl Coordinator {
    /// One page of keys in order. Deleted and expired keys are left out; replicas that are found behind are repaired
    /// before the answer.
    pub async fn scan(&self, request: ScanRequest) -> ScanReply {
        let shared = &self.0;
        match shared.scan(request).await {
            Ok(reply) => reply,
            Err(rejected) => ScanReply { failed: Some(rejected), ..ScanReply::default() },
        }
    }
}

impl Shared {
    async fn scan(&self, request: ScanRequest) -> Result<ScanReply, Rejected> {
        let ring = self.ring.get().ok_or_else(not_initialised)?;
        let mut scan =
            Scan::new(&ring, request, |timeout_ms| Instant::now() + self.settings.timeout(timeout_ms))?;
        let keyspace = ring.keyspace_by_id(scan.keyspace);
        let is_asleep = keyspace.is_some_and(|it| !it.live);
        drop(ring);
        if is_asleep {
            self.confirm(scan.deadline).await?;
        }
        if self.settings.budget.is_spent() {
            self.settings.budget.refused();
            return Err(no_memory());
        }
        // For what was found.
        let mut held = Paid::default();
        let (mut rings, mut moved) = (0, false);
        let mut asks = scan.limit;
        for _ in 0..MAX_QUESTIONS {
            if scan.range.is_empty() {
                return Ok(scan.end());
            }
            let ring = self.ring.get().ok_or_else(not_initialised)?;
            let Some(arc) = scan.arc(&ring) else {
                return Err(keyspace_gone());
            };
            let part = arc.range.intersect(&scan.range);
            let scope = QuorumScope::new(&ring, arc, scan.need, scan.deadline);
            let wanted = PageRequest {
                reverse: scan.reverse,
                keys_only: scan.keys_only,
                limit: asks.min(MAX_PAGE),
                max_bytes: PAGE_BYTES.saturating_sub(scan.bytes).max(1),
            };
            match self.page(&scope, &part, wanted).await {
                Ok((merged, paid)) => {
                    let is_full = scan.take(&part, merged)?;
                    held.absorb(paid);
                    held.keep(scan.bytes);
                    if is_full {
                        return Ok(scan.end());
                    }
                    moved = true;
                    asks = scan.left().max(ENTRIES_AGAIN);
                }
                Err(QuorumError::Moved) => {
                    rings += 1;
                    if rings > super::batch::MAX_RINGS {
                        return Err(ring_moves());
                    }
                }
                // What was found is worth a page; the next one begins where this one failed.
                Err(QuorumError::Failed(_)) if moved => return Ok(scan.end()),
                Err(QuorumError::Failed(rejected)) => return Err(rejected),
            }
        }
        Ok(scan.end())
    }

    /// What a quorum holds of a part of an arc, from the side where the scan begins, up to where each covers it; and
    /// what is paid for it.
    pub(super) async fn page(
        &self,
        scope: &QuorumScope,
        range: &PositionRange,
        wanted: PageRequest,
    ) -> Result<(Merged, Paid), QuorumError> {
        let PageRequest { reverse, keys_only, limit, max_bytes } = wanted;
        let body = |at| {
            let (range, max_bytes) = (Some(peer::Range::from(range)), max_bytes as u32);
            let asked = peer::Scan { range, reverse, limit, max_bytes, keys_only, ..peer::Scan::default() };
            request::Body::Scan(peer::Scan { largest_bytes: self.largest_unpaid(scope, at), ..asked })
        };
        let ceiling_ms = self.clock.ceiling_ms();
        let decode = |reply| decode(reply, range, reverse, ceiling_ms);
        let shorten = |answers: &mut Answers<Page>, page: &mut Page| {
            shorten(&self.settings.budget, &mut answers.paid, &mut answers.said, page, reverse)
        };
        let pages = self.gather(scope, &[], body, decode, shorten).await?;
        let Answers { said: pages, mut paid } = pages;
        let asked = scope.nodes(pages.iter().map(|(member, _)| *member));
        let mut merged = merge(range, reverse, pages.into_iter().map(|(_, page)| page).collect());
        let mut unread: BTreeSet<usize> = merged.unread.iter().copied().collect();
        let judged = match merged.entries.iter().any(|entry| may_end(&entry.record)) {
            true => Some(self.judging_ms(scope).await?),
            false => None,
        };
        let sure_ms = self.clock.sure_ms();
        for (at, entry) in merged.entries.iter_mut().enumerate() {
            let ended = judged.and_then(|now_ms| entry.record.ended(now_ms).map(|ended| (ended, now_ms)));
            match ended {
                Some((ended, now_ms)) if !is_fresh(&ended, now_ms) && !unread.contains(&at) => {
                    entry.record = ended;
                }
                // A quorum is read, and so many hold the end afterwards that all others see it.
                Some(_) => drop(unread.insert(at)),
                None if entry.record.version.is_expiry() && is_unsure(&entry.record, sure_ms) => {
                    unread.insert(at);
                }
                None => {}
            }
        }
        if !unread.is_empty() {
            let entries = unread.iter().filter_map(|at| merged.entries.get(*at));
            let least = entries.map(|entry| (entry.position.clone(), entry.record.version)).collect();
            // A quorum's read repairs those that are behind, and gets what was withheld (READ-REPAIRED, SIZES-FIRST).
            let (records, unsettled, more) = self.read_all(scope, &asked, least).await?;
            paid.absorb(more);
            let settled = records.len();
            for (at, record) in unread.iter().zip(records) {
                if let Some(entry) = merged.entries.get_mut(*at) {
                    // What is gone was a deletion or an end, and is purged.
                    let mut record = record.unwrap_or(Record::tombstone(Version::ZERO));
                    if keys_only {
                        record.value = Bytes::new();
                    }
                    entry.record = record;
                }
            }
            // What stands before it is told; it is not passed over, nor told as it stands: another read may have told
            // otherwise (READ-REPAIRED, EXPIRY-DERIVED).
            if let (Some(why), Some(at)) = (unsettled, unread.iter().nth(settled)) {
                if *at == 0 {
                    return Err(QuorumError::Failed(why));
                }
                merged.cut(*at, range, reverse);
            }
        }
        Ok((merged, paid))
    }
}

impl Scan {
    fn new(ring: &Ring, request: ScanRequest, deadline: impl Fn(u32) -> Instant) -> Result<Scan, Rejected> {
        let keyspace = find(ring, &request.keyspace)?;
        let (id, partitioner) = (KeyspaceId(keyspace.id), partitioner(keyspace));
        let limit = match request.limit {
            0 => DEFAULT_PAGE,
            limit @ 1..=MAX_PAGE => limit,
            limit => return Err(too_long_a_page(limit)),
        };
        let keys = request.range.unwrap_or_default();
        let mut range = PositionRange::of_keys(id, partitioner, &keys).map_err(|error| invalid(&error))?;
        if !request.continuation.is_empty() {
            let resume = resume(id, &request.continuation)?;
            if request.reverse {
                range.end = range.end.min(resume);
            } else {
                range.start = range.start.max(resume);
            }
        }
        Ok(Scan {
            keyspace: id,
            partitioner,
            reverse: request.reverse,
            keys_only: request.keys_only,
            limit,
            need: need(keyspace, request.consistency.as_ref(), Use::Read)?,
            deadline: deadline(request.timeout_ms),
            range,
            found: Vec::new(),
            bytes: 0,
        })
    }

    /// The arc where what is left begins.
    fn arc<'a>(&self, ring: &'a Ring) -> Option<&'a RingArc> {
        let arcs = ring.arcs_in(&self.range);
        let arc = if self.reverse { arcs.last() } else { arcs.first() };
        arc.filter(|arc| arc.keyspace == self.keyspace)
    }

    fn left(&self) -> u32 {
        self.limit.saturating_sub(self.found.len() as u32)
    }

    /// Adds what was found in a part; says whether the page is full.
    fn take(&mut self, part: &PositionRange, merged: Merged) -> Result<bool, Rejected> {
        for Entry { position, record } in merged.entries {
            if !position.is_own() || !record.is_live() {
                continue;
            }
            let decoded = position.decode(self.partitioner);
            let (_, key, _) = decoded.map_err(|error| undecodable(&error))?;
            let bytes = key.len() + record.value.len();
            // A page of what fits and one large value more would be more than a message holds.
            if !self.found.is_empty() && self.bytes + bytes > PAGE_BYTES {
                self.reach(&position);
                return Ok(true);
            }
            self.bytes += bytes;
            self.found.push(KeyValue {
                key,
                value: record.value,
                version: Some(record.version.into()),
                expires_at_ms: record.expires_at_ms.unwrap_or(0),
            });
            if self.left() == 0 || self.bytes >= PAGE_BYTES {
                self.pass(&position);
                return Ok(true);
            }
        }
        if self.reverse {
            self.range.end = if merged.rest.is_empty() { part.start.clone() } else { merged.rest.end };
        } else {
            self.range.start = if merged.rest.is_empty() { part.end.clone() } else { merged.rest.start };
        }
        Ok(false)
    }

    /// What is before this is done.
    fn reach(&mut self, position: &Position) {
        if self.reverse {
            self.range.end = position.next();
        } else {
            self.range.start = position.clone();
        }
    }

    /// What is up to here is done.
    fn pass(&mut self, position: &Position) {
        if self.reverse {
            self.range.end = position.clone();
        } else {
            self.range.start = position.next();
        }
    }

    fn end(self) -> ScanReply {
        let mut continuation = BytesMut::new();
        if !self.range.is_empty() {
            let from = if self.reverse { self.range.end } else { self.range.start };
            continuation.put_u8(CONTINUATION);
            continuation.put_slice(from.as_bytes());
        }
        ScanReply { entries: self.found, continuation: continuation.freeze(), failed: None }
    }
}

/// Where a page resumes.
fn resume(keyspace: KeyspaceId, continuation: &Bytes) -> Result<Position, Rejected> {
    if continuation.first() != Some(&CONTINUATION) {
        return Err(bad_continuation("is not one of this version"));
    }
    let position = Position::from_bytes(continuation.slice(1..));
    let whole = PositionRange::of_keyspace(keyspace);
    if position < whole.start || position > whole.end || position.as_bytes().len() > MAX_BOUND {
        return Err(bad_continuation("is not of this keyspace"));
    }
    Ok(position)
}

/// What a wrong clock stamped is not there (FAR-IS-NOT-THERE), whatever the replica's own clock says; its place is, so
/// that what is promised behind it is where it was.
fn decode(
    body: response::Body,
    range: &PositionRange,
    reverse: bool,
    ceiling_ms: u64,
) -> Result<Page, CallError> {
    let response::Body::Scan(done) = body else {
        return Err(strange("is not that to a scan"));
    };
    let entry = |mut entry: peer::Entry| {
        let position = Position::from_bytes(std::mem::take(&mut entry.position));
        match from_entry(entry) {
            Ok(Ok(Some(told))) if told.head().version.ms() > ceiling_ms => {
                Ok(PageEntry { position, told: Told::Whole(Record::tombstone(Version::ZERO)) })
            }
            Ok(Ok(Some(told))) => Ok(PageEntry { position, told }),
            Ok(_) => Err(strange("holds nothing, or what is damaged, at a position that it names")),
            Err(error) => Err(strange(&format!("holds {error}"))),
        }
    };
    let entries = done.entries.into_iter().map(entry).collect::<Result<_, _>>()?;
    let page = Page { entries, more: done.more };
    check(&page, range, reverse).map_err(|error| strange(&format!("is wrong: {error}")))?;
    Ok(page)
}
