//! A namespace goes with all that is in it.

use super::BIRTH;
use crate::stage::{CLUSTER, Stage};
use std::time::Duration;

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.apply(CLUSTER, 3).await?;
    stage.ready(CLUSTER, 3, BIRTH).await?;
    stage.apply(CLUSTER, 5).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.remove_namespace().await
}
