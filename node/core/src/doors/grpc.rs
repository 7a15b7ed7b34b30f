//! The gRPC door for clients: both services, reflection and health, on one listener.

use super::{Service, cluster::ClusterDoor, store::StoreDoor};
use crate::{
    budget::Budget,
    connections::{DoorLimits, Http2, Protocol, Spent, Times, serve},
    stop::Stop,
};
use god_proto::{
    DESCRIPTORS, MAX_MESSAGE,
    v1::{cluster_server::ClusterServer, store_server::StoreServer},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    select,
    time::{MissedTickBehavior, interval},
};
use tonic::{server::NamedService, service::Routes};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

/// Windows of HTTP/2, in bytes: what a client may send ahead of what is read, and so is paid for by nobody.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// HTTP/2's own frames, in bytes: the least that it permits.
const HTTP2_FRAME: u32 = 16 << 10;
/// Requests one connection may have under way. Pipelines count once.
const STREAMS: u32 = 1_024;
/// How often a silent connection is pinged, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How often health is brought in line with readiness.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// How long requests may take to finish when the node stops.
const GRACE: Duration = Duration::from_secs(5);
/// Names of the service that follow the node's readiness; the empty one stands for the whole node.
const FOLLOWERS: [&str; 2] = ["", <StoreServer<StoreDoor> as NamedService>::NAME];

/// Serves clients until told to stop; then what was begun is answered, within a few seconds. At most `connections`
/// clients are connected at once; what their requests take in memory is paid from `budget`.
pub async fn serve_grpc(
    listener: TcpListener,
    service: Arc<dyn Service>,
    connections: usize,
    times: Times,
    budget: Budget,
    stop: Stop,
) -> anyhow::Result<()> {
    let health = HealthReporter::new();
    follow(&health, &*service).await;
    let cluster = <ClusterServer<ClusterDoor> as NamedService>::NAME;
    health.set_service_status(cluster, ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("god.v1.Store")
            .with_service_name("god.v1.Cluster")
            .with_service_name("grpc.health.v1.Health")
    };
    let store = StoreServer::new(StoreDoor::new(Arc::clone(&service), budget.clone(), stop.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let cluster = ClusterServer::new(ClusterDoor::new(Arc::clone(&service)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let routes = Routes::new(store)
        .add_service(cluster)
        .add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let http2 = Http2 {
        keep_alive: KEEP_ALIVE,
        keep_alive_timeout: KEEP_ALIVE,
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        frame: HTTP2_FRAME,
        streams: STREAMS,
    };
    let protocol = Protocol::Http2(http2);
    let spent = Spent::Refuse;
    let bounds = DoorLimits { door: "grpc", connections, times, protocol, grace: GRACE, budget, spent };
    let serving = serve(listener, routes.prepare().into_axum_router(), bounds, stop);
    let following = async {
        let mut ticks = interval(HEALTH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            follow(&health, &*service).await;
        }
    };
    select! {
        biased;
        () = serving => Ok(()),
        () = following => Ok(()),
    }
}

async fn follow(health: &HealthReporter, service: &dyn Service) {
    let ready = service.readiness().ready;
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in FOLLOWERS {
        health.set_service_status(name, status).await;
    }
}
