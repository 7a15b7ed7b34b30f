//! The hybrid logical clock: versions that grow with cause and with time, and never come twice.

mod clock;
mod eras;
mod hlc;
mod offsets;
mod trust;

pub use clock::{Clock, ClockError, FAR_MS, MAX_AHEAD_MS};
pub use offsets::{Offsets, Sample};
