//! What a range of positions holds, in numbers that add up.

use god_proto::{
    peer,
    position::is_own,
    record::{Head, Kind, RecordError},
    version::Version,
};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::{
    hash::Hasher,
    ops::{AddAssign, SubAssign},
};

/// What a range of positions holds. Sums over adjacent ranges add up, and so do differences: all arithmetic wraps.
///
/// The digest is the sum modulo 2^128 of SipHash-1-3-128 over position and version, keyed by the cluster's id. Equal
/// versions mean equal content (VERSION-UNIQUE), so equal digests mean equal content, but for a chance of 2^-128 a
/// comparison. After AdHash: Bellare and Micciancio, *A New Paradigm for Collision-Free Hashing* (1997), with a key
/// that clients do not know in place of a long modulus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sum of the records' hashes.
    pub digest: u128,
    /// Records, tombstones among them.
    pub entries: u64,
    /// Keys with a value, expired ones among them.
    pub live_keys: u64,
    /// Members of sub-trees with a value.
    pub live_members: u64,
    /// Bytes of positions and encoded records.
    pub bytes: u64,
}

impl Summary {
    /// Bytes of an encoded summary.
    pub const SIZE: usize = 48;

    /// The bytes as stored: the fields in their order, big endian.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..16].copy_from_slice(&self.digest.to_be_bytes());
        for (at, count) in
            out[16..].chunks_exact_mut(8).zip([self.entries, self.live_keys, self.live_members, self.bytes])
        {
            at.copy_from_slice(&count.to_be_bytes());
        }
        out
    }

    /// The inverse of [`Summary::encode`]; `None` unless there are exactly as many bytes.
    pub fn decode(bytes: &[u8]) -> Option<Summary> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let (digest, counts) = bytes.split_first_chunk::<16>()?;
        let mut counts =
            counts.chunks_exact(8).filter_map(|count| count.try_into().ok()).map(u64::from_be_bytes);
        Some(Summary {
            digest: u128::from_be_bytes(*digest),
            entries: counts.next()?,
            live_keys: counts.next()?,
            live_members: counts.next()?,
            bytes: counts.next()?,
        })
    }
}

