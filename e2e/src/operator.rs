//! What befalls the operator's process beyond what the API server can do to it: it is frozen, thawed, and lost without
//! having given back its lease.

use crate::{
    stage::{Stage, kubectl},
    wait::until,
};
use anyhow::Context as _;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use std::time::Duration;

/// The lease's name.
const LEASE: &str = "god-operator";
/// A lease that nobody renews ends by itself within so long, and somebody else takes it: 15 s, looks at it, a start.
const TAKEN_OVER: Duration = Duration::from_secs(60);

/// A process of the operator that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its pod's name, which is what the lease calls it.
    pub pod: String,
    uid: String,
    node: String,
}

fn pods(stage: &Stage) -> Api<Pod> {
    Api::namespaced(stage.client.clone(), &stage.settings.operator)
}

/// Whom the lease names.
///
/// # Errors
/// What the API server says.
pub async fn holder(stage: &Stage) -> anyhow::Result<Option<String>> {
    let api = Api::<Lease>::namespaced(stage.client.clone(), &stage.settings.operator);
    let lease = api.get(LEASE).await?;
    Ok(lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()))
}

/// Who leads, once somebody does.
///
/// # Errors
/// Where nobody does.
pub async fn leader(stage: &Stage) -> anyhow::Result<Leader> {
    another(stage, None).await
}

/// Who leads, once it is not that one.
///
/// # Errors
/// Where nobody else does.
pub async fn successor(stage: &Stage, before: &Leader) -> anyhow::Result<Leader> {
    another(stage, Some(before)).await
}

async fn another(stage: &Stage, before: Option<&Leader>) -> anyhow::Result<Leader> {
    until("an operator that leads", TAKEN_OVER, async || {
        let name = holder(stage).await?.context("nobody holds the lease")?;
        anyhow::ensure!(before.is_none_or(|before| before.pod != name), "{name} still holds the lease");
        let pod = pods(stage).get_opt(&name).await?;
        let pod = pod.with_context(|| format!("{name} holds the lease, and is no more"))?;
        let uid = pod.uid().context("a pod has a uid")?;
        let node = pod.spec.and_then(|spec| spec.node_name).context("it is placed nowhere")?;
        Ok(Leader { pod: name, uid, node })
    })
    .await
}

/// Stops the process where it is; its pod stays.
///
/// # Errors
/// Where the process is not found.
pub async fn freeze(stage: &Stage, leader: &Leader) -> anyhow::Result<()> {
    signal(stage, leader, "STOP").await
}

/// Lets it go on.
///
/// # Errors
/// Where the process is not found.
pub async fn thaw(stage: &Stage, leader: &Leader) -> anyhow::Result<()> {
    signal(stage, leader, "CONT").await
}

/// It is gone from one moment to the next, and its pod with it, as with a machine that dies. A frozen process hears of
/// no end, and so gives nothing back.
///
/// # Errors
/// Where the process is not found, or the lease is given back nevertheless.
pub async fn lose(stage: &Stage, leader: &Leader) -> anyhow::Result<()> {
    freeze(stage, leader).await?;
    pods(stage).delete(&leader.pod, &DeleteParams::default().grace_period(0)).await?;
    until("the operator's pod to be gone", Duration::from_secs(30), async || {
        let left = pods(stage).get_opt(&leader.pod).await?;
        anyhow::ensure!(left.is_none(), "{} is there", leader.pod);
        Ok(())
    })
    .await?;
    let held = holder(stage).await?;
    anyhow::ensure!(
        held.as_deref() == Some(leader.pod.as_str()),
        "the lease is to be left held, and is of {held:?}"
    );
    Ok(())
}

/// Sends a signal to the process, from a pod that sees all processes of its node: within its own container it is the
/// first one, which no signal ends or stops.
async fn signal(stage: &Stage, leader: &Leader, signal: &str) -> anyhow::Result<()> {
    let name = format!("signal-{:08x}", rand::random::<u32>());
    let operator = pods(stage).get(&leader.pod).await?;
    let image = operator.spec.and_then(|spec| spec.containers.into_iter().next()).and_then(|it| it.image);
    // Groups are named after pods, with dashes or, where systemd made them, underscores.
    let script = "for process in /proc/[0-9]*; do \
         tr '\\0' ' ' <$process/cmdline 2>/dev/null | grep -q '^god-operator run' || continue; \
         tr _ - <$process/cgroup | grep -q \"$POD\" || continue; \
         kill -$SIGNAL ${process#/proc/} && exit 0; \
       done; echo 'there is no such process'; exit 1";
    let pod = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "nodeName": leader.node,
            "hostPID": true,
            "restartPolicy": "Never",
            "containers": [{
                "name": "signal",
                "image": image.context("a container has an image")?,
                "command": ["bash", "-c", script],
                "env": [{ "name": "POD", "value": leader.uid }, { "name": "SIGNAL", "value": signal }],
                "securityContext": { "runAsUser": 0 },
            }],
        },
    }))?;
    stage.pods().create(&PostParams::default(), &pod).await?;
    let phase = until("the signal", Duration::from_secs(30), async || {
        let phase = stage.pods().get(&name).await?.status.and_then(|status| status.phase).unwrap_or_default();
        anyhow::ensure!(phase == "Succeeded" || phase == "Failed", "its pod is {phase}");
        Ok(phase)
    })
    .await?;
    let (_, said) = kubectl(&["--namespace", &stage.namespace, "logs", &name]).await?;
    anyhow::ensure!(phase == "Succeeded", "SIG{signal} did not reach {}: {said}", leader.pod);
    println!("    SIG{signal} to {}", leader.pod);
    Ok(())
}
