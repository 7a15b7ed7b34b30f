//! The ring's register: a chain of Paxos instances, whose voters change by being named (invariant EPOCH-DECIDED-ONCE).
//!
//! The document of epoch e + 1 is decided among the voters that the document of epoch e names. Whoever knows a decided
//! document may attempt the next one, at any time, and under a ballot that it has used before: one does that forgot
//! its attempts, or makes two at a time. Voters learn decided documents late, out of order, or never.
//!
//! A message is an attempt that a voter has yet to see. It stays for ever, so it is late, doubled or lost as the order
//! of actions has it. What has no effect but to make a voter refuse is left to that order too: a promise of which the
//! proposer does not hear, and a document that is decided without its hearing of it. An attempt therefore begins with
//! the first promise, and hears all that is said.
//!
//! A voter that restarts has what it kept, which is all that it ever said: where the rules are kept, that is no change.
//!
//! Bounds: two attempts on the second epoch and three on the third, where one voter becomes three (327,787 states);
//! three and one (744,167), or two and two (308,994), where one of three is replaced, once or twice.
//!
//! Left out: the founding, epochs beyond the third.

use crate::{Members, breaks, holds, nodes, swap};
use stateright::{Model, Property};

const NODES: usize = 4;
/// The first of them is given; the others are decided.
const EPOCHS: usize = 3;
/// The attempts on an epoch use as many of them as they are, in any order, or share one.
const BALLOTS: [Ballot; 3] =
    [Ballot { round: 1, proposer: 0 }, Ballot { round: 1, proposer: 1 }, Ballot { round: 2, proposer: 0 }];

const ONCE: &str = "no two documents are decided for one epoch";
const CHAIN: &str = "voters that were named decide the next epoch";
const TAKEN_UP: &str = "an attempt ends what another began";

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Kept,
    /// A voter that restarts has forgotten its promise, though not what it accepted.
    PromisesForgotten,
    /// A voter grants a ballot that it has promised already.
    GrantedTwice,
    /// A voter accepts without looking at its promise.
    PromisesIgnored,
    /// A proposer proposes its own document, whatever voters have accepted.
    AcceptedIgnored,
    /// A voter votes on an epoch before it knows the one before.
    EpochsSkipped,
}

/// What matters of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Document {
    epoch: u8,
    /// Of the attempt that it was made for.
    number: u8,
    voters: Members,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Ballot {
    round: u8,
    proposer: u8,
}

