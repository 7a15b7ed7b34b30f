//! Every setting there is, as it may be given: by flag, by variable, in the file.

use super::units::{ByteSize, Span, Switch};
use clap::{Args, Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};
use uuid::Uuid;

/// A node of GoD: an ordered, replicated key-value store
///
/// Every setting may be given by a flag, by a variable, or in a YAML file under the flag's name, seeds as a list; the
/// flag goes before the variable, the variable before the file.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "god-node",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  god-node --data /data                                  a first node; then: god init
  god-node --data /data --seed god-0.god:7100            one that joins the cluster found there
  god-node --config /etc/god.yaml --print-config         what it would be set to, and from where

A file:
  data: /data
  seeds: [god-0.god:7100, god-1.god:7100]
  memory: 1GiB
  durability: always"
)]
pub struct Cli {
    /// A YAML file of settings
    #[arg(long, env = "GOD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Prints what the node is set to, and from where, and ends
    #[arg(long)]
    pub print_config: bool,
    /// Says that the data directory was put back from a backup, and is the node whatever the others remember of it: for
    /// one start, of each node that was put back. Its copies vote when they were compared with the others'
    #[arg(long)]
    pub restored: bool,
    /// Prints the manual page, or what a shell completes this command by, and ends
    #[arg(long, value_enum, value_name = "WHAT", hide = true)]
    pub generate: Option<Generated>,
    /// The settings.
    #[command(flatten)]
    pub given: Given,
}

/// What is made from this command line's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Generated {
    /// The manual page
    Man,
    /// Completions for bash
    Bash,
    /// Completions for zsh
    Zsh,
    /// Completions for fish
    Fish,
}

