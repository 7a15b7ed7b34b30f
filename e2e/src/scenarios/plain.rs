//! Without Helm: `kubectl apply` of two files, as README has it.

use super::{BIRTH, CHANGE};
use crate::{
    load::Load,
    stage::{CLUSTER, Stage, kubectl, members, ran},
};
use std::time::Duration;

/// What brings the operator.
const OPERATOR: &str = include_str!("../../../dist/god-operator.yaml");
/// What makes a cluster.
const STORE: &str = include_str!("../../store.yaml");
/// The namespace that the first file names.
const NAMESPACE: &str = "god-system";
/// The image that it names.
const IMAGE: &str = concat!("image: god:", env!("CARGO_PKG_VERSION"), "\n");

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    uninstall_chart(stage).await?;
    let operator = with_image(stage)?;
    done(&["apply", "-f", "-"], &operator).await?;
    done(&["wait", "--for=condition=Established", "crd/godclusters.god-db.io", "--timeout=30s"], "").await?;
    let rolled = ["--namespace", NAMESPACE, "rollout", "status", "deployment/god-operator", "--timeout=50s"];
    done(&rolled, "").await?;
    let played = live(stage).await;
    if played.is_err() {
        stage.describe().await;
    }
    // The namespace goes while there is an operator, which has volumes to let go of.
    let struck = stage.remove_namespace().await;
    // Whoever installs the chart next must not find what Helm does not know.
    let taken = done(&["delete", "--timeout=50s", "-f", "-"], &operator).await;
    played.and(struck).and(taken)
}

/// What the chart brought goes, its definition too, so that nothing of it helps.
async fn uninstall_chart(stage: &Stage) -> anyhow::Result<()> {
    let (is_there, left) =
        kubectl(&["get", "god", "--all-namespaces", "--no-headers", "--output=name"]).await?;
    let there_are_none = !is_there || left.trim().is_empty() || left.starts_with("No resources found");
    anyhow::ensure!(there_are_none, "there are clusters, which would go with the definition: {left}");
    let uninstall =
        ["uninstall", "god", "--namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=60s"];
    let (is_done, said) = ran("helm", &uninstall, "").await?;
    anyhow::ensure!(is_done, "helm {}: {said}", uninstall.join(" "));
    done(&["delete", "crd", "godclusters.god-db.io", "--ignore-not-found", "--timeout=50s"], "").await?;
    done(&["delete", "namespace", &stage.settings.operator, "--ignore-not-found", "--timeout=50s"], "").await
}

/// The operator's file; on a Kubernetes that has the image by another name, with that name.
fn with_image(stage: &Stage) -> anyhow::Result<String> {
    anyhow::ensure!(OPERATOR.contains(IMAGE), "dist/god-operator.yaml does not have {IMAGE}");
    let version = env!("CARGO_PKG_VERSION");
    Ok(match &stage.settings.image {
        Some(other) => OPERATOR.replace(&format!("god:{version}\n"), &format!("{other}\n")),
        None => OPERATOR.to_owned(),
    })
}

async fn live(stage: &Stage) -> anyhow::Result<()> {
    apply(stage, 3).await?;
    let three = members(&stage.ready(CLUSTER, 3, BIRTH).await?);
    let load = Load::start(&stage.connect(CLUSTER).await?);
    tokio::time::sleep(Duration::from_secs(5)).await;
    apply(stage, 4).await?;
    let four = members(&stage.ready(CLUSTER, 4, CHANGE).await?);
    anyhow::ensure!(four.is_superset(&three), "members were {three:?} and are {four:?}");
    apply(stage, 3).await?;
    let again = members(&stage.ready(CLUSTER, 3, CHANGE).await?);
    anyhow::ensure!(again == three, "members were {three:?} and are {again:?}");
    // It is deleted and made again. README's file has no word on volumes, so that they stay, and are taken over.
    done(&["--namespace", &stage.namespace, "delete", "god", CLUSTER, "--timeout=50s"], "").await?;
    let volumes = stage.volumes(CLUSTER).await?;
    anyhow::ensure!(volumes.len() >= 3, "volumes went with the cluster: {volumes:?} are left");
    apply(stage, 3).await?;
    let adopted = members(&stage.ready(CLUSTER, 3, BIRTH).await?);
    anyhow::ensure!(adopted == three, "members were {three:?} and are {adopted:?}");
    load.stop_and_check().await
}

/// README's cluster, with so many nodes.
async fn apply(stage: &Stage, nodes: u32) -> anyhow::Result<()> {
    anyhow::ensure!(STORE.contains("replicas: 3\n"), "e2e/store.yaml does not have three nodes");
    let text = STORE.replace("replicas: 3\n", &format!("replicas: {nodes}\n"));
    done(&["--namespace", &stage.namespace, "apply", "-f", "-"], &text).await
}

async fn done(arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let (is_done, said) = ran("kubectl", arguments, input).await?;
    println!("  kubectl {}: {}", arguments.join(" "), said.lines().last().unwrap_or_default());
    anyhow::ensure!(is_done, "kubectl {}: {said}", arguments.join(" "));
    Ok(())
}
