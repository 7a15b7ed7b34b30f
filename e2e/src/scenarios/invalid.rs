//! Invalid specs are refused at admission.

use crate::stage::{CLUSTER, Stage, cluster};
use anyhow::Context as _;
use god_operator::crd::GodCluster;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// A path in the object, what is put there, and what the refusal must say.
type Wrong = (&'static str, Value, &'static str);

pub(super) async fn play(stage: &Stage) -> anyhow::Result<()> {
    let new: [Wrong; 6] = [
        ("/metadata/name", json!("2-stores"), "choose another one"),
        (
            "/spec/nodePools/0/replicas",
            json!(2),
            "ask for more nodes, or lower spec.consistency.replicas first",
        ),
        (
            "/spec/consistency",
            json!({ "replicas": 3, "writeQuorum": 4 }),
            "writeQuorum and readQuorum cannot exceed replicas",
        ),
        ("/spec/tls", json!({ "enabled": true }), "leave spec.tls out"),
        ("/spec/nodePools/0/storage/size", json!("none"), "a storage size is a quantity above 0"),
        ("/spec/keyspaces", json!([{ "name": "default" }]), "the keyspace default is there by itself"),
    ];
    for (path, value, says) in new {
        let object = changed(cluster(CLUSTER, 3), path, value)?;
        let object: GodCluster = serde_json::from_value(object)?;
        let answer = stage.clusters().create(&PostParams::default(), &object).await;
        refused(path, answer, says)?;
    }
    // Paused: it is there, and nothing comes of it.
    let mut paused = changed(cluster(CLUSTER, 3), "/spec/paused", json!(true))?;
    paused["spec"]["nodePools"][0]["storage"] = json!({ "size": "2Gi", "class": "quick" });
    let how = PatchParams::apply("god-e2e");
    stage
        .clusters()
        .patch(CLUSTER, &how, &Patch::Apply(&paused))
        .await
        .context("the valid one is refused")?;
    let changes: [Wrong; 4] = [
        ("/spec/virtualNodes", json!(20), "spec.virtualNodes is fixed"),
        ("/spec/nodePools/0/storage/size", json!("1Gi"), "a volume cannot shrink"),
        ("/spec/nodePools/0/storage/class", json!("slow"), "the storage class of a pool cannot be changed"),
        ("/spec/nodePools/0/name", json!("other"), "a pool that still has nodes cannot be removed"),
    ];
    for (path, value, says) in changes {
        let object = changed(paused.clone(), path, value)?;
        let answer = stage.clusters().patch(CLUSTER, &how, &Patch::Apply(&object)).await;
        refused(path, answer, says)?;
    }
    Ok(())
}

fn changed(mut object: Value, path: &str, value: Value) -> anyhow::Result<Value> {
    let (parent, name) = path.rsplit_once('/').context("a path has parts")?;
    let parent = object.pointer_mut(parent).with_context(|| format!("there is no {parent}"))?;
    parent[name] = value;
    Ok(object)
}

fn refused<T>(path: &str, answer: kube::Result<T>, says: &str) -> anyhow::Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 422 && status.message.contains(says) => {
            println!("  {path}: {}", status.message);
            Ok(())
        }
        Err(error) => anyhow::bail!("{path}: expected {says:?}, and not {error}"),
        Ok(_) => anyhow::bail!("{path}: it was taken"),
    }
}
