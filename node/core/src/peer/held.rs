//! What one replica says of one position, how it stands in a message, and what answers take in memory.

use bytes::Bytes;
use god_proto::{
    MAX_VALUE,
    peer::{self, response},
    record::{Record, RecordError},
    v1,
};

/// What a replica holds at a position.
pub(crate) type Held<R = Record> = Result<Option<R>, Damaged>;

/// A record as a replica tells it to a read.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Whole(Record),
    /// All of it but its value, which has so many bytes: more than were asked for.
    Withheld(Record, usize),
}

impl Told {
    /// The record, of which the value may not be there.
    pub fn head(&self) -> &Record {
        match self {
            Told::Whole(record) | Told::Withheld(record, _) => record,
        }
    }

    /// The record, if all of it was told.
    pub fn whole(self) -> Option<Record> {
        match self {
            Told::Whole(record) => Some(record),
            Told::Withheld(..) => None,
        }
    }

    /// Bytes of the value that was left out.
    pub fn withheld(&self) -> Option<usize> {
        match self {
            Told::Whole(_) => None,
            Told::Withheld(_, bytes) => Some(*bytes),
        }
    }
}

/// Bytes that an answer takes which may be large, about; 0 for those that are small in any case. Cost: O(entries).
pub(crate) fn weight(answer: &response::Body) -> usize {
    let entry = |entry: &peer::Entry| size_of::<peer::Entry>() + entry.position.len() + entry.value.len();
    match answer {
        response::Body::Read(done) => done.entries.iter().map(entry).sum(),
        response::Body::Scan(done) => done.entries.iter().map(entry).sum(),
        response::Body::Summarize(done) => size_of_val(&done.summaries[..]),
        _ => 0,
    }
}

/// What stands there cannot be read, or may have been lost: nothing is said of that position (DAMAGE-APART,
/// LAPSED-IS-NO-VOTE).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damaged;

/// One position's part of an answer. Of a value of more bytes than `largest` only the size; 0: all are told.
pub(crate) fn to_entry(held: Held, largest: u32) -> peer::Entry {
    match held {
        Ok(Some(mut record)) => {
            let bytes = u32::try_from(record.value.len()).unwrap_or(u32::MAX);
            let is_withheld = largest != 0 && bytes > largest;
            if is_withheld {
                record.value = Bytes::new();
            }
            let withheld_bytes = if is_withheld { bytes } else { 0 };
            peer::Entry { withheld_bytes, ..peer::Entry::from(record) }
        }
        Ok(None) => peer::Entry::default(),
        Err(Damaged) => peer::Entry {
            kind: peer::Kind::Damaged.into(),
            version: Some(v1::Version::default()),
            ..peer::Entry::default()
        },
    }
}

/// What a part of an answer says. Fails on what no record can be.
pub(crate) fn from_entry(mut entry: peer::Entry) -> Result<Held<Told>, RecordError> {
    if entry.kind() == peer::Kind::Damaged {
        return Ok(Err(Damaged));
    }
    let withheld = std::mem::take(&mut entry.withheld_bytes) as usize;
    let Some(record) = Option::<Record>::try_from(entry)? else { return Ok(Ok(None)) };
    if withheld == 0 {
        return Ok(Ok(Some(Told::Whole(record))));
    }
    match record.is_live() && record.value.is_empty() && withheld <= MAX_VALUE {
        true => Ok(Ok(Some(Told::Withheld(record, withheld)))),
        false => Err(RecordError("a value that was left out is there, is none, or larger than any")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use god_proto::{ids::NodeId, version::Version};

    fn version() -> Version {
        Version::new(1, 0, NodeId(1))
    }

    #[test]
    fn what_is_withheld_is_told_as_that_and_is_no_record() {
        let record = Record { expires_at_ms: Some(9), ..Record::value(version(), vec![7; 100]) };
        for largest in [0, 100, u32::MAX] {
            match from_entry(to_entry(Ok(Some(record.clone())), largest)) {
                Ok(Ok(Some(Told::Whole(told)))) => assert_eq!(told, record),
                other => panic!("{other:?}"),
            }
        }
        let entry = to_entry(Ok(Some(record.clone())), 99);
        // Nobody who does not ask for it may take it for an empty value.
        assert!(Option::<Record>::try_from(entry.clone()).is_err());
        match from_entry(entry) {
            Ok(Ok(Some(Told::Withheld(head, 100)))) => {
                assert_eq!(head, Record { value: Bytes::new(), ..record });
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_value_that_is_there_and_withheld_is_refused_and_so_is_that_of_a_deletion_or_of_no_such_size() {
        let there = peer::Entry { withheld_bytes: 5, ..peer::Entry::from(Record::value(version(), "value")) };
        let deletion = peer::Entry { withheld_bytes: 5, ..peer::Entry::from(Record::tombstone(version())) };
        let far = peer::Entry {
            withheld_bytes: MAX_VALUE as u32 + 1,
            ..peer::Entry::from(Record::value(version(), Bytes::new()))
        };
        assert!([there, deletion, far].into_iter().all(|entry| from_entry(entry).is_err()));
    }
}
