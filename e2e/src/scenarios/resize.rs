//! Growing and shrinking, under load.

use super::{BIRTH, CHANGE};
use crate::{
    load::Load,
    stage::{CLUSTER, Stage},
    wait::until,
    witness::Witness,
};
use std::time::Duration;

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.apply(CLUSTER, 3).await?;
    stage.ready(CLUSTER, 3, BIRTH).await?;
    let client = stage.connect(CLUSTER).await?;
    let witness = Witness::start(stage, CLUSTER, &client);
    let load = Load::start(&client);
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.apply(CLUSTER, 5).await?;
    stage.ready(CLUSTER, 5, CHANGE).await?;
    stage.apply(CLUSTER, 3).await?;
    stage.ready(CLUSTER, 3, CHANGE).await?;
    load.stop_and_check().await?;
    witness.stop_and_check().await?;
    only_three_volumes(stage).await
}

/// The volumes of nodes that left go after their quarantine, and no others.
pub(super) async fn only_three_volumes(stage: &Stage) -> anyhow::Result<()> {
    let expected = ["data-store-main-0", "data-store-main-1", "data-store-main-2"];
    until("the volumes of those who left to be gone", Duration::from_secs(60), async || {
        let mut volumes = stage.volumes(CLUSTER).await?;
        volumes.sort();
        anyhow::ensure!(volumes == expected, "there are {volumes:?}");
        Ok(())
    })
    .await
}
