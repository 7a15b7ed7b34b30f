//! The rules of a `GodCluster` once more: for objects that were admitted by an older schema, and for those who have no
//! API server at hand. Each sentence is the one that the API server would say.

use super::{
    GodCluster, GodClusterSpec, Mode, bytes_of,
    memory::{short_pools, size},
    milliseconds, rules, seconds,
};
use god_proto::time::MAX_TTL_MS;
use std::collections::BTreeSet;

/// In thousandths of a second.
const YEAR: u64 = 365 * 86_400 * 1_000;

/// What is wrong with an object, if anything: sentences that say what to do.
pub fn problems(cluster: &GodCluster) -> Vec<String> {
    let spec = &cluster.spec;
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let total = total(spec);
    let keyspaces = spec.keyspaces.iter();
    let settings = &spec.settings;
    let mut found: Vec<(bool, &str)> = vec![
        (name.len() > 30 || !is_label(name), rules::NAME_SAYS),
        (
            spec.replicas.is_some() != spec.node_pools.iter().any(|pool| pool.replicas.is_none()),
            rules::SHARED_SAYS,
        ),
        (total < u64::from(spec.consistency.replicas), rules::ENOUGH_NODES_SAYS),
        (
            keyspaces
                .clone()
                .any(|keyspace| keyspace.replicas.is_some_and(|copies| total < u64::from(copies))),
            rules::ENOUGH_FOR_KEYSPACES_SAYS,
        ),
        (spec.tls.as_ref().is_some_and(|tls| tls.enabled), rules::NO_TLS_SAYS),
        (
            [spec.consistency.write_quorum, spec.consistency.read_quorum]
                .into_iter()
                .flatten()
                .any(|quorum| quorum > spec.consistency.replicas),
            rules::QUORUMS_SAYS,
        ),
        (!(10..=60_000).contains(&millis(&spec.gossip.interval)), rules::GOSSIP_SAYS),
        (
            spec.node_pools
                .iter()
                .filter_map(|pool| size(pool.memory.as_ref()?))
                .any(|memory| memory < 16 << 20),
            rules::MEMORY_SAYS,
        ),
        (
            settings
                .transfer_rate
                .as_deref()
                .and_then(size)
                .is_some_and(|rate| (1..64 << 10).contains(&rate)),
            rules::RATE_SAYS,
        ),
        (
            settings.tombstone_age.as_deref().is_some_and(|age| !(2_000..=YEAR).contains(&millis(age))),
            rules::TOMBSTONES_SAYS,
        ),
        (rules::OWN_SETTINGS.iter().any(|name| settings.more.contains_key(*name)), rules::MORE_SAYS),
        (
            keyspaces.clone().any(|keyspace| {
                [keyspace.write_quorum, keyspace.read_quorum]
                    .into_iter()
                    .flatten()
                    .any(|quorum| quorum > keyspace.replicas.unwrap_or(0))
            }),
            rules::KEYSPACE_QUORUMS_SAYS,
        ),
        (
            keyspaces
                .clone()
                .filter_map(|keyspace| keyspace.default_ttl.as_deref())
                .any(|ttl| !(1..=MAX_TTL_MS).contains(&millis(ttl))),
            rules::TTL_SAYS,
        ),
        (keyspaces.clone().any(|keyspace| keyspace.mode != Mode::Lww), rules::LWW_SAYS),
        (
            spec.node_pools.iter().any(|pool| bytes_of(&pool.storage.size).is_none_or(|size| size == 0)),
            rules::SIZE_GOOD_SAYS,
        ),
        (
            // A cluster that is there is looked after all the same, and what it lacks is told.
            cluster.status.as_ref().is_none_or(|status| status.cluster_id.is_none())
                && short_pools(spec).next().is_some(),
            "a pool's memory limit is too small: a node takes its memory (16MiB at least), request-memory (32MiB at \
             least) and 150MiB beside; raise the limit, or lower what is given of the two",
        ),
        (spec.node_pools.is_empty(), "there is no node pool: name one in spec.nodePools"),
        (
            spec.node_pools.iter().map(|pool| &pool.name).collect::<BTreeSet<_>>().len()
                < spec.node_pools.len(),
            "two pools have the same name: rename one",
        ),
        (
            keyspaces.clone().map(|keyspace| &keyspace.name).collect::<BTreeSet<_>>().len()
                < spec.keyspaces.len(),
            "two keyspaces have the same name: rename one",
        ),
        (
            keyspaces.clone().any(|keyspace| keyspace.name == god_proto::DEFAULT_KEYSPACE),
            rules::OWN_KEYSPACE_SAYS,
        ),
        (
            [&spec.volumes.quarantine, &spec.replacement.window]
                .into_iter()
                .any(|text| seconds(text).is_none()),
            "a duration is a number and a unit, such as 1h",
        ),
    ];
    found.retain(|(is_wrong, _)| *is_wrong);
    found.into_iter().map(|(_, says)| says.to_owned()).collect()
}

/// Of which names of services are made.
fn is_label(name: &str) -> bool {
    let is_small = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(|c| is_small(*c))
        && bytes.iter().all(|c| is_small(*c) || *c == b'-')
}

/// Thousandths of a second; none where it is no duration, or one of more than anything takes.
fn millis(text: &str) -> u64 {
    milliseconds(text).unwrap_or(0)
}

/// What is wrong with a change, if anything.
pub fn change_problems(old: &GodClusterSpec, new: &GodClusterSpec) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |is_wrong: bool, says: &str| {
        if is_wrong && !found.iter().any(|known| known == says) {
            found.push(says.to_owned());
        }
    };
    note(old.virtual_nodes != new.virtual_nodes, rules::VIRTUAL_NODES_SAYS);
    note(old.cluster_id.is_some() && old.cluster_id != new.cluster_id, rules::CLUSTER_STAYS_SAYS);
    for pool in &old.node_pools {
        let Some(now) = new.node_pools.iter().find(|other| other.name == pool.name) else {
            note(pool.replicas != Some(0), rules::POOLS_STAY_SAYS);
            continue;
        };
        note(now.storage.class != pool.storage.class, rules::CLASS_STAYS_SAYS);
        let sizes = bytes_of(&pool.storage.size).zip(bytes_of(&now.storage.size));
        note(sizes.is_some_and(|(old, new)| new < old), rules::SIZE_GROWS_SAYS);
    }
    for keyspace in &old.keyspaces {
        let Some(now) = new.keyspaces.iter().find(|other| other.name == keyspace.name) else {
            note(true, rules::KEYSPACES_STAY_SAYS);
            continue;
        };
        note(now.partitioner != keyspace.partitioner, rules::PARTITIONER_SAYS);
    }
    found
}

/// All nodes that are asked for.
pub fn total(spec: &GodClusterSpec) -> u64 {
    let own = spec.node_pools.iter().filter_map(|pool| pool.replicas).map(u64::from).sum::<u64>();
    own + u64::from(spec.replicas.unwrap_or(0))
}
