//! `kubectl god`, as a person would use it.

use super::{CHANGE, under_load};
use crate::{
    load::FILLED,
    stage::{CLUSTER, Stage, kubectl},
};

/// What each node takes a second when data move: an operation is under way for long enough to be taken back.
const RATE: &str = "256KiB";

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    let (_, load) = under_load(stage, 4, RATE).await?;
    says(stage, "status", &[], "4 of 4 nodes up").await?;
    says(stage, "plan", &["--leave", "4"], "to be copied").await?;
    says(stage, "run", &["keyspace", "list"], "default").await?;
    says(stage, "shell", &["-c", "god status"], "4 of 4 nodes up").await?;
    refuses(stage, "cancel", &["by-hand"], "there is no operation by-hand").await?;

    says(stage, "run", &["ring", "change", "--leave", "4", "--id", "by-hand"], "by-hand").await?;
    says(stage, "cancel", &["by-hand"], "by-hand").await?;
    // It was taken back: all four stay.
    stage.ready(CLUSTER, 4, CHANGE).await?;
    load.stop_and_check_among(FILLED).await
}

async fn plugin(stage: &Stage, what: &str, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
    let command = ["god", what, "--namespace", stage.namespace.as_str(), CLUSTER];
    kubectl(&[&command, arguments].concat()).await
}

async fn says(stage: &Stage, what: &str, arguments: &[&str], expected: &str) -> anyhow::Result<()> {
    let (is_done, said) = plugin(stage, what, arguments).await?;
    anyhow::ensure!(is_done && said.contains(expected), "kubectl god {what} {arguments:?}: {said}");
    Ok(())
}

async fn refuses(stage: &Stage, what: &str, arguments: &[&str], why: &str) -> anyhow::Result<()> {
    let (is_done, said) = plugin(stage, what, arguments).await?;
    anyhow::ensure!(!is_done && said.contains(why), "kubectl god {what} {arguments:?}: {said}");
    Ok(())
}
