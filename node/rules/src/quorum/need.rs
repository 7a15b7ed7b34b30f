//! How many replicas a call wants to hear from.

use god_proto::v1::Terms;

/// Which default holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// The keyspace's write quorum.
    Write,
    /// Its read quorum.
    Read,
}

/// How many replicas of a set a call wants to hear from. What that comes to is decided anew under each ring that the
/// call meets: while the number of copies changes, it is not the same for all arcs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// What the keyspace says.
    Default(Use),
    /// So many.
    Count(u32),
    /// More than half of the set.
    Majority,
    /// Each of the set.
    All,
}

impl Need {
    /// Of a set with these quorums.
    pub fn of(self, terms: Terms) -> u32 {
        match self {
            Need::Default(Use::Write) => terms.write_quorum,
            Need::Default(Use::Read) => terms.read_quorum,
            Need::Count(count) => count,
            Need::Majority => terms.replicas / 2 + 1,
            Need::All => terms.replicas,
        }
    }
}
