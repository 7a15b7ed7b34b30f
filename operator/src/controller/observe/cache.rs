//! What the watches keep in memory, so that a cluster at rest costs the API server nothing.

use super::Objects;
use crate::{
    controller::build::{CLUSTER_LABEL, MANAGER, ObjectKind},
    crd::GodCluster,
};
use futures::{Stream, StreamExt, stream::BoxStream};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, reflector, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug, hash::Hash, sync::Arc};

/// Kinds that are kept as JSON; sets are among them, as they are compared with what they should be.
const PLAIN: [ObjectKind; 5] = [
    ObjectKind::ServiceAccount,
    ObjectKind::ConfigMap,
    ObjectKind::Service,
    ObjectKind::PodDisruptionBudget,
    ObjectKind::NetworkPolicy,
];

/// Which namespaces are looked after.
#[derive(Clone, Debug)]
pub enum Scope {
    /// All of them.
    Cluster,
    /// One.
    Namespace(String),
}

impl Scope {
    /// Everything of a type that is looked after.
    pub fn api<K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>>(
        &self,
        client: Client,
    ) -> Api<K> {
        match self {
            Scope::Cluster => Api::all(client),
            Scope::Namespace(namespace) => Api::namespaced(client, namespace),
        }
    }

    fn plain(&self, client: Client, resource: &ApiResource) -> Api<DynamicObject> {
        match self {
            Scope::Cluster => Api::all_with(client, resource),
            Scope::Namespace(namespace) => Api::namespaced_with(client, namespace, resource),
        }
    }
}

/// The API resource of a kind.
pub fn resource(kind: ObjectKind) -> ApiResource {
    let (api_version, plural) = kind.api();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = GroupVersionKind::gvk(group, version, &format!("{kind:?}"));
    ApiResource::from_gvk_with_plural(&kind, plural)
}

/// Objects that are watched.
pub struct Cache {
    sets: Store<StatefulSet>,
    pods: Store<Pod>,
    volumes: Store<PersistentVolumeClaim>,
    plain: BTreeMap<ObjectKind, Store<DynamicObject>>,
}

type Touched = BoxStream<'static, ObjectRef<DeserializeGuard<GodCluster>>>;

impl Cache {
    /// Watches, and a stream of the clusters whose objects changed. Nothing is watched unless the stream is read.
    pub fn start(client: &Client, scope: &Scope) -> (Cache, Touched) {
        let mut touched = Vec::new();
        let sets = watched(scope.api::<StatefulSet>(client.clone()), (), &mut touched);
        let pods = watched(scope.api::<Pod>(client.clone()), (), &mut touched);
        let volumes = watched(scope.api::<PersistentVolumeClaim>(client.clone()), (), &mut touched);
        let mut plain = BTreeMap::new();
        for kind in PLAIN {
            let resource = resource(kind);
            let api = scope.plain(client.clone(), &resource);
            plain.insert(kind, watched(api, resource, &mut touched));
        }
        (Cache { sets, pods, volumes, plain }, futures::stream::select_all(touched).boxed())
    }

    /// Waits until each watch has been answered once.
    pub async fn ready(&self) -> Result<(), kube::runtime::reflector::store::WriterDropped> {
        self.sets.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.volumes.wait_until_ready().await?;
        for store in self.plain.values() {
            store.wait_until_ready().await?;
        }
        Ok(())
    }

    /// The objects of one cluster. What they say may be old.
    pub fn objects(&self, cluster: Arc<GodCluster>) -> Objects {
        let (name, namespace) = (cluster.name_any(), cluster.namespace());
        Objects {
            sets: of(&self.sets, &name, namespace.as_deref()),
            pods: of(&self.pods, &name, namespace.as_deref()),
            volumes: of(&self.volumes, &name, namespace.as_deref()),
            cluster,
        }
    }

    /// An object as JSON.
    pub fn plain(&self, kind: ObjectKind, namespace: &str, name: &str) -> Option<Value> {
        let key = ObjectRef::new_with(name, resource(kind)).within(namespace);
        as_json(kind, &*self.plain.get(&kind)?.get(&key)?)
    }

    /// Names of a cluster's objects of a kind.
    pub fn names(&self, kind: ObjectKind, cluster: &GodCluster) -> Vec<String> {
        let namespace = cluster.namespace();
        let found = self.plain.get(&kind).map(|store| of(store, &cluster.name_any(), namespace.as_deref()));
        found.unwrap_or_default().iter().map(|object| object.name_any()).collect()
    }
}

/// Items of a list do not say of which type they are, as the list does.
fn as_json(kind: ObjectKind, object: &DynamicObject) -> Option<Value> {
    let mut object = serde_json::to_value(object).ok()?;
    object["apiVersion"] = kind.api().0.into();
    object["kind"] = format!("{kind:?}").into();
    Some(object)
}

fn of<K>(store: &Store<K>, cluster: &str, namespace: Option<&str>) -> Vec<Arc<K>>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Hash + Eq + Clone,
{
    let mine = |object: &Arc<K>| {
        object.meta().namespace.as_deref() == namespace
            && object.labels().get(CLUSTER_LABEL).is_some_and(|name| name == cluster)
    };
    store.state().into_iter().filter(mine).collect()
}

fn watched<K>(api: Api<K>, kind: K::DynamicType, touched: &mut Vec<Touched>) -> Store<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Send + Sync,
{
    let writer = Writer::new(kind);
    let store = writer.as_reader();
    let config = watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
    let stream: std::pin::Pin<Box<dyn Stream<Item = _> + Send>> =
        reflector(writer, watcher(api, config).default_backoff()).touched_objects().boxed();
    let clusters = stream.filter_map(|object| async move {
        let object = match object {
            Ok(object) => object,
            Err(error) => {
                tracing::warn!(%error, "a watch broke off; it begins anew");
                return None;
            }
        };
        let cluster = object.labels().get(CLUSTER_LABEL)?.clone();
        Some(ObjectRef::new(&cluster).within(&object.namespace()?))
    });
    touched.push(clusters.boxed());
    store
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::build::differs;
    use serde_json::json;

    #[test]
    fn an_object_that_came_with_a_list_is_as_it_should_be() {
        let wished =
            json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "a" } });
        let listed: DynamicObject =
            serde_json::from_value(json!({ "metadata": { "name": "a", "uid": "u" } })).unwrap();
        assert!(listed.types.is_none());
        assert!(!differs(&wished, &as_json(ObjectKind::PodDisruptionBudget, &listed).unwrap()));
    }
}
