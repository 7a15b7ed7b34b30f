//! How a node finds its cluster, tells it where it is, and keeps its ring.

use super::Node;
use crate::{
    consensus::RegisterError,
    membership::{JoinError, Joining, find_cluster, homes, introduce},
    peer::{Call, Meeting, Target, Way, failure, told},
    quorum::RingSync,
    ring::{ChangeError, Joiner, join, mark_live},
};
use futures::future::BoxFuture;
use god_proto::{
    ids::{KeyspaceId, NodeId},
    peer::{Cause, Decided, Failure, Join, Ping, request, response},
    ring::Ring,
    v1::Member,
};
use god_rules::starts::Start;
use std::{
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// How long telling a node of a newer ring may take.
const PUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts to make the ring say where this node is, at first; each further one is twice as long after.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two. After twice as long without one the first is at once again.
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// How often the ring was told where this node is, lately.
#[derive(Default)]
struct Telling {
    /// When it was told last, and how long it is not told again.
    last: Option<(Instant, Duration)>,
}

impl Telling {
    /// How long to wait before it is told.
    fn pause(&self) -> Option<Duration> {
        let (at, pause) = self.last?;
        pause.checked_sub(at.elapsed()).filter(|left| !left.is_zero())
    }

    /// It was.
    fn told(&mut self) {
        let recent = self.last.filter(|(at, _)| at.elapsed() < LAST_PAUSE * 2);
        let pause = recent.map_or(PAUSE, |(_, pause)| (pause * 2).min(LAST_PAUSE));
        self.last = Some((Instant::now(), pause));
    }
}

impl Node {
    /// Makes sure that the node is in a cluster and that the ring says where it is now. Ends when that is so, when
    /// the cluster refuses it for good, or when the node stops.
    pub(super) async fn find_cluster(self: Arc<Self>) {
        let stopped = self.stop.clone().stopped();
        tokio::select! {
            biased;
            () = stopped => {}
            () = self.keep_introduced() => {}
        }
    }

    /// For as long as the node runs: who was led astray about its address, by a copy of its directory perhaps, is told
    /// again. Where two nodes say that they are at one address, each time later.
    async fn keep_introduced(self: &Arc<Self>) {
        let own = self.settings.own.clone();
        let mut is_introduced = false;
        let mut telling = Telling::default();
        loop {
            let mut changes = self.ring.changes();
            let known = self.ring.get();
            if let Some(ring) = &known {
                self.starts.keep_only(|node| ring.node(node).is_some());
            }
            let homes = known.as_ref().map_or_else(Vec::new, |ring| homes(ring, own.uuid.as_bytes()));
            let others: Vec<String> = homes.iter().map(|(_, address)| address.clone()).collect();
            let is_told = known.as_deref().is_some_and(|ring| says(ring, &own));
            if is_told && (is_introduced || others.is_empty()) {
                changes.changed().await.ok();
                continue;
            }
            if known.is_none() && self.settings.seeds.is_empty() {
                // Waits for `god init`, or to be named as a seed by nobody at all.
                changes.changed().await.ok();
                continue;
            }
            if known.is_some()
                && let Some(pause) = telling.pause()
            {
                if let Some(other) = known.as_deref().and_then(|ring| displaces(ring, &own)) {
                    tracing::warn!("{}", displaced(other, &own));
                }
                let _sooner = timeout(pause, changes.changed()).await;
                continue;
            }
            if known.is_some() && others.is_empty() {
                // Alone in its ring: nobody else to tell.
                let change = self
                    .register
                    .change(self.settings.change_timeout, |ring| self.with_member(ring, &own))
                    .await;
                if let Err(error) = change {
                    tracing::warn!(%error, "cannot tell the ring where this node is; trying again");
                    sleep(PAUSE).await;
                }
                continue;
            }
            let joining = self.joining();
            let found = tokio::select! {
                biased;
                // Founded, or told by somebody else, while looking.
                _ = changes.changed(), if known.is_none() => continue,
                found = find_cluster(&joining, &others) => found,
            };
            let found = match !is_introduced && known.is_some() {
                true => introduce(&joining, &homes, found).await,
                false => found,
            };
            let entered = match found {
                Ok(joined) => self.enter(joined.ring, joined.number).await,
                Err(error) => return self.refuse(&error),
            };
            if let Err(error) = entered {
                tracing::error!(%error, "cannot enter the cluster");
                let _only_once = self.refused.set(error.to_string());
                return;
            }
            is_introduced = true;
            telling.told();
        }
    }

    fn joining(&self) -> Joining {
        let own = &self.settings.own;
        Joining {
            own: Join {
                uuid: own.uuid.as_bytes().to_vec().into(),
                peer_address: own.peer_address.clone(),
                grpc_address: own.grpc_address.clone(),
                http_address: own.http_address.clone(),
                zone: own.zone.clone(),
                weight: own.weight,
                version: own.version.clone(),
                takes_part: own.takes_part,
                cluster: self.wanted_cluster().map_or_else(Vec::new, |id| id.as_bytes().to_vec()).into(),
                start: told(&self.starts.own()),
            },
            seeds: self.settings.seeds.clone(),
            resolver: Arc::clone(&self.resolver),
            transport: Arc::clone(&self.transport),
            entropy: Arc::clone(&self.seams.entropy),
        }
    }

    /// The node and the cluster do not go together.
    fn refuse(&self, error: &JoinError) {
        tracing::error!(%error, "the cluster refuses this node");
        let why = error.to_string();
        if let JoinError::NotTheNode { by_most, .. } = error {
            if *by_most {
                self.starts.refuse_own(&why);
            }
            self.be_another(why);
        } else {
            let _only_once = self.refused.set(why);
        }
    }

    /// Another process is the node (ONE-START): nothing of this one is served, moved, compared, gossiped or voted on.
    pub(super) fn be_another(&self, why: String) {
        let _only_once = self.refused.set(why);
        self.is_another.store(true, Relaxed);
        self.stop();
    }

    /// Why this process is not the node of its directory, once that is known (ONE-START): then it serves nobody.
    pub(super) fn another(&self) -> Option<&str> {
        let is_another = self.is_another.load(Relaxed);
        is_another.then(|| self.refused.get().map_or("another process is this node", String::as_str))
    }

    /// The cluster this node is of, or was told to join.
    pub(super) fn wanted_cluster(&self) -> Option<Uuid> {
        self.identity.load().cluster.or(self.settings.cluster)
    }

    /// Takes a ring that has this node, and becomes a member.
    pub(super) async fn enter(
        self: &Arc<Self>,
        ring: Arc<Ring>,
        number: NodeId,
    ) -> Result<(), crate::engine::EngineError> {
        let _turn = self.entering.lock().await;
        let cluster = ring.cluster();
        self.register.learn(ring).await?;
        let node = Arc::clone(self);
        // Opening the store blocks on the disk; the loops it starts need the runtime, which is at hand there too.
        self.seams.offload.run(move || node.become_member(cluster, number)).await
    }

    /// Whether the process that asks to be taken in is the node of the ring that it says it is; else why not, and
    /// whether it never will be (ONE-START).
    pub(super) async fn recognise(&self, ring: &Ring, uuid: Uuid, start: &Start) -> Result<(), Failure> {
        if uuid == self.settings.own.uuid {
            return self.starts.is_own(start).map_err(|why| failure(Cause::NotTheNode, why));
        }
        let Some(node) = ring.node_by_uuid(uuid).map(|node| NodeId(node.number)) else { return Ok(()) };
        let known = self.starts.latest(node);
        match self.starts.meet(node, start, Way::Caller) {
            Meeting::Taken => Ok(()),
            Meeting::Unclear(why) => Err(failure(Cause::NotMember, why)),
            Meeting::Refused(why) => Err(failure(Cause::NotTheNode, why)),
            Meeting::Waits(why) => {
                // What is answered from now on is answered by one that runs beside the one that asks.
                let body = request::Body::Ping(Ping { sent_us: 0, epoch: ring.epoch().0 });
                let call = Call { epoch: 0, arcs: 0, timeout: PUSH_TIMEOUT, body };
                match self.transport.call(Target::Node(node), call).await {
                    // One that is not ready may have been refused itself.
                    Ok(response::Body::Pong(pong)) if pong.ready => {
                        match self.starts.outlived(node, known, start) {
                            Some(why) => Err(failure(Cause::NotTheNode, why)),
                            None => Err(failure(Cause::NotMember, why)),
                        }
                    }
                    _ => Err(failure(Cause::NotMember, why)),
                }
            }
        }
    }

    /// Takes a node into the ring, or its new addresses.
    pub(super) async fn admit(&self, joiner: &Joiner) -> Result<Arc<Ring>, RegisterError> {
        self.register.change(self.settings.change_timeout, |ring| self.with_member(ring, joiner)).await
    }

    fn with_member(&self, ring: &Ring, joiner: &Joiner) -> Result<Option<Ring>, ChangeError> {
        let is_own = |node: &Member| node.uuid == self.settings.own.uuid.as_bytes()[..];
        let (down, away) = (self.liveness.down(ring, is_own), self.liveness.away(ring, is_own));
        join(ring, joiner, &down, &away)
    }
}

/// Whether the ring has this node, at these addresses, with this version.
fn says(ring: &Ring, own: &Joiner) -> bool {
    ring.node_by_uuid(own.uuid).is_some_and(|node| {
        node.peer_address == own.peer_address
            && node.grpc_address == own.grpc_address
            && node.http_address == own.http_address
            && node.version == own.version
    })
}

/// The node that the ring has where this one says it is.
pub(super) fn displaces<'a>(ring: &'a Ring, own: &Joiner) -> Option<&'a Member> {
    let is_elsewhere = ring.node_by_uuid(own.uuid).is_some_and(|node| node.peer_address.is_empty());
    let there =
        |node: &&Member| node.peer_address == own.peer_address && node.uuid != own.uuid.as_bytes()[..];
    ring.nodes().iter().find(there).filter(|_| is_elsewhere)
}

