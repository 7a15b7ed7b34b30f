//! An arc changes hands (invariants JOINT-QUORUM, ONE-EPOCH, FENCED, OWNERS-FIRST).
//!
//! One key of an arc whose replicas O become NW and may become O again, with N = 3, W = R = 2, or with as many copies
//! more or less as the bounds say. Each step is an epoch: joint, where writes and reads need a quorum of both sets,
//! then either NW alone, once all new replicas (all of NW, where it has another size) have copied from
//! N - min(W, R) + 1 of the old ones since it is joint, or O alone. Nodes learn epochs late and may miss some. A node
//! that no longer holds the arc offers what it stores to the owners and forgets it.
//!
//! An attempt is a write that a coordinator sends at its epoch: the first one of a version, a second one at a newer
//! epoch, or the repair of a reader that found the version somewhere and returns it only once a quorum has it. So what
//! is "acknowledged" here covers what was read.
//!
//! What makes the states fewer, without hiding any that could show more:
//! - An answer arrives as it is given: what is acknowledged earlier is demanded earlier.
//! - A replica applies a request as it admits it, or admits it as it learns the next epoch and applies it later.
//! - A new replica reads a source and writes what it read at once: nothing depends on it before it is ready.
//! - A read lasts as long as it likes: `stale` has whoever ever answered too little since a version was acknowledged.
//! - Messages are lost by never arriving.
//!
//! Bounds: two versions in two attempts over three epochs (902,114 states); one attempt over five, in which the arc may
//! come back, and one of which may change another arc (767,960); one over four, where two of three replicas are
//! replaced (770,664); one over five, where three copies become two (48,863) or four (1,351,373), and three again.
//! Larger ones hold too, and take longer: five copies that become three (1.8 M), two versions in two attempts where two
//! are replaced (23 M), two attempts over four epochs (1.6 M), three over three (2.8 M).
//!
//! Left out: hints and sync, which add nothing that attempts do not; who decides epochs ([`super::register`]); purged
//! tombstones and what a new replica had before ([`super::floor`]).

mod state;
mod steps;

use crate::{breaks, holds};
use state::{Set, Sets};

const SEEN: &str = "every quorum read returns what was acknowledged before it began, or newer";
const STORED: &str = "what a node has stored, some node stores";
const SWITCHED: &str = "an arc changes hands after a write was acknowledged";
const FORGOTTEN: &str = "a node may forget what all owners took from it";
const BACK: &str = "a write is acknowledged after a rollback";

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Kept,
    /// A replica is ready when it has copied from as many old replicas as a write may have missed.
    OneSource,
    /// So many old replicas are copied from that a write of before cannot have missed all: those left may be enough for
    /// a read that does not know that the arc has changed hands.
    ReadsForgotten,
    /// An old replica is copied from that has yet to hear that the arc is joint.
    NoBarrier,
    /// Where the next set has another size, only those that are new to it copy.
    NewOnly,
    /// A read of a joint arc is answered by a quorum of the old set, and nobody else is asked whether the ring is still
    /// the same.
    OldReads,
    /// Who said to be ready in one transition counts as ready in the next one: a driver acts on what was so under an
    /// older document.
    OldEvidence,
    /// A joint arc switches when one of its new replicas is ready.
    OneReady,
    /// A write of a joint arc is acknowledged by a quorum of the old set.
    OldQuorum,
    /// A source is read while a write of an older epoch is under way in it.
    NotFenced,
    /// A replica takes requests of epochs before its own.
    OlderEpochs,
    /// What was copied in one transition counts in the next one.
    SessionKept,
    /// Who does not hold the arc any more forgets it before the owners have what it stores.
    OwnersLast,
}

/// What bounds the states.
struct Bounds {
    rules: Rules,
    sets: Sets,
    epochs: usize,
    /// Epochs in which the arc stays joint and another one changes.
    others: usize,
    versions: usize,
    attempts: usize,
    /// Pairs of nodes that are in the same sets always.
    alike: &'static [(usize, usize)],
}

/// N = 3, W = R = 2.
const fn two_of(nodes: u8) -> Set {
    Set { nodes, write: 2, read: 2 }
}

/// One replica of three is replaced, and may be so again the other way.
const REPLACE: Bounds = Bounds {
    rules: Rules::Kept,
    sets: Sets { old: two_of(0b0_0111), new: two_of(0b0_1011) },
    epochs: 3,
    others: 0,
    versions: 1,
    attempts: 1,
    alike: &[(0, 1)],
};

/// Two of three are replaced.
const MOVE: Bounds = Bounds {
    sets: Sets { new: two_of(0b1_1001), ..REPLACE.sets },
    epochs: 4,
    alike: &[(1, 2), (3, 4)],
    ..REPLACE
};

/// One copy less, and another one where that is undone: W goes from 2 of 3 to 2 of 2, and a read asks one.
const NARROW: Bounds = Bounds {
    sets: Sets { old: two_of(0b0_0111), new: Set { nodes: 0b0_0011, write: 2, read: 1 } },
    alike: &[(0, 1)],
    ..REPLACE
};

