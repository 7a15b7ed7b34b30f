//! Which process of a node is the node: a directory that was copied, or put back from an old copy, is not.
//!
//! Each start of a node on its data directory is counted, drawn an id, and remembers the id of the start before it on
//! that directory. Other nodes remember the latest start that they met. So one that follows on it is told from one that
//! began beside it.
//!
//! ```text
//! directory:   1:a ── 2:b ── 3:c ── 4:d      the node: each start follows the one before
//!                       └─── 3:x ── 4:y      a copy that was made while b ran
//! ```
//!
//! Whoever knows `3:c` refuses `3:x`, since two starts have one count; `4:y`, since it follows `x`; and `2:b`, put back
//! from an old copy. Whoever knows `2:b` only takes the first of `3:c` and `3:x` that comes while `b` does not answer.

use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv6Addr},
};
use uuid::Uuid;

/// How many refused starts of a node are remembered. See [`remember`].
pub const MAX_REFUSED: usize = 8;

/// By how much the count leaps where a directory was put back from a backup on purpose: beyond what anybody can know.
pub const LEAP: u64 = 1 << 32;

/// The furthest that a count may be ahead of the known one, or of none: 65,536 leaps that nobody met. No one message
/// takes so many counts that none is left for the node itself.
pub const MOST_AHEAD: u64 = LEAP << 16;

/// A start of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// How many starts there were on the directory, with this one. 0: by a program that does not count them.
    pub count: u64,
    /// Drawn for this start; never nil.
    pub id: Uuid,
    /// The id of the start before it on the directory; nil for the first.
    pub before: Uuid,
}

/// Where a start was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In an earlier life of this process: where is not known any more.
    Kept,
    /// Nobody said.
    Untold,
    /// From this address; of IPv6 the first half, as whoever has one of those has all.
    Address(IpAddr),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Source {
        Source::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address => address,
        })
    }
}

/// The id of a start, and where it was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// What was drawn for that start.
    pub id: Uuid,
    /// Where it was heard of.
    pub from: Source,
}

/// What is known of a node's starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The latest that was taken for the node.
    pub latest: Start,
    /// Some that were not, the oldest first; at most [`MAX_REFUSED`].
    pub refused: Vec<Heard>,
}

impl Known {
    /// Whether this start is remembered as refused. Nil is none.
    pub fn is_refused(&self, id: &Uuid) -> bool {
        !id.is_nil() && self.refused.iter().any(|refused| refused.id == *id)
    }
}

/// What a start is to whoever knows others of the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the one that is known.
    Same,
    /// It follows on what is known: it is the node, if the one that is known is no more.
    Next,
    /// It began beside what is known, on a copy of the directory.
    Copy,
    /// It is older than what is known: its directory was put back from an old copy.
    Old,
    /// It is not told, and one of the node is known. Programs count starts, or do not: one that counted them once goes
    /// on. So none that runs as the node leaves it out: a stranger does, or an older program on an old copy.
    Untold,
    /// Its count is further ahead than a node's can have come.
    Far,
}

/// What a start is (invariant ONE-START). Pure.
pub fn judge(known: &Known, theirs: &Start) -> Standing {
    let latest = &known.latest;
    if theirs.count == 0 || theirs.id.is_nil() {
        return if latest.count == 0 { Standing::Same } else { Standing::Untold };
    }
    if theirs.id == latest.id && theirs.count == latest.count {
        return Standing::Same;
    }
    if theirs.count > latest.count.saturating_add(MOST_AHEAD) {
        return Standing::Far;
    }
    // Nil is the start before the first, and before one that was put back on purpose.
    if known.is_refused(&theirs.id) || known.is_refused(&theirs.before) {
        return Standing::Copy;
    }
    let next = latest.count.saturating_add(1);
    match theirs.count {
        count if count > next || latest.count == 0 => Standing::Next,
        count if count == next && theirs.before == latest.id => Standing::Next,
        count if count >= latest.count => Standing::Copy,
        _ => Standing::Old,
    }
}

/// Remembers a start that was refused, so that none that follows on it is taken for the node.
pub fn refuse(known: &mut Known, start: &Start, from: Source) {
    if start.id.is_nil() || known.is_refused(&start.id) || start.id == known.latest.id {
        return;
    }
    remember(&mut known.refused, Heard { id: start.id, from }, MAX_REFUSED);
}

/// Remembers one more, and at most so many: beyond that the oldest goes of those from where most came. So who draws ids
/// pushes out its own, and not what was heard from elsewhere. What was kept over a start counts as if each came from
/// somewhere else.
pub fn remember(list: &mut Vec<Heard>, heard: Heard, most: usize) {
    list.push(heard);
    while list.len() > most {
        let largest = list.iter().map(|one| alike(list, one)).max();
        let Some(oldest) = list.iter().position(|one| Some(alike(list, one)) == largest) else { return };
        list.remove(oldest);
    }
}

/// How many of a list came from where one did.
fn alike(list: &[Heard], one: &Heard) -> usize {
    match one.from {
        Source::Kept => 1,
        from => list.iter().filter(|other| other.from == from).count(),
    }
}

