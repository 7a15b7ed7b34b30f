//! Reads positions of one arc at a quorum, and repairs the replicas it finds behind before it answers.

use super::{
    Shared,
    fan::{Scope, Short, damaged, strange},
    refusal::{Failures, later, refuse},
};
use crate::{peer::CallError, version::SURE_MS};
use god_proto::{
    peer,
    peer::{request, response},
    position::Position,
    record::{Entry, Record},
    v1::{Found, Missing, Reason, Rejected, get_reply},
    version::Version,
};
use god_rules::quorum::{Mask, Sets, bits};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// What a quorum says of one position.
pub(super) type Got = Result<Option<Record>, Rejected>;

/// What one member says of the positions asked; of the first ones, where all would not fit in one message.
type Said = (usize, Vec<Option<Record>>);

/// A quorum's answers to one position, condensed.
#[derive(Default)]
struct Poll {
    /// Who holds the newest, by index.
    newest: Option<usize>,
    version: Version,
    /// Members that said something of this position.
    asked: Mask,
    /// Members that hold the newest, or one newer still.
    holders: Mask,
    /// The newest is the end of a record, and another clock may say that it is not over.
    is_fresh: bool,
    /// Too few hold it, and more could not be made to.
    is_unsettled: bool,
}

impl Poll {
    /// Whether it is to be written to more members before anybody is told.
    fn is_torn(&self, covering: &Sets) -> bool {
        self.holders != self.asked || self.is_fresh && !covering.enough(self.holders)
    }

    /// Of which sets so many must hold it before it may be told.
    fn needs<'a>(&self, scope: &'a Scope, covering: &'a Sets) -> &'a Sets {
        if self.is_fresh { covering } else { &scope.sets }
    }
}

fn poll(said: &[Said], at: usize) -> Poll {
    let mut poll = Poll::default();
    for (index, (member, records)) in said.iter().enumerate() {
        let Some(record) = records.get(at) else { continue };
        let bit: Mask = 1 << *member;
        poll.asked |= bit;
        let version = record.as_ref().map_or(Version::ZERO, |record| record.version);
        if version > poll.version {
            (poll.newest, poll.version, poll.holders) = (Some(index), version, bit);
        } else if version == poll.version {
            poll.holders |= bit;
        }
    }
    poll
}

