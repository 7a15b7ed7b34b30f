//! How many replicas must answer.

use god_proto::v1::{self, Level, consistency};

/// How many replicas must answer before a call counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// What the keyspace says.
    #[default]
    Keyspace,
    /// One: the fastest; a read may miss what was just written.
    One,
    /// More than half.
    Quorum,
    /// All: fails while any replica is away.
    All,
    /// So many, from 1 up.
    Count(u32),
}

impl Consistency {
    /// In the protocol's terms.
    pub(crate) fn wire(self) -> Option<v1::Consistency> {
        let named = |level: Level| consistency::Level::Named(level.into());
        let level = match self {
            Consistency::Keyspace => return None,
            Consistency::One => named(Level::One),
            Consistency::Quorum => named(Level::Quorum),
            Consistency::All => named(Level::All),
            Consistency::Count(count) => consistency::Level::Count(count),
        };
        Some(v1::Consistency { level: Some(level) })
    }

    /// How many that are of `replicas`, where the keyspace asks for `default`.
    pub(crate) fn count(self, replicas: u32, default: u32) -> u32 {
        match self {
            Consistency::Keyspace => default,
            Consistency::One => 1,
            Consistency::Quorum => replicas / 2 + 1,
            Consistency::All => replicas,
            Consistency::Count(count) => count,
        }
    }
}