/// What an operator is told of that.
pub(super) fn displaced(other: &Member, own: &Joiner) -> String {
    format!(
        "node {} says that it is at {} too: give each node an address of its own (--advertise-peer)",
        other.number, own.peer_address
    )
}

/// The node as the keeper of the ring, for its coordinator.
pub(super) struct Keeper(pub(super) Weak<Node>);

impl RingSync for Keeper {
    fn fetch(&self, from: Target) -> BoxFuture<'static, ()> {
        let node = self.0.upgrade();
        Box::pin(async move {
            if let Some(node) = node {
                node.register.fetch_newer(from).await;
            }
        })
    }

    fn push(&self, to: NodeId, ring: Arc<Ring>) -> BoxFuture<'static, ()> {
        let node = self.0.upgrade();
        Box::pin(async move {
            let Some(node) = node else { return };
            let body = request::Body::Decided(Decided { ring: Some(ring.document().clone()) });
            let call = Call { epoch: 0, arcs: 0, timeout: PUSH_TIMEOUT, body };
            // Whoever could not be told says so again by its next refusal.
            let _ = node.transport.call(Target::Node(to), call).await;
        })
    }

    fn confirm(&self) -> BoxFuture<'static, Result<(), String>> {
        let node = self.0.upgrade();
        Box::pin(async move {
            let Some(node) = node else { return Err("the node is stopping".to_owned()) };
            let confirmed = node.register.confirm(node.settings.change_timeout).await;
            confirmed.map_err(|error| error.to_string())
        })
    }

    fn make_live(&self, keyspace: KeyspaceId) -> BoxFuture<'static, Result<(), String>> {
        let node = self.0.upgrade();
        Box::pin(async move {
            let Some(node) = node else { return Err("the node is stopping".to_owned()) };
            let is_live = |ring: &Ring| ring.keyspace_by_id(keyspace).is_some_and(|keyspace| keyspace.live);
            // One at a time: a burst of first writes makes one change.
            let _turn = node.entering.lock().await;
            if node.ring.get().as_deref().is_some_and(is_live) {
                return Ok(());
            }
            let changed = node
                .register
                .change(node.settings.change_timeout, |ring| match is_live(ring) {
                    true => Ok(None),
                    false => mark_live(ring, keyspace),
                })
                .await;
            match changed {
                Ok(_) => Ok(()),
                Err(RegisterError::Refused(ChangeError::Invalid(message) | ChangeError::TooFew(message))) => {
                    Err(message)
                }
                Err(error) => Err(format!("the keyspace cannot be made live for its first write: {error}")),
            }
        })
    }
}
