//! Decisions of a coordinator: which replicas are enough, what a write came to, whom to ask next.

mod need;
mod replicas;
mod selector;
mod tally;
#[cfg(test)]
mod tests;

pub use need::{Need, Use};
pub use replicas::{JointReplicas, ReplicaMask, bits};
pub use selector::ReplicaSelector;
pub use tally::{MAX_ROUNDS, Tally, WriteOutcome};
