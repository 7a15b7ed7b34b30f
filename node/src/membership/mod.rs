//! Who is there: gossip, liveness, and how a node finds its cluster.

mod liveness;

pub use liveness::{Liveness, PeerState};