/// What a wrong clock stamped is not there (FAR-IS-NOT-THERE), whatever the replica's own clock says.
fn decode(body: response::Body, count: usize, ceiling_ms: u64) -> Result<Vec<Option<Record>>, CallError> {
    match body {
        response::Body::Read(done) if done.entries.len() <= count && !done.entries.is_empty() => {
            let near = |record: Option<Record>| record.filter(|record| record.version.ms() <= ceiling_ms);
            let records = done.entries.into_iter().map(|entry| Option::<Record>::try_from(entry).map(near));
            records.collect::<Result<Vec<_>, _>>().map_err(|error| strange(&format!("holds {error}")))
        }
        _ => Err(strange("is not that to a read")),
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
    /// The newest record at each position, each at least as new as asked, on a quorum by the time this returns.
    /// Fewer than were asked where all would not fit in one message; one at least.
    pub(super) async fn read(
        &self,
        scope: &Scope,
        prefer: &[god_proto::ids::NodeId],
        asked: &[(Position, Version)],
    ) -> Result<Vec<Got>, Short> {
        let body = || {
            let positions = asked.iter().map(|(position, _)| position.clone().into_bytes()).collect();
            request::Body::Read(peer::Read { positions })
        };
        let ceiling_ms = self.clock.ceiling_ms();
        let decode = |reply| decode(reply, asked.len(), ceiling_ms);
        let mut said: Vec<Said> = self.gather(scope, prefer, body, decode).await?;

        let lags = |said: &[Said]| {
            asked.iter().enumerate().any(|(at, (_, least))| {
                *least != Version::ZERO && {
                    let poll = poll(said, at);
                    poll.asked != 0 && poll.version < *least
                }
            })
        };
        if lags(&said) {
            let answered: Mask = said.iter().map(|(member, _)| 1 << *member).sum();
            let others = self.reachable(&scope.sets) & !answered;
            let take = |member, reply: Result<Vec<Option<Record>>, CallError>| {
                said.extend(reply.ok().map(|records| (member, records)));
                !lags(&said)
            };
            self.ask_each(scope, others, |_| body(), decode, take).await;
        }

        let count = said.iter().map(|(_, records)| records.len()).max().unwrap_or(0);
        let mut polls: Vec<Poll> = (0..count).map(|at| poll(&said, at)).collect();
        // A position that only some had room for goes with the rest.
        while let Some(last) = polls.last()
            && polls.len() > 1
            && !scope.sets.enough(last.asked)
        {
            polls.pop();
        }
        let judged = self.end(scope, &mut said, &mut polls).await;
        let mut unsettled = None;
        if polls.iter().any(|poll| poll.is_fresh || poll.holders != poll.asked) {
            unsettled = self.repair(scope, &scope.sets.covering(), asked, &said, &mut polls).await?;
        }
        Ok(polls
            .iter()
            .zip(asked)
            .enumerate()
            .map(|(at, (poll, (_, least)))| {
                if poll.version < *least {
                    let message = format!("no replica that answered has version {least} or a newer one");
                    return Err(later(Reason::Stale, message, 100));
                }
                if let Some(why) = unsettled.as_ref().filter(|_| poll.is_unsettled) {
                    return Err(why.clone());
                }
                let newest = poll.newest.and_then(|index| said.get_mut(index));
                let record = newest.and_then(|(_, records)| records.get_mut(at)?.take());
                match &judged {
                    Err(rejected) if record.as_ref().is_some_and(may_end) => Err(rejected.clone()),
                    _ => Ok(record),
                }
            })
            .collect())
    }

    /// Puts the deletion in the place of each record whose time is up. Where another clock may say otherwise still, so
    /// many must hold that before anybody is told that every other read meets one (invariants READ-REPAIRED,
    /// EXPIRY-DERIVED); later all say the same. Where so many are not there, the record stands for that long. The error
    /// is for those that this node's clock cannot judge.
    async fn end(&self, scope: &Scope, said: &mut [Said], polls: &mut [Poll]) -> Result<(), Rejected> {
        let newest = |said: &[Said], at: usize, poll: &Poll| -> Option<Record> {
            said.get(poll.newest?)?.1.get(at)?.clone().filter(may_end)
        };
        // Whoever ended it may have told nobody else.
        if polls.iter().any(|poll| poll.version.is_expiry()) {
            let sure_ms = self.clock.sure_ms();
            for (at, poll) in polls.iter_mut().enumerate().filter(|(_, poll)| poll.version.is_expiry()) {
                let held = poll.newest.and_then(|index| said.get(index)?.1.get(at)?.as_ref());
                poll.is_fresh = held.is_some_and(|ended| is_unsure(ended, sure_ms));
            }
        }
        if !polls.iter().enumerate().any(|(at, poll)| newest(said, at, poll).is_some()) {
            return Ok(());
        }
        let now_ms = self.judging_ms(scope).await?;
        let there = self.reachable(&scope.sets) | said.iter().map(|(member, _)| 1 << *member).sum::<Mask>();
        let can_cover = scope.sets.covering().enough(there);
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
                *place = Some(ended);
            }
        }
        Ok(())
    }

    /// The time by which this node says whether a record's is up.
    pub(super) async fn judging_ms(&self, scope: &Scope) -> Result<u64, Rejected> {
        let patience = scope.deadline.saturating_duration_since(Instant::now());
        match self.clock.trusted(patience).await {
            Ok(now_ms) => Ok(self.clock.hybrid_at(now_ms)),
            Err(error) => Err(later(Reason::Clock, format!("whether a key has expired: {error}"), 500)),
        }
    }

    /// Writes the newest records to members that lack them, until a quorum holds each of them (invariant
    /// READ-REPAIRED: what was read once is not unread). Why that is not so, of those of which it is not.
    async fn repair(
        &self,
        scope: &Scope,
        covering: &Sets,
        asked: &[(Position, Version)],
        said: &[Said],
        polls: &mut [Poll],
    ) -> Result<Option<Rejected>, Short> {
        let torn: Vec<usize> =
            (0..polls.len()).filter(|at| polls.get(*at).is_some_and(|poll| poll.is_torn(covering))).collect();
        metrics::counter!("god_quorum_read_repairs_total").increment(torn.len() as u64);
        let entries: Vec<Entry> = torn
            .iter()
            .filter_map(|at| {
                let newest = said.get(polls.get(*at)?.newest?)?;
                let record = newest.1.get(*at)?.clone()?;
                Some(Entry { position: asked.get(*at)?.0.clone(), record })
            })
            .collect();
        // Which of the entries a member lacks.
        let lacks = |polls: &[Poll], member: usize| -> Vec<usize> {
            let held = |at: usize| polls.get(at).is_some_and(|poll| poll.holders & 1 << member != 0);
            (0..torn.len()).filter(|index| torn.get(*index).is_some_and(|at| !held(*at))).collect()
        };
        let settled = |polls: &[Poll]| {
            torn.iter()
                .all(|at| polls.get(*at).is_some_and(|poll| poll.needs(scope, covering).enough(poll.holders)))
        };

        let contacted: Mask = said.iter().map(|(member, _)| 1 << *member).sum();
        let others = self.reachable(&scope.sets) & !contacted;
        let mut failures = Failures::default();
        // First those that were found behind; where that is not enough, any.
        for who in [contacted, others] {
            if who == others && settled(polls) {
                break;
            }
            let missing: Vec<(usize, Vec<usize>)> = bits(who)
                .map(|member| (member, lacks(polls, member)))
                .filter(|(_, lacks)| !lacks.is_empty())
                .collect();
            let who: Mask = missing.iter().map(|(member, _)| 1 << *member).sum();
            let of = |member: usize| {
                missing.iter().find(|(of, _)| *of == member).map_or(&[][..], |(_, lacks)| lacks)
            };
            let body = |member| {
                let entries = of(member)
                    .iter()
                    .filter_map(|index| entries.get(*index).cloned())
                    .map(peer::Entry::from)
                    .collect();
                request::Body::Write(peer::Write { entries })
            };
            let mut waiting = who.count_ones();
            let mut too_old: Vec<usize> = Vec::new();
            self.ask_each(scope, who, body, Ok, |member, reply| {
                waiting -= 1;
                let lacked = of(member);
                match reply.and_then(|reply| took(reply, lacked.len())) {
                    Ok(false) => too_old.push(member),
                    Ok(true) => {
                        for at in lacked.iter().filter_map(|index| torn.get(*index)) {
                            if let Some(poll) = polls.get_mut(*at) {
                                poll.holders |= 1 << member;
                            }
                        }
                    }
                    Err(error) => {
                        if let Some(node) = scope.sets.node(member) {
                            failures.note(node, error);
                        }
                    }
                }
                waiting == 0 || settled(polls)
            })
            .await;
            for member in too_old {
                let lacked: Vec<usize> =
                    of(member).iter().filter_map(|index| torn.get(*index).copied()).collect();
                let compared = self.have_compared(scope, member, asked, said, polls, &lacked).await;
                if let Err((node, error)) = compared {
                    failures.note(node, error);
                    continue;
                }
                for at in lacked {
                    // It took the record; the end of that comes with the next try.
                    if let Some(poll) = polls.get_mut(at).filter(|poll| !poll.version.is_expiry()) {
                        poll.holders |= 1 << member;
                    }
                }
            }
        }
        if settled(polls) {
            return Ok(None);
        }
        if self.ring.epoch() > scope.ring.epoch() {
            return Err(Short::Moved);
        }
        let mut worst = (0, 0);
        for at in &torn {
            let Some(poll) = polls.get_mut(*at) else { continue };
            let sets = poll.needs(scope, covering);
            poll.is_unsettled = !sets.enough(poll.holders);
            let (is, needed) = sets.shortfall(poll.holders);
            if needed.saturating_sub(is) > worst.1 - worst.0 {
                worst = (is, needed);
            }
        }
        let because = failures.because();
        let message = format!(
            "{} of {} replicas needed hold the newest record, and repair failed{because}",
            worst.0, worst.1
        );
        let late = Instant::now() >= scope.deadline;
        let reason = if late { Reason::Deadline } else { Reason::Unavailable };
        Ok(Some(later(reason, message, 200)))
    }

    /// Has a member compare itself with those who hold what it lacks: the way in for records at or below a promised
    /// floor (PURGE-FLOOR).
    async fn have_compared(
        &self,
        scope: &Scope,
        member: usize,
        asked: &[(Position, Version)],
        said: &[Said],
        polls: &[Poll],
        lacked: &[usize],
    ) -> Result<(), (god_proto::ids::NodeId, CallError)> {
        let mut ranges: BTreeMap<usize, (Position, Position)> = BTreeMap::new();
        for at in lacked {
            let Some((position, holder)) = asked
                .get(*at)
                .zip(polls.get(*at).and_then(|poll| said.get(poll.newest?)))
                .map(|((position, _), (holder, _))| (position, *holder))
            else {
                continue;
            };
            let (low, high) = ranges.entry(holder).or_insert_with(|| (position.clone(), position.next()));
            *low = position.clone().min(low.clone());
            *high = position.next().max(high.clone());
        }
        for (holder, (start, end)) in ranges {
            let (Some(from), Some(to)) = (scope.sets.node(holder), scope.sets.node(member)) else { continue };
            let range = Some(peer::Range { start: start.into_bytes(), end: end.into_bytes() });
            let body = request::Body::Pull(peer::Pull { range, from: from.0, as_stored: false });
            let decode = |reply| match reply {
                response::Body::Pull(_) => Ok(()),
                _ => Err(strange("is not that to a pull")),
            };
            self.ask_one(scope, member, body, decode).await.map_err(|error| (to, error))?;
        }
        Ok(())
    }

    /// The newest records at positions of one arc, however many messages that takes.
    pub(super) async fn read_all(
        &self,
        scope: &Scope,
        prefer: &[god_proto::ids::NodeId],
        positions: Vec<Position>,
    ) -> Result<Vec<Option<Record>>, Short> {
        let asked: Vec<(Position, Version)> = positions.into_iter().map(|at| (at, Version::ZERO)).collect();
        let mut out = Vec::with_capacity(asked.len());
        // Each round reads one at least, or fails.
        while let Some(rest) = asked.get(out.len()..)
            && !rest.is_empty()
        {
            let rest = rest.get(..rest.len().min(READ_AT_ONCE)).unwrap_or(rest);
            for got in self.read(scope, prefer, rest).await? {
                out.push(got?);
            }
        }
        Ok(out)
    }
}

/// The most positions in one read.
const READ_AT_ONCE: usize = 256;

/// What is said of a position that found no room.
pub(super) fn too_large() -> Rejected {
    refuse(
        Reason::Invalid,
        format!("the values asked for together exceed {} MiB; ask for fewer", god_proto::MAX_MESSAGE >> 20),
    )
}

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
