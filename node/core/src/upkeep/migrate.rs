//! Asks for a rebalance when nodes have grown uneven.
//!
//! With hysteresis, so that nothing oscillates: data moves when the fullest node has been well above its share for a
//! while, and then until all are within a twentieth of it. What is left to do after that is below what begins it.

use super::{
    Upkeep,
    drive::to_plan,
    sizes::{few, gather_sizes},
};
use crate::ring::{
    Share, Sizes, Wish, begin, has_wrong_copies, merge, plan, planned_shares, rebalance, small_arcs,
};
use god_proto::{ids::NodeId, ring::Ring};
use metrics::{counter, gauge};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Below so many bytes on the fullest node beyond its share, moving them is not worth it.
const WORTH: f64 = 4096.0;
/// After nodes were asked what they hold they are not for so many times as long as that took, but for so long at most:
/// the more arcs there are, and the busier nodes are, the less often.
const REST_TIMES: u32 = 50;
const MOST_REST: Duration = Duration::from_secs(30);

impl Upkeep {
    pub(super) async fn migrate(&self) {
        let mut uneven_since: Option<Instant> = None;
        let (mut merged, mut rests) = (Instant::now(), None);
        loop {
            sleep(self.settings.migrate_interval).await;
            let Some(ring) = self.ring.get() else { continue };
            self.replica.loads().look(&ring, self.me);
            let at_rest = ring.operations().is_empty() && self.all_are_up(&ring);
            if !self.settings.migrates || !at_rest || self.driver(&ring) != Some(self.me) {
                uneven_since = None;
                continue;
            }
            let began = Instant::now();
            if rests.is_some_and(|(at, until)| at == ring.epoch() && began < until) {
                continue;
            }
            let sizes = gather_sizes(self, &ring, false, few(&ring)).await;
            let is_uneven = self.is_uneven(&ring, &sizes).await;
            rests = Some((ring.epoch(), Instant::now() + (began.elapsed() * REST_TIMES).min(MOST_REST)));
            if !is_uneven {
                uneven_since = None;
                if merged.elapsed() >= self.settings.merge_interval && !sizes.unsettled {
                    merged = Instant::now();
                    self.merge_small(&ring, &sizes).await;
                }
                continue;
            }
            if uneven_since.get_or_insert_with(Instant::now).elapsed() < self.settings.cool_off {
                continue;
            }
            uneven_since = None;
            let id = format!("rebalance-{}", ring.epoch().0 + 1);
            let epoch = ring.epoch();
            let begun = self
                .register
                .change(self.change_timeout, |ring| {
                    if ring.epoch() != epoch || !ring.operations().is_empty() {
                        return Ok(None);
                    }
                    begin(ring, &id, &rebalance(), &self.away(ring))
                })
                .await;
            match begun {
                Ok(_) => counter!("god_upkeep_rebalances_total").increment(1),
                Err(error) => tracing::debug!(%error, "a rebalance could not be begun"),
            }
        }
    }

    /// Whether every member is there. What is uneven can wait until it is: a rebalance that waits for a node that is
    /// away would hold up whatever makes up for that node.
    fn all_are_up(&self, ring: &Ring) -> bool {
        ring.nodes().iter().all(|node| !self.is_down(NodeId(node.number)))
    }

    /// Whether some node holds so much more than its share that it is worth moving, and could be.
    async fn is_uneven(&self, ring: &Arc<Ring>, sizes: &Sizes) -> bool {
        let shares = planned_shares(&to_plan(ring), sizes);
        let worst = shares.iter().map(Share::ratio).fold(1.0, f64::max);
        let worth = shares
            .iter()
            .any(|share| share.ratio() > self.settings.uneven && share.held - share.share >= WORTH);
        gauge!("god_upkeep_unevenness").set(worst);
        if sizes.unsettled {
            return false;
        }
        // As soon as there are nodes for copies that a lost node left missing, they are made.
        if !worth && !has_wrong_copies(ring) {
            return false;
        }
        // What cannot be made better is left alone. Only halves are taken from the second answer: who is silent then
        // must not seem to hold nothing.
        let halves = gather_sizes(self, ring, true, few(ring)).await.arcs;
        let mut sizes = sizes.clone();
        for (arc, size) in &mut sizes.arcs {
            size.middle = halves.get(arc).and_then(|half| half.middle.clone());
        }
        plan(&to_plan(ring), &Wish::Rebalance, &sizes).is_ok_and(|plan| !plan.moves.is_empty())
    }

    /// Makes arcs one that were cut apart and are small again. No data moves.
    async fn merge_small(&self, ring: &Arc<Ring>, sizes: &Sizes) {
        let small = small_arcs(ring, sizes);
        if small.is_empty() {
            return;
        }
        let epoch = ring.epoch();
        let change = |ring: &Ring| match ring.epoch() == epoch && ring.operations().is_empty() {
            true => merge(ring, &small),
            false => Ok(None),
        };
        match self.register.change(self.change_timeout, change).await {
            Ok(_) => counter!("god_upkeep_merged_arcs_total").increment(small.len() as u64),
            Err(error) => tracing::debug!(%error, "small arcs could not be merged"),
        }
    }
}
