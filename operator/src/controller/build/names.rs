//! Names and labels.

use serde_json::{Value, json};

/// Who manages objects and fields.
pub const MANAGER: &str = "god-operator";
/// The label that names the cluster of an object.
pub const CLUSTER_LABEL: &str = "god-db.io/cluster";
/// The label that names the pool of an object.
pub const POOL_LABEL: &str = "god-db.io/pool";

/// The label of the service that has every pod: what a scrape goes by.
pub const SERVICE_LABEL: &str = "god-db.io/service";

/// Labels of an object, and of a pool's where one is named.
pub fn labels(cluster: &str, pool: Option<&str>) -> Value {
    let mut labels = json!({
        "app.kubernetes.io/name": "god",
        "app.kubernetes.io/instance": cluster,
        "app.kubernetes.io/managed-by": MANAGER,
        CLUSTER_LABEL: cluster,
    });
    if let Some(pool) = pool {
        labels[POOL_LABEL] = pool.into();
    }
    labels
}

/// What selects pods: it can never be changed, so it is no more than it must be.
pub fn selector(cluster: &str, pool: Option<&str>) -> Value {
    let mut labels = json!({ "app.kubernetes.io/name": "god", CLUSTER_LABEL: cluster });
    if let Some(pool) = pool {
        labels[POOL_LABEL] = pool.into();
    }
    labels
}
