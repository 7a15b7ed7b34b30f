//! `god-chaos`: a cluster of real processes under a load that is checked, while they are killed, frozen, stopped, cut
//! off, set to a wrong time, left without room on their disks, and kept busy by clients that do not behave.

mod cluster;
mod diary;
mod figures;
mod hostile;
mod hull;
mod large;
mod load;
mod plan;
mod process;
mod run;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use plan::{FaultPlan, Kind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    env, fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::signal::unix::{SignalKind, signal};

/// Troubles a cluster of real processes, and checks what its clients saw
#[derive(Parser)]
#[command(
    name = "god-chaos",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  god-chaos run --minutes 3              some plan, whose seed is printed first
  god-chaos run --seed 17 --minutes 3    the plan of this seed
  god-chaos plan --seed 17               what happens in it
  god-chaos run --only clock --rounds 5  one kind of trouble alone"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints a plan
    Plan {
        #[command(flatten)]
        which: Which,
        /// How many rounds of it
        #[arg(long, default_value_t = 20, value_name = "N")]
        rounds: u64,
    },
    /// Plays a plan: as root, or where users may make namespaces
    Run {
        #[command(flatten)]
        which: Which,
        /// Rounds begin until so long has passed
        #[arg(long, default_value_t = 3, value_name = "N")]
        minutes: u64,
        /// Or just so many
        #[arg(long, value_name = "N")]
        rounds: Option<u64>,
        /// The program of a node [default: god-node beside this one]
        #[arg(long, value_name = "FILE")]
        node: Option<PathBuf>,
        /// Where logs are kept; removed where all went well [default: a new folder for temporary files]
        #[arg(long, value_name = "DIR")]
        logs: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Which {
    /// What the plan follows from [default: the time]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Nodes
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u8).range(3..=20))]
    nodes: u8,
    /// These kinds of trouble and no other [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    only: Vec<Kind>,
}

impl Which {
    fn plan(self) -> FaultPlan {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let kinds = if self.only.is_empty() { Kind::all() } else { self.only };
        FaultPlan { seed: self.seed.unwrap_or_else(now), nodes: self.nodes.into(), kinds }
    }
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("god-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Plan { which, rounds } => {
            let plan = which.plan();
            println!("seed {}", plan.seed);
            for number in 0..rounds {
                println!("round {number}");
                plan.round(number).iter().for_each(|trouble| println!("  {trouble}"));
            }
            Ok(())
        }
        Command::Run { which, minutes, rounds, node, logs } => {
            hull::enter()?;
            let plan = which.plan();
            println!("seed {} (the same plan again: god-chaos run --seed {})", plan.seed, plan.seed);
            let folder = || env::temp_dir().join(format!("god-chaos-{}", plan.seed));
            let logs = logs.unwrap_or_else(folder);
            fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
            let beside = || Ok::<_, anyhow::Error>(env::current_exe()?.with_file_name("god-node"));
            let program = node.map_or_else(beside, Ok)?;
            anyhow::ensure!(
                program.is_file(),
                "there is no {}: build it, or name it with --node",
                program.display()
            );
            let limit = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
            hull::prepare(plan.nodes)?;
            let lasts = Duration::from_secs(minutes * 60);
            let run = run::Run { plan, lasts, rounds, program, logs };
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let played = runtime.block_on(until_told(run::run(&run)));
            match played {
                Ok(()) => fs::remove_dir_all(&run.logs).context("cannot remove the logs"),
                Err(error) => Err(error.context(format!("logs are in {}", run.logs.display()))),
            }
        }
    }
}

/// Ends early where somebody wants it to: the first process of a namespace hears no signal that it does not wait for.
async fn until_told(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        played = run => played,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("told to end"),
    }
}
