//! Where a key stands in the one order that everything is kept in.
//!
//! ```text
//! position = keyspace id (u32, big endian)
//!          ‖ xxh3-64 of the key (u64, big endian; hashed keyspaces only)
//!          ‖ escaped key ‖ 00 01
//!          ‖ part
//! part     = 00                             the key's own record
//!          | 01                             the header of its sub-tree
//!          | 02 ‖ escaped member ‖ 00 01    a member of its sub-tree
//! escaped  = each 00 as 00 FF
//! ```
//!
//! Positions sort as (keyspace, hash, key, part) do, and none is a prefix of another, so a keyspace, an arc, a
//! sub-tree and a page of a scan are all ranges of positions, and a radix tree may stand over them.

use crate::{
    MAX_KEY,
    ids::KeyspaceId,
    peer,
    v1::{KeyRange, Partitioner, key_range},
};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// The longest position, in bytes: a keyspace and a hash, a key and a member with every byte escaped, and their marks.
pub const MAX_POSITION: usize = 4 + 8 + 2 * (2 * MAX_KEY + 2) + 1;

const OWN: u8 = 0x00;
const HEADER: u8 = 0x01;
const MEMBER: u8 = 0x02;
const AFTER_PARTS: u8 = 0xff;

/// A place in the order.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(Bytes);

/// Why a key has no position, or bytes are none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PositionError {
    /// The key is too long.
    #[error("the key has {0} bytes; the most is {MAX_KEY}")]
    KeyTooLong(usize),
    /// The key has no bytes.
    #[error("the key is empty; a key has at least one byte")]
    KeyEmpty,
    /// A prefix was asked of a keyspace without order.
    #[error(
        "a prefix needs an ordered keyspace; this one is hashed, its keys stand in the order of their hash"
    )]
    PrefixNeedsOrder,
    /// The bytes are no position of a keyspace with this partitioner.
    #[error("not a position: {0}")]
    Malformed(&'static str),
}

/// What stands at a position, seen from its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key's own record.
    Own,
    /// The header of the key's sub-tree.
    Header,
    /// A member of the key's sub-tree.
    Member(Bytes),
}

/// Hash of a key in a hashed keyspace.
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

impl Position {
    /// Where the key's own record stands.
    pub fn of_key(
        keyspace: KeyspaceId,
        partitioner: Partitioner,
        key: &[u8],
    ) -> Result<Position, PositionError> {
        check_key(key)?;
        let mut out = key_prefix(keyspace, partitioner, key);
        out.put_u8(OWN);
        Ok(Position(out.freeze()))
    }

    /// Takes bytes as they are: from a peer or from storage, or as a bound.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Position {
        Position(bytes.into())
    }

    /// The first position of a keyspace.
    pub fn keyspace_start(keyspace: KeyspaceId) -> Position {
        Position(Bytes::copy_from_slice(&keyspace.0.to_be_bytes()))
    }

    /// The first position of a hashed keyspace whose keys have this hash or a higher one.
    pub fn of_hash(keyspace: KeyspaceId, hash: u64) -> Position {
        let mut out = BytesMut::with_capacity(12);
        out.put_u32(keyspace.0);
        out.put_u64(hash);
        Position(out.freeze())
    }

    /// The first position, in an ordered keyspace, of this key and all above it.
    pub fn of_ordered_bound(keyspace: KeyspaceId, key: &[u8]) -> Position {
        Position(key_prefix(keyspace, Partitioner::Ordered, key).freeze())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The next position there could be: the lowest that is above this one.
    #[must_use]
    pub fn next(&self) -> Position {
        let mut out = BytesMut::with_capacity(self.0.len() + 1);
        out.put_slice(&self.0);
        out.put_u8(0);
        Position(out.freeze())
    }

    /// The keyspace, if there are bytes enough.
    pub fn keyspace(&self) -> Option<KeyspaceId> {
        self.0.first_chunk::<4>().map(|id| KeyspaceId(u32::from_be_bytes(*id)))
    }

    /// Whether this is a key's own record (and not its sub-tree's header or a member). Takes a well-formed position.
    pub fn is_own(&self) -> bool {
        is_own(&self.0)
    }

    /// The key and the part. Cost: one pass, one copy of the key.
    pub fn decode(&self, partitioner: Partitioner) -> Result<(KeyspaceId, Bytes, Part), PositionError> {
        let keyspace = self.keyspace().ok_or(PositionError::Malformed("it is shorter than a keyspace id"))?;
        let rest = self.0.get(prefix_len(partitioner)..);
        let rest = rest.ok_or(PositionError::Malformed("it is shorter than a hash"))?;
        let (key, rest) = unescape(rest)?;
        let part = match rest {
            [OWN] => Part::Own,
            [HEADER] => Part::Header,
            [MEMBER, member @ ..] => {
                let (member, rest) = unescape(member)?;
                if !rest.is_empty() {
                    return Err(PositionError::Malformed("there are bytes after its member"));
                }
                Part::Member(member)
            }
            _ => return Err(PositionError::Malformed("its part is not known to this version")),
        };
        Ok((keyspace, key, part))
    }
}

