//! Decisions of a coordinator: which replicas are enough, what a write came to, whom to ask next.

mod hunt;
mod need;
mod sets;
mod tally;

pub use hunt::Hunt;
pub use need::{Need, Use};
pub use sets::{Mask, Sets, bits};
pub use tally::{MAX_ROUNDS, Outcome, Tally};
