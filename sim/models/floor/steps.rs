//! What may happen.

use super::{Bounds, FLOORED, GONE, PURGED, Rules, SEEN, state::*};
use crate::{Members, nodes};
use stateright::{Model, Property};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A write is stamped.
    Begin { version: usize, kind: Kind },
    /// It arrives at a replica, by whatever way.
    Deliver { version: usize, to: usize },
    /// A replica promises a floor.
    Promise { floor: usize, node: usize },
    /// A replica takes what it lacks from another one.
    Pull { version: usize, to: usize },
    /// A floor is decided: the replicas are equal there.
    Decide { floor: usize },
    /// A replica hears of the floor that was decided.
    SetFloor { node: usize },
    /// A replica purges its tombstone.
    Purge { node: usize },
    /// The next epoch is decided.
    Move { to: Stage },
    /// Time passes for the record that expires.
    Pass { to: Over },
    /// The new replica takes over an old one's promise.
    Inherit { from: usize },
    /// The new replica copies from an old one.
    Copy { from: usize },
    /// A replica answers the read; the first one begins it.
    Answer { node: usize },
}

impl Bounds {
    /// Whether a node takes writes, or answers reads, by the rule that would be broken if it did too early.
    fn serves(&self, state: &State, node: usize, too_early: Rules) -> bool {
        state.stage != Stage::Joint || node != NEW || state.inherited || self.rules == too_early
    }

    /// Whether all who hold the arc are equal at and below a floor, and have promised it.
    fn may_decide(&self, state: &State, floor: usize, members: Members) -> bool {
        let below = |replica: &Replica| if replica.stored <= floor { replica.stored } else { 0 };
        let promised = |replica: &Replica| replica.promised >= floor || self.rules == Rules::NotPromised;
        let mut stored = state.of(members).map(below);
        let first = stored.next();
        self.may_raise(state)
            && (state.decided < floor || state.decided == floor && state.deciders != members)
            && stored.all(|stored| Some(stored) == first)
            && state.of(members).all(promised)
    }

    /// Whether a replica acknowledges a write that arrives by whatever way, and whether it stores it.
    fn takes(&self, state: &State, version: usize, to: usize) -> Option<bool> {
        let Replica { stored, promised, floor } = state.replicas[to];
        if version < stored || !self.serves(state, to, Rules::WritesFirst) {
            return None;
        }
        if state.kinds[version] != Kind::End {
            return (version > promised).then_some(true);
        }
        if state.over == Over::Nobodys {
            return None;
        }
        let stands = stored == EXPIRES || stored == version;
        // At or below what is repaired a replica has all there is.
        let has_all = version <= floor || self.rules == Rules::EndsAckedUnderPromise;
        (version > promised || stands || has_all).then_some(version > promised || stands)
    }

    /// Whether floors are promised and decided: not while the arc changes hands.
    fn may_raise(&self, state: &State) -> bool {
        state.stage != Stage::Joint || self.rules == Rules::RaisedMeanwhile
    }

    fn may_purge(&self, state: &State, node: usize) -> bool {
        let Replica { stored, floor, .. } = state.replicas[node];
        let is_read = state.read.is_some_and(|read| read.floored & 1 << node != 0);
        let is_sure = state.over == Over::Everybodys || self.rules == Rules::EndsPurgedEarly;
        state.kinds[stored].is_deletion()
            && (state.kinds[stored] != Kind::End || is_sure)
            && (stored <= floor || self.rules == Rules::PurgedByAge)
            && (!is_read || self.rules == Rules::ReadsPassed)
    }

    fn may_pull(&self, state: &State, version: usize, to: usize) -> bool {
        let Replica { stored, promised, floor } = state.replicas[to];
        let passes = version > floor || self.rules == Rules::FloorPassed;
        // Above the promise it is a delivery like any other.
        state.pulled & 1 << version != 0 && stored < version && version <= promised && passes
    }

    /// The moves that may follow.
    fn moves(&self, state: &State) -> Vec<Stage> {
        match state.stage {
            Stage::Before if self.moves => vec![Stage::Joint],
            Stage::Joint if state.copied.count_ones() >= SOURCES => vec![Stage::Before, Stage::After],
            Stage::Joint => vec![Stage::Before],
            _ => vec![],
        }
    }