/// Every setting, given or not.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Given {
    /// Where data is kept [default: /var/lib/god]
    #[arg(long, env = "GOD_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Where clients are listened for; port 7000 by custom [default: 0.0.0.0:7000]
    #[arg(long, env = "GOD_GRPC_ADDRESS", value_name = "IP:PORT", value_parser = address, help_heading = "Doors")]
    pub grpc_address: Option<SocketAddr>,
    /// Where other nodes are listened for [default: 0.0.0.0:7100]
    #[arg(long, env = "GOD_PEER_ADDRESS", value_name = "IP:PORT", value_parser = address, help_heading = "Doors")]
    pub peer_address: Option<SocketAddr>,
    /// Where HTTP is listened for: /healthz, /readyz, /metrics [default: 0.0.0.0:7200]
    #[arg(long, env = "GOD_HTTP_ADDRESS", value_name = "IP:PORT", value_parser = address, help_heading = "Doors")]
    pub http_address: Option<SocketAddr>,
    /// Where clients find this node [default: the address it listens on, by the host's name if that is all addresses]
    #[arg(long, env = "GOD_ADVERTISE_GRPC", value_name = "HOST:PORT", help_heading = "Doors")]
    pub advertise_grpc: Option<String>,
    /// Where other nodes find this node [default: as for clients]
    #[arg(long, env = "GOD_ADVERTISE_PEER", value_name = "HOST:PORT", help_heading = "Doors")]
    pub advertise_peer: Option<String>,
    /// Where people and monitors find this node [default: as for clients]
    #[arg(long, env = "GOD_ADVERTISE_HTTP", value_name = "HOST:PORT", help_heading = "Doors")]
    pub advertise_http: Option<String>,

    /// Connections of clients at a time, 1 to 1,000,000, as far as the system gives descriptors [default: 4096]
    #[arg(long, env = "GOD_CONNECTIONS", value_name = "N", help_heading = "Doors")]
    pub connections: Option<u32>,
    /// How long a connection at any door may take to say what it wants, 100ms to 10m [default: 5s]
    #[arg(long, env = "GOD_HANDSHAKE_TIMEOUT", value_name = "TIME", help_heading = "Doors")]
    pub handshake_timeout: Option<Span>,
    /// How long a connection may be without a request, 1s to 1day [default: 15m]
    #[arg(long, env = "GOD_IDLE_TIMEOUT", value_name = "TIME", help_heading = "Doors")]
    pub idle_timeout: Option<Span>,
    /// How long an answer may wait for its client to read, 100ms to 1h; then the connection is closed [default: 30s]
    #[arg(long, env = "GOD_UNREAD_TIMEOUT", value_name = "TIME", help_heading = "Doors")]
    pub unread_timeout: Option<Span>,

    /// Peer doors where the cluster may be found, with commas or one by one; a name may stand for many [default: none]
    #[arg(
        long = "seed",
        visible_alias = "seeds",
        env = "GOD_SEEDS",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        help_heading = "Cluster"
    )]
    #[serde(alias = "seed")]
    pub seeds: Option<Vec<String>>,
    /// Join this cluster and no other [default: any]
    #[arg(long, env = "GOD_CLUSTER", value_name = "UUID", help_heading = "Cluster")]
    pub cluster: Option<Uuid>,
    /// What fails together with this node, up to 64 characters; copies are spread over zones [default: none]
    #[arg(long, env = "GOD_ZONE", value_name = "NAME", help_heading = "Cluster")]
    pub zone: Option<String>,
    /// How much of the data this node takes, beside nodes of weight 1: above 0, up to 1,000 [default: 1]
    #[arg(long, env = "GOD_WEIGHT", value_name = "NUMBER", help_heading = "Cluster")]
    pub weight: Option<f64>,
    /// Whether a node that joins a cluster with data takes its part by itself: auto or manual [default: auto]
    #[arg(long, env = "GOD_JOIN", value_enum, value_name = "HOW", help_heading = "Cluster")]
    pub join: Option<JoinChoice>,

    /// Memory for storage's caches and buffers, 16MiB at least [default: 256MiB]
    #[arg(long, env = "GOD_MEMORY", value_name = "SIZE", help_heading = "Storage")]
    pub memory: Option<ByteSize>,
    /// When acknowledged writes are forced to the disk [default: interval]
    #[arg(long, env = "GOD_DURABILITY", value_enum, value_name = "WHEN", help_heading = "Storage")]
    pub durability: Option<DurabilityChoice>,
    /// How often, where durability is interval, 1ms to 1m [default: 100ms]
    #[arg(long, env = "GOD_SYNC_INTERVAL", value_name = "TIME", help_heading = "Storage")]
    pub sync_interval: Option<Span>,
    /// What stays free on the disk; below, only deletions are taken, down to half of it [default: 64MiB]
    #[arg(long, env = "GOD_DISK_RESERVE", value_name = "SIZE", help_heading = "Storage")]
    pub disk_reserve: Option<ByteSize>,

    /// Whether nodes gossip on who is there: on or off [default: on]
    #[arg(long, env = "GOD_GOSSIP", value_name = "SWITCH", help_heading = "Gossip")]
    pub gossip: Option<Switch>,
    /// Between two rounds, 10ms to 1m; shorter is faster news and more traffic [default: 200ms]
    #[arg(long, env = "GOD_GOSSIP_INTERVAL", value_name = "TIME", help_heading = "Gossip")]
    pub gossip_interval: Option<Span>,
    /// Nodes told each round, 1 to 100 [default: 3]
    #[arg(long, env = "GOD_GOSSIP_FANOUT", value_name = "N", help_heading = "Gossip")]
    pub gossip_fanout: Option<u32>,
    /// Between two probes of whether a node is there, 10ms to 2s [default: 500ms]
    #[arg(long, env = "GOD_PING_INTERVAL", value_name = "TIME", help_heading = "Gossip")]
    pub ping_interval: Option<Span>,

    /// Arcs a node of weight 1 leads in each keyspace, 1 to 1,000 [default: 10]
    #[arg(long, env = "GOD_VIRTUAL_NODES", value_name = "N", help_heading = "What god init takes")]
    pub virtual_nodes: Option<u32>,
    /// Copies of each key, 1 to 16 [default: 3]
    #[arg(long, env = "GOD_REPLICAS", value_name = "N", help_heading = "What god init takes")]
    pub replicas: Option<u32>,
    /// Copies that must acknowledge a write, 1 to replicas [default: more than half]
    #[arg(long, env = "GOD_WRITE_QUORUM", value_name = "N", help_heading = "What god init takes")]
    pub write_quorum: Option<u32>,
    /// Copies that must answer a read, 1 to replicas [default: more than half, and as many as see every acknowledged
    /// write]
    #[arg(long, env = "GOD_READ_QUORUM", value_name = "N", help_heading = "What god init takes")]
    pub read_quorum: Option<u32>,

    /// How long a request may take that names no time, 10ms to 30s; none may take longer than that [default: 5s]
    #[arg(long, env = "GOD_REQUEST_TIMEOUT", value_name = "TIME", help_heading = "Requests")]
    pub request_timeout: Option<Span>,
    /// After how long a read is asked of one replica more, 1ms to 1m [default: 20ms]
    #[arg(long, env = "GOD_HEDGE_DELAY", value_name = "TIME", help_heading = "Requests")]
    pub hedge_delay: Option<Span>,
    /// Memory for requests, 32MiB at least: decoded, under way, and waiting to be sent; beyond it they are refused as
    /// busy [default: 256MiB]
    #[arg(long, env = "GOD_REQUEST_MEMORY", value_name = "SIZE", help_heading = "Requests")]
    pub request_memory: Option<ByteSize>,
    /// What is kept for each node that does not answer, until it is back, 1MiB at least [default: 64MiB]
    #[arg(long, env = "GOD_HINT_LIMIT", value_name = "SIZE", help_heading = "Requests")]
    pub hint_limit: Option<ByteSize>,

    /// Bytes a second that this node takes from others when data moves, 64KiB at least; 0B: no bound [default: 64MiB]
    #[arg(long, env = "GOD_TRANSFER_RATE", value_name = "SIZE", help_heading = "Upkeep")]
    pub transfer_rate: Option<ByteSize>,
    /// Between two comparisons of all replicas, 100ms to 1h; what is suspect is compared at once [default: 30s]
    #[arg(long, env = "GOD_COMPARE_INTERVAL", value_name = "TIME", help_heading = "Upkeep")]
    pub compare_interval: Option<Span>,
    /// How old deletions must be before they are forgotten, 2s to 365days, once all replicas have them [default: 1h]
    #[arg(long, env = "GOD_TOMBSTONE_AGE", value_name = "TIME", help_heading = "Upkeep")]
    pub tombstone_age: Option<Span>,
    /// Whether data moves by itself when nodes have grown uneven: on or off [default: on]
    #[arg(long, env = "GOD_MIGRATE", value_name = "SWITCH", help_heading = "Upkeep")]
    pub migrate: Option<Switch>,

    /// Threads that do the work, 1 to 1,024 [default: one a core]
    #[arg(long, env = "GOD_WORKER_THREADS", value_name = "N", help_heading = "Process")]
    pub worker_threads: Option<u32>,
    /// What is logged, such as info or god_core=debug [default: info]
    #[arg(long, env = "GOD_LOG", value_name = "FILTER", help_heading = "Process")]
    pub log: Option<String>,
    /// How it is logged [default: text]
    #[arg(long, env = "GOD_LOG_FORMAT", value_enum, value_name = "FORMAT", help_heading = "Process")]
    pub log_format: Option<LogFormat>,
}

/// When acknowledged writes are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DurabilityChoice {
    /// When the operating system likes: they survive a crash of the process, not of the machine
    None,
    /// In the background, every sync-interval
    Interval,
    /// Before they are acknowledged
    Always,
}

/// What a node does when it joins a cluster that holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JoinChoice {
    /// It takes its part
    Auto,
    /// It holds nothing until somebody asks for an operation that gives it some
    Manual,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// An address to listen on.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write IP:PORT, such as 0.0.0.0:7000 or [::]:7000".to_owned())
}
