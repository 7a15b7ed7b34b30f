//! What is known of records that cannot be read.
//!
//! A record is damaged where its engine refuses it, or where its bytes are none. Its version is not known, nor what it
//! added to the sums of its bucket. The rule (DAMAGE-APART): what a damaged record added is what is left of its
//! bucket's sum without all that can be read in it. When one of them is overwritten, that goes, so that from then on
//! the bucket says what can be read in it, and another damaged record counts as nothing: so each of those is to be
//! noted as lapsed before, like the one that is overwritten. A start and a rebuild, which count what can be read, say
//! the same; what a start had to pass over is damaged, whatever is read of it (see `gaps`). Where the rest of a bucket
//! cannot be read either, nothing in it that is damaged can be overwritten.

use super::{
    Summary,
    changes::Change,
    gaps::Gaps,
    nibbles::{range_end, range_start},
    rows::{readable, weighed},
    summary::Scale,
    tree::Tree,
};
use crate::engine::{Direction, Engine, EngineError, Reader, Table};
use bytes::Bytes;
use god_proto::position::Position;
use god_proto::record::Head;
use std::collections::{BTreeMap, BTreeSet};

/// What a position holds.
pub(super) enum Stored {
    Nothing,
    Record(Head, Bytes),
    /// It cannot be read.
    Damaged,
}

/// Reads positions, each by itself where one of them cannot be read. Errors: only those that are not about a record.
pub(super) fn read_each(engine: &dyn Engine, keys: &[&[u8]]) -> Result<Vec<Stored>, EngineError> {
    let found = match engine.multi_get(Table::Data, keys) {
        Ok(found) => return Ok(found.into_iter().map(stored).collect()),
        Err(EngineError::Corrupt(_)) => keys.iter().map(|key| engine.get(Table::Data, key)),
        Err(error) => return Err(error),
    };
    found
        .map(|found| match found {
            Ok(found) => Ok(stored(found)),
            Err(EngineError::Corrupt(_)) => Ok(Stored::Damaged),
            Err(error) => Err(error),
        })
        .collect()
}

fn stored(found: Option<Bytes>) -> Stored {
    match found {
        None => Stored::Nothing,
        Some(bytes) => Head::decode(&bytes).map_or(Stored::Damaged, |head| Stored::Record(head, bytes)),
    }
}

/// What overwriting damaged records takes from the sums of their buckets.
#[derive(Default)]
pub(super) struct Counted {
    /// Of each; nothing of those that must stay.
    pub(super) sums: BTreeMap<Vec<u8>, Summary>,
    /// What says from then on all that can be read in it: it has no gaps any more.
    pub(super) whole: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The damaged records that the caller has noted as lapsed, in each of several calls.
#[derive(Default)]
pub(super) struct Noted<'a>(pub(super) Vec<&'a BTreeSet<Position>>);

impl Noted<'_> {
    /// Whether all of some are among them.
    fn has(&self, lost: &[Bytes]) -> bool {
        lost.iter().all(|at| {
            let at = Position::from_bytes(at.clone());
            self.0.iter().any(|noted| noted.contains(&at))
        })
    }
}

/// The records that are none in the buckets of some positions, but for those at these positions, as far as can be read.
/// Cost: a scan of each bucket.
pub(super) fn lost_beside(
    reader: &dyn Reader,
    scale: &Scale,
    tree: &Tree,
    positions: &[&[u8]],
) -> Result<Vec<Bytes>, EngineError> {
    let mut lost = Vec::new();
    let mut left = positions;
    while let [first, ..] = left {
        let depth = tree.bucket_depth(first);
        let (start, end) = (range_start(first, depth), range_end(first, depth));
        let here = left.partition_point(|position| *position < end.as_slice());
        let (here, others) = left.split_at(here);
        left = others;
        let mut from = start;
        for until in here.iter().copied().chain([end.as_slice()]) {
            lost_in(reader, scale, &from, until, &mut lost)?;
            from = [until, &[0]].concat();
        }
    }
    Ok(lost)
}

/// The records that are none in the buckets at the ends of a range, outside of it, as far as can be read. Cost: a scan
/// of these buckets.
pub(super) fn lost_outside(
    reader: &dyn Reader,
    scale: &Scale,
    tree: &Tree,
    start: &[u8],
    end: &[u8],
) -> Result<Vec<Bytes>, EngineError> {
    let mut lost = Vec::new();
    let below = range_start(start, tree.bucket_depth(start));
    lost_in(reader, scale, &below, start, &mut lost)?;
    let above = range_end(end, tree.bucket_depth(end));
    lost_in(reader, scale, end, &above, &mut lost)?;
    Ok(lost)
}

