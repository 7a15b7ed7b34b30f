//! The gRPC door for clients: both services, reflection and health, on one listener.

use super::{Service, cluster::ClusterDoor, incoming::incoming, store::StoreDoor};
use crate::stop::Stop;
use futures::FutureExt;
use god_proto::{
    DESCRIPTORS, MAX_MESSAGE,
    v1::{cluster_server::ClusterServer, store_server::StoreServer},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    select,
    time::{MissedTickBehavior, interval, sleep},
};
use tonic::{server::NamedService, transport::Server};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

/// Windows of HTTP/2, in bytes: a largest value fits.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
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
/// clients are connected at once; further ones wait to be accepted.
pub async fn serve_grpc(
    listener: TcpListener,
    service: Arc<dyn Service>,
    connections: usize,
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
    let store = StoreServer::new(StoreDoor::new(Arc::clone(&service), stop.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let cluster = ClusterServer::new(ClusterDoor::new(Arc::clone(&service)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .add_service(store)
        .add_service(cluster)
        .add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(incoming(listener, connections), stop.clone().stopped());
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
        served = serving => Ok(served?),
        () = following => Ok(()),
        () = stop.stopped().then(|()| sleep(GRACE)) => Ok(()),
    }
}

async fn follow(health: &HealthReporter, service: &dyn Service) {
    let ready = service.readiness().ready;
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in FOLLOWERS {
        health.set_service_status(name, status).await;
    }
}
