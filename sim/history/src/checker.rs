//! Judges histories: did the store keep its word?
//!
//! Both checkers only use what clients saw. They run over simulated clusters and over real processes alike.

use crate::history::{Ask, Event, Survey, Token, Told};
use god_proto::version::Version;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A promise that was broken, with the events that show it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which promise, and how.
    pub problem: String,
    /// The events, in the order of their calls.
    pub events: Vec<Event>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.problem)?;
        self.events.iter().try_for_each(|event| writeln!(f, "  {event}"))
    }
}

/// Checks that each key behaved as one register: every read sees the newest write that was acknowledged before it, or
/// a newer one; what one read saw, no later read unsees; nothing appears that nobody wrote or that was rejected.
///
/// Since every committed write and every read carries a version, the versions' order is the only candidate for the
/// order of the register's operations, and checking that it respects real time is enough, and exact: a history passes
/// if and only if it is linearizable in that order (Herlihy and Wing 1990; Gibbons and Korach 1997, section 4, for
/// why a known order makes this easy). One thing is granted: a write that was stamped anew because it met a newer one
/// counts as written once a stamp, each time before its answer (docs/ARCHITECTURE.md, NO-SHADOW). Cost: O(n log n).
pub fn check_register(history: &[Event]) -> Result<(), Violation> {
    let mut by_key: BTreeMap<u32, Vec<&Event>> = BTreeMap::new();
    for event in history {
        by_key.entry(event.key).or_default().push(event);
    }
    by_key.into_iter().try_for_each(|(key, events)| check_key(key, &events))
}

/// What an operation proves: that this version was the newest at some moment between its call and its answer.
struct Witness<'a> {
    version: Version,
    event: &'a Event,
}

/// How long before a read a deletion must have been asked for to be forgotten by then: much less than it takes.
const PURGE_US: u64 = 500_000;

/// How far clocks may be from the one of the history.
pub const SKEW_US: u64 = 1_500_000;

/// What may have been deleted, and the deletion forgotten, when a read found nothing.
enum Purged {
    /// By the newest deletion that is known, or by none.
    By(Version),
    /// By one that nobody knows the version of.
    Perhaps,
}

/// A deletion that all replicas have is forgotten when it is old. Nothing found then proves as much as finding it.
fn purged(events: &[&Event], read: &Event) -> Purged {
    let before = |event: &&&Event| event.called + PURGE_US <= read.answered;
    let lent = |token| {
        events.iter().any(|event| match event.ask {
            Ask::Lend(of, ms) => of == token && event.called + ms * 1_000 <= read.answered + SKEW_US,
            _ => false,
        })
    };
    let (mut newest, mut under_way) = (Version::ZERO, Version::ZERO);
    for event in events.iter().filter(before) {
        let deleted = match (event.told, event.ask) {
            (Told::Unknown, Ask::Delete(_) | Ask::Lend(..)) => return Purged::Perhaps,
            (Told::Committed(version), Ask::Delete(_)) | (Told::Missing(Some(version)), _) => version,
            // Its time is up, and the deletion that followed may be as old as it is.
            (Told::Committed(version), Ask::Lend(_, ms))
                if event.called + ms * 1_000 <= read.answered + SKEW_US =>
            {
                version.expiry()
            }
            (Told::Found(token, version), _) if lent(token) => version.expiry(),
            _ => continue,
        };
        let known = if event.answered < read.called { &mut newest } else { &mut under_way };
        *known = deleted.max(*known);
    }
    // It may have come after the read.
    if under_way > newest { Purged::Perhaps } else { Purged::By(newest) }
}

