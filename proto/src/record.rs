//! What stands at a position.

use crate::{peer, position::Position, version::Version};
use bytes::{BufMut, Bytes, BytesMut};

/// Whether a record holds a value or remembers a deletion. More kinds may come; an unknown one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A value, perhaps empty.
    Value,
    /// A deletion: it wins over older values wherever it meets them.
    Tombstone,
}

/// A version of what stands at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When and where it was written; the newer record wins.
    pub version: Version,
    /// Value or deletion.
    pub kind: Kind,
    /// Milliseconds since 1970 from which it is no longer read. Of a tombstone: it is the end of a record's time, and
    /// this is when that was.
    pub expires_at_ms: Option<u64>,
    /// The value; empty for a tombstone.
    pub value: Bytes,
}

/// A record and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub position: Position,
    /// What.
    pub record: Record,
}

/// Bytes that are not a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a record: {0}")]
pub struct RecordError(pub &'static str);

const KIND_VALUE: u8 = 0;
const KIND_TOMBSTONE: u8 = 1;
const FLAG_EXPIRES: u8 = 0x80;

impl Record {
    /// A value that does not expire.
    pub fn value(version: Version, value: impl Into<Bytes>) -> Record {
        Record { version, kind: Kind::Value, expires_at_ms: None, value: value.into() }
    }

    /// A deletion.
    pub fn tombstone(version: Version) -> Record {
        Record { version, kind: Kind::Tombstone, expires_at_ms: None, value: Bytes::new() }
    }

    /// Whether this is a value, expired or not: what the index counts.
    pub fn is_live(&self) -> bool {
        self.kind == Kind::Value
    }

    /// Whether a reader at `now_ms` sees a value.
    pub fn is_visible(&self, now_ms: u64) -> bool {
        self.is_live() && self.expires_at_ms.is_none_or(|at| now_ms < at)
    }

    /// The deletion that takes the place of a value whose time is up at `now_ms`; `None`: it is not, or there is no
    /// value. It follows from the record alone, whoever says so and whenever (invariant EXPIRY-DERIVED).
    pub fn ended(&self, now_ms: u64) -> Option<Record> {
        let ended = self.is_live() && !self.is_visible(now_ms);
        ended.then(|| Record {
            version: self.version.expiry(),
            kind: Kind::Tombstone,
            expires_at_ms: self.expires_at_ms,
            value: Bytes::new(),
        })
    }

    /// Whether the version goes with what it is of: the end of a record is a deletion that says when, and nothing else
    /// is.
    pub fn is_sound(&self) -> bool {
        let (deletes, ends) = (self.kind == Kind::Tombstone, self.version.is_expiry());
        match (deletes, ends) {
            (true, true) => self.value.is_empty() && self.expires_at_ms.is_some(),
            (true, false) => self.value.is_empty() && self.expires_at_ms.is_none(),
            (false, ends) => !ends,
        }
    }

    /// The bytes as stored: kind and flags (1), version (12), expiry (8, if flagged), value.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode_to(&mut out);
        out.freeze()
    }

    /// Length of [`Record::encode`]'s answer.
    pub fn encoded_len(&self) -> usize {
        1 + Version::SIZE + if self.expires_at_ms.is_some() { 8 } else { 0 } + self.value.len()
    }

    /// Appends the bytes of [`Record::encode`].
    pub fn encode_to(&self, out: &mut impl BufMut) {
        let kind = match self.kind {
            Kind::Value => KIND_VALUE,
            Kind::Tombstone => KIND_TOMBSTONE,
        };
        out.put_u8(kind | if self.expires_at_ms.is_some() { FLAG_EXPIRES } else { 0 });
        out.put_slice(&self.version.encode());
        if let Some(at) = self.expires_at_ms {
            out.put_u64(at);
        }
        out.put_slice(&self.value);
    }

    /// The inverse of [`Record::encode`]; the value shares `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Record, RecordError> {
        let head = Head::decode(bytes)?;
        Ok(Record {
            version: head.version,
            kind: head.kind,
            expires_at_ms: head.expires_at_ms,
            value: bytes.slice(head.value_at..),
        })
    }
}

/// A record without its value: what the index and a merge need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// See [`Record::version`].
    pub version: Version,
    /// See [`Record::kind`].
    pub kind: Kind,
    /// See [`Record::expires_at_ms`].
    pub expires_at_ms: Option<u64>,
    /// Where the value starts in the stored bytes.
    pub value_at: usize,
}