fn lost_in(
    reader: &dyn Reader,
    scale: &Scale,
    from: &[u8],
    until: &[u8],
    lost: &mut Vec<Bytes>,
) -> Result<(), EngineError> {
    if from >= until {
        return Ok(());
    }
    match readable(reader, scale, from, until, lost).find_map(Result::err) {
        // Nothing is overwritten in that bucket.
        None | Some(EngineError::Corrupt(_)) => Ok(()),
        Some(error) => Err(error),
    }
}

/// Counts the buckets of damaged records that are to be overwritten. Those of which others that are damaged were not
/// `noted` stay. `damaged` is sorted. Cost: a scan of each bucket.
pub(super) fn count_around(
    reader: &dyn Reader,
    scale: &Scale,
    tree: &Tree,
    noted: &Noted<'_>,
    damaged: &[&[u8]],
) -> Result<Counted, EngineError> {
    let mut counted = Counted::default();
    let mut left = damaged;
    while let [first, ..] = left {
        let Some((depth, mut rest)) = tree.locate(first).bucket else {
            // No row counts it.
            counted.sums.insert(first.to_vec(), Summary::default());
            counted.whole.push((first.to_vec(), [first, &[0][..]].concat()));
            left = left.get(1..).unwrap_or_default();
            continue;
        };
        let (start, end) = (range_start(first, depth), range_end(first, depth));
        let here = left.partition_point(|position| *position < end.as_slice());
        let (here, others) = left.split_at(here);
        left = others;
        let mut from = start.clone();
        let (mut whole, mut lost) = (true, Vec::new());
        for until in here.iter().copied().chain([end.as_slice()]) {
            for entry in readable(reader, scale, &from, until, &mut lost) {
                match entry {
                    Ok((_, sum)) => rest -= &sum,
                    Err(EngineError::Corrupt(problem)) => {
                        tracing::error!(
                            problem,
                            "damaged records cannot be overwritten: those beside them neither"
                        );
                        whole = false;
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            // The position after this one.
            from = [until, &[0]].concat();
        }
        if whole && noted.has(&lost) {
            for position in here {
                counted.sums.insert(position.to_vec(), std::mem::take(&mut rest));
            }
            counted.whole.push((start, end));
        }
    }
    Ok(counted)
}

/// What removing all between two positions takes from the sums of buckets, where some of it cannot be read: of a
/// bucket with such a record, all but what can be read outside. `None` where that cannot be read either, or is damaged
/// and was not `noted`. Cost: a scan of all of these buckets.
pub(super) fn count_within(
    reader: &dyn Reader,
    scale: &Scale,
    tree: &Tree,
    (gaps, noted): (&Gaps, &Noted<'_>),
    start: &[u8],
    end: &[u8],
) -> Result<Option<Vec<Change>>, EngineError> {
    let mut changes = Vec::new();
    let mut from = start.to_vec();
    while let Some(path) = tree.bucket_from(&from).filter(|path| path.bytes() < end) {
        let bucket_end = path.end();
        let (first, last) = (path.bytes().max(start), bucket_end.as_slice().min(end));
        let gone = |(position, before)| Change { position, before, after: Summary::default() };
        let here = weighed(reader, scale, first, last, Direction::Forward).collect::<Result<Vec<_>, _>>();
        match here {
            Ok(here) if !gaps.meets(first, last) => changes.extend(here.into_iter().map(gone)),
            Ok(_) | Err(EngineError::Corrupt(_)) => {
                let mut before = tree.locate(first).bucket.map(|(_, sum)| sum).unwrap_or_default();
                let mut lost = Vec::new();
                for (from, until) in [(path.bytes(), first), (last, bucket_end.as_slice())] {
                    for entry in readable(reader, scale, from, until, &mut lost) {
                        match entry {
                            Ok((_, sum)) => before -= &sum,
                            Err(EngineError::Corrupt(_)) => return Ok(None),
                            Err(error) => return Err(error),
                        }
                    }
                }
                if !noted.has(&lost) {
                    return Ok(None);
                }
                changes.push(gone((Bytes::copy_from_slice(first), before)));
            }
            Err(error) => return Err(error),
        }
        from = bucket_end;
    }
    Ok(Some(changes))
}
