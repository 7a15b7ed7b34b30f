//! The rules that the API server checks. Each has a message that says what to do, and a twin in `validate`.

/// All nodes that are asked for.
macro_rules! total {
    () => {
        "((has(self.replicas) ? self.replicas : 0) + \
          self.nodePools.map(p, has(p.replicas) ? p.replicas : 0).sum())"
    };
}

pub(super) const NAME: &str =
    "size(self.metadata.name) <= 30 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')";
pub(super) const NAME_SAYS: &str = "the name of a GodCluster has up to 30 small letters, digits and dashes and starts with a letter, as names of pods and services are made of it: choose another one";

pub(super) const ENOUGH_NODES: &str = concat!(total!(), " >= self.consistency.replicas");
pub(super) const ENOUGH_NODES_SAYS: &str = "there are fewer nodes than copies of each key: ask for more nodes, or lower spec.consistency.replicas first";

pub(super) const ENOUGH_FOR_KEYSPACES: &str = concat!(
    "!has(self.keyspaces) || self.keyspaces.all(k, !has(k.replicas) || ",
    total!(),
    " >= k.replicas)"
);
pub(super) const ENOUGH_FOR_KEYSPACES_SAYS: &str = "there are fewer nodes than copies of a keyspace: ask for more nodes, or lower that keyspace's replicas first";

pub(super) const SHARED: &str = "has(self.replicas) == self.nodePools.exists(p, !has(p.replicas))";
pub(super) const SHARED_SAYS: &str = "spec.replicas is divided among the pools that have no replicas of their own: give \
     spec.replicas, or replicas to every pool, and not both";

pub(super) const NO_TLS: &str = "!has(self.tls) || !self.tls.enabled";
pub(super) const NO_TLS_SAYS: &str = "TLS is not there yet: nodes of this version talk in plain text; leave spec.tls out, and keep the \
     cluster within a network you trust";

pub(super) const POOLS_STAY: &str = "oldSelf.nodePools.all(o, (has(o.replicas) && o.replicas == 0) || \
     self.nodePools.exists(p, p.name == o.name))";
pub(super) const POOLS_STAY_SAYS: &str = "a pool that still has nodes cannot be removed: set its replicas to 0, wait until its nodes have left, then remove it";

pub(super) const KEYSPACES_STAY: &str = "!has(oldSelf.keyspaces) || oldSelf.keyspaces.all(o, has(self.keyspaces) && \
     self.keyspaces.exists(k, k.name == o.name))";
pub(super) const KEYSPACES_STAY_SAYS: &str =
    "a keyspace cannot be removed from the spec, as its data would stay: put it back";

pub(super) const CLUSTER_STAYS: &str =
    "!has(oldSelf.clusterId) || (has(self.clusterId) && self.clusterId == oldSelf.clusterId)";
pub(super) const CLUSTER_STAYS_SAYS: &str = "spec.clusterId cannot be changed, as the volumes belong to that cluster: make another GodCluster instead";

// At the root: the status remembers which cluster this is, whether the spec named it or not.
pub(super) const CLUSTER_KNOWN: &str = "has(oldSelf.spec.clusterId) || !has(self.spec.clusterId) || \
     !has(oldSelf.status) || !has(oldSelf.status.clusterId) || oldSelf.status.clusterId == self.spec.clusterId";
pub(super) const CLUSTER_KNOWN_SAYS: &str = "this object is of another cluster already, see status.clusterId: leave spec.clusterId out, and make another GodCluster for that cluster";

pub(super) const FIXED: &str = "self == oldSelf";
pub(super) const VIRTUAL_NODES_SAYS: &str =
    "spec.virtualNodes is fixed when the cluster is founded: put the old value back";
pub(super) const PARTITIONER_SAYS: &str =
    "a keyspace's partitioner is fixed when it is made: put the old value back, or make another keyspace";
pub(super) const CLASS_STAYS: &str =
    "has(self.class) == has(oldSelf.class) && (!has(self.class) || self.class == oldSelf.class)";
pub(super) const CLASS_STAYS_SAYS: &str =
    "the storage class of a pool cannot be changed: add a pool with the new class, then shrink this one to 0";

pub(super) const SIZE_GOOD: &str = "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))";
pub(super) const SIZE_GOOD_SAYS: &str = "a storage size is a quantity above 0, such as 100Gi";
pub(super) const SIZE_GROWS: &str =
    "!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0";
pub(super) const SIZE_GROWS_SAYS: &str =
    "a volume cannot shrink: keep its size, or add a pool with smaller volumes and shrink this one to 0";

// What a node refuses would be a pod that never starts.
pub(super) const GOSSIP: &str = "!has(self.gossip) || (duration(self.gossip.interval) >= duration('10ms') && \
     duration(self.gossip.interval) <= duration('60s'))";
pub(super) const GOSSIP_SAYS: &str = "spec.gossip.interval is 10ms to 60s: choose one between, such as 200ms";
/// Nodes write bytes as Kubernetes does, with a B at the end.
pub(super) const MEMORY: &str = "self.nodePools.all(p, !has(p.memory) || !isQuantity(p.memory.replace('B', '')) || \
     quantity(p.memory.replace('B', '')).compareTo(quantity('16Mi')) >= 0)";