    /// Those who must take part in deciding a floor.
    fn quorums(&self, state: &State) -> Vec<Members> {
        // Those of before, who know nothing of the new one, where floors are raised all the same.
        let members = if state.stage == Stage::Joint { BEFORE } else { state.members() };
        let without = |node: usize| (self.rules == Rules::OneAway).then_some(members & !(1 << node));
        std::iter::once(members).chain(nodes(members).filter_map(without)).collect()
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut kinds = [Kind::NotBegun; VERSIONS + 1];
        kinds[EXPIRES] = Kind::Value;
        if self.ends {
            kinds[END] = Kind::End;
        }
        let state = |stored: [usize; NODES]| State {
            stage: Stage::Before,
            replicas: stored.map(|stored| Replica { stored, ..Replica::default() }),
            kinds,
            acks: [0; VERSIONS + 1],
            acknowledged: 1,
            pulled: 0,
            decided: 0,
            deciders: 0,
            inherited: false,
            copied: 0,
            read: None,
            over: Over::Nobodys,
            came_back: false,
            lost: false,
        };
        // The first write was acknowledged, by two; the fourth node may have been a replica then.
        [[1, 1, 0, 0], [1, 1, 0, 1], [1, 0, 1, 0], [1, 0, 1, 1]].map(state).to_vec()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let members = state.members();
        for version in 1..=self.versions {
            if state.kinds[version] == Kind::NotBegun {
                actions.extend([Kind::Value, Kind::Tombstone].map(|kind| Action::Begin { version, kind }));
                continue;
            }
            for to in nodes(members) {
                if self.takes(state, version, to).is_some() {
                    actions.push(Action::Deliver { version, to });
                }
                if self.may_pull(state, version, to) {
                    actions.push(Action::Pull { version, to });
                }
            }
        }
        for node in nodes(members) {
            let Replica { promised, floor, .. } = state.replicas[node];
            if self.may_raise(state) {
                let higher = self.floors.iter().filter(|floor| **floor > promised);
                actions.extend(higher.map(|floor| Action::Promise { floor: *floor, node }));
            }
            if state.deciders & 1 << node != 0 && floor < state.decided {
                actions.push(Action::SetFloor { node });
            }
            if self.may_purge(state, node) {
                actions.push(Action::Purge { node });
            }
            let is_asked = state.read.is_none_or(|read| read.answered & 1 << node == 0);
            if is_asked && self.serves(state, node, Rules::ReadsFirst) {
                actions.push(Action::Answer { node });
            }
        }
        for floor in self.floors {
            let quorums = self.quorums(state);
            if quorums.iter().any(|members| self.may_decide(state, *floor, *members)) {
                actions.push(Action::Decide { floor: *floor });
            }
        }
        match state.over {
            Over::Nobodys if self.ends => actions.push(Action::Pass { to: Over::Somebodys }),
            Over::Somebodys => actions.push(Action::Pass { to: Over::Everybodys }),
            _ => {}
        }
        actions.extend(self.moves(state).into_iter().map(|to| Action::Move { to }));
        if state.stage == Stage::Joint {
            if !state.inherited || self.rules == Rules::InheritedAgain {
                actions.extend(nodes(BEFORE).map(|from| Action::Inherit { from }));
            }
            if state.inherited {
                actions.extend(nodes(BEFORE & !state.copied).map(|from| Action::Copy { from }));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Begin { version, kind } => state.kinds[version] = kind,
            Action::Deliver { version, to } => {
                if self.takes(last, version, to)? {
                    state.replicas[to].stored = version;
                }
                state.acks[version] |= 1 << to;
                let is_told = self.rules == Rules::ToldEarly && state.kinds[version] == Kind::End;
                if state.enough(state.acks[version]) || is_told {
                    state.acknowledged = state.acknowledged.max(version);
                }
            }
            Action::Promise { floor, node } => state.replicas[node].promised = floor,
            Action::Pull { version, to } => state.replicas[to].stored = version,
            Action::Decide { floor } => {
                state.decided = floor;
                let members =
                    self.quorums(&state).into_iter().find(|it| self.may_decide(last, floor, *it))?;
                state.deciders = members;
                // What all replicas hold has taken place.
                let all = state.of(members).map(|replica| replica.stored).min();
                state.acknowledged = state.acknowledged.max(all.filter(|all| *all <= floor).unwrap_or(0));
            }
            Action::SetFloor { node } => {
                let replica = &mut state.replicas[node];
                replica.floor = state.decided;
                replica.promised = replica.promised.max(state.decided);
                state.read.iter_mut().for_each(|read| read.floored |= 1 << node);
            }
            Action::Purge { node } => state.replicas[node].stored = 0,
            Action::Move { to } => {
                // What was begun at another epoch does not count any more.
                (state.stage, state.acks, state.read) = (to, [0; VERSIONS + 1], None);
                (state.inherited, state.copied) = (false, 0);
                if self.rules != Rules::PullsKept {
                    state.pulled = 0;
                }
            }
            Action::Pass { to } => state.over = to,
            Action::Inherit { from } => {
                let promise = state.replicas[from].promised;
                let new = &mut state.replicas[NEW];
                state.inherited = true;
                if self.rules != Rules::NotInherited {
                    new.promised = new.promised.max(promise);
                }
                if self.rules != Rules::OldKept && new.stored <= promise.max(new.promised) {
                    new.stored = 0;
                }
            }
            Action::Copy { from } => {
                let read = state.replicas[from].stored;
                let new = &mut state.replicas[NEW];
                if read > new.floor {
                    new.stored = new.stored.max(read);
                }
                state.copied |= 1 << from;
            }
            Action::Answer { node } => {
                let begun = Read { after: state.acknowledged, answered: 0, newest: 0, floored: 0 };
                let mut read = state.read.unwrap_or(begun);
                read.answered |= 1 << node;
                read.newest = read.newest.max(state.replicas[node].stored);
                state.read = Some(read);
                if state.enough(read.answered) {
                    state.read = None;
                    state.check(read);
                }
            }
        }
        tidy(&mut state);
        for (a, b) in self.alike {
            state = state.min(renamed(&state, *a, *b));
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Bounds>> {
        vec![
            Property::always(GONE, |_, state: &State| !state.came_back),
            Property::always(SEEN, |_, state: &State| !state.lost),
            Property::sometimes(PURGED, |_, state: &State| {
                let is_deleted = state.kinds[state.acknowledged].is_deletion();
                is_deleted && state.of(state.members()).all(|replica| replica.stored == 0)
            }),
            Property::sometimes(FLOORED, |model: &Bounds, state: &State| {
                let highest = model.floors.iter().max().copied().unwrap_or(0);
                let floored = state.of(state.members()).all(|replica| replica.floor == highest);
                floored && (state.stage == Stage::After || !model.moves)
            }),
        ]
    }
}
