//! Versions that grow with cause and with time: the rules of the hybrid logical clock, and estimates of peers' clocks.

mod eras;
mod hlc;
mod offsets;

pub use eras::{Eras, MOST as MOST_ERAS};
pub use hlc::Hlc;
pub use offsets::{Offsets, Sample};

/// A version further ahead than this, in milliseconds, is taken to be a wrong clock's: it is not read and stands in
/// nobody's way (invariant FAR-IS-NOT-THERE). Much more than clocks may be apart, so that what enough replicas took
/// in while several clocks were off by less is read; and what a clock that is set back is waited for at most.
pub const FAR_MS: u64 = 10_000;
