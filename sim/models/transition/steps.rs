//! What may happen.

use super::{BACK, Bounds, FORGOTTEN, Rules, SEEN, STORED, SWITCHED, state::*};
use crate::{Members, nodes};
use stateright::{Model, Property};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A coordinator that knows this epoch sends a version to all who hold the arc.
    Begin { version: usize, epoch: usize },
    /// A node applies what was sent to it.
    Apply { attempt: usize, node: usize },
    /// A node learns an epoch; of the requests under way to it, those of these attempts were admitted before.
    Learn { node: usize, epoch: usize, admitted: Members },
    /// A node restarts: it has lost what it was doing, not what it stored.
    Restart { node: usize },
    /// The next epoch is decided.
    Decide { ring: Ring },
    /// A new replica copies from an old one.
    Copy { to: usize, from: usize },
    /// A node that holds the arc no more hands an owner what it stores.
    Offer { from: usize, owner: usize },
    /// It forgets what it stores.
    Forget { node: usize },
}

impl Bounds {
    /// The rings that may follow.
    fn next_rings(&self, state: &State) -> Vec<Ring> {
        let ring = state.rings[state.latest];
        if !ring.is_joint() {
            let (old, new) = (self.sets.old.nodes, self.sets.new.nodes);
            let next = if ring.replicas == old { new } else { old };
            return vec![Ring { next, since: state.latest + 1, ..ring }];
        }
        let back = Ring { next: 0, since: 0, ..ring };
        let switched = Ring { replicas: ring.next, ..back };
        let needed = self.copiers(ring);
        let is_ready = match self.rules {
            Rules::OneReady => needed & state.ready != 0,
            _ => needed & !state.ready == 0,
        };
        let others = state.rings[..=state.latest].windows(2).filter(|two| two[0] == two[1]).count();
        let mut rings = vec![back];
        rings.extend(is_ready.then_some(switched));
        rings.extend((others < self.others).then_some(ring));
        rings
    }

    /// Whether a read is answered by these.
    fn may_read(&self, ring: Ring, who: Members) -> bool {
        let asked = if self.rules == Rules::OldReads { Ring { next: 0, ..ring } } else { ring };
        self.sets.read(asked, who)
    }

    /// Who must have copied before the next set takes over.
    fn copiers(&self, ring: Ring) -> Members {
        match self.rules {
            Rules::NewOnly => ring.next & !ring.replicas,
            _ => ring.copiers(),
        }
    }

    fn may_copy(&self, state: &State, to: usize, from: usize) -> bool {
        let epoch = state.nodes[to].known;
        let ring = state.rings[epoch];
        let is_fenced = state.attempts.iter().all(|attempt| attempt.admitted & 1 << from == 0);
        let is_told = state.nodes[from].known == epoch
            || self.rules == Rules::NoBarrier && state.nodes[from].known < epoch;
        self.copiers(ring) & 1 << to != 0
            && ring.replicas & 1 << from != 0
            && is_told
            && (is_fenced || self.rules == Rules::NotFenced)
            && state.nodes[to].copied & 1 << from == 0
            && !(ring.since == state.rings[state.latest].since && state.ready & 1 << to != 0)
    }

    /// Whether a request under way is taken when it arrives.
    fn takes(&self, state: &State, attempt: &Attempt, node: usize) -> bool {
        let known = state.nodes[node].known;
        let admits = known == attempt.epoch || self.rules == Rules::OlderEpochs && known > attempt.epoch;
        attempt.admitted & 1 << node != 0 || attempt.sent & 1 << node != 0 && admits
    }

    fn apply(&self, state: &mut State, attempt: usize, node: usize) {
        let Attempt { version, epoch, .. } = state.attempts[attempt];
        store(state, node, version);
        let at = &mut state.attempts[attempt];
        at.sent &= !(1 << node);
        at.admitted &= !(1 << node);
        if state.nodes[node].stored == version {
            at.acks |= 1 << node;
        }
        let ring = state.rings[epoch];
        let needed = if self.rules == Rules::OldQuorum { Ring { next: 0, ..ring } } else { ring };
        if self.sets.write(needed, at.acks) {
            state.acknowledged[version] = true;
        }
    }

