//! A change of mind in the middle of a shrink.

use super::{CHANGE, under_load};
use crate::{
    load::FILLED,
    stage::{CLUSTER, Stage, members, slow},
    wait::until,
};
use anyhow::Context as _;
use god_operator::crd::Phase;
use std::time::Duration;

/// What each node takes a second when data move: they do for twice as long as the status may keep its figures.
const RATE: &str = "128KiB";

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    let (cluster, load) = under_load(stage, 4, RATE).await?;
    let before = members(&cluster);
    stage.apply_object(CLUSTER, &slow(3, RATE)).await?;
    until("a leave under way", Duration::from_secs(60), async || {
        let status = stage.clusters().get(CLUSTER).await?.status.unwrap_or_default();
        let operation = status.operation.context("there is no operation yet")?;
        anyhow::ensure!(
            operation.phase == "moving" && status.phase == Phase::Shrinking,
            "it is {operation:?}"
        );
        let has_moved = operation.bytes_done > 0 || operation.arcs_done > 0;
        anyhow::ensure!(has_moved, "nothing has moved yet");
        Ok(())
    })
    .await?;
    stage.apply_object(CLUSTER, &slow(4, RATE)).await?;
    let after = members(&stage.ready(CLUSTER, 4, CHANGE).await?);
    anyhow::ensure!(before == after, "members were {before:?} and are {after:?}");
    load.stop_and_check_among(FILLED).await
}
