//! A network in one process: seeded delays, cuts and losses between the nodes' doors.
//!
//! It carries the same messages that gRPC carries between real nodes, without encoding them. Time is tokio's, paused:
//! a second of silence costs nothing.

use crate::{client::key_at, trace::Trace};
use futures::future::BoxFuture;
use god_core::{
    peer::{Call, CallError, Handler, Target, Transport, failure},
    ring::CurrentRing,
    seam::Entropy,
};
use god_proto::{
    ids::NodeId,
    peer::{Cause, request, response},
    version::Version,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    time,
};

/// How the links behave.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The least time a message takes.
    pub delay: Duration,
    /// The most it takes beyond that; drawn evenly.
    pub jitter: Duration,
    /// Of a thousand messages, so many never arrive.
    pub lost_per_mille: u64,
    /// Of a thousand messages, so many take up to three seconds: longer than whoever sent them waits.
    pub late_per_mille: u64,
}

impl Default for Weather {
    fn default() -> Self {
        let (delay, jitter) = (Duration::from_micros(200), Duration::from_micros(800));
        Weather { delay, jitter, lost_per_mille: 0, late_per_mille: 0 }
    }
}

/// Answers in a node's place, without asking it: a replica that lies. For showing that checkers notice.
pub type Forge = Arc<dyn Fn(&str, &request::Body) -> Option<response::Body> + Send + Sync>;

/// A listening node: reachable while this incarnation of it lives.
struct Listener {
    incarnation: u64,
    handler: Weak<dyn Handler>,
}

#[derive(Default)]
struct Links {
    listeners: BTreeMap<String, Listener>,
    /// (from, to) that nothing passes.
    cut: BTreeSet<(String, String)>,
    /// Neither send nor receive, and lose nothing: processes that are stopped.
    held: BTreeSet<String>,
    weather: Weather,
    forge: Option<Forge>,
}

/// All links. Shared by the ports of all nodes.
pub struct Network {
    links: Mutex<Links>,
    entropy: Entropy,
    messages: AtomicU64,
    trace: Arc<Trace>,
    /// Tells that somebody is let go. Not a `watch`, which wakes in a random order.
    released: Notify,
}

impl Network {
    /// A quiet network whose delays follow from a seed.
    pub fn seeded(seed: u64, trace: Arc<Trace>) -> Arc<Network> {
        Arc::new(Network {
            links: Mutex::default(),
            entropy: Entropy::seeded(seed),
            messages: AtomicU64::new(0),
            trace,
            released: Notify::new(),
        })
    }

    /// Opens a node's door.
    pub fn listen(&self, address: &str, incarnation: u64, handler: Weak<dyn Handler>) {
        self.links.lock().listeners.insert(address.to_owned(), Listener { incarnation, handler });
    }

    /// Closes a node's door: what it was doing, nobody hears of any more.
    pub fn hang_up(&self, address: &str) {
        self.links.lock().listeners.remove(address);
    }

    /// Stops everything from one address to another; the way back is another link.
    pub fn cut(&self, from: &str, to: &str) {
        self.links.lock().cut.insert((from.to_owned(), to.to_owned()));
    }

    /// Mends all links.
    pub fn heal(&self) {
        self.links.lock().cut.clear();
    }

    /// Holds whatever comes from an address or goes to it, until it is released.
    pub fn hold(&self, address: &str) {
        self.links.lock().held.insert(address.to_owned());
    }

    /// Lets go what was held.
    pub fn release(&self, address: &str) {
        self.links.lock().held.remove(address);
        self.released.notify_waiters();
    }

    /// Has requests answered by a liar, or by none.
    pub fn forge(&self, forge: Option<Forge>) {
        self.links.lock().forge = forge;
    }

    /// Changes how all links behave.
    pub fn set_weather(&self, weather: Weather) {
        self.links.lock().weather = weather;
    }

    /// How many messages were sent so far: a fingerprint of the run.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    async fn wait_while_held(&self, address: &str) {
        loop {
            // Before the look: a release in between is not missed.
            let released = self.released.notified();
            if !self.links.lock().held.contains(address) {
                return;
            }
            released.await;
        }
    }

    /// Takes as long as a message takes; `false` where it never arrives.
    async fn travel(&self, from: &str, to: &str) -> bool {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.wait_while_held(from).await;
        let (weather, cut) = {
            let links = self.links.lock();
            (links.weather, links.cut.contains(&(from.to_owned(), to.to_owned())))
        };
        let jitter = self.entropy.below(weather.jitter.as_micros() as u64 + 1);
        let lost = self.entropy.below(1_000) < weather.lost_per_mille;
        let late = match self.entropy.below(1_000) < weather.late_per_mille {
            true => Duration::from_millis(self.entropy.below(3_000)),
            false => Duration::ZERO,
        };
        time::sleep(weather.delay + Duration::from_micros(jitter) + late).await;
        self.wait_while_held(to).await;
        self.trace.count((from, to, cut, lost));
        !cut && !lost
    }

    fn listener(&self, address: &str) -> Option<(u64, Arc<dyn Handler>)> {
        let links = self.links.lock();
        let listener = links.listeners.get(address)?;
        Some((listener.incarnation, listener.handler.upgrade()?))
    }

    fn lives(&self, address: &str, incarnation: u64) -> bool {
        self.links.lock().listeners.get(address).is_some_and(|listener| listener.incarnation == incarnation)
    }
}

