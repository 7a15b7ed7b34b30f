//! Other quorums of the same copies (invariants QUORUMS-HEARD, OVERLAP).
//!
//! One key on N replicas, all of which stay. Again and again somebody asks for another W and R, of all those of which
//! reads meet writes. First as many as the old and the new ones ask for hold; then, once so many have heard of these
//! that the old ones are reached nowhere, the new ones. What only asks for more holds at once, and is over once that is
//! so. A change may be called off until then. One that would read past writes of before is refused.
//!
//! An attempt is the write as a coordinator sends it at its epoch; a second one, by another coordinator that was asked
//! anew, may do so at another.
//!
//! What makes the states fewer, without hiding any that could show more:
//! - An answer arrives as it is given: what is acknowledged earlier is demanded earlier.
//! - There is one version. A newer one would hide what is missed.
//! - An epoch that all have left is forgotten: changes have no end, but the slowest node is at most so many behind.
//! - What a node admitted is applied at any time, or never. So a crash needs no step of its own; nor does a driver's,
//!   whose evidence is gathered anew. Who has heard need not have applied what it admitted before: that is on as many
//!   as were asked for when it is acknowledged, and later reads count on as few.
//! - A read lasts as long as it likes: `stale` has whoever ever answered it with too little.
//!
//! Bounds: of three copies any quorums and the slowest node three epochs behind (448,171 states), or two behind and two
//! attempts (1,284,486); of four copies four quorums and two behind (45,879).
//!
//! Left out: who holds the arc, and how many do ([`super::transition`]); calls that ask for another number than the
//! keyspace's; repairs of reads: what one returned is on R, and where any two quorums of reads meet under the old terms
//! (2 R > N) and under the new ones, one of the old terms meets one of the new ones.

use crate::{Members, breaks, holds};
use stateright::{Model, Property};

const NODES: usize = 4;
const MAX_EPOCHS: usize = 5;
const MAX_ATTEMPTS: usize = 2;

const SEEN: &str = "every quorum read returns what was acknowledged before it began";
const OVERTAKEN: &str =
    "a write is acknowledged by so few that quorums which a node takes to hold could miss it";
const CALLED_OFF: &str = "a write is acknowledged, and a change was called off";

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Kept,
    /// The new quorums hold, whoever has heard that they come.
    NotWaited,
    /// One fewer has heard than must.
    TooFew,
    /// Who heard before a change was called off counts in the next one.
    OldEvidence,
    /// Until the new quorums hold, as many are asked as the old ones need.
    OldOnly,
    /// As many as the new ones need, from the beginning.
    NewOnly,
    /// What only asks for more is over at once.
    RaisedAtOnce,
    /// Reads may ask so few that they miss writes of before.
    WritesForgotten,
    /// A replica answers who asks under quorums of before.
    OlderEpochs,
}

/// How many are asked; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Terms {
    write: u32,
    read: u32,
}

impl Terms {
    fn max(self, other: Terms) -> Terms {
        Terms { write: self.write.max(other.write), read: self.read.max(other.read) }
    }
}

