//! The radix index: digests, counts, rank and selection over any range of positions.
//!
//! - [`Store`]: the data with its index: writes, reads, views. The rest of the node uses this and [`View`].
//! - [`View`]: data and index as they were at one moment, and the questions that may be asked of them.
//! - [`Summary`]: what a range holds, in numbers that add up.
//! - `nibbles`: paths of half bytes; the names of buckets.
//! - `tree`, `grow`, `walk`: the tree above the buckets, in memory: pure, and shared between views.
//! - `changes`: what a group of changes does to buckets and their rows: pure.
//! - `rows`: buckets' rows in the index table; opening and rebuilding.
//! - `around`: scans that go on after what cannot be read.
//! - `mend`: what is known of records that cannot be read.
//! - `committer`: one writer at a time, for all that waits as a group; when that is synced.
//! - `writer`: groups of writes become one batch of data and rows.
//!
//! The shape of the tree depends on the history of writes. What it answers does not: only sums over ranges are
//! visible, and they are the same for every shape (invariant SHAPE-FREE); and where a range is best cut, which is not.

mod around;
mod cache;
mod changes;
mod committer;
mod gaps;
mod grow;
mod mend;
mod nibbles;
mod rows;
mod store;
mod summary;
mod tree;
mod view;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use committer::{CommitError, CommitterSettings};
pub use store::{Figures, Store, StoreSettings};
pub use summary::Summary;
pub use tree::Limits;
pub use view::View;
pub use writer::Verdict;
