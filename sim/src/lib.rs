//! Deterministic simulation of GoD clusters. What their clients saw is judged by `god_history`.
//!
//! A whole cluster runs in one thread on seeded time, network, disk and randomness: the same seed gives the same
//! run, event by event. The nodes are the real ones, from the coordinator down to the radix index; only the four
//! seams are replaced. `tokio`'s paused clock carries time, an in-memory network carries the peers' messages, and a
//! simulated engine loses its unsynced tail at a crash.

pub mod calm;
pub mod client;
pub mod clock;
pub mod faults;
mod finale;
pub mod lies;
pub mod network;
mod panics;
pub mod run;
pub mod seeds;
mod survey;
pub mod trace;
pub mod world;
