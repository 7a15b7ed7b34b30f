//! Single-decree Paxos without I/O: what an acceptor may say, and what a proposer must propose.
//!
//! After Lamport, *Paxos Made Simple* (2001), section 2.2. Whoever keeps an [`Acceptor`] makes its state durable before
//! it lets an answer out (invariant EPOCH-DECIDED-ONCE).
//!
//! Ballots have an end, and whoever promised the last one promises no more. So an acceptor lets itself be lifted by
//! [`MAX_LIFT`] at a time, and [`Rounds`] has a proposer look for a majority that is not far apart before it brings
//! those that lag up to the others, step by step (invariant BALLOT-BOUNDED).

use std::collections::BTreeMap;

/// How many rounds above what it has promised an acceptor lets a ballot be. Billions of messages for one instance are
/// needed to reach the last round, each of them written to disk; and nobody contends so often.
pub const MAX_LIFT: u64 = 1 << 32;
/// How many lifts a proposer makes before it asks all acceptors again.
const MAX_LIFTS: u32 = 64;
/// How many rounds acceptors may be apart for those that lag to be lifted to the others. Beyond that no end of it would
/// be seen, and whoever was lifted meanwhile would be far above those that come back.
const MAX_APART: u64 = MAX_LIFT << 16;

/// The number of an attempt: ordered, and distinct for distinct proposers. One proposer's may repeat (see
/// [`Acceptor::prepare`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Grows with each attempt.
    pub round: u64,
    /// Who attempts.
    pub node: u32,
}

/// What an acceptor remembers of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptor<V> {
    promised: Ballot,
    accepted: Option<(Ballot, V)>,
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Acceptor { promised: Ballot::default(), accepted: None }
    }
}

/// An acceptor's answer to a prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise<V> {
    /// It will accept nothing of a lower ballot, and has accepted this so far.
    Granted(Option<(Ballot, V)>),
    /// It has promised this ballot, which is as high or higher, or more than [`MAX_LIFT`] rounds lower.
    Refused(Ballot),
}

impl<V: Clone> Acceptor<V> {
    /// An acceptor as it was kept.
    pub fn restore(promised: Ballot, accepted: Option<(Ballot, V)>) -> Acceptor<V> {
        Acceptor { promised, accepted }
    }

    /// The highest ballot promised.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// What was accepted last.
    pub fn accepted(&self) -> Option<&(Ballot, V)> {
        self.accepted.as_ref()
    }

    /// Phase 1b. Grants a ballot once: a proposer that forgot its attempts, or makes two at a time, may use a number
    /// again, and whoever gets a majority for it must be the only one to propose under it.
    pub fn prepare(&mut self, ballot: Ballot) -> Promise<V> {
        if ballot <= self.promised || self.is_out_of_reach(ballot) {
            return Promise::Refused(self.promised);
        }
        self.promised = ballot;
        Promise::Granted(self.accepted.clone())
    }

    /// Phase 2b: whether the value was accepted. The ballot that stands for no promise is nobody's to propose under.
    pub fn accept(&mut self, ballot: Ballot, value: V) -> bool {
        if ballot < self.promised || ballot == Ballot::default() || self.is_out_of_reach(ballot) {
            return false;
        }
        self.promised = ballot;
        self.accepted = Some((ballot, value));
        true
    }

    fn is_out_of_reach(&self, ballot: Ballot) -> bool {
        ballot.round.saturating_sub(self.promised.round) > MAX_LIFT
    }
}

/// Which round a proposer takes next in one instance, by what its acceptors said they have promised.
///
/// It goes above what the lowest majority of those has promised that answered last, not above all that it heard of: one
/// acceptor that promised far too much is left alone while others are a majority.
#[derive(Clone, Debug)]
pub struct Rounds {
    acceptors: usize,
    first: u64,
    /// How many attempts there were.
    attempts: u64,
    /// What each acceptor has promised, and in which attempt it said so.
    told: BTreeMap<u32, (u64, u64)>,
    /// Since the last attempt: how many lifts, and to where the last one.
    lifts: (u32, u64),
}

/// What a proposer does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoundStep {
    /// Asks all acceptors for a promise of this round.
    Attempt(u64),
    /// Has these acceptors, which lag, promise this round, so that they may take one above what others promised.
    Lift(u64, Vec<u32>),
}

impl Rounds {
    /// Of an instance with so many acceptors, by a node that has promised this itself.
    pub fn new(acceptors: usize, own: Ballot) -> Rounds {
        // What is out of reach of an acceptor that has promised nothing is no round to begin with.
        let first = if own.round < MAX_LIFT { own.round + 1 } else { 1 };
        Rounds { acceptors, first, attempts: 0, told: BTreeMap::new(), lifts: (0, 0) }
    }

    /// What an acceptor said that it has promised.
    pub fn told(&mut self, acceptor: u32, promised: Ballot) {
        self.told.insert(acceptor, (self.attempts, promised.round));
    }

