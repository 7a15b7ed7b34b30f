//! `god-operator`: runs GoD clusters on Kubernetes.

use clap::{Args, Parser, Subcommand};
use god_operator::{
    controller::{self, OperatorSettings, observe::Scope},
    crd,
};
use std::{io::IsTerminal as _, net::SocketAddr};
use tracing_subscriber::EnvFilter;

/// Runs GoD clusters on Kubernetes
#[derive(Parser)]
#[command(name = "god-operator", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the CustomResourceDefinition, for `kubectl apply --server-side -f -`
    Crd {
        /// Bring it to the API server instead
        #[arg(long)]
        apply: bool,
    },
    /// Looks after the clusters of Kubernetes, by the rights of its account or of KUBECONFIG
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Look after this namespace only [default: all of them]
    #[arg(long, env = "GOD_OPERATOR_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// The namespace that the operator runs in: its lease is there
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "default")]
    own_namespace: String,
    /// Its name among those who would lead
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "god-operator")]
    identity: String,
    /// Do not wait to be elected: there is surely no other one
    #[arg(long)]
    no_election: bool,
    /// The image of nodes where a spec names none
    #[arg(long, env = "GOD_IMAGE", value_name = "IMAGE", default_value = concat!("god:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// Where to listen for /healthz, /readyz and /metrics
    #[arg(long, env = "GOD_OPERATOR_HTTP_ADDRESS", value_name = "IP:PORT", default_value = "0.0.0.0:8080")]
    http_address: SocketAddr,
    /// Clusters that have their turn at the same time, 1 to 256
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// What is logged, such as info or god_operator=debug
    #[arg(long, env = "GOD_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crd { apply: false } => print!("{}", crd::definition()?),
        Command::Crd { apply: true } => {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(controller::install())?;
        }
        Command::Run(asked) => run(asked)?,
    }
    Ok(())
}

fn run(asked: Run) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&asked.log)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let settings = OperatorSettings {
        scope: asked.namespace.filter(|name| !name.is_empty()).map_or(Scope::Cluster, Scope::Namespace),
        own_namespace: asked.own_namespace,
        identity: asked.identity,
        elects: !asked.no_election,
        image: asked.image,
        http: asked.http_address,
        concurrency: asked.concurrency,
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(controller::run(settings))
}
