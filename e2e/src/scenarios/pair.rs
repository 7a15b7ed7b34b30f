//! Neighbours.

use super::BIRTH;
use crate::{
    load::Load,
    stage::{CLUSTER, Stage, members},
    wait::until,
};
use kube::api::DeleteParams;
use std::time::Duration;

/// The other one's name begins as the first one's does.
const OTHER: &str = "store-2";

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.apply(CLUSTER, 3).await?;
    stage.apply(OTHER, 3).await?;
    let one = members(&stage.ready(CLUSTER, 3, BIRTH).await?);
    let other = members(&stage.ready(OTHER, 3, BIRTH).await?);
    anyhow::ensure!(one.is_disjoint(&other), "both have {one:?}");
    let load = Load::start(&stage.connect(CLUSTER).await?);
    let neighbour = Load::start(&stage.connect(OTHER).await?);
    tokio::time::sleep(Duration::from_secs(8)).await;
    // Keys have the same names in both: each checks that it reads its own.
    neighbour.stop_and_check().await?;
    stage.clusters().delete(OTHER, &DeleteParams::default()).await?;
    until("the neighbour's volumes to be gone", Duration::from_secs(90), async || {
        let left = stage.volumes(OTHER).await?;
        anyhow::ensure!(left.is_empty(), "there are {left:?}");
        Ok(())
    })
    .await?;
    stage.ready(CLUSTER, 3, Duration::from_secs(30)).await?;
    anyhow::ensure!(stage.volumes(CLUSTER).await?.len() == 3, "volumes of the one that stays are gone");
    load.stop_and_check().await
}
