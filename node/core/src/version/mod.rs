//! The hybrid logical clock: versions that grow with cause and with time, and never come twice.

mod clock;
mod fault;
mod trust;

pub use clock::{Clock, SURE_MS};
pub use fault::ClockError;
pub use god_rules::version::{FAR_MS, Offsets, Sample};
