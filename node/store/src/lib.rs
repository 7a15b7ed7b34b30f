//! The store of a node, over whatever keeps bytes in order.
//!
//! - [`radix`]: last write wins, under an index that knows digests and counts of any range.
//! - [`engine`]: the seam to what is below, and the simulated engine behind it.
//! - [`seam`]: time, randomness and blocking work, as handed in.

pub mod engine;
pub mod radix;
pub mod seam;
