//! Merges replicas' pages of one range into one. Pure.

use crate::peer::Told;
use god_proto::{
    position::{Position, PositionRange},
    record::Entry,
    version::Version,
};
use std::cmp::Ordering;

/// What one replica holds at a position.
#[derive(Clone, Debug)]
pub(super) struct PageEntry {
    pub position: Position,
    pub told: Told,
}

impl PageEntry {
    fn version(&self) -> Version {
        self.told.head().version
    }
}

/// What one replica holds of a range, from the side where the scan begins.
#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// In the order of the scan, tombstones among them.
    pub entries: Vec<PageEntry>,
    /// Whether it holds more than this.
    pub more: bool,
}

/// What all replicas together say of a range.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Merged {
    /// The newest record of each position that all of them cover, in the order of the scan; without its value, where
    /// nobody told that.
    pub entries: Vec<Entry>,
    /// Which of those are not the same on all of them, or were told by nobody in whole, by index.
    pub unread: Vec<usize>,
    /// What is left of the range beyond; empty at its end.
    pub rest: PositionRange,
}

impl Merged {
    /// Leaves the entries from this one on to the rest of the range that was asked for.
    pub fn cut(&mut self, at: usize, range: &PositionRange, reverse: bool) {
        let Some(entry) = self.entries.get(at) else { return };
        self.rest = match reverse {
            true => PositionRange { start: range.start.clone(), end: entry.position.next() },
            false => PositionRange { start: entry.position.clone(), end: range.end.clone() },
        };
        self.entries.truncate(at);
        self.unread.retain(|unread| *unread < at);
    }
}

