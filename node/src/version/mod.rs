//! The hybrid logical clock: versions that grow with cause and with time, and never come twice.

mod clock;
mod hlc;
mod offsets;

pub use clock::{Clock, ClockError, MAX_AHEAD_MS};
pub use offsets::{Offsets, Sample};
