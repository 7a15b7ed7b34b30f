//! What a node is set to: flags and `GOD_*` variables over a YAML file over defaults, checked before anything starts.
//!
//! ```no_run
//! # fn main() -> Result<(), god_node::settings::SettingsError> {
//! use clap::{CommandFactory, FromArgMatches};
//! use god_node::settings::{Cli, load};
//! let matches = Cli::command().get_matches();
//! let settings = load(&matches, &god_node::settings::host_name())?;
//! println!("{}", settings.effective());
//! # Ok(())
//! # }
//! ```

mod check;
mod given;
mod merge;
#[cfg(test)]
mod tests;
mod units;

pub use given::{Cli, DurabilityChoice, Generated, Given, JoinChoice, LogFormat};
pub use units::{ByteSize, Span, Switch};

use god_core::connections::Times;
use god_store::engine::Durability;
use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};
use uuid::Uuid;

/// Why a node does not start with what it was told.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A flag or a variable cannot be read.
    #[error("{0}")]
    Flag(String),
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {problem}")]
    File {
        /// Where it is.
        path: PathBuf,
        /// What is wrong, with the line.
        problem: String,
    },
    /// A setting is impossible, by itself or together with others.
    #[error("cannot start with these settings: {0}")]
    Impossible(String),
}

/// Everything a node is set to, checked. Settings that go together are possible together.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where data is kept.
    pub data: PathBuf,
    /// The door for clients.
    pub grpc: Door,
    /// The door for other nodes.
    pub peer: Door,
    /// The door for people and monitors.
    pub http: Door,
    /// Connections of clients at a time.
    pub connections: usize,
    /// How long connections may take for what.
    pub times: Times,
    /// `host:port` of peer doors where the cluster may be found; names are looked up each time.
    pub seeds: Vec<String>,
    /// The cluster to join, and no other.
    pub cluster: Option<Uuid>,
    /// What fails together with this node: a rack, a machine, a zone. Copies are spread over zones.
    pub zone: String,
    /// How much of the data this node takes, beside nodes of weight 1.
    pub weight: f64,
    /// Bytes of memory for storage's caches and buffers.
    pub memory: u64,
    /// When acknowledged writes are forced to the disk.
    pub durability: Durability,
    /// Bytes that stay free on the disk; below, only deletions are taken, down to half of it.
    pub disk_reserve: u64,
    /// How liveness travels.
    pub gossip: Gossip,
    /// What `god init` takes where it is told nothing.
    pub founding: Founding,
    /// How long a request may take that names no time.
    pub request_timeout: Duration,
    /// After how long a read is asked of one replica more.
    pub hedge_delay: Duration,
    /// Bytes that requests may hold: decoded, under way, and waiting to be sent.
    pub request_memory: u64,
    /// Bytes of writes kept for one node that does not answer.
    pub hint_limit: u64,
    /// How data is moved, compared and cleaned.
    pub upkeep: Upkeep,
    /// Whether this node takes its part when it joins a cluster that holds data.
    pub takes_part: bool,
    /// Threads that do the work.
    pub worker_threads: usize,
    /// What is logged: `tracing-subscriber`'s filter.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    effective: String,
}

/// Where a door listens, and where others find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// What it listens on.
    pub listen: SocketAddr,
    /// `host:port` for others.
    pub advertise: String,
}

/// How liveness travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// Whether nodes gossip. If not, all of the ring are taken to be up until a call to them fails.
    pub on: bool,
    /// Between two rounds.
    pub interval: Duration,
    /// Nodes told each round.
    pub fan_out: usize,
    /// Between two probes of whether a node is there.
    pub ping_interval: Duration,
}

/// How data is moved, compared and cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upkeep {
    /// Bytes a second taken from other nodes; 0: no bound.
    pub transfer_rate: u64,
    /// Between two comparisons of all replicas.
    pub compare_interval: Duration,
    /// How old deletions must be before they are forgotten.
    pub tombstone_age: Duration,
    /// Whether data moves by itself when nodes have grown uneven.
    pub migrate: bool,
}

/// What `god init` takes where it is told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Copies of each key.
    pub replicas: u32,
    /// Copies that must acknowledge a write.
    pub write_quorum: u32,
    /// Copies that must answer a read.
    pub read_quorum: u32,
    /// Arcs a node of weight 1 leads in each keyspace.
    pub virtual_nodes: u32,
}

impl Settings {
    /// The effective configuration as YAML that `--config` reads, each value with a comment on where it is from.
    pub fn effective(&self) -> &str {
        &self.effective
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.effective)
    }
}

/// Settles what a node is set to. `host_name` is how others find this machine, for doors that listen on all addresses.
pub fn load(matches: &clap::ArgMatches, host_name: &str) -> Result<Settings, SettingsError> {
    check::check(&merge::merge(matches)?, host_name)
}

/// This machine's name, as Linux tells it; `localhost` where it has none.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" | "(none)" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