/// Whether the bytes of a well-formed position end in a key's own part. A member ends in `00 01`, a header in `01`;
/// only an own record ends in `00`.
pub fn is_own(position: &[u8]) -> bool {
    position.last() == Some(&OWN)
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.iter().take(48) {
            write!(f, "{chunk:02x}")?;
        }
        if self.0.len() > 48 { write!(f, "…({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

/// Positions from `start` up to, and without, `end`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PositionRange {
    /// The lowest position within.
    pub start: Position,
    /// The lowest position above.
    pub end: Position,
}

impl From<&PositionRange> for peer::Range {
    fn from(range: &PositionRange) -> peer::Range {
        peer::Range { start: range.start.clone().into_bytes(), end: range.end.clone().into_bytes() }
    }
}

/// As it was sent: neither end need be a position of any keyspace.
impl From<peer::Range> for PositionRange {
    fn from(range: peer::Range) -> PositionRange {
        PositionRange { start: Position::from_bytes(range.start), end: Position::from_bytes(range.end) }
    }
}

impl PositionRange {
    /// One position alone.
    pub fn of_position(position: &Position) -> PositionRange {
        PositionRange { start: position.clone(), end: position.next() }
    }

    /// All positions of a keyspace.
    pub fn of_keyspace(keyspace: KeyspaceId) -> PositionRange {
        let start = Position::keyspace_start(keyspace);
        let end = end_of_prefix(start.as_bytes());
        PositionRange { start, end }
    }

    /// The positions that a range of keys stands for.
    pub fn of_keys(
        keyspace: KeyspaceId,
        partitioner: Partitioner,
        keys: &KeyRange,
    ) -> Result<PositionRange, PositionError> {
        let bound = |key: &Bytes, past_parts: bool| {
            if key.len() > MAX_KEY {
                return Err(PositionError::KeyTooLong(key.len()));
            }
            let mut out = key_prefix(keyspace, partitioner, key);
            if past_parts {
                out.put_u8(AFTER_PARTS);
            }
            Ok(Position(out.freeze()))
        };
        let mut range = PositionRange::of_keyspace(keyspace);
        if let Some(prefix) = &keys.prefix {
            if partitioner == Partitioner::Hashed {
                return Err(PositionError::PrefixNeedsOrder);
            }
            if prefix.len() > MAX_KEY {
                return Err(PositionError::KeyTooLong(prefix.len()));
            }
            let mut start = BytesMut::from(range.start.as_bytes());
            escape(prefix, &mut start);
            range.end = end_of_prefix(&start);
            range.start = Position(start.freeze());
        }
        let lower = match &keys.lower {
            Some(key_range::Lower::From(key)) => Some(bound(key, false)?),
            Some(key_range::Lower::After(key)) => Some(bound(key, true)?),
            None => None,
        };
        let upper = match &keys.upper {
            Some(key_range::Upper::Before(key)) => Some(bound(key, false)?),
            Some(key_range::Upper::Through(key)) => Some(bound(key, true)?),
            None => None,
        };
        if let Some(lower) = lower {
            range.start = range.start.max(lower);
        }
        if let Some(upper) = upper {
            range.end = range.end.min(upper);
        }
        Ok(range)
    }

    /// Whether no position can be within.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether the position is within.
    pub fn contains(&self, position: &Position) -> bool {
        *position >= self.start && *position < self.end
    }

    /// What is within both.
    #[must_use]
    pub fn intersect(&self, other: &PositionRange) -> PositionRange {
        PositionRange {
            start: self.start.clone().max(other.start.clone()),
            end: self.end.clone().min(other.end.clone()),
        }
    }
}

fn check_key(key: &[u8]) -> Result<(), PositionError> {
    match key.len() {
        0 => Err(PositionError::KeyEmpty),
        1..=MAX_KEY => Ok(()),
        len => Err(PositionError::KeyTooLong(len)),
    }
}

fn prefix_len(partitioner: Partitioner) -> usize {
    match partitioner {
        Partitioner::Hashed => 12,
        Partitioner::Ordered => 4,
    }
}

/// Everything up to, and without, the part.
fn key_prefix(keyspace: KeyspaceId, partitioner: Partitioner, key: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(prefix_len(partitioner) + key.len() + 8);
    out.put_u32(keyspace.0);
    if partitioner == Partitioner::Hashed {
        out.put_u64(key_hash(key));
    }
    escape(key, &mut out);
    out.put_slice(&[0x00, 0x01]);
    out
}

fn escape(text: &[u8], out: &mut BytesMut) {
    for &byte in text {
        out.put_u8(byte);
        if byte == 0 {
            out.put_u8(0xff);
        }
    }
}

/// Reads an escaped text up to its terminator; gives the text and what follows.
fn unescape(bytes: &[u8]) -> Result<(Bytes, &[u8]), PositionError> {
    let mut out = BytesMut::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match rest {
            [0x00, 0x01, rest @ ..] => return Ok((out.freeze(), rest)),
            [0x00, 0xff, after @ ..] => {
                out.put_u8(0);
                rest = after;
            }
            [0x00, ..] => return Err(PositionError::Malformed("a zero byte is not escaped")),
            [byte, after @ ..] => {
                out.put_u8(*byte);
                rest = after;
            }
            [] => return Err(PositionError::Malformed("it has no terminator")),
        }
    }
}

/// The lowest bytes above everything that begins with `prefix`. Eight bytes of FF where there is none: above every
/// position, as keyspace ids stay below `u32::MAX`.
fn end_of_prefix(prefix: &[u8]) -> Position {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return Position(end.into());
        }
        end.pop();
    }
    Position(Bytes::from_static(&[0xff; 8]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    const KS: KeyspaceId = KeyspaceId(7);

    /// Keys of few distinct bytes, so that escapes, prefixes and neighbours are common.
    fn keys() -> impl Strategy<Value = Bytes> {
        vec(select(vec![0u8, 1, 2, b'a', 0xfe, 0xff]), 1..6).prop_map(Bytes::from)
    }

    fn bounds() -> impl Strategy<Value = KeyRange> {
        let lower = prop_oneof![
            Just(None),
            keys().prop_map(|key| Some(key_range::Lower::From(key))),
            keys().prop_map(|key| Some(key_range::Lower::After(key))),
        ];
        let upper = prop_oneof![
            Just(None),
            keys().prop_map(|key| Some(key_range::Upper::Before(key))),
            keys().prop_map(|key| Some(key_range::Upper::Through(key))),
        ];
        let prefix = proptest::option::of(vec(select(vec![0u8, 1, b'a', 0xff]), 0..3).prop_map(Bytes::from));
        (lower, upper, prefix).prop_map(|(lower, upper, prefix)| KeyRange { lower, upper, prefix })
    }

    fn within(range: &KeyRange, key: &Bytes) -> bool {
        let above = match &range.lower {
            None => true,
            Some(key_range::Lower::From(low)) => key >= low,
            Some(key_range::Lower::After(low)) => key > low,
        };
        let below = match &range.upper {
            None => true,
            Some(key_range::Upper::Before(high)) => key < high,
            Some(key_range::Upper::Through(high)) => key <= high,
        };
        above && below && range.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
    }

    proptest! {
        #[test]
        fn ordered_positions_sort_as_their_keys(a in keys(), b in keys()) {
            let of = |key| Position::of_key(KS, Partitioner::Ordered, key).unwrap();
            prop_assert_eq!(a.cmp(&b), of(&a).cmp(&of(&b)));
        }

        #[test]
        fn no_position_is_a_prefix_of_another(a in keys(), b in keys(), partitioner in select(vec![Partitioner::Hashed, Partitioner::Ordered])) {
            let of = |key| Position::of_key(KS, partitioner, key).unwrap();
            prop_assert_eq!(of(&a).as_bytes().starts_with(of(&b).as_bytes()), a == b);
        }

        #[test]
        fn a_position_decodes_to_its_key(key in keys(), partitioner in select(vec![Partitioner::Hashed, Partitioner::Ordered])) {
            let position = Position::of_key(KS, partitioner, &key).unwrap();
            prop_assert!(position.is_own());
            prop_assert_eq!(position.decode(partitioner), Ok((KS, key, Part::Own)));
        }

        #[test]
        fn a_range_of_keys_holds_just_the_positions_of_its_keys(range in bounds(), key in keys()) {
            let position = Position::of_key(KS, Partitioner::Ordered, &key).unwrap();
            let positions = PositionRange::of_keys(KS, Partitioner::Ordered, &range).unwrap();
            prop_assert_eq!(positions.contains(&position), within(&range, &key));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>, partitioner in select(vec![Partitioner::Hashed, Partitioner::Ordered])) {
            let _ = Position::from_bytes(bytes).decode(partitioner);
        }
    }

    #[test]
    fn a_key_that_is_empty_or_too_long_is_refused_by_its_length() {
        let of = |key: &[u8]| Position::of_key(KS, Partitioner::Hashed, key);
        assert_eq!(of(&[]), Err(PositionError::KeyEmpty));
        assert_eq!(of(&[1; MAX_KEY + 1]), Err(PositionError::KeyTooLong(MAX_KEY + 1)));
        assert!(of(&[0; MAX_KEY]).is_ok());
    }

    #[test]
    fn the_longest_position_has_a_key_and_a_member_of_which_every_byte_is_escaped() {
        let longest = [0; MAX_KEY];
        let mut out = key_prefix(KS, Partitioner::Hashed, &longest);
        out.put_u8(MEMBER);
        escape(&longest, &mut out);
        out.put_slice(&[0x00, 0x01]);
        assert_eq!(out.len(), MAX_POSITION);
        let position = Position::from_bytes(out);
        let part = Part::Member(Bytes::copy_from_slice(&longest));
        let key = Bytes::copy_from_slice(&longest);
        assert_eq!(position.decode(Partitioner::Hashed), Ok((KS, key, part)));
    }

    #[test]
    fn a_prefix_in_a_hashed_keyspace_is_refused() {
        let range = KeyRange { prefix: Some(Bytes::from_static(b"a")), ..KeyRange::default() };
        assert_eq!(
            PositionRange::of_keys(KS, Partitioner::Hashed, &range),
            Err(PositionError::PrefixNeedsOrder)
        );
    }
}