    fn learn(&self, state: &mut State, node: usize, epoch: usize, admitted: Members) {
        for (at, attempt) in state.attempts.iter_mut().enumerate() {
            if attempt.epoch < epoch && self.rules != Rules::OlderEpochs {
                attempt.sent &= !(1 << node);
            }
            if admitted & 1 << at != 0 {
                attempt.admitted |= 1 << node;
            }
        }
        let node = &mut state.nodes[node];
        let is_same = state.rings[node.known].since == state.rings[epoch].since;
        node.known = epoch;
        node.offered = 0;
        if !is_same && self.rules != Rules::SessionKept {
            node.copied = 0;
        }
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut rings = [Ring::default(); MAX_EPOCHS];
        rings[0].replicas = self.sets.old.nodes;
        vec![State {
            rings,
            latest: 0,
            nodes: [Node::default(); NODES],
            ready: 0,
            attempts: [Attempt::default(); MAX_ATTEMPTS],
            left: self.attempts,
            versions: 0,
            stored: 0,
            acknowledged: [false; MAX_VERSIONS + 1],
            stale: [[0; MAX_EPOCHS]; MAX_VERSIONS + 1],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let members = self.sets.old.nodes | self.sets.new.nodes;
        if state.latest + 1 < self.epochs {
            actions.extend(self.next_rings(state).into_iter().map(|ring| Action::Decide { ring }));
        }
        if state.left > 0 {
            // What no node would admit any more need not be sent.
            let is_open = |epoch: &usize| {
                nodes(state.rings[*epoch].all()).any(|node| state.nodes[node].known <= *epoch)
            };
            for epoch in (0..=state.latest).filter(is_open) {
                let versions = 1..=self.versions.min(state.versions + 1);
                actions.extend(versions.map(|version| Action::Begin { version, epoch }));
            }
        }
        for node in nodes(members) {
            let at = state.nodes[node];
            for (attempt, it) in state.attempts.iter().enumerate() {
                if self.takes(state, it, node) {
                    actions.push(Action::Apply { attempt, node });
                }
            }
            let under_way = |attempt: &Attempt| attempt.sent & 1 << node != 0 && attempt.epoch == at.known;
            let may: Members =
                (0..MAX_ATTEMPTS).filter(|it| under_way(&state.attempts[*it])).map(|it| 1 << it).sum();
            for epoch in at.known + 1..=state.latest {
                let subsets = (0..1 << MAX_ATTEMPTS).filter(|some| some & !may == 0);
                actions.extend(subsets.map(|admitted| Action::Learn { node, epoch, admitted }));
            }
            if at.copied | at.offered != 0 || state.attempts.iter().any(|it| it.admitted & 1 << node != 0) {
                actions.push(Action::Restart { node });
            }
            for other in nodes(members) {
                if self.may_copy(state, node, other) {
                    actions.push(Action::Copy { to: node, from: other });
                }
            }
            let ring = state.rings[at.known];
            if at.stored == 0 || ring.is_joint() || ring.replicas & 1 << node != 0 {
                continue;
            }
            let owners =
                nodes(ring.replicas & !at.offered).filter(|owner| state.nodes[*owner].known == at.known);
            actions.extend(owners.map(|owner| Action::Offer { from: node, owner }));
            if ring.replicas & !at.offered == 0 || self.rules == Rules::OwnersLast {
                actions.push(Action::Forget { node });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Begin { version, epoch } => {
                state.left -= 1;
                state.versions = state.versions.max(version);
                let free = state.attempts.iter_mut().find(|attempt| attempt.version == 0)?;
                let known = state.nodes.map(|node| node.known);
                let sent = nodes(state.rings[epoch].all()).filter(|node| known[*node] <= epoch);
                *free =
                    Attempt { version, epoch, sent: sent.map(|node| 1 << node).sum(), ..Attempt::default() };
            }
            Action::Apply { attempt, node } => self.apply(&mut state, attempt, node),
            Action::Learn { node, epoch, admitted } => self.learn(&mut state, node, epoch, admitted),
            Action::Restart { node } => {
                state.attempts.iter_mut().for_each(|attempt| attempt.admitted &= !(1 << node));
                state.nodes[node].copied = 0;
                state.nodes[node].offered = 0;
            }
            Action::Decide { ring } => {
                state.latest += 1;
                state.rings[state.latest] = ring;
                if ring.since != last.rings[last.latest].since && self.rules != Rules::OldEvidence {
                    state.ready = 0;
                }
            }
            Action::Copy { to, from } => {
                let read = state.nodes[from].stored;
                store(&mut state, to, read);
                let epoch = state.nodes[to].known;
                let copied = &mut state.nodes[to].copied;
                *copied |= 1 << from;
                let sources = self.sets.of(state.rings[epoch].replicas);
                let sources = sources.sources(self.rules != Rules::ReadsForgotten);
                let needed = if self.rules == Rules::OneSource { sources - 1 } else { sources };
                if copied.count_ones() >= needed {
                    *copied = 0;
                    if state.rings[epoch].since == state.rings[state.latest].since {
                        state.ready |= 1 << to;
                    }
                }
            }
            Action::Offer { from, owner } => {
                let offered = state.nodes[from].stored;
                store(&mut state, owner, offered);
                state.nodes[from].offered |= 1 << owner;
            }
            Action::Forget { node } => {
                state.nodes[node].stored = 0;
                state.nodes[node].offered = 0;
            }
        }
        tidy(&mut state, |ring, who| self.may_read(ring, who));
        for (a, b) in self.alike {
            state = state.min(renamed(&state, *a, *b));
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Bounds>> {
        vec![
            Property::always(SEEN, |model: &Bounds, state: &State| {
                let unread = |stale: &[Members; MAX_EPOCHS]| {
                    let mut epochs = stale.iter().zip(&state.rings);
                    epochs.any(|(stale, ring)| *stale != 0 && model.may_read(*ring, *stale))
                };
                !state.stale.iter().any(unread)
            }),
            Property::always(STORED, |_, state: &State| {
                state.nodes.iter().any(|node| node.stored == state.stored)
            }),
            Property::sometimes(SWITCHED, |model: &Bounds, state: &State| {
                state.rings[state.latest] == Ring { replicas: model.sets.new.nodes, next: 0, since: 0 }
                    && state.acknowledged[1]
            }),
            Property::sometimes(FORGOTTEN, |_, state: &State| {
                let may = |node: &Node| node.offered != 0 && node.offered == state.rings[node.known].replicas;
                state.nodes.iter().any(may)
            }),
            Property::sometimes(BACK, |model: &Bounds, state: &State| {
                let rolled_back = Ring { replicas: model.sets.old.nodes, next: 0, since: 0 };
                state.attempts.iter().any(|attempt| {
                    attempt.version > 0
                        && attempt.epoch == 2
                        && state.rings[2] == rolled_back
                        && state.acknowledged[attempt.version]
                })
            }),
        ]
    }
}
