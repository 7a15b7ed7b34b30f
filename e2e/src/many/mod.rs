//! Many clusters at once, whose nodes are stand-ins: what the operator takes for them in time, memory and requests.
//!
//! API server and controllers are real; no pod runs. Stand-ins give each pod an address, say that it is ready, and
//! answer there as its node would. So what is measured is the operator alone. `.ci/bench-operator` starts what this
//! needs.

mod figures;
mod nodes;
mod pods;

use anyhow::Context as _;
use clap::Args;
use figures::{Audit, Figures};
use futures::{StreamExt as _, stream};
use god_operator::crd::GodCluster;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use nodes::StandIns;
use serde_json::json;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::process::Command;

/// Where all of it is.
const NAMESPACE: &str = "many";
/// Clusters asked for at the same time.
const AT_ONCE: usize = 16;
/// All of them are born after so long, or it has failed.
const LIMIT: Duration = Duration::from_secs(900);
/// Between the last birth and the rest that is looked at: for first figures, and what Kubernetes itself has to say.
const SETTLING: Duration = Duration::from_secs(20);

/// What is measured, and with what.
#[derive(Args, Clone, Debug)]
pub struct ManySettings {
    /// How many clusters
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clusters: u32,
    /// Nodes of each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=9))]
    nodes: u32,
    /// Seconds at rest that are looked at
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// The operator's program
    #[arg(long, value_name = "FILE")]
    operator: PathBuf,
    /// How the operator reaches the API server: with an account of its own
    #[arg(long, value_name = "FILE")]
    operator_kubeconfig: PathBuf,
    /// The API server's log of requests, with those of that account alone
    #[arg(long, value_name = "FILE")]
    audit: PathBuf,
}

/// Measures, and prints.
///
/// # Errors
/// Where the API server cannot be reached, a cluster is not born in time, or the operator asks for anything at rest.
pub async fn run(settings: &ManySettings) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("cannot find out how to reach the API server")?;
    let installed = Command::new(&settings.operator).args(["crd", "--apply"]).status().await;
    let installed = installed.with_context(|| format!("cannot run {}", settings.operator.display()))?;
    anyhow::ensure!(installed.success(), "the CustomResourceDefinition was not taken");
    let object = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
    let clusters = Api::<GodCluster>::namespaced(client.clone(), NAMESPACE);
    crate::wait::until("the definition", Duration::from_secs(30), async || {
        clusters.list(&kube::api::ListParams::default()).await.map(drop).map_err(anyhow::Error::from)
    })
    .await?;

    let stand_ins = StandIns::default();
    let mut doors = tokio::spawn(stand_ins.clone().serve());
    let mut kept = tokio::spawn(pods::keep(client.clone(), stand_ins.clone()));
    let audit = Audit::open(&settings.audit);
    let operator = Command::new(&settings.operator)
        .args(["run", "--no-election", "--http-address", "127.0.0.1:8080", "--log", "warn"])
        .env("KUBECONFIG", &settings.operator_kubeconfig)
        .kill_on_drop(true)
        .spawn()?;
    let process = operator.id().context("the operator ended")?;

    let work = async {
        let began = Instant::now();
        let asked = stream::iter(0..settings.clusters).map(|number| {
            let (clusters, name) = (clusters.clone(), format!("store-{number}"));
            let object = crate::stage::cluster(&name, settings.nodes);
            async move {
                clusters.patch(&name, &PatchParams::apply("god-e2e"), &Patch::Apply(&object)).await.map(drop)
            }
        });
        let asked: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
        asked.into_iter().collect::<Result<Vec<_>, _>>().context("a cluster was not taken")?;
        println!("{} clusters of {} nodes asked for", settings.clusters, settings.nodes);
        let mut born =
            pods::births(&clusters, settings.clusters as usize, settings.nodes as usize, LIMIT).await?;
        born.sort_unstable();
        let at = |part: usize| born.get((born.len() * part / 100).min(born.len().saturating_sub(1)));
        let seconds = |at: Option<&Instant>| at.map_or(0.0, |at| at.duration_since(began).as_secs_f64());
        println!(
            "Ready after: half of them {:.1} s, 99 of 100 {:.1} s, all {:.1} s",
            seconds(at(50)),
            seconds(at(99)),
            seconds(born.last())
        );
        let birth = Figures::of(process)?;
        birth.print("birth", None);
        figures::print("birth", &audit.read(0)?.0, born.len());
        stand_ins.print("birth");

        tokio::time::sleep(SETTLING).await;
        let (_, offset) = audit.read(0)?;
        stand_ins.forget();
        let before = Figures::of(process)?;
        tokio::time::sleep(Duration::from_secs(settings.rest)).await;
        Figures::of(process)?.print(&format!("{} s at rest", settings.rest), Some(&before));
        let (asked, _) = audit.read(offset)?;
        figures::print("rest", &asked, born.len());
        stand_ins.print("rest");
        let beyond: Vec<_> = asked.keys().filter(|what| !what.starts_with("watch ")).collect();
        anyhow::ensure!(
            beyond.is_empty(),
            "at rest the API server was asked for more than watches: {beyond:?}"
        );
        Ok(())
    };
    tokio::select! {
        done = work => done,
        served = &mut doors => served?.context("the stand-ins' doors"),
        ended = &mut kept => ended?.context("the stand-ins' pods"),
    }
}