fn check_key(key: u32, events: &[&Event]) -> Result<(), Violation> {
    let violation = |problem: String, shown: &[&Event]| {
        let mut events: Vec<Event> = shown.iter().map(|event| **event).collect();
        events.sort_by_key(|event| event.called);
        Err(Violation { problem: format!("key {key}: {problem}"), events })
    };
    let writes: BTreeMap<Token, &Event> =
        events.iter().filter_map(|event| Some((event.ask.value()?, *event))).collect();
    // Who lent what ended by a version that was read.
    let lender = |end: Version| {
        let of =
            |event: &&&Event| event.told == Told::Committed(end.stamped()) && event.ask.value().is_some();
        let read = events.iter().find_map(|event| match event.told {
            Told::Found(token, version) if version == end.stamped() => writes.get(&token).copied(),
            _ => None,
        });
        events.iter().find(of).copied().or(read)
    };

    let mut writer_of: BTreeMap<Version, (&Event, Option<Token>)> = BTreeMap::new();
    let mut witnesses = Vec::new();
    for event in events {
        let (version, value) = match (event.told, event.ask) {
            (Told::Committed(version), Ask::Put(token) | Ask::Lend(token, _)) => (version, Some(token)),
            (Told::Missing(Some(version)), _) if version.is_expiry() => match lender(version) {
                Some(write)
                    if !matches!(write.ask, Ask::Lend(_, ms)
                        if write.called + ms * 1_000 <= event.answered + SKEW_US) =>
                {
                    return violation("a value expired before its time".to_owned(), &[write, event]);
                }
                _ => (version, None),
            },
            (Told::Committed(version) | Told::Missing(Some(version)), _) => (version, None),
            (Told::Found(token, version), _) => {
                let Some(write) = writes.get(&token) else {
                    return violation(format!("a read found {token}, which nobody wrote"), &[event]);
                };
                if write.told == Told::Rejected {
                    return violation(
                        format!("a read found {token}, whose write was rejected"),
                        &[write, event],
                    );
                }
                if write.called > event.answered {
                    return violation(format!("a read found {token} before it was written"), &[write, event]);
                }
                // Below is fine: a write that met a newer one is stamped anew, and its first stamp may have been seen.
                if let Told::Committed(written) = write.told
                    && written < version
                {
                    return violation(
                        format!("{token} was committed as {written} and read as {version}"),
                        &[write, event],
                    );
                }
                (version, Some(token))
            }
            (Told::Missing(None), _) => match purged(events, event) {
                Purged::By(version) => (version, None),
                Purged::Perhaps => continue,
            },
            (Told::Rejected | Told::Unknown, _) => continue,
        };
        if version != Version::ZERO {
            let (first, known) = writer_of.entry(version).or_insert((event, value));
            if *known != value {
                return violation(
                    format!("version {version} stands for two different contents"),
                    &[first, event],
                );
            }
        }
        witnesses.push(Witness { version, event });
    }

    // Walk the calls in order, knowing the newest version that any operation had proved before the call.
    let mut by_answer: Vec<&Witness> = witnesses.iter().collect();
    by_answer.sort_by_key(|witness| witness.event.answered);
    let mut by_call: Vec<&Witness> = witnesses.iter().collect();
    by_call.sort_by_key(|witness| witness.event.called);
    let mut answered = by_answer.into_iter().peekable();
    let mut newest: Option<&Witness> = None;
    for witness in by_call {
        while let Some(earlier) = answered.next_if(|earlier| earlier.event.answered < witness.event.called) {
            if newest.is_none_or(|newest| earlier.version > newest.version) {
                newest = Some(earlier);
            }
        }
        let Some(newest) = newest else { continue };
        let is_write = witness.event.ask != Ask::Get;
        if is_write && witness.version <= newest.version {
            let problem = format!(
                "an acknowledged write is shadowed: {} is not above {}",
                witness.version, newest.version
            );
            return violation(problem, &[newest.event, witness.event]);
        }
        if !is_write && witness.version < newest.version {
            let problem = match (newest.event.ask, witness.event.told) {
                (Ask::Delete(_), Told::Found(..)) => "a deleted value came back",
                (Ask::Get, Told::Found(..)) if newest.version.is_expiry() => "what had expired came back",
                (Ask::Get, _) => "a read is older than a read before it",
                (_, Told::Missing(None)) => "an acknowledged write is lost",
                _ => "a read is older than an acknowledged write before it",
            };
            return violation(problem.to_owned(), &[newest.event, witness.event]);
        }
    }
    Ok(())
}

/// Checks a set at rest: each key was put at most once and deleted at most once, then all were listed. Acknowledged
/// and not deleted: listed. Rejected, or deleted for sure: not listed. Nothing twice, nothing from nowhere.
pub fn check_set(history: &[Event], listed: &[u32]) -> Result<(), Violation> {
    let mut by_key: BTreeMap<u32, Vec<Event>> = BTreeMap::new();
    for event in history {
        by_key.entry(event.key).or_default().push(*event);
    }
    let mut seen = BTreeSet::new();
    for key in listed {
        if !seen.insert(*key) {
            let events = by_key.remove(key).unwrap_or_default();
            return Err(Violation { problem: format!("key {key} is listed twice"), events });
        }
    }
    for (key, events) in by_key {
        let told =
            |wanted: fn(&Ask) -> bool| events.iter().find(|event| wanted(&event.ask)).map(|event| event.told);
        let put = told(|ask| matches!(ask, Ask::Put(_)));
        let deleted = told(|ask| matches!(ask, Ask::Delete(_)));
        let is_listed = seen.remove(&key);
        let problem = match (put, deleted, is_listed) {
            (Some(Told::Committed(_)), None | Some(Told::Rejected), false) => "an acknowledged key is lost",
            (None | Some(Told::Rejected), _, true) => "a key that was never written is listed",
            (Some(Told::Committed(_)), Some(Told::Committed(_)), true) => "a deleted key came back",
            _ => continue,
        };
        return Err(Violation { problem: format!("key {key}: {problem}"), events });
    }
    match seen.first() {
        Some(key) => {
            Err(Violation { problem: format!("key {key} is listed and nobody wrote it"), events: vec![] })
        }
        None => Ok(()),
    }
}

