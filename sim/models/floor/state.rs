//! What there is: replicas, writes, a read, and a floor.

use crate::{Members, nodes, swap};

pub const NODES: usize = 4;
/// The fourth node, which takes the third one's place.
pub const NEW: usize = 3;
pub const BEFORE: Members = 0b0111;
pub const AFTER: Members = 0b1011;
pub const QUORUM: u32 = 2;
/// N - W + 1.
pub const SOURCES: u32 = 2;
pub const VERSIONS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    NotBegun,
    Value,
    Tombstone,
    /// The deletion that follows from the record right below it, which expires.
    End,
}

impl Kind {
    pub fn is_deletion(self) -> bool {
        matches!(self, Kind::Tombstone | Kind::End)
    }
}

/// Whose clock says that the record that expires is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Over {
    Nobodys,
    Somebodys,
    Everybodys,
}

/// The record that expires, where one does, and its end.
pub const EXPIRES: usize = 1;
pub const END: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    Before,
    Joint,
    After,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// The version that it stores; 0: nothing.
    pub stored: usize,
    pub promised: usize,
    pub floor: usize,
}

/// A read that has been answered by some, and not by enough yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Read {
    /// The newest version that was acknowledged when it began.
    pub after: usize,
    pub answered: Members,
    pub newest: usize,
    /// Who set a floor since it began.
    pub floored: Members,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    pub stage: Stage,
    pub replicas: [Replica; NODES],
    pub kinds: [Kind; VERSIONS + 1],
    /// By version: who has applied it in this stage.
    pub acks: [Members; VERSIONS + 1],
    /// The newest version that was acknowledged.
    pub acknowledged: usize,
    /// Versions that some replica sent another one to make them equal.
    pub pulled: Members,
    /// The highest floor that was decided, and by whom.
    pub decided: usize,
    pub deciders: Members,
    /// Of the new replica, in this stage.
    pub inherited: bool,
    pub copied: Members,
    pub read: Option<Read>,
    pub over: Over,
    pub came_back: bool,
    pub lost: bool,
}

impl State {
    pub fn members(&self) -> Members {
        match self.stage {
            Stage::Before => BEFORE,
            Stage::Joint => BEFORE | AFTER,
            Stage::After => AFTER,
        }
    }

    pub fn enough(&self, who: Members) -> bool {
        let quorum = |set: Members| (who & set).count_ones() >= QUORUM;
        (self.stage == Stage::After || quorum(BEFORE)) && (self.stage == Stage::Before || quorum(AFTER))
    }

    pub fn of(&self, who: Members) -> impl Iterator<Item = &Replica> {
        nodes(who).map(|node| &self.replicas[node])
    }

    /// What a read that has been answered by enough tells its reader.
    pub fn check(&mut self, read: Read) {
        let Read { after, newest, .. } = read;
        // What is over by every clock is missing for all, whatever of it still stands where.
        if newest >= after || self.over == Over::Everybodys && after <= END {
            return;
        }
        let deleted_later = self.kinds[after..].iter().any(|kind| kind.is_deletion());
        match (self.kinds[newest], self.kinds[after]) {
            (Kind::Value, deleted) if deleted.is_deletion() => self.came_back = true,
            (Kind::Value, _) => self.lost = true,
            _ => self.lost |= !deleted_later,
        }
    }
}
/// Makes one of all states that differ in nothing that matters.
pub fn tidy(state: &mut State) {
    for version in 1..=state.acknowledged {
        state.acks[version] = 0;
    }
    for version in 1..=VERSIONS {
        let members = state.members();
        let is_held = state.of(members).any(|replica| replica.stored == version);
        if is_held && state.stage != Stage::Joint && state.of(members).all(|it| it.promised >= version) {
            state.pulled |= 1 << version;
        }
    }
}

/// The state with two nodes renamed.
pub fn renamed(state: &State, a: usize, b: usize) -> State {
    let mut other = *state;
    let swap = |mask: &mut Members| swap(mask, a, b);
    other.replicas.swap(a, b);
    other.acks.iter_mut().for_each(swap);
    swap(&mut other.deciders);
    swap(&mut other.copied);
    if let Some(read) = &mut other.read {
        swap(&mut read.answered);
        swap(&mut read.floored);
    }
    other
}
