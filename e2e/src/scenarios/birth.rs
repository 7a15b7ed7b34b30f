//! From nothing to three nodes.

use super::BIRTH;
use crate::{
    load::Load,
    stage::{CLUSTER, Stage, members},
};
use std::time::Duration;

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.apply(CLUSTER, 3).await?;
    let found = stage.ready(CLUSTER, 3, BIRTH).await?;
    let uuids = members(&found);
    let status = found.status.unwrap_or_default();
    let founder = status.founder.as_ref().map(|founder| founder.node.clone());
    anyhow::ensure!(uuids.len() == 3, "the status names {uuids:?}");
    anyhow::ensure!(founder.is_some_and(|founder| uuids.contains(&founder)), "the founder is no member");
    let load = Load::start(&stage.connect(CLUSTER).await?);
    tokio::time::sleep(Duration::from_secs(10)).await;
    load.stop_and_check().await
}
