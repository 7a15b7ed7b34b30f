//! A pod goes, its volume stays.

use super::{BIRTH, CHANGE};
use crate::{
    load::Load,
    stage::{CLUSTER, Stage, members},
    wait::until,
};
use anyhow::Context as _;
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
        // The status may not have heard of it yet. Where the old process is not quite gone, the new one finds its
        // volume in use and is restarted a little later.
        until("another pod of that name, ready", Duration::from_secs(90), async || {
            let new = stage.pods().get_opt(pod).await?.context("there is none")?;
            anyhow::ensure!(new.metadata.uid != old, "{pod} is still the old one");
            let conditions = new.status.and_then(|status| status.conditions).unwrap_or_default();
            let is_ready = conditions.iter().any(|found| found.type_ == "Ready" && found.status == "True");
            anyhow::ensure!(is_ready, "it is not ready");
            Ok(())
        })
        .await?;
        let after = members(&stage.ready(CLUSTER, 3, CHANGE).await?);
        anyhow::ensure!(before == after, "members were {before:?} and are {after:?}");
    }
    load.stop_and_check().await
}
