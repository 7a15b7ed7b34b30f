//! What one replica says of one position, how it stands in a message, and what answers take in memory.

use god_proto::{
    peer::{self, response},
    record::{Record, RecordError},
    v1,
};

/// What a replica holds at a position.
pub(crate) type Held = Result<Option<Record>, Damaged>;

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

/// One position's part of an answer.
pub(crate) fn to_entry(held: Held) -> peer::Entry {
    match held {
        Ok(record) => record.map(peer::Entry::from).unwrap_or_default(),
        Err(Damaged) => peer::Entry {
            kind: peer::Kind::Damaged.into(),
            version: Some(v1::Version::default()),
            ..peer::Entry::default()
        },
    }
}

/// What a part of an answer says. Fails on what no record can be.
pub(crate) fn from_entry(entry: peer::Entry) -> Result<Held, RecordError> {
    match entry.kind() {
        peer::Kind::Damaged => Ok(Err(Damaged)),
        _ => Option::<Record>::try_from(entry).map(Ok),
    }
}
