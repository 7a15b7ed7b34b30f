//! Whether a status is true at every step: each version of it is kept, and held against itself and against the ring of
//! the same epoch, as nodes had it.

use crate::stage::Stage;
use anyhow::Context as _;
use futures::{StreamExt as _, future::join};
use god_client::Client as God;
use god_operator::crd::{GodCluster, Phase};
use kube::{
    Api,
    api::{WatchEvent, WatchParams},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Between two looks at the ring.
const PAUSE: Duration = Duration::from_millis(20);
/// Versions that are kept of each, so that memory has a bound.
const MOST: usize = 20_000;

/// What the ring was at an epoch: members by UUID, and operations.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RingThen {
    members: BTreeSet<String>,
    operations: BTreeSet<String>,
}

/// Somebody who looks on.
pub struct Witness {
    stop: Arc<AtomicBool>,
    statuses: JoinHandle<anyhow::Result<Vec<GodCluster>>>,
    rings: JoinHandle<BTreeMap<u64, RingThen>>,
}

impl Witness {
    /// Begins to look at a cluster that is there.
    pub fn start(stage: &Stage, cluster: &str, client: &God) -> Witness {
        let stop = Arc::<AtomicBool>::default();
        let statuses = tokio::spawn(watch(stage.clusters(), cluster.to_owned(), Arc::clone(&stop)));
        let rings = tokio::spawn(follow(client.clone(), Arc::clone(&stop)));
        Witness { stop, statuses, rings }
    }

    /// Ends, and says where a status was not true.
    ///
    /// # Errors
    /// Names what contradicts what.
    pub async fn stop_and_check(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let (statuses, rings) = join(self.statuses, self.rings).await;
        let (statuses, rings) =
            (statuses.context("the watch crashed")??, rings.context("the looks crashed")?);
        let mut compared = 0;
        let mut known = 0;
        for seen in &statuses {
            contradicts_itself(seen).with_context(|| in_short(seen))?;
            let status = seen.status.clone().unwrap_or_default();
            let epoch = status.epoch.unwrap_or_default();
            anyhow::ensure!(epoch >= known, "the epoch was {known}, and is {epoch} again");
            known = epoch;
            let Some(ring) = rings.get(&epoch) else { continue };
            let members: BTreeSet<String> = status.nodes.iter().map(|node| node.uuid.clone()).collect();
            anyhow::ensure!(
                members == ring.members,
                "at epoch {epoch} the ring is {ring:?}: {}",
                in_short(seen)
            );
            let operation = status.operation.map(|operation| operation.id);
            let is_known = match &operation {
                Some(id) => ring.operations.contains(id),
                None => ring.operations.is_empty(),
            };
            anyhow::ensure!(is_known, "at epoch {epoch} the ring is {ring:?}: {}", in_short(seen));
            compared += 1;
        }
        let newest = rings.last_key_value().map_or(0, |(epoch, _)| *epoch);
        anyhow::ensure!(known <= newest, "the status tells of epoch {known}, nodes know {newest}");
        anyhow::ensure!(compared > 0, "no status was of an epoch that nodes were seen at");
        println!(
            "  witness: {} statuses contradict neither themselves nor, {compared} of them, the ring at one of {} epochs",
            statuses.len(),
            rings.len()
        );
        Ok(())
    }
}

/// What no status may say, whatever happens.
fn contradicts_itself(seen: &GodCluster) -> anyhow::Result<()> {
    let status = seen.status.clone().unwrap_or_default();
    anyhow::ensure!(
        status.observed_generation <= seen.metadata.generation,
        "it observed a spec that is not there yet"
    );
    let uuids: BTreeSet<&String> = status.nodes.iter().map(|node| &node.uuid).collect();
    anyhow::ensure!(uuids.len() == status.nodes.len(), "a node is named twice");
    let may_say_why =
        matches!(status.phase, Phase::Blocked | Phase::Invalid | Phase::Paused | Phase::Deleting);
    anyhow::ensure!(status.blocked.is_none() || may_say_why, "something is blocked, and the phase hides it");
    anyhow::ensure!(
        status.blocked.is_some() || status.phase != Phase::Blocked,
        "it is blocked, and does not say why"
    );
    if let Some(blocked) = &status.blocked {
        anyhow::ensure!(
            !blocked.message.is_empty() && !blocked.action.is_empty(),
            "it says not why, or not what"
        );
    }
    let condition = |name: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == name);
        found.is_some_and(|condition| condition.status == "True")
    };
    let is_told = status.observed_generation == seen.metadata.generation;
    if status.phase == Phase::Ready && is_told {
        let wanted: u32 = seen.spec.node_pools.iter().filter_map(|pool| pool.replicas).sum();
        anyhow::ensure!(
            status.nodes.len() as u32 == wanted,
            "it is ready, with other nodes than it should have"
        );
        anyhow::ensure!(
            status.nodes.iter().all(|node| node.state == "up"),
            "it is ready, and not all are up"
        );
        anyhow::ensure!(status.operation.is_none(), "it is ready, and an operation goes on");
        anyhow::ensure!(
            condition("Available") && !condition("Degraded"),
            "it is ready, and not as it should be"
        );
    }
    Ok(())
}

