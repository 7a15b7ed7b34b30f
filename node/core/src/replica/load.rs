//! How busy this node's copies of arcs are.
//!
//! What counts is what lasts: the least that an arc was asked in any of the latest intervals. A burst moves no data,
//! and neither does a load that wanders. An arc that was held for less than that is of unknown load; one that was
//! cut off another takes its part of what was known of that.

use god_proto::{
    ids::{ArcId, NodeId},
    position::PositionRange,
    ring::Ring,
};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::Instant;

/// How long one interval is, and how many of them must be alike.
const INTERVAL: Duration = Duration::from_secs(10);
const INTERVALS: usize = 6;

/// Requests of each arc. Counting costs a lookup; no lock is held alone but when an arc is new.
pub struct Loads {
    counts: RwLock<BTreeMap<ArcId, AtomicU64>>,
    known: Mutex<MeasuredRates>,
    calls: AtomicU64,
}

struct MeasuredRates {
    began: Instant,
    arcs: BTreeMap<ArcId, History>,
}

struct History {
    range: PositionRange,
    /// Requests a second of the latest intervals, the newest last.
    rates: VecDeque<f64>,
}

impl Loads {
    /// Nothing is known yet.
    pub fn new() -> Loads {
        let known = MeasuredRates { began: Instant::now(), arcs: BTreeMap::new() };
        Loads { counts: RwLock::default(), known: Mutex::new(known), calls: AtomicU64::new(0) }
    }

    /// Counts reads, writes or pages, for which a client waits.
    pub fn count_calls(&self, calls: u64) {
        self.calls.fetch_add(calls, Relaxed);
    }

    /// How many of them there were since the start.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Counts what an arc was asked for.
    pub fn count(&self, arc: ArcId, requests: u64) {
        if let Some(count) = self.counts.read().get(&arc) {
            count.fetch_add(requests, Relaxed);
            return;
        }
        self.counts.write().entry(arc).or_default().fetch_add(requests, Relaxed);
    }

    /// Ends an interval, if it is time. To be called more often than there are intervals.
    pub fn look(&self, ring: &Ring, me: NodeId) {
        let mut known = self.known.lock();
        let took = known.began.elapsed();
        if took < INTERVAL {
            return;
        }
        known.began = Instant::now();
        let counts = std::mem::take(&mut *self.counts.write());
        let rate =
            |arc: ArcId| counts.get(&arc).map_or(0, |count| count.load(Relaxed)) as f64 / took.as_secs_f64();
        let before = std::mem::take(&mut known.arcs);
        for arc in ring.arcs().iter().filter(|arc| Ring::holds(arc, me)) {
            let mut rates = match before.get(&arc.id) {
                Some(same) if same.range == arc.range => same.rates.clone(),
                _ => inherited(&before, &arc.range, ring),
            };
            rates.push_back(rate(arc.id));
            let surplus = rates.len().saturating_sub(INTERVALS);
            rates.drain(..surplus);
            known.arcs.insert(arc.id, History { range: arc.range.clone(), rates });
        }
    }

    /// Requests a second that an arc has had all the time lately. `None`: it was not held for long enough.
    pub fn of(&self, arc: ArcId) -> Option<f64> {
        let known = self.known.lock();
        let rates = known.arcs.get(&arc).map(|history| &history.rates)?;
        (rates.len() == INTERVALS).then(|| rates.iter().copied().fold(f64::INFINITY, f64::min))
    }
}

impl Default for Loads {
    fn default() -> Loads {
        Loads::new()
    }
}

/// What is known of an arc that was another's part: an equal share with the other parts of that.
fn inherited(before: &BTreeMap<ArcId, History>, range: &PositionRange, ring: &Ring) -> VecDeque<f64> {
    let whole = before.values().find(|history| history.range.intersect(range) == *range);
    let Some(whole) = whole else { return VecDeque::new() };
    let parts = ring.arcs_in(&whole.range).len().max(1) as f64;
    whole.rates.iter().map(|rate| rate / parts).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ring::{Founding, Joiner, found, split};
    use god_proto::position::Position;
    use tokio::time::advance;
    use uuid::Uuid;

    const ME: NodeId = NodeId(1);

    fn founded() -> Ring {
        let me = Joiner {
            uuid: Uuid::from_u128(1),
            peer_address: "node-1:7100".to_owned(),
            grpc_address: String::new(),
            http_address: String::new(),
            zone: String::new(),
            weight: 1.0,
            version: "1".to_owned(),
            takes_part: true,
        };
        let founding = Founding {
            replicas: 1,
            write_quorum: 1,
            read_quorum: 1,
            virtual_nodes: 4,
            under_replicated: false,
        };
        found(Uuid::from_u128(9), &me, founding).unwrap()
    }

    async fn interval(loads: &Loads, ring: &Ring, asked: &[(ArcId, u64)]) {
        advance(INTERVAL).await;
        asked.iter().for_each(|(arc, requests)| loads.count(*arc, *requests));
        loads.look(ring, ME);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_lasts_counts_as_load() {
        let (ring, loads) = (founded(), Loads::new());
        let [steady, burst] = [ring.arcs()[0].id, ring.arcs()[1].id];
        for at in 0..INTERVALS as u64 {
            assert_eq!(loads.of(steady), None);
            let bursts = if at == 3 { 90_000 } else { 10 };
            interval(&loads, &ring, &[(steady, 1_000), (burst, bursts)]).await;
        }
        assert_eq!((loads.of(steady), loads.of(burst)), (Some(100.0), Some(1.0)));
        interval(&loads, &ring, &[]).await;
        assert_eq!(loads.of(steady), Some(0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn parts_of_an_arc_share_what_was_known_of_it() {
        let (ring, loads) = (founded(), Loads::new());
        let whole = ring.arcs()[0].clone();
        for _ in 0..INTERVALS {
            interval(&loads, &ring, &[(whole.id, 1_000)]).await;
        }
        let middle = Position::of_hash(whole.keyspace, 1 << 40);
        let cut = split(&ring, whole.id, &middle).unwrap().unwrap();
        let upper = cut.arc_at(&middle).unwrap().id;
        interval(&loads, &cut, &[(whole.id, 600), (upper, 600)]).await;
        assert_eq!((loads.of(whole.id), loads.of(upper)), (Some(50.0), Some(50.0)));
    }
}
