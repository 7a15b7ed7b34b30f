//! When tombstones may be purged: the repaired floor of an arc.
//!
//! One key, N = 3, W = R = 2. A floor T is set in steps. Every replica promises, durably, to take nothing at or below T
//! any more, from whomever. When all have promised, they pull from each other what they lack at or below T; a pull
//! passes the promise, never a floor that is set. When all are equal there, the floor is decided, and each sets it at
//! its own time; from then on it may purge tombstones at or below it, after the reads that were under way have ended.
//!
//! The arc may change hands: its third replica is replaced by a fourth node, which may store what it had long ago. That
//! node first takes over a promise from an old replica and forgets what it has at or below it, once in a transition,
//! and answers nobody before; then it copies from N - W + 1 old replicas, past the promise. No floor is decided
//! meanwhile.
//!
//! Whoever has a write may deliver it to who holds the arc, any number of times and however late: its coordinator, a
//! hint, read repair, sync, or a node that holds the arc no more and offers what it stores. A replica that is away is
//! one to which nothing happens for a while. Only a write's own coordinator stamps it anew where it is refused for its
//! version: that is a newer write here.
//!
//! What makes the states fewer, without hiding any that could show more:
//! - An answer arrives as it is given: what is acknowledged earlier is demanded earlier.
//! - Promises last, so a floor that several drivers try is one that is tried once.
//! - What was pulled may arrive at any replica, as long as the epoch lasts.
//! - Replicas are compared at one moment: what is equal at or below a floor that all have promised stays so.
//!
//! Bounds: three versions, each a value or a tombstone, and two floors where the arc stays (260,198 states); two
//! versions and two floors where it changes hands, after any number of rollbacks (1,008,920). Larger ones hold too, and
//! take minutes: three versions and one floor where it changes hands (8.8 M), three and two (41 M). Where a record
//! expires: three versions and two floors where the arc stays (496,724), and the record, its end and one floor where it
//! changes hands (733,911).
//!
//! A record may expire: the first version then is one that does, and the second its end, which whoever comes by puts
//! there once a clock says that it is over. It counts as told when so many hold it that every read meets one. As it is
//! as old as its record, it is taken at or below a promise where the record stands, and acknowledged without being
//! stored where the floor is set. It is purged once every clock says that the record is over.
//!
//! Left out: epochs that are learned late ([`super::transition`]), clocks and stamping anew ([`super::restamp`]), who
//! leaves and comes back to the same arc twice, clears of sub-trees, two records that expire.

mod state;
mod steps;

use crate::{breaks, holds};

const GONE: &str = "nothing that was deleted comes back";
const SEEN: &str = "what was acknowledged is read";
const PURGED: &str = "a tombstone is purged everywhere";
const FLOORED: &str = "the highest floor is set everywhere, after all moves";

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Kept,
    /// Tombstones are purged when they are old.
    PurgedByAge,
    /// A floor is decided without promises; it is one from when it is set.
    NotPromised,
    /// A floor is decided without the replica that is away.
    OneAway,
    /// A new replica takes over no promise.
    NotInherited,
    /// A new replica keeps what it had.
    OldKept,
    /// A new replica takes writes before it has taken over a promise.
    WritesFirst,
    /// A new replica answers reads before it has forgotten what it had.
    ReadsFirst,
    /// A new replica that restarts takes over a promise again, and forgets again.
    InheritedAgain,
    /// What was pulled is taken at or below a floor that is set.
    FloorPassed,
    /// What was pulled in one epoch is taken in another one.
    PullsKept,
    /// A floor is promised and decided by the old replicas while the arc changes hands: tombstones are purged then.
    RaisedMeanwhile,
    /// Tombstones are purged as soon as the floor is set.
    ReadsPassed,
    /// The end of a record is purged while a clock may say that it is not over.
    EndsPurgedEarly,
    /// A replica that does not hold a record acknowledges its end at or below a promise.
    EndsAckedUnderPromise,
    /// A key is told to have expired before a quorum holds the end.
    ToldEarly,
}

/// What bounds the states.
struct Bounds {
    rules: Rules,
    /// Versions up to this one are written, each once, in any order. The first was long ago.
    versions: usize,
    /// The floors that are tried.
    floors: &'static [usize],
    /// Whether the arc changes hands.
    moves: bool,
    /// Whether the first version is a record that expires, and the second its end.
    ends: bool,
    alike: &'static [(usize, usize)],
}

