//! The small numbers that name things.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// The highest number of a node. The bit above it marks the end of a record, in versions.
pub const MAX_NODE: u32 = (1 << 31) - 1;

number!(
    /// A node's number within its cluster: given when it joins, from 1 up, never given twice.
    NodeId(u32)
);
number!(
    /// A keyspace's number: given when it is made, never given twice. The first four bytes of its positions.
    KeyspaceId(u32)
);
number!(
    /// An arc's number, for as long as the arc exists.
    ArcId(u64)
);
number!(
    /// The ring document's number: one more at each change. 0: no ring yet.
    Epoch(u64)
);