/// What a request is about, for the trace.
struct About {
    keys: Vec<u32>,
    text: String,
}

impl About {
    fn of(body: &request::Body) -> About {
        let (keys, text) = match body {
            request::Body::Write(write) => {
                let keys = write.entries.iter().filter_map(|entry| key_at(&entry.position)).collect();
                let versions: Vec<String> = write
                    .entries
                    .iter()
                    .map(|entry| {
                        let version: Version = entry.version.unwrap_or_default().into();
                        let kind = if entry.kind == 0 { "put" } else { "tombstone" };
                        format!("{kind} {:?} {version}", key_at(&entry.position))
                    })
                    .collect();
                (keys, format!("write {}", versions.join(", ")))
            }
            request::Body::Read(read) => {
                let keys: Vec<u32> = read.positions.iter().filter_map(|at| key_at(at)).collect();
                let text = format!("read {keys:?}");
                (keys, text)
            }
            _ => (vec![], String::new()),
        };
        About { keys, text }
    }

    fn note(self, trace: &Trace, from: &str, to: &str) {
        if !self.keys.is_empty() {
            trace.note(self.keys, format!("{from} → {to}: {}", self.text));
        }
    }
}

/// One incarnation of a node, seen from the network.
#[derive(Clone)]
pub struct Port {
    network: Arc<Network>,
    address: String,
    incarnation: u64,
    ring: CurrentRing,
}

impl Port {
    /// A port for the node that listens at `address`, and finds others by the ring it knows.
    pub fn new(network: Arc<Network>, address: String, incarnation: u64, ring: CurrentRing) -> Port {
        Port { network, address, incarnation, ring }
    }

    fn address_of(&self, to: &Target) -> Option<String> {
        match to {
            Target::Address(address) => Some(address.clone()),
            Target::Node(node) => self.ring.peer_address(*node),
        }
    }

    fn own_number(&self) -> Option<NodeId> {
        let ring = self.ring.get()?;
        let own = ring.nodes().iter().find(|node| node.peer_address == self.address)?;
        Some(NodeId(own.number))
    }

    /// Sends a request and brings the answer; `None` where a message is lost, which nobody is told, as on a cut TCP
    /// connection.
    async fn exchange(self, to: String, call: Call) -> Option<Result<response::Body, CallError>> {
        let from = self.own_number();
        if !self.network.lives(&self.address, self.incarnation) {
            return None;
        }
        if to != self.address && !self.network.travel(&self.address, &to).await {
            return None;
        }
        let Some((incarnation, handler)) = self.network.listener(&to) else {
            return Some(Err(CallError::NotSent(format!("nobody listens at {to}"))));
        };
        let forge = self.network.links.lock().forge.clone();
        if let Some(forged) = forge.and_then(|forge| forge(&to, &call.body)) {
            return Some(Ok(forged));
        }
        About::of(&call.body).note(&self.network.trace, &self.address, &to);
        let late = || failure(Cause::Deadline, "no answer in time");
        let result =
            time::timeout(call.timeout, handler.handle(from, call)).await.unwrap_or_else(|_| Err(late()));
        if !self.network.lives(&to, incarnation) {
            return Some(Err(CallError::Lost(format!("{to} went away"))));
        }
        if to != self.address && !self.network.travel(&to, &self.address).await {
            return None;
        }
        Some(match result {
            Ok(body) => Ok(body),
            Err(failure) if failure.cause() == Cause::Deadline => Err(CallError::TimedOut),
            Err(failure) => Err(CallError::Refused(failure)),
        })
    }
}

impl Transport for Port {
    fn call(&self, to: Target, call: Call) -> BoxFuture<'static, Result<response::Body, CallError>> {
        let port = self.clone();
        Box::pin(async move {
            let Some(address) = port.address_of(&to) else {
                return Err(CallError::NotSent(format!("no address is known for {to:?}")));
            };
            let timeout = call.timeout;
            let (answer, answered) = oneshot::channel();
            // A task of its own: what is under way arrives, whether or not anybody still waits for the answer.
            tokio::spawn(async move {
                if let Some(result) = port.exchange(address, call).await {
                    let _ = answer.send(result);
                } else {
                    // Nobody is told that nothing will come: hold the line until its caller gives up.
                    let mut answer = answer;
                    answer.closed().await;
                }
            });
            match time::timeout(timeout, answered).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(CallError::Lost("the other end stopped".to_owned())),
                Err(_) => Err(CallError::TimedOut),
            }
        })
    }

    fn tell(&self, to: Target, epoch: u64, body: request::Body) {
        let port = self.clone();
        let Some(address) = port.address_of(&to) else { return };
        tokio::spawn(async move {
            let timeout = Duration::from_secs(10);
            let _ =
                time::timeout(timeout, port.exchange(address, Call { epoch, arcs: 0, timeout, body })).await;
        });
    }
}