/// The arc stays where it is.
const STAYS: Bounds = Bounds {
    rules: Rules::Kept,
    versions: 2,
    floors: &[2],
    moves: false,
    ends: false,
    alike: &[(0, 1), (1, 2), (0, 1)],
};

/// Its third replica is replaced.
const MOVES: Bounds = Bounds { moves: true, alike: &[(0, 1)], ..STAYS };

#[test]
fn nothing_that_was_deleted_comes_back_and_nothing_acknowledged_is_lost() {
    holds("floor, an arc that stays", Bounds { versions: 3, floors: &[2, 3], ..STAYS });
}

#[test]
fn nothing_that_was_deleted_comes_back_while_an_arc_changes_hands() {
    holds("floor, an arc that changes hands", Bounds { floors: &[2, 3], ..MOVES });
}

/// A record expires.
const ENDS: Bounds = Bounds { versions: 3, floors: &[2, 3], ends: true, ..STAYS };

#[test]
fn what_was_told_to_have_expired_does_not_come_back() {
    holds("floor, a record that expires", ENDS);
}

#[test]
fn what_was_told_to_have_expired_does_not_come_back_while_an_arc_changes_hands() {
    holds("floor, a record that expires and an arc that changes hands", Bounds { ends: true, ..MOVES });
}

#[test]
fn the_end_of_a_record_that_is_purged_early_is_found_to_bring_it_back() {
    breaks("floor, ends purged early", Bounds { rules: Rules::EndsPurgedEarly, ..ENDS }, GONE);
}

#[test]
fn the_end_of_a_record_that_is_acknowledged_where_it_is_not_stored_is_found_to_bring_it_back() {
    breaks(
        "floor, ends acknowledged under a promise",
        Bounds { rules: Rules::EndsAckedUnderPromise, ..ENDS },
        GONE,
    );
}

#[test]
fn what_is_told_to_have_expired_too_early_is_found_to_come_back() {
    breaks("floor, told early", Bounds { rules: Rules::ToldEarly, ..ENDS }, GONE);
}

#[test]
fn purging_by_age_is_found_to_bring_values_back() {
    breaks("floor, purged by age", Bounds { rules: Rules::PurgedByAge, ..STAYS }, GONE);
}

#[test]
fn a_floor_without_promises_is_found_to_bring_values_back() {
    breaks("floor, not promised", Bounds { rules: Rules::NotPromised, ..STAYS }, GONE);
}

#[test]
fn a_floor_without_the_replica_that_is_away_is_found_to_bring_values_back() {
    breaks("floor, one away", Bounds { rules: Rules::OneAway, ..STAYS }, GONE);
}

#[test]
fn a_pull_below_the_floor_is_found_to_bring_values_back() {
    breaks("floor, floor passed", Bounds { rules: Rules::FloorPassed, ..STAYS }, GONE);
}

#[test]
fn purging_under_a_read_is_found_to_bring_values_back() {
    breaks("floor, reads passed", Bounds { rules: Rules::ReadsPassed, ..STAYS }, GONE);
}

#[test]
fn a_new_replica_without_the_promise_is_found_to_bring_values_back() {
    breaks("floor, not inherited", Bounds { rules: Rules::NotInherited, ..MOVES }, GONE);
}

#[test]
fn a_new_replica_that_keeps_what_it_had_is_found_to_bring_values_back() {
    breaks("floor, old kept", Bounds { rules: Rules::OldKept, ..MOVES }, GONE);
}

#[test]
fn a_new_replica_that_takes_writes_before_the_promise_is_found_to_lose_them() {
    breaks("floor, writes first", Bounds { rules: Rules::WritesFirst, ..MOVES }, GONE);
}

#[test]
fn a_new_replica_that_answers_before_it_has_forgotten_is_found_to_bring_values_back() {
    breaks("floor, reads first", Bounds { rules: Rules::ReadsFirst, ..MOVES }, GONE);
}

#[test]
fn a_new_replica_that_forgets_again_is_found_to_lose_writes() {
    breaks("floor, inherited again", Bounds { rules: Rules::InheritedAgain, ..MOVES }, GONE);
}

#[test]
fn a_pull_of_another_epoch_is_found_to_bring_values_back() {
    breaks("floor, pulls kept", Bounds { rules: Rules::PullsKept, ..MOVES }, GONE);
}

#[test]
fn purging_while_an_arc_changes_hands_is_found_to_bring_values_back() {
    breaks("floor, raised meanwhile", Bounds { rules: Rules::RaisedMeanwhile, ..MOVES }, GONE);
}
