//! The figures as a person reads them, and beside the aims.

use super::{
    machine::Machine,
    work::{Run, Workload},
};
use crate::{
    figures::{bytes, counted, grouped, short},
    output::{self, render},
};
use serde::Serialize;

/// Server processor time of a quorum write whose disk is written later, of one whose disk is written first, and of a
/// quorum read; microseconds, all nodes together.
const AIM_WRITE_US: f64 = 45.0;
const AIM_SYNCED_WRITE_US: f64 = 65.0;
const AIM_READ_US: f64 = 30.0;
/// At so many clients, the slowest of a hundred calls.
const AIM_P99_US: f64 = 8_000.0;
const AIM_P99_CLIENTS: u32 = 64;
/// Memory of a node that holds so many keys.
const AIM_MEMORY: f64 = 150e6;
const AIM_MEMORY_KEYS: u64 = 200_000;

/// Everything that a run of `god bench` found out.
#[derive(Debug, Serialize)]
pub struct BenchReport {
    pub machine: Machine,
    pub cluster: Cluster,
    pub settings: BenchSettings,
    pub load: Option<LoadPhase>,
    pub runs: Vec<Run>,
    pub memory: Memory,
    pub aims: Vec<Aim>,
}

#[derive(Debug, Serialize)]
pub struct Cluster {
    pub nodes: usize,
    pub versions: Vec<String>,
    pub durability: String,
    pub keyspace: String,
    pub replicas: u32,
    pub write: u32,
    pub read: u32,
}

#[derive(Debug, Serialize)]
pub struct BenchSettings {
    pub keys: u64,
    pub value_size: usize,
    pub seconds: f64,
    pub warm_up_seconds: f64,
    pub connections_per_node: usize,
}

#[derive(Debug, Serialize)]
pub struct LoadPhase {
    pub seconds: f64,
    pub keys_per_second: f64,
}

/// Bytes in core, a node each; empty where the processes are not known.
#[derive(Debug, Default, Serialize)]
pub struct Memory {
    pub loaded: Vec<u64>,
    pub ended: Vec<u64>,
}

/// A figure beside what it should be. A ratio of 1 or less is an aim that is met.
#[derive(Debug, Serialize)]
pub struct Aim {
    pub what: String,
    pub is: f64,
    pub target: f64,
    pub ratio: f64,
    pub unit: &'static str,
}

/// The aims that these figures say something about.
pub fn aims(cluster: &Cluster, settings: &BenchSettings, runs: &[Run], memory: &Memory) -> Vec<Aim> {
    let mut aims = Vec::new();
    let mut add = |what: String, is: f64, aim: f64, unit| {
        aims.push(Aim { what, is, target: aim, ratio: is / aim, unit });
    };
    let synced = cluster.durability == "always";
    for run in runs {
        let (what, aim) = match run.workload {
            Workload::Write if synced => ("write, synced", AIM_SYNCED_WRITE_US),
            Workload::Write => ("write, unsynced", AIM_WRITE_US),
            Workload::Read => ("read", AIM_READ_US),
            Workload::Mixed => continue,
        };
        if let Some(us) = run.server_cpu_us_per_op {
            add(format!("server CPU, {what}, {}", counted(run.clients.into(), "client")), us, aim, "µs");
        }
    }
    for run in runs.iter().filter(|run| run.clients == AIM_P99_CLIENTS) {
        let what = format!("p99 of {}, {} clients", run.workload.name(), run.clients);
        add(what, run.p99_us as f64 / 1e3, AIM_P99_US / 1e3, "ms");
    }
    if settings.keys == AIM_MEMORY_KEYS
        && let Some(most) = memory.loaded.iter().max()
    {
        let what = format!("memory of a node with {} keys", grouped(settings.keys));
        add(what, *most as f64 / 1e6, AIM_MEMORY / 1e6, "MB");
    }
    aims
}

/// The head: what is measured, on what.
pub fn head(machine: &Machine, cluster: &Cluster, settings: &BenchSettings) -> String {
    let Machine { cpu, cores, memory_bytes, kernel } = machine;
    let Cluster { nodes, versions, durability, keyspace, replicas, write, read } = cluster;
    let lines = [
        format!(
            "machine     {cpu}, {}, {} memory, Linux {kernel}",
            counted(*cores as u64, "core"),
            bytes(*memory_bytes)
        ),
        format!(
            "cluster     {}, version {}, durability {durability}; servers and clients share the machine if on 127.0.0.1",
            counted(*nodes as u64, "node"),
            versions.join(" and ")
        ),
        format!("keyspace    {keyspace}: N {replicas}, W {write}, R {read}"),
        format!(
            "settings    {}, values of {} bytes, {:.0} s each after {:.0} s of warm-up, {} a node",
            counted(settings.keys, "key"),
            grouped(settings.value_size as u64),
            settings.seconds,
            settings.warm_up_seconds,
            counted(settings.connections_per_node as u64, "connection")
        ),
    ];
    lines.join("\n")
}

