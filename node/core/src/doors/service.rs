//! What a door asks of the node.

use crate::quorum::{AnswerSink, Collected};
use futures::future::BoxFuture;
use god_proto::v1;

/// The node, seen from its doors to clients.
///
/// Every method ends by the request's `timeout_ms`, or by the node's own limit where that is 0 or higher. What is
/// refused is a normal reply that carries a [`v1::Rejected`]. Dropping a future gives up waiting for the answer; a
/// write that was begun may still take effect.
pub trait Service: Send + Sync + 'static {
    /// Answers each call once, and tells of each when it is done. Not a transaction: each has its own outcome. At most
    /// [`god_proto::MAX_BATCH`] calls; none of them is empty.
    fn batch_to<'a>(&'a self, calls: Vec<v1::Call>, told: &'a mut dyn AnswerSink) -> BoxFuture<'a, ()>;

    /// The same, in the order of the calls, when all are done.
    fn batch(&self, calls: Vec<v1::Call>) -> BoxFuture<'_, Vec<v1::Answer>> {
        Box::pin(async move {
            let mut all = Collected::new(calls.len());
            self.batch_to(calls, &mut all).await;
            all.into_answers()
        })
    }

    /// One page of keys in order.
    fn scan(&self, request: v1::ScanRequest) -> BoxFuture<'_, v1::ScanReply>;

    /// The number of keys in a range.
    fn count(&self, request: v1::CountRequest) -> BoxFuture<'_, v1::CountReply>;

    /// The number of keys before a key.
    fn rank(&self, request: v1::RankRequest) -> BoxFuture<'_, v1::RankReply>;

    /// The key that has a number of keys before it.
    fn select(&self, request: v1::SelectRequest) -> BoxFuture<'_, v1::SelectReply>;

    /// Founds a cluster on this node.
    fn init(&self, request: v1::InitRequest) -> BoxFuture<'_, v1::InitReply>;

    /// The ring as this node knows it.
    fn ring(&self, request: v1::RingRequest) -> BoxFuture<'_, v1::RingReply>;

    /// Every node's state, as this node sees them.
    fn status(&self, request: v1::StatusRequest) -> BoxFuture<'_, v1::StatusReply>;

    /// Makes a keyspace.
    fn create_keyspace(&self, request: v1::CreateKeyspaceRequest) -> BoxFuture<'_, v1::CreateKeyspaceReply>;

    /// Deletes a keyspace.
    fn delete_keyspace(&self, request: v1::DeleteKeyspaceRequest) -> BoxFuture<'_, v1::DeleteKeyspaceReply>;

    /// All keyspaces.
    fn list_keyspaces(&self, request: v1::ListKeyspacesRequest) -> BoxFuture<'_, v1::ListKeyspacesReply>;

    /// What an operation would do.
    fn plan_operation(&self, request: v1::PlanOperationRequest) -> BoxFuture<'_, v1::PlanOperationReply>;

    /// Begins an operation.
    fn begin_operation(&self, request: v1::BeginOperationRequest) -> BoxFuture<'_, v1::BeginOperationReply>;

    /// Undoes an operation.
    fn cancel_operation(
        &self,
        request: v1::CancelOperationRequest,
    ) -> BoxFuture<'_, v1::CancelOperationReply>;

    /// The operations under way, and the latest that have ended.
    fn list_operations(&self, request: v1::ListOperationsRequest) -> BoxFuture<'_, v1::ListOperationsReply>;

    /// Makes a ring decidable again whose voters are lost.
    fn recover(&self, request: v1::RecoverRequest) -> BoxFuture<'_, v1::RecoverReply>;

    /// The ring's epoch; 0 without a ring. Cost: a few atomic loads.
    fn epoch(&self) -> u64;

    /// Whether clients should send their requests here. Cheap: asked every second.
    fn readiness(&self) -> Readiness;
}

/// Whether a node should be sent requests, and why not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it should.
    pub ready: bool,
    /// Sentences for an operator, one a cause; empty when it is ready.
    pub reasons: Vec<String>,
}
