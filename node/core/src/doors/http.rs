//! The HTTP door: whether the node lives, whether it is ready, and its metrics.

use super::{Service, metrics::Metrics};
use crate::{
    budget::Budget,
    connections::{DoorLimits, Protocol, Spent, Times, serve},
    stop::Stop,
};
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// How long requests may take to finish when the node stops.
const GRACE: Duration = Duration::from_secs(2);

const POINTER: &str = "\
This is a node of GoD, an ordered, replicated key-value store.

/healthz  200 while the process lives
/readyz   200 when it takes requests, else 503 with the reasons (JSON with `Accept: application/json`)
/metrics  Prometheus

Clients speak gRPC (god.v1) on another port; `god status` shows the cluster.
";

#[derive(Clone)]
struct Node {
    service: Arc<dyn Service>,
    metrics: Arc<Metrics>,
}

/// Serves until told to stop. At most `connections` are open at once.
pub async fn serve_http(
    listener: TcpListener,
    service: Arc<dyn Service>,
    metrics: Arc<Metrics>,
    connections: usize,
    times: Times,
    budget: Budget,
    stop: Stop,
) {
    let router = Router::new()
        .route("/", get(async || POINTER))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .with_state(Node { service, metrics });
    let (protocol, spent) = (Protocol::Http1, Spent::Admit);
    let bounds = DoorLimits { door: "http", connections, times, protocol, grace: GRACE, budget, spent };
    serve(listener, router, bounds, stop).await;
}

async fn readyz(State(node): State<Node>, headers: HeaderMap) -> Response {
    let readiness = node.service.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepts.contains("json") {
        return (status, Json(json!({ "ready": readiness.ready, "reasons": readiness.reasons })))
            .into_response();
    }
    let mut text = if readiness.ready { "ready\n" } else { "not ready\n" }.to_owned();
    for reason in &readiness.reasons {
        text.push_str("- ");
        text.push_str(reason);
        text.push('\n');
    }
    (status, text).into_response()
}

async fn render(State(node): State<Node>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], node.metrics.render())
}

async fn unknown(request: Request) -> impl IntoResponse {
    let problem = format!("there is nothing at {}: / says what there is", request.uri().path());
    (StatusCode::NOT_FOUND, Json(json!({ "error": problem })))
}

async fn not_allowed(request: Request) -> impl IntoResponse {
    let problem = format!("{} is not possible at {}: use GET", request.method(), request.uri().path());
    (StatusCode::METHOD_NOT_ALLOWED, Json(json!({ "error": problem })))
}
