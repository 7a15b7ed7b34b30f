//! Which keys a scan or a count is about.

use bytes::Bytes;
use god_proto::v1::{KeyRange, key_range};
use std::ops;

/// A range of keys: any of the standard ranges over keys (`"a".."c"`, `"a"..="c"`, `"m"..`, `..`), or by steps:
///
/// ```
/// use god_client::Range;
///
/// let users = Range::prefix("user/").after("user/carol");
/// ```
///
/// In an ordered keyspace keys are in the order of their bytes; in a hashed one in the order of their hash, where a
/// prefix means nothing and is refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Range(KeyRange);

impl Range {
    /// All keys.
    pub fn all() -> Range {
        Range::default()
    }

    /// Keys that begin so. Bounds may be added: both then hold.
    pub fn prefix(prefix: impl Into<Bytes>) -> Range {
        Range(KeyRange { prefix: Some(prefix.into()), ..KeyRange::default() })
    }

    /// From this key up; takes the place of an earlier lower bound.
    #[must_use]
    pub fn from_key(mut self, key: impl Into<Bytes>) -> Range {
        self.0.lower = Some(key_range::Lower::From(key.into()));
        self
    }

    /// Above this key; takes the place of an earlier lower bound.
    #[must_use]
    pub fn after(mut self, key: impl Into<Bytes>) -> Range {
        self.0.lower = Some(key_range::Lower::After(key.into()));
        self
    }

    /// Below this key; takes the place of an earlier upper bound.
    #[must_use]
    pub fn before(mut self, key: impl Into<Bytes>) -> Range {
        self.0.upper = Some(key_range::Upper::Before(key.into()));
        self
    }

    /// Up to and with this key; takes the place of an earlier upper bound.
    #[must_use]
    pub fn through(mut self, key: impl Into<Bytes>) -> Range {
        self.0.upper = Some(key_range::Upper::Through(key.into()));
        self
    }

    pub(crate) fn wire(self) -> KeyRange {
        self.0
    }
}

impl From<KeyRange> for Range {
    fn from(range: KeyRange) -> Range {
        Range(range)
    }
}

impl<K: Into<Bytes>> From<ops::Range<K>> for Range {
    fn from(range: ops::Range<K>) -> Range {
        Range::all().from_key(range.start).before(range.end)
    }
}

impl<K: Into<Bytes>> From<ops::RangeInclusive<K>> for Range {
    fn from(range: ops::RangeInclusive<K>) -> Range {
        let (start, end) = range.into_inner();
        Range::all().from_key(start).through(end)
    }
}

impl<K: Into<Bytes>> From<ops::RangeFrom<K>> for Range {
    fn from(range: ops::RangeFrom<K>) -> Range {
        Range::all().from_key(range.start)
    }
}

impl<K: Into<Bytes>> From<ops::RangeTo<K>> for Range {
    fn from(range: ops::RangeTo<K>) -> Range {
        Range::all().before(range.end)
    }
}

impl<K: Into<Bytes>> From<ops::RangeToInclusive<K>> for Range {
    fn from(range: ops::RangeToInclusive<K>) -> Range {
        Range::all().through(range.end)
    }
}

impl From<ops::RangeFull> for Range {
    fn from(_: ops::RangeFull) -> Range {
        Range::all()
    }
}
