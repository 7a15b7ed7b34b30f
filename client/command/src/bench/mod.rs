//! `god bench`: what a cluster does, what it costs, and how far that is from the aims.

mod machine;
mod process;
mod report;
mod work;

use crate::{failure::Failure, options::Global, output, progress::ProgressDisplay};
use clap::Args;
use god_client::{Client, Consistency};
use god_proto::MAX_VALUE;
use machine::Machine;
use process::{MeasuredNodes, Process};
use report::{BenchReport, BenchSettings, Cluster, LoadPhase, Memory};
use std::{path::PathBuf, time::Duration};
use work::{BenchData, Course, MAX_WINDOWS, Workload};

/// Measures throughput, latency, processor time and memory
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god dev --detach --data /tmp/b && god bench --data /tmp/b
  god bench --server db-0:7000 --clients 64 --workload read
  god bench --data /tmp/b --duration 30s -o json > figures.json

Loads its keys first, as bench/…, and overwrites them; they stay. Each client has one call under way at a time; all
share the connections, as the tasks of a real program do. Only calls that did what was asked count; the others are
errors. Latency is what a client waits: beyond 65,536 calls in flight, where one counts for each 16 KiB of its value,
for its turn, too. With --data, the processor time and memory of the nodes are read as well.

Exit codes: 0 measured, without errors; 3 with errors; 5 unreachable.")]
pub struct BenchArgs {
    /// Numbers of clients, each up to 65,536, one after the other
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "1,16,64,128",
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    clients: Vec<u32>,
    /// Keys to load, and to choose from at random
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a value, up to 8 MiB
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_size: usize,
    /// How long each is measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = crate::options::parse_duration)]
    duration: Duration,
    /// How long each runs before it is measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = crate::options::parse_duration)]
    warm_up: Duration,
    /// What the clients do, one after the other
    #[arg(
        long,
        value_enum,
        value_name = "WHAT,…",
        value_delimiter = ',',
        default_value = "write,read,mixed"
    )]
    workload: Vec<Workload>,
    /// Connections to each node, up to 16
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    connections: u8,
    /// Calls a second of all clients together (default: as many as are answered)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Tells parts of the time apart, up to 7,200, in JSON: their throughput and latency
    #[arg(long, value_name = "TIME", value_parser = crate::options::parse_duration)]
    window: Option<Duration>,
    /// The keys are there already: do not load them
    #[arg(long)]
    no_load: bool,
    /// Directory of a cluster that `god dev` runs; takes the place of --server
    #[arg(short, long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub async fn run(global: &Global, args: &BenchArgs) -> Result<(), Failure> {
    if args.value_size > MAX_VALUE {
        return Err(Failure::Usage(format!(
            "--value-size {}: the most is {MAX_VALUE} bytes",
            args.value_size
        )));
    }
    if let Some(window) = args.window
        && args.duration.as_millis() / window.as_millis().max(1) > MAX_WINDOWS as u128
    {
        return Err(Failure::Usage(format!(
            "--window {}: --duration {} has more than {MAX_WINDOWS} of them",
            humantime::format_duration(window),
            humantime::format_duration(args.duration),
        )));
    }
    let nodes = args.data.as_deref().map(MeasuredNodes::of).transpose()?.unwrap_or_default();
    let servers = if nodes.servers.is_empty() { global.servers() } else { nodes.servers.clone() };
    let most = args.clients.iter().copied().max().unwrap_or(1).max(512);
    let client = Client::builder()
        .servers(servers)
        .timeout(global.timeout.unwrap_or(Duration::from_secs(5)))
        .connections_per_node(args.connections.into())
        // A client that waits for its turn would measure this program.
        .in_flight(most.saturating_mul(1 + (args.value_size >> 14) as u32).min(65_536))
        .connect()
        .await?;
    let consistency = global.consistency.unwrap_or_default();
    let keyspace = client.keyspace(&*global.keyspace).with_reads(consistency).with_writes(consistency);
    let machine = Machine::this();
    let cluster = describe(global, &client, consistency, &nodes).await?;
    let settings = BenchSettings {
        keys: args.keys,
        value_size: args.value_size,
        seconds: args.duration.as_secs_f64(),
        warm_up_seconds: args.warm_up.as_secs_f64(),
        connections_per_node: args.connections.into(),
    };

    let data = BenchData::new(args.keys, args.value_size);
    let quiet = global.output != crate::options::Output::Table;
    let load = if args.no_load {
        None
    } else {
        let mut progress = ProgressDisplay::new("loading", Some(args.keys), quiet);
        let took = work::load(&keyspace, &data, |keys| progress.at(keys, keys)).await;
        progress.finish();
        let took = took?;
        Some(LoadPhase {
            seconds: took.as_secs_f64(),
            keys_per_second: crate::progress::rate(args.keys, took),
        })
    };
    let memory = || nodes.processes.iter().filter_map(Process::memory).collect::<Vec<_>>();
    let mut memory_seen = Memory { loaded: memory(), ended: Vec::new() };

    let mut runs = Vec::new();
    for workload in &args.workload {
        for clients in &args.clients {
            if !quiet {
                output::say(&format!("measuring {}, {clients} at a time …", workload.name()));
            }
            let course = Course {
                workload: *workload,
                clients: *clients,
                warm_up: args.warm_up,
                duration: args.duration,
                rate: args.rate,
                window: args.window,
            };
            runs.push(work::run(&keyspace, &data, course, &nodes).await?);
        }
    }
    memory_seen.ended = memory();
    let aims = report::aims(&cluster, &settings, &runs, &memory_seen);
    let report = BenchReport { machine, cluster, settings, load, runs, memory: memory_seen, aims };
    let json = serde_json::to_value(&report)
        .map_err(|error| Failure::Refused(format!("cannot print the figures: {error}")))?;
    // Calls that failed count for more than figures that nobody reads.
    let printed = output::document(global.output, &json, || report::text(&report));
    match report.runs.iter().map(|run| run.errors).sum::<u64>() {
        0 => printed,
        errors => Err(Failure::Refused(format!(
            "{} did not do what was asked",
            crate::figures::counted(errors, "call")
        ))),
    }
}

/// What is measured.
async fn describe(
    global: &Global,
    client: &Client,
    consistency: Consistency,
    nodes: &MeasuredNodes,
) -> Result<Cluster, Failure> {
    let ring = client.ring().await?;
    let Some(known) = ring.keyspaces.iter().find(|keyspace| keyspace.name == global.keyspace) else {
        return Err(Failure::Usage(format!(
            "there is no keyspace {}; make one with: god keyspace create {0}",
            global.keyspace
        )));
    };
    let count = |default: u32| match consistency {
        Consistency::Keyspace => default,
        Consistency::One => 1,
        Consistency::Quorum => known.replicas / 2 + 1,
        Consistency::All => known.replicas,
        Consistency::Count(count) => count,
    };
    let mut versions: Vec<String> = ring.nodes.iter().map(|node| node.version.clone()).collect();
    versions.sort();
    versions.dedup();
    Ok(Cluster {
        nodes: ring.nodes.len(),
        versions,
        durability: nodes.durability(),
        keyspace: global.keyspace.clone(),
        replicas: known.replicas,
        write: count(known.write_quorum),
        read: count(known.read_quorum),
    })
}
