//! What operators ask: the cluster's state, its ring, its keyspaces.

use crate::{Client, Error, Result, client::fetch, keyspace::misspoke, node::Node, transport};
use futures::future::join_all;
use god_proto::v1::{
    BeginOperationRequest, CancelOperationRequest, CreateKeyspaceRequest, DeleteKeyspaceRequest, InitRequest,
    Keyspace, ListKeyspacesRequest, ListOperationsReply, ListOperationsRequest, PlanOperationReply,
    PlanOperationRequest, RecoverReply, RecoverRequest, Rejected, RingDocument, RingRequest, StatusReply,
    StatusRequest, Wish, cluster_client::ClusterClient,
};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tonic::{Response, Status, transport::Channel};
use uuid::Uuid;

/// How long a new keyspace is waited for to be known everywhere, in all, and how long one look and the pause after it.
const SPREADS: Duration = Duration::from_secs(3);
const LOOKS: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(10);

impl Client {
    /// Every node's state, as one of the named servers sees them.
    pub async fn status(&self) -> Result<StatusReply> {
        let call = |mut to: ClusterClient<Channel>| async move { to.status(StatusRequest {}).await };
        let (mut reply, _) = self.ask_servers(call).await?;
        ok(reply.failed.take())?;
        Ok(reply)
    }

    /// The ring as one of the named servers knows it.
    pub async fn ring(&self) -> Result<RingDocument> {
        let call = |mut to: ClusterClient<Channel>| async move { to.ring(RingRequest {}).await };
        let (reply, _) = self.ask_servers(call).await?;
        ok(reply.failed)?;
        reply.ring.ok_or_else(|| misspoke("the answer has no ring"))
    }

    /// All keyspaces, as one of the named servers knows them.
    pub async fn list_keyspaces(&self) -> Result<Vec<Keyspace>> {
        let call =
            |mut to: ClusterClient<Channel>| async move { to.list_keyspaces(ListKeyspacesRequest {}).await };
        let (reply, _) = self.ask_servers(call).await?;
        ok(reply.failed)?;
        Ok(reply.keyspaces)
    }

    /// Founds a cluster on the first named server that answered when this client connected, and on no other one. Gives
    /// the cluster's id.
    ///
    /// # Errors
    /// [`Error::Unknown`] where the server did not say what came of it: ask it for its [`Client::status`].
    pub async fn init(&self, request: InitRequest) -> Result<Uuid> {
        let home = self.home()?;
        let limit = self.inner.settings.timeout;
        let reply = once(&home, limit, home.cluster().init(request)).await?;
        ok(reply.failed)?;
        self.learn(&home).await;
        Uuid::from_slice(&reply.cluster).map_err(|_| misspoke("the cluster's id is not 16 bytes"))
    }

    /// Makes a keyspace, and waits until the nodes that answer know it: calls go to any of them from then on.
    ///
    /// # Errors
    /// [`Error::Unknown`] where the server did not say what came of it: [`Client::list_keyspaces`] shows it.
    pub async fn create_keyspace(&self, request: CreateKeyspaceRequest) -> Result<Keyspace> {
        let home = self.home()?;
        let limit = self.inner.settings.timeout;
        let reply = once(&home, limit, home.cluster().create_keyspace(request)).await?;
        ok(reply.failed)?;
        let made = reply.keyspace.ok_or_else(|| misspoke("the answer has no keyspace"))?;
        self.learn(&home).await;
        // One that takes long hears of it by itself, and its calls are tried again.
        let _ = timeout(limit.min(SPREADS), self.spread(made.id)).await;
        Ok(made)
    }

    /// Deletes a keyspace with all that it holds: the one of this id ([`Client::list_keyspaces`]), or whichever has the
    /// name where that is 0. With an id the same call may be made again.
    ///
    /// # Errors
    /// [`Error::Unknown`] where the server did not say what came of it: [`Client::list_keyspaces`] shows it.
    pub async fn delete_keyspace(&self, name: &str, id: u32) -> Result<()> {
        let home = self.home()?;
        let limit = self.inner.settings.timeout;
        let request = DeleteKeyspaceRequest { name: name.to_owned(), id };
        ok(once(&home, limit, home.cluster().delete_keyspace(request)).await?.failed)?;
        self.learn(&home).await;
        Ok(())
    }

    /// What an operation would do; nothing moves.
    pub async fn plan_operation(&self, wish: Wish) -> Result<PlanOperationReply> {
        let call = |mut to: ClusterClient<Channel>| {
            let request = PlanOperationRequest { wish: Some(wish.clone()) };
            async move { to.plan_operation(request).await }
        };
        let (mut reply, _) = self.ask_servers(call).await?;
        ok(reply.failed.take())?;
        Ok(reply)
    }

