//! Versions that grow with cause and with time: the rules of the hybrid logical clock, and estimates of peers' clocks.

mod hlc;
mod offsets;

pub use hlc::Hlc;
pub use offsets::{Offsets, Sample};

/// A version further ahead of a node's clock than this is refused, in milliseconds (invariant CLOCK-BOUND).
pub const MAX_AHEAD_MS: u64 = 500;
