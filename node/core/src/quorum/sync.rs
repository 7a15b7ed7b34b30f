//! What a coordinator asks of those who keep the ring.

use crate::peer::Target;
use futures::future::BoxFuture;
use god_proto::{
    ids::{KeyspaceId, NodeId},
    ring::Ring,
};
use std::sync::Arc;

/// The keepers of the ring, seen from a coordinator that meets a node of another epoch. Calls for the same thing at
/// the same time should share one exchange: many requests meet a new epoch at once.
pub trait RingSync: Send + Sync {
    /// Asks a node for its ring and takes it, if it is newer. Returns when that is done or has failed.
    fn fetch(&self, from: Target) -> BoxFuture<'static, ()>;

    /// Gives a ring to a node that has an older one. Returns when that is done or has failed.
    fn push(&self, to: NodeId, ring: Arc<Ring>) -> BoxFuture<'static, ()>;

    /// Makes sure that the current ring was the newest one at some moment since the call (invariant EMPTY-CONFIRMED).
    /// The error is a sentence for the client.
    fn confirm(&self) -> BoxFuture<'static, Result<(), String>>;

    /// Marks a keyspace as one that holds data, before its first write (invariant EMPTY-MOVES-FREE). When it returns
    /// `Ok`, the current ring says so. The error is a sentence for the client.
    fn make_live(&self, keyspace: KeyspaceId) -> BoxFuture<'static, Result<(), String>>;
}
