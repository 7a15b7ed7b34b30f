//! What a quorum's answers to some positions come to, and what is to be written where before they are told. Pure.

use super::{fan::QuorumScope, refusal::Failures};
use crate::peer::{Held, Told};
use god_proto::{
    ids::ArcId,
    position::{Position, PositionRange},
    record::Entry,
    v1::Rejected,
    version::Version,
};
use god_rules::quorum::{JointReplicas, ReplicaMask, bits};
use std::collections::{BTreeMap, BTreeSet};

/// What one member says of the positions asked; of the first ones, where all would not fit in one message. What was
/// given up of it for want of memory stands there as what is damaged does: nothing is said of that position.
pub(super) type Said = (usize, Vec<Held<Told>>);

/// A quorum's answers to one position, condensed.
#[derive(Clone, Debug, Default)]
pub(super) struct Poll {
    /// Who holds the newest, by index: one that told all of it, if any did.
    pub newest: Option<usize>,
    pub version: Version,
    /// Members that said something of this position.
    pub asked: ReplicaMask,
    /// Members that hold the newest, or one newer still.
    pub holders: ReplicaMask,
    /// The newest is the end of a record, and another clock may say that it is not over.
    pub is_fresh: bool,
    /// Too few hold it, and more could not be made to.
    pub is_unsettled: bool,
}

impl Poll {
    /// Of what was said of the position at this index.
    pub fn of(said: &[Said], at: usize) -> Poll {
        let mut poll = Poll::default();
        for (index, (member, records)) in said.iter().enumerate() {
            let Some(Ok(record)) = records.get(at) else { continue };
            let bit: ReplicaMask = 1 << *member;
            poll.asked |= bit;
            let version = record.as_ref().map_or(Version::ZERO, |told| told.head().version);
            if version == poll.version && matches!(record, Some(Told::Whole(_))) && !poll.is_told(said, at) {
                poll.newest = Some(index);
            }
            if version > poll.version {
                (poll.newest, poll.version, poll.holders) = (Some(index), version, bit);
            } else if version == poll.version {
                poll.holders |= bit;
            }
        }
        poll
    }

    /// The newest, as it was told of the position at this index.
    pub fn newest<'a>(&self, said: &'a [Said], at: usize) -> Option<&'a Told> {
        said.get(self.newest?)?.1.get(at)?.as_ref().ok()?.as_ref()
    }

    /// Whether nothing of the newest was withheld.
    pub fn is_told(&self, said: &[Said], at: usize) -> bool {
        self.newest(said, at).is_none_or(|told| told.withheld().is_none())
    }

    /// Whether so many members find something damaged at a position that too few are left who said what they hold; but
    /// for those positions of which that was given up.
    pub fn lacks_voices(said: &[Said], replicas: &JointReplicas, given_up: &BTreeSet<usize>) -> bool {
        let damaged = said.iter().flat_map(|(_, records)| records.iter().enumerate());
        let mut damaged = damaged.filter(|(at, held)| held.is_err() && !given_up.contains(at));
        damaged.any(|(at, _)| !replicas.enough(Poll::of(said, at).asked))
    }

    /// Of each position that enough members had room for; of the first one in any case.
    pub fn all(said: &[Said], replicas: &JointReplicas) -> Vec<Poll> {
        let count = said.iter().map(|(_, records)| records.len()).max().unwrap_or(0);
        let mut polls: Vec<Poll> = (0..count).map(|at| Poll::of(said, at)).collect();
        let no_room = |at: usize| said.iter().any(|(_, records)| records.len() <= at);
        // What is damaged at too many is told of by itself, and holds up nothing behind it.
        let cut = (1..count)
            .find(|at| !replicas.enough(polls.get(*at).map_or(0, |poll| poll.asked)) && no_room(*at));
        polls.truncate(cut.unwrap_or(count));
        polls
    }

    /// Whether a position was answered, and by nobody with something as new as was asked for.
    pub fn lags(said: &[Said], asked: &[(Position, Version)]) -> bool {
        asked.iter().enumerate().any(|(at, (_, least))| {
            *least != Version::ZERO && {
                let poll = Poll::of(said, at);
                poll.asked != 0 && poll.version < *least
            }
        })
    }

    /// Whether it is to be written to more members before anybody is told.
    fn is_torn(&self, covering: &JointReplicas) -> bool {
        self.holders != self.asked || self.is_fresh && !covering.enough(self.holders)
    }
}

/// What is to be written to which members, until a quorum holds each of the newest records (invariant READ-REPAIRED:
/// what was read once is not unread).
pub(super) struct Repair<'a> {
    scope: &'a QuorumScope,
    /// So many must hold an end that clocks may disagree on.
    covering: JointReplicas,
    said: &'a [Said],
    polls: &'a mut [Poll],
    /// The newest record of each torn position, and whose answer has it.
    torn: Vec<Torn>,
    pub failures: Failures,
}

struct Torn {
    /// Its index among the polls.
    at: usize,
    entry: Entry,
}

