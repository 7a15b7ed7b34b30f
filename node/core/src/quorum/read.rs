//! Reads positions of one arc at a quorum, and repairs the replicas it finds behind before it answers.

use super::{
    Shared,
    fan::{Answers, QuorumError, QuorumScope, damaged, other_epoch, strange},
    fit::fit,
    poll::{Poll, Repair, Said},
    refusal::{no_memory, no_time_to_judge_by, stale, unreadable},
};
use crate::{
    budget::Paid,
    peer::{CallError, Held, Told, from_entry},
    version::SURE_MS,
};
use god_proto::{
    peer,
    peer::{request, response},
    position::{Position, PositionRange},
    record::Record,
    v1::{Found, Missing, Reason, Rejected, get_reply},
    version::Version,
};
use god_rules::quorum::{ReplicaMask, bits};
use std::collections::BTreeSet;
use tokio::time::Instant;

/// What a quorum says of one position.
pub(super) type Got = Result<Option<Record>, Rejected>;

/// Bytes of what was got.
fn values<'a>(got: impl IntoIterator<Item = &'a Option<Record>>) -> usize {
    got.into_iter().flatten().map(|record| record.value.len()).sum()
}

/// What a replica told of `count` positions, or of the first of them. What a wrong clock stamped is not there
/// (FAR-IS-NOT-THERE), whatever the replica's own clock says.
pub(super) fn told(
    body: response::Body,
    count: usize,
    ceiling_ms: u64,
) -> Result<Vec<Held<Told>>, CallError> {
    let near = |told: Option<Told>| told.filter(|told| told.head().version.ms() <= ceiling_ms);
    let held = |entry| from_entry(entry).map(|held| held.map(near));
    let records: Vec<Held<Told>> = match body {
        response::Body::Read(done) if done.entries.len() <= count => {
            let records = done.entries.into_iter().map(held).collect::<Result<_, _>>();
            records.map_err(|error| strange(&format!("holds {error}")))?
        }
        _ => return Err(strange("is not that to a read")),
    };
    // Who can read none of it refuses.
    match records.iter().any(Result::is_ok) {
        true => Ok(records),
        false => Err(strange("says nothing of any position")),
    }
}

/// Whether the replica now holds each of `count` entries, or newer ones. If not, some are too old to be written, and it
/// must compare itself with one that has them.
fn took(body: response::Body, count: usize) -> Result<bool, CallError> {
    match body {
        response::Body::Write(done) if done.verdicts.len() == count => {
            if done.verdicts.iter().any(|verdict| verdict.damaged) {
                return Err(damaged());
            }
            Ok(done.verdicts.iter().all(|verdict| !verdict.floored))
        }
        _ => Err(strange("is not that to a write")),
    }
}

impl Shared {
    /// Of how large values a member is to tell all; 0: of all. What this node holds itself crosses no network
    /// (SIZES-FIRST).
    pub(super) fn largest_unpaid(&self, scope: &QuorumScope, at: usize) -> u32 {
        if scope.replicas.node(at) == Some(self.me) { 0 } else { self.settings.largest_unpaid }
    }

