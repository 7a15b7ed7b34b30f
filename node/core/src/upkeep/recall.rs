//! After this node's machine stopped, or a record was found damaged: fetches from the other replicas what this one may
//! have lost.
//!
//! A write that this replica acknowledged, and lost, is on W - 1 others at least, and what it took on for a read to be
//! answered on R - 1; so one more of the others than may lack it have it among them. Those are compared with, an arc at
//! a time, and until then this replica is no part of a read quorum (invariant LAPSED-IS-NO-VOTE). Others that are
//! lapsed themselves do not count, as they may have lost the same; but where all others were compared with, lapsed
//! or not, there is nobody left to wait for: what all have lost is lost. What the others have and cannot be written
//! over what is damaged here stays lapsed, and the rest is not held up by it.
//!
//! A ring that was put back with the data may name other holders than there are by now, or not this node. Who is asked
//! under it says so; where nobody is to be asked, voters are, whether it is the newest.

use super::{
    Upkeep,
    pull::{PullError, PullRequest, Pulled, exact_to},
};
use crate::ring::{given_up, sources_needed};
use god_proto::{
    ids::NodeId,
    ring::{Ring, RingArc},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::sleep;

/// Between two looks at what is still lapsed; twice as long after each look that mended nothing, up to a bound.
const LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// What is known of others in one pass over what is lapsed.
#[derive(Default)]
struct Pass {
    /// Who does not answer keeps each pass waiting once.
    silent: BTreeSet<NodeId>,
    /// Whether this node's ring was the newest at some moment of it; `None`: nobody had to know yet.
    confirmed: Option<bool>,
}

impl Upkeep {
    /// Goes on until nothing is lapsed any more, and again when something is.
    pub(super) async fn recall(&self) {
        let lapsed = self.replica.lapse();
        let mut pause = LOOK;
        loop {
            lapsed.begun().await;
            let mut mended = false;
            let additions = lapsed.additions();
            if let Some(ring) = self.ring.get() {
                let mut pass = Pass::default();
                // What is only about to be held is copied as a whole.
                let arcs = ring.arcs().iter().filter(|arc| arc.replicas.contains(&self.me));
                for arc in arcs.filter(|arc| self.settings.compares && lapsed.meets(&arc.range)) {
                    match self.recall_arc(&ring, arc, &mut pass).await {
                        Ok(true) => {
                            lapsed.mend(&arc.range, additions);
                            mended |= !lapsed.meets(&arc.range);
                        }
                        Ok(false) => {}
                        Err(error) => tracing::debug!(%arc, %error, "an arc is still lapsed"),
                    }
                }
                if !self.settings.compares
                    || self.lapsed_arcs() == 0 && self.is_newest(&mut pass).await && self.lapsed_arcs() == 0
                {
                    match lapsed.end(additions).await {
                        Ok(()) => tracing::info!("what this node may have lost was compared"),
                        Err(error) => tracing::warn!(%error, "cannot note that nothing is lapsed any more"),
                    }
                }
            }
            pause = if mended || lapsed.is_whole() { LOOK } else { (2 * pause).min(LONGEST_LOOK) };
            sleep(pause).await;
        }
    }

    /// How many arcs of this node are lapsed.
    pub fn lapsed_arcs(&self) -> usize {
        let lapsed = self.replica.lapse();
        if lapsed.is_whole() {
            return 0;
        }
        let Some(ring) = self.ring.get() else { return 0 };
        ring.arcs().iter().filter(|arc| Ring::holds(arc, self.me) && lapsed.meets(&arc.range)).count()
    }

    /// Whether this node has the newest ring; it has when this returns, unless too few voters answer.
    async fn is_newest(&self, pass: &mut Pass) -> bool {
        if pass.confirmed.is_none() {
            let confirmed = self.register.confirm(self.change_timeout).await;
            if let Err(error) = &confirmed {
                tracing::debug!(%error, "whether what is lapsed was moved meanwhile is not known");
            }
            pass.confirmed = Some(confirmed.is_ok());
        }
        pass.confirmed == Some(true)
    }

    /// Compares an arc with enough others; says whether there were enough.
    async fn recall_arc(&self, ring: &Ring, arc: &RingArc, pass: &mut Pass) -> Result<bool, PullError> {
        let still = || self.ring.get().is_some_and(|ring| ring.arc(arc.id) == Some(arc));
        let gone = given_up(ring);
        let replicas = arc.replicas.len();
        let read_quorum = ring.keyspace_by_id(arc.keyspace).map_or(1, |keyspace| {
            let former = keyspace.former.iter().map(|former| former.read_quorum).min();
            keyspace.read_quorum.min(former.unwrap_or(u32::MAX)) as usize
        });
        let read_from = (replicas + 1).saturating_sub(read_quorum);
        let needed = sources_needed(ring, arc.keyspace, &arc.replicas).max(read_from);
        let others = arc.replicas.iter().copied().filter(|node| *node != self.me && !gone.contains(node));
        let (mut whole, mut all, mut is_asked) = (0, true, false);
        for from in others {
            if whole >= needed {
                break;
            }
            if self.is_down(from) || pass.silent.contains(&from) {
                all = false;
                continue;
            }
            match self.recall_from(from, arc, &still).await {
                Ok(is_lapsed) => (whole, is_asked) = (whole + usize::from(!is_lapsed), true),
                Err(PullError::Over) => return Err(PullError::Over),
                Err(error) => {
                    tracing::debug!(%arc, %error, "what this node may have lost could not be compared");
                    // What is wrong here says nothing of the other one.
                    if matches!(error, PullError::Source(..)) {
                        pass.silent.insert(from);
                    }
                    all = false;
                }
            }
        }
        if whole < needed && !all || !is_asked && !self.is_newest(pass).await {
            return Ok(false);
        }
        // A stop of the machine must not take it again.
        self.store.sync().await.map_err(|error| PullError::Own(error.to_string()))?;
        Ok(still())
    }

    /// Takes what is newer at another replica, and forgets what is not there and lies below its repaired floor: that
    /// was purged. Says whether that one is lapsed.
    async fn recall_from(
        &self,
        from: NodeId,
        arc: &RingArc,
        still: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<bool, PullError> {
        let (floors, is_lapsed) = self.floors_of(from, &arc.range, still).await?;
        // PROMISE-INHERITED: first, or what comes in late and was purged there stays here alone.
        self.take_promises(&floors).await?;
        self.replica.drained().await;
        for (part, floor) in &floors {
            let wanted = PullRequest {
                range: part.clone(),
                from,
                as_stored: false,
                votes: false,
                // What it has is taken however old, also where it has not heard yet of this node's floor: at that all
                // were equal. Not from one that may have lost since then what is newer.
                exact_to: if is_lapsed { floor.repaired } else { exact_to(floor.repaired) },
                still,
                done: &|_, _| {},
                is_awaited: false,
                background: false,
            };
            let pulled = match self.pull(&wanted).await {
                // DAMAGE-APART: each position of those was noted as lapsed anew before it was found to stay.
                Err(PullError::Damaged(_)) => Pulled::default(),
                pulled => pulled?,
            };
            metrics::counter!("god_upkeep_recalled_entries_total").increment(pulled.entries);
        }
        let raised = self.replica.floors().raise_parts(&floors).await;
        raised.map_err(|error| PullError::Own(error.to_string()))?;
        Ok(is_lapsed)
    }
}
