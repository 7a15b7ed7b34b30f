//! Node-to-node calls.
//!
//! [`GrpcTransport`] calls, [`PeerDoor`] answers. Between two nodes there are a few connections each way, and on
//! each one a long-lived stream of frames ([`god_stream`]).

mod calls;
mod connection;
mod connections;
mod held;
mod hello;
mod meter;
mod server;
mod settings;
mod starts;
#[cfg(test)]
mod tests;
mod transport;

pub(crate) use held::{Damaged, Held, Told, from_entry, to_entry, weight};
pub use hello::Identity;
pub use server::PeerDoor;
pub(crate) use settings::BULK_BYTES;
pub use settings::PeerSettings;
pub use starts::{Meeting, Starts, Way, heard, told};
pub use transport::GrpcTransport;

use futures::future::BoxFuture;
use god_proto::{
    ids::NodeId,
    peer::{Failure, request, response},
};
use std::time::Duration;

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A node of the ring.
    Node(NodeId),
    /// Whoever listens at this host:port: for nodes that are in no ring yet.
    Address(String),
}

/// A call: what is asked, under which epoch, and for how long.
#[derive(Clone, Debug)]
pub struct Call {
    /// The caller's ring epoch where the answer depends on who holds what; else 0.
    pub epoch: u64,
    /// The latest epoch in which an arc that is touched changed, by the caller's ring (invariant ARC-EPOCH). 0: the
    /// answer depends on the whole ring.
    pub arcs: u64,
    /// After this long the caller has an answer, one way or the other.
    pub timeout: Duration,
    /// What is asked.
    pub body: request::Body,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// It was never sent: the other side cannot have acted on it.
    #[error("unreachable: {0}")]
    NotSent(String),
    /// The queue to that peer is full; it was never sent.
    #[error("too much is waiting for this peer")]
    QueueFull,
    /// It was sent and the connection broke: the other side may have acted on it.
    #[error("the connection broke: {0}")]
    Lost(String),
    /// It was sent and no answer came in time: the other side may act on it yet.
    #[error("no answer in time")]
    TimedOut,
    /// The other side answered that it did nothing (but see `CAUSE_STORAGE`).
    #[error("refused: {}", .0.message)]
    Refused(Failure),
}

impl CallError {
    /// Whether the other side may have acted, or may act yet.
    pub fn is_open(&self) -> bool {
        match self {
            CallError::NotSent(_) | CallError::QueueFull => false,
            CallError::Lost(_) | CallError::TimedOut => true,
            CallError::Refused(failure) => failure.cause() == god_proto::peer::Cause::Storage,
        }
    }
}

/// The network: the one way from node to node. Calls to the node itself go through it as well, and are answered in
/// place. Cheap to clone behind an `Arc`; every call ends by its timeout.
pub trait Transport: Send + Sync {
    /// Asks and waits for the answer.
    fn call(&self, to: Target, call: Call) -> BoxFuture<'static, Result<response::Body, CallError>>;

    /// Sends without waiting; lost where it cannot be sent at once.
    fn tell(&self, to: Target, epoch: u64, body: request::Body);

    /// Nothing more is wanted of an address for now: a connection to it that nobody waits for ends at once, not when it
    /// has been idle for long.
    fn leave(&self, _address: &str) {}
}

/// Answers calls: the node, seen from its doors to other nodes.
pub trait Handler: Send + Sync {
    /// Answers one request. `from` is the caller's number where it has one. Ends by `call.timeout`.
    fn handle(&self, from: Option<NodeId>, call: Call)
    -> BoxFuture<'static, Result<response::Body, Failure>>;
}

/// Makes a [`Failure`] from a cause and a sentence.
pub fn failure(cause: god_proto::peer::Cause, message: impl Into<String>) -> Failure {
    Failure { cause: cause.into(), message: message.into(), ..Failure::default() }
}

/// The refusal of a node that has no ring.
pub fn no_cluster() -> Failure {
    failure(god_proto::peer::Cause::NotMember, god_proto::answer::NO_CLUSTER)
}
