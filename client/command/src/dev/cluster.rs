//! Founding the cluster and waiting for it, straight over the nodes' own doors.

use super::state::DevNode;
use god_proto::v1::{
    InitRequest, Reason, Rejected, StatusReply, StatusRequest, cluster_client::ClusterClient,
};
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

/// How long one question may take.
const ASK: Duration = Duration::from_secs(2);

/// What a node said to being founded on.
pub enum Founded {
    Yes(Uuid),
    /// It belongs to a cluster already.
    Before,
    Refused(String),
    NoAnswer(String),
}

async fn client(address: &str) -> Result<ClusterClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let channel = endpoint.connect_timeout(ASK).timeout(ASK).connect().await;
    Ok(ClusterClient::new(channel.map_err(|error| error.to_string())?))
}

/// Founds a cluster on a node.
pub async fn init(node: &DevNode, request: InitRequest) -> Founded {
    let ask = async {
        let reply = client(&node.grpc).await?.init(request).await;
        reply.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    };
    let reply = match timeout(ASK * 2, ask).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(problem)) => return Founded::NoAnswer(problem),
        Err(_) => return Founded::NoAnswer("it did not answer in time".to_owned()),
    };
    match reply.failed {
        Some(failed) if is(&failed, Reason::Exists) => Founded::Before,
        // It is about to be ready.
        Some(failed) if failed.retry_after_ms > 0 => Founded::NoAnswer(failed.message),
        Some(failed) => Founded::Refused(failed.message),
        None => match Uuid::from_slice(&reply.cluster) {
            Ok(cluster) => Founded::Yes(cluster),
            Err(_) => Founded::Refused("its cluster id is not 16 bytes".to_owned()),
        },
    }
}

fn is(failed: &Rejected, reason: Reason) -> bool {
    failed.reason == i32::from(reason)
}

/// The cluster as a node sees it; `None` while it does not answer or belongs to none.
pub async fn status(node: &DevNode) -> Option<StatusReply> {
    let ask = async { client(&node.grpc).await.ok()?.status(StatusRequest {}).await.ok() };
    let reply = timeout(ASK * 2, ask).await.ok()??.into_inner();
    reply.failed.is_none().then_some(reply)
}

/// The node's state in words, if it is not yet as it should be. Nodes are told apart by the address of their peer
/// door, which is theirs alone.
pub fn lacking(reply: &StatusReply, node: &DevNode) -> Option<String> {
    let Some(seen) = reply.nodes.iter().find(|seen| seen.peer_address == node.peer) else {
        return Some("is not a member yet".to_owned());
    };
    // A node whose report did not come in time is judged by its state alone.
    let ready = seen.report.as_ref().is_none_or(|report| report.ready);
    if seen.state == "up" && ready {
        return None;
    }
    let mut text =
        if seen.state == "up" { "is up, not ready".to_owned() } else { format!("is {}", seen.state) };
    let mut reasons = seen.reasons.clone();
    reasons.extend(seen.report.iter().flat_map(|report| report.reasons.clone()));
    reasons.dedup();
    if !reasons.is_empty() {
        text += &format!(": {}", reasons.join("; "));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use god_proto::v1::{NodeReport, NodeStatus};

    #[test]
    fn a_node_is_there_once_it_is_a_member_up_and_ready() {
        let node = DevNode { id: 1, peer: "127.0.0.1:7100".to_owned(), ..DevNode::default() };
        let mut reply = StatusReply::default();
        assert_eq!(lacking(&reply, &node).unwrap(), "is not a member yet");
        reply.nodes.push(NodeStatus {
            peer_address: node.peer.clone(),
            state: "unready".to_owned(),
            reasons: vec!["its index is being read".to_owned()],
            ..NodeStatus::default()
        });
        assert_eq!(lacking(&reply, &node).unwrap(), "is unready: its index is being read");
        reply.nodes[0].state = "up".to_owned();
        reply.nodes[0].report = Some(NodeReport::default());
        assert!(lacking(&reply, &node).unwrap().starts_with("is up, not ready"));
        reply.nodes[0].report = Some(NodeReport { ready: true, ..NodeReport::default() });
        assert_eq!(lacking(&reply, &node), None);
    }
}
