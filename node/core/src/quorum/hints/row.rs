//! How hints and suspicions are stored. Pure.
//!
//! ```text
//! Hints   target (u32) ‖ sequence (u64) → position length (u32) ‖ position ‖ record; numbers are big endian
//! System  "suspect/" ‖ first position of an arc                → nothing
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use god_proto::{
    ids::NodeId,
    position::Position,
    record::{Entry, Record},
};
use std::ops::RangeInclusive;

/// Before the first position of each suspect arc.
pub(super) const SUSPECT: &[u8] = b"suspect/";
/// Above all keys with [`SUSPECT`].
pub(super) const SUSPECT_END: &[u8] = b"suspect0";

/// A stored hint.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub key: Bytes,
    pub value: Bytes,
}

impl Row {
    pub(super) fn new(target: NodeId, sequence: u64, entry: &Entry) -> Row {
        let mut key = BytesMut::with_capacity(12);
        key.put_u32(target.0);
        key.put_u64(sequence);
        let position = entry.position.as_bytes();
        let mut value = BytesMut::with_capacity(4 + position.len() + entry.record.encoded_len());
        value.put_u32(position.len() as u32);
        value.put_slice(position);
        entry.record.encode_to(&mut value);
        Row { key: key.freeze(), value: value.freeze() }
    }

    /// What it takes.
    pub(super) fn bytes(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }

    /// Bytes that a row for an entry takes.
    pub(super) fn bytes_of(entry: &Entry) -> u64 {
        (12 + 4 + entry.position.as_bytes().len() + entry.record.encoded_len()) as u64
    }
}

/// The target and the number of a row; `None` where the key is none.
pub(super) fn decode_key(key: &[u8]) -> Option<(NodeId, u64)> {
    let (target, sequence) = key.split_first_chunk::<4>()?;
    let sequence: &[u8; 8] = sequence.try_into().ok()?;
    Some((NodeId(u32::from_be_bytes(*target)), u64::from_be_bytes(*sequence)))
}

/// The entry of a row; `None` where it is damaged.
pub(super) fn decode_value(value: &Bytes) -> Option<Entry> {
    let len = u32::from_be_bytes(*value.first_chunk::<4>()?) as usize;
    let end = len.checked_add(4)?;
    if end > value.len() {
        return None;
    }
    let record = Record::decode(&value.slice(end..)).ok()?;
    Some(Entry { position: Position::from_bytes(value.slice(4..end)), record })
}

/// Where the rows of a target start and, exclusively, end.
pub(super) fn range_of(target: NodeId) -> (Bytes, Bytes) {
    range_of_targets(&(target.0..=target.0))
}

/// Where the rows of neighbouring targets start and, exclusively, end.
pub(super) fn range_of_targets(targets: &RangeInclusive<u32>) -> (Bytes, Bytes) {
    let mut end = BytesMut::with_capacity(13);
    end.put_u32(*targets.end());
    end.put_u64(u64::MAX);
    end.put_u8(0);
    (Bytes::copy_from_slice(&targets.start().to_be_bytes()), end.freeze())
}

pub(super) fn suspect_key(arc_start: &[u8]) -> Bytes {
    [SUSPECT, arc_start].concat().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use god_proto::version::Version;

    #[test]
    fn a_hint_reads_back_as_it_was_stored() {
        let position = Position::from_bytes(&b"\0\0\0\x01key\0\x01\0"[..]);
        let entry = Entry { position, record: Record::value(Version::new(7, 1, NodeId(2)), &b"value"[..]) };
        let row = Row::new(NodeId(3), 9, &entry);
        assert_eq!(decode_key(&row.key), Some((NodeId(3), 9)));
        assert_eq!(decode_value(&row.value), Some(entry.clone()));
        assert_eq!(row.bytes(), Row::bytes_of(&entry));
        let (start, end) = range_of(NodeId(3));
        assert!(start <= row.key && row.key < end);
        for cut in 0..4 + entry.position.as_bytes().len() + 13 {
            assert_eq!(decode_value(&row.value.slice(..cut)), None);
        }
    }
}
