//! An arc changes hands (invariants JOINT-QUORUM, ONE-EPOCH, FENCED, OWNERS-FIRST).
//!
//! One key of an arc whose replicas O become NW and may become O again, with N = 3, W = R = 2. Each step is an epoch:
//! joint, where writes and reads need a quorum of both sets, then either NW alone, once all new replicas have copied
//! from N - W + 1 of the old ones since it is joint, or O alone. Nodes learn epochs late and may miss some. A node that
//! no longer holds the arc offers what it stores to the owners and forgets it.
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
//! replaced (770,664). Larger ones hold too, and take minutes: two versions in two attempts where two are replaced
//! (23 M), two attempts over four epochs (1.6 M), three over three (2.8 M).
//!
//! Left out: hints and sync, which add nothing that attempts do not; who decides epochs ([`super::register`]); purged
//! tombstones and what a new replica had before ([`super::floor`]).

mod state;
mod steps;

use crate::{Mask, breaks, holds};

const SEEN: &str = "every quorum read returns what was acknowledged before it began, or newer";
const STORED: &str = "what a node has stored, some node stores";
const SWITCHED: &str = "an arc changes hands after a write was acknowledged";
const FORGOTTEN: &str = "a node may forget what all owners took from it";
const BACK: &str = "a write is acknowledged after a rollback";

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Kept,
    /// A new replica is ready when it has copied from one old replica.
    OneSource,
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
    old: Mask,
    new: Mask,
    epochs: usize,
    /// Epochs in which the arc stays joint and another one changes.
    others: usize,
    versions: usize,
    attempts: usize,
    /// Pairs of nodes that are in the same sets always.
    alike: &'static [(usize, usize)],
}

/// One replica of three is replaced, and may be so again the other way.
const REPLACE: Bounds = Bounds {
    rules: Rules::Kept,
    old: 0b0_0111,
    new: 0b0_1011,
    epochs: 3,
    others: 0,
    versions: 1,
    attempts: 1,
    alike: &[(0, 1)],
};

/// Two of three are replaced.
const MOVE: Bounds = Bounds { new: 0b1_1001, epochs: 4, alike: &[(1, 2), (3, 4)], ..REPLACE };

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
