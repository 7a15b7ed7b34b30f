//! Nodes whose calls reach each other at once, are refused, or hang.

use crate::{
    membership::GossipHandle,
    peer::{Call, CallError, Target, Transport, failure},
    ring::CurrentRing,
    seam::{Entropy, Offload, Seams, Wall},
};
use futures::{FutureExt, future::BoxFuture};
use god_proto::{
    ids::NodeId,
    peer::{Cause, Pong, request, response},
    ring::Ring,
    v1::{Member, RingDocument},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{self, Instant};
use uuid::Uuid;

pub const CLUSTER: Uuid = Uuid::from_u128(99);

pub fn uuid_of(node: u32) -> Uuid {
    Uuid::from_u128(u128::from(node))
}

pub fn address_of(node: u32) -> String {
    format!("node{node}:1")
}

pub fn document(epoch: u64, nodes: u32) -> RingDocument {
    let node = |number: u32| Member {
        number,
        uuid: uuid_of(number).as_bytes().to_vec().into(),
        peer_address: address_of(number),
        weight: 1.0,
        ..Member::default()
    };
    RingDocument {
        format: 1,
        cluster: CLUSTER.as_bytes().to_vec().into(),
        epoch,
        voters: vec![1],
        nodes: (1..=nodes).map(node).collect(),
        next_node: nodes + 1,
        next_keyspace: 1,
        next_arc: 1,
        virtual_nodes: 1,
        ..RingDocument::default()
    }
}

pub fn ring_of(nodes: u32) -> CurrentRing {
    let ring = CurrentRing::default();
    assert!(ring.advance(Arc::new(Ring::new(document(1, nodes)).unwrap())));
    ring
}

/// A wall that goes with tokio's time, so much off.
pub struct SkewedWall {
    start: Instant,
    ahead_us: i64,
}

impl SkewedWall {
    pub fn ahead(start: Instant, ms: i64) -> SkewedWall {
        SkewedWall { start, ahead_us: ms * 1_000 }
    }
}

impl Wall for SkewedWall {
    fn now_us(&self) -> u64 {
        1_700_000_000_000_000u64.saturating_add_signed(self.ahead_us)
            + self.start.elapsed().as_micros() as u64
    }
}

pub fn seams(seed: u64, wall: SkewedWall) -> Seams {
    Seams { wall: Arc::new(wall), entropy: Arc::new(Entropy::seeded(seed)), offload: Offload::Inline }
}

#[derive(Default)]
pub struct Net {
    pub walls: Mutex<BTreeMap<u32, Arc<dyn Wall>>>,
    pub epochs: Mutex<BTreeMap<u32, u64>>,
    pub gossips: Mutex<BTreeMap<u32, GossipHandle>>,
    pub silent: Mutex<BTreeSet<u32>>,
    pub pings: Mutex<BTreeMap<u32, usize>>,
}

impl Net {
    /// The network as one node sees it.
    pub fn port(self: &Arc<Net>, node: u32) -> Arc<dyn Transport> {
        Arc::new(Port { net: Arc::clone(self), node })
    }

    pub fn silence(&self, node: u32, silent: bool) {
        let mut all = self.silent.lock();
        if silent {
            all.insert(node)
        } else {
            all.remove(&node)
        };
    }
}

struct Port {
    net: Arc<Net>,
    node: u32,
}

fn number(to: &Target) -> Option<u32> {
    match to {
        Target::Node(node) => Some(node.0),
        Target::Address(address) => address.strip_prefix("node")?.strip_suffix(":1")?.parse().ok(),
    }
}

impl Transport for Port {
    fn call(&self, to: Target, call: Call) -> BoxFuture<'static, Result<response::Body, CallError>> {
        let (net, from, to) = (Arc::clone(&self.net), self.node, number(&to).unwrap());
        async move {
            let silent = {
                let silent = net.silent.lock();
                silent.contains(&to) || silent.contains(&from)
            };
            if silent {
                time::sleep(call.timeout).await;
                return Err(CallError::TimedOut);
            }
            *net.pings.lock().entry(to).or_default() += 1;
            time::sleep(Duration::from_millis(1)).await;
            let Some(wall) = net.walls.lock().get(&to).cloned() else {
                return Err(CallError::Refused(failure(Cause::NotMember, "no clock")));
            };
            let (received_us, epoch) = (wall.now_us(), net.epochs.lock().get(&to).copied().unwrap_or(1));
            time::sleep(Duration::from_millis(1)).await;
            Ok(response::Body::Pong(Pong { received_us, replied_us: received_us, epoch, ready: true }))
        }
        .boxed()
    }

    fn tell(&self, to: Target, _epoch: u64, body: request::Body) {
        let (net, from, to) = (Arc::clone(&self.net), self.node, number(&to).unwrap());
        let request::Body::Gossip(datagram) = body else { panic!("{body:?}") };
        tokio::spawn(async move {
            time::sleep(Duration::from_millis(1)).await;
            let silent = net.silent.lock().clone();
            let gossip = net.gossips.lock().get(&to).cloned();
            if let Some(gossip) = gossip
                && !silent.contains(&from)
                && !silent.contains(&to)
            {
                gossip.receive(Some(NodeId(from)), datagram);
            }
        });
    }
}

/// Waits, in paused time, until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !so() {
        assert!(Instant::now() < end, "never: {what}");
        time::sleep(Duration::from_millis(10)).await;
    }
}
