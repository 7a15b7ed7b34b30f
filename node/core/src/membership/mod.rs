//! Who is there: gossip, liveness, and how a node finds its cluster.

mod discovery;
mod gossip;
mod join;
mod liveness;
mod member;
mod newer;
mod pinger;
#[cfg(test)]
mod tests;

pub use discovery::{AsGiven, Dns, Resolver, candidates};
pub use gossip::{AddressListener, Gossip, GossipHandle, GossipSettings};
pub use join::{JoinError, Joined, Joining, find_cluster, homes, introduce};
pub use liveness::{Liveness, Peer, PeerState};
pub use member::GossipIdentity;
pub use newer::{NewerRing, NewerRingListener};
pub use pinger::{Pinger, pong};
