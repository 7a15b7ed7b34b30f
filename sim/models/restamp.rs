//! Writes of one key that meet newer ones are stamped anew (invariants NO-SHADOW, QUORUM-COUNTED).
//!
//! Three replicas, W = R = 2, and coordinators whose clocks are apart and leap. Requests are late, lost, or applied
//! after the coordinator has long begun another round.
//!
//! An answer is taken to arrive as soon as the replica has given it. What is acknowledged earlier is demanded earlier,
//! and a replica that has refused because of a newer write does so again whenever it is asked; so no execution is
//! left out that could show more.
//!
//! Bounds: two writes of each of two coordinators (316,543 states), or one of each of three (584,757), in up to three
//! rounds.
//!
//! Left out: hints (they are requests that are late), the bound on clocks, restarts (CLOCK-NEVER-BACK).

use crate::{Members, breaks, holds, nodes};
use stateright::{Model, Property};

const REPLICAS: usize = 3;
const ALL: Members = 0b111;
/// The most rounds of one write.
const ROUNDS: u8 = 3;

const UNSHADOWED: &str = "an acknowledged write is newer than all that were acknowledged before it began";
const READ: &str = "every quorum has what was acknowledged, or newer";
const ANEW: &str = "a write that was stamped anew is acknowledged";
const GIVEN_UP: &str = "a write meets newer ones in every round";

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Kept,
    /// A replica that holds a newer write counts as if it had written.
    SupersededCounts,
    /// What was acknowledged in an earlier round, under another version, counts.
    EarlierRoundsCount,
    /// Two quorums need not have a replica in common.
    OneIsEnough,
}

