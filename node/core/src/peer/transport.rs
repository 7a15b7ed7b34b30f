//! Calls other nodes over gRPC, and this node in place.

use super::{
    Call, CallError, Handler, Target, Transport,
    connections::{Learned, PeerConnections, Route},
    hello::Identity,
    meter::Meter,
    settings::PeerSettings,
};
use crate::seam::Entropy;
use futures::{FutureExt, future::BoxFuture};
use god_proto::{
    ids::NodeId,
    peer::{request, response},
};
use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};
use tokio::time::timeout;

/// The real network.
///
/// A call is queued when [`Transport::call`] is called, not when its future is polled, and is sent even if the future
/// is dropped. (A call of the node to itself is not: dropping its future drops the handler's.) Connections are made
/// when there is something to send. While a peer cannot be reached, calls to it fail at once with the reason.
pub struct GrpcTransport {
    settings: Arc<PeerSettings>,
    identity: Arc<Identity>,
    entropy: Arc<Entropy>,
    local: OnceLock<Arc<dyn Handler>>,
    learned: Arc<Learned>,
    // To nodes of the ring only (MEMBERS-ONLY); those to bare addresses are bounded by the settings.
    nodes: RwLock<BTreeMap<NodeId, Arc<PeerConnections>>>,
    addresses: RwLock<BTreeMap<String, Arc<PeerConnections>>>,
}

impl GrpcTransport {
    /// Must be used within a tokio runtime. Metrics go to the recorder that is installed when a peer is first called.
    pub fn new(settings: PeerSettings, identity: Arc<Identity>, entropy: Arc<Entropy>) -> GrpcTransport {
        GrpcTransport {
            settings: Arc::new(settings),
            identity,
            entropy,
            local: OnceLock::new(),
            learned: Arc::default(),
            nodes: RwLock::default(),
            addresses: RwLock::default(),
        }
    }

    /// Says who answers calls of this node to itself. Counts once; until then such calls are not sent.
    pub fn set_local(&self, handler: Arc<dyn Handler>) {
        let _already_set = self.local.set(handler);
    }

    /// A node said that its peer door is at this host:port. Connections to another address of it are given up. A node
    /// that is not in the ring is not called, so its address is not noted.
    pub fn learn(&self, node: NodeId, address: String) {
        let Some(ring) = self.identity.ring().get().filter(|ring| ring.node(node).is_some()) else { return };
        let peer = self.nodes.read().get(&node).cloned();
        if self.learned.note(&ring, node, address)
            && let Some(peer) = peer
        {
            peer.moved();
        }
    }

    /// A node is there: ends the wait after failed connects to it.
    pub fn heard_from(&self, node: NodeId) {
        let peer = self.nodes.read().get(&node).cloned();
        if let Some(peer) = peer {
            peer.retry();
        }
    }

    /// Nodes and addresses that it keeps connections to.
    #[cfg(test)]
    pub(super) fn peers(&self) -> usize {
        self.nodes.read().len() + self.addresses.read().len()
    }

    fn peer(&self, to: &Target) -> Result<Arc<PeerConnections>, CallError> {
        match to {
            Target::Node(node) => {
                if let Some(peer) = self.nodes.read().get(node) {
                    return Ok(Arc::clone(peer));
                }
                let ring = self.identity.ring().get().filter(|ring| ring.node(*node).is_some());
                let Some(ring) = ring else {
                    let why = format!("node {node} is in no ring that this node knows");
                    return Err(CallError::NotSent(why));
                };
                let mut peers = self.nodes.write();
                peers.retain(|node, _| ring.node(*node).is_some());
                Ok(Arc::clone(peers.entry(*node).or_insert_with(|| self.connect(to))))
            }
            Target::Address(address) => {
                if let Some(peer) = self.addresses.read().get(address) {
                    return Ok(Arc::clone(peer));
                }
                let mut peers = self.addresses.write();
                if peers.len() >= self.settings.addresses && !peers.contains_key(address) {
                    let oldest = peers.iter().min_by_key(|(_, peer)| peer.used()).map(|(at, _)| at.clone());
                    oldest.and_then(|oldest| peers.remove(&oldest));
                }
                Ok(Arc::clone(peers.entry(address.clone()).or_insert_with(|| self.connect(to))))
            }
        }
    }

    fn connect(&self, to: &Target) -> Arc<PeerConnections> {
        Arc::new(PeerConnections::new(Route {
            target: to.clone(),
            settings: Arc::clone(&self.settings),
            identity: Arc::clone(&self.identity),
            entropy: Arc::clone(&self.entropy),
            learned: Arc::clone(&self.learned),
            meter: Meter::new(to),
        }))
    }

    fn is_self(&self, to: &Target) -> bool {
        matches!(to, Target::Node(node) if self.identity.number() == Some(*node))
    }

    fn call_local(&self, call: Call) -> BoxFuture<'static, Result<response::Body, CallError>> {
        let Some(handler) = self.local.get() else {
            return failed(CallError::NotSent("this node is not ready to answer".to_owned()));
        };
        let limit = call.timeout;
        let answer = handler.handle(self.identity.number(), call);
        async move {
            match timeout(limit, answer).await {
                Ok(answer) => answer.map_err(CallError::Refused),
                Err(_) => Err(CallError::TimedOut),
            }
        }
        .boxed()
    }
}

impl Transport for GrpcTransport {
    fn call(&self, to: Target, call: Call) -> BoxFuture<'static, Result<response::Body, CallError>> {
        if self.is_self(&to) {
            return self.call_local(call);
        }
        match self.peer(&to).and_then(|peer| peer.call(call)) {
            Ok(outcome) => outcome.map(lost_with_its_connection).boxed(),
            Err(error) => failed(error),
        }
    }

    fn tell(&self, to: Target, epoch: u64, body: request::Body) {
        if self.is_self(&to) {
            let answer = self.call_local(Call { epoch, arcs: 0, timeout: self.settings.tell_timeout, body });
            tokio::spawn(answer);
        } else if let Ok(peer) = self.peer(&to) {
            peer.tell(epoch, body);
        }
    }

    fn leave(&self, address: &str) {
        let mut addresses = self.addresses.write();
        if addresses.get(address).is_some_and(|peer| peer.is_unused()) {
            addresses.remove(address);
        }
    }
}

/// A connection answers every call before it ends; only the end of the runtime comes before that.
fn lost_with_its_connection<T>(
    outcome: Result<Result<T, CallError>, impl std::error::Error>,
) -> Result<T, CallError> {
    outcome.unwrap_or_else(|_| Err(CallError::Lost("this node stops".to_owned())))
}

fn failed(error: CallError) -> BoxFuture<'static, Result<response::Body, CallError>> {
    futures::future::ready(Err(error)).boxed()
}