    /// Begins an operation, or queues it behind those under way, and gives its id. The same id again changes nothing,
    /// so that a call whose outcome is unknown may be made again if it names one.
    pub async fn begin_operation(&self, id: &str, wish: Wish) -> Result<String> {
        let home = self.home()?;
        let limit = self.inner.settings.timeout;
        let request = BeginOperationRequest { id: id.to_owned(), wish: Some(wish) };
        let reply = once(&home, limit, home.cluster().begin_operation(request)).await?;
        ok(reply.failed)?;
        Ok(reply.id)
    }

    /// Undoes an operation that has not ended.
    pub async fn cancel_operation(&self, id: &str) -> Result<()> {
        let home = self.home()?;
        let limit = self.inner.settings.timeout;
        let request = CancelOperationRequest { id: id.to_owned() };
        ok(once(&home, limit, home.cluster().cancel_operation(request)).await?.failed)
    }

    /// The operations under way with their progress, and the latest that have ended.
    pub async fn list_operations(&self) -> Result<ListOperationsReply> {
        let call = |mut to: ClusterClient<Channel>| async move {
            to.list_operations(ListOperationsRequest {}).await
        };
        let (mut reply, _) = self.ask_servers(call).await?;
        ok(reply.failed.take())?;
        Ok(reply)
    }

    /// Makes a ring decidable again whose majority of voters is lost for good; or says, in a dry run, what that
    /// would do.
    pub async fn recover(&self, request: RecoverRequest) -> Result<RecoverReply> {
        let call = |mut to: ClusterClient<Channel>| {
            let request = request.clone();
            async move { to.recover(request).await }
        };
        let (mut reply, _) = self.ask_servers(call).await?;
        ok(reply.failed.take())?;
        Ok(reply)
    }

    fn home(&self) -> Result<Arc<Node>> {
        let routes = self.inner.routes.load();
        routes
            .seeds
            .first()
            .cloned()
            .ok_or_else(|| Error::Unreachable("there is no server to ask".to_owned()))
    }

    /// Waits until each node knows a keyspace, or does not answer.
    async fn spread(&self, id: u32) {
        let nodes: Vec<Arc<Node>> = self.inner.routes.load().nodes.values().cloned().collect();
        let known = nodes.iter().map(|node| async move {
            while let Ok(reply) =
                once(node, LOOKS, node.cluster().list_keyspaces(ListKeyspacesRequest {})).await
            {
                if reply.keyspaces.iter().any(|keyspace| keyspace.id == id) {
                    break;
                }
                sleep(AGAIN).await;
            }
        });
        join_all(known).await;
    }

    /// Takes over the ring that a node has just made.
    async fn learn(&self, from: &Node) {
        if let Ok(Some(ring)) = fetch(from, self.inner.settings.timeout).await {
            self.inner.install(ring);
        }
    }

    /// Asks the named servers, then the others, until one answers. For what changes nothing.
    async fn ask_servers<T, F>(&self, call: impl Fn(ClusterClient<Channel>) -> F) -> Result<(T, Arc<Node>)>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let limit = self.inner.settings.timeout;
        let mut tried: Vec<Arc<Node>> = Vec::new();
        let mut last = None;
        while tried.len() <= self.inner.settings.retries as usize {
            let next = {
                let routes = self.inner.routes.load();
                let home = routes.seeds.first().filter(|_| tried.is_empty());
                home.or_else(|| routes.any(&tried)).cloned()
            };
            let Some(node) = next else { break };
            match once(&node, limit, call(node.cluster())).await {
                Ok(reply) => return Ok((reply, node)),
                // It changes nothing, so that it does not matter whether it got there.
                Err(Error::Unknown { message, .. } | Error::Unreachable(message)) => {
                    last = Some(Error::Unreachable(message));
                }
                Err(error) => return Err(error),
            }
            tried.push(node);
        }
        Err(last.unwrap_or_else(|| Error::Unreachable("there is no server to ask".to_owned())))
    }
}

async fn once<T>(
    node: &Node,
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T> {
    let unknown = |message: String| Error::Unknown { version: None, acks: 0, message };
    match timeout(limit, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(match transport::failed(node.address(), &status) {
            transport::Failed::Refused(error) => error,
            transport::Failed::NotSent(why) => Error::Unreachable(why),
            transport::Failed::Open(why) => unknown(why),
        }),
        Err(_) => Err(unknown(format!("{} did not answer within {limit:?}", node.address()))),
    }
}

fn ok(failed: Option<Rejected>) -> Result<()> {
    failed.map_or(Ok(()), |rejected| Err(rejected.into()))
}
