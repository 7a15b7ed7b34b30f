//! How the world reaches a node: gRPC for clients, HTTP for people and monitors.
//!
//! A door reads what comes from outside, refuses what cannot be meant, and asks the node through [`Service`]. It
//! decides nothing about data.

mod service;

pub use service::{Readiness, Service};