/// Why pages make no sense together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page of a replica {0}")]
pub(super) struct BadPage(&'static str);

/// Checks that a page could be of a range: its positions are within and in order, and it holds something if it
/// promises more.
pub(super) fn check(page: &Page, range: &PositionRange, reverse: bool) -> Result<(), BadPage> {
    let step = |a: &Position, b: &Position| if reverse { b.cmp(a) } else { a.cmp(b) };
    if page.more && page.entries.is_empty() {
        return Err(BadPage("is empty and promises more"));
    }
    if page.entries.iter().any(|entry| !range.contains(&entry.position)) {
        return Err(BadPage("reaches beyond what was asked"));
    }
    if !page.entries.is_sorted_by(|a, b| step(&a.position, &b.position) == Ordering::Less) {
        return Err(BadPage("is out of order"));
    }
    Ok(())
}

/// The newest record of every position that each page covers: a page that promises more says nothing of what is
/// beyond its last position. Cost: O(entries × pages). Takes pages that passed [`check`].
pub(super) fn merge(range: &PositionRange, reverse: bool, pages: Vec<Page>) -> Merged {
    let step = |a: &Position, b: &Position| if reverse { b.cmp(a) } else { a.cmp(b) };
    let last = |page: &Page| page.entries.last().filter(|_| page.more).map(|entry| entry.position.clone());
    let bound = pages.iter().filter_map(last).min_by(|a, b| step(a, b));
    let covered = |at: &Position| bound.as_ref().is_none_or(|bound| step(at, bound) != Ordering::Greater);

    let count = pages.len();
    let mut heads: Vec<_> = pages.into_iter().map(|page| page.entries.into_iter().peekable()).collect();
    let (mut entries, mut unread) = (Vec::new(), Vec::new());
    loop {
        let front = heads.iter_mut().filter_map(|head| head.peek().map(|entry| &entry.position));
        let Some(position) = front.min_by(|a, b| step(a, b)).filter(|at| covered(at)).cloned() else { break };
        let mut winner: Option<PageEntry> = None;
        let (mut copies, mut alike) = (0, true);
        for head in &mut heads {
            let Some(entry) = head.next_if(|entry| entry.position == position) else { continue };
            copies += 1;
            match &winner {
                Some(best) if best.version() == entry.version() => {
                    if best.told.withheld().is_some() {
                        winner = Some(entry);
                    }
                }
                Some(best) if best.version() > entry.version() => alike = false,
                best => {
                    alike &= best.is_none();
                    winner = Some(entry);
                }
            }
        }
        let Some(PageEntry { position, told }) = winner else { continue };
        if !alike || copies < count || told.withheld().is_some() {
            unread.push(entries.len());
        }
        entries.push(Entry { position, record: told.head().clone() });
    }
    let rest = match bound {
        None => PositionRange { start: range.end.clone(), end: range.end.clone() },
        Some(bound) if reverse => PositionRange { start: range.start.clone(), end: bound },
        Some(bound) => PositionRange { start: bound.next(), end: range.end.clone() },
    };
    Merged { entries, unread, rest }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;
    use god_proto::{
        ids::{KeyspaceId, NodeId},
        record::Record,
        v1::Partitioner,
        version::Version,
    };
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const KS: KeyspaceId = KeyspaceId(1);

    fn entry(key: u8, time: u64) -> Entry {
        let position = Position::of_key(KS, Partitioner::Ordered, &[key]).unwrap();
        let version = Version { time, node: NodeId(1) };
        let record = if time.is_multiple_of(3) {
            Record::tombstone(version)
        } else {
            Record::value(version, vec![time as u8])
        };
        Entry { position, record }
    }

    fn told(Entry { position, record }: Entry) -> PageEntry {
        PageEntry { position, told: Told::Whole(record) }
    }

    /// What a replica answers to a scan of `limit` entries.
    fn page(held: &BTreeMap<u8, u64>, reverse: bool, limit: usize) -> Page {
        let mut entries: Vec<PageEntry> = held.iter().map(|(key, time)| told(entry(*key, *time))).collect();
        if reverse {
            entries.reverse();
        }
        let more = entries.len() > limit;
        entries.truncate(limit);
        Page { entries, more }
    }

    proptest! {
        #[test]
        fn merged_pages_are_the_newest_records_of_what_all_pages_cover(
            replicas in proptest::collection::vec(
                (proptest::collection::btree_map(0u8..24, 1u64..6, 0..16), 1usize..10),
                1..4,
            ),
            reverse: bool,
        ) {
            let range = PositionRange::of_keyspace(KS);
            let pages: Vec<Page> = replicas.iter().map(|(held, limit)| page(held, reverse, *limit)).collect();
            for page in &pages {
                prop_assert_eq!(check(page, &range, reverse), Ok(()));
            }
            let covers = |key: u8| pages.iter().all(|page| {
                let at = entry(key, 1).position;
                let last = page.entries.last().map(|entry| entry.position.clone());
                !page.more || last.is_some_and(|last| if reverse { at >= last } else { at <= last })
            });
            let keys: BTreeSet<u8> = replicas.iter().flat_map(|(held, _)| held.keys().copied()).collect();
            let mut naive: Vec<(Entry, bool)> = keys
                .into_iter()
                .filter(|key| covers(*key))
                .map(|key| {
                    let times: Vec<Option<u64>> = replicas.iter().map(|(held, _)| held.get(&key).copied()).collect();
                    let newest = times.iter().flatten().max().copied().unwrap();
                    (entry(key, newest), times.iter().any(|time| *time != Some(newest)))
                })
                .collect();
            if reverse {
                naive.reverse();
            }
            let merged = merge(&range, reverse, pages.clone());
            let torn: Vec<usize> =
                naive.iter().enumerate().filter(|(_, (_, torn))| *torn).map(|(at, _)| at).collect();
            prop_assert_eq!(&merged.unread, &torn);
            let naive: Vec<Entry> = naive.into_iter().map(|(entry, _)| entry).collect();
            prop_assert_eq!(&merged.entries, &naive);
            prop_assert_eq!(merged.rest.is_empty(), pages.iter().all(|page| !page.more));
            for key in 0..24 {
                prop_assert!(!(covers(key) && merged.rest.contains(&entry(key, 1).position)));
                prop_assert!(covers(key) || merged.rest.contains(&entry(key, 1).position));
            }
        }
    }

    /// SIZES-FIRST.
    #[test]
    fn what_one_told_in_whole_is_as_good_as_if_all_had_and_what_nobody_did_is_to_be_read() {
        let head = |time| {
            let Entry { position, record } = entry(1, time);
            PageEntry { position, told: Told::Withheld(Record { value: Bytes::new(), ..record }, 1) }
        };
        let merged = |said: &[PageEntry]| {
            let page = |entry: &PageEntry| Page { entries: vec![entry.clone()], more: false };
            let Merged { entries, unread, .. } =
                merge(&PositionRange::of_keyspace(KS), false, said.iter().map(page).collect());
            (entries, unread)
        };
        for said in [[head(1), told(entry(1, 1))], [told(entry(1, 1)), head(1)]] {
            assert_eq!(merged(&said), (vec![entry(1, 1)], vec![]));
        }
        for said in [[head(2), told(entry(1, 1))], [told(entry(1, 1)), head(2)], [head(2), head(2)]] {
            let (entries, unread) = merged(&said);
            assert_eq!((entries[0].record.version, unread), (entry(1, 2).record.version, vec![0]));
        }
    }

    #[test]
    fn a_page_that_no_scan_could_give_is_refused() {
        let range = PositionRange::of_keyspace(KS);
        let page =
            |keys: &[u8], more| Page { entries: keys.iter().map(|key| told(entry(*key, 1))).collect(), more };
        assert!(check(&page(&[], true), &range, false).is_err());
        assert!(check(&page(&[2, 1], false), &range, false).is_err());
        assert!(check(&page(&[1, 1], false), &range, false).is_err());
        assert!(check(&page(&[1, 2], false), &range, true).is_err());
        assert!(check(&page(&[1], false), &PositionRange::of_keyspace(KeyspaceId(2)), false).is_err());
        assert!(check(&page(&[2, 1], true), &range, true).is_ok());
    }
}
