//! Who a node is, and where it keeps that.

use super::EngineError;
use god_proto::ids::NodeId;
use parking_lot::Mutex;
use uuid::Uuid;

/// Who a node is. Its UUID is drawn with its data directory, the rest is known once it has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: Uuid,
    /// The cluster it is of, for ever.
    pub cluster: Option<Uuid>,
    /// Its number there.
    pub number: Option<NodeId>,
}

/// Where a node keeps who it is.
pub trait IdentityStore: Send + Sync {
    /// Who it is.
    fn load(&self) -> Identity;
    /// Remembers it, durably.
    fn save(&self, identity: Identity) -> Result<(), EngineError>;
}

/// An identity in memory, for the simulation. Survives crashes: it is synced whenever it is saved.
pub struct SimulatedIdentity(Mutex<Identity>);

impl SimulatedIdentity {
    /// A new node's.
    pub fn new(node: Uuid) -> SimulatedIdentity {
        SimulatedIdentity(Mutex::new(Identity { node, cluster: None, number: None }))
    }
}

impl IdentityStore for SimulatedIdentity {
    fn load(&self) -> Identity {
        *self.0.lock()
    }

    fn save(&self, identity: Identity) -> Result<(), EngineError> {
        *self.0.lock() = identity;
        Ok(())
    }
}