    /// The newest record at each position, each at least as new as asked, on a quorum by the time this returns; else
    /// why not, of that position alone.
    /// Fewer than were asked where all would not fit in one message; one at least. With what is paid for them.
    pub(super) async fn read(
        &self,
        scope: &QuorumScope,
        prefer: &[god_proto::ids::NodeId],
        asked: &[(Position, Version)],
    ) -> Result<(Vec<Got>, Paid), QuorumError> {
        let body = |at| {
            let positions = asked.iter().map(|(position, _)| position.clone().into_bytes()).collect();
            request::Body::Read(peer::Read { positions, largest_bytes: self.largest_unpaid(scope, at) })
        };
        let ceiling_ms = self.clock.ceiling_ms();
        let decode = |reply| told(reply, asked.len(), ceiling_ms);
        // Of these there was no memory for what is said (BUDGET).
        let mut given_up = BTreeSet::new();
        let fit = |answers: &mut Answers<Vec<Held<Told>>>, answer: &mut Vec<Held<Told>>| {
            fit(&self.settings.budget, &mut answers.paid, &mut answers.said, answer, &mut given_up)
        };
        let Answers { mut said, mut paid } = self.gather(scope, prefer, body, decode, fit).await?;

        let damaged = |said: &[Said]| Poll::lacks_voices(said, &scope.replicas, &given_up);
        // Why there is no more to hear of those that more was wanted of (BUDGET).
        let mut no_more = None;
        if Poll::lags(&said, asked) || damaged(&said) {
            let answered: ReplicaMask = said.iter().map(|(member, _)| 1 << *member).sum();
            let others = self.reachable(&scope.replicas) & !answered;
            // What is beside a damaged record waits for others until half of the time is up, so that it is answered.
            let left = scope.deadline.saturating_duration_since(Instant::now());
            let deadline = if damaged(&said) { Instant::now() + left / 2 } else { scope.deadline };
            let mut newer = None;
            let take = |member, reply: Result<Vec<Held<Told>>, CallError>| {
                newer = other_epoch(&reply).map(|failure| (member, failure.epoch)).or(newer);
                said.extend(reply.ok().map(|records| (member, records)));
                !Poll::lags(&said, asked) && !damaged(&said)
            };
            let scope = QuorumScope { deadline, ..scope.clone() };
            let asked = bits(others).map(|at| (at, body(at)));
            no_more = self.ask_each(&scope, &mut paid, asked, decode, take).await.err();
            if damaged(&said)
                && let Some((member, epoch)) = newer
                && self.has_moved(&scope, member, epoch).await
            {
                return Err(QuorumError::Moved);
            }
        }

        // A position that only some had room for goes with the rest.
        let mut polls = Poll::all(&said, &scope.replicas);
        let untold = self.get_withheld(scope, asked, &mut said, &mut polls, &mut given_up, &mut paid).await?;
        let judged = self.end(scope, &mut said, &mut polls).await;
        let unsettled = match Repair::plan(scope, asked, &said, &mut polls) {
            Some(repair) => self.repair(scope, repair).await?,
            None => None,
        };
        let mut purged = BTreeSet::new();
        for (at, (poll, (position, least))) in polls.iter().zip(asked).enumerate() {
            if poll.version == Version::ZERO && *least > Version::ZERO && scope.replicas.enough(poll.asked) {
                if !self.is_purged(scope, position, *least).await {
                    break;
                }
                purged.insert(at);
            }
        }
        let got: Vec<Got> = polls
            .iter()
            .zip(asked)
            .enumerate()
            .map(|(at, (poll, (_, least)))| {
                if !scope.replicas.enough(poll.asked) {
                    let why = || match given_up.contains(&at) {
                        true => no_memory(),
                        false => unreadable(scope.replicas.shortfall(poll.asked)),
                    };
                    return Err(no_more.clone().unwrap_or_else(why));
                }
                if poll.version < *least && !purged.contains(&at) {
                    return Err(no_more.clone().unwrap_or_else(|| stale(*least)));
                }
                if let Some(why) = unsettled.as_ref().filter(|_| poll.is_unsettled) {
                    return Err(why.clone());
                }
                let newest = poll.newest.and_then(|index| said.get_mut(index));
                let record = match newest.and_then(|(_, records)| records.get_mut(at)?.as_mut().ok()?.take())
                {
                    Some(Told::Withheld(..)) => {
                        let why = || unreadable(scope.replicas.shortfall(poll.asked));
                        return Err(untold.get(&at).cloned().unwrap_or_else(why));
                    }
                    told => told.and_then(Told::whole),
                };
                match &judged {
                    Err(rejected) if record.as_ref().is_some_and(may_end) => Err(rejected.clone()),
                    _ => Ok(record),
                }
            })
            .collect();
        drop(said);
        paid.keep(values(got.iter().flatten()));
        Ok((got, paid))
    }

    /// Whether all replicas were found equal at a position up to a version (PURGE-FLOOR). Where a quorum holds nothing
    /// there then, that version was a deletion or an end, and is purged: nothing is as new as it.
    async fn is_purged(&self, scope: &QuorumScope, position: &Position, version: Version) -> bool {
        let range = Some(peer::Range::from(&PositionRange::of_position(position)));
        let ask = peer::Floor { range, ..peer::Floor::default() };
        let decode = |reply| match reply {
            response::Body::Floor(done) if !done.lapsed => {
                Ok(done.repaired.map_or(Version::ZERO, Version::from))
            }
            _ => Err(strange("is not what a replica that is whole says of its floor")),
        };
        let mut is_purged = false;
        let take = |_, repaired: Result<Version, CallError>| {
            is_purged |= repaired.is_ok_and(|repaired| repaired >= version);
            is_purged
        };
        let asked = bits(self.reachable(&scope.replicas)).map(|at| (at, request::Body::Floor(ask.clone())));
        // Such answers are small: there is always memory for them.
        let _done = self.ask_each(scope, &mut Paid::default(), asked, decode, take).await;
        is_purged
    }

