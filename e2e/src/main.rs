//! `god-e2e`: scenarios on a real Kubernetes, each in a namespace of its own, most of them under a load that is
//! checked.

mod forward;
mod load;
mod many;
mod operator;
mod scenarios;
mod stage;
mod wait;
mod witness;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use scenarios::{SCENARIOS, Scenario};
use stage::{Stage, StageSettings};
use std::{process::ExitCode, time::Instant};

/// Runs scenarios on the Kubernetes that KUBECONFIG names
#[derive(Parser)]
#[command(name = "god-e2e", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints what there is
    List,
    /// Runs scenarios: those named, or the core of them
    Run {
        /// Every scenario, and not the core alone
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Their names
        names: Vec<String>,
        #[command(flatten)]
        settings: StageSettings,
    },
    /// Measures the operator with many clusters, whose nodes are stand-ins (.ci/bench-operator)
    Many(many::ManySettings),
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::List => {
            for scenario in SCENARIOS {
                println!("{:<20} {}", scenario.name, scenario.says);
            }
            Ok(())
        }
        Command::Run { all, names, settings } => {
            let chosen = choose(all, &names)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(run(&chosen, &settings))
        }
        Command::Many(settings) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(many::run(&settings))
        }
    }
}

fn choose(all: bool, names: &[String]) -> anyhow::Result<Vec<&'static Scenario>> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().filter(|scenario| all || scenario.is_core).collect());
    }
    let find = |name: &String| {
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
        found.with_context(|| format!("there is no scenario {name}: see god-e2e list"))
    };
    for name in names {
        find(name)?;
    }
    // In their own order: one of them must be the last.
    Ok(SCENARIOS.iter().filter(|scenario| names.iter().any(|name| scenario.name == name)).collect())
}

async fn run(chosen: &[&Scenario], settings: &StageSettings) -> anyhow::Result<()> {
    let mut failed = 0;
    for scenario in chosen {
        println!("{}: {}", scenario.name, scenario.says);
        let since = Instant::now();
        let done = one(scenario, settings).await;
        let seconds = since.elapsed().as_secs();
        match done {
            Ok(()) => println!("{}: ok, {seconds} s\n", scenario.name),
            Err(error) => {
                failed += 1;
                println!("{}: FAILED after {seconds} s: {error:#}\n", scenario.name);
            }
        }
    }
    println!("{} passed, {failed} failed", chosen.len() - failed);
    anyhow::ensure!(failed == 0, "{failed} of {} scenarios failed", chosen.len());
    Ok(())
}

async fn one(scenario: &Scenario, settings: &StageSettings) -> anyhow::Result<()> {
    let stage = Stage::set(scenario.name, settings).await?;
    let limit = scenario.limit;
    let played = match tokio::time::timeout(limit, (scenario.play)(&stage)).await {
        Ok(played) => played,
        Err(_) => Err(anyhow::anyhow!("it took more than {} s", limit.as_secs())),
    };
    if played.is_err() {
        stage.describe().await;
    }
    let struck = stage.strike(played.is_err()).await;
    played.and(struck)
}
