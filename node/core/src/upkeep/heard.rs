//! Who has heard of a ring, and what waits for that: other quorums (invariant QUORUMS-HEARD), and names of keyspaces
//! that were deleted (invariant NAME-HEARD).

use super::{
    Upkeep,
    drive::{TIMEOUT, Unclean},
};
use crate::{
    peer::CallError,
    ring::{Hearing, names_wait_for, unheard_of},
};
use futures::future::join_all;
use god_proto::{
    ids::{Epoch, NodeId},
    peer::{Cause, Fence, request},
    ring::Ring,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::time::{Duration, Instant, sleep, timeout_at};
use uuid::Uuid;

/// Between two questions whether nodes have heard of a ring that was decided a moment ago.
const PAUSE: Duration = Duration::from_millis(20);

/// Who has said that it has the ring of an epoch, and has nothing under way under an older one; and by which start.
/// That holds for as long as that process runs, so that nobody's writes are held up to be asked twice: the next one may
/// run on a directory that was put back, and have forgotten it.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<(Epoch, BTreeMap<NodeId, Uuid>)>);

impl Heard {
    /// Who still runs, by what is the latest start of each.
    fn of(&self, epoch: Epoch, latest: impl Fn(NodeId) -> Uuid) -> BTreeSet<NodeId> {
        let known = self.0.lock();
        if known.0 != epoch {
            return BTreeSet::new();
        }
        known.1.iter().filter(|(node, start)| latest(**node) == **start).map(|(node, _)| *node).collect()
    }

    fn note(&self, epoch: Epoch, nodes: impl IntoIterator<Item = (NodeId, Uuid)>) {
        let mut known = self.0.lock();
        if known.0 < epoch {
            *known = (epoch, BTreeMap::new());
        }
        if known.0 == epoch {
            known.1.extend(nodes);
        }
    }
}

impl Upkeep {
    /// Those of whom `waits_for` says that they must hear of a ring, and who have not. It is given those who have.
    /// Cost: a message to each that it names at first.
    async fn ask_who_heard(
        &self,
        ring: &Arc<Ring>,
        waits_for: impl Fn(&BTreeSet<NodeId>) -> BTreeSet<NodeId>,
    ) -> (BTreeSet<NodeId>, BTreeMap<NodeId, Unclean>) {
        let latest = |node| self.starts.latest(node);
        let mut heard = self.heard.of(ring.epoch(), latest);
        let asked = waits_for(&heard).into_iter().map(|node| async move {
            let start = latest(node);
            // Answered under the same ring only, once what was admitted under older ones is applied.
            match self.ask_node(node, ring.epoch().0, TIMEOUT, request::Body::Fence(Fence {})).await {
                Ok(_) if latest(node) == start => (node, Ok(start)),
                Err(CallError::Refused(failure)) if failure.cause() == Cause::StaleEpoch => {
                    // Whoever asks again asks under what both have then.
                    self.meet(node, failure.epoch, ring).await;
                    (node, Err(Unclean::Behind))
                }
                // Where the process is another one by now, it is not known which of them answered.
                Ok(_) | Err(CallError::Refused(_)) => (node, Err(Unclean::Behind)),
                Err(_) => (node, Err(Unclean::Silent)),
            }
        });
        let said = join_all(asked).await;
        let new = || said.iter().filter_map(|(node, said)| Some((*node, said.ok()?)));
        heard.extend(new().map(|(node, _)| node));
        self.heard.note(ring.epoch(), new());
        let left = waits_for(&heard);
        let unheard = said.into_iter().filter_map(|(node, said)| Some((node, said.err()?)));
        (heard, unheard.filter(|(node, _)| left.contains(node)).collect())
    }

    /// Who must hear of the ring before other quorums hold, and has not (QUORUMS-HEARD).
    pub(super) async fn unheard(&self, ring: &Arc<Ring>) -> BTreeMap<NodeId, Unclean> {
        self.ask_who_heard(ring, |heard| unheard_of(ring, heard)).await.1
    }

    /// Waits until the name of a deleted keyspace is free, or all of them (`None`), by the ring that is known; at most
    /// so long. Gives who has heard, of which more may be asked than that (NAME-HEARD).
    pub async fn names_heard(&self, name: Option<&str>, timeout: Duration) -> Hearing {
        let deadline = Instant::now() + timeout;
        let mut hearing = Hearing::default();
        while let Some(ring) = self.ring.get() {
            let hearing_of = |by: &BTreeSet<NodeId>| Hearing { epoch: ring.epoch(), by: by.clone() };
            let waits_for = |by: &BTreeSet<NodeId>| names_wait_for(&ring, name, &hearing_of(by));
            if waits_for(&BTreeSet::new()).is_empty() {
                break;
            }
            let asked = timeout_at(deadline, self.ask_who_heard(&ring, waits_for)).await;
            let Ok((by, unheard)) = asked else { break };
            hearing = hearing_of(&by);
            if unheard.is_empty() || Instant::now() + PAUSE >= deadline {
                break;
            }
            sleep(PAUSE).await;
        }
        hearing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QUORUMS-HEARD.
    #[test]
    fn who_has_heard_of_a_ring_counts_for_as_long_as_it_runs() {
        let (heard, one, two) = (Heard::default(), NodeId(1), NodeId(2));
        let start = |id: u128| Uuid::from_u128(id);
        heard.note(Epoch(5), [(one, start(10)), (two, start(20))]);
        assert_eq!(heard.of(Epoch(5), |node| start(u128::from(node.0) * 10)), BTreeSet::from([one, two]));
        let again = |node| if node == two { start(21) } else { start(10) };
        assert_eq!(heard.of(Epoch(5), again), BTreeSet::from([one]), "2 may have been put back since");
        heard.note(Epoch(5), [(two, start(21))]);
        assert_eq!(heard.of(Epoch(5), again), BTreeSet::from([one, two]));
        heard.note(Epoch(4), [(NodeId(3), start(30))]);
        heard.note(Epoch(6), []);
        assert!(heard.of(Epoch(5), again).is_empty() && heard.of(Epoch(6), again).is_empty());
    }
}
