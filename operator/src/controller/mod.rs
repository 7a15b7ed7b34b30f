//! Makes clusters what their objects say: `observe → validate → plan → build → apply → status`.
//!
//! - [`world`]: what was seen and what is wished for, as plain values.
//! - [`plan`]: what to do next. Knows no client.
//! - [`build`]: the objects of a cluster. Knows no client.
//! - [`status`]: what people are told. Knows no client.
//! - [`observe`], [`nodes`], [`apply`]: the ways to the API server and to the nodes.
//! - `reconcile`: a turn. [`run`]: turns for all clusters, while this process leads.

pub mod apply;
pub mod build;
pub mod nodes;
pub mod observe;
pub mod plan;
mod reconcile;
mod run;
mod serve;
pub mod status;
pub mod world;

pub use run::{OperatorSettings, install, run};
