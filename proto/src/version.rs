//! When and where a record was written.

use crate::{
    ids::{MAX_NODE, NodeId},
    v1,
};
use std::{cmp::Ordering, fmt};

/// A hybrid-logical-clock time and the node that stamped it: totally ordered, and unique for ever.
///
/// Twelve bytes, big endian: 48 bits of milliseconds since 1970, 16 bits of counter, 32 bits of node number.
/// Equal versions mean equal content (invariant VERSION-UNIQUE). After Kulkarni et al., *Logical Physical Clocks*
/// (2014), section 4.
///
/// Right above each version there is another one, with the highest bit of the node's number set: the deletion that
/// takes the place of a record when its time is up. Whoever knows the record can tell it, so that all replicas come to
/// the same one by themselves (invariant EXPIRY-DERIVED).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version {
    /// Milliseconds in the upper 48 bits, counter in the lower 16.
    pub time: u64,
    /// Who stamped it.
    pub node: NodeId,
}

/// In the number of the node: what is there is the end of a record's time.
const EXPIRY: u32 = MAX_NODE + 1;

impl Version {
    /// Bytes of an encoded version.
    pub const SIZE: usize = 12;
    /// Below every version that was ever stamped.
    pub const ZERO: Version = Version { time: 0, node: NodeId(0) };

    /// A version from its parts; `ms` must fit in 48 bits (until the year 10889).
    pub fn new(ms: u64, counter: u16, node: NodeId) -> Version {
        Version { time: ms << 16 | u64::from(counter), node }
    }

    /// Milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.time >> 16
    }

    /// Orders versions of the same millisecond on the same node.
    pub fn counter(self) -> u16 {
        self.time as u16
    }

    /// That of the deletion which follows from the end of a record's time: above its version, and below all others.
    #[must_use]
    pub fn expiry(self) -> Version {
        Version { time: self.time, node: NodeId(self.node.0 | EXPIRY) }
    }

    /// Whether it is of the end of a record's time.
    pub fn is_expiry(self) -> bool {
        self.node.0 & EXPIRY != 0
    }

    /// That of the record whose time ended, or this one.
    #[must_use]
    pub fn stamped(self) -> Version {
        Version { time: self.time, node: NodeId(self.node.0 & !EXPIRY) }
    }

    /// The bytes as stored; their order is the versions' order, but for those of [`Version::expiry`].
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.time.to_be_bytes());
        bytes[8..].copy_from_slice(&self.node.0.to_be_bytes());
        bytes
    }

    /// The inverse of [`Version::encode`]; `None` unless there are exactly twelve bytes.
    pub fn decode(bytes: &[u8]) -> Option<Version> {
        let (time, node) = bytes.split_first_chunk::<8>()?;
        let node: &[u8; 4] = node.try_into().ok()?;
        Some(Version { time: u64::from_be_bytes(*time), node: NodeId(u32::from_be_bytes(*node)) })
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        let by = |version: &Version| (version.time, version.node.0 & !EXPIRY, version.is_expiry());
        by(self).cmp(&by(other))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_expiry() { " expired" } else { "" };
        write!(f, "{}.{}@{}{end}", self.ms(), self.counter(), self.stamped().node)
    }
}

impl From<Version> for v1::Version {
    fn from(version: Version) -> v1::Version {
        v1::Version { time: version.time, node: version.node.0 }
    }
}

impl From<v1::Version> for Version {
    fn from(version: v1::Version) -> Version {
        Version { time: version.time, node: NodeId(version.node) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn encoded_versions_sort_as_versions_do(a: (u64, u32), b: (u64, u32)) {
            let of = |(time, node)| Version { time, node: NodeId(node & !EXPIRY) };
            prop_assert_eq!(of(a).cmp(&of(b)), of(a).encode().cmp(&of(b).encode()));
            prop_assert_eq!(Version::decode(&of(a).encode()), Some(of(a)));
        }
    }

    proptest! {
        #[test]
        fn nothing_lies_between_a_version_and_the_end_of_its_time(a: (u64, u32), b: (u64, u32)) {
            let of = |(time, node)| Version { time, node: NodeId(node & !EXPIRY) };
            let (a, b) = (of(a), of(b));
            prop_assert!(a < a.expiry() && a.expiry().is_expiry() && !a.is_expiry());
            prop_assert_eq!((a.expiry().stamped(), a.expiry().expiry()), (a, a.expiry()));
            prop_assert_eq!(Version::decode(&a.expiry().encode()), Some(a.expiry()));
            if a != b {
                prop_assert_eq!(a.cmp(&b), a.expiry().cmp(&b));
                prop_assert_eq!(a.cmp(&b), a.expiry().cmp(&b.expiry()));
            }
        }
    }

    #[test]
    fn a_version_of_the_wrong_length_is_refused() {
        assert_eq!(Version::decode(&[0; 11]), None);
        assert_eq!(Version::decode(&[0; 13]), None);
    }
}
