//! The client: what its handles share.

use crate::{
    Error, Keyspace, Result, Session,
    connection::ConnectionContext,
    error::cause,
    node::Node,
    retry::RetryBudget,
    routes::Routes,
    settings::{Builder, ClientSettings},
    transport,
};
use arc_swap::ArcSwap;
use god_proto::{
    ring::Ring,
    v1::{Reason, RingRequest},
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Weak, atomic::AtomicUsize},
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// The ring is asked for this often at most.
const RING_EVERY: Duration = Duration::from_millis(100);
/// Nodes that are asked for the ring in one go.
const RING_TRIES: usize = 3;

/// A client of one cluster. Cheap to clone; clones share connections, limits and the knowledge of the ring. It has
/// tasks of its own on the runtime that it was made on, which end with its last clone.
///
/// ```no_run
/// # async fn f() -> god_client::Result<()> {
/// use god_client::Client;
///
/// let client = Client::builder().servers(["127.0.0.1:7000"]).connect().await?;
/// let colours = client.keyspace("default");
/// colours.put("sky", "blue").await?;
/// let sky = colours.get("sky").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// See the module.
pub(crate) struct Inner {
    pub settings: ClientSettings,
    pub shared: Arc<ConnectionContext>,
    pub routes: ArcSwap<Routes>,
    pub budget: RetryBudget,
    pub turn: AtomicUsize,
    /// When the ring was asked for; held while it is.
    asked: Mutex<Option<Instant>>,
}

impl Client {
    /// Begins to describe a client.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A keyspace to read and write. Costs nothing and asks nobody: whether it is there shows at the first call.
    pub fn keyspace(&self, name: impl Into<Arc<str>>) -> Keyspace {
        Keyspace::new(self.clone(), name.into(), None)
    }

    /// A session: through its keyspaces a program reads what it wrote, whichever nodes answer.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// The epoch of the ring that calls are routed by; 0 without one.
    pub fn epoch(&self) -> u64 {
        self.inner.routes.load().ring.as_ref().map_or(0, |ring| ring.epoch().0)
    }

    pub(crate) async fn connect(servers: Vec<String>, settings: ClientSettings) -> Result<Client> {
        let in_flight = settings.in_flight as usize;
        let shared = Arc::new(ConnectionContext::new(settings.connect_timeout, settings.stall, in_flight));
        let mut seeds: Vec<Arc<Node>> = Vec::new();
        for server in &servers {
            if !seeds.iter().any(|seed| seed.address() == server) {
                seeds.push(Arc::new(Node::new(server, &settings, &shared).map_err(Error::Invalid)?));
            }
        }
        let limit = settings.timeout.min(settings.connect_timeout * 2);
        let mut problems = Vec::new();
        let mut first = None;
        for (at, seed) in seeds.iter().enumerate() {
            match fetch(seed, limit).await {
                Ok(ring) => {
                    first = Some((at, ring));
                    break;
                }
                Err(problem) => problems.push(problem),
            }
        }
        let Some((at, ring)) = first else {
            return Err(Error::Unreachable(format!("no server answers: {}", problems.join("; "))));
        };
        seeds.rotate_left(at);
        if let Some(home) = seeds.first() {
            home.want();
        }
        let inner = Arc::new(Inner {
            budget: RetryBudget::new(settings.retry_ratio, settings.retry_burst),
            shared,
            settings,
            routes: ArcSwap::from_pointee(Routes { seeds, ..Routes::default() }),
            turn: AtomicUsize::new(0),
            asked: Mutex::new(None),
        });
        if let Some(ring) = ring {
            inner.install(ring);
        }
        tokio::spawn(keep(Arc::downgrade(&inner), Arc::clone(&inner.shared)));
        Ok(Client { inner })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Asks for the ring, unless somebody does already or did a moment ago; whoever comes meanwhile waits for that.
    pub async fn refresh(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < RING_EVERY) {
            return;
        }
        let limit = self.settings.timeout.min(self.settings.connect_timeout * 2);
        let mut tried = Vec::new();
        while tried.len() < RING_TRIES {
            let Some(node) = self.routes.load().any(&tried).cloned() else { break };
            match fetch(&node, limit).await {
                Ok(Some(ring)) => {
                    self.install(ring);
                    if !self.shared.news.is_behind() {
                        break;
                    }
                }
                Ok(None) => {}
                Err(why) => tracing::debug!(why, "the ring could not be asked for"),
            }
            tried.push(node);
        }
        *asked = Some(Instant::now());
    }

    /// Routes by a ring from now on, if it is newer. Nodes whose address stays keep their connections.
    pub fn install(&self, ring: Ring) {
        let old = self.routes.load();
        if let Some(known) = &old.ring {
            if known.cluster() != ring.cluster() {
                tracing::warn!(ours = %known.cluster(), other = %ring.cluster(), "a server is of another cluster");
                return;
            }
            if known.epoch() >= ring.epoch() {
                return;
            }
        }
        let mut nodes = BTreeMap::new();
        for member in ring.nodes() {
            let known = old.seeds.iter().chain(old.nodes.values());
            let node = match known.clone().find(|node| node.address() == member.grpc_address) {
                Some(node) => Ok(Arc::clone(node)),
                None => Node::new(&member.grpc_address, &self.settings, &self.shared).map(Arc::new),
            };
            match node {
                Ok(node) => drop(nodes.insert(god_proto::ids::NodeId(member.number), node)),
                Err(why) => tracing::debug!(node = member.number, why, "a node has no address to ask it at"),
            }
        }
        let epoch = ring.epoch().0;
        tracing::debug!(epoch, "routing by a newer ring");
        self.shared.news.knows(epoch);
        let seeds = old.seeds.clone();
        self.routes.store(Arc::new(Routes { ring: Some(ring), nodes, seeds }));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.news.look();
    }
}

/// Asks for the ring whenever there is a reason to, until the client is gone.
async fn keep(inner: Weak<Inner>, shared: Arc<ConnectionContext>) {
    loop {
        shared.news.arrived().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.refresh().await;
        drop(inner);
        tokio::time::sleep(RING_EVERY).await;
        if shared.news.is_behind() {
            shared.news.look();
        }
    }
}

/// A node's ring; none, where it belongs to no cluster yet.
pub(crate) async fn fetch(node: &Node, limit: Duration) -> Result<Option<Ring>, String> {
    let asked = tokio::time::timeout(limit, async { node.cluster().ring(RingRequest {}).await }).await;
    let reply = match asked {
        Ok(Ok(reply)) => reply.into_inner(),
        Ok(Err(status)) => {
            return match transport::failed(node.address(), &status) {
                transport::Failed::Refused(error) => Err(error.to_string()),
                transport::Failed::NotSent(_) | transport::Failed::Open(_) => {
                    Err(format!("{}: {}", node.address(), cause(&status)))
                }
            };
        }
        Err(_) => return Err(format!("{}: no answer within {limit:?}", node.address())),
    };
    if let Some(failed) = reply.failed {
        return match failed.reason() {
            Reason::NotInitialised => Ok(None),
            _ => Err(format!("{}: {}", node.address(), failed.message)),
        };
    }
    let Some(document) = reply.ring else { return Ok(None) };
    Ring::new(document).map(Some).map_err(|error| format!("{}: {error}", node.address()))
}
