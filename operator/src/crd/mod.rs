//! What a user writes and reads: the `GodCluster`, its rules, and its YAML.
//!
//! - `spec`, `pool`, `status`: the types; their comments are what `kubectl explain` shows.
//! - `memory`: what nodes may hold of their pods' memory.
//! - `rules`: what the API server checks, as CEL in the schema.
//! - [`validate`]: the same in Rust, for what got past it; gives what is to be built.
//! - [`definition`]: the YAML in `crds/`.

mod definition;
mod memory;
mod pool;
mod rules;
mod spec;
mod status;
mod units;
pub mod validate;

pub use definition::definition;
pub use memory::{REQUEST_MEMORY, shares, short_pools};
pub use pool::{NodePool, PodOverrides, Storage};
pub use spec::{
    Consistency, DeletionPolicy, Disruption, Durability, GodCluster, GodClusterSpec, Gossip, Keyspace, Mode,
    Monitoring, Network, NodeSettings, Partitioner, Replacement, Service, ServiceKind, Tls, Volumes,
};
pub use status::{
    BlockedStatus, Founder, GodClusterStatus, NodeState, OperationProgress, Phase, QuarantinedVolume,
    Replaced,
};
pub use units::{bytes, bytes_of, milliseconds, seconds};

#[cfg(test)]
mod tests;
