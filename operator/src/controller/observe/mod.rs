//! Looks at the world: the API server first, the nodes afterwards. That order matters: what a plan concludes from the
//! ring is then never older than what it concludes from pods and volumes.

mod cache;
pub mod convert;

pub use cache::{Cache, Scope, resource};

use super::{
    build::{CLUSTER_LABEL, GRPC_PORT, PEER_PORT},
    nodes::{self, Address},
    world::{Observed, RingView, Said},
};
use crate::crd::GodCluster;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use uuid::Uuid;

/// Objects of one cluster, as they were read at one time.
#[derive(Clone, Debug)]
pub struct Objects {
    /// The cluster's own object.
    pub cluster: Arc<GodCluster>,
    /// Its sets.
    pub sets: Vec<Arc<StatefulSet>>,
    /// Its pods.
    pub pods: Vec<Arc<Pod>>,
    /// Its volume claims, and where they were read from the API server itself, all that there are.
    pub volumes: Vec<Arc<PersistentVolumeClaim>>,
}

/// What was seen, and where the nodes are.
#[derive(Clone, Debug)]
pub struct Look {
    /// Plain values, for plans.
    pub observed: Observed,
    /// The objects that they were read from.
    pub objects: Objects,
    /// Where each node that answered is.
    pub addresses: BTreeMap<Uuid, Address>,
}

impl Look {
    /// Members that answered, those first that are in the ring.
    pub fn members(&self) -> Vec<Address> {
        let ring = self.observed.ring();
        let mut members: Vec<(bool, &Address)> = self
            .observed
            .pods
            .iter()
            .filter_map(|pod| match pod.said {
                Said::Member { node, .. } => {
                    let is_out = ring.is_some_and(|ring| !ring.members.contains_key(&node));
                    Some((is_out, self.addresses.get(&node)?))
                }
                _ => None,
            })
            .collect();
        members.sort_by_key(|(is_out, _)| *is_out);
        members.into_iter().map(|(_, address)| address.clone()).collect()
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Reads a cluster's objects from the API server itself. `None`: the cluster's own object is gone.
pub async fn read(client: &Client, cluster: &GodCluster) -> Result<Option<Objects>, kube::Error> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let Some(object) = Api::<GodCluster>::namespaced(client.clone(), &namespace).get_opt(&name).await? else {
        return Ok(None);
    };
    if object.metadata.uid != cluster.metadata.uid {
        return Ok(None);
    }
    let chosen = ListParams::default().labels(&format!("{CLUSTER_LABEL}={name}"));
    let sets = Api::<StatefulSet>::namespaced(client.clone(), &namespace);
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let volumes = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
    let (sets, pods) = tokio::try_join!(sets.list(&chosen), pods.list(&chosen))?;
    // After the pods: a claim is made before its pod, so one that is not listed for a pod that was is truly gone.
    // Without labels: a claim that lost them is no lost volume.
    let volumes = volumes.list(&ListParams::default()).await?;
    Ok(Some(Objects {
        cluster: Arc::new(object),
        sets: sets.items.into_iter().map(Arc::new).collect(),
        pods: pods.items.into_iter().map(Arc::new).collect(),
        volumes: volumes.items.into_iter().map(Arc::new).collect(),
    }))
}

/// Asks the nodes, and puts all together.
pub async fn look(objects: Objects) -> Look {
    let mut pods = Vec::new();
    let mut addresses = Vec::new();
    let mut sources = Vec::new();
    let cluster = objects.cluster.name_any();
    for object in &objects.pods {
        let Some(pod) = convert::pod(object, &cluster, now()) else { continue };
        let address = convert::address(object).map(|ip| Address { ip, grpc: GRPC_PORT, peer: PEER_PORT });
        pods.push(pod);
        addresses.push(address);
        sources.push(object);
    }
    let said = nodes::introduce(&addresses).await;
    let mut found = BTreeMap::new();
    let mut members = Vec::new();
    for (((pod, said), address), source) in pods.iter_mut().zip(said).zip(addresses).zip(sources) {
        pod.said = said;
        if said == Said::Nothing && pod.stuck.is_none() && !pod.ready {
            pod.stuck = convert::silent(source, now());
        }
        if let (Some(node), Some(address)) = (said.node(), address) {
            found.insert(node, address.clone());
            if matches!(said, Said::Member { .. }) && !pod.terminating {
                members.push((!pod.ready, address));
            }
        }
    }
    members.sort_by_key(|(is_unready, _)| *is_unready);
    let members: Vec<Address> = members.into_iter().map(|(_, address)| address).collect();
    let ring = match members.as_slice() {
        [] => RingView::Unknown("no pod says that it is a member yet".to_owned()),
        members => nodes::look(members).await,
    };
    pods.sort_by(|a, b| a.place.cmp(&b.place));
    let sets: BTreeMap<_, _> =
        objects.sets.iter().filter_map(|object| convert::set(object, &cluster)).collect();
    let in_spec = objects.cluster.spec.node_pools.iter().map(|pool| pool.name.clone());
    let pools: Vec<String> = in_spec.chain(sets.keys().cloned()).collect();
    let mut volumes: Vec<_> =
        objects.volumes.iter().filter_map(|object| convert::volume(object, &cluster, &pools)).collect();
    volumes.sort_by(|a, b| a.place.cmp(&b.place));
    let observed = Observed {
        now: now(),
        recorded: convert::recorded(&objects.cluster),
        sets,
        pods,
        volumes,
        ring,
        excused: 0,
    };
    Look { observed, objects, addresses: found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Json, Router};
    use serde_json::json;
    use std::sync::Mutex;

    #[tokio::test]
    async fn claims_are_listed_after_pods_and_whatever_their_labels() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let object = json!({
            "apiVersion": "god-db.io/v1alpha1", "kind": "GodCluster",
            "metadata": { "name": "store", "namespace": "shop", "uid": "u" },
            "spec": { "nodePools": [{ "name": "a", "replicas": 1, "storage": { "size": "1Gi" } }] }
        });
        let cluster: GodCluster = serde_json::from_value(object.clone()).unwrap();
        let answer = move |request: axum::http::Request<axum::body::Body>| {
            let uri = request.uri().to_string();
            let is_list = !uri.contains("godclusters");
            noted.lock().unwrap().push(uri);
            let reply = if is_list {
                json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": [] })
            } else {
                object.clone()
            };
            async move { Json(reply) }
        };
        let client = Client::new(Router::new().fallback(answer), "shop");
        assert!(read(&client, &cluster).await.unwrap().is_some());
        let asked = asked.lock().unwrap();
        let at = |what: &str| asked.iter().position(|uri| uri.contains(what)).unwrap();
        assert!(at("/pods") < at("/persistentvolumeclaims"), "{asked:?}");
        assert!(asked[at("/pods")].contains("labelSelector"), "{asked:?}");
        assert!(!asked[at("/persistentvolumeclaims")].contains("labelSelector"), "{asked:?}");
    }
}