/// What is known of a key of a set while it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Surely,
    Maybe,
    Not(&'static str),
}

fn presence(events: &[Event], survey: &Survey) -> Presence {
    let find = |wanted: fn(&Ask) -> bool| events.iter().find(|event| wanted(&event.ask));
    let before = |event: &Event| event.answered < survey.called;
    let Some(put) = find(|ask| matches!(ask, Ask::Put(_))) else {
        return Presence::Not("a key that was never written is listed");
    };
    if put.told == Told::Rejected {
        return Presence::Not("a key that was never written is listed");
    }
    if put.called > survey.answered {
        return Presence::Not("a key is listed before it was written");
    }
    let is_put = matches!(put.told, Told::Committed(_));
    match find(|ask| matches!(ask, Ask::Delete(_))) {
        Some(delete) if is_put && before(delete) && matches!(delete.told, Told::Committed(_)) => {
            Presence::Not("a deleted key came back")
        }
        Some(delete) if delete.told != Told::Rejected && delete.called <= survey.answered => Presence::Maybe,
        _ if is_put && before(put) => Presence::Surely,
        _ => Presence::Maybe,
    }
}

/// Checks listings and counts of a set while it changes: each key was put at most once, and then deleted at most
/// once. What was acknowledged before the question is in the answer, or counted; what was deleted before it is not.
/// Listings are in order, without doubles.
pub fn check_surveys(history: &[Event], surveys: &[Survey]) -> Result<(), Violation> {
    let mut by_key: BTreeMap<u32, Vec<Event>> = BTreeMap::new();
    for event in history {
        by_key.entry(event.key).or_default().push(*event);
    }
    for survey in surveys {
        let when = format!(
            "client {} asked at {:.6} and was answered at {:.6}",
            survey.client,
            survey.called as f64 / 1e6,
            survey.answered as f64 / 1e6
        );
        let known = by_key.iter().map(|(key, events)| (*key, events, presence(events, survey)));
        match &survey.keys {
            Ok(keys) => {
                let violation = |key: &u32, problem: &str| {
                    let events = by_key.get(key).cloned().unwrap_or_default();
                    Err(Violation { problem: format!("key {key}: {problem} ({when})"), events })
                };
                if let Some([_, key]) = keys.array_windows().find(|[left, right]| left >= right) {
                    return violation(key, "the listing is not in order, or has it twice");
                }
                let listed: BTreeSet<u32> = keys.iter().copied().collect();
                if let Some(stranger) = listed.iter().find(|key| !by_key.contains_key(key)) {
                    return violation(stranger, "it is listed and nobody wrote it");
                }
                for (key, _, presence) in known {
                    match presence {
                        Presence::Surely if !listed.contains(&key) => {
                            return violation(&key, "an acknowledged key is not listed");
                        }
                        Presence::Not(problem) if listed.contains(&key) => return violation(&key, problem),
                        _ => {}
                    }
                }
            }
            Err(count) => {
                let (mut least, mut most) = (0, 0);
                for (_, _, presence) in known {
                    least += u64::from(presence == Presence::Surely);
                    most += u64::from(!matches!(presence, Presence::Not(_)));
                }
                if !(least..=most).contains(count) {
                    let problem =
                        format!("counted {count} keys, and there were {least} to {most} of them ({when})");
                    return Err(Violation { problem, events: vec![] });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use god_proto::ids::NodeId;

    fn at(ms: u64) -> Version {
        Version::new(ms, 0, NodeId(1))
    }

    fn event(ask: Ask, span: (u64, u64), told: Told) -> Event {
        Event { client: 1, key: 7, ask, called: span.0, answered: span.1, told }
    }

    fn problem(history: &[Event]) -> String {
        check_register(history).expect_err("the checker should object").problem
    }

    #[test]
    fn what_expires_is_missing_in_time_and_for_good() {
        const S: u64 = 1_000_000;
        let lend = event(Ask::Lend(1, 3_000), (0, 1), Told::Committed(at(10)));
        let found = event(Ask::Get, (S, S + 1), Told::Found(1, at(10)));
        let missing = |s: u64, told| event(Ask::Get, (s * S, s * S + 1), Told::Missing(told));
        check_register(&[lend, found, missing(4, Some(at(10).expiry())), missing(9, None)]).unwrap();
        check_register(&[lend, missing(9, None)]).unwrap();
        assert!(problem(&[lend, missing(1, None)]).contains("is lost"));
        assert!(problem(&[lend, missing(1, Some(at(10).expiry()))]).contains("before its time"));
        let put = event(Ask::Put(1), (0, 1), Told::Committed(at(10)));
        assert!(problem(&[put, missing(9, Some(at(10).expiry()))]).contains("before its time"));
        let again = event(Ask::Get, (5 * S, 5 * S + 1), Told::Found(1, at(10)));
        assert!(problem(&[lend, missing(4, Some(at(10).expiry())), again]).contains("had expired came back"));
    }

    #[test]
    fn a_deletion_that_is_under_way_for_long_proves_nothing_before_it_is_answered() {
        const MS: u64 = 1_000;
        // It met something newer, and was stamped anew right before it was answered.
        let long = event(Ask::Delete(1), (0, 2_000 * MS), Told::Committed(at(1_900)));
        let missing = event(Ask::Get, (1_490 * MS, 1_494 * MS), Told::Missing(None));
        let other = event(Ask::Delete(2), (1_495 * MS, 1_497 * MS), Told::Committed(at(1_495)));
        check_register(&[long, missing, other]).unwrap();
        let lend = event(Ask::Lend(1, 100), (0, 2_000 * MS), Told::Committed(at(1_900)));
        check_register(&[lend, missing, other]).unwrap();
        // What was answered before does.
        let early = event(Ask::Delete(1), (0, 900 * MS), Told::Committed(at(1_900)));
        assert!(problem(&[early, missing, other]).contains("is shadowed"));
    }

    #[test]
    fn a_history_that_keeps_every_promise_passes() {
        check_register(&[
            event(Ask::Get, (0, 1), Told::Missing(None)),
            event(Ask::Put(1), (2, 5), Told::Committed(at(10))),
            event(Ask::Put(2), (3, 9), Told::Unknown),
            event(Ask::Get, (4, 7), Told::Missing(None)),
            event(Ask::Get, (6, 8), Told::Found(1, at(10))),
            event(Ask::Get, (20, 21), Told::Found(2, at(11))),
            event(Ask::Delete(3), (30, 31), Told::Committed(at(12))),
            event(Ask::Get, (40, 41), Told::Missing(Some(at(12)))),
        ])
        .unwrap();
    }

    #[test]
    fn a_write_that_was_stamped_anew_may_have_been_seen_before_and_not_after() {
        let write = event(Ask::Put(1), (0, 10), Told::Committed(at(20)));
        let other = event(Ask::Put(2), (0, 10), Told::Committed(at(15)));
        let early = event(Ask::Get, (2, 4), Told::Found(1, at(10)));
        check_register(&[write, other, early]).unwrap();
        let late = event(Ask::Get, (11, 12), Told::Found(1, at(10)));
        assert!(problem(&[write, other, late]).contains("older than an acknowledged write"));
        let newer = event(Ask::Get, (11, 12), Told::Found(1, at(30)));
        assert!(problem(&[write, newer]).contains("was committed as"));
    }

    #[test]
    fn a_lost_write_is_found() {
        let put = event(Ask::Put(1), (0, 1), Told::Committed(at(10)));
        assert!(problem(&[put, event(Ask::Get, (2, 3), Told::Missing(None))]).contains("is lost"));
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [
            event(Ask::Put(1), (0, 1), Told::Committed(at(10))),
            event(Ask::Put(2), (2, 3), Told::Committed(at(20))),
            event(Ask::Get, (4, 5), Told::Found(1, at(10))),
        ];
        assert!(problem(&history).contains("older than an acknowledged write"));
    }

    #[test]
    fn a_value_seen_and_then_unseen_is_found() {
        let history = [
            event(Ask::Put(1), (0, 100), Told::Unknown),
            event(Ask::Get, (4, 5), Told::Found(1, at(10))),
            event(Ask::Get, (6, 7), Told::Missing(None)),
        ];
        assert!(problem(&history).contains("older than a read"));
    }

    #[test]
    fn a_resurrected_value_is_found() {
        let history = [
            event(Ask::Put(1), (0, 1), Told::Committed(at(10))),
            event(Ask::Delete(2), (2, 3), Told::Committed(at(20))),
            event(Ask::Get, (4, 5), Told::Found(1, at(10))),
        ];
        assert!(problem(&history).contains("came back"));
    }

    #[test]
    fn a_shadowed_write_is_found() {
        let history = [
            event(Ask::Put(1), (0, 1), Told::Committed(at(20))),
            event(Ask::Put(2), (2, 3), Told::Committed(at(10))),
        ];
        assert!(problem(&history).contains("shadowed"));
    }

    #[test]
    fn values_from_nowhere_or_from_rejected_writes_are_found() {
        assert!(problem(&[event(Ask::Get, (0, 1), Told::Found(9, at(1)))]).contains("nobody wrote"));
        let rejected = event(Ask::Put(9), (0, 1), Told::Rejected);
        assert!(problem(&[rejected, event(Ask::Get, (2, 3), Told::Found(9, at(1)))]).contains("rejected"));
    }

    #[test]
    fn one_version_with_two_contents_is_found() {
        let history = [
            event(Ask::Put(1), (0, 10), Told::Committed(at(10))),
            event(Ask::Put(2), (0, 10), Told::Committed(at(10))),
        ];
        assert!(problem(&history).contains("two different contents"));
    }

    #[test]
    fn a_set_that_lost_doubled_or_revived_a_key_is_found() {
        let put = event(Ask::Put(1), (0, 1), Told::Committed(at(10)));
        let delete = event(Ask::Delete(2), (2, 3), Told::Committed(at(20)));
        let says = |history: &[Event], listed: &[u32]| {
            check_set(history, listed).map_err(|violation| violation.problem)
        };
        assert_eq!(says(&[put], &[7]), Ok(()));
        assert_eq!(says(&[put, delete], &[]), Ok(()));
        assert!(says(&[put], &[]).unwrap_err().contains("lost"));
        assert!(says(&[put], &[7, 7]).unwrap_err().contains("twice"));
        assert!(says(&[put, delete], &[7]).unwrap_err().contains("came back"));
        assert!(says(&[], &[7]).unwrap_err().contains("nobody"));
        assert!(
            says(&[event(Ask::Put(1), (0, 1), Told::Rejected)], &[7]).unwrap_err().contains("never written")
        );
    }

    #[test]
    fn listings_and_counts_that_miss_acknowledged_keys_or_show_deleted_ones_are_found() {
        let put = event(Ask::Put(1), (0, 10), Told::Committed(at(10)));
        let delete = event(Ask::Delete(2), (20, 30), Told::Committed(at(20)));
        let says = |history: &[Event], span: (u64, u64), keys: Result<&[u32], u64>| {
            let survey =
                Survey { client: 1, called: span.0, answered: span.1, keys: keys.map(<[u32]>::to_vec) };
            check_surveys(history, &[survey]).map_err(|violation| violation.problem)
        };
        let found = |result: Result<(), String>, what: &str| {
            let problem = result.expect_err("the checker should object");
            assert!(problem.contains(what), "{problem}");
        };
        // While the put or the delete goes on, both are right.
        for keys in [&[7][..], &[]] {
            assert_eq!(says(&[put, delete], (5, 8), Ok(keys)), Ok(()));
            assert_eq!(says(&[put, delete], (15, 25), Ok(keys)), Ok(()));
            assert_eq!(says(&[put, delete], (15, 25), Err(keys.len() as u64)), Ok(()));
        }
        found(says(&[put, delete], (12, 18), Ok(&[])), "not listed");
        found(says(&[put, delete], (12, 18), Err(0)), "there were 1 to 1");
        found(says(&[put, delete], (31, 32), Ok(&[7])), "came back");
        found(says(&[put, delete], (31, 32), Err(1)), "there were 0 to 0");
        found(says(&[put], (12, 18), Ok(&[7, 7])), "twice");
        found(says(&[put], (12, 18), Ok(&[7, 8])), "nobody wrote");
        let later = event(Ask::Put(1), (50, 60), Told::Committed(at(10)));
        found(says(&[later], (12, 18), Ok(&[7])), "before it was written");
    }
}
