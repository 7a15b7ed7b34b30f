//! The operator of GoD clusters.
//!
//! - [`crd`]: what a user writes and reads.
//! - [`controller`]: makes clusters what their objects say.

pub mod controller;
pub mod crd;
