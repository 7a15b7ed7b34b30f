//! All connections to one peer, and how to find it.

use super::{
    Call, CallError, Target,
    calls::{CallResult, Caller, PeerCall, Waiting},
    connection::Connection,
    hello::Identity,
    meter::{Meter, SAMPLE},
    settings::{ENVELOPE, PeerSettings},
    starts::Answering,
};
use crate::seam::Entropy;
use god_proto::{
    MAX_MESSAGE,
    ids::NodeId,
    peer::{Hello, request},
    ring::Ring,
};
use god_stream::{backoff, pick};
use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// From this many positions on a read counts as bulk.
const BULK_POSITIONS: usize = 64;
/// No call lasts longer.
const LONGEST: Duration = Duration::from_hours(1);

/// Addresses that nodes said they have, newer than the ring's.
#[derive(Default)]
pub(super) struct Learned(RwLock<BTreeMap<NodeId, String>>);

impl Learned {
    /// Notes the address of a node of the ring; says whether it is new. Nodes that left are forgotten.
    pub fn note(&self, ring: &Ring, node: NodeId, address: String) -> bool {
        let mut learned = self.0.write();
        if learned.get(&node) == Some(&address) {
            return false;
        }
        learned.retain(|node, _| ring.node(*node).is_some());
        learned.insert(node, address);
        true
    }

    fn get(&self, node: NodeId) -> Option<String> {
        self.0.read().get(&node).cloned()
    }
}

/// What the connections to one peer have in common.
pub(super) struct Route {
    pub target: Target,
    pub settings: Arc<PeerSettings>,
    pub identity: Arc<Identity>,
    pub entropy: Arc<Entropy>,
    pub learned: Arc<Learned>,
    pub meter: Meter,
}

impl Route {
    /// Where to connect to. What the node said lately goes first, the ring's word second; after a failure the other.
    pub fn address(&self, failures: usize) -> Result<String, String> {
        let node = match &self.target {
            Target::Address(address) => return Ok(address.clone()),
            Target::Node(node) => *node,
        };
        let ring = self.identity.ring().peer_address(node);
        let mut known = vec![];
        known.extend(self.learned.get(node));
        known.extend(ring.filter(|address| !known.contains(address)));
        known.retain(|address| !address.is_empty());
        let count = known.len().max(1);
        known.into_iter().nth(failures % count).ok_or_else(|| format!("no address of {self} is known"))
    }

    /// Whether an address is no longer the best one.
    pub fn moved_from(&self, address: &str) -> bool {
        self.address(0).is_ok_and(|best| best != address)
    }

    /// Whether it is the one that is meant.
    pub fn accepts(&self, hello: &Hello) -> Result<Answering, String> {
        self.identity.accepts(hello)?;
        match self.target {
            Target::Node(node) => self.identity.is_node(node, hello),
            Target::Address(_) => Ok(Answering::nobody()),
        }
    }

    /// Nobody is there, or whoever was is there no more.
    pub fn is_away(&self) {
        if let Target::Node(node) = self.target {
            self.identity.starts().looked_for(node);
        }
    }

    /// How long to wait after so many failed connects: twice as long each time, and half of it at random, so that
    /// nodes do not come back in step.
    pub fn backoff(&self, failures: u32) -> Duration {
        let half = backoff(self.settings.backoff_min, self.settings.backoff_max, failures) / 2;
        half + Duration::from_micros(self.entropy.below(half.as_micros() as u64))
    }

    /// How long a connection may be unused.
    pub fn idle_after(&self) -> Duration {
        match self.target {
            Target::Node(_) => self.settings.node_idle,
            Target::Address(_) => self.settings.address_idle,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Node(node) => write!(f, "node {node}"),
            Target::Address(_) => f.write_str("the node"),
        }
    }
}

/// See the module.
pub(super) struct PeerConnections {
    route: Arc<Route>,
    connections: Vec<Arc<Connection>>,
    calls: AtomicU64,
}

impl PeerConnections {
    /// They connect when there is something to send.
    pub fn new(route: Route) -> PeerConnections {
        let route = Arc::new(route);
        let connections = (0..route.settings.connections.max(1))
            .map(|number| Connection::start(Arc::clone(&route), number))
            .collect();
        PeerConnections { route, connections, calls: AtomicU64::new(0) }
    }

    /// Queues a call; the outcome arrives by its deadline.
    pub fn call(&self, call: Call) -> Result<oneshot::Receiver<CallResult>, CallError> {
        let (reply, outcome) = oneshot::channel();
        let pushed = self.push(call, Some(reply));
        self.route.meter.calls.increment(1);
        pushed.inspect_err(|error| self.route.meter.error(error)).map(|()| outcome)
    }

    /// Queues something that wants no answer.
    pub fn tell(&self, epoch: u64, body: request::Body) {
        let call = Call { epoch, arcs: 0, timeout: self.route.settings.tell_timeout, body };
        if let Err(error) = self.push(call, None) {
            self.route.meter.error(&error);
        }
    }

    fn push(&self, call: Call, reply: Option<oneshot::Sender<CallResult>>) -> Result<(), CallError> {
        let Call { epoch, arcs, timeout, body } = call;
        let bytes = body.encoded_len();
        if bytes + ENVELOPE > MAX_MESSAGE {
            return Err(CallError::NotSent(format!(
                "a request of {bytes} bytes is too large, the most is {}",
                MAX_MESSAGE - ENVELOPE
            )));
        }
        let now = Instant::now();
        let timed = self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE).then_some(now);
        let is_big = bytes >= self.route.settings.bulk_bytes || is_bulk(&body);
        let connection = pick(&self.connections, is_big, |connection| connection.calls.load())
            .ok_or_else(|| CallError::NotSent("no connection".to_owned()))?;
        let deadline = now + timeout.min(LONGEST);
        let caller = reply.map(|reply| Caller { reply, timed });
        connection.push(Waiting { call: PeerCall { epoch, arcs, body }, bytes, deadline, caller }, now)
    }

    /// Whether nobody waits for anything of it.
    pub fn is_unused(&self) -> bool {
        self.connections.iter().all(|connection| connection.calls.load() == 0)
    }

    /// When the peer was last called.
    pub fn used(&self) -> Option<Instant> {
        self.connections.iter().map(|connection| connection.used()).max()
    }

    /// The peer may be back.
    pub fn retry(&self) {
        for connection in &self.connections {
            connection.retry();
        }
    }

    /// The peer has another address.
    pub fn moved(&self) {
        for connection in &self.connections {
            connection.moved();
        }
    }
}

impl Drop for PeerConnections {
    fn drop(&mut self) {
        for connection in &self.connections {
            connection.calls.close();
        }
    }
}

/// Whether answering may take long or much, whatever the size of the question.
fn is_bulk(body: &request::Body) -> bool {
    match body {
        request::Body::Scan(_) | request::Body::Summarize(_) | request::Body::GetRing(_) => true,
        request::Body::Read(read) => read.positions.len() >= BULK_POSITIONS || read.largest_bytes == 0,
        _ => false,
    }
}
