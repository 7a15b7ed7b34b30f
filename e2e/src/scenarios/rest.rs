//! A cluster at rest costs the API server nothing.

use super::BIRTH;
use crate::stage::{CLUSTER, Stage, kubectl};
use std::time::Duration;

/// Everything that the operator writes.
const KINDS: &str =
    "god,statefulsets,services,configmaps,serviceaccounts,poddisruptionbudgets,networkpolicies,pvc,events";

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.apply(CLUSTER, 3).await?;
    stage.ready(CLUSTER, 3, BIRTH).await?;
    // Figures of the first writes, and what Kubernetes itself has to say.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = versions(stage).await?;
    tokio::time::sleep(Duration::from_secs(stage.settings.rest.into())).await;
    let after = versions(stage).await?;
    anyhow::ensure!(before == after, "something was written:\n{before}\nbecame\n{after}");
    println!("  nothing was written in {} s", stage.settings.rest);
    Ok(())
}

async fn versions(stage: &Stage) -> anyhow::Result<String> {
    let each = "{range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
    let asked = ["--namespace", &stage.namespace, "get", KINDS, "--output", &format!("jsonpath={each}")];
    let (is_done, said) = kubectl(&asked).await?;
    anyhow::ensure!(is_done, "{said}");
    Ok(said)
}
