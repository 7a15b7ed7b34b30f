//! Kubernetes nodes are drained, as for maintenance.

use super::{BIRTH, CHANGE};
use crate::{
    load::Load,
    stage::{CLUSTER, Stage, kubectl, members},
};
use kube::api::ListParams;
use std::collections::BTreeMap;

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.apply(CLUSTER, 3).await?;
    let before = members(&stage.ready(CLUSTER, 3, BIRTH).await?);
    let mut pods = BTreeMap::<String, u32>::new();
    for pod in stage.pods().list(&ListParams::default()).await? {
        *pods.entry(pod.spec.and_then(|spec| spec.node_name).unwrap_or_default()).or_default() += 1;
    }
    println!("  pods of each Kubernetes node: {pods:?}");
    let load = Load::start(&stage.connect(CLUSTER).await?);
    for (node, count) in pods {
        let drained = drain(&node).await;
        let (_, said) = kubectl(&["uncordon", &node]).await?;
        println!("  {}", said.trim());
        // A volume may be bound to its Kubernetes node, so that the first pod cannot come back meanwhile: the next one
        // must stay then.
        let (is_done, said) = drained?;
        anyhow::ensure!(
            is_done || (count > 1 && said.contains("disruption budget")),
            "{node} with {count} pods was not drained: {said}"
        );
        let after = members(&stage.ready(CLUSTER, 3, CHANGE).await?);
        anyhow::ensure!(before == after, "members were {before:?} and are {after:?}");
    }
    load.stop_and_check().await
}

async fn drain(node: &str) -> anyhow::Result<(bool, String)> {
    let all = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=40s"];
    let (is_done, said) = kubectl(&all).await?;
    println!("  drained {node}: {}", said.lines().last().unwrap_or_default());
    Ok((is_done, said))
}