/// What holds by an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Ring {
    terms: Terms,
    /// What is wished for and what was before; nothing where no change is under way.
    wish: Terms,
    was: Terms,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Attempt {
    /// How many must have it; 0: there is no such attempt.
    needed: u32,
    epoch: usize,
    /// Where its request is under way (where a later epoch is known: admitted before that), and where it was applied.
    sent: Members,
    acks: Members,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct State {
    /// By epoch, up to the latest. The first is that of the slowest node.
    rings: [Ring; MAX_EPOCHS],
    latest: usize,
    /// The lowest write quorum that ever held.
    least: u32,
    /// The epoch that each node knows.
    known: [usize; NODES],
    /// Who stores the write.
    stored: Members,
    /// Who has told the driver that it knows the latest epoch.
    heard: Members,
    attempts: [Attempt; MAX_ATTEMPTS],
    /// Attempts yet to begin.
    left: usize,
    acknowledged: bool,
    /// By epoch: who has answered a read without it since then.
    stale: [Members; MAX_EPOCHS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A coordinator that knows this epoch sends the write to all.
    Begin { epoch: usize },
    /// A node applies what was sent to it.
    Apply { attempt: usize, node: usize },
    /// A node learns an epoch; of the requests under way to it, those of these attempts were admitted before.
    Learn { node: usize, epoch: usize, admitted: Members },
    /// A node tells the driver that it knows the latest epoch.
    Hear { node: usize },
    /// Another ring is decided.
    Decide { ring: Ring },
}

/// What bounds the states.
struct Bounds {
    rules: Rules,
    copies: u32,
    /// What holds in the beginning, and what is wished for; nothing: all of which reads meet writes.
    first: &'static [Terms],
    wishes: &'static [Terms],
    /// Epochs from that of the slowest node on.
    epochs: usize,
    attempts: usize,
}

impl Bounds {
    fn members(&self) -> std::ops::Range<usize> {
        0..self.copies as usize
    }

    /// Quorums that may be wished for: reads meet writes.
    fn sound(&self) -> impl Iterator<Item = Terms> {
        let copies = self.copies;
        let reads = move |write| (copies + 1 - write..=copies).map(move |read| Terms { write, read });
        let wishes = self.wishes;
        (1..=copies).flat_map(reads).filter(move |terms| wishes.is_empty() || wishes.contains(terms))
    }

    /// Whether the quorums of before are reached nowhere any more.
    fn is_heard(&self, ring: Ring, heard: Members) -> bool {
        let needed = self.copies + 1 - ring.was.write.min(ring.was.read).min(self.copies / 2 + 1);
        match self.rules {
            Rules::NotWaited => true,
            Rules::TooFew => heard.count_ones() + 1 >= needed,
            _ => heard.count_ones() >= needed,
        }
    }

    /// The rings that may follow.
    fn next_rings(&self, state: &State) -> Vec<Ring> {
        let ring = state.rings[state.latest];
        if ring.wish != Terms::default() {
            let settled = |terms: Terms| Ring { terms, ..Ring::default() };
            let mut rings = vec![settled(ring.was)];
            rings.extend(self.is_heard(ring, state.heard).then(|| settled(ring.wish)));
            return rings;
        }
        let was = ring.terms;
        let meets =
            |wish: &Terms| wish.read + state.least > self.copies || self.rules == Rules::WritesForgotten;
        let begun = |wish: Terms| {
            let terms = match self.rules {
                Rules::OldOnly => was,
                Rules::NewOnly => wish,
                _ => was.max(wish),
            };
            let is_raised = wish.read > was.read && self.rules != Rules::RaisedAtOnce;
            match terms == wish && !is_raised {
                true => Ring { terms, ..Ring::default() },
                false => Ring { terms, wish, was },
            }
        };
        self.sound().filter(|wish| *wish != was).filter(meets).map(begun).collect()
    }

    /// Whether a node answers who asks under an epoch.
    fn answers(&self, state: &State, node: usize, epoch: usize) -> bool {
        state.known[node] == epoch || self.rules == Rules::OlderEpochs && state.known[node] > epoch
    }

    fn apply(&self, state: &mut State, attempt: usize, node: usize) {
        state.stored |= 1 << node;
        let at = &mut state.attempts[attempt];
        at.sent &= !(1 << node);
        at.acks |= 1 << node;
        state.acknowledged |= at.acks.count_ones() >= at.needed;
    }

    fn learn(&self, state: &mut State, node: usize, epoch: usize, admitted: Members) {
        let known = state.known[node];
        for (at, attempt) in state.attempts.iter_mut().enumerate() {
            let was_admitted = attempt.epoch < known || attempt.epoch == known && admitted & 1 << at != 0;
            if attempt.epoch < epoch && !was_admitted {
                attempt.sent &= !(1 << node);
            }
        }
        state.known[node] = epoch;
    }

    /// Notes who answers reads with too little, and makes one of all states that differ in nothing that matters.
    fn tidy(&self, state: &mut State) {
        for attempt in &mut state.attempts {
            let acks = attempt.acks.count_ones() + attempt.sent.count_ones();
            if state.acknowledged || acks < attempt.needed {
                // It is nothing but a write that may still be stored somewhere.
                (attempt.needed, attempt.acks) = (u32::MAX, 0);
            }
            attempt.sent &= !state.stored | if attempt.needed == u32::MAX { 0 } else { Members::MAX };
            if attempt.sent == 0 {
                *attempt = Attempt::default();
            }
        }
        for epoch in 0..=state.latest {
            let who = |of: &dyn Fn(usize) -> bool| -> Members {
                self.members().filter(|node| of(*node)).map(|node| 1 << node).sum()
            };
            let now = who(&|node| self.answers(state, node, epoch)) & !state.stored;
            let later = who(&|node| state.known[node] < epoch);
            let terms = state.rings[epoch].terms;
            let stale = &mut state.stale[epoch];
            *stale |= if state.acknowledged { now } else { 0 };
            // A read at that epoch can get no quorum of such answers any more.
            if (*stale | later).count_ones() < terms.read {
                *stale = 0;
            }
        }
        let left = self.members().map(|node| state.known[node]).min().unwrap_or(0);
        if self.rules != Rules::OlderEpochs {
            for _ in 0..left {
                forget_first(state);
            }
        }
        state.attempts.sort_unstable();
        self.sort_nodes(state);
    }

    /// Nodes differ in nothing but what they know and hold: their order does not matter.
    fn sort_nodes(&self, state: &mut State) {
        let masks = |state: &State| -> Vec<Members> {
            let attempts = state.attempts.iter().flat_map(|attempt| [attempt.sent, attempt.acks]);
            [state.stored, state.heard].into_iter().chain(attempts).chain(state.stale).collect()
        };
        let seen = masks(state);
        let mut order: Vec<usize> = self.members().collect();
        order.sort_by_cached_key(|node| {
            (
                state.known[*node],
                seen.iter().fold(0_u32, |seen, mask| seen << 1 | u32::from(mask >> node & 1)),
            )
        });
        let rename = |mask: &mut Members| {
            *mask = order.iter().enumerate().map(|(to, from)| (*mask >> from & 1) << to).sum();
        };
        let known = state.known;
        for (to, from) in order.iter().enumerate() {
            state.known[to] = known[*from];
        }
        rename(&mut state.stored);
        rename(&mut state.heard);
        for attempt in &mut state.attempts {
            rename(&mut attempt.sent);
            rename(&mut attempt.acks);
        }
        state.stale.iter_mut().for_each(rename);
    }
}

/// Forgets an epoch that no node knows any more.
fn forget_first(state: &mut State) {
    state.rings.rotate_left(1);
    state.rings[MAX_EPOCHS - 1] = Ring::default();
    state.latest -= 1;
    for known in &mut state.known {
        *known = known.saturating_sub(1);
    }
    for attempt in &mut state.attempts {
        attempt.epoch = attempt.epoch.saturating_sub(1);
    }
    state.stale.rotate_left(1);
    state.stale[MAX_EPOCHS - 1] = 0;
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let begins = |terms: &Terms| {
            let mut rings = [Ring::default(); MAX_EPOCHS];
            rings[0].terms = *terms;
            State {
                rings,
                latest: 0,
                least: terms.write,
                known: [0; NODES],
                stored: 0,
                heard: 0,
                attempts: [Attempt::default(); MAX_ATTEMPTS],
                left: self.attempts,
                acknowledged: false,
                stale: [0; MAX_EPOCHS],
            }
        };
        self.first.iter().map(begins).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let ring = state.rings[state.latest];
        for next in self.next_rings(state) {
            if next.terms == ring.terms || state.latest + 1 < self.epochs {
                actions.push(Action::Decide { ring: next });
            }
        }
        for epoch in (0..=state.latest).filter(|_| state.left > 0) {
            let asked = |node: usize| self.answers(state, node, epoch) || state.known[node] < epoch;
            actions.extend(self.members().any(asked).then_some(Action::Begin { epoch }));
        }
        for node in self.members() {
            let known = state.known[node];
            let of = |at: &usize| state.attempts[*at].sent & 1 << node != 0;
            let mine = (0..MAX_ATTEMPTS).filter(of).filter(|at| state.attempts[*at].epoch <= known);
            actions.extend(mine.map(|attempt| Action::Apply { attempt, node }));
            let arrived = (0..MAX_ATTEMPTS).filter(of).filter(|at| state.attempts[*at].epoch == known);
            let may: Members = arrived.map(|at| 1 << at).sum();
            for epoch in known + 1..=state.latest {
                let subsets = (0..1 << MAX_ATTEMPTS).filter(|some| some & !may == 0);
                actions.extend(subsets.map(|admitted| Action::Learn { node, epoch, admitted }));
            }
            let waits = ring.wish != Terms::default() && state.heard & 1 << node == 0;
            if waits && known == state.latest {
                actions.push(Action::Hear { node });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Begin { epoch } => {
                let free = state.attempts.iter_mut().find(|attempt| attempt.needed == 0)?;
                let takes = |node: &usize| last.known[*node] < epoch || self.answers(last, *node, epoch);
                let sent = self.members().filter(takes).map(|node| 1 << node).sum();
                *free = Attempt { needed: state.rings[epoch].terms.write, epoch, sent, acks: 0 };
                state.left -= 1;
            }
            Action::Apply { attempt, node } => self.apply(&mut state, attempt, node),
            Action::Learn { node, epoch, admitted } => self.learn(&mut state, node, epoch, admitted),
            Action::Hear { node } => state.heard |= 1 << node,
            Action::Decide { ring } => {
                if ring.terms != state.rings[state.latest].terms {
                    state.latest += 1;
                }
                state.rings[state.latest] = ring;
                state.least = state.least.min(ring.terms.write);
                if self.rules != Rules::OldEvidence {
                    state.heard = 0;
                }
            }
        }
        self.tidy(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Bounds>> {
        vec![
            Property::always(SEEN, |_, state: &State| {
                let read = |(ring, stale): (&Ring, &Members)| {
                    ring.terms.read > 0 && stale.count_ones() >= ring.terms.read
                };
                !state.rings.iter().zip(&state.stale).any(read)
            }),
            Property::sometimes(OVERTAKEN, |model: &Bounds, state: &State| {
                let few = |read: u32| state.stored.count_ones() + read <= model.copies;
                let misses = |node: usize| few(state.rings[state.known[node]].terms.read);
                state.acknowledged && model.members().any(misses)
            }),
            Property::sometimes(CALLED_OFF, |_, state: &State| {
                let is_back =
                    |three: &[Ring]| three[0].terms == three[2].terms && three[1].wish != Terms::default();
                state.acknowledged && state.rings[..=state.latest].windows(3).any(is_back)
            }),
        ]
    }
}

const fn terms(write: u32, read: u32) -> Terms {
    Terms { write, read }
}

/// Three copies, from any quorums to any.
const THREE: Bounds = Bounds {
    rules: Rules::Kept,
    copies: 3,
    first: &[terms(3, 1), terms(3, 2), terms(3, 3), terms(2, 2), terms(2, 3), terms(1, 3)],
    wishes: &[],
    epochs: 4,
    attempts: 1,
};

/// Four copies, from a write on all of them to one on two, and no way back to reads of one.
const FOUR: Bounds = Bounds {
    copies: 4,
    first: &[terms(4, 1)],
    wishes: &[terms(4, 1), terms(4, 2), terms(3, 2), terms(2, 3)],
    epochs: 3,
    ..THREE
};

fn broken(rules: Rules) {
    breaks("quorums, three copies", Bounds { rules, ..THREE }, SEEN);
}

#[test]
fn what_was_acknowledged_is_read_whatever_quorums_follow_on_each_other() {
    holds("quorums, three copies", THREE);
    holds("quorums, three copies, two attempts", Bounds { epochs: 3, attempts: 2, ..THREE });
}

#[test]
fn what_was_acknowledged_is_read_whatever_quorums_of_four_copies_follow_on_each_other() {
    holds("quorums, four copies", FOUR);
}

#[test]
fn quorums_that_hold_before_anybody_heard_that_they_come_are_found_to_be_missed() {
    broken(Rules::NotWaited);
}

#[test]
fn quorums_that_too_few_have_heard_of_are_found_to_be_missed() {
    broken(Rules::TooFew);
}

#[test]
fn who_heard_of_a_change_that_was_called_off_is_found_not_to_know_of_the_next() {
    broken(Rules::OldEvidence);
}

#[test]
fn asking_as_many_as_before_until_others_hold_is_found_to_miss_writes() {
    broken(Rules::OldOnly);
}

#[test]
fn asking_as_many_as_wished_from_the_beginning_is_found_to_miss_writes() {
    broken(Rules::NewOnly);
}

#[test]
fn a_change_to_more_that_is_over_at_once_is_found_to_miss_writes_of_the_next() {
    broken(Rules::RaisedAtOnce);
}

#[test]
fn reads_of_fewer_than_writes_of_before_have_missed_are_found_to_miss_them() {
    broken(Rules::WritesForgotten);
}

#[test]
fn answers_to_who_asks_under_quorums_of_before_are_found_to_miss_writes() {
    broken(Rules::OlderEpochs);
}
