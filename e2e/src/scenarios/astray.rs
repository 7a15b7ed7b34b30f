//! A node that somebody starts by hand becomes a member. Nobody here runs it, and nobody here can stop it.

use super::{BIRTH, CHANGE};
use crate::{
    load::Load,
    stage::{CLUSTER, Stage, kubectl, members},
    wait::until,
};
use anyhow::Context as _;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use std::time::Duration;

/// The pod of the node that nobody asked for.
const STRAY: &str = "by-hand";

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    stage.apply(CLUSTER, 3).await?;
    let before = members(&stage.ready(CLUSTER, 3, BIRTH).await?);
    let load = Load::start(&stage.connect(CLUSTER).await?);
    start(stage).await?;
    let number = until("it is told", Duration::from_secs(60), async || {
        let status = stage.clusters().get(CLUSTER).await?.status.unwrap_or_default();
        let stray = status.nodes.iter().find(|node| !before.contains(&node.uuid));
        let stray = stray.context("it is no member yet")?;
        let blocked =
            status.blocked.with_context(|| format!("nothing is blocked; waits: {:?}", status.waiting))?;
        let says = blocked.reason == "NodeAstray" && blocked.message.contains(&stray.uuid);
        anyhow::ensure!(says, "{}: {}", blocked.reason, blocked.message);
        println!("    {}: {}: {}", blocked.reason, blocked.message, blocked.action);
        Ok(stray.number.to_string())
    })
    .await?;
    // As it says.
    let leave =
        ["god", "run", "--namespace", &stage.namespace, CLUSTER, "ring", "change", "--leave", &number];
    let (is_done, said) = kubectl(&leave).await?;
    anyhow::ensure!(is_done, "kubectl {}: {said}", leave.join(" "));
    let after = members(&stage.ready(CLUSTER, 3, CHANGE).await?);
    anyhow::ensure!(before == after, "members were {before:?} and are {after:?}");
    stage.pods().delete(STRAY, &DeleteParams::default()).await?;
    load.stop_and_check().await
}

/// Starts it as somebody would who has read what nodes are started with, and not what operators are for.
async fn start(stage: &Stage) -> anyhow::Result<()> {
    let image = stage.pods().get(&format!("{CLUSTER}-main-0")).await?;
    let image = image.spec.and_then(|spec| spec.containers.into_iter().next()).and_then(|it| it.image);
    let seed = format!("{CLUSTER}-peers.{}.svc:7100", stage.namespace);
    let advertise = |door: &str, port: u16| json!({ "name": door, "value": format!("$(POD_IP):{port}") });
    let pod = serde_json::from_value(json!({
        "metadata": { "name": STRAY },
        "spec": {
            "containers": [{
                "name": "god-node",
                "image": image.context("a container has an image")?,
                "command": ["god-node", "--data", "/data/god", "--memory", "64MiB", "--join", "manual", "--seed", seed],
                "env": [
                    { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                    advertise("GOD_ADVERTISE_GRPC", 7000),
                    advertise("GOD_ADVERTISE_PEER", 7100),
                    advertise("GOD_ADVERTISE_HTTP", 7200),
                ],
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }],
            "securityContext": { "fsGroup": 65532 },
            "volumes": [{ "name": "data", "emptyDir": {} }],
        },
    }))?;
    stage.pods().create(&PostParams::default(), &pod).await?;
    Ok(())
}