    /// What to do next.
    pub fn step(&mut self) -> RoundStep {
        let mut told: Vec<(u64, u64, u32)> =
            self.told.iter().map(|(who, (at, round))| (self.attempts - at, *round, *who)).collect();
        told.sort_unstable();
        told.truncate(majority(self.acceptors));
        let lowest = told.iter().map(|(_, round, _)| *round).min().unwrap_or_default();
        told.retain(|(_, round, _)| round - lowest <= MAX_APART);
        let rounds = || told.iter().map(|(_, round, _)| *round);
        let round = rounds().max().map_or(self.first, |highest| highest.saturating_add(1));
        let reach = lowest.saturating_add(MAX_LIFT);
        let (lifts, last) = self.lifts;
        // All are asked again now and then, and where a lift did nothing: others may have come back.
        if round > reach && told.len() == majority(self.acceptors) && lifts < MAX_LIFTS && reach > last {
            self.lifts = (lifts + 1, reach);
            let lagging = told.iter().filter(|(_, promised, _)| *promised < reach);
            return RoundStep::Lift(reach, lagging.map(|(_, _, who)| *who).collect());
        }
        self.attempts += 1;
        self.lifts = (0, 0);
        RoundStep::Attempt(round.min(reach))
    }
}

/// Phase 2a: what must be proposed, given what a majority of acceptors said they had accepted. A value that may have
/// been chosen is among them, under the highest ballot.
pub fn must_propose<V>(promises: Vec<Option<(Ballot, V)>>, own: V) -> V {
    promises.into_iter().flatten().max_by_key(|(ballot, _)| *ballot).map_or(own, |(_, value)| value)
}

/// How many of so many acceptors are a majority.
pub fn majority(acceptors: usize) -> usize {
    acceptors / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a proposer comes to with acceptors that have promised this; `None` are down. How many messages it took.
    fn proposes(own: u64, promised: &[Option<u64>], node: u32) -> Option<usize> {
        let at = |round| Ballot { round, node: 1 };
        let restore = |round: &Option<u64>| round.map(|round| Acceptor::<()>::restore(at(round), None));
        let mut acceptors: Vec<Option<Acceptor<()>>> = promised.iter().map(restore).collect();
        let mut rounds = Rounds::new(acceptors.len(), at(own));
        let mut messages = 0;
        for _ in 0..2_000 {
            let (round, asked) = match rounds.step() {
                RoundStep::Attempt(round) => (round, (0..acceptors.len() as u32).collect()),
                RoundStep::Lift(round, lagging) => (round, lagging),
            };
            let mut granted = 0;
            for who in asked {
                messages += 1;
                let Some(acceptor) = &mut acceptors[who as usize] else { continue };
                let before = acceptor.promised().round;
                let promise = acceptor.prepare(Ballot { round, node });
                granted += usize::from(promise == Promise::Granted(None));
                assert!(acceptor.promised().round - before <= MAX_LIFT);
                rounds.told(who, acceptor.promised());
            }
            if granted >= majority(acceptors.len()) {
                return Some(messages);
            }
        }
        None
    }

    #[test]
    fn the_usual_takes_one_attempt_and_one_that_lags_takes_no_more() {
        assert_eq!(proposes(0, &[Some(0); 3], 1), Some(3));
        assert_eq!(proposes(7, &[Some(7), Some(7), Some(0)], 1), Some(3));
        assert_eq!(proposes(0, &[Some(7), Some(7), Some(0)], 1), Some(6), "it is told, and goes above");
    }

    /// BALLOT-BOUNDED.
    #[test]
    fn one_that_promised_all_there_is_is_left_alone() {
        assert_eq!(proposes(u64::MAX, &[Some(u64::MAX), Some(0), Some(0)], 1), Some(3));
        assert_eq!(proposes(0, &[Some(0), Some(5 * MAX_LIFT), Some(9)], 1), Some(6));
        let two = [Some(u64::MAX), Some(u64::MAX - 1), Some(3), Some(2), Some(1)];
        assert_eq!(proposes(0, &two, 1), Some(10));
    }

    /// BALLOT-BOUNDED: who is beyond all that can be made up for is not followed, so that those who come back are not
    /// left behind.
    #[test]
    fn nobody_is_lifted_to_one_that_promised_all_there_is() {
        let at = |round| Ballot { round, node: 1 };
        let mut acceptors =
            [None, Some(Acceptor::<()>::restore(at(0), None)), Some(Acceptor::restore(at(u64::MAX), None))];
        let mut rounds = Rounds::new(3, at(0));
        let mut granted = |acceptors: &mut [Option<Acceptor<()>>; 3]| {
            let (round, asked) = match rounds.step() {
                RoundStep::Attempt(round) => (round, vec![0, 1, 2]),
                RoundStep::Lift(round, lagging) => (round, lagging),
            };
            let mut granted = 0;
            for who in asked {
                let Some(acceptor) = &mut acceptors[who as usize] else { continue };
                granted += usize::from(acceptor.prepare(at(round)) == Promise::Granted(None));
                rounds.told(who, acceptor.promised());
            }
            granted
        };
        for _ in 0..1_000 {
            assert!(granted(&mut acceptors) < 2);
        }
        acceptors[0] = Some(Acceptor::default());
        let took = (1..=10).find(|_| granted(&mut acceptors) == 2);
        assert!(took.is_some_and(|took| took <= 3), "{took:?}");
    }

    /// BALLOT-BOUNDED: where nobody else is there, the others are lifted to it, one message for each that it took.
    #[test]
    fn a_majority_however_far_apart_is_brought_together() {
        for times in [1, 2, 63, 64, 65, 500] {
            let far = Some(times * MAX_LIFT);
            for promised in [[far, Some(0), None], [None, far, Some(0)], [Some(0), None, far]] {
                for own in [0, times * MAX_LIFT] {
                    let took = proposes(own, &promised, 1);
                    assert!(took.is_some_and(|took| took as u64 <= 2 * times + 20), "{times}: {took:?}");
                }
            }
            assert!(proposes(0, &[far, None, Some(3), None, Some(2 * times)], 2).is_some(), "{times}");
        }
    }
}
