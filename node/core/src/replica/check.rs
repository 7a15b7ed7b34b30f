//! Whether a question may be answered by this node under its ring. Pure.

use crate::{peer::failure, ring::arcs_of};
use god_proto::{
    MAX_VALUE,
    ids::{ArcId, Epoch, NodeId},
    peer::{self, Cause, Failure},
    position::{MAX_POSITION, Position, PositionRange},
    record::Entry,
    ring::{Ring, RingArc},
};
use std::sync::Arc;

/// The ring under which a question is asked and answered.
pub(super) struct Touch {
    pub me: NodeId,
    pub ring: Arc<Ring>,
    /// The epoch of the caller's ring.
    pub asked: Epoch,
    /// The latest epoch in which what it asks about changed, by that ring; 0: it asks by the whole of it.
    pub arcs: Epoch,
    /// Both rings have the same of an arc that did not change since.
    pub common: Epoch,
}

/// The refusal of another epoch.
pub(super) fn stale(mine: u64, theirs: u64) -> Failure {
    let message = format!("this node's ring is of epoch {mine}, the caller's of epoch {theirs}");
    Failure { epoch: mine, ..failure(Cause::StaleEpoch, message) }
}

impl Touch {
    fn stale(&self) -> Failure {
        stale(self.ring.epoch().0, self.asked.0)
    }

    /// Whether caller and node have one and the same ring.
    fn is_same(&self) -> bool {
        self.asked == self.ring.epoch()
    }

    /// An arc, if the caller has the same of it (ARC-EPOCH). `None`: no arc is there by this node's ring.
    fn agreed<'a>(&self, arc: Option<&'a RingArc>) -> Result<Option<&'a RingArc>, Failure> {
        match arc {
            Some(arc) if arc.changed <= self.common => Ok(Some(arc)),
            None if self.is_same() => Ok(None),
            _ => Err(self.stale()),
        }
    }

    /// Whether the caller has the same of all arcs that a write touches. Cost: nothing under the same ring.
    pub(super) fn agrees(&self, write: &peer::Write) -> Result<(), Failure> {
        if self.is_same() {
            return Ok(());
        }
        write.entries.iter().try_for_each(|entry| {
            self.agreed(self.ring.arc_at(&Position::from_bytes(entry.position.clone()))).map(drop)
        })
    }

    /// Whether this node holds what stands at a position.
    pub(super) fn holds(&self, position: &Position) -> Result<&RingArc, Failure> {
        if position.as_bytes().len() > MAX_POSITION {
            return Err(failure(Cause::Invalid, "a position is longer than any key's"));
        }
        match self.agreed(self.ring.arc_at(position))? {
            Some(arc) if Ring::holds(arc, self.me) => Ok(arc),
            Some(arc) => Err(failure(Cause::NotReplica, format!("node {} holds no copy of {arc}", self.me))),
            None => Err(failure(Cause::NotReplica, "no keyspace is at a position")),
        }
    }

    /// Whether each arc that a write touches was this node's before, or is one for which it has a promise by now.
    /// Until then it would take what all old replicas have promised to refuse. Cost: nothing while no arc moves.
    pub(super) fn has_promises(
        &self,
        write: &peer::Write,
        mut has_promise: impl FnMut(&RingArc) -> bool,
    ) -> bool {
        let arrives = |arc: &RingArc| arc.next.is_some() && !arc.replicas.contains(&self.me);
        if !self.ring.is_moving() {
            return true;
        }
        write.entries.iter().all(|entry| {
            // What is nowhere is refused later.
            let arc = self.ring.arc_at(&Position::from_bytes(entry.position.clone()));
            arc.is_none_or(|arc| !arrives(arc) || has_promise(arc))
        })
    }

    /// Whether an entry may be written here; gives its arc.
    pub(super) fn writable(&self, entry: &Entry) -> Result<ArcId, Failure> {
        let arc = self.holds(&entry.position)?;
        let record = &entry.record;
        if record.value.len() > MAX_VALUE {
            let message = format!("a value has {} bytes; the most is {MAX_VALUE}", record.value.len());
            return Err(failure(Cause::Invalid, message));
        }
        if record.version.stamped().node.0 == 0 {
            return Err(failure(Cause::Invalid, "a version was stamped by no node"));
        }
        // EMPTY-MOVES-FREE: the arcs of a keyspace that is not live may change hands without their data.
        if !self.ring.keyspace_by_id(arc.keyspace).is_some_and(|keyspace| keyspace.live) {
            return Err(failure(Cause::Invalid, format!("keyspace {} is not open for writes", arc.keyspace)));
        }
        Ok(arc.id)
    }

    /// A range that this node holds all of; `as_stored`: any.
    pub(super) fn range(
        &self,
        range: Option<peer::Range>,
        as_stored: bool,
    ) -> Result<PositionRange, Failure> {
        let range = range.ok_or_else(|| failure(Cause::Invalid, "there is no range"))?;
        let range =
            PositionRange { start: Position::from_bytes(range.start), end: Position::from_bytes(range.end) };
        if range.is_empty() {
            return Err(failure(Cause::Invalid, "the range is empty"));
        }
        if as_stored {
            // Whose it is is asked about all that is stored, by the whole ring.
            return if self.is_same() { Ok(range) } else { Err(self.stale()) };
        }
        let arcs = arcs_of(&self.ring, &range);
        let all = |what: &dyn Fn(&RingArc) -> bool| arcs.is_some_and(|arcs| arcs.iter().all(what));
        if !self.is_same() && !all(&|arc| arc.changed <= self.common) {
            return Err(self.stale());
        }
        match all(&|arc| Ring::holds(arc, self.me)) {
            true => Ok(range),
            false => Err(not_all_of_range(self.me)),
        }
    }
}

/// The refusal of what is asked of all of a range by a node that holds part of it, or none.
pub(crate) fn not_all_of_range(me: NodeId) -> Failure {
    failure(Cause::NotReplica, format!("node {me} does not hold all of the range"))
}
