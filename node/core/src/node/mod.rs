//! Puts the rooms together: a node from its start over founding or joining to its end.
//!
//! - [`Node`]: what the doors and the other nodes talk to.
//! - `member`: the rooms that a node has once it is in a cluster.
//! - `handle`: answers to other nodes.
//! - `serve`: answers to clients.
//! - `join`: how it finds its cluster, and tells it where it is.
//! - `status`: what it says of itself and of the cluster.
//! - `ready`: whether it can serve anybody.

mod handle;
mod join;
mod member;
mod planned;
mod ready;
mod recover;
mod serve;
mod status;

pub use handle::PeerHandler;
pub use member::Member;
pub use serve::ClientService;

use crate::{
    consensus::Register,
    engine::{Engine, EngineError, IdentityStore},
    membership::{AddressListener, GossipSettings, Liveness, NewerRing, Resolver},
    peer::{Starts, Transport},
    quorum::{HintSettings, QuorumSettings},
    radix::{CommitterSettings, Limits},
    ring::{CurrentRing, Founding, Joiner},
    seam::Seams,
    stop::{Stop, Stopper, stop},
    upkeep::UpkeepSettings,
    version::{Clock, Offsets},
};
use god_proto::ids::NodeId;
use std::{
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// How a node behaves; where it listens is the business of its doors.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// How it introduces itself; `uuid` is that of its data directory.
    pub own: Joiner,
    /// `host:port` of peer doors where the cluster may be found.
    pub seeds: Vec<String>,
    /// The cluster to join, and no other.
    pub cluster: Option<Uuid>,
    /// What `init` takes where it is told nothing.
    pub founding: Founding,
    /// How writes are grouped, and when they are synced.
    pub committer: CommitterSettings,
    /// Whether the store's writer has a thread; not in the simulation.
    pub threaded: bool,
    /// How requests are coordinated.
    pub quorum: QuorumSettings,
    /// How writes for absent nodes are kept.
    pub hints: HintSettings,
    /// How liveness travels; `None`: by pings alone.
    pub gossip: Option<GossipSettings>,
    /// How data is moved, compared and cleaned.
    pub upkeep: UpkeepSettings,
    /// Between two pings of each other node.
    pub ping_interval: Duration,
    /// How long a change of the ring may take.
    pub change_timeout: Duration,
}

/// What a node stands on.
pub struct Ground {
    /// Who it is.
    pub identity: Arc<dyn IdentityStore>,
    /// Which run of its machine this is; `None`: nobody knows.
    pub run: Option<Uuid>,
    /// Its disk.
    pub engine: Arc<dyn Engine>,
    /// The way to other nodes.
    pub transport: Arc<dyn Transport>,
    /// This start of the node, and what it knows of others'.
    pub starts: Arc<Starts>,
    /// The ring that the transport goes by.
    pub ring: CurrentRing,
    /// Finds what is behind names.
    pub resolver: Arc<dyn Resolver>,
    /// Time, randomness, threads.
    pub seams: Seams,
    /// Told where other nodes are, as gossip learns it.
    pub on_address: AddressListener,
}

/// A node. It runs until [`Node::stop`]; whoever starts it calls that at the end.
pub struct Node {
    settings: NodeSettings,
    identity: Arc<dyn IdentityStore>,
    run: Option<Uuid>,
    engine: Arc<dyn Engine>,
    transport: Arc<dyn Transport>,
    starts: Arc<Starts>,
    ring: CurrentRing,
    resolver: Arc<dyn Resolver>,
    seams: Seams,
    on_address: AddressListener,
    clock: Arc<Clock>,
    offsets: Arc<Offsets>,
    liveness: Arc<Liveness>,
    newer: NewerRing,
    register: Arc<Register>,
    member: OnceLock<Member>,
    /// One becomes a member at a time, by founding or by joining.
    entering: tokio::sync::Mutex<()>,
    /// Why this node and the cluster do not go together, once that is known.
    refused: OnceLock<String>,
    /// Whether that is because another process is the node: then it serves nobody any more.
    is_another: AtomicBool,
    rate: status::Rate,
    served: ready::Served,
    began: Instant,
    stopper: Stopper,
    stop: Stop,
}

impl Node {
    /// Starts a node: opens what it keeps, and looks for its cluster in the background. Blocks on the disk.
    pub fn start(settings: NodeSettings, ground: Ground) -> Result<Arc<Node>, EngineError> {
        let Ground { identity, run, engine, transport, starts, ring, resolver, seams, on_address } = ground;
        let clock = Arc::new(Clock::open(Arc::clone(&engine), Arc::clone(&seams.wall), seams.offload)?);
        let register = Arc::new(Register::open(
            settings.own.uuid,
            Arc::clone(&engine),
            ring.clone(),
            Arc::clone(&transport),
            seams.clone(),
        )?);
        let (stopper, stop) = stop();
        let node = Arc::new(Node {
            newer: NewerRing::new(ring.clone()),
            settings,
            identity,
            run,
            engine,
            transport,
            starts,
            ring,
            resolver,
            seams,
            on_address,
            clock,
            offsets: Arc::default(),
            liveness: Arc::default(),
            register,
            member: OnceLock::new(),
            entering: tokio::sync::Mutex::new(()),
            refused: OnceLock::new(),
            is_another: AtomicBool::new(false),
            rate: status::Rate::default(),
            served: ready::Served::default(),
            began: Instant::now(),
            stopper,
            stop,
        });
        if let Some(why) = node.starts.own_refusal() {
            tracing::error!("{why}");
            node.be_another(why.to_owned());
            return Ok(node);
        }
        // A node that was in a cluster before serves as soon as its store is open, whoever else is up.
        if let Some(ring) = node.ring.get()
            && let Some(known) = ring.node_by_uuid(node.settings.own.uuid)
        {
            node.become_member(ring.cluster(), NodeId(known.number))?;
        }
        tokio::spawn(Arc::clone(&node).follow_ring());
        tokio::spawn(Arc::clone(&node).find_cluster());
        Ok(node)
    }

    /// The rooms of a member, once the node is one.
    pub fn member(&self) -> Option<&Member> {
        self.member.get()
    }

    /// The newest ring this node knows.
    pub fn current_ring(&self) -> &CurrentRing {
        &self.ring
    }

    /// What this node believes about the others.
    pub fn liveness(&self) -> &Arc<Liveness> {
        &self.liveness
    }

    /// The storage.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Ends the loops; what was begun is finished or given up.
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// Ends the loops and closes the store: what was acknowledged is on the disk when it returns.
    pub async fn close(&self) {
        self.stop();
        let Some(member) = self.member.get() else { return };
        member.coordinator.close().await;
        match member.store.close().await {
            Ok(()) => {
                if let Err(error) = member.replica.lapse().rest().await {
                    tracing::warn!(%error, "it is not noted that all is on the disk");
                }
            }
            // Nothing acknowledged is lost by this: the next start reads the log.
            Err(error) => tracing::warn!(%error, "the store did not close cleanly"),
        }
    }

    /// Fetches the ring from whoever is heard to have a newer one.
    async fn follow_ring(self: Arc<Self>) {
        let mut newer = self.newer.listen();
        let stopped = self.stop.clone().stopped();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => return,
                heard = newer.next() => match heard {
                    Some((from, _)) => self.register.fetch_newer(from).await,
                    None => return,
                },
            }
        }
    }
}

/// Limits of the store's index; see [`Limits`].
fn limits() -> Limits {
    Limits::default()
}