    /// Puts the deletion in the place of each record whose time is up. Where another clock may say otherwise still, so
    /// many must hold that before anybody is told that every other read meets one (invariants READ-REPAIRED,
    /// EXPIRY-DERIVED); later all say the same. Where so many are not there, the record stands for that long. The error
    /// is for those that this node's clock cannot judge.
    async fn end(&self, scope: &QuorumScope, said: &mut [Said], polls: &mut [Poll]) -> Result<(), Rejected> {
        let newest = |said: &[Said], at: usize, poll: &Poll| -> Option<Record> {
            Some(poll.newest(said, at)?.head()).filter(|record| may_end(record)).cloned()
        };
        // Whoever ended it may have told nobody else.
        if polls.iter().any(|poll| poll.version.is_expiry()) {
            let sure_ms = self.clock.sure_ms();
            for (at, poll) in polls.iter_mut().enumerate().filter(|(_, poll)| poll.version.is_expiry()) {
                poll.is_fresh = poll.newest(said, at).is_some_and(|ended| is_unsure(ended.head(), sure_ms));
            }
        }
        if !polls.iter().enumerate().any(|(at, poll)| newest(said, at, poll).is_some()) {
            return Ok(());
        }
        let now_ms = self.judging_ms(scope).await?;
        let there = self.reachable(&scope.replicas)
            | said.iter().map(|(member, _)| 1 << *member).sum::<ReplicaMask>();
        let can_cover = scope.replicas.covering().enough(there);
        for (at, poll) in polls.iter_mut().enumerate() {
            let Some(ended) = newest(said, at, poll).and_then(|record| record.ended(now_ms)) else {
                continue;
            };
            poll.is_fresh = is_fresh(&ended, now_ms);
            if poll.is_fresh && !can_cover {
                poll.is_fresh = false;
                continue;
            }
            if poll.is_fresh {
                poll.holders = 0;
            }
            poll.version = ended.version;
            let place = poll
                .newest
                .and_then(|index| said.get_mut(index))
                .and_then(|(_, records)| records.get_mut(at));
            if let Some(place) = place {
                *place = Ok(Some(Told::Whole(ended)));
            }
        }
        Ok(())
    }

    /// The time by which this node says whether a record's is up.
    pub(super) async fn judging_ms(&self, scope: &QuorumScope) -> Result<u64, Rejected> {
        let patience = scope.deadline.saturating_duration_since(Instant::now());
        let trusted = self.clock.trusted(patience).await;
        trusted.map(|now_ms| self.clock.hybrid_at(now_ms)).map_err(|error| no_time_to_judge_by(&error))
    }

    /// Writes the newest records to members that lack them, until each is on a quorum. Why that is not so, of those of
    /// which it is not.
    async fn repair(
        &self,
        scope: &QuorumScope,
        mut repair: Repair<'_>,
    ) -> Result<Option<Rejected>, QuorumError> {
        metrics::counter!("god_quorum_read_repairs_total").increment(repair.len() as u64);
        // First those that were found behind; where that is not enough, any.
        let contacted = repair.contacted();
        let mut compared = self.hand_out(scope, &mut repair, contacted).await;
        if !repair.is_settled() {
            let others = self.reachable(&scope.replicas) & !contacted;
            compared |= self.hand_out(scope, &mut repair, others).await;
        }
        // Who compared itself has the records, and takes the ends of those now.
        if !repair.is_settled() && compared != 0 {
            self.hand_out(scope, &mut repair, compared).await;
        }
        if !repair.is_settled() && self.ring.epoch() > scope.ring.epoch() {
            return Err(QuorumError::Moved);
        }
        Ok(repair.unsettled(Instant::now() >= scope.deadline))
    }

