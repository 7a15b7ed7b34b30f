//! Recovers the ring when a majority of its voters is lost for good: see [`crate::ring::recover`].

use super::{Node, serve::refusal};
use crate::{
    consensus::RegisterError,
    peer::{Call, Target},
    ring::{Recovery, recover},
};
use futures::future::join_all;
use god_proto::{
    ids::NodeId,
    peer::{self, request, response},
    ring::Ring,
    v1::{RecoverReply, RecoverRequest, Rejected},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How long a node may take to answer before it counts as one that does not.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How often the survivors are asked for newer rings: each one may know of nodes that the others do not.
const MAX_ROUNDS: usize = 8;

impl Node {
    /// Says what a recovery would do, or does it.
    pub(super) async fn recover(&self, request: RecoverRequest) -> Result<RecoverReply, Rejected> {
        self.serves()?;
        let (ring, answering) = self.newest().await.map_err(|error| refusal(&error))?;
        let lost: BTreeSet<NodeId> = request.lost.iter().copied().map(NodeId).collect();
        let no_member = || refusal(&RegisterError::NoRing);
        let me = ring.node_by_uuid(self.settings.own.uuid).ok_or_else(no_member)?.number;
        let planned = recover(&ring, NodeId(me), &answering, &lost);
        let Recovery { ring: next, risks } = planned.map_err(|error| refusal(&error.into()))?;
        let mut reply = RecoverReply {
            newest_epoch: ring.epoch().0,
            next_epoch: next.epoch().0,
            answering: answering.iter().map(|node| node.0).collect(),
            voters: next.voters().map(|node| node.0).collect(),
            risks,
            ..RecoverReply::default()
        };
        if request.dry_run {
            return Ok(reply);
        }
        tracing::warn!(epoch = %next.epoch(), ?lost, "the ring is recovered without its voters, as was asked");
        let next = Arc::new(next);
        self.register.learn(Arc::clone(&next)).await.map_err(|error| refusal(&error.into()))?;
        // Who does not hear of it now does by gossip or by ping.
        let told = answering.iter().map(|node| async {
            let decided = peer::Decided { ring: Some(next.document().clone()) };
            let call = |body| Call { epoch: 0, arcs: 0, timeout: TIMEOUT, body };
            let told = self.transport.call(Target::Node(*node), call(request::Body::Decided(decided))).await;
            (told.is_ok() || node.0 == me).then_some(node.0)
        });
        reply.taken_by = join_all(told).await.into_iter().flatten().collect();
        Ok(reply)
    }

    /// The newest ring that any node that answers knows, and the nodes that do.
    async fn newest(&self) -> Result<(Arc<Ring>, BTreeSet<NodeId>), RegisterError> {
        let mut ring = self.ring.get().ok_or(RegisterError::NoRing)?;
        let mut answering = BTreeSet::new();
        for _ in 0..MAX_ROUNDS {
            let asked = ring.nodes().iter().map(|node| async {
                let node = NodeId(node.number);
                let body = request::Body::GetRing(peer::GetRing {});
                let call = Call { epoch: 0, arcs: 0, timeout: TIMEOUT, body };
                match self.transport.call(Target::Node(node), call).await {
                    Ok(response::Body::Ring(said)) => Some((node, said.ring.map_or(0, |ring| ring.epoch))),
                    _ => None,
                }
            });
            let answers: Vec<(NodeId, u64)> = join_all(asked).await.into_iter().flatten().collect();
            answering = answers.iter().map(|(node, _)| *node).collect();
            match answers.iter().max_by_key(|(_, epoch)| *epoch) {
                Some((node, epoch)) if *epoch > ring.epoch().0 => {
                    self.register.fetch_newer(Target::Node(*node)).await;
                    ring = self.ring.get().ok_or(RegisterError::NoRing)?;
                }
                _ => break,
            }
        }
        Ok((ring, answering))
    }
}
