//! Stand-ins for kubelets: each pod gets an address, and is said to run and to be ready.

use super::nodes::{Key, StandIns};
use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use god_operator::crd::{GodCluster, Phase};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use serde_json::json;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use uuid::Uuid;

const OURS: &str = "app.kubernetes.io/managed-by=god-operator";

/// Keeps pods going, for as long as it is asked.
///
/// # Errors
/// Where the API server does not answer.
pub async fn keep(client: Client, stand_ins: StandIns) -> anyhow::Result<()> {
    let pods = Api::<Pod>::all(client.clone());
    loop {
        let there = pods.list(&ListParams::default().labels(OURS)).await?;
        for pod in &there {
            start(&client, &stand_ins, pod).await?;
        }
        let version = there.metadata.resource_version.unwrap_or_default();
        let mut events = pods.watch(&WatchParams::default().labels(OURS), &version).await?.boxed();
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event {
                start(&client, &stand_ins, &pod).await?;
            }
        }
    }
}

async fn start(client: &Client, stand_ins: &StandIns, pod: &Pod) -> anyhow::Result<()> {
    let has_address = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let Some(cluster) = pod.labels().get("god-db.io/cluster").filter(|_| !has_address) else { return Ok(()) };
    let key: Key = (namespace.clone(), cluster.clone());
    let id = match stand_ins.id_of(&key) {
        Some(id) => id,
        None => {
            // It stands in the status before any pod is made.
            let found = Api::<GodCluster>::namespaced(client.clone(), &namespace).get(cluster).await?;
            let id = found.status.and_then(|status| status.cluster_id).context("a pod of no cluster")?;
            Uuid::parse_str(&id)?
        }
    };
    let address = stand_ins.start(&key, id, &name)?;
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": now });
    let kinds = ["PodScheduled", "Initialized", "ContainersReady", "Ready"];
    let status = json!({ "status": {
        "phase": "Running", "podIP": address.to_string(), "podIPs": [{ "ip": address.to_string() }],
        "startTime": now, "conditions": kinds.map(condition)
    } });
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    match pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await {
        // It was made anew meanwhile: its own event follows.
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

/// When each of so many clusters was Ready for the first time.
///
/// # Errors
/// Where one is not in time: it says how it is.
pub async fn births(
    clusters: &Api<GodCluster>,
    count: usize,
    nodes: usize,
    limit: Duration,
) -> anyhow::Result<Vec<Instant>> {
    let mut born = HashMap::<String, Instant>::new();
    let mut others = HashMap::<String, String>::new();
    let mut see = |found: &GodCluster| {
        let status = found.status.clone().unwrap_or_default();
        if status.phase == Phase::Ready && status.nodes.len() == nodes {
            born.entry(found.name_any()).or_insert_with(Instant::now);
            others.remove(&found.name_any());
        } else if !born.contains_key(&found.name_any()) {
            others.insert(found.name_any(), format!("{:?} {:?}", status.phase, status.waiting));
        }
        born.len() == count
    };
    let watch = async {
        loop {
            let there = clusters.list(&ListParams::default()).await?;
            if there.iter().any(&mut see) {
                return anyhow::Ok(());
            }
            let version = there.metadata.resource_version.unwrap_or_default();
            let mut events = clusters.watch(&WatchParams::default(), &version).await?.boxed();
            while let Some(event) = events.try_next().await? {
                if let WatchEvent::Added(found) | WatchEvent::Modified(found) = event
                    && see(&found)
                {
                    return Ok(());
                }
            }
        }
    };
    match tokio::time::timeout(limit, watch).await {
        Ok(done) => done?,
        Err(_) => anyhow::bail!("{} of {count} were born in {} s: {others:?}", born.len(), limit.as_secs()),
    }
    Ok(born.into_values().collect())
}
