//! What the planner owes: properties over many clusters, and golden files that a person can read.

#![allow(clippy::unwrap_used)]

mod golden;
mod properties;

use super::{FoundOptions, Joiner, found};
use god_proto::ring::Ring;
use uuid::Uuid;

pub(super) fn joiner(number: u32, zone: &str, weight: f64) -> Joiner {
    Joiner {
        uuid: Uuid::from_u128(u128::from(number)),
        peer_address: format!("n{number}:1"),
        grpc_address: format!("n{number}:2"),
        http_address: format!("n{number}:3"),
        zone: zone.to_owned(),
        weight,
        version: "0.1.0".to_owned(),
    }
}

pub(super) fn first(zone: &str, weight: f64, virtual_nodes: u32) -> Ring {
    let options = FoundOptions { virtual_nodes, ..FoundOptions::default() };
    Ring::new(found(Uuid::from_u128(99), &joiner(1, zone, weight), options).unwrap()).unwrap()
}