pub(super) const MEMORY_SAYS: &str =
    "a node needs 16MiB of memory at least: raise memory of the pool, or leave it out";
pub(super) const RATE: &str = "!has(self.settings) || !has(self.settings.transferRate) || \
     !isQuantity(self.settings.transferRate.replace('B', '')) || \
     quantity(self.settings.transferRate.replace('B', '')).compareTo(quantity('64Ki')) >= 0 || \
     quantity(self.settings.transferRate.replace('B', '')).compareTo(quantity('0')) == 0";
pub(super) const RATE_SAYS: &str =
    "spec.settings.transferRate is 64KiB at least, or 0B for no bound: raise it, or leave it out";
pub(super) const TOMBSTONES: &str = "!has(self.settings) || !has(self.settings.tombstoneAge) || \
     (self.settings.tombstoneAge.endsWith('d') ? \
     (int(self.settings.tombstoneAge.replace('d', '')) >= 1 && int(self.settings.tombstoneAge.replace('d', '')) <= 365) : \
     (duration(self.settings.tombstoneAge) >= duration('2s') && duration(self.settings.tombstoneAge) <= duration('8760h')))";
pub(super) const TOMBSTONES_SAYS: &str =
    "spec.settings.tombstoneAge is 2s to 365d: choose one between, or leave it out for 1h";
/// Settings of nodes that the spec has a place for, or that the operator itself gives.
pub(super) const OWN_SETTINGS: [&str; 21] = [
    "data",
    "cluster",
    "seed",
    "seeds",
    "join",
    "grpc-address",
    "peer-address",
    "http-address",
    "advertise-grpc",
    "advertise-peer",
    "advertise-http",
    "weight",
    "zone",
    "memory",
    "gossip",
    "gossip-interval",
    "gossip-fanout",
    "virtual-nodes",
    "replicas",
    "write-quorum",
    "read-quorum",
];
pub(super) const MORE: &str = "!has(self.settings) || !has(self.settings.more) || ['data', 'cluster', 'seed', 'seeds', \
     'join', 'grpc-address', 'peer-address', 'http-address', 'advertise-grpc', 'advertise-peer', 'advertise-http', 'weight', \
     'zone', 'memory', 'gossip', 'gossip-interval', 'gossip-fanout', 'virtual-nodes', 'replicas', 'write-quorum', \
     'read-quorum'].all(name, !(name in self.settings.more))";
pub(super) const MORE_SAYS: &str = "spec.settings.more names a setting that the operator gives, or that the spec has a field for: take it out there, and use that field";
pub(super) const OWN_KEYSPACE: &str = "!has(self.keyspaces) || self.keyspaces.all(k, k.name != 'default')";
pub(super) const OWN_KEYSPACE_SAYS: &str =
    "the keyspace default is there by itself: take it out, as spec.consistency is about it";

pub(super) const QUORUMS: &str = "(!has(self.writeQuorum) || self.writeQuorum <= self.replicas) && \
     (!has(self.readQuorum) || self.readQuorum <= self.replicas)";
pub(super) const QUORUMS_SAYS: &str =
    "writeQuorum and readQuorum cannot exceed replicas: lower them, or ask for more replicas";
pub(super) const KEYSPACE_QUORUMS: &str = "(!has(self.writeQuorum) || (has(self.replicas) && self.writeQuorum <= self.replicas)) && \
     (!has(self.readQuorum) || (has(self.replicas) && self.readQuorum <= self.replicas))";
pub(super) const KEYSPACE_QUORUMS_SAYS: &str = "writeQuorum and readQuorum of a keyspace need its replicas, and cannot exceed them: give replicas, or lower the quorums";

/// As `god_proto::time` has it, unit by unit: a duration of CEL ends after 292 years.
pub(super) const TTL: &str = "!has(self.defaultTtl) || (self.defaultTtl.endsWith('ms') ? \
     (int(self.defaultTtl.replace('ms', '')) >= 1 && int(self.defaultTtl.replace('ms', '')) <= 31622400000000) : \
     self.defaultTtl.endsWith('s') ? \
     (int(self.defaultTtl.replace('s', '')) >= 1 && int(self.defaultTtl.replace('s', '')) <= 31622400000) : \
     self.defaultTtl.endsWith('m') ? \
     (int(self.defaultTtl.replace('m', '')) >= 1 && int(self.defaultTtl.replace('m', '')) <= 527040000) : \
     self.defaultTtl.endsWith('h') ? \
     (int(self.defaultTtl.replace('h', '')) >= 1 && int(self.defaultTtl.replace('h', '')) <= 8784000) : \
     (int(self.defaultTtl.replace('d', '')) >= 1 && int(self.defaultTtl.replace('d', '')) <= 366000))";
pub(super) const TTL_SAYS: &str =
    "defaultTtl of a keyspace is 1ms to 366000d: choose one between, or leave it out for entries that stay";

pub(super) const LWW: &str = "self == 'lww'";
pub(super) const LWW_SAYS: &str = "linearizable keyspaces are not there yet: use mode lww";
