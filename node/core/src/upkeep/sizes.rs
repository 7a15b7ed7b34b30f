//! What nodes hold of each arc.

use super::Upkeep;
use crate::{
    engine::EngineError,
    peer::{failure, no_cluster},
    radix::{Summary, View},
    ring::{self, given_up},
};
use futures::future::join_all;
use god_proto::{
    ids::{ArcId, KeyspaceId, NodeId},
    peer::{ArcSize, ArcSizes, ArcSizesDone, Cause, Failure, request, response},
    position::{Position, PositionRange},
    ring::{Ring, RingArc},
    v1::Partitioner,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::Semaphore;

/// How long a node may take to measure its arcs.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How many nodes are asked at a time what they hold, where somebody waits for it: all.
pub(super) const ALL: usize = usize::MAX;

/// How many are, where nobody does: so few that not all are busy with it at once.
pub(super) fn few(ring: &Ring) -> usize {
    ring.nodes().len().div_ceil(16).max(1)
}

/// The load of an arc that was not watched for long enough.
const UNKNOWN: f64 = -1.0;

impl Upkeep {
    /// What this node holds of each of its arcs, and what it holds of others. Cost: O(arcs × depth), and for each arc
    /// of its own a scan of half a bucket, of five halves with its middle, which is looked for where hashes do not tell
    /// it well enough.
    pub(super) async fn sizes(&self, asked: ArcSizes) -> Result<ArcSizesDone, Failure> {
        let Some(ring) = self.ring.get() else {
            return Err(no_cluster());
        };
        // What was begun under an older ring is written by then, or never is.
        self.replica.drained().await;
        let epoch = ring.epoch().0;
        let me = self.me;
        let measured = self.look(false, move |view| measure(view, &ring, me, asked)).await;
        let mut done = measured.map_err(|error| failure(Cause::Storage, error.to_string()))?;
        for arc in &mut done.arcs {
            arc.load = self.replica.loads().of(ArcId(arc.arc)).unwrap_or(UNKNOWN);
        }
        let figures = self.store.engine().figures();
        let free = figures.into_iter().find(|(name, _)| *name == "disk_free_bytes");
        done.epoch = epoch;
        done.kept = (done.misplaced_entries > 0).then(|| self.kept.why()).flatten();
        done.disk_free_bytes = free.map_or(0, |(_, bytes)| bytes as u64);
        Ok(done)
    }
}

fn measure(view: &View, ring: &Ring, me: NodeId, asked: ArcSizes) -> Result<ArcSizesDone, EngineError> {
    let mut done = ArcSizesDone::default();
    let own: Vec<&RingArc> = ring.arcs().iter().filter(|arc| Ring::holds(arc, me)).collect();
    let sums = match asked.misplaced_only {
        true => vec![Summary::default(); own.len()],
        false => view.estimates(own.iter().map(|arc| &arc.range))?,
    };
    let usual = usual_entries(ring, &own, &sums);
    for (arc, sum) in own.into_iter().zip(sums) {
        let (entries, bytes) = (sum.entries, sum.bytes);
        let mut size = ArcSize { arc: arc.id.0, load: UNKNOWN, entries, bytes, ..ArcSize::default() };
        let is_usual = usual.get(&arc.keyspace).is_some_and(|usual| entries <= 2 * usual);
        if asked.middles && size.entries > 1 && !is_usual {
            let middle = match view.split_point(&arc.range) {
                // It is in what cannot be read (DAMAGE-APART).
                Err(EngineError::Corrupt(_)) => None,
                middle => middle?,
            };
            size.middle = middle.map(Position::into_bytes).unwrap_or_default();
        }
        done.arcs.push(size);
    }
    for range in foreign(ring, me) {
        if view.is_empty(&range)? {
            continue;
        }
        let sum = view.estimate(&range)?;
        done.misplaced_entries += sum.entries;
        done.misplaced_bytes += sum.bytes;
    }
    Ok(done)
}

/// Entries of an arc of each hashed keyspace, on the average: with up to twice as many its halves are those of its
/// hashes, as far as anybody needs to know, and finding the middle would read five halves of buckets.
fn usual_entries(ring: &Ring, arcs: &[&RingArc], sums: &[Summary]) -> BTreeMap<KeyspaceId, u64> {
    let is_hashed = |arc: &RingArc| {
        let keyspace = ring.keyspace_by_id(arc.keyspace);
        keyspace.is_some_and(|keyspace| keyspace.partitioner() == Partitioner::Hashed)
    };
    let mut all: BTreeMap<KeyspaceId, (u64, u64)> = BTreeMap::new();
    for (arc, sum) in arcs.iter().zip(sums).filter(|(arc, _)| is_hashed(arc)) {
        let (count, entries) = all.entry(arc.keyspace).or_default();
        *count += 1;
        *entries += sum.entries;
    }
    all.into_iter().map(|(keyspace, (count, entries))| (keyspace, entries.div_ceil(count))).collect()
}

/// The arcs that a node holds no copy of, and that others do. Where the data of all of them are given up, what it has
/// is in nobody's way: there is nobody to hand it to, and it may be all that is left.
pub(super) fn foreign(ring: &Ring, me: NodeId) -> impl Iterator<Item = PositionRange> + '_ {
    let gone = given_up(ring);
    let of_others =
        move |arc: &&RingArc| !Ring::holds(arc, me) && !arc.replicas.iter().all(|owner| gone.contains(owner));
    ring.arcs().iter().filter(of_others).map(|arc| arc.range.clone())
}

/// What is known of all arcs, as far as nodes answer: of each arc what its largest copy says. `middles`: and where each
/// is cut in two halves, which takes each node five times as much to find. So many nodes are asked at a time, beside
/// those that are silent: they keep no other one waiting.
pub async fn gather_sizes(upkeep: &Upkeep, ring: &Ring, middles: bool, at_once: usize) -> ring::Sizes {
    let turns = &Semaphore::new(at_once.min(Semaphore::MAX_PERMITS));
    let ask = |node: NodeId| async move {
        let turn = turns.acquire().await.ok();
        let _turn = turn.filter(|_| !upkeep.is_silent(node));
        let ask = request::Body::Sizes(ArcSizes { middles, misplaced_only: false });
        match upkeep.ask_node(node, ring.epoch().0, TIMEOUT, ask).await {
            Ok(response::Body::Sizes(said)) => Some((node, said)),
            _ => None,
        }
    };
    let answers = join_all(ring.nodes().iter().map(|node| ask(NodeId(node.number)))).await;
    let mut sizes = ring::Sizes::default();
    let mut loads: BTreeMap<ArcId, f64> = BTreeMap::new();
    for (node, said) in answers.into_iter().flatten() {
        // 0: it does not know.
        if said.disk_free_bytes > 0 {
            sizes.free.insert(node, said.disk_free_bytes);
        }
        for arc in said.arcs {
            let load = loads.entry(ArcId(arc.arc)).or_insert(UNKNOWN);
            *load = load.max(arc.load);
            let known = sizes.arcs.entry(ArcId(arc.arc)).or_default();
            if arc.entries >= known.entries {
                *known = ring::ArcSize {
                    bytes: arc.bytes,
                    entries: arc.entries,
                    load: 0.0,
                    middle: (!arc.middle.is_empty()).then(|| Position::from_bytes(arc.middle)),
                };
            }
        }
    }
    sizes.unsettled = loads.values().any(|load| *load == UNKNOWN) && loads.values().any(|load| *load > 0.0);
    for (arc, load) in loads {
        sizes.arcs.entry(arc).or_default().load = load.max(0.0);
    }
    sizes
}
