//! The operator is lost while it holds the lease, and frozen while it does.

use super::{CHANGE, under_load};
use crate::{
    load::FILLED,
    operator::{freeze, leader, lose, successor, thaw},
    stage::{CLUSTER, Stage, kubectl, slow},
    wait::until,
};
use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use std::time::Duration;

/// What each node takes a second when data move.
const RATE: &str = "512KiB";

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    let (_, load) = under_load(stage, 3, RATE).await?;

    let lost = leader(stage).await?;
    stage.apply_object(CLUSTER, &slow(4, RATE)).await?;
    under_way(stage).await?;
    lose(stage, &lost).await?;
    successor(stage, &lost).await?;
    stage.ready(CLUSTER, 4, CHANGE).await?;

    // Two stand for election, and the one that leads stands still until the other one leads.
    scale(stage, 2).await?;
    let played = frozen(stage).await;
    let scaled = scale(stage, 1).await;
    played.and(scaled)?;
    load.stop_and_check_among(FILLED).await
}

async fn frozen(stage: &Stage) -> anyhow::Result<()> {
    let frozen = leader(stage).await?;
    let before = restarts(stage, &frozen.pod).await?;
    stage.apply_object(CLUSTER, &slow(3, RATE)).await?;
    under_way(stage).await?;
    freeze(stage, &frozen).await?;
    let other = successor(stage, &frozen).await?;
    thaw(stage, &frozen).await?;
    // It finds that it does not lead any more: a process that led ends, and begins anew.
    until("the end of the process that led before", Duration::from_secs(60), async || {
        anyhow::ensure!(restarts(stage, &frozen.pod).await? > before, "{} goes on", frozen.pod);
        Ok(())
    })
    .await?;
    stage.ready(CLUSTER, 3, CHANGE).await?;
    let leads = leader(stage).await?;
    anyhow::ensure!(leads == other, "{other:?} led, and {leads:?} does: the one that woke took the lease");
    Ok(())
}

/// How often the process in a pod of the operator was begun anew.
async fn restarts(stage: &Stage, pod: &str) -> anyhow::Result<i32> {
    let pod = Api::<Pod>::namespaced(stage.client.clone(), &stage.settings.operator).get(pod).await?;
    let containers = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
    Ok(containers.iter().map(|container| container.restart_count).sum())
}

/// Waits until the operator has asked the ring for a change.
async fn under_way(stage: &Stage) -> anyhow::Result<()> {
    until("an operation under way", Duration::from_secs(60), async || {
        let status = stage.clusters().get(CLUSTER).await?.status.unwrap_or_default();
        let operation = status.operation.context("there is no operation yet")?;
        println!("    {} {} {}", operation.what, operation.phase, operation.progress);
        Ok(())
    })
    .await
}

async fn scale(stage: &Stage, operators: u32) -> anyhow::Result<()> {
    let operator = ["--namespace", &stage.settings.operator];
    let replicas = format!("--replicas={operators}");
    let (is_done, said) =
        kubectl(&[&operator[..], &["scale", "deployment/god-operator", &replicas]].concat()).await?;
    anyhow::ensure!(is_done, "{said}");
    let rolled = ["rollout", "status", "deployment/god-operator", "--timeout=50s"];
    let (is_done, said) = kubectl(&[&operator[..], &rolled].concat()).await?;
    anyhow::ensure!(is_done, "{said}");
    Ok(())
}
