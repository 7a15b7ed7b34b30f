//! A node of GoD, an ordered, replicated key-value store, but for its disk, which is handed in.
//!
//! A request goes down `doors → quorum → peer → replica`, and from there through the crates below,
//! `radix → engine`; its answer comes back the same way. `docs/ARCHITECTURE.md` describes the rooms and names the
//! invariants that comments here refer to.

pub mod budget;
pub mod connections;
pub mod consensus;
pub mod doors;
pub mod membership;
pub mod node;
pub mod peer;
pub mod quorum;
pub mod replica;
pub mod ring;
pub mod stop;
pub mod upkeep;
pub mod version;

pub use god_store::{engine, radix, seam};
