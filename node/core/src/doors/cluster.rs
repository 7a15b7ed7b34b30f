//! The service `god.v1.Cluster`.

use super::{Service, deadline, meter::Method};
use god_proto::v1::{
    BeginOperationReply, BeginOperationRequest, CancelOperationReply, CancelOperationRequest,
    CreateKeyspaceReply, CreateKeyspaceRequest, DeleteKeyspaceReply, DeleteKeyspaceRequest, InitReply,
    InitRequest, ListKeyspacesReply, ListKeyspacesRequest, ListOperationsReply, ListOperationsRequest,
    PlanOperationReply, PlanOperationRequest, RecoverReply, RecoverRequest, RingReply, RingRequest,
    StatusReply, StatusRequest, cluster_server::Cluster,
};
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// See the module.
pub(super) struct ClusterDoor {
    service: Arc<dyn Service>,
    init: Method,
    ring: Method,
    status: Method,
    create_keyspace: Method,
    delete_keyspace: Method,
    list_keyspaces: Method,
    plan_operation: Method,
    begin_operation: Method,
    cancel_operation: Method,
    list_operations: Method,
    recover: Method,
}

impl ClusterDoor {
    pub fn new(service: Arc<dyn Service>) -> ClusterDoor {
        let method = |name| Method::new("grpc", name);
        ClusterDoor {
            service,
            init: method("init"),
            ring: method("ring"),
            status: method("status"),
            create_keyspace: method("create_keyspace"),
            delete_keyspace: method("delete_keyspace"),
            list_keyspaces: method("list_keyspaces"),
            plan_operation: method("plan_operation"),
            begin_operation: method("begin_operation"),
            cancel_operation: method("cancel_operation"),
            list_operations: method("list_operations"),
            recover: method("recover"),
        }
    }
}

macro_rules! ask {
    ($self:ident, $request:ident, $method:ident) => {{
        let (metadata, _, request) = $request.into_parts();
        let since = Instant::now();
        let reply = deadline::within(&metadata, $self.service.$method(request)).await;
        let reply = reply.inspect_err(|_| $self.$method.failed("DEADLINE"))?;
        $self.$method.answered(1, since);
        if let Some(failed) = &reply.failed {
            $self.$method.failed(failed.reason().as_str_name());
        }
        Ok(Response::new(reply))
    }};
}

#[tonic::async_trait]
impl Cluster for ClusterDoor {
    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitReply>, Status> {
        ask!(self, request, init)
    }

    async fn ring(&self, request: Request<RingRequest>) -> Result<Response<RingReply>, Status> {
        ask!(self, request, ring)
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        ask!(self, request, status)
    }

    async fn create_keyspace(
        &self,
        request: Request<CreateKeyspaceRequest>,
    ) -> Result<Response<CreateKeyspaceReply>, Status> {
        ask!(self, request, create_keyspace)
    }

    async fn delete_keyspace(
        &self,
        request: Request<DeleteKeyspaceRequest>,
    ) -> Result<Response<DeleteKeyspaceReply>, Status> {
        ask!(self, request, delete_keyspace)
    }

    async fn list_keyspaces(
        &self,
        request: Request<ListKeyspacesRequest>,
    ) -> Result<Response<ListKeyspacesReply>, Status> {
        ask!(self, request, list_keyspaces)
    }

    async fn plan_operation(
        &self,
        request: Request<PlanOperationRequest>,
    ) -> Result<Response<PlanOperationReply>, Status> {
        ask!(self, request, plan_operation)
    }

    async fn begin_operation(
        &self,
        request: Request<BeginOperationRequest>,
    ) -> Result<Response<BeginOperationReply>, Status> {
        ask!(self, request, begin_operation)
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<CancelOperationReply>, Status> {
        ask!(self, request, cancel_operation)
    }

    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsReply>, Status> {
        ask!(self, request, list_operations)
    }

    async fn recover(&self, request: Request<RecoverRequest>) -> Result<Response<RecoverReply>, Status> {
        ask!(self, request, recover)
    }
}
