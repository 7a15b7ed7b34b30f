//! Recovers the ring when a majority of its voters is lost for good: see [`crate::ring::recover`].

use super::{Node, serve::refusal};
use crate::{
    consensus::RegisterError,
    peer::{Call, Target},
    ring::{ChangeError, Recovery, follows, recover},
};
use futures::future::join_all;
use god_proto::{
    ids::NodeId,
    peer::{self, request, response},
    v1::{RecoverReply, RecoverRequest, Rejected},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How long a node may take to answer before it counts as one that does not.
const TIMEOUT: Duration = Duration::from_secs(3);

impl Node {
    /// Says what a recovery would do, or does it.
    pub(super) async fn recover(&self, request: RecoverRequest) -> Result<RecoverReply, Rejected> {
        self.serves()?;
        let (ring, answering) =
            self.register.newest_of_all(TIMEOUT).await.map_err(|error| refusal(&error))?;
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
        if self.ring.get().is_none_or(|ring| !follows(&next, ring.document())) {
            let message = format!(
                "the ring became that of epoch {} meanwhile, by another recovery perhaps, and this one is void: look at \
                 the ring again",
                self.ring.epoch()
            );
            return Err(refusal(&ChangeError::Invalid(message).into()));
        }
        // Who does not hear of it now does by gossip or by ping.
        let told = answering.iter().map(|node| async {
            let decided = peer::Decided { ring: Some(next.document().clone()) };
            let call = |body| Call { epoch: 0, arcs: 0, timeout: TIMEOUT, body };
            let told = self.transport.call(Target::Node(*node), call(request::Body::Decided(decided))).await;
            // One with a newer ring of its own keeps that, and says so.
            let has_it = match told {
                Ok(response::Body::Ring(said)) => said.ring.is_some_and(|ring| follows(&next, &ring)),
                _ => false,
            };
            (has_it || node.0 == me).then_some(node.0)
        });
        reply.taken_by = join_all(told).await.into_iter().flatten().collect();
        Ok(reply)
    }
}
