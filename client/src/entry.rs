//! What is read and what is acknowledged.

use bytes::Bytes;
use god_proto::{v1, version::Version};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A value as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The bytes.
    pub value: Bytes,
    /// When and where it was written.
    pub version: Version,
    /// When it expires, to the millisecond; `None`: never.
    pub expires_at: Option<SystemTime>,
}

/// What a read of one key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is there.
    Found(Value),
    /// It is not there.
    Missing {
        /// The version of its deletion; `None`: it never was there, or its deletion is forgotten.
        deleted: Option<Version>,
    },
}

impl Lookup {
    /// The version of what is there, or of what was deleted.
    pub fn version(&self) -> Option<Version> {
        match self {
            Lookup::Found(value) => Some(value.version),
            Lookup::Missing { deleted } => *deleted,
        }
    }
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value; empty where only keys were asked for.
    pub value: Bytes,
    /// When and where it was written.
    pub version: Version,
    /// When it expires, to the millisecond; `None`: never.
    pub expires_at: Option<SystemTime>,
}

/// A write that is on as many replicas as asked, or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its version: unique, and above every version that its coordinator knew of.
    pub version: Version,
    /// Replicas that acknowledged it by the time of the answer.
    pub acks: u32,
}

/// Where a key stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Keys before it.
    pub rank: u64,
    /// Whether it is there; the rank of one that is not is where it would be.
    pub exists: bool,
}

impl From<v1::Found> for Value {
    fn from(found: v1::Found) -> Value {
        Value {
            value: found.value,
            version: version(found.version),
            expires_at: expires_at(found.expires_at_ms),
        }
    }
}

impl From<v1::KeyValue> for Entry {
    fn from(entry: v1::KeyValue) -> Entry {
        Entry {
            key: entry.key,
            value: entry.value,
            version: version(entry.version),
            expires_at: expires_at(entry.expires_at_ms),
        }
    }
}

impl From<v1::Committed> for Written {
    fn from(committed: v1::Committed) -> Written {
        Written { version: version(committed.version), acks: committed.acks }
    }
}

fn version(version: Option<v1::Version>) -> Version {
    version.map_or(Version::ZERO, Version::from)
}

fn expires_at(ms: u64) -> Option<SystemTime> {
    if ms == 0 { None } else { UNIX_EPOCH.checked_add(Duration::from_millis(ms)) }
}