impl<'a> Repair<'a> {
    /// Nothing, where all who were asked hold the same.
    pub fn plan(
        scope: &'a QuorumScope,
        asked: &[(Position, Version)],
        said: &'a [Said],
        polls: &'a mut [Poll],
    ) -> Option<Repair<'a>> {
        if !polls.iter().any(|poll| poll.is_fresh || poll.holders != poll.asked) {
            return None;
        }
        let covering = scope.replicas.covering();
        let torn = polls.iter().enumerate().zip(asked).filter(|((_, poll), _)| poll.is_torn(&covering));
        let torn = torn.filter_map(|((at, poll), (position, _))| {
            let record = poll.newest(said, at)?.clone().whole()?;
            Some(Torn { at, entry: Entry { position: position.clone(), record } })
        });
        let torn = torn.collect();
        Some(Repair { scope, covering, said, polls, torn, failures: Failures::default() })
    }

    /// Positions whose newest record is to be written to some members.
    pub fn len(&self) -> usize {
        self.torn.len()
    }

    /// Members that said something.
    pub fn contacted(&self) -> ReplicaMask {
        self.said.iter().map(|(member, _)| 1 << *member).sum()
    }

    fn poll(&self, torn: &Torn) -> Option<&Poll> {
        self.polls.get(torn.at)
    }

    /// Of which sets so many must hold it before it may be told.
    fn needs(&self, poll: &Poll) -> &JointReplicas {
        if poll.is_fresh { &self.covering } else { &self.scope.replicas }
    }

    /// Whether each record is on as many as must hold it.
    pub fn is_settled(&self) -> bool {
        let held = |poll: &Poll| self.needs(poll).enough(poll.holders);
        self.torn.iter().all(|torn| self.poll(torn).is_some_and(held))
    }

    /// Those of some members that lack records, and which: indexes among the torn ones.
    pub fn lacking(&self, who: ReplicaMask) -> BTreeMap<usize, Vec<usize>> {
        let lacks = |member: usize| {
            let holds = |torn: &Torn| self.poll(torn).is_some_and(|poll| poll.holders & 1 << member != 0);
            self.torn.iter().enumerate().filter(|(_, torn)| !holds(torn)).map(|(index, _)| index).collect()
        };
        let lacking = bits(who).map(|member| (member, lacks(member)));
        lacking.filter(|(_, lacked): &(usize, Vec<usize>)| !lacked.is_empty()).collect()
    }

    /// The entries at some indexes.
    pub fn entries(&self, which: &[usize]) -> impl Iterator<Item = &Entry> {
        which.iter().filter_map(|index| self.torn.get(*index)).map(|torn| &torn.entry)
    }

    /// A member took these records.
    pub fn took(&mut self, member: usize, which: &[usize]) {
        self.holds(member, which, |_| true);
    }

    /// A member compared itself with those who hold these records. So it has them; the end of one comes with the next
    /// try.
    pub fn compared(&mut self, member: usize, which: &[usize]) {
        self.holds(member, which, |poll| !poll.version.is_expiry());
    }

    /// A member holds those of some records of which this is so.
    fn holds(&mut self, member: usize, which: &[usize], is_so: impl Fn(&Poll) -> bool) {
        for torn in which.iter().filter_map(|index| self.torn.get(*index)) {
            if let Some(poll) = self.polls.get_mut(torn.at).filter(|poll| is_so(poll)) {
                poll.holders |= 1 << member;
            }
        }
    }

    /// A member did not.
    pub fn failed(&mut self, member: usize, error: crate::peer::CallError) {
        if let Some(node) = self.scope.replicas.node(member) {
            self.failures.note(node, error);
        }
    }

    /// Who holds these records, and the ranges in which each of them does: one an arc, as what lies between two arcs
    /// may be on other nodes.
    pub fn holders(&self, which: &[usize]) -> Vec<(usize, PositionRange)> {
        let mut ranges: BTreeMap<(usize, Option<ArcId>), PositionRange> = BTreeMap::new();
        for torn in which.iter().filter_map(|index| self.torn.get(*index)) {
            let newest = self.poll(torn).and_then(|poll| self.said.get(poll.newest?));
            let Some((holder, _)) = newest else { continue };
            let position = &torn.entry.position;
            let only = || PositionRange::of_position(position);
            let arc = self.scope.ring.arc_at(position).map(|arc| arc.id);
            let range = ranges.entry((*holder, arc)).or_insert_with(only);
            range.start = range.start.clone().min(position.clone());
            range.end = range.end.clone().max(position.next());
        }
        ranges.into_iter().map(|((holder, _), range)| (holder, range)).collect()
    }

    /// Why some records are on too few members; those are marked. Nothing where all are on enough.
    pub fn unsettled(mut self, late: bool) -> Option<Rejected> {
        let mut worst = None;
        for torn in std::mem::take(&mut self.torn) {
            let Some(poll) = self.polls.get(torn.at) else { continue };
            let sets = self.needs(poll);
            let (is_unsettled, (is, needed)) = (!sets.enough(poll.holders), sets.shortfall(poll.holders));
            if is_unsettled && worst.is_none_or(|(least, most)| needed.saturating_sub(is) > most - least) {
                worst = Some((is, needed));
            }
            if let Some(poll) = self.polls.get_mut(torn.at) {
                poll.is_unsettled = is_unsettled;
            }
        }
        Some(self.failures.unrepaired(worst?, late))
    }
}
