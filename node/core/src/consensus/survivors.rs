//! What a recovery begins with, where too few voters are left to say which ring is the newest (RECOVERED-APART).

use super::register::{Register, RegisterError};
use crate::{
    peer::{Call, Target},
    ring::ChangeError,
};
use futures::future::join_all;
use god_proto::{
    ids::NodeId,
    peer::{self, Failure, request, response},
    ring::Ring,
    v1::RingDocument,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How often nodes are asked for newer rings: each one may know of nodes that the others do not.
const MAX_ROUNDS: usize = 8;

impl Register {
    /// The newest ring that any of its nodes has, which is this node's when this returns, and the nodes that answer.
    /// Each has `timeout` to answer, and what it answers is what is taken: asked again it may be too late. Cost: a
    /// document of each node, once more for each newer ring that one has; at most 8 times.
    ///
    /// # Errors
    /// A node has a newer ring that this one cannot keep, or rings change faster than they are asked for.
    pub async fn newest_of_all(
        &self,
        timeout: Duration,
    ) -> Result<(Arc<Ring>, BTreeSet<NodeId>), RegisterError> {
        for _ in 0..MAX_ROUNDS {
            let ring = self.current.get().ok_or(RegisterError::NoRing)?;
            let asked = ring.nodes().iter().map(|node| self.ring_of(NodeId(node.number), timeout));
            let answers: Vec<(NodeId, Option<RingDocument>)> =
                join_all(asked).await.into_iter().flatten().collect();
            let answering = answers.iter().map(|(node, _)| *node).collect();
            let newer = answers.into_iter().filter_map(|(node, said)| Some((node, said?)));
            let newest =
                newer.max_by_key(|(_, said)| said.epoch).filter(|(_, said)| said.epoch > ring.epoch().0);
            let Some((node, newest)) = newest else { return Ok((ring, answering)) };
            let epoch = newest.epoch;
            let cannot = |Failure { message, .. }| {
                let message = format!(
                    "node {node} has the ring of epoch {epoch}, which cannot be kept here: {message}; recover from \
                     that node, or stop it and name it as well"
                );
                ChangeError::Invalid(message)
            };
            self.decided(peer::Decided { ring: Some(newest) }).await.map_err(cannot)?;
        }
        Err(RegisterError::Busy)
    }

    /// A node that answers, and the ring that it has.
    async fn ring_of(&self, node: NodeId, timeout: Duration) -> Option<(NodeId, Option<RingDocument>)> {
        let body = request::Body::GetRing(peer::GetRing {});
        let call = Call { epoch: 0, arcs: 0, timeout, body };
        match self.transport.call(Target::Node(node), call).await {
            Ok(response::Body::Ring(said)) => Some((node, said.ring)),
            _ => None,
        }
    }
}
