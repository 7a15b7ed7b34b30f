//! A node of GoD: an ordered, replicated key-value store.
//!
//! A request goes down `doors → quorum → peer → replica → radix → engine` and its answer comes back the same way.
//! `docs/ARCHITECTURE.md` describes the rooms and names the invariants that comments here refer to.

pub mod budget;
pub mod connections;
pub mod consensus;
pub mod doors;
pub mod engine;
pub mod membership;
pub mod node;
pub mod peer;
pub mod quorum;
pub mod radix;
pub mod replica;
pub mod ring;
pub mod seam;
pub mod settings;
pub mod stop;
pub mod upkeep;
pub mod version;