impl AddAssign<&Summary> for Summary {
    fn add_assign(&mut self, other: &Summary) {
        self.digest = self.digest.wrapping_add(other.digest);
        self.entries = self.entries.wrapping_add(other.entries);
        self.live_keys = self.live_keys.wrapping_add(other.live_keys);
        self.live_members = self.live_members.wrapping_add(other.live_members);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

impl SubAssign<&Summary> for Summary {
    fn sub_assign(&mut self, other: &Summary) {
        self.digest = self.digest.wrapping_sub(other.digest);
        self.entries = self.entries.wrapping_sub(other.entries);
        self.live_keys = self.live_keys.wrapping_sub(other.live_keys);
        self.live_members = self.live_members.wrapping_sub(other.live_members);
        self.bytes = self.bytes.wrapping_sub(other.bytes);
    }
}

impl<'a> std::iter::Sum<&'a Summary> for Summary {
    fn sum<I: Iterator<Item = &'a Summary>>(all: I) -> Summary {
        all.fold(Summary::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

impl From<Summary> for peer::Summary {
    fn from(summary: Summary) -> peer::Summary {
        peer::Summary {
            digest: summary.digest.to_be_bytes().to_vec().into(),
            entries: summary.entries,
            live_keys: summary.live_keys,
            live_members: summary.live_members,
            bytes: summary.bytes,
        }
    }
}

/// What a peer sent; an error where its digest is not 16 bytes.
impl TryFrom<peer::Summary> for Summary {
    type Error = &'static str;

    fn try_from(message: peer::Summary) -> Result<Summary, &'static str> {
        let digest: [u8; 16] =
            message.digest.as_ref().try_into().map_err(|_| "the digest of a summary is not 16 bytes")?;
        Ok(Summary {
            digest: u128::from_be_bytes(digest),
            entries: message.entries,
            live_keys: message.live_keys,
            live_members: message.live_members,
            bytes: message.bytes,
        })
    }
}

/// Says what single records add to a summary.
#[derive(Clone, Copy)]
pub(super) struct Scale(SipHasher13);

impl Scale {
    pub(super) fn new(key: &[u8; 16]) -> Scale {
        Scale(SipHasher13::new_with_key(key))
    }

    /// What a record adds. `len` is its encoded length.
    pub(super) fn weigh(&self, position: &[u8], version: Version, kind: Kind, len: usize) -> Summary {
        let mut hasher = self.0;
        hasher.write(position);
        hasher.write(&version.encode());
        let own = is_own(position);
        let live = kind == Kind::Value;
        Summary {
            digest: hasher.finish128().as_u128(),
            entries: 1,
            live_keys: u64::from(live && own),
            live_members: u64::from(live && !own && is_member(position)),
            bytes: (position.len() + len) as u64,
        }
    }

    /// What a stored record adds. Cost: one hash, nothing is copied.
    pub(super) fn weigh_stored(&self, position: &[u8], record: &[u8]) -> Result<Summary, RecordError> {
        let head = Head::decode(record)?;
        Ok(self.weigh(position, head.version, head.kind, record.len()))
    }
}

/// Whether the bytes of a well-formed position name a member: they end in `00 01`, after a part that says so. A
/// header ends in `00 01 01`, so its last two bytes are others.
fn is_member(position: &[u8]) -> bool {
    position.ends_with(&[0x00, 0x01])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use god_proto::{ids::KeyspaceId, ids::NodeId, position::Position, v1::Partitioner};

    #[test]
    fn a_summary_reads_back_as_it_was_written() {
        let summary = Summary { digest: 1 << 90, entries: 2, live_keys: 3, live_members: 4, bytes: u64::MAX };
        assert_eq!(Summary::decode(&summary.encode()), Some(summary));
        assert_eq!(Summary::decode(&[0; 47]), None);
        assert_eq!(Summary::decode(&[0; 49]), None);
        assert_eq!(Summary::try_from(peer::Summary::from(summary)), Ok(summary));
    }

    #[test]
    fn keys_members_and_headers_are_told_apart() {
        let scale = Scale::new(&[1; 16]);
        let version = Version::new(5, 0, NodeId(1));
        let own = Position::of_key(KeyspaceId(1), Partitioner::Ordered, b"a\0").unwrap();
        let stem = &own.as_bytes()[..own.as_bytes().len() - 1];
        let weigh = |position: &[u8], kind| scale.weigh(position, version, kind, 20);
        let counts = |s: Summary| (s.entries, s.live_keys, s.live_members);
        assert_eq!(counts(weigh(own.as_bytes(), Kind::Value)), (1, 1, 0));
        assert_eq!(counts(weigh(own.as_bytes(), Kind::Tombstone)), (1, 0, 0));
        assert_eq!(counts(weigh(&[stem, &[1]].concat(), Kind::Value)), (1, 0, 0));
        assert_eq!(counts(weigh(&[stem, b"\x02m\0\x01"].concat(), Kind::Value)), (1, 0, 1));
        assert_eq!(counts(weigh(&[stem, b"\x02m\0\x01"].concat(), Kind::Tombstone)), (1, 0, 0));
        assert_eq!(weigh(&[stem, b"\x02m\0\x01"].concat(), Kind::Value).bytes, (stem.len() + 4 + 20) as u64);
    }

    #[test]
    fn a_digest_depends_on_the_key_and_on_every_field_of_the_version() {
        let digest = |key, ms, counter, node| {
            Scale::new(&[key; 16])
                .weigh(b"p\0", Version::new(ms, counter, NodeId(node)), Kind::Value, 9)
                .digest
        };
        let all = [
            digest(1, 1, 1, 1),
            digest(2, 1, 1, 1),
            digest(1, 2, 1, 1),
            digest(1, 1, 2, 1),
            digest(1, 1, 1, 2),
        ];
        for (at, a) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|b| a != b));
        }
    }
}