impl Head {
    /// Reads the head of a stored record without copying.
    pub fn decode(bytes: &[u8]) -> Result<Head, RecordError> {
        let (&first, rest) = bytes.split_first().ok_or(RecordError("it is empty"))?;
        let kind = match first & !FLAG_EXPIRES {
            KIND_VALUE => Kind::Value,
            KIND_TOMBSTONE => Kind::Tombstone,
            _ => return Err(RecordError("its kind is not known to this version")),
        };
        let version = rest.get(..Version::SIZE).and_then(Version::decode);
        let version = version.ok_or(RecordError("it ends within its version"))?;
        let mut value_at = 1 + Version::SIZE;
        let expires_at_ms = if first & FLAG_EXPIRES == 0 {
            None
        } else {
            let at = bytes.get(value_at..).and_then(|rest| rest.first_chunk::<8>());
            value_at += 8;
            Some(u64::from_be_bytes(*at.ok_or(RecordError("it ends within its expiry"))?))
        };
        Ok(Head { version, kind, expires_at_ms, value_at })
    }
}

impl From<Entry> for peer::Entry {
    fn from(entry: Entry) -> peer::Entry {
        let mut message = peer::Entry::from(entry.record);
        message.position = entry.position.into_bytes();
        message
    }
}

impl From<Record> for peer::Entry {
    /// An entry message without a position.
    fn from(record: Record) -> peer::Entry {
        peer::Entry {
            position: Bytes::new(),
            version: Some(record.version.into()),
            kind: match record.kind {
                Kind::Value => peer::Kind::Value,
                Kind::Tombstone => peer::Kind::Tombstone,
            }
            .into(),
            expires_at_ms: record.expires_at_ms.unwrap_or(0),
            value: record.value,
            withheld_bytes: 0,
        }
    }
}

/// What a peer sent: `None` where it has nothing (the message has no version).
impl TryFrom<peer::Entry> for Option<Record> {
    type Error = RecordError;

    fn try_from(message: peer::Entry) -> Result<Option<Record>, RecordError> {
        let Some(version) = message.version else { return Ok(None) };
        if message.withheld_bytes != 0 {
            return Err(RecordError("its value was left out"));
        }
        let kind = match peer::Kind::try_from(message.kind) {
            Ok(peer::Kind::Value) => Kind::Value,
            Ok(peer::Kind::Tombstone) => Kind::Tombstone,
            Ok(peer::Kind::Damaged) => return Err(RecordError("it is damaged where it was read")),
            Err(_) => return Err(RecordError("its kind is not known to this version")),
        };
        let expires_at_ms = (message.expires_at_ms != 0).then_some(message.expires_at_ms);
        let record = Record { version: version.into(), kind, expires_at_ms, value: message.value };
        match record.is_sound() {
            true => Ok(Some(record)),
            false => Err(RecordError(
                "a deletion carries a value or an expiry, or its version is of an end that it does not say",
            )),
        }
    }
}

impl TryFrom<peer::Entry> for Entry {
    type Error = RecordError;

    fn try_from(mut message: peer::Entry) -> Result<Entry, RecordError> {
        let position = Position::from_bytes(std::mem::take(&mut message.position));
        let record = Option::<Record>::try_from(message)?.ok_or(RecordError("it has no version"))?;
        Ok(Entry { position, record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = Record> {
        (any::<u64>(), any::<u32>(), any::<bool>(), any::<Option<u64>>(), any::<Vec<u8>>()).prop_map(
            |(time, node, live, expires_at_ms, value)| Record {
                version: Version { time, node: NodeId(node) },
                kind: if live { Kind::Value } else { Kind::Tombstone },
                expires_at_ms,
                value: value.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(record in records()) {
            let bytes = record.encode();
            prop_assert_eq!(bytes.len(), record.encoded_len());
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
        }

        #[test]
        fn the_end_of_a_record_follows_from_it_alone(record in records(), now_ms: u64, later: u64) {
            let version = record.version.stamped();
            let record = Record { kind: Kind::Value, version, ..record };
            let ended = record.ended(now_ms);
            prop_assert_eq!(ended.is_some(), record.expires_at_ms.is_some_and(|at| at <= now_ms));
            if let Some(ended) = ended {
                prop_assert!(ended.version > record.version && ended.is_sound() && !ended.is_live());
                prop_assert_eq!(record.ended(now_ms.max(later)), Some(ended.clone()));
                prop_assert_eq!(ended.ended(u64::MAX), None);
                prop_assert_eq!(Record::decode(&ended.encode()), Ok(ended));
            }
        }

        #[test]
        fn what_a_peer_sends_is_a_sound_record_or_an_error(record in records()) {
            let heard = Option::<Record>::try_from(peer::Entry::from(record.clone()));
            match record.is_sound() {
                // 0 is none on the wire.
                true if record.expires_at_ms == Some(0) => {}
                true => prop_assert_eq!(heard, Ok(Some(record))),
                false => prop_assert!(heard.is_err() || record.expires_at_ms == Some(0)),
            }
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes: Vec<u8>) {
            if let Ok(record) = Record::decode(&Bytes::from(bytes.clone())) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }
    }
}
