//! What one replica says of one position, and how it stands in a message.

use god_proto::{
    peer,
    record::{Record, RecordError},
    v1,
};

/// What a replica holds at a position.
pub(crate) type Held = Result<Option<Record>, Damaged>;

/// What stands there cannot be read: nothing is said of that position (DAMAGE-APART).
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
