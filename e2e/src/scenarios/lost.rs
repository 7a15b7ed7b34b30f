//! A pod goes, its volume stays.

use super::{BIRTH, CHANGE};
use crate::{
    load::Load,
    stage::{CLUSTER, Stage, members},
    wait::until,
};
use kube::api::DeleteParams;
use std::time::Duration;

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.apply(CLUSTER, 3).await?;
    let before = members(&stage.ready(CLUSTER, 3, BIRTH).await?);
    let load = Load::start(&stage.connect(CLUSTER).await?);
    for (pod, grace) in [("store-main-0", 0), ("store-main-1", 20)] {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let old = stage.pods().get(pod).await?.metadata.uid;
        stage.pods().delete(pod, &DeleteParams::default().grace_period(grace)).await?;
        until("another pod of that name", Duration::from_secs(60), async || {
            let new = stage.pods().get(pod).await?.metadata.uid;
            anyhow::ensure!(new != old, "{pod} is still the old one");
            Ok(())
        })
        .await?;
        let after = members(&stage.ready(CLUSTER, 3, CHANGE).await?);
        anyhow::ensure!(before == after, "members were {before:?} and are {after:?}");
    }
    load.stop_and_check().await
}
