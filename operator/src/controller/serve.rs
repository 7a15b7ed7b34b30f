//! The operator's own HTTP door: health and metrics.

use axum::{Router, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::net::TcpListener;

/// What the door says of the process.
#[derive(Clone, Default)]
pub(super) struct Health {
    /// It leads and its watches are answered, or it stands by.
    ready: Arc<AtomicBool>,
}

impl Health {
    /// From now on.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }
}

/// Collects metrics from now on.
pub(super) fn recorder() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new().install_recorder()
}

/// Serves until the process ends.
pub(super) async fn serve(
    address: SocketAddr,
    health: Health,
    metrics: PrometheusHandle,
) -> std::io::Result<()> {
    let readyz = move || async move {
        if health.ready.load(Relaxed) {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "watches are not answered yet\n")
        }
    };
    let router = Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(async move || metrics.render()));
    axum::serve(TcpListener::bind(address).await?, router).await
}
