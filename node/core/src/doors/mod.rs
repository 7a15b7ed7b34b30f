//! How the world reaches a node: gRPC for clients, HTTP for people and monitors.
//!
//! A door reads what comes from outside, within bounds, and asks the node through [`Service`]. It decides nothing about
//! data; what is wrong with a request the coordinator says.

mod cluster;
mod deadline;
mod families;
mod grpc;
mod http;
mod meter;
mod metrics;
mod pipeline;
mod process;
mod service;
mod store;
#[cfg(test)]
mod tests;

pub use self::{
    grpc::serve_grpc,
    http::serve_http,
    metrics::{Metrics, install_recorder},
    service::{Readiness, Service},
};
