//! `god dev`: a cluster of node processes on this machine, to try things out and to test against.

mod cluster;
mod process;
mod start;
mod state;
mod tour;

use crate::{
    context::Context,
    failure::Failure,
    options::{Global, Servers},
    output,
};
use clap::{Args, Subcommand, ValueEnum};
pub use process::NODE;
use serde_json::json;
use start::Nodes;
pub use state::DevState;
use state::Loaded;
use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs a cluster on this machine, to try things out
///
/// Starts nodes as processes on 127.0.0.1, founds a cluster on the first start, and stays until Ctrl-C. A second
/// start goes on with the same data. Ports are kept where they are still free.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  god dev                                          three nodes, data in ./god-data
  god dev --nodes 5 --data /tmp/try                five
  god dev --load UnicodeData.txt                   and a file, in an ordered keyspace named after it
  god dev --detach --output json                   in the background, for scripts
  god dev -- --memory 64MiB                        all after -- goes to each god-node
  god dev stop --data /tmp/try                     stops them

The program god-node is taken from GOD_NODE, else from beside god, else from the path. What variables say is for nodes,
too. Where they say nothing, nodes share the processors, and give memory back as those under systemd do
(MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_)."
)]
pub struct DevArgs {
    #[command(flatten)]
    start: StartArgs,
    #[command(subcommand)]
    command: Option<DevCommand>,
}

#[derive(Subcommand, Debug)]
enum DevCommand {
    /// Starts the nodes (as `god dev` alone does)
    Start(StartArgs),
    /// Stops the nodes that were started on a directory
    Stop(StopArgs),
}

/// What to start.
#[derive(Args, Debug)]
struct StartArgs {
    /// How many nodes, up to 64 (default: as many as last time, else 3)
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    nodes: Option<u32>,
    /// Where data, logs and dev.json are kept; made if it is not there
    #[arg(short, long, value_name = "DIR", default_value = "god-data")]
    data: PathBuf,
    /// Load this file, once, into an ordered keyspace that is named after it
    #[arg(short, long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Return once the cluster is ready; `god dev stop` stops it
    #[arg(long)]
    detach: bool,
    /// When a write counts as stored (default: the node's own default)
    #[arg(long, value_enum, value_name = "WHEN")]
    durability: Option<DevDurability>,
    /// Ports to try for new nodes: N and up for clients, N+100 for peers, N+200 for HTTP (default: any free ones)
    #[arg(long, value_name = "N")]
    first_port: Option<u16>,
    /// More options for each god-node
    #[arg(last = true, value_name = "GOD-NODE-OPTIONS")]
    node_options: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DevDurability {
    /// Once it is in memory; a crash of the machine may take seconds of writes
    None,
    /// Once it is in memory, and on disk soon after
    Interval,
    /// Once it is on disk
    Always,
}

#[derive(Args, Debug)]
struct StopArgs {
    /// The directory that the nodes were started on
    #[arg(short, long, value_name = "DIR", default_value = "god-data")]
    data: PathBuf,
}

pub async fn run(global: &Global, args: DevArgs) -> Result<(), Failure> {
    match args.command {
        None => start(global, args.start).await,
        Some(DevCommand::Start(args)) => start(global, args).await,
        Some(DevCommand::Stop(args)) => stop(global, &args).await,
    }
}

async fn start(global: &Global, args: StartArgs) -> Result<(), Failure> {
    let program = process::find_program()?;
    let dir = open_dir(&args.data)?;
    let mut state = DevState::read(&dir)?.unwrap_or_else(DevState::new);
    refuse_if_running(&dir, &state)?;
    let count = how_many(args.nodes, &state, &dir)?;
    if let Some(file) = &args.load {
        fs::File::open(file)
            .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))?;
    }
    state.assign_ports(count, args.first_port)?;

    let mut options: Vec<OsString> = Vec::new();
    if let Some(name) = args.durability.and_then(|durability| durability.to_possible_value()) {
        options.extend(["--durability".into(), name.get_name().into()]);
    }
    options.extend(args.node_options.iter().cloned());

    let mut signals =
        Signals::listen().map_err(|error| Failure::Usage(format!("cannot wait for signals: {error}")))?;
    let mut nodes = Nodes::new(program, dir.clone(), options, state);
    let ready = tokio::select! {
        biased;
        () = signals.any() => Err(None),
        result = ready(global, &args, &mut nodes) => result.map_err(Some),
    };
    match ready {
        Ok(()) if args.detach => return Ok(()),
        Ok(()) => {}
        Err(failure) => {
            nodes.stop().await?;
            return failure.map_or(Ok(()), Err);
        }
    }
    let outcome = tokio::select! {
        biased;
        () = signals.any() => {
            output::say("stopping the nodes …");
            Ok(())
        }
        () = nodes.watch() => Err(Failure::Refused("no node is left".to_owned())),
    };
    nodes.stop().await?;
    outcome
}

/// Starts, loads and tells.
async fn ready(global: &Global, args: &StartArgs, nodes: &mut Nodes) -> Result<(), Failure> {
    output::say(&format!("starting {} …", crate::figures::counted(nodes.state.nodes.len() as u64, "node")));
    let status = nodes.start().await?;
    if let Some(file) = &args.load {
        load(global, file, nodes).await?;
    }
    let all: Vec<_> = nodes
        .state
        .nodes
        .iter()
        .map(|node| {
            json!({
                "id": node.id, "pid": node.pid, "grpc": node.grpc, "peer": node.peer,
                "http": node.http, "resp": node.resp,
            })
        })
        .collect();
    output::report(global.output, &json!({ "nodes": all }), || {
        tour::text(nodes, &status, args.detach, &args.data)
    });
    Ok(())
}

