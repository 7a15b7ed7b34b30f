//! What clients of a cluster did and saw, and whether the store kept its word. Simulated clusters and real processes
//! alike are judged by it.

mod checker;
mod history;

pub use checker::*;
pub use history::*;
