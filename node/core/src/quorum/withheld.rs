//! Gets those values that replicas withheld, as they are large: once they are paid for, and each from one replica.
//!
//! How large a value is nobody knows before it is read, and replicas together tell it as often as a quorum has members.
//! So other nodes are asked for no more than its version first (SIZES-FIRST): what the node cannot hold is not sent to
//! it, and what it has itself not either.

use super::{
    Shared,
    fan::{Answers, QuorumError, QuorumScope, strange, whole},
    poll::{Poll, Said},
    read::told,
};
use crate::{
    budget::Paid,
    peer::{Damaged, Held, Told},
};
use futures::{StreamExt, stream::FuturesUnordered};
use god_proto::{
    peer::{self, request, response},
    position::Position,
    v1::Rejected,
    version::Version,
};
use god_rules::quorum::ReplicaMask;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// A holder that takes no more than a millisecond for so many bytes is not slow.
const BYTES_A_MS: usize = 8 << 10;

/// What a member told, by its index.
type MemberTold = (usize, Vec<Held<Told>>);

/// A value that is to be got.
#[derive(Clone, Copy)]
struct Wanted {
    /// The index of its position.
    at: usize,
    version: Version,
    bytes: usize,
    /// Who has it.
    holders: ReplicaMask,
}

impl Shared {
    /// Puts into the place of what was withheld of the newest records all of it, of as many of the first as their
    /// holders have room for; the polls end where that does. Positions for whose values there is no memory are noted as
    /// given up. Gives why no holder told those that are left withheld, by their indices.
    pub(super) async fn get_withheld(
        &self,
        scope: &QuorumScope,
        asked: &[(Position, Version)],
        said: &mut [Said],
        polls: &mut Vec<Poll>,
        given_up: &mut BTreeSet<usize>,
        paid: &mut Paid,
    ) -> Result<BTreeMap<usize, Rejected>, QuorumError> {
        let mut untold = BTreeMap::new();
        let mut all = wanted(scope, asked, said, polls);
        if all.is_empty() {
            return Ok(untold);
        }
        // The small ones first: so most of them are got. All together are no more than goes into a message of each
        // member: it looks at no more for an answer.
        all.sort_unstable_by_key(|value| (value.bytes, value.at));
        all.retain(|value| {
            let is_paid = paid.pay_ahead(&self.settings.budget, value.bytes);
            if !is_paid {
                given_up.insert(value.at);
                for held in said.iter_mut().filter_map(|(_, records)| records.get_mut(value.at)) {
                    *held = Err(Damaged);
                }
            }
            is_paid
        });
        let mut groups: BTreeMap<ReplicaMask, Vec<Wanted>> = BTreeMap::new();
        for value in all {
            groups.entry(value.holders).or_default().push(value);
        }
        // What is beside it is answered even where no holder tells it in time.
        let is_alone = groups.len() == 1 && groups.values().all(|values| values.len() == asked.len());
        let now = Instant::now();
        let half = scope.deadline.saturating_duration_since(now) / 2;
        let deadline = if is_alone { scope.deadline } else { now + half };
        let mut fetches = FuturesUnordered::new();
        while let Some((holders, mut values)) = groups.pop_first() {
            values.sort_unstable_by_key(|value| value.at);
            // The last one has the charge that may go beyond what there is.
            let mut part = match groups.is_empty() {
                true => std::mem::take(paid),
                false => paid.split_ahead(values.iter().map(|value| value.bytes).sum()),
            };
            fetches.push(async move {
                let told = self.get_of_one(scope, asked, holders, &values, deadline, &mut part).await;
                (values, told, part)
            });
        }
        // No group waits for another one's holder, and none of them once the ring has moved.
        while let Some((values, told, part)) = fetches.next().await {
            paid.absorb(part);
            match told {
                Ok(told) => put(said, &values, told),
                Err(QuorumError::Moved) => return Err(QuorumError::Moved),
                Err(QuorumError::Failed(why)) => {
                    paid.forgo(values.iter().map(|value| value.bytes).sum());
                    untold.extend(values.iter().map(|value| (value.at, why.clone())));
                }
            }
        }
        for (at, poll) in polls.iter_mut().enumerate() {
            *poll = Poll::of(said, at);
        }
        // What found no room in a holder's answer goes with the rest; what no holder told is answered with why.
        let rest = wanted(scope, asked, said, polls).into_iter().map(|value| value.at);
        if let Some(rest) = rest.filter(|at| *at > 0 && !untold.contains_key(at)).min() {
            polls.truncate(rest);
        }
        Ok(untold)
    }

    /// What one of the holders tells of some values, in whole and no older than it told before: of as many of the first
    /// as it has room for. Half of the time until the deadline is left to another holder, however large they are.
    async fn get_of_one(
        &self,
        scope: &QuorumScope,
        asked: &[(Position, Version)],
        holders: ReplicaMask,
        values: &[Wanted],
        deadline: Instant,
        paid: &mut Paid,
    ) -> Result<Vec<MemberTold>, QuorumError> {
        let half = deadline.saturating_duration_since(Instant::now()) / 2;
        let bytes: usize = values.iter().map(|value| value.bytes).sum();
        let slack = Duration::from_millis((bytes / BYTES_A_MS) as u64).min(half);
        let replicas = scope.replicas.one_of(holders);
        let scope = QuorumScope { replicas, deadline, slack, ..scope.clone() };
        let body = |_| {
            let position = |value: &Wanted| Some(asked.get(value.at)?.0.clone().into_bytes());
            let positions = values.iter().filter_map(position).collect();
            request::Body::Read(peer::Read { positions, largest_bytes: 0 })
        };
        let ceiling_ms = self.clock.ceiling_ms();
        let decode = |reply: response::Body| {
            let told = told(reply, values.len(), ceiling_ms)?;
            let is_as_new = |(held, value): (&Held<Told>, &Wanted)| match held {
                Ok(Some(Told::Whole(record))) => record.version >= value.version,
                Ok(Some(Told::Withheld(..)) | None) => false,
                Err(Damaged) => true,
            };
            match told.iter().zip(values).all(is_as_new) {
                true => Ok(told),
                false => Err(strange("is less than it told before")),
            }
        };
        // It is paid for but for what came to be larger meanwhile.
        let mut answers = Answers { said: Vec::new(), paid: std::mem::take(paid) };
        let gathered = self.gather_into(&mut answers, &scope, &[], body, decode, whole).await;
        *paid = answers.paid;
        gathered.map(|()| answers.said)
    }
}

/// The values that were withheld of the newest records, of those positions that enough members said something of, as
/// new as was asked for.
fn wanted(scope: &QuorumScope, asked: &[(Position, Version)], said: &[Said], polls: &[Poll]) -> Vec<Wanted> {
    let wanted = |((at, poll), (_, least)): ((usize, &Poll), &(Position, Version))| {
        let is_told = scope.replicas.enough(poll.asked) && poll.version >= *least;
        let bytes = poll.newest(said, at)?.withheld().filter(|_| is_told)?;
        Some(Wanted { at, version: poll.version, bytes, holders: poll.holders })
    };
    polls.iter().enumerate().zip(asked).filter_map(wanted).collect()
}

/// Puts what holders told in the place of what they withheld.
fn put(said: &mut [Said], values: &[Wanted], told: Vec<MemberTold>) {
    for (member, told) in told {
        let Some((_, records)) = said.iter_mut().find(|(at, _)| *at == member) else { continue };
        for (held, value) in told.into_iter().zip(values) {
            if let Some(place) = records.get_mut(value.at) {
                *place = held;
            }
        }
    }
}