type Accepted = Option<(Ballot, Document)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Node {
    /// Of the newest decided document that it knows.
    known: u8,
    /// The epoch on which it votes; 0: none yet.
    instance: u8,
    promised: Ballot,
    accepted: Accepted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Attempt {
    ballot: Ballot,
    voters: Members,
    own: Document,
    /// Who granted it; once it is proposed, who accepted it.
    heard: Members,
    /// What was accepted under the highest ballot.
    found: Accepted,
    proposed: Option<Document>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct State {
    nodes: [Node; NODES],
    attempts: Vec<Attempt>,
    /// How many attempts have begun, by epoch.
    begun: [u8; EPOCHS],
    /// Sorted.
    decided: Vec<Document>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// An attempt to decide the epoch after a document's begins, and its first prepare arrives.
    Begin { base: Document, ballot: Ballot, voter: usize },
    /// Another prepare of it arrives.
    Prepare { attempt: usize, voter: usize },
    /// An accept of it arrives.
    Accept { attempt: usize, voter: usize },
    /// A node learns the decided document of an epoch.
    Learn { node: usize, epoch: u8 },
    /// A voter restarts, and has forgotten what it should not.
    Restart { node: usize },
}

/// What bounds the states.
struct Bounds {
    rules: Rules,
    /// The voters of the first epoch, and those that each of two proposers would have in each later one.
    voters: Members,
    wishes: [[Members; 2]; EPOCHS - 1],
    /// Attempts on each later epoch.
    attempts: [u8; EPOCHS - 1],
}

impl Bounds {
    /// Readies a voter for an epoch; `None`: it does not vote on it.
    fn enter(&self, voter: Node, epoch: u8) -> Option<Node> {
        let skips = voter.known + 1 < epoch;
        if voter.known >= epoch || skips && self.rules != Rules::EpochsSkipped {
            return None;
        }
        let fresh = Node { instance: epoch, promised: Ballot::default(), accepted: None, ..voter };
        Some(if voter.instance == epoch { voter } else { fresh })
    }

    /// Phase 1b.
    fn granted(&self, voter: Node, attempt: &Attempt) -> Option<Node> {
        let voter = self.enter(voter, attempt.own.epoch)?;
        let again = self.rules == Rules::GrantedTwice && attempt.ballot == voter.promised;
        (attempt.ballot > voter.promised || again).then_some(Node { promised: attempt.ballot, ..voter })
    }

    /// Phase 2b.
    fn accepted(&self, voter: Node, attempt: &Attempt) -> Option<Node> {
        let voter = self.enter(voter, attempt.own.epoch)?;
        let accepted = Some((attempt.ballot, attempt.proposed?));
        let may = attempt.ballot >= voter.promised || self.rules == Rules::PromisesIgnored;
        may.then_some(Node { promised: attempt.ballot, accepted, ..voter })
    }

    fn attempt(&self, state: &State, base: Document, ballot: Ballot) -> Option<Attempt> {
        let later = usize::from(base.epoch - 1);
        let number = state.begun[later];
        let voters = self.wishes.get(later)?[usize::from(ballot.proposer)];
        let own = Document { epoch: base.epoch + 1, number, voters };
        let attempt = Attempt { ballot, voters: base.voters, own, heard: 0, found: None, proposed: None };
        (number < self.attempts[later]).then_some(attempt)
    }

    /// A voter answers a prepare.
    fn prepare(&self, state: &mut State, attempt: usize, voter: usize) -> Option<()> {
        let at = &mut state.attempts[attempt];
        state.nodes[voter] = self.granted(state.nodes[voter], at)?;
        at.heard |= 1 << voter;
        at.found = at.found.max(state.nodes[voter].accepted);
        if has_majority(at.heard, at.voters) {
            let found = at.found.filter(|_| self.rules != Rules::AcceptedIgnored);
            at.proposed = Some(found.map_or(at.own, |(_, document)| document));
            (at.heard, at.found) = (0, None);
        }
        Some(())
    }

    /// A voter answers an accept.
    fn accept(&self, state: &mut State, attempt: usize, voter: usize) -> Option<()> {
        let at = &mut state.attempts[attempt];
        let document = at.proposed?;
        state.nodes[voter] = self.accepted(state.nodes[voter], at)?;
        at.heard |= 1 << voter;
        if has_majority(at.heard, at.voters) && !state.decided.contains(&document) {
            state.decided.push(document);
            state.decided.sort_unstable();
        }
        Some(())
    }
}

fn has_majority(some: Members, of: Members) -> bool {
    2 * (some & of).count_ones() > of.count_ones()
}

/// Forgets attempts that nobody would answer any more, and the order of the rest.
fn tidy(mut state: State) -> State {
    let known = state.nodes.map(|node| node.known);
    state.attempts.retain(|attempt| nodes(attempt.voters).any(|voter| known[voter] < attempt.own.epoch));
    state.attempts.sort_unstable();
    state
}

/// The state with two nodes renamed.
fn renamed(state: &State, a: usize, b: usize) -> State {
    let mut other = state.clone();
    let mask = |mask: &mut Members| swap(mask, a, b);
    let accepted = |accepted: &mut Accepted| accepted.iter_mut().for_each(|(_, it)| mask(&mut it.voters));
    other.nodes.swap(a, b);
    other.nodes.iter_mut().for_each(|node| accepted(&mut node.accepted));
    for attempt in &mut other.attempts {
        accepted(&mut attempt.found);
        mask(&mut attempt.voters);
        mask(&mut attempt.heard);
        mask(&mut attempt.own.voters);
        attempt.proposed.iter_mut().for_each(|document| mask(&mut document.voters));
    }
    other.attempts.sort_unstable();
    other.decided.iter_mut().for_each(|document| mask(&mut document.voters));
    other
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let node = Node { known: 1, instance: 0, promised: Ballot::default(), accepted: None };
        let first = Document { epoch: 1, number: 0, voters: self.voters };
        vec![State { nodes: [node; NODES], attempts: vec![], begun: [0; EPOCHS], decided: vec![first] }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for base in &state.decided {
            let attempts = self.attempts.get(usize::from(base.epoch - 1)).copied().unwrap_or(0);
            for ballot in BALLOTS.into_iter().take(usize::from(attempts)) {
                let Some(attempt) = self.attempt(state, *base, ballot) else { continue };
                let voters =
                    nodes(base.voters).filter(|voter| self.granted(state.nodes[*voter], &attempt).is_some());
                actions.extend(voters.map(|voter| Action::Begin { base: *base, ballot, voter }));
            }
        }
        for (attempt, at) in state.attempts.iter().enumerate() {
            for voter in nodes(at.voters) {
                let node = state.nodes[voter];
                if at.proposed.is_none() && self.granted(node, at).is_some() {
                    actions.push(Action::Prepare { attempt, voter });
                }
                if self.accepted(node, at).is_some() {
                    actions.push(Action::Accept { attempt, voter });
                }
            }
        }
        for (node, at) in state.nodes.iter().enumerate() {
            let newer = state.decided.iter().filter(|document| document.epoch > at.known);
            actions.extend(newer.map(|document| Action::Learn { node, epoch: document.epoch }));
            if self.rules == Rules::PromisesForgotten && at.promised != Ballot::default() {
                actions.push(Action::Restart { node });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Begin { base, ballot, voter } => {
                let attempt = self.attempt(&state, base, ballot)?;
                state.begun[usize::from(base.epoch - 1)] += 1;
                state.attempts.push(attempt);
                let attempt = state.attempts.len() - 1;
                self.prepare(&mut state, attempt, voter)?;
            }
            Action::Prepare { attempt, voter } => self.prepare(&mut state, attempt, voter)?,
            Action::Accept { attempt, voter } => self.accept(&mut state, attempt, voter)?,
            Action::Learn { node, epoch } => {
                let node = &mut state.nodes[node];
                node.known = epoch;
                if node.instance <= epoch {
                    // From now on it answers for that epoch with the document.
                    *node = Node { known: epoch, instance: 0, promised: Ballot::default(), accepted: None };
                }
            }
            Action::Restart { node } => state.nodes[node].promised = Ballot::default(),
        }
        let state = tidy(state);
        // Nodes 1 and 2 are in the same sets of voters always.
        let other = renamed(&state, 1, 2);
        Some(if other < state { other } else { state })
    }

    fn properties(&self) -> Vec<Property<Bounds>> {
        vec![
            Property::always(ONCE, |_, state: &State| {
                state.decided.windows(2).all(|two| two[0].epoch != two[1].epoch)
            }),
            Property::sometimes(CHAIN, |model: &Bounds, state: &State| {
                state.decided.len() == EPOCHS && state.decided[1].voters != model.voters
            }),
            Property::sometimes(TAKEN_UP, |_, state: &State| {
                state.attempts.iter().any(|attempt| attempt.proposed.is_some_and(|it| it != attempt.own))
            }),
        ]
    }
}

/// One voter becomes three; or, as the other proposer has it, stays alone for another epoch.
const GROWING: Bounds = Bounds {
    rules: Rules::Kept,
    voters: 0b0001,
    wishes: [[0b0111, 0b0001], [0b0111, 0b0110]],
    attempts: [2, 3],
};

/// One of three voters is replaced; or, as the other proposer has it, is not.
const REPLACING: Bounds = Bounds {
    rules: Rules::Kept,
    voters: 0b0111,
    wishes: [[0b1110, 0b0111], [0b1110, 0b0111]],
    attempts: [2, 1],
};

#[test]
fn each_epoch_is_decided_once_while_one_voter_becomes_three() {
    holds("register, one voter becomes three", GROWING);
}

#[test]
fn each_epoch_is_decided_once_while_a_voter_is_replaced() {
    holds("register, three attempts, then one", Bounds { attempts: [3, 1], ..REPLACING });
    holds("register, two attempts, then two", Bounds { attempts: [2, 2], ..REPLACING });
}

#[test]
fn forgotten_promises_are_found_to_decide_twice() {
    breaks("register, promises forgotten", Bounds { rules: Rules::PromisesForgotten, ..REPLACING }, ONCE);
}

#[test]
fn a_ballot_granted_twice_is_found_to_decide_twice() {
    breaks("register, a ballot granted twice", Bounds { rules: Rules::GrantedTwice, ..REPLACING }, ONCE);
}

#[test]
fn ignored_promises_are_found_to_decide_twice() {
    breaks("register, promises ignored", Bounds { rules: Rules::PromisesIgnored, ..REPLACING }, ONCE);
}

#[test]
fn a_proposer_that_ignores_what_was_accepted_is_found_to_decide_twice() {
    breaks("register, accepted ignored", Bounds { rules: Rules::AcceptedIgnored, ..REPLACING }, ONCE);
}

#[test]
fn a_voter_that_skips_an_epoch_is_found_to_decide_it_twice() {
    breaks("register, an epoch skipped", Bounds { rules: Rules::EpochsSkipped, ..REPLACING }, ONCE);
}