/// All of it.
pub fn text(report: &BenchReport) -> String {
    let mut out = head(&report.machine, &report.cluster, &report.settings);
    if let Some(load) = &report.load {
        out += &format!(
            "\nloaded      {} in {:.1} s ({}/s)",
            counted(report.settings.keys, "key"),
            load.seconds,
            short(load.keys_per_second)
        );
    }
    out += "\n\n";
    out += &runs(&report.runs);
    out += "\n\nservers and clients: µs of processor time an operation, all nodes together";
    for run in &report.runs {
        if let Some(error) = &run.first_error {
            out += &format!(
                "\nfirst error of {} with {}: {error}",
                run.workload.name(),
                counted(run.clients.into(), "client")
            );
        }
    }
    let list = |nodes: &[u64]| nodes.iter().map(|node| bytes(*node)).collect::<Vec<_>>().join(", ");
    if !report.memory.loaded.is_empty() {
        out += &format!(
            "\n\nmemory a node: {} with the keys loaded; {} in the end",
            list(&report.memory.loaded),
            list(&report.memory.ended)
        );
    }
    if !report.aims.is_empty() {
        out += "\n\n";
        out += &beside(&report.aims);
    }
    out
}

fn runs(runs: &[Run]) -> String {
    let header = ["workload", "clients", "ops/s", "p50", "p99", "p99.9", "servers", "client", "errors"];
    let mut table = output::table(&header, &header[1..]);
    let ms = |us: u64| format!("{:.2} ms", us as f64 / 1e3);
    let us = |us: Option<f64>| us.map_or("-".to_owned(), |us| format!("{us:.1}"));
    for run in runs {
        table.add_row([
            run.workload.name().to_owned(),
            run.clients.to_string(),
            grouped(run.ops_per_second.round() as u64),
            ms(run.p50_us),
            ms(run.p99_us),
            ms(run.p999_us),
            us(run.server_cpu_us_per_op),
            us(run.client_cpu_us_per_op),
            grouped(run.errors),
        ]);
    }
    render(table)
}

fn beside(aims: &[Aim]) -> String {
    let mut table = output::table(&["figure", "is", "aim", "ratio"], &["is", "aim", "ratio"]);
    for aim in aims {
        table.add_row([
            aim.what.clone(),
            format!("{:.1} {}", aim.is, aim.unit),
            format!("{:.0} {}", aim.target, aim.unit),
            format!("{:.2}", aim.ratio),
        ]);
    }
    render(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(workload: Workload, clients: u32) -> Run {
        Run {
            workload,
            clients,
            seconds: 10.0,
            ops: 1,
            ops_per_second: 1_234_567.0,
            p50_us: 900,
            p99_us: 16_000,
            p999_us: 1_234_567,
            max_us: 1_234_567,
            server_cpu_us_per_op: Some(90.0),
            client_cpu_us_per_op: Some(1_000.0),
            errors: 1_000,
            first_error: None,
            windows: Vec::new(),
        }
    }

    fn cluster(durability: &str) -> Cluster {
        Cluster {
            nodes: 3,
            versions: vec!["0.1.0".to_owned()],
            durability: durability.to_owned(),
            keyspace: "default".to_owned(),
            replicas: 3,
            write: 2,
            read: 2,
        }
    }

    const SETTINGS: BenchSettings = BenchSettings {
        keys: 200_000,
        value_size: 100,
        seconds: 10.0,
        warm_up_seconds: 2.0,
        connections_per_node: 1,
    };

    #[test]
    fn a_write_is_held_to_the_aim_of_its_durability() {
        let of = |durability: &str| {
            let runs = [run(Workload::Write, 64)];
            let memory = Memory { loaded: vec![300_000_000], ended: vec![] };
            let aims = aims(&cluster(durability), &SETTINGS, &runs, &memory);
            aims.iter().map(|aim| (aim.target, (aim.ratio * 100.0).round())).collect::<Vec<_>>()
        };
        assert_eq!(of("interval"), [(45.0, 200.0), (8.0, 200.0), (150.0, 200.0)]);
        assert_eq!(of("always")[0], (65.0, 138.0));
    }

    #[test]
    fn the_table_fits_100_columns() {
        let text = runs(&[run(Workload::Mixed, 65_536)]);
        assert!(text.lines().all(|line| line.chars().count() <= output::WIDTH), "{text}");
    }
}