/// Zero is no version. One coordinator never gives the same one twice, and two never do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Version {
    time: u8,
    coordinator: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Write {
    version: Version,
    round: u8,
    acknowledged: bool,
    /// The newest that was acknowledged before it began.
    after: Version,
    /// Replicas to which this round's request is under way, and those that acknowledged it.
    asked: Members,
    acks: Members,
    /// The newest that a replica refused it for.
    met: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Coordinator {
    clock: u8,
    /// Writes it has yet to begin.
    left: u8,
    write: Write,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    replicas: [Version; REPLICAS],
    coordinators: Vec<Coordinator>,
    /// Requests of rounds that have ended, and where they may still arrive.
    late: Vec<(Version, Members)>,
    /// The newest that was acknowledged.
    acknowledged: Version,
    shadowed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A coordinator begins its next write, whatever became of the last one; its clock has leapt so far ahead.
    Begin { coordinator: usize, leap: u8 },
    /// A request of the current round arrives.
    Arrive { coordinator: usize, replica: usize },
    /// A request of an earlier round arrives.
    ArriveLate { request: usize, replica: usize },
    /// A coordinator that met a newer write stamps anew.
    Restamp { coordinator: usize },
}

/// What bounds the states.
struct Bounds {
    rules: Rules,
    /// How far each coordinator's clock is ahead, and how many writes it begins.
    coordinators: &'static [(u8, u8)],
    /// How far a clock may leap between two writes.
    leap: u8,
}

impl Bounds {
    fn quorum(&self) -> u32 {
        if self.rules == Rules::OneIsEnough { 1 } else { 2 }
    }

    fn acked(&self, state: &mut State, coordinator: usize, replica: usize) {
        let write = &mut state.coordinators[coordinator].write;
        write.acks |= 1 << replica;
        if write.acks.count_ones() < self.quorum() {
            return;
        }
        state.shadowed |= write.version <= write.after;
        state.acknowledged = state.acknowledged.max(write.version);
        let (version, asked) = (write.version, std::mem::take(&mut write.asked));
        // What is of no use any more must not tell states apart.
        *write = Write { version, round: write.round, acknowledged: true, ..Write::default() };
        state.late.push((version, asked));
    }
}

/// Whether a replica now holds a version.
fn apply(state: &mut State, replica: usize, version: Version) -> bool {
    let held = &mut state.replicas[replica];
    *held = version.max(*held);
    *held == version
}

/// Makes one of all states that differ in nothing that matters: in late requests that would change nothing, in the
/// order of the rest, and in which replica is which.
fn tidy(state: &mut State) {
    for (version, asked) in &mut state.late {
        let over = nodes(*asked).filter(|replica| state.replicas[*replica] >= *version);
        *asked &= !over.map(|replica| 1 << replica).sum::<Members>();
    }
    state.late.retain(|(_, asked)| *asked != 0);
    state.late.sort_unstable();

    let late = state.late.iter().map(|(_, asked)| *asked);
    let masks: Vec<Members> =
        late.chain(state.coordinators.iter().flat_map(|at| [at.write.asked, at.write.acks])).collect();
    let mut order = [0, 1, 2];
    order.sort_by_cached_key(|replica| {
        let seen = masks.iter().fold(0, |seen, mask| seen << 1 | u64::from(mask >> replica & 1));
        (state.replicas[*replica], seen)
    });
    state.replicas = order.map(|replica| state.replicas[replica]);
    let rename = |mask: &mut Members| *mask = (0..REPLICAS).map(|to| (*mask >> order[to] & 1) << to).sum();
    state.late.iter_mut().for_each(|(_, asked)| rename(asked));
    for Coordinator { write, .. } in &mut state.coordinators {
        rename(&mut write.asked);
        rename(&mut write.acks);
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let coordinator =
            |(clock, left): &(u8, u8)| Coordinator { clock: *clock, left: *left, write: Write::default() };
        vec![State {
            replicas: [Version::default(); REPLICAS],
            coordinators: self.coordinators.iter().map(coordinator).collect(),
            late: Vec::new(),
            acknowledged: Version::default(),
            shadowed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (coordinator, at) in state.coordinators.iter().enumerate() {
            let Write { version, round, asked, met, .. } = at.write;
            if at.left > 0 {
                actions.extend((0..=self.leap).map(|leap| Action::Begin { coordinator, leap }));
            }
            actions.extend(nodes(asked).map(|replica| Action::Arrive { coordinator, replica }));
            if met > version && round < ROUNDS {
                actions.push(Action::Restamp { coordinator });
            }
        }
        for (request, (_, asked)) in state.late.iter().enumerate() {
            actions.extend(nodes(*asked).map(|replica| Action::ArriveLate { request, replica }));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Begin { coordinator, leap } => {
                let at = &mut state.coordinators[coordinator];
                state.late.push((at.write.version, at.write.asked));
                at.left -= 1;
                at.clock += 1 + leap;
                let version = Version { time: at.clock, coordinator: coordinator as u8 };
                at.write =
                    Write { version, round: 1, asked: ALL, after: state.acknowledged, ..Write::default() };
            }
            Action::Arrive { coordinator, replica } => {
                let write = &mut state.coordinators[coordinator].write;
                write.asked &= !(1 << replica);
                let version = write.version;
                if apply(&mut state, replica, version) || self.rules == Rules::SupersededCounts {
                    self.acked(&mut state, coordinator, replica);
                } else {
                    let write = &mut state.coordinators[coordinator].write;
                    write.met = write.met.max(state.replicas[replica]);
                }
            }
            Action::ArriveLate { request, replica } => {
                let (version, asked) = &mut state.late[request];
                *asked &= !(1 << replica);
                let version = *version;
                apply(&mut state, replica, version);
            }
            Action::Restamp { coordinator } => {
                let at = &mut state.coordinators[coordinator];
                state.late.push((at.write.version, at.write.asked));
                at.clock = at.clock.max(at.write.met.time) + 1;
                at.write.version = Version { time: at.clock, coordinator: coordinator as u8 };
                at.write.round += 1;
                at.write.asked = ALL;
                if self.rules != Rules::EarlierRoundsCount {
                    at.write.acks = 0;
                }
                at.write.met = Version::default();
            }
        }
        tidy(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Bounds>> {
        vec![
            Property::always(UNSHADOWED, |_, state: &State| !state.shadowed),
            Property::always(READ, |_, state: &State| {
                let stale = state.replicas.iter().filter(|held| **held < state.acknowledged);
                stale.count() < 2
            }),
            Property::sometimes(ANEW, |_, state: &State| {
                state.coordinators.iter().any(|at| at.write.acknowledged && at.write.round > 1)
            }),
            Property::sometimes(GIVEN_UP, |_, state: &State| {
                state.coordinators.iter().any(|at| {
                    let Write { round, acknowledged, met, version, asked, .. } = at.write;
                    round == ROUNDS && !acknowledged && met > version && asked == 0
                })
            }),
        ]
    }
}

/// Two coordinators that write twice each.
const TWO: Bounds = Bounds { rules: Rules::Kept, coordinators: &[(0, 2), (2, 2)], leap: 1 };

/// Three that write once each.
const THREE: Bounds = Bounds { coordinators: &[(0, 1), (1, 1), (3, 1)], ..TWO };

#[test]
fn no_acknowledged_write_is_shadowed_whatever_the_clocks_say() {
    holds("restamp, two coordinators", TWO);
    holds("restamp, three coordinators", THREE);
}

#[test]
fn a_newer_write_taken_for_an_acknowledgement_is_found_to_shadow() {
    breaks("restamp, superseded counts", Bounds { rules: Rules::SupersededCounts, ..TWO }, UNSHADOWED);
}

#[test]
fn acknowledgements_of_another_version_are_found_to_lose_the_write() {
    breaks("restamp, earlier rounds count", Bounds { rules: Rules::EarlierRoundsCount, ..TWO }, READ);
}

#[test]
fn quorums_that_do_not_overlap_are_found_to_shadow() {
    breaks("restamp, W = 1", Bounds { rules: Rules::OneIsEnough, ..TWO }, UNSHADOWED);
}