/// The ids of a list in the order in which they are to be kept, so that who reads them again, and knows no more where
/// each came from, forgets those first that came from where most did.
pub fn in_order(list: &[Heard]) -> Vec<Uuid> {
    let mut ordered: Vec<&Heard> = list.iter().collect();
    ordered.sort_by_key(|one| Reverse(alike(list, one)));
    ordered.into_iter().map(|one| one.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start(count: u64, id: u128, before: u128) -> Start {
        Start { count, id: Uuid::from_u128(id), before: Uuid::from_u128(before) }
    }

    fn knows(latest: Start) -> Known {
        Known { latest, refused: vec![] }
    }

    #[test]
    fn whoever_follows_is_the_node_and_whoever_began_beside_it_is_not() {
        let (b, c, x, y) = (start(2, 2, 1), start(3, 3, 2), start(3, 30, 2), start(4, 40, 30));
        assert_eq!(judge(&Known::default(), &b), Standing::Next, "nothing is known");
        assert_eq!(judge(&knows(b), &b), Standing::Same);
        assert_eq!(judge(&knows(b), &c), Standing::Next);
        assert_eq!(judge(&knows(c), &b), Standing::Old);
        assert_eq!(judge(&knows(c), &x), Standing::Copy);
        assert_eq!(judge(&knows(c), &y), Standing::Copy, "it follows on another one");
        assert_eq!(judge(&knows(c), &start(9, 9, 8)), Standing::Next, "starts between were not met");
    }

    #[test]
    fn who_does_not_count_its_starts_is_the_node_only_while_none_is_known() {
        assert_eq!(judge(&Known::default(), &start(0, 0, 0)), Standing::Same);
        assert_eq!(judge(&knows(start(3, 3, 2)), &start(0, 0, 0)), Standing::Untold);
    }

    #[test]
    fn counts_do_not_run_out_by_one_message() {
        let (c, last) = (start(3, 3, 2), start(u64::MAX, 3, 2));
        assert_eq!(judge(&knows(c), &start(3 + MOST_AHEAD, 9, 0)), Standing::Next, "put back very often");
        assert_eq!(judge(&knows(c), &start(4 + MOST_AHEAD, 9, 0)), Standing::Far);
        assert_eq!(judge(&Known::default(), &last), Standing::Far);
        assert_eq!(judge(&knows(last), &last), Standing::Same);
        assert_eq!(judge(&knows(last), &start(1, 9, 8)), Standing::Old);
        assert_eq!(judge(&knows(last), &start(u64::MAX, 9, 8)), Standing::Copy);
    }

    #[test]
    fn a_start_without_an_id_is_not_remembered_and_no_start_follows_on_it() {
        let mut known = knows(start(3, 3, 2));
        refuse(&mut known, &start(3, 0, 2), Source::Untold);
        assert!(known.refused.is_empty());
        known.refused.push(Heard { id: Uuid::nil(), from: Source::Kept });
        assert_eq!(judge(&known, &start(3 + LEAP, 9, 0)), Standing::Next, "it names none before");
    }

    #[test]
    fn what_follows_on_a_refused_start_is_refused_however_often_it_starts() {
        let mut known = knows(start(3, 3, 2));
        let mut copy = start(3, 100, 2);
        for at in 0..3 * MAX_REFUSED as u128 {
            assert_eq!(judge(&known, &copy), Standing::Copy);
            refuse(&mut known, &copy, Source::Untold);
            copy = start(copy.count + 1, 101 + at, 100 + at);
        }
        assert_eq!(known.refused.len(), MAX_REFUSED);
        refuse(&mut known, &start(3, 3, 2), Source::Untold);
        assert!(!known.is_refused(&Uuid::from_u128(3)), "the node itself is never refused so");
    }

    #[test]
    fn what_comes_from_one_address_pushes_out_nothing_that_came_from_another() {
        let address = |last: u8| Source::from(IpAddr::from([192, 0, 2, last]));
        let mut known = knows(start(3, 3, 2));
        for (at, from) in [Source::Kept, Source::Untold, address(1), Source::Kept].into_iter().enumerate() {
            refuse(&mut known, &start(4, 10 + at as u128, 3), from);
        }
        for at in 0..3 * MAX_REFUSED as u128 {
            refuse(&mut known, &start(4, 100 + at, 3), address(9));
        }
        assert_eq!(known.refused.len(), MAX_REFUSED);
        let last = 99 + 3 * MAX_REFUSED as u128;
        for id in [10, 11, 12, 13, last] {
            assert!(known.is_refused(&Uuid::from_u128(id)), "{id}");
        }
    }

    #[test]
    fn an_address_is_the_same_in_either_notation_and_a_network_of_ipv6_is_one() {
        let source = |address: &str| Source::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::2:3:4:5"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
    }

    proptest! {
        /// A node and a copy of its directory start in any order, and another node meets each start as it comes.
        #[test]
        fn no_copy_of_a_directory_is_taken_for_the_node_once_its_next_start_was(
            copied_at in 1u64..4,
            turns in proptest::collection::vec(any::<bool>(), 1..24),
        ) {
            let mut original = start(0, 0, 0);
            let mut id = 0;
            let mut next = |of: Start| {
                id += 1;
                start(of.count + 1, id, of.id.as_u128())
            };
            let mut known = Known::default();
            for _ in 0..copied_at {
                original = next(original);
                prop_assert_eq!(judge(&known, &original), Standing::Next);
                known.latest = original;
            }
            let mut copy = original;
            // The node itself starts first after the copy was made.
            original = next(original);
            prop_assert_eq!(judge(&known, &original), Standing::Next);
            known.latest = original;
            for copys_turn in turns {
                if copys_turn {
                    copy = next(copy);
                    prop_assert_ne!(judge(&known, &copy), Standing::Next);
                    prop_assert_ne!(judge(&known, &copy), Standing::Same);
                    refuse(&mut known, &copy, Source::Untold);
                } else {
                    original = next(original);
                    prop_assert_eq!(judge(&known, &original), Standing::Next);
                    known.latest = original;
                }
            }
        }
    }
}