fn in_short(seen: &GodCluster) -> String {
    let status = seen.status.clone().unwrap_or_default();
    let nodes: Vec<String> =
        status.nodes.iter().map(|node| format!("{} {}", node.uuid, node.state)).collect();
    format!(
        "status {:?}, generation {:?} of {:?}, epoch {:?}, nodes {nodes:?}, operation {:?}, blocked {:?}",
        status.phase,
        status.observed_generation,
        seen.metadata.generation,
        status.epoch,
        status.operation.map(|operation| operation.id),
        status.blocked
    )
}

/// Every version of the object, from now on.
async fn watch(api: Api<GodCluster>, name: String, stop: Arc<AtomicBool>) -> anyhow::Result<Vec<GodCluster>> {
    let mut seen = vec![api.get(&name).await?];
    // A watch ends by itself before the next look at whether to stop would be late.
    let how = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(2);
    while !stop.load(Ordering::Relaxed) && seen.len() < MOST {
        let version = seen.last().and_then(|last| last.metadata.resource_version.clone()).unwrap_or_default();
        let mut events = api.watch(&how, &version).await?.boxed();
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => seen.push(object),
                WatchEvent::Error(error) => anyhow::bail!("the watch failed: {error:?}"),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
            }
        }
    }
    Ok(seen)
}

/// Every ring that is seen. One that nobody answers for is passed over.
async fn follow(client: God, stop: Arc<AtomicBool>) -> BTreeMap<u64, RingThen> {
    let mut seen = BTreeMap::new();
    let mut is_last = false;
    while seen.len() < MOST {
        if let Ok(ring) = client.ring().await {
            let uuid = |bytes: &[u8]| Uuid::from_slice(bytes).unwrap_or_default().to_string();
            let members = ring.nodes.iter().map(|member| uuid(&member.uuid)).collect();
            let operations = ring.operations.iter().map(|operation| operation.id.clone()).collect();
            seen.insert(ring.epoch, RingThen { members, operations });
        }
        // One look more after the last status.
        if is_last {
            break;
        }
        is_last = stop.load(Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A cluster of one node, as it is told when all is well, but for what is put at a path.
    fn seen(path: &str, value: Value) -> GodCluster {
        let mut object = crate::stage::cluster("store", 1);
        object["metadata"]["generation"] = json!(2);
        object["status"] = json!({
            "observedGeneration": 2, "phase": "Ready", "epoch": 3, "operation": null, "blocked": null,
            "conditions": [{
                "type": "Available", "status": "True", "reason": "QuorumUp", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "nodes": [{ "uuid": "a", "number": 1, "state": "up", "weight": 1.0, "arcs": 3 }],
        });
        if !path.is_empty() {
            *object.pointer_mut(path).unwrap() = value;
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_status_that_says_two_things_at_once_is_found_out() {
        contradicts_itself(&seen("", Value::Null)).unwrap();
        let blocked = json!({ "reason": "DataAtRisk", "message": "why", "action": "what" });
        let lies = [
            ("/status/observedGeneration", json!(3)),
            ("/status/nodes/0/state", json!("down")),
            ("/spec/nodePools/0/replicas", json!(2)),
            ("/status/blocked", blocked),
            ("/status/phase", json!("Blocked")),
            ("/status/conditions/0/status", json!("False")),
        ];
        for (path, value) in lies {
            assert!(contradicts_itself(&seen(path, value)).is_err(), "{path}");
        }
        // What is not of this spec yet may be of another size.
        let mut old = seen("/spec/nodePools/0/replicas", json!(2));
        old.metadata.generation = Some(3);
        contradicts_itself(&old).unwrap();
    }
}