/// Loads a file that was not loaded yet. One that was cut short is loaded again: the same keys get the same values.
async fn load(global: &Global, file: &Path, nodes: &mut Nodes) -> Result<(), Failure> {
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    if nodes.state.loaded.iter().any(|loaded| loaded.file == file) {
        return Ok(());
    }
    let keyspace = keyspace_name(&file);
    let servers = Servers(nodes.state.nodes.iter().map(|node| node.grpc.clone()).collect());
    let global = Global { server: vec![servers], keyspace: keyspace.clone(), ..global.clone() };
    let context = Context::connect(&global).await?;
    let keys = crate::load::load_for_dev(&context, &file).await?;
    nodes.state.loaded.push(Loaded { file, keyspace, keys });
    nodes.state.save(&nodes.dir)
}

/// A file's name without its ending, as a keyspace may be called: `UnicodeData.txt` gives `unicodedata`.
fn keyspace_name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let name: String = stem.chars().map(plain).skip_while(|c| matches!(c, '-' | '.')).take(64).collect();
    if name.is_empty() || name == god_proto::DEFAULT_KEYSPACE { "loaded".to_owned() } else { name }
}

fn open_dir(dir: &Path) -> Result<PathBuf, Failure> {
    let open = || {
        fs::create_dir_all(dir)?;
        dir.canonicalize()
    };
    open().map_err(|error| Failure::Usage(format!("cannot use the directory {}: {error}", dir.display())))
}

fn refuse_if_running(dir: &Path, state: &DevState) -> Result<(), Failure> {
    let running = |node: &&state::DevNode| node.pid.is_some_and(|pid| process::is_node(pid, &node.data(dir)));
    let pids: Vec<String> =
        state.nodes.iter().filter(running).filter_map(|node| node.pid).map(|pid| pid.to_string()).collect();
    if pids.is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "nodes are running on {0} already (process ids {1}); stop them with: god dev stop --data {0}",
        dir.display(),
        pids.join(", ")
    )))
}

fn how_many(asked: Option<u32>, state: &DevState, dir: &Path) -> Result<u32, Failure> {
    let had = state.nodes.len() as u32;
    match asked {
        None if had > 0 => Ok(had),
        None => Ok(3),
        Some(asked) if asked < had => Err(Failure::Usage(format!(
            "{} holds a cluster of {had} nodes; it cannot be started with {asked} (leave --nodes out, or use another \
             directory)",
            dir.display()
        ))),
        Some(asked) => Ok(asked),
    }
}

async fn stop(global: &Global, args: &StopArgs) -> Result<(), Failure> {
    let nothing = || Failure::Usage(format!("no nodes were ever started on {}", args.data.display()));
    let dir = match args.data.canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(nothing()),
        Err(error) => {
            return Err(Failure::Usage(format!("cannot use the directory {}: {error}", args.data.display())));
        }
    };
    let mut state = DevState::read(&dir)?.ok_or_else(nothing)?;
    let ran: Vec<u32> = state
        .nodes
        .iter()
        .filter(|node| node.pid.is_some_and(|pid| process::is_node(pid, &node.data(&dir))))
        .map(|node| node.id)
        .collect();
    let killed = process::stop(&dir, &state.nodes).await;
    for node in &mut state.nodes {
        node.pid = None;
    }
    state.save(&dir)?;
    output::report(global.output, &json!({ "stopped": ran, "killed": killed }), || {
        let mut text = match ran.len() as u64 {
            0 => "no node was running".to_owned(),
            count => format!("stopped {}", crate::figures::counted(count, "node")),
        };
        for id in &killed {
            text += &format!("\nnode {id} did not end when asked, and was killed");
        }
        text
    });
    Ok(())
}

/// The signals that ask the command to end.
struct Signals(Vec<Signal>);

impl Signals {
    fn listen() -> io::Result<Signals> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        kinds.into_iter().map(signal).collect::<io::Result<_>>().map(Signals)
    }

    async fn any(&mut self) {
        futures::future::select_all(self.0.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_keyspace_is_named_after_the_file() {
        assert_eq!(keyspace_name(Path::new("/usr/share/unicode/UnicodeData.txt")), "unicodedata");
        assert_eq!(keyspace_name(Path::new("mes données.tsv")), "mes-donn-es");
        assert_eq!(keyspace_name(Path::new("default.tsv")), "loaded");
        assert_eq!(keyspace_name(Path::new("-a.tsv")), "a");
        assert_eq!(keyspace_name(Path::new("été.tsv")), "t-");
        assert_eq!(keyspace_name(Path::new("..")), "loaded");
    }

    #[test]
    fn a_directory_keeps_its_number_of_nodes_or_grows() {
        let dir = Path::new("/d");
        let mut state = DevState::new();
        assert_eq!(how_many(None, &state, dir).unwrap(), 3);
        state.assign_ports(4, None).unwrap();
        assert_eq!(how_many(None, &state, dir).unwrap(), 4);
        assert_eq!(how_many(Some(5), &state, dir).unwrap(), 5);
        assert!(how_many(Some(3), &state, dir).unwrap_err().to_string().contains("cluster of 4 nodes"));
    }
}