    /// Writes to some members what they lack, until so many have it or all have answered. Gives those that compared
    /// themselves, because some of it was too old to be written.
    async fn hand_out(&self, scope: &QuorumScope, repair: &mut Repair<'_>, who: ReplicaMask) -> ReplicaMask {
        let lacking = repair.lacking(who);
        let write = |which: &[usize]| {
            let entries = repair.entries(which).cloned().map(peer::Entry::from).collect();
            request::Body::Write(peer::Write { entries })
        };
        let asked: Vec<_> = lacking.iter().map(|(member, which)| (*member, write(which))).collect();
        let mut waiting = lacking.len();
        let mut too_old = Vec::new();
        let take = |member, reply: Result<response::Body, CallError>| {
            waiting -= 1;
            let which = lacking.get(&member).map_or(&[][..], |which| which);
            match reply.and_then(|reply| took(reply, which.len())) {
                Ok(true) => repair.took(member, which),
                Ok(false) => too_old.push((member, which)),
                Err(error) => repair.failed(member, error),
            }
            waiting == 0 || repair.is_settled()
        };
        // Such answers are small: there is always memory for them.
        let _done = self.ask_each(scope, &mut Paid::default(), asked, Ok, take).await;
        let mut compared = 0;
        for (member, which) in too_old {
            match self.have_compared(scope, member, repair.holders(which)).await {
                Ok(()) => {
                    compared |= 1 << member;
                    repair.compared(member, which);
                }
                Err(error) => repair.failed(member, error),
            }
        }
        compared
    }

    /// Has a member compare itself, each range with the member that it is named beside: the way in for records at or
    /// below a promised floor (PURGE-FLOOR).
    async fn have_compared(
        &self,
        scope: &QuorumScope,
        member: usize,
        ranges: Vec<(usize, PositionRange)>,
    ) -> Result<(), CallError> {
        for (holder, range) in ranges {
            let Some(from) = scope.replicas.node(holder) else { continue };
            let range = Some(peer::Range::from(&range));
            let body =
                request::Body::Pull(peer::Pull { range, from: from.0, as_stored: false, is_awaited: true });
            let decode = |reply| match reply {
                response::Body::Pull(_) => Ok(()),
                _ => Err(strange("is not that to a pull")),
            };
            self.ask_one(scope, member, body, decode).await?;
        }
        Ok(())
    }

    /// The newest records at positions of one arc, each at least as new as asked, however many messages that takes; up
    /// to the first of which nothing can be said, and why not. With what is paid for them.
    pub(super) async fn read_all(
        &self,
        scope: &QuorumScope,
        prefer: &[god_proto::ids::NodeId],
        asked: Vec<(Position, Version)>,
    ) -> Result<(Vec<Option<Record>>, Option<Rejected>, Paid), QuorumError> {
        let mut out = Vec::with_capacity(asked.len());
        let mut paid = Paid::default();
        let mut at_once = READ_AT_ONCE;
        // Each round reads one at least, or fails.
        while let Some(rest) = asked.get(out.len()..)
            && !rest.is_empty()
        {
            let rest = rest.get(..rest.len().min(at_once)).unwrap_or(rest);
            let (got, part) = match self.read(scope, prefer, rest).await {
                Err(QuorumError::Failed(why)) if !out.is_empty() => return Ok((out, Some(why), paid)),
                read => read?,
            };
            // Those beside it may have taken the memory that there is, and are of no use without it.
            let is_busy = |got: &Got| matches!(got, Err(rejected) if rejected.reason() == Reason::Busy);
            if rest.len() > 1 && got.first().is_some_and(is_busy) {
                at_once = 1;
                continue;
            }
            at_once = (at_once * 2).min(READ_AT_ONCE);
            paid.absorb(part);
            for got in got {
                match got {
                    Ok(record) => out.push(record),
                    Err(rejected) => return Ok((out, Some(rejected), paid)),
                }
            }
        }
        Ok((out, None, paid))
    }
}

/// The most positions in one read.
const READ_AT_ONCE: usize = 256;

/// Whether a record's time may be up.
pub(super) fn may_end(record: &Record) -> bool {
    record.is_live() && record.expires_at_ms.is_some()
}

/// Whether another clock may say of a record, whose time is up by this one, that it is not.
pub(super) fn is_fresh(ended: &Record, now_ms: u64) -> bool {
    ended.expires_at_ms.is_some_and(|at| now_ms < at.saturating_add(SURE_MS))
}

/// The same of an end that stands somewhere, where all that was over by `sure_ms` is over by every clock.
pub(super) fn is_unsure(ended: &Record, sure_ms: u64) -> bool {
    ended.expires_at_ms.is_some_and(|at| at > sure_ms)
}

/// A record as a client sees it. Whether its time is up was judged before.
pub(super) fn seen(record: Option<Record>) -> get_reply::Outcome {
    match record {
        Some(record) if record.is_live() => get_reply::Outcome::Found(Found {
            value: record.value,
            version: Some(record.version.into()),
            expires_at_ms: record.expires_at_ms.unwrap_or(0),
        }),
        other => get_reply::Outcome::Missing(Missing { version: other.map(|record| record.version.into()) }),
    }
}
