//! The rooms that a node has once it is in a cluster.

use super::{Node, limits};
use crate::{
    engine::{Durability, EngineError, Identity},
    membership::{Gossip, GossipHandle, GossipIdentity, Pinger},
    quorum::{Coordinator, Hints, Parts, RingSync},
    radix::{Store, StoreSettings},
    replica::{Floors, Lapse, Replica},
    upkeep::{self, Upkeep},
};
use god_proto::ids::NodeId;
use std::sync::Arc;
use uuid::Uuid;

/// A node's rooms that need a cluster and a number.
pub struct Member {
    /// Its number.
    pub number: NodeId,
    /// What it holds.
    pub store: Arc<Store>,
    /// Answers other nodes' questions about data.
    pub replica: Arc<Replica>,
    /// Coordinates clients' requests.
    pub coordinator: Coordinator,
    /// Writes for nodes that are away.
    pub hints: Arc<Hints>,
    /// Gossip, where it is on.
    pub gossip: Option<GossipHandle>,
    /// Moves, compares and cleans.
    pub upkeep: Arc<Upkeep>,
}

impl Node {
    /// Makes the node a member: remembers it (IDENTITY-ONCE), opens the store and starts the loops. Once; a second
    /// call changes nothing. Blocks on the disk.
    pub(super) fn become_member(self: &Arc<Self>, cluster: Uuid, number: NodeId) -> Result<(), EngineError> {
        if self.member.get().is_some() {
            return Ok(());
        }
        let identity = self.identity.load();
        if let Some(is) = identity.cluster.filter(|is| *is != cluster) {
            let message =
                format!("this data directory belongs to cluster {is}, and cannot serve cluster {cluster}");
            return Err(EngineError::Corrupt(message));
        }
        let joined = Identity { cluster: Some(cluster), number: Some(number), ..identity };
        if joined != identity {
            self.identity.save(joined)?;
        }
        self.clock.set_node(number);
        let settings = StoreSettings {
            committer: self.settings.committer.clone(),
            offload: self.seams.offload,
            threaded: self.settings.threaded,
            limits: limits(),
        };
        let store = Arc::new(Store::open(Arc::clone(&self.engine), *cluster.as_bytes(), settings)?);
        let hints = Arc::new(Hints::open(
            Arc::clone(&self.engine),
            self.ring.clone(),
            self.seams.offload,
            self.settings.hints.clone(),
        )?);
        let floors = Arc::new(Floors::open(Arc::clone(&self.engine), self.seams.offload)?);
        if store.is_short() {
            // LAPSED-IS-NO-VOTE: what could not be read may be what was acknowledged.
            self.engine.commit(Lapse::of_all())?;
        }
        let lapse = Arc::new(Lapse::open(
            Arc::clone(&self.engine),
            self.seams.offload,
            self.run,
            self.settings.committer.durability == Durability::Always,
        )?);
        if !lapse.is_whole() {
            tracing::warn!(
                "this node's machine stopped without a clean end, its data was put back from a backup, or records are \
                 damaged: what it may have lost is compared with the other replicas, and until then it counts for \
                 writes and not for reads"
            );
        }
        let replica = Replica::new(
            number,
            Arc::clone(&store),
            self.ring.clone(),
            Arc::clone(&self.clock),
            floors,
            lapse,
            self.seams.offload,
        );
        let replica = Arc::new(replica.paid_from(self.settings.quorum.budget.clone()));
        let keeper: Arc<dyn RingSync> = Arc::new(super::join::Keeper(Arc::downgrade(self)));
        let parts = Parts {
            ring: self.ring.clone(),
            transport: Arc::clone(&self.transport),
            clock: Arc::clone(&self.clock),
            liveness: Arc::clone(&self.liveness),
            hints: Arc::clone(&hints),
            sync: Arc::clone(&keeper),
        };
        let coordinator = Coordinator::new(number, parts, self.settings.quorum.clone());
        let gossip = self.settings.gossip.map(|settings| {
            let own = &self.settings.own;
            let started_ms = self.seams.wall.now_ms();
            let gossip = Gossip {
                settings,
                identity: GossipIdentity::new(own.uuid, number.0, own.peer_address.clone(), started_ms),
                ring: self.ring.clone(),
                transport: Arc::clone(&self.transport),
                liveness: Arc::clone(&self.liveness),
                newer: self.newer.clone(),
                on_address: Arc::clone(&self.on_address),
                seams: self.seams.clone(),
            };
            gossip.start(self.stop.clone())
        });
        self.clock.watch();
        let pinger = Pinger {
            interval: self.settings.ping_interval,
            me: number,
            ring: self.ring.clone(),
            transport: Arc::clone(&self.transport),
            liveness: Arc::clone(&self.liveness),
            offsets: Arc::clone(&self.offsets),
            clock: Arc::clone(&self.clock),
            newer: self.newer.clone(),
            seams: self.seams.clone(),
        };
        tokio::spawn(pinger.run(self.stop.clone()));
        let replaying = Arc::clone(&hints);
        tokio::spawn(replaying.run(
            Arc::clone(&self.transport),
            Arc::clone(&self.liveness),
            self.stop.clone(),
        ));
        let parts = upkeep::Parts {
            me: number,
            ring: self.ring.clone(),
            store: Arc::clone(&store),
            replica: Arc::clone(&replica),
            hints: Arc::clone(&hints),
            transport: Arc::clone(&self.transport),
            liveness: Arc::clone(&self.liveness),
            starts: Arc::clone(&self.starts),
            register: Arc::clone(&self.register),
            keeper,
            seams: self.seams.clone(),
            change_timeout: self.settings.change_timeout,
            longest_read: self.settings.quorum.max_timeout,
        };
        let upkeep = Arc::new(Upkeep::new(parts, self.settings.upkeep.clone()));
        tokio::spawn(Arc::clone(&upkeep).run(self.stop.clone()));
        let member = Member { number, store, replica, coordinator, hints, gossip, upkeep };
        // Two callers cannot come here at once: founding and joining take turns.
        let _ = self.member.set(member);
        tracing::info!(%cluster, node = %number, "this node is a member");
        Ok(())
    }
}
