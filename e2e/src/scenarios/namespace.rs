//! A namespace goes with all that is in it.

use super::BIRTH;
use crate::{
    load::Load,
    stage::{CLUSTER, Stage},
};
use std::time::Duration;

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.apply(CLUSTER, 3).await?;
    stage.ready(CLUSTER, 3, BIRTH).await?;
    let load = Load::start(&stage.connect(CLUSTER).await?);
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.apply(CLUSTER, 5).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.remove_namespace().await?;
    load.stop_without_cluster().await
}