/// One copy more: W goes from 2 of 3 to 4 of 4, and a read asks one.
const WIDEN: Bounds = Bounds {
    sets: Sets { old: two_of(0b0_0111), new: Set { nodes: 0b0_1111, write: 4, read: 1 } },
    alike: &[(0, 1), (1, 2), (0, 1)],
    ..REPLACE
};

/// Of five copies, of which three hold a write, three stay, of which two hold one.
const HALVE: Bounds = Bounds {
    sets: Sets { old: Set { nodes: 0b1_1111, write: 3, read: 3 }, new: two_of(0b0_0111) },
    alike: &[(0, 1), (1, 2), (0, 1), (3, 4)],
    ..REPLACE
};

#[test]
fn what_was_acknowledged_is_read_while_a_replica_is_replaced() {
    holds("transition, a replica is replaced", Bounds { versions: 2, attempts: 2, ..REPLACE });
}

#[test]
fn what_was_acknowledged_is_read_while_a_replica_is_replaced_and_comes_back() {
    holds("transition, a replica comes back", Bounds { epochs: 5, others: 1, ..REPLACE });
}

#[test]
fn what_was_acknowledged_is_read_while_two_replicas_are_replaced() {
    holds("transition, two replicas are replaced", MOVE);
}

#[test]
fn what_was_acknowledged_is_read_while_fewer_copies_are_called_off_and_asked_for_again() {
    holds("transition, fewer copies and back", Bounds { epochs: 5, ..NARROW });
}

#[test]
fn what_was_acknowledged_is_read_while_more_copies_are_called_off_and_asked_for_again() {
    holds("transition, more copies and back", Bounds { epochs: 5, ..WIDEN });
}

#[test]
fn copying_to_new_replicas_alone_is_found_to_lose_writes_where_there_are_fewer_copies() {
    breaks("transition, new only, fewer", Bounds { rules: Rules::NewOnly, ..NARROW }, SEEN);
    breaks("transition, new only, five become three", Bounds { rules: Rules::NewOnly, ..HALVE }, SEEN);
}

#[test]
fn copying_to_new_replicas_alone_is_found_to_lose_writes_where_there_are_more_copies() {
    breaks("transition, new only, more", Bounds { rules: Rules::NewOnly, ..WIDEN }, SEEN);
}

#[test]
fn copying_from_too_few_is_found_to_lose_writes_where_the_number_of_copies_changes() {
    breaks("transition, one source, fewer", Bounds { rules: Rules::OneSource, ..NARROW }, SEEN);
    breaks("transition, one source, more", Bounds { rules: Rules::OneSource, ..WIDEN }, SEEN);
}

#[test]
fn copying_from_as_many_as_a_write_may_have_missed_is_found_to_leave_stale_reads() {
    breaks("transition, reads forgotten", Bounds { rules: Rules::ReadsForgotten, epochs: 5, ..WIDEN }, SEEN);
}

#[test]
fn copying_from_who_does_not_know_that_the_arc_is_joint_is_found_to_lose_writes() {
    breaks("transition, no barrier", Bounds { rules: Rules::NoBarrier, ..REPLACE }, SEEN);
}

#[test]
fn reads_that_nobody_of_the_new_set_confirms_are_found_to_be_stale() {
    breaks("transition, reads of the old set", Bounds { rules: Rules::OldReads, ..REPLACE }, SEEN);
}

#[test]
fn what_was_ready_before_a_rollback_is_found_to_lose_writes() {
    breaks("transition, old evidence", Bounds { rules: Rules::OldEvidence, epochs: 5, ..REPLACE }, SEEN);
    breaks(
        "transition, old evidence, fewer",
        Bounds { rules: Rules::OldEvidence, epochs: 5, ..NARROW },
        SEEN,
    );
}

#[test]
fn copying_from_one_replica_is_found_to_lose_writes() {
    breaks("transition, one source", Bounds { rules: Rules::OneSource, ..REPLACE }, SEEN);
}

#[test]
fn switching_to_a_set_that_is_not_ready_is_found_to_lose_writes() {
    breaks("transition, one ready", Bounds { rules: Rules::OneReady, ..MOVE }, SEEN);
}

#[test]
fn joint_writes_to_the_old_set_alone_are_found_to_be_lost() {
    breaks("transition, a quorum of the old set", Bounds { rules: Rules::OldQuorum, ..REPLACE }, SEEN);
}

#[test]
fn copying_without_a_fence_is_found_to_lose_writes() {
    breaks("transition, not fenced", Bounds { rules: Rules::NotFenced, ..REPLACE }, SEEN);
}

#[test]
fn requests_of_older_epochs_are_found_to_lose_writes() {
    breaks("transition, older epochs", Bounds { rules: Rules::OlderEpochs, ..REPLACE }, SEEN);
}

#[test]
fn what_was_copied_before_a_rollback_is_found_to_lose_writes() {
    breaks("transition, session kept", Bounds { rules: Rules::SessionKept, epochs: 5, ..REPLACE }, SEEN);
}

#[test]
fn forgetting_before_the_owners_have_it_is_found_to_lose_writes() {
    breaks("transition, owners last", Bounds { rules: Rules::OwnersLast, ..REPLACE }, STORED);
}
