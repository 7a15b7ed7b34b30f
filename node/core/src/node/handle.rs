//! Answers to other nodes.

use super::{Member, Node};
use crate::{
    consensus::RegisterError,
    membership::pong,
    peer::{Call, Handler, Target, failure, heard, no_cluster},
    ring::{ChangeError, Joiner, check_texts},
};
use futures::future::BoxFuture;
use god_proto::{
    ids::{Epoch, NodeId},
    peer::{Cause, Failure, Join, RingDone, request, response},
};
use std::sync::Arc;
use uuid::Uuid;

/// The node, as other nodes reach it.
pub struct PeerHandler(pub Arc<Node>);

impl Handler for PeerHandler {
    fn handle(
        &self,
        from: Option<NodeId>,
        call: Call,
    ) -> BoxFuture<'static, Result<response::Body, Failure>> {
        let node = Arc::clone(&self.0);
        Box::pin(async move { node.answer(from, call).await })
    }
}

impl Node {
    async fn answer(&self, from: Option<NodeId>, call: Call) -> Result<response::Body, Failure> {
        if let (Some(why), false) = (self.another(), matches!(call.body, request::Body::Ping(_))) {
            return Err(failure(Cause::NotMember, why));
        }
        match call.body {
            request::Body::Write(_)
            | request::Body::Read(_)
            | request::Body::Scan(_)
            | request::Body::Summarize(_)
            | request::Body::Split(_)
            | request::Body::Select(_)
            | request::Body::Fence(_)
            | request::Body::Floor(_) => {
                let epoch = call.epoch;
                let member = self.as_member()?;
                let mut result = member.replica.handle(call).await;
                if let Ok(response::Body::Scan(page)) = &mut result {
                    page.late_us = member.upkeep.late_us();
                }
                if epoch > self.ring.epoch().0
                    && let Some(from) = from
                {
                    self.newer.heard(Target::Node(from), Epoch(epoch));
                }
                result
            }
            request::Body::Ping(ping) => {
                let received_us = self.seams.wall.now_us();
                if let Some(from) = from {
                    self.newer.heard(Target::Node(from), Epoch(ping.epoch));
                }
                let is_ready = self.troubles().is_empty();
                Ok(response::Body::Pong(pong(received_us, &*self.seams.wall, self.ring.epoch(), is_ready)))
            }
            request::Body::Gossip(datagram) => {
                if let Some(gossip) = self.member().and_then(|member| member.gossip.as_ref()) {
                    gossip.receive(from, datagram);
                }
                // Told, not asked: nobody waits for this.
                Err(failure(Cause::Invalid, "gossip is told, not asked"))
            }
            request::Body::GetRing(_) => self.register.get_ring(),
            request::Body::Decided(message) => self.register.decided(message).await,
            request::Body::Prepare(message) => self.register.prepare(message).await,
            request::Body::Accept(message) => self.register.accept(message).await,
            request::Body::Join(join) => self.take_in(join).await,
            request::Body::Pull(_)
            | request::Body::Moving(_)
            | request::Body::Sizes(_)
            | request::Body::Suspect(_) => self.as_member()?.upkeep.handle(call).await,
            request::Body::Report(_) => Ok(response::Body::Report(self.report())),
        }
    }

    fn as_member(&self) -> Result<&Member, Failure> {
        self.member().ok_or_else(no_cluster)
    }

    /// A node asks to be taken in. NOT_MEMBER: not now; INVALID: never.
    async fn take_in(&self, join: Join) -> Result<response::Body, Failure> {
        let Some(ring) = self.ring.get() else {
            return Err(no_cluster());
        };
        if !join.cluster.is_empty() && join.cluster != ring.cluster().as_bytes()[..] {
            let message =
                format!("this node is of cluster {}, not of the one that was asked for", ring.cluster());
            return Err(failure(Cause::Invalid, message));
        }
        let uuid = Uuid::from_slice(&join.uuid);
        let joiner = Joiner {
            uuid: uuid.map_err(|_| failure(Cause::Invalid, "the joining node's UUID is not 16 bytes"))?,
            peer_address: join.peer_address,
            grpc_address: join.grpc_address,
            http_address: join.http_address,
            zone: join.zone,
            weight: join.weight,
            version: join.version,
            takes_part: join.takes_part,
        };
        // `join` checks them too, for whatever makes a ring; here, before the address goes anywhere.
        check_texts(&joiner).map_err(|error| failure(Cause::Invalid, error.to_string()))?;
        self.recognise(&ring, joiner.uuid, &heard(join.start.as_ref())).await?;
        // Where all nodes came back at other addresses, this is how those who decide find one another.
        if let Some(known) =
            ring.node_by_uuid(joiner.uuid).filter(|node| node.peer_address != joiner.peer_address)
        {
            (self.on_address)(NodeId(known.number), &joiner.peer_address);
        }
        match self.admit(&joiner).await {
            Ok(ring) => Ok(response::Body::Ring(RingDone { ring: Some(ring.document().clone()) })),
            Err(RegisterError::Refused(error @ (ChangeError::Retired(_) | ChangeError::Invalid(_)))) => {
                Err(failure(Cause::Invalid, error.to_string()))
            }
            Err(error) => Err(failure(Cause::NotMember, error.to_string())),
        }
    }
}
