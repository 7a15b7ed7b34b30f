//! The rules by which a node decides, without a disk, a network or a clock: everything is handed in, nothing waits.
//!
//! - [`ring`]: how rings change, and how data are dealt to nodes.
//! - [`quorum`]: which replicas are enough, what a write came to, whom to ask next.
//! - [`paxos`]: what an acceptor may say, and what a proposer must propose.
//! - [`starts`]: which process of a node is the node.
//! - [`version`]: the hybrid logical clock's steps, and how far peers' clocks are off.

pub mod paxos;
pub mod quorum;
pub mod ring;
pub mod starts;
#[cfg(test)]
mod testing;
pub mod version;
